//! What a VM and its process say, kept short.
//!
//! The process writes to the end of its log. A log that has become long is copied to a second file and emptied; what the
//! process writes in the same instant is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Supervisor, VerbError, VmFolder};

/// How long a log becomes before it is put aside, in bytes.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// What is read of a log at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The log of a VM, read from some line to its end and on.
pub struct Logs {
    path: PathBuf,
    file: Option<File>,
    position: u64,
}

impl Supervisor {
    /// The log of a VM: its last `lines` lines, or all of it.
    ///
    /// # Errors
    /// There is no such VM.
    pub fn logs(&self, name: &str, lines: Option<usize>) -> Result<(Vec<u8>, Logs), VerbError> {
        let inner = self.shared.lock();
        let path = inner.find(name)?.folder.log();
        drop(inner);
        Ok(Logs::open(path, lines))
    }
}

impl Logs {
    fn open(path: PathBuf, lines: Option<usize>) -> (Vec<u8>, Self) {
        let mut text = std::fs::read(aside(&path)).unwrap_or_default();
        let mut logs = Self { path, file: None, position: 0 };
        // A VM that never ran has said nothing.
        text.extend(logs.read_all());
        let text = match lines {
            Some(lines) => last_lines(&text, lines).to_vec(),
            None => text,
        };
        (text, logs)
    }

    /// What was written since the last call, a piece of it at a time; empty: nothing. A log that was emptied is read from
    /// its beginning.
    pub fn read(&mut self) -> Vec<u8> {
        self.try_read().unwrap_or_default()
    }

    fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // Bounded: what is written faster than it is read belongs to whoever follows.
        while (all.len() as u64) < 4 * LOG_BYTES_MAX {
            let piece = self.read();
            if piece.is_empty() {
                break;
            }
            all.extend(piece);
        }
        all
    }

    fn try_read(&mut self) -> io::Result<Vec<u8>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        let length = file.metadata()?.len();
        if length < self.position {
            self.position = 0;
        }
        file.seek(SeekFrom::Start(self.position))?;
        let mut piece = Vec::new();
        file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        self.position += piece.len() as u64;
        Ok(piece)
    }
}

/// Puts the log of a VM aside if it has become long.
pub(super) fn bound(folder: &VmFolder) {
    let path = folder.log();
    if path.metadata().is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        // A full disk: nothing is put aside, but the log is emptied, which makes room.
        let _ = put_aside(&path);
        if let Ok(log) = OpenOptions::new().write(true).open(&path) {
            let _ = log.set_len(0);
        }
    }
}

fn put_aside(path: &Path) -> io::Result<()> {
    let mut log = File::open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut aside = File::create(aside(path))?;
    io::copy(&mut log.take(LOG_BYTES_MAX), &mut aside).map(drop)
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// The last `count` lines of a text; a line without its end counts.
fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let Some(last) = count.checked_sub(1) else { return &[] };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let start = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(last);
    start.map_or(text, |(newline, _)| &text[newline + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_cut_at_line_ends() {
        for (text, count, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 1, "\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), count), expected.as_bytes(), "{text:?} {count}");
        }
    }

    #[test]
    fn a_long_log_is_put_aside_and_read_on() {
        let state = tempfile::tempdir().unwrap();
        let folder = VmFolder::new(state.path(), 1);
        folder.make().unwrap();
        let mut log = super::super::process::open_log(&folder.log()).unwrap();
        let mut write = |text: &[u8]| io::Write::write_all(&mut log, text).unwrap();
        write(b"early\n");
        let (text, mut follower) = Logs::open(folder.log(), None);
        assert_eq!(text, b"early\n");
        let long = vec![b'x'; LOG_BYTES_MAX as usize];
        write(&long);
        bound(&folder);
        assert_eq!(folder.log().metadata().unwrap().len(), 0);
        write(b"late\n");
        assert_eq!(follower.read(), b"late\n");
        let (text, _) = Logs::open(folder.log(), None);
        assert_eq!(text.len(), long.len() + 5);
        bound(&folder);
        assert_eq!(std::fs::read(folder.log()).unwrap(), b"late\n", "a short log is left alone");
    }
}
