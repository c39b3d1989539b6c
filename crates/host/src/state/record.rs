//! What is remembered of one VM, and how it is written. The written form has a version and types of its own.

use napa_api::VmConfig;
use napa_api::config::TomlWriteError;
use napa_api::host::{RestartPolicy, Time, VmExit};
use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// The version that is written.
const VERSION: u32 = 1;

/// What is remembered of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, which no other VM of this state folder ever has; also the name of its folder.
    pub id: u64,
    /// How it is configured; it has a name.
    pub config: VmConfig,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Memory that it can always have.
    pub reservation: Bytes,
    /// Its shares of contended memory.
    pub shares: u32,
    /// When it was created.
    pub created: Time,
    /// What somebody wants it to do.
    pub wanted: Wanted,
    /// How often it was started again since somebody last started it.
    pub restarts: u32,
    /// Its process, or the intent to start one. `None`: there is none.
    pub launch: Option<Launch>,
    /// How it ended last.
    pub exit: Option<VmExit>,
}

/// What somebody wants a VM to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// To run.
    Running,
    /// Not to.
    Stopped,
}

/// The process of a VM. Written before the process is made, and again when it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// When it was to be started.
    pub started: Time,
    /// The boot of the host that it was started in; it did not survive another one.
    pub boot: String,
    /// The process. `None`: the daemon ended before it knew.
    pub process: Option<ProcessId>,
}

/// A process that no later one can be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number, which is used again after its end.
    pub pid: u32,
    /// When it started, in clock ticks since the host's (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It was written by another release.
    #[error(
        "it has version {0}, and this napa knows up to {VERSION}: run the napa that wrote it, or a newer one"
    )]
    Version(u32),
    /// It is not JSON of that shape.
    #[error("it is not what napa writes: {0}")]
    Shape(#[from] serde_json::Error),
    /// The configuration in it cannot be read.
    #[error("the configuration in it cannot be read: {0}")]
    Config(#[from] napa_api::config::TomlReadError),
    /// The configuration cannot be written.
    #[error(transparent)]
    Write(#[from] TomlWriteError),
}

/// Only this much is read to know the version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Version 1. The configuration is a TOML text, as `napa run --config` takes it: its keys stay what they are.
#[derive(Serialize, Deserialize)]
struct RecordV1 {
    version: u32,
    id: u64,
    config: String,
    restart: RestartPolicy,
    reservation: u64,
    shares: u32,
    created: Time,
    wanted: Wanted,
    restarts: u32,
    launch: Option<Launch>,
    exit: Option<VmExit>,
}

impl Record {
    /// Its name.
    pub fn name(&self) -> &str {
        self.config.name_or_default()
    }

    /// The record as bytes.
    ///
    /// # Errors
    /// A path of the configuration is not UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Ok(serde_json::to_vec(&RecordV1 {
            version: VERSION,
            id: self.id,
            config: self.config.to_toml()?,
            restart: self.restart,
            reservation: self.reservation.0,
            shares: self.shares,
            created: self.created,
            wanted: self.wanted,
            restarts: self.restarts,
            launch: self.launch.clone(),
            exit: self.exit.clone(),
        })?)
    }

    /// Reads what [`encode`](Self::encode) wrote, in this release or an earlier one.
    ///
    /// # Errors
    /// The bytes are of a later release, or not a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let record: RecordV1 = serde_json::from_slice(bytes)?;
        Ok(Self {
            id: record.id,
            config: VmConfig::from_toml(&record.config)?,
            restart: record.restart,
            reservation: Bytes(record.reservation),
            shares: record.shares,
            created: record.created,
            wanted: record.wanted,
            restarts: record.restarts,
            launch: record.launch,
            exit: record.exit,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As an earlier release wrote it.
    const V1: &str = r#"{"version":1,"id":7,"config":"name = \"web\"\nmemory = 33554432\n","restart":"on-failure",
        "reservation":16777216,"shares":1000,"created":1700000000000,"wanted":"running","restarts":2,
        "launch":{"started":1700000001000,"boot":"b","process":{"pid":42,"start_ticks":99}},
        "exit":{"time":1700000000500,"code":81,"signal":null,"reason":"the guest reported a panic"}}"#;

    pub fn record(id: u64, name: &str) -> Record {
        let mut record = Record::decode(V1.as_bytes()).unwrap();
        record.id = id;
        record.config.name = Some(name.to_owned());
        record
    }

    #[test]
    fn records_of_earlier_releases_are_read() {
        let record = Record::decode(V1.as_bytes()).unwrap();
        assert_eq!((record.id, record.name(), record.config.memory), (7, "web", Bytes::mib(32)));
        assert_eq!(record.launch.unwrap().process, Some(ProcessId { pid: 42, start_ticks: 99 }));
        assert_eq!(record.exit.unwrap().code, Some(81));
    }

    #[test]
    fn a_record_survives_its_journey() {
        let record = record(3, "db");
        assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn a_later_release_and_nonsense_are_told_apart() {
        let later = Record::decode(br#"{"version": 2, "whatever": []}"#).unwrap_err().to_string();
        assert!(later.contains("version 2"), "{later}");
        for nonsense in ["", "{}", "[1]", r#"{"version": 1}"#] {
            let error = Record::decode(nonsense.as_bytes()).unwrap_err();
            assert!(matches!(error, RecordError::Shape(_)), "{nonsense}: {error}");
        }
    }
}
