//! TCP: nobody gets in without a certificate that the authority has signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use napa_host::server::{TlsError, TlsListener, TlsPaths, router};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::support::sources;

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

fn write(folder: &Path, name: &str, text: String) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn paths(folder: &Path, authority: &Authority) -> TlsPaths {
    let (certificate, key) = authority.sign();
    TlsPaths {
        certificate: write(folder, "cert.pem", certificate.pem()),
        key: write(folder, "key.pem", key.serialize_pem()),
        client_authority: write(folder, "ca.pem", authority.certificate.pem()),
    }
}

/// What a client with this certificate, or none, gets for a request.
async fn ask(port: u16, server: &Authority, client: Option<&Authority>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(server.certificate.der().to_vec())).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(authority) => {
            let (certificate, key) = authority.sign();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /v1/vms HTTP/1.1\r\nHost: napa\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[test]
fn only_signed_clients_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = TlsListener::bind(address, &paths(folder.path(), &authority)).await.unwrap();
        let port = listener.address().port();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router(sources(&state))).await });
        let text = ask(port, &authority, Some(&authority)).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("{\"vms\":[]}"), "{text}");
        for client in [None, Some(&stranger)] {
            let refused = ask(port, &authority, client).await;
            assert!(refused.as_ref().map_or(true, String::is_empty), "{refused:?}");
        }
        // Plain HTTP is no way around.
        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        plain.write_all(b"GET /v1/vms HTTP/1.1\r\nHost: napa\r\n\r\n").await.unwrap();
        let mut bytes = Vec::new();
        let _ = plain.read_to_end(&mut bytes).await;
        assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
        server.abort();
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = paths(folder.path(), &Authority::new());
    let empty = write(folder.path(), "empty.pem", String::new());
    let missing = folder.path().join("missing.pem");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = |paths: TlsPaths| -> TlsError {
        runtime.block_on(TlsListener::bind("127.0.0.1:0".parse().unwrap(), &paths)).err().unwrap()
    };
    for (paths, words) in [
        (TlsPaths { certificate: missing.clone(), ..good.clone() }, "--tls-cert"),
        (TlsPaths { certificate: empty.clone(), ..good.clone() }, "there is no certificate in it"),
        (TlsPaths { key: missing, ..good.clone() }, "--tls-key"),
        (TlsPaths { client_authority: empty, ..good.clone() }, "--tls-client-ca"),
        (TlsPaths { certificate: good.client_authority.clone(), ..good }, "do not go together"),
    ] {
        let error = error(paths).to_string();
        assert!(error.contains(words), "{error}");
    }
}
