//! The disk that carries files from the machine into a host: a read-only erofs image.
//!
//! The virtio serial port is slow, a disk is not. Its size is always the same, because a host restored
//! from a snapshot expects the disk it knew.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::command::run_quietly;
use crate::tools::Tools;

/// The disk's size; the file is sparse.
const SIZE: u64 = 256 << 20;

/// Files for a host, which finds them below `/share`.
#[derive(Debug, Clone, Default)]
pub struct Share {
    files: Vec<(String, Source)>,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Share {
    /// No files.
    pub fn new() -> Share {
        Share::default()
    }

    /// Adds a file with this content, executable, at `path` below `/share`.
    #[must_use]
    pub fn with_bytes(mut self, path: &str, content: impl Into<Vec<u8>>) -> Share {
        self.files.push((path.to_owned(), Source::Bytes(content.into())));
        self
    }

    /// Adds a copy of a file of this machine, executable, at `path` below `/share`.
    #[must_use]
    pub fn with_file(mut self, path: &str, file: &Path) -> Share {
        self.files.push((path.to_owned(), Source::File(file.to_owned())));
        self
    }

    /// Adds all files of `other`, which win over files of the same path.
    #[must_use]
    pub fn with(mut self, other: &Share) -> Share {
        self.files.extend(other.files.iter().cloned());
        self
    }

    /// Writes the image; `scratch` is a folder for the files on their way.
    pub(crate) fn write_image(&self, image: &Path, scratch: &Path, tools: &Tools) -> Result<()> {
        fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
        self.files.iter().try_for_each(|(path, source)| put(scratch, path, source))?;
        let mut mkfs = tools.command("usr/bin/mkfs.erofs")?;
        run_quietly(mkfs.args(["--quiet", "--all-root"]).arg(image).arg(scratch))?;
        fs::remove_dir_all(scratch).with_context(|| format!("delete {}", scratch.display()))?;
        let file = OpenOptions::new().write(true).open(image);
        let file = file.with_context(|| format!("open {}", image.display()))?;
        let length = file.metadata().with_context(|| format!("measure {}", image.display()))?.len();
        ensure!(length <= SIZE, "the files for the host make {length} bytes, its share holds {SIZE}");
        file.set_len(SIZE).with_context(|| format!("extend {}", image.display()))
    }
}

fn put(folder: &Path, path: &str, source: &Source) -> Result<()> {
    let is_plain = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    ensure!(is_plain && !path.is_empty(), "{path:?} is not a path below a folder");
    let file = folder.join(path);
    let parent = file.parent().context("a file has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    match source {
        Source::Bytes(content) => fs::write(&file, content),
        Source::File(original) => fs::copy(original, &file).map(drop),
    }
    .with_context(|| format!("put {path} into the host's share"))?;
    let executable = Permissions::from_mode(0o755);
    fs::set_permissions(&file, executable).with_context(|| format!("make {path} executable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_place_and_become_executable() {
        let folder = std::env::temp_dir().join(format!("napa-share-test-{}", std::process::id()));
        put(&folder, "bin/napa", &Source::Bytes(b"elf".to_vec())).unwrap();
        let file = folder.join("bin/napa");
        assert_eq!(fs::read(&file).unwrap(), b"elf");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        for path in ["../escape", "/absolute", "", "a/../../b"] {
            assert!(put(&folder, path, &Source::Bytes(Vec::new())).is_err(), "{path}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
