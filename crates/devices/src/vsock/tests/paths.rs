use std::os::unix::net::UnixListener;

use napa_api::config::VsockConfig;

use crate::OpenError;
use crate::vsock::Vsock;

#[test]
fn a_path_that_cannot_be_used_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = |name: &str| Vsock::open(&VsockConfig { cid: 3, path: path(name) });
    let check = |name: &str, expected: &str| {
        let error = open(name).err().expect("this cannot be opened");
        assert!(matches!(error, OpenError::Input(_)), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("--vsock: ") && text.contains(name) && text.contains(expected), "{text}");
    };
    std::fs::write(path("file"), "precious").unwrap();
    check("file", "no socket");
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "precious");
    check("no/such/folder", "a folder that exists");

    let live = open("live").unwrap();
    check("live", "another process listens");
    drop(live);
    assert!(!path("live").exists(), "the socket vanishes with the device");

    drop(UnixListener::bind(path("stale")).unwrap());
    assert!(path("stale").exists());
    drop(open("stale").unwrap());
}
