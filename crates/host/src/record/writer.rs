//! Writes a record, within a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use napa_policy::{Decision, Engine, Observation};
use napa_units::Bytes;
use serde::Serialize;

use super::{Head, VERSION};
use crate::clock;

/// Files of a record: each has its part of the bound.
const FILES: u64 = 4;

/// A record that is written.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    /// What one file may have.
    part_max: u64,
    /// `None`: the next tick begins a file.
    file: Option<File>,
    /// What the file has, in whole lines.
    length: u64,
}

/// Why a tick was not recorded. The next one may be.
#[derive(Debug, thiserror::Error)]
#[error("cannot record what is decided in {}: {source}", .path.display())]
pub struct RecordError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A tick as it is written; [`Moment`](super::Moment) is how it is read.
#[derive(Serialize)]
struct Written<'a> {
    time: napa_api::host::Time,
    observation: &'a Observation,
    decision: &'a Decision,
}

impl Recorder {
    /// A record in `folder`, of about `bound` at most. What an earlier daemon recorded there stays as older files.
    pub fn new(folder: &Path, bound: Bytes) -> Self {
        Self { folder: folder.to_owned(), part_max: bound.0 / FILES, file: None, length: 0 }
    }

    /// The file that is written.
    pub fn path(&self) -> PathBuf {
        self.folder.join("ticks.jsonl")
    }

    /// Gets ready for a tick that `policy` is about to decide: begins a file if there is none, or if it is full.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn prepare(&mut self, policy: &Engine) -> Result<(), RecordError> {
        if self.file.is_some() && self.length < self.part_max {
            return Ok(());
        }
        let path = self.path();
        let failed = |source| RecordError { path: path.clone(), source };
        self.file = None;
        self.move_on().map_err(failed)?;
        // What was decided about VMs is for their owner alone.
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.write(true).create(true).truncate(true).open(&path).map_err(failed)?;
        (self.file, self.length) = (Some(file), 0);
        self.append(&Head { version: VERSION, policy: policy.clone() })
    }

    /// Adds a tick.
    ///
    /// # Errors
    /// The disk is full, for example. No part of the line stays.
    pub fn write(&mut self, observation: &Observation, decision: &Decision) -> Result<(), RecordError> {
        self.append(&Written { time: clock::now(), observation, decision })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), RecordError> {
        let path = self.path();
        // Without a file the tick before has said why.
        let Some(file) = &mut self.file else { return Ok(()) };
        let write = |file: &mut File| {
            let mut text = serde_json::to_vec(line)?;
            text.push(b'\n');
            file.write_all(&text)?;
            Ok(text.len() as u64)
        };
        match write(file) {
            Ok(length) => {
                self.length += length;
                Ok(())
            }
            Err(source) => {
                // A file that misses a tick says nothing about the next: a new one is begun for that.
                let _ = file.set_len(self.length);
                self.file = None;
                Err(RecordError { path, source })
            }
        }
    }

    /// Makes every file one older.
    fn move_on(&self) -> io::Result<()> {
        let older = |number: u64| match number {
            0 => self.path(),
            _ => self.folder.join(format!("ticks.{number}.jsonl")),
        };
        for number in (0..FILES - 1).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
