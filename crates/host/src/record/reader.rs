//! Reads a record.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use napa_policy::Engine;
use serde::Deserialize;

use super::{Head, Moment, VERSION};

/// The longest line, in bytes: a tick of a host with several thousand VMs.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// One file of a record, read tick by tick.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    /// The line that was read last, from 1.
    line: u64,
    policy: Engine,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The first line is not that of a record.
    #[error("{} is no record of what a host decided: {what}", .path.display())]
    NoRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A line is not a tick.
    #[error("{}: line {line} is no tick: {what}", .path.display())]
    NoTick {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl Reader {
    /// Opens a file of a record.
    ///
    /// # Errors
    /// It is none, or one of another version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let io = |source| ReadError::Io { path: path.to_owned(), source };
        let no_record = |what: String| ReadError::NoRecord { path: path.to_owned(), what };
        let mut lines = BufReader::new(File::open(path).map_err(io)?);
        let head = next_line(&mut lines).map_err(io)?.unwrap_or_default();
        let wrong = |error: serde_json::Error| no_record(error.to_string());
        let Version { version } = serde_json::from_slice(&head).map_err(wrong)?;
        if version != VERSION {
            return Err(no_record(format!(
                "it is of version {version}, and this napa reads version {VERSION}"
            )));
        }
        let Head { policy, .. } = serde_json::from_slice(&head).map_err(wrong)?;
        Ok(Self { path: path.to_owned(), lines, line: 1, policy })
    }

    /// The policy, as it was before the first tick.
    pub const fn policy(&self) -> &Engine {
        &self.policy
    }

    /// The line that was read last, from 1.
    pub const fn line(&self) -> u64 {
        self.line
    }
}

impl Iterator for Reader {
    type Item = Result<Moment, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match next_line(&mut self.lines) {
            Ok(line) => line?,
            Err(source) => return Some(Err(ReadError::Io { path: self.path.clone(), source })),
        };
        if line.last() != Some(&b'\n') {
            // The daemon was killed in the middle of it.
            return None;
        }
        self.line += 1;
        let moment = serde_json::from_slice(&line).map_err(|error| ReadError::NoTick {
            path: self.path.clone(),
            line: self.line,
            what: error.to_string(),
        });
        Some(moment)
    }
}

/// The next line with its end; `None`: there is none.
fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
    match length {
        0 => Ok(None),
        LINE_BYTES_MAX => Err(io::Error::other("a line does not end")),
        _ => Ok(Some(line)),
    }
}
