//! TCP with certificates of both sides: who has none that the authority signed does not get as far as HTTP.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Handshakes under way at once; more connections wait in the kernel.
const HANDSHAKES_MAX: usize = 16;
/// How long a handshake may take.
const HANDSHAKE_BOUND: Duration = Duration::from_secs(10);
/// The wait after an error of the listening socket, such as no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// The files of certificates, in PEM.
#[derive(Clone, Debug)]
pub struct TlsPaths {
    /// The daemon's certificate, then those up to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that sign clients' certificates.
    pub client_authority: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{flag} {}: {source}; name a file in PEM", .path.display())]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A file has no certificate in it.
    #[error("{flag} {}: there is no certificate in it; name a file in PEM", .path.display())]
    Empty {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The files do not go together.
    #[error("--tls-cert, --tls-key and --tls-client-ca do not go together: {0}")]
    Unfit(String),
    /// The address cannot be had.
    #[error("--listen {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Takes connections whose handshake is done.
pub struct TlsListener {
    streams: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    /// Listens at `address`. To be called within a runtime.
    ///
    /// # Errors
    /// A file cannot be used, or the address cannot be had.
    pub async fn bind(address: SocketAddr, paths: &TlsPaths) -> Result<Self, TlsError> {
        let acceptor = TlsAcceptor::from(Arc::new(configure(paths)?));
        let bound = TcpListener::bind(address).await.map_err(|source| TlsError::Bind { address, source })?;
        let address = bound.local_addr().map_err(|source| TlsError::Bind { address, source })?;
        let (sender, streams) = mpsc::channel(HANDSHAKES_MAX);
        tokio::spawn(accept(bound, acceptor, sender));
        Ok(Self { streams, address })
    }

    /// The address that is listened at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.streams.recv().await {
            Some(accepted) => accepted,
            // The task that accepts lives as long as the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Ok(place) = Arc::clone(&handshakes).acquire_owned().await {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_BOUND, acceptor.accept(stream)).await;
            drop(place);
            if let Ok(Ok(stream)) = handshake {
                // Fails when the server ends.
                let _ = sender.send((stream, peer)).await;
            }
        });
    }
}

fn configure(paths: &TlsPaths) -> Result<ServerConfig, TlsError> {
    let chain = certificates("--tls-cert", &paths.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&paths.key).map_err(|source| TlsError::File {
        flag: "--tls-key",
        path: paths.key.clone(),
        source,
    })?;
    let mut authorities = RootCertStore::empty();
    for authority in certificates("--tls-client-ca", &paths.client_authority)? {
        authorities.add(authority).map_err(unfit)?;
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
        .build()
        .map_err(unfit)?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unfit)
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { flag, path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    match found.map_err(failed)? {
        found if found.is_empty() => Err(TlsError::Empty { flag, path: path.to_owned() }),
        found => Ok(found),
    }
}

fn unfit(error: impl std::fmt::Display) -> TlsError {
    TlsError::Unfit(error.to_string())
}
