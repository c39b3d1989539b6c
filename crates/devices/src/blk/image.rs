//! The image behind a disk: opened, checked and locked, or refused with what mends it.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use napa_api::config::{CacheMode, DiskConfig};

use super::aligned::AlignedBuffer;
use super::geometry::{Alignment, Blocks};
use super::request::SECTOR_BYTES;
use crate::image_lock::{LockError, lock};

/// How every qcow2 image starts.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// What is read to see whether the image can be read: a block of any disk.
const PROBE_BYTES: usize = 4096;

/// An image that is open and locked. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    /// Size in bytes, a multiple of a sector and not zero.
    pub capacity: u64,
    /// Sizes of its blocks.
    pub blocks: Blocks,
    /// What direct I/O asks of memory; `None` with the page cache, which takes anything.
    pub alignment: Option<Alignment>,
    /// Whether it was opened for reading only.
    pub is_readonly: bool,
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("does not exist; `truncate -s 10G FILE` makes an empty image")]
    Missing,
    #[error("is a folder; a disk is an image file or a block device")]
    Folder,
    #[error("is neither a file nor a block device")]
    Kind,
    #[error("may not be opened for {0} by this user; change its owner or mode{1}")]
    Permission(&'static str, &'static str),
    #[error("lies on a read-only file system; add `readonly` to the disk")]
    ReadOnlyFileSystem,
    #[error("is in use: mounted, or the disk of another VM; free it, or add `readonly` to the disk")]
    Busy,
    #[error("lies on a file system that refuses direct I/O; add `cache=writeback` to the disk")]
    NoDirect,
    #[error("is empty; `truncate -s 10G FILE` gives an image a size")]
    Empty,
    #[error(
        "has {0} bytes, not a multiple of 512; `truncate -s %512 FILE` rounds it up if it is a raw image"
    )]
    Size(u64),
    #[error(
        "has {0} bytes, not a multiple of the {1} that direct I/O needs; add `cache=writeback` to the disk"
    )]
    DirectSize(u64, u64),
    #[error("is a qcow2 image, and only raw ones can be used; `qemu-img convert -O raw OLD NEW` converts it")]
    Qcow2,
    #[error(
        "is locked by {}; stop it, or add `readonly` to the disk of each user",
        .0.map_or("another VM or program".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked(Option<i32>),
    #[error("cannot {0}: {1}")]
    Host(&'static str, #[source] io::Error),
}

impl Image {
    /// Opens what `config` names.
    pub fn open(config: &DiskConfig) -> Result<Self, ImageError> {
        let is_direct = config.cache == CacheMode::None;
        // Before opening: to open some kinds of file has effects of its own, or blocks.
        let metadata = config.path.metadata().map_err(|error| open_error(&error, config.readonly, false))?;
        check_kind(&metadata)?;
        let file = open_file(&config.path, &metadata, config.readonly, is_direct)?;
        lock(&file, config.readonly).map_err(|error| match error {
            LockError::Held(holder) => ImageError::Locked(holder),
            LockError::Host(error) => ImageError::Host("lock it", error),
        })?;
        let metadata = file.metadata().map_err(|error| ImageError::Host("look at it", error))?;
        check_kind(&metadata)?;

        let capacity = size(&file)?;
        let alignment = match is_direct {
            true => Some(Alignment::of(&file, &metadata).ok_or(ImageError::NoDirect)?),
            false => None,
        };
        // The format first: a foreign one may well have an odd size.
        check_start(&file)?;
        check_size(capacity, alignment.as_ref())?;
        let blocks = Blocks::of(&file, &metadata, alignment.as_ref());
        Ok(Self { file, capacity, blocks, alignment, is_readonly: config.readonly })
    }

    /// The open file, for entries on a ring. It stays open as long as the image lives.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn check_kind(metadata: &Metadata) -> Result<(), ImageError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Err(ImageError::Folder)
    } else if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else {
        Err(ImageError::Kind)
    }
}

fn open_file(
    path: &Path,
    metadata: &Metadata,
    is_readonly: bool,
    is_direct: bool,
) -> Result<File, ImageError> {
    let direct = if is_direct { libc::O_DIRECT } else { 0 };
    // A block device that is written must not be mounted here: without O_CREAT, O_EXCL asks for that.
    let exclusive = if metadata.file_type().is_block_device() && !is_readonly { libc::O_EXCL } else { 0 };
    File::options()
        .read(true)
        .write(!is_readonly)
        .custom_flags(direct | exclusive | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| open_error(&error, is_readonly, is_direct))
}

fn open_error(error: &io::Error, is_readonly: bool, is_direct: bool) -> ImageError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => ImageError::Missing,
        Some(libc::EACCES | libc::EPERM) if is_readonly => ImageError::Permission("reading", ""),
        Some(libc::EACCES | libc::EPERM) => {
            ImageError::Permission("writing", ", or add `readonly` to the disk")
        }
        Some(libc::EROFS) => ImageError::ReadOnlyFileSystem,
        Some(libc::EBUSY) => ImageError::Busy,
        Some(libc::EINVAL) if is_direct => ImageError::NoDirect,
        code => ImageError::Host("open it", code.map_or(error.kind().into(), io::Error::from_raw_os_error)),
    }
}

/// The end of a file and of a block device alike.
fn size(file: &File) -> Result<u64, ImageError> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))
        .map_err(|error| ImageError::Host("find its size", error.into()))
}

fn check_size(capacity: u64, alignment: Option<&Alignment>) -> Result<(), ImageError> {
    let block = alignment.map_or(SECTOR_BYTES, |alignment| alignment.offset);
    match capacity {
        0 => Err(ImageError::Empty),
        _ if !capacity.is_multiple_of(SECTOR_BYTES) => Err(ImageError::Size(capacity)),
        _ if !capacity.is_multiple_of(block) => Err(ImageError::DirectSize(capacity, block)),
        _ => Ok(()),
    }
}

/// Reads the start of the image: it can be read, and it is what it is taken for.
fn check_start(file: &File) -> Result<(), ImageError> {
    let mut buffer = AlignedBuffer::new(PROBE_BYTES);
    let count = file.read_at(buffer.bytes_mut(), 0).map_err(|error| ImageError::Host("read it", error))?;
    if buffer.bytes()[..count].starts_with(QCOW2_MAGIC) { Err(ImageError::Qcow2) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_comes_with_what_mends_it() {
        let check = |code: i32, is_readonly: bool, is_direct: bool, words: &[&str]| {
            let error = open_error(&io::Error::from_raw_os_error(code), is_readonly, is_direct);
            let message = error.to_string();
            assert!(
                words.iter().all(|word| message.contains(word)),
                "{code}: {message} lacks one of {words:?}"
            );
        };
        check(libc::EACCES, false, true, &["writing", "add `readonly`"]);
        check(libc::EPERM, false, false, &["writing", "add `readonly`"]);
        check(libc::EACCES, true, true, &["reading", "owner or mode"]);
        check(libc::EROFS, false, true, &["read-only file system", "add `readonly`"]);
        check(libc::EBUSY, false, true, &["mounted", "add `readonly`"]);
        check(libc::EINVAL, false, true, &["direct I/O", "cache=writeback"]);
        check(libc::EMFILE, false, true, &["cannot open it", "Too many open files"]);
    }

    #[test]
    fn a_size_must_suit_sectors_and_direct_io() {
        let large = Alignment { memory: 512, offset: 4096 };
        let check = |capacity, alignment: Option<&Alignment>, word: &str| {
            let message =
                check_size(capacity, alignment).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(word) && message.is_empty() == word.is_empty(), "{capacity}: {message}");
        };
        check(512, None, "");
        check(4096, Some(&large), "");
        check(0, None, "empty");
        check(511, Some(&large), "multiple of 512");
        check(512, Some(&large), "cache=writeback");
    }
}
