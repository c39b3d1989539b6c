//! Small text files of the kernel, and what is wrong with them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use napa_units::Bytes;

/// The longest file that is read, in bytes: `/proc/meminfo` has about two thousand, `/proc/swaps` a hundred an area.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Why a sensor gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// What the file tells about has ended or was removed.
    #[error("{} is gone", .file.display())]
    Gone {
        /// The file.
        file: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What it holds cannot be.
    #[error("{} holds nonsense: {what}", .file.display())]
    Nonsense {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl SensorError {
    /// Whether what was to be read is no longer there.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

/// The text of a file, with the file's name for errors.
#[derive(Debug)]
pub struct Text {
    file: PathBuf,
    text: String,
}

impl Text {
    /// Reads a file whole.
    pub fn read(file: &Path) -> Result<Self, SensorError> {
        let open = File::open(file).map_err(|source| SensorError::of(file, source))?;
        Self::read_open(&open, file)
    }

    /// Reads an open file from its beginning.
    pub fn read_open(open: &File, file: &Path) -> Result<Self, SensorError> {
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        loop {
            match open.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SensorError::of(file, source)),
            }
            match length {
                _ if length < bytes.len() => {}
                FILE_BYTES_MAX.. => return Err(nonsense(file, "it does not end")),
                _ => bytes.resize(bytes.len() * 2, 0),
            }
        }
        bytes.truncate(length);
        let text = String::from_utf8(bytes).map_err(|_| nonsense(file, "it is not text"))?;
        Ok(Self { file: file.to_owned(), text })
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Says what is wrong with it.
    pub fn nonsense(&self, what: impl Into<String>) -> SensorError {
        SensorError::Nonsense { file: self.file.clone(), what: what.into() }
    }

    /// The only word.
    pub fn whole<T: FromStr>(&self) -> Result<T, SensorError> {
        let word = self.text.trim();
        word.parse().map_err(|_| self.nonsense(format!("'{}' is no number", shown(word))))
    }

    /// What stands behind `name` at the beginning of a line, without a colon and blanks.
    pub fn entry(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.strip_prefix(':').or_else(|| rest.strip_prefix(' ')).map(str::trim)
        })
    }

    /// The number behind a name. `None`: there is no such line.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, SensorError> {
        let parse =
            |word: &str| word.parse().map_err(|_| self.nonsense(format!("{name} is '{}'", shown(word))));
        self.entry(name).map(parse).transpose()
    }

    /// The size behind a name, in kibibytes as `/proc` writes them. `None`: there is no such line.
    pub fn kib(&self, name: &str) -> Result<Option<Bytes>, SensorError> {
        let wrong = |word: &str| self.nonsense(format!("{name} is '{}'", shown(word)));
        let parse = |word: &str| {
            let kib: Option<u64> = word.strip_suffix("kB").and_then(|number| number.trim().parse().ok());
            kib.and_then(|kib| kib.checked_mul(1024)).map(Bytes).ok_or_else(|| wrong(word))
        };
        self.entry(name).map(parse).transpose()
    }

    /// Makes an absent line an error.
    pub fn required<T>(&self, name: &str, found: Option<T>) -> Result<T, SensorError> {
        found.ok_or_else(|| self.nonsense(format!("it has no line {name}")))
    }
}

impl SensorError {
    /// What a failed system call on a file means.
    pub(super) fn of(file: &Path, source: io::Error) -> Self {
        let file = file.to_owned();
        match source.raw_os_error() {
            // No such file or process; a control group that was removed while its file was open.
            Some(libc::ENOENT | libc::ESRCH | libc::ENODEV) => Self::Gone { file },
            _ => Self::Unreadable { file, source },
        }
    }
}

/// Makes a file that is not there `None`: the kernel does not have what it tells about.
pub fn if_there<T>(found: Result<T, SensorError>) -> Result<Option<T>, SensorError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

fn nonsense(file: &Path, what: &str) -> SensorError {
    SensorError::Nonsense { file: file.to_owned(), what: what.to_owned() }
}

/// As much of a word as fits a line.
fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn numbers_are_numbers_and_everything_else_names_the_file() {
        let host = Fixture::new(&[("f", "a 1\nb: 2 kB\nc -3\nd NaN\ne: 4\nlong 99999999999999999999\n")]);
        let text = Text::read(&host.path("f")).unwrap();
        assert_eq!(text.number::<u64>("a").unwrap(), Some(1));
        assert_eq!(text.number::<i64>("c").unwrap(), Some(-3));
        assert_eq!(text.number::<u64>("absent").unwrap(), None);
        assert_eq!(text.kib("b").unwrap(), Some(Bytes::kib(2)));
        for (name, wrong) in [("c", "c is '-3'"), ("d", "d is 'NaN'"), ("long", "long is '9999")] {
            let error = text.number::<u64>(name).unwrap_err().to_string();
            assert!(error.contains("/f holds nonsense") && error.contains(wrong), "{error}");
        }
        assert!(text.kib("e").is_err() && text.whole::<u64>().is_err());
    }

    #[test]
    fn an_absent_file_is_gone_and_a_long_one_nonsense() {
        let host = Fixture::new(&[("long", &"x".repeat(FILE_BYTES_MAX + 1)), ("page", &"y".repeat(4096))]);
        assert!(Text::read(&host.path("absent")).unwrap_err().is_gone());
        assert!(Text::read(&host.path("long")).unwrap_err().to_string().contains("does not end"));
        assert_eq!(Text::read(&host.path("page")).unwrap().as_str().len(), 4096);
        assert!(if_there(Text::read(&host.path("absent"))).unwrap().is_none());
    }
}
