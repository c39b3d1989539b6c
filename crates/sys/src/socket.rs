//! Unix sockets that belong to this process while it lives.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the kernel may take to close the sockets of a process that has died: it lets go of what an io_uring
/// held after the process is gone.
const CLOSE_BOUND: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const CLOSE_POLL: Duration = Duration::from_millis(2);

/// The paths of this process's sockets, for an end at which nobody drops them.
static BOUND: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{} is in use: another process listens there; stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// There is something else at the path.
    #[error("{} exists and is no socket; choose another path", .0.display())]
    NotSocket(PathBuf),
    /// The kernel refused.
    #[error("cannot listen on {}: {source}", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A listening socket, for its owner alone (mode 0600). Its path vanishes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, without blocking in [`accept`](Self::accept). A socket that a dead process left
    /// behind is replaced.
    ///
    /// # Errors
    /// The path is taken or cannot be used.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let refused = |source| BindError::Refused { path: path.to_owned(), source };
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(path.to_owned()),
            _ => refused(source),
        })?;
        let bound = Self { listener, path: path.to_owned() };
        // A path that the kernel took has no zero byte.
        BOUND
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(CString::new(path.as_os_str().as_bytes()));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(refused)?;
        bound.listener.set_nonblocking(true).map_err(refused)?;
        Ok(bound)
    }

    /// The next connection, set to be non-blocking; `None` when there is none.
    ///
    /// # Errors
    /// The process is out of file descriptors, for example; later calls may succeed.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => stream.set_nonblocking(true).map(|()| Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have removed it before; there is nobody to tell.
        let _ = std::fs::remove_file(&self.path);
        let is_other = |path: &CString| path.as_bytes() != self.path.as_os_str().as_bytes();
        BOUND.lock().unwrap_or_else(PoisonError::into_inner).retain(is_other);
    }
}

/// Removes the paths of all sockets of this process, which is about to end without dropping them. May be called in a
/// signal handler: where another thread has the list, nothing happens.
pub fn remove_all() {
    let Ok(bound) = BOUND.try_lock() else { return };
    for path in bound.iter() {
        // One that is gone need not be removed.
        let _ = rustix::fs::unlink(path.as_c_str());
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotSocket(path.to_owned()));
    }
    let until = Instant::now() + CLOSE_BOUND;
    loop {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let refused = |source| BindError::Refused { path: path.to_owned(), source };
                return std::fs::remove_file(path).map_err(refused);
            }
            Ok(stream) if has_died(&stream) && Instant::now() < until => std::thread::sleep(CLOSE_POLL),
            _ => return Err(BindError::InUse(path.to_owned())),
        }
    }
}

/// Whether the process that listened at the other end is gone, although its socket still takes connections.
fn has_died(stream: &UnixStream) -> bool {
    // A process that cannot be named from here (of another PID namespace) cannot be said to have died.
    let listener = rustix::net::sockopt::socket_peercred(stream).map(|peer| peer.pid);
    listener.is_ok_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("napa-socket-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_socket_is_private_and_vanishes_with_its_listener() {
        let folder = folder("life");
        let path = folder.join("s");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listener.accept().unwrap().is_none());
        let _client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        assert!(matches!(Listener::bind(&path), Err(BindError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A socket that outlives the process that listened on it, as one does for a moment that an io_uring held.
    #[test]
    fn a_socket_whose_process_has_died_is_waited_for() {
        let folder = folder("late");
        let path = folder.join("s");
        let script = "import os, socket, sys, time\n\
                      s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
                      if os.fork() == 0: time.sleep(0.3)";
        let listens = std::process::Command::new("python3").args(["-c", script]).arg(&path).status();
        if !listens.is_ok_and(|status| status.success()) {
            println!("skipped: there is no python3 to listen and die");
            return;
        }
        UnixStream::connect(&path).expect("the child still holds the socket");
        drop(Listener::bind(&path).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let folder = folder("stale");
        let (stale, file) = (folder.join("stale"), folder.join("file"));
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        drop(Listener::bind(&stale).unwrap());
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(Listener::bind(&file), Err(BindError::NotSocket(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        assert!(matches!(Listener::bind(&folder.join("no/such")), Err(BindError::Refused { .. })));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
