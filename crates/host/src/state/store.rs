//! The file of records.

use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::record::{Record, RecordError};

/// The records, by the VM's name.
const VMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("vms");
/// Single numbers, by their name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The number that the next VM gets.
const NEXT_ID: &str = "next-id";

/// What redb may keep in memory: all there is, for thousands of VMs.
const CACHE_BYTES: usize = 1 << 20;

/// Why the state cannot be read or written. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error(
        "the disk under {} is full: nothing was changed; make room there and try again",
        .0.display()
    )]
    Full(PathBuf),
    /// The file cannot be used.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What redb or the kernel said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record in it cannot be used.
    #[error("{}: the record of VM {name:?} cannot be used: {source}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The VM.
        name: String,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}

/// The file of records. Reads and writes wait for the disk.
pub struct Store {
    path: PathBuf,
    /// `None` after a write failed: redb wants the file opened anew then.
    database: Option<Database>,
}

impl Store {
    /// Opens the file in a state folder, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened or made, or is no state of napa's.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("state.redb");
        let mut store = Self { path, database: None };
        if !store.path.exists() {
            store.make()?;
        }
        store.database()?;
        Ok(store)
    }

    /// All records.
    ///
    /// # Errors
    /// The file cannot be read, or a record in it.
    pub fn records(&mut self) -> Result<Vec<Record>, StoreError> {
        let read = |database: &Database| -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let table = database.begin_read()?.open_table(VMS)?;
            let own =
                |entry: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), StorageError>| {
                    let (name, bytes) = entry?;
                    Ok((name.value().to_owned(), bytes.value().to_vec()))
                };
            table.iter()?.map(own).collect()
        };
        let entries = read(self.database()?).map_err(|error| self.failed("read", error))?;
        let decode = |(name, bytes): (String, Vec<u8>)| {
            Record::decode(&bytes).map_err(|error| self.bad_record(&name, error))
        };
        entries.into_iter().map(decode).collect()
    }

    /// Writes a record, in place of an earlier one of the same name.
    ///
    /// # Errors
    /// The disk is full or failed; the earlier record is still there.
    pub fn put(&mut self, record: &Record) -> Result<(), StoreError> {
        let bytes = record.encode().map_err(|error| self.bad_record(record.name(), error))?;
        self.write(|vms, _| vms.insert(record.name(), bytes.as_slice()).map(drop))
    }

    /// Removes a record.
    ///
    /// # Errors
    /// The disk is full or failed; the record is still there.
    pub fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.write(|vms, _| vms.remove(name).map(drop))
    }

    /// A number that no VM of this state has had.
    ///
    /// # Errors
    /// The disk is full or failed.
    pub fn next_id(&mut self) -> Result<u64, StoreError> {
        self.write(|_, numbers| {
            let id = numbers.get(NEXT_ID)?.map_or(1, |next| next.value());
            numbers.insert(NEXT_ID, id + 1)?;
            Ok(id)
        })
    }

    fn write<T>(
        &mut self,
        change: impl FnOnce(
            &mut redb::Table<'_, &str, &[u8]>,
            &mut redb::Table<'_, &str, u64>,
        ) -> Result<T, StorageError>,
    ) -> Result<T, StoreError> {
        let written = transact(self.database()?, change);
        written.map_err(|error| {
            // redb answers nothing more after a failed write until the file is opened anew.
            self.database = None;
            self.failed("write", error)
        })
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            closed @ None => {
                let opened = Database::builder().set_cache_size(CACHE_BYTES).open(&self.path);
                match opened {
                    Ok(database) => Ok(closed.insert(database)),
                    Err(error) => Err(failed(&self.path, "open", error.into())),
                }
            }
        }
    }

    /// Makes the file with its tables under another name first: a file that is half made is never taken for a state.
    fn make(&mut self) -> Result<(), StoreError> {
        let new = self.path.with_extension("redb.new");
        let make = || -> Result<(), redb::Error> {
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let database = Database::builder().set_cache_size(CACHE_BYTES).create(&new)?;
            transact(&database, |_, _| Ok(()))?;
            drop(database);
            std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            std::fs::rename(&new, &self.path)?;
            Ok(())
        };
        make().map_err(|error| self.failed("make", error))
    }

    fn failed(&self, what: &'static str, error: redb::Error) -> StoreError {
        failed(&self.path, what, error)
    }

    fn bad_record(&self, name: &str, source: RecordError) -> StoreError {
        StoreError::Record { path: self.path.clone(), name: name.to_owned(), source }
    }
}

fn transact<T>(
    database: &Database,
    change: impl FnOnce(
        &mut redb::Table<'_, &str, &[u8]>,
        &mut redb::Table<'_, &str, u64>,
    ) -> Result<T, StorageError>,
) -> Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let value = {
        let mut vms = transaction.open_table(VMS)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        change(&mut vms, &mut numbers)?
    };
    transaction.commit()?;
    Ok(value)
}

fn failed(path: &Path, what: &'static str, error: redb::Error) -> StoreError {
    match &error {
        redb::Error::Io(io) if is_full(io) => StoreError::Full(path.to_owned()),
        _ => StoreError::File { what, path: path.to_owned(), source: Box::new(error) },
    }
}

/// No room on the disk, in the user's quota, or in what a process may write.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn records_are_there_after_the_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let ids = [store.next_id().unwrap(), store.next_id().unwrap()];
        assert_eq!(ids, [1, 2]);
        for (id, name) in [(1, "b"), (2, "a"), (3, "c")] {
            store.put(&record(id, name)).unwrap();
        }
        store.remove("c").unwrap();
        store.remove("never there").unwrap();
        drop(store);
        let mut store = Store::open(folder.path()).unwrap();
        assert_eq!(store.records().unwrap(), [record(2, "a"), record(1, "b")]);
        assert_eq!(store.next_id().unwrap(), 3);
    }

    #[test]
    fn a_file_that_was_half_made_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.redb.new"), "half").unwrap();
        assert_eq!(Store::open(folder.path()).unwrap().records().unwrap(), []);
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.redb"), "precious").unwrap();
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("cannot open") && error.contains("state.redb"), "{error}");
        assert_eq!(std::fs::read(folder.path().join("state.redb")).unwrap(), b"precious");
    }
}
