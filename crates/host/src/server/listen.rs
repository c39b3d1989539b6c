//! The daemon's Unix socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use napa_sys::socket::{BindError, Listener};
use rustix::fs::Gid;

/// Why the daemon cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket cannot be had.
    #[error("--socket: {0}")]
    Bind(#[from] BindError),
    /// Its folder cannot be made.
    #[error("--socket: cannot make the folder {}: {source}; name a socket elsewhere with --socket", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no such group.
    #[error("--group {0}: there is no such group in /etc/group; make it with groupadd, or give its number")]
    Group(String),
    /// The group cannot be given the socket.
    #[error("--group {group}: cannot give it {}: {source}; run napa host as root, or name a group of your own", .path.display())]
    Chown {
        /// The group.
        group: String,
        /// The socket, or its folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The runtime cannot take it.
    #[error("cannot listen: {0}")]
    Runtime(#[from] io::Error),
}

/// The daemon's socket. Its path vanishes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: Listener,
}

impl UnixSocket {
    /// Listens at `path`: for the daemon's own user (mode 0600), or a group's members as well (0660).
    ///
    /// # Errors
    /// The path is taken or cannot be used, or the group cannot be given it.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        let gid = group
            .map(|group| find_group(group).ok_or_else(|| ListenError::Group(group.to_owned())))
            .transpose()?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let is_new = !folder.exists();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| ListenError::Folder { folder: folder.to_owned(), source })?;
        let listener = Listener::bind(path)?;
        if let (Some(gid), Some(group)) = (gid, group) {
            let give = |path: &Path, mode: u32| {
                std::os::unix::fs::chown(path, None, Some(gid.as_raw()))
                    .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)))
                    .map_err(|source| ListenError::Chown {
                        group: group.to_owned(),
                        path: path.to_owned(),
                        source,
                    })
            };
            if is_new {
                // Members may pass through, and see nothing else in it.
                give(folder, 0o710)?;
            }
            give(path, 0o660)?;
        }
        Ok(Self { listener })
    }

    /// The socket for the server.
    ///
    /// # Errors
    /// There is no descriptor left, or this is not called within a runtime.
    pub fn for_server(&self) -> Result<tokio::net::UnixListener, ListenError> {
        let copy: OwnedFd = self.listener.as_fd().try_clone_to_owned()?;
        Ok(tokio::net::UnixListener::from_std(copy.into())?)
    }
}

/// A group by its name or number.
fn find_group(group: &str) -> Option<Gid> {
    let named = std::fs::read_to_string("/etc/group").ok().and_then(|text| group_in(&text, group));
    named.or_else(|| group.parse().ok()).map(Gid::from_raw)
}

/// The number of a group in the text of group(5).
fn group_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name() {
        let text = "root:x:0:\nkvm:x:104:alice,bob\nbroken\nnapa:x:1000:\n";
        for (name, expected) in [("kvm", Some(104)), ("napa", Some(1000)), ("broken", None), ("x", None)] {
            assert_eq!(group_in(text, name), expected, "{name}");
        }
    }

    #[test]
    fn the_socket_is_for_its_user_or_a_group() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let path = folder.path().join("new/host.sock");
        let socket = UnixSocket::bind(&path, None).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(UnixSocket::bind(&path, None), Err(ListenError::Bind(BindError::InUse(_)))));
        drop(socket);
        let own = rustix::process::getgid().as_raw().to_string();
        let path = folder.path().join("other/host.sock");
        let _socket = UnixSocket::bind(&path, Some(&own)).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o710));
        assert!(matches!(UnixSocket::bind(&path, Some("no such group")), Err(ListenError::Group(_))));
    }
}
