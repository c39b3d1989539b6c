//! What a VM has in the state folder.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The folder of one VM. It is named by the VM's number: short enough for sockets, and never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFolder {
    path: PathBuf,
}

impl VmFolder {
    /// The folder of VM `id`. It need not be there.
    pub fn new(state: &Path, id: u64) -> Self {
        Self { path: all(state).join(id.to_string()) }
    }

    /// Makes it, for its owner alone.
    ///
    /// # Errors
    /// The disk is full, for example.
    pub fn make(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// Removes it and all in it, if it is there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The control socket of the VM.
    pub fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The socket of its console.
    pub fn console(&self) -> PathBuf {
        self.path.join("console.sock")
    }

    /// What the VM's process is told.
    pub fn config(&self) -> PathBuf {
        self.path.join("vm.toml")
    }

    /// What the VM and its process say.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Held by the VM's process while it lives.
    pub fn run_lock(&self) -> PathBuf {
        self.path.join("run.lock")
    }

    /// How the VM ended, by the word of its process.
    pub fn exit_note(&self) -> PathBuf {
        self.path.join("exit.json")
    }
}

/// The numbers of the VMs that have a folder.
pub fn ids(state: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(all(state)) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn all(state: &Path) -> PathBuf {
    state.join("vm")
}
