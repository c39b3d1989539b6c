//! One daemon per state folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the state folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "the state folder {} belongs to another 'napa host', process {holder}: stop that one, or give this one a folder of its own with --state",
        .folder.display()
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process, by its own word.
        holder: String,
    },
    /// It cannot be used.
    #[error(
        "cannot use the state folder {}: {source}; name one that you may write with --state",
        .folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The state folder, for this process alone until it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder, for its owner alone, if it is not there, and takes it.
    ///
    /// # Errors
    /// Another daemon has it, or it cannot be made or written.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Folder { folder: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { folder: folder.to_owned(), holder: holder(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // The name of the holder is for people; a full disk does not keep the daemon from running.
        let _ = write_holder(&mut file);
        Ok(Self { _file: file })
    }
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(20).read_to_string(&mut text) {
        Ok(count) if count > 0 => text.trim().to_owned(),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_daemon_and_says_which() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let first = FolderLock::take(&state).unwrap();
        let error = FolderLock::take(&state).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        FolderLock::take(&state).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = FolderLock::take(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state") && error.contains("--state"), "{error}");
    }
}
