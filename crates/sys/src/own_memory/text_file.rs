//! A small file of the kernel that is read whole, again and again.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use crate::host::Root;

/// More than any of these files holds; what is longer is cut off.
const BYTES_MAX: u64 = 16 << 20;
const CHUNK_BYTES: usize = 32 << 10;

/// An open file whose text changes.
#[derive(Debug)]
pub struct TextFile(File);

impl TextFile {
    /// Opens a file of the host. `None`: there is none, or it is not for this user.
    pub fn open(root: &Root, path: &str) -> Option<Self> {
        File::open(root.as_ref().join(path)).ok().map(Self)
    }

    /// Its text now.
    ///
    /// # Errors
    /// The kernel does not give it.
    pub fn text(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        while (bytes.len() as u64) < BYTES_MAX {
            match self.0.read_at(&mut chunk, bytes.len() as u64) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The number behind a word at the start of a line: `Zswapped: 12 kB`, `workingset_refault_anon 7`.
    pub fn number(&self, word: &str) -> Option<u64> {
        number(&self.text().ok()?, word)
    }
}

fn number(text: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| {
        let rest = line.strip_prefix(word)?;
        rest.starts_with([':', ' ', '\t']).then_some(rest)
    })?;
    rest.trim_start_matches([':', ' ', '\t']).split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "a 1\n").unwrap();
        let file = TextFile::open(&Root::at(folder.path()), "file").unwrap();
        assert_eq!(file.text().unwrap(), "a 1\n");
        std::fs::write(&path, "x".repeat(3 * CHUNK_BYTES)).unwrap();
        assert_eq!(file.text().unwrap().len(), 3 * CHUNK_BYTES);
        assert!(TextFile::open(&Root::at(folder.path()), "absent").is_none());
    }

    #[test]
    fn numbers_are_found_by_their_words() {
        let text = "anon_thp 4096\nanon 8192\nZswapped:      12 kB\nksm_zero_pages\tx\n";
        assert_eq!(number(text, "anon"), Some(8192));
        assert_eq!(number(text, "Zswapped"), Some(12));
        assert_eq!((number(text, "ksm_zero_pages"), number(text, "absent")), (None, None));
    }
}
