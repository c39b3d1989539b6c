//! The file to which a VM's process writes how the VM ended.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use napa_api::Exit;
use napa_api::exit::ExitNote;

use crate::error::Error;
use crate::output;

/// The file, open and empty.
pub struct ExitFile {
    file: File,
}

impl ExitFile {
    /// Makes or empties the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = opened.map_err(|error| {
            let path = path.display();
            Error::bad_input(format!("--exit-file {path}: {error}; name a file that you may write"))
        })?;
        Ok(Self { file })
    }

    /// Writes how it ended.
    pub fn write(mut self, ended: &Result<Exit, Error>) {
        let note = match ended {
            Ok(exit) => ExitNote { code: exit.code(), reason: exit.describe() },
            Err(Error::BadInput(reason)) => ExitNote { code: Exit::BAD_INPUT, reason: reason.clone() },
            Err(Error::Failure(reason)) => ExitNote { code: Exit::FAILURE, reason: reason.clone() },
            Err(Error::Text(_)) => return,
        };
        let written =
            serde_json::to_vec(&note).map_err(Into::into).and_then(|note| self.file.write_all(&note));
        if let Err(error) = written {
            output::warn(format_args!("cannot write how the VM ended: {error}"));
        }
    }
}
