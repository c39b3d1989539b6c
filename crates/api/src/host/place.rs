//! Where a host's daemon listens and keeps its state.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The file name of the daemon's socket.
pub const HOST_SOCKET_FILE: &str = "host.sock";

/// Where the daemon listens, unless it is told otherwise. `runtime_dir` is the value of `XDG_RUNTIME_DIR`; one that is
/// not an absolute path counts as absent (XDG Base Directory Specification).
pub fn host_socket(runtime_dir: Option<&OsStr>) -> PathBuf {
    crate::control::socket_folder(runtime_dir).join(HOST_SOCKET_FILE)
}

/// Where the daemon keeps its state, unless it is told otherwise: `/var/lib/napa` for root, `napa` in the user's state
/// folder for anybody else. `state_home` and `home` are the values of `XDG_STATE_HOME` and `HOME`; `None`: the user has
/// neither.
pub fn state_folder(is_root: bool, state_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute =
        |folder: Option<&OsStr>| folder.map(Path::new).filter(|path| path.is_absolute()).map(Path::to_owned);
    match is_root {
        true => Some(PathBuf::from("/var/lib/napa")),
        false => {
            let state = absolute(state_home).or_else(|| Some(absolute(home)?.join(".local/state")));
            state.map(|folder| folder.join("napa"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_where_the_user_keeps_it() {
        for (is_root, state_home, home, expected) in [
            (true, Some("/x"), Some("/root"), Some("/var/lib/napa")),
            (false, Some("/x"), Some("/users/a"), Some("/x/napa")),
            (false, Some("x"), Some("/users/a"), Some("/users/a/.local/state/napa")),
            (false, None, Some("/users/a"), Some("/users/a/.local/state/napa")),
            (false, None, None, None),
        ] {
            let found = state_folder(is_root, state_home.map(OsStr::new), home.map(OsStr::new));
            assert_eq!(found.as_deref(), expected.map(Path::new));
        }
    }

    #[test]
    fn the_daemon_listens_beside_named_vms() {
        assert_eq!(host_socket(None), Path::new("/run/napa/host.sock"));
        assert_eq!(host_socket(Some(OsStr::new("/run/user/7"))), Path::new("/run/user/7/napa/host.sock"));
    }
}
