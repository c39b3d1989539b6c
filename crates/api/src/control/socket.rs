//! Where a named VM listens.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How the name of a control socket ends.
pub const SOCKET_SUFFIX: &str = ".sock";

/// The folder of the control sockets of named VMs. `runtime_dir` is the value of `XDG_RUNTIME_DIR`; one that
/// is not an absolute path counts as absent (XDG Base Directory Specification).
pub fn socket_folder(runtime_dir: Option<&OsStr>) -> PathBuf {
    match runtime_dir.map(Path::new) {
        Some(folder) if folder.is_absolute() => folder.join("napa"),
        _ => PathBuf::from("/run/napa"),
    }
}

/// The control socket of the VM `name`, unless its configuration says otherwise.
pub fn socket_path(name: &str, runtime_dir: Option<&OsStr>) -> PathBuf {
    socket_folder(runtime_dir).join(format!("{name}{SOCKET_SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_vm_listens_in_the_runtime_folder() {
        for (runtime_dir, expected) in [
            (None, "/run/napa/web.sock"),
            (Some(""), "/run/napa/web.sock"),
            (Some("relative"), "/run/napa/web.sock"),
            (Some("/run/user/1000"), "/run/user/1000/napa/web.sock"),
        ] {
            assert_eq!(socket_path("web", runtime_dir.map(OsStr::new)), Path::new(expected));
        }
    }
}
