//! The folder below which a host's `/proc`, `/sys` and `/dev` are.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The root folder of a host: `/`, or a folder of made-up files.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// This host.
    pub fn system() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A host whose files are below `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The kernel's release, such as `6.12.1-amd64`.
    pub fn kernel_release(&self) -> Option<String> {
        self.text("proc/sys/kernel/osrelease")
    }

    /// The path of a file of this host.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The text of a file without the blanks around it.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(text.trim_ascii()).into_owned())
    }

    /// A file that holds one number.
    pub(super) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// A module's parameter or another switch: `Y` and `1` are on.
    pub(crate) fn switch(&self, path: &str) -> Option<bool> {
        match self.text(path)?.as_str() {
            "Y" | "1" => Some(true),
            "N" | "0" => Some(false),
            _ => None,
        }
    }

    /// A file that lists choices with the present one in brackets: `always [madvise] never`.
    pub(super) fn choice(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        rest.split_once(']').map(|(choice, _)| choice.to_owned())
    }

    /// The names in a folder, in order.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        names
    }
}

impl AsRef<Path> for Root {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// A host for tests: its files go away with it.
#[cfg(test)]
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
}

#[cfg(test)]
impl Fixture {
    /// A host that has these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { folder }
    }

    pub fn root(&self) -> Root {
        Root::at(self.folder.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_below_the_root() {
        let host = Fixture::new(&[
            ("proc/sys/kernel/osrelease", "6.12.1-amd64\n"),
            ("choice", "always [madvise] never\n"),
            ("plain", "never\n"),
            ("on", "Y\n"),
            ("number", "42\n"),
        ]);
        let root = host.root();
        assert_eq!(root.kernel_release().as_deref(), Some("6.12.1-amd64"));
        assert_eq!(root.choice("choice").as_deref(), Some("madvise"));
        assert_eq!(root.choice("plain"), None);
        assert_eq!((root.switch("on"), root.switch("number")), (Some(true), None));
        assert_eq!((root.number("number"), root.number::<u8>("plain")), (Some(42), None));
        assert_eq!(root.text("absent"), None);
        assert_eq!(root.names("absent"), [""; 0]);
    }
}
