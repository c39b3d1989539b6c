//! The image behind the memory: opened, checked and locked, or refused with what mends it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use napa_units::Bytes;

use crate::image_lock::{LockError, lock};

/// Linux takes persistent memory in multiples of this: it maps it with pages of this size.
const ALIGNMENT: u64 = 2 << 20;

/// The largest image: as much as a VM may have RAM. KVM takes almost twice that in one piece.
const SIZE_MAX: Bytes = Bytes::gib(4096);

/// An image that is open, and locked against writers. The lock ends when the last user of the file is gone.
#[derive(Debug)]
pub(super) struct Image {
    pub file: Arc<File>,
    /// What the guest gets: the size of the image, rounded up to a multiple of 2 MiB.
    pub window: Bytes,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("does not exist; check the path")]
    Missing,
    #[error("is a folder; name an image file with a file system in it")]
    Folder,
    #[error("is neither a file nor a block device")]
    Kind,
    #[error("may not be opened for reading by this user; change its owner or mode")]
    Permission,
    #[error("is empty; `mke2fs -d FOLDER FILE 1G` makes an image of a folder")]
    Empty,
    #[error("is too large to be memory: it has {0} bytes, and an image may have {SIZE_MAX}")]
    TooLarge(u64),
    #[error(
        "is locked by {}, which writes to it; stop that, or give this VM a copy",
        .0.map_or("another VM or program".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked(Option<i32>),
    #[error("cannot {0}: {1}")]
    Host(&'static str, #[source] io::Error),
}

impl Image {
    /// Opens the image at `path` for reading.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        // Before opening: to open some kinds of file has effects of its own, or blocks.
        let kind = path.metadata().map_err(open_error)?.file_type();
        if kind.is_dir() {
            return Err(ImageError::Folder);
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(ImageError::Kind);
        }
        let file = File::open(path).map_err(open_error)?;
        lock(&file, true).map_err(|error| match error {
            LockError::Held(holder) => ImageError::Locked(holder),
            LockError::Host(error) => ImageError::Host("lock it", error),
        })?;
        let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0));
        let window = window(end.map_err(|error| ImageError::Host("find its size", error.into()))?)?;
        Ok(Self { file: Arc::new(file), window })
    }
}

/// The memory that an image of so many bytes takes.
fn window(bytes: u64) -> Result<Bytes, ImageError> {
    match bytes.checked_next_multiple_of(ALIGNMENT) {
        Some(0) => Err(ImageError::Empty),
        Some(window) if window <= SIZE_MAX.0 => Ok(Bytes(window)),
        _ => Err(ImageError::TooLarge(bytes)),
    }
}

fn open_error(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ImageError::Missing,
        io::ErrorKind::PermissionDenied => ImageError::Permission,
        _ => ImageError::Host("open it", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_rounded_up_to_huge_pages() {
        let check = |bytes, expected| assert_eq!(window(bytes).ok(), expected, "{bytes}");
        check(0, None);
        check(1, Some(Bytes::mib(2)));
        check(2 << 20, Some(Bytes::mib(2)));
        check((2 << 20) + 1, Some(Bytes::mib(4)));
        check(4 << 40, Some(Bytes::gib(4096)));
        check((4 << 40) + 1, None);
        check(u64::MAX, None);
    }

    #[test]
    fn what_is_no_image_is_refused_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let check = |path: &Path, words: &str| {
            let error = Image::open(path).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{}: {error}", path.display());
        };
        check(&folder.path().join("absent"), "does not exist");
        check(&file("file", b"x").join("below"), "does not exist");
        check(folder.path(), "is a folder");
        check(Path::new("/dev/null"), "neither a file nor a block device");
        check(&file("empty", b""), "is empty");
        let locked = file("locked", b"x");
        let writer = File::options().write(true).open(&locked).unwrap();
        lock(&writer, false).unwrap();
        check(&locked, "is locked by another VM or program");
        drop(writer);
        let (one, other) = (Image::open(&locked).unwrap(), Image::open(&locked).unwrap());
        assert_eq!((one.window, other.window), (Bytes::mib(2), Bytes::mib(2)));
    }
}
