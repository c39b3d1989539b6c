//! Initial RAM file systems: cpio archives in the `newc` format that Linux unpacks at boot.
//!
//! Written uncompressed, because an emulated CPU unpacks slowly, and without root, because owners and
//! device nodes are only words in the archive.

const MAGIC: &[u8] = b"070701";
const FILE_TYPE_FOLDER: u32 = 0o040_000;
const FILE_TYPE_REGULAR: u32 = 0o100_000;
const FILE_TYPE_LINK: u32 = 0o120_000;
const FILE_TYPE_CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Paths are relative to `/`; a folder comes before what is in it.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FILE_TYPE_FOLDER | 0o755, (0, 0), &[]);
    }

    /// Adds a file that everybody may read.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE_TYPE_REGULAR | 0o644, (0, 0), content);
    }

    /// Adds a file that everybody may read and run.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE_TYPE_REGULAR | 0o755, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, FILE_TYPE_LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, FILE_TYPE_CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// The complete archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode & FILE_TYPE_FOLDER != 0 { 2 } else { 1 };
        let name_length = path.len() as u32 + 1;
        let length = u32::try_from(content.len()).expect("files of the lab's images are below 4 GiB");
        // Inode, mode, user, group, links, time, size, device of the file system, device, name, checksum.
        let fields = [self.entries, mode, 0, 0, links, 0, length, 0, 0, device.0, device.1, name_length, 0];
        self.bytes.extend(MAGIC);
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_newc_layout() {
        let mut archive = Archive::new();
        archive.folder("dev");
        archive.character_device("dev/console", 5, 1);
        archive.program("init", b"#!/bin/sh\n");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let header = |name: &str| {
            let at = text.find(&format!("{name}\0")).unwrap() - 110;
            let field = |index: usize| u32::from_str_radix(&text[at + 6 + 8 * index..][..8], 16).unwrap();
            assert_eq!(&text[at..at + 6], "070701");
            (field(1), field(6), (field(9), field(10)), field(11))
        };
        assert_eq!(header("dev"), (0o040_755, 0, (0, 0), 4));
        assert_eq!(header("dev/console"), (0o020_600, 0, (5, 1), 12));
        assert_eq!(header("init"), (0o100_755, 10, (0, 0), 5));
        assert_eq!(header("TRAILER!!!"), (0, 0, (0, 0), 11));
    }
}
