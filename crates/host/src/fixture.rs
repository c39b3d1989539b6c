//! A host for tests: its files go away with it.

use std::path::{Path, PathBuf};

use napa_sys::host::Root;

pub struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    /// A host that has these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("tests may write to the folder for temporary files");
        let fixture = Self { folder };
        for (path, text) in files {
            fixture.write(path, text);
        }
        fixture
    }

    /// Writes a file, with the folders that it is in.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("it is below the folder")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }

    /// Removes a file or a folder.
    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        match path.is_dir() {
            true => std::fs::remove_dir_all(path),
            false => std::fs::remove_file(path),
        }
        .expect("it is there");
    }

    pub fn root(&self) -> Root {
        Root::at(self.folder.path())
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(Path::new(path))
    }
}
