//! A swap file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use napa_units::{Bytes, PAGE_SIZE};
use rustix::fs::{FallocateFlags, IFlags};

use super::header::{self, SIZE_MAX, SIZE_MIN};
use super::{FILE_PRIORITY, SwapError, switch_off, switch_on, uuid};

/// File systems whose files the kernel cannot swap to, with the number that `statfs` gives for them
/// (include/uapi/linux/magic.h).
const UNFIT: [(i64, &str); 3] =
    [(0x0102_1994, "a tmpfs, which is memory itself"), (0x794c_7630, "an overlay"), (0x8584_58f6, "a ramfs")];
/// What is written at a time where space cannot be reserved.
const CHUNK: usize = 1 << 20;

/// A file that has its space, and is removed when dropped unless it was kept.
#[derive(Debug)]
pub struct SwapFile {
    path: PathBuf,
    /// The folder, if it was made for the file.
    folder: Option<PathBuf>,
    is_on: bool,
    is_kept: bool,
}

/// Whether an area may have this size, which the flag gave.
///
/// # Errors
/// Why not.
pub fn check_size(flag: &str, size: Bytes) -> Result<(), SwapError> {
    let wrong = |why: String| Err(SwapError::Input(format!("{flag} {size} {why}")));
    match size {
        Bytes(0) => wrong("makes no swap: give it some, such as 8G".into()),
        size if size.0 % PAGE_SIZE != 0 => {
            let next = Bytes(size.0.saturating_add(PAGE_SIZE) / PAGE_SIZE * PAGE_SIZE);
            wrong(format!("is not a whole number of 4 KiB pages: the next one is {next}"))
        }
        size if size < SIZE_MIN => wrong(format!("is too small: at least {SIZE_MIN}")),
        size if size > SIZE_MAX => wrong(format!("is too large: at most {SIZE_MAX} in one area")),
        _ => Ok(()),
    }
}

impl SwapFile {
    /// Makes a file of this size, of which every block is allocated, readable by root alone. A missing folder is made.
    ///
    /// # Errors
    /// The file exists, its file system cannot hold it, or there is no right to it; nothing is left behind.
    pub fn make(path: &Path, size: Bytes) -> Result<Self, SwapError> {
        check_size("--size", size)?;
        refuse_existing(path)?;
        let folder = make_folder(path)?;
        refuse_unfit(path, size).inspect_err(|_| drop_folder(folder.as_deref()))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            drop_folder(folder.as_deref());
            refused("make", path, error)
        })?;
        // From here on, dropping it removes what was made.
        let made = Self { path: path.to_owned(), folder, is_on: false, is_kept: false };
        // A file system with copy on write does not let its files be swapped to, unless it is off while they are empty.
        let flags = rustix::fs::ioctl_getflags(&file).unwrap_or(IFlags::empty());
        let _other_file_systems = rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW);
        allocate(&file, size).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => ran_out(&file, path, size),
            _ => refused("allocate", path, error),
        })?;
        let header = uuid().map(|uuid| header::header(size, uuid));
        header
            .and_then(|header| file.write_all_at(&header, 0))
            .and_then(|()| file.sync_all())
            .map_err(|error| refused("write", path, error))?;
        Ok(made)
    }

    /// Has the kernel swap to it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn switch_on(&mut self) -> Result<(), SwapError> {
        switch_on(&self.path, FILE_PRIORITY)?;
        self.is_on = true;
        Ok(())
    }

    /// Leaves it there.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for SwapFile {
    fn drop(&mut self) {
        // It was made a moment ago: whatever is in it fits back. If not, it has to stay.
        let is_needed = self.is_kept || self.is_on && switch_off(&self.path).is_err();
        if !is_needed {
            // Whoever removed it meanwhile has done so for us.
            let _ = fs::remove_file(&self.path);
            drop_folder(self.folder.as_deref());
        }
    }
}

/// Removes a file that is switched off, and its folder if nothing else is in it and it is napa's own.
pub fn take_away(path: &Path) -> Result<(), SwapError> {
    fs::remove_file(path).map_err(|error| refused("remove", path, error))?;
    let folder = path.parent().filter(|folder| folder.file_name().is_some_and(|name| name == "napa"));
    drop_folder(folder);
    Ok(())
}

impl SwapFile {
    /// Removes a file of napa's that a reboot has switched off.
    ///
    /// # Errors
    /// It is not one of napa's, or there is no right to it.
    pub fn remove_unused(path: &Path) -> Result<(), SwapError> {
        let file = File::open(path).map_err(|error| refused("open", path, error))?;
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        match is_file && header::is_ours(&file).map_err(|error| refused("read", path, error))? {
            true => take_away(path),
            false => Err(SwapError::Input(format!(
                "{} is not a swap file that napa made: remove it yourself",
                path.display()
            ))),
        }
    }
}

fn refuse_existing(path: &Path) -> Result<(), SwapError> {
    let shown = path.display();
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if metadata.is_dir() {
        return Err(SwapError::Input(format!("--file {shown} is a folder: name a file in it")));
    }
    let is_ours =
        metadata.is_file() && File::open(path).is_ok_and(|file| header::is_ours(&file).unwrap_or(false));
    let mend = match is_ours {
        true => format!("napa made it before: sudo napa swap remove --file {shown}, or name another"),
        false => "name another, or remove it first".into(),
    };
    Err(SwapError::Input(format!("--file {shown} exists: {mend}")))
}

/// Gives the folder if it had to be made.
fn make_folder(path: &Path) -> Result<Option<PathBuf>, SwapError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => return Ok(None),
    };
    match fs::create_dir(folder) {
        Ok(()) => Ok(Some(folder.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(refused("make the folder", folder, error)),
    }
}

fn drop_folder(folder: Option<&Path>) {
    // One that holds something else by now stays.
    let _ = folder.map(fs::remove_dir);
}

fn refuse_unfit(path: &Path, size: Bytes) -> Result<(), SwapError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = path.display();
    let system = rustix::fs::statfs(folder).map_err(|error| refused("look at", folder, error.into()))?;
    if let Some((_, name)) = UNFIT.iter().find(|(magic, _)| *magic == system.f_type) {
        return Err(SwapError::Input(format!(
            "--file {shown} would be on {name}: name a file on a disk with ext4, xfs or btrfs"
        )));
    }
    let free = Bytes(system.f_bavail.saturating_mul(system.f_bsize as u64));
    if size <= free {
        return Ok(());
    }
    let whole = Bytes(free.0 >> 20 << 20);
    Err(SwapError::Input(format!(
        "--size {size} is more than the {whole} that are free for {shown}: ask for less, or name a file on a larger disk"
    )))
}

/// The file system had room for it, and then had not: others write too, and it needs some for itself.
fn ran_out(file: &File, path: &Path, size: Bytes) -> SwapError {
    let given = file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    let free = rustix::fs::fstatfs(file).map_or(0, |system| system.f_bavail * system.f_bsize as u64);
    // What the file system takes for itself is missing, however much it says is free.
    let missing = size.0.saturating_sub(given + free).max(PAGE_SIZE).div_ceil(1 << 20);
    SwapError::Input(format!(
        "the file system of {} became full while {size} were written, and the file is removed: make room for {missing} \
         MiB more, ask for less, or name a file on a larger disk",
        path.display()
    ))
}

/// Every block, without holes: the kernel swaps to blocks, not through the file system.
fn allocate(file: &File, size: Bytes) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size.0) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => fill(file, size),
        Err(error) => Err(error.into()),
    }
}

fn fill(file: &File, size: Bytes) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut at = 0;
    while at < size.0 {
        let length = (size.0 - at).min(CHUNK as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

fn refused(what: &'static str, path: &Path, source: io::Error) -> SwapError {
    let mend = match source.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room, or ask for less",
        io::ErrorKind::ReadOnlyFilesystem => "; name a file on a file system that can be written",
        io::ErrorKind::NotFound => "; make the folder first, or name another file",
        _ => "",
    };
    SwapError::Refused { what, path: path.to_owned(), source, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_are_refused_with_a_mend() {
        for (size, text) in [
            (Bytes(0), "makes no swap"),
            (Bytes(4096 * 100 + 1), "the next one is 404K"),
            (Bytes::kib(4), "at least 64K"),
            (Bytes(SIZE_MAX.0 + PAGE_SIZE), "at most 16T"),
        ] {
            let error = check_size("--size", size).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        check_size("--size", Bytes::mib(1)).unwrap();
    }

    #[test]
    fn a_file_has_all_its_blocks_and_goes_if_it_is_not_used() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("napa").join("swap");
        let made = match SwapFile::make(&path, Bytes::mib(1)) {
            Err(SwapError::Input(why)) => return println!("skipped: {why}"),
            made => made.unwrap(),
        };
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (1 << 20, 0o600));
        assert!(metadata.blocks() * 512 >= 1 << 20);
        let error = SwapFile::make(&path, Bytes::mib(1)).unwrap_err().to_string();
        assert!(error.contains("napa made it before"), "{error}");
        drop(made);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn what_cannot_hold_it_is_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "text").unwrap();
        for (path, size, texts) in [
            (folder.path().to_owned(), Bytes::mib(1), &["is a folder: name a file in it"][..]),
            (other.clone(), Bytes::mib(1), &["exists: name another"]),
            // A folder in memory cannot hold it whatever its size.
            (folder.path().join("new/swap"), Bytes::gib(1 << 13), &["that are free for", "would be on a"]),
            (folder.path().join("a/b/swap"), Bytes::mib(1), &["make the folder first"]),
            (PathBuf::from("/dev/shm/napa/swap"), Bytes::mib(1), &["tmpfs"]),
        ] {
            if path.starts_with("/dev/shm") && !Path::new("/dev/shm").exists() {
                continue;
            }
            let error = SwapFile::make(&path, size).unwrap_err().to_string();
            assert!(texts.iter().any(|text| error.contains(text)), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            SwapFile::remove_unused(&other)
                .unwrap_err()
                .to_string()
                .contains("not a swap file that napa made")
        );
        assert_eq!(fs::read(&other).unwrap(), b"text");
    }
}
