//! Where QEMU is: named by the user, installed, or unpacked in the lab's cache.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::BenchError;

const PROGRAM: &str = "qemu-system-x86_64";
/// An entry of the lab's cache with QEMU is a folder whose name starts so. It stands for `/`.
const CACHE_ENTRY: &str = "qemu-";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// A QEMU that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The words that start it.
    words: Vec<OsString>,
}

impl Qemu {
    /// The QEMU at `given`, else that of the search path, else the newest in the lab's cache.
    ///
    /// # Errors
    /// There is none.
    pub fn find(given: Option<&Path>) -> Result<Self, BenchError> {
        let found = match given {
            Some(path) => Self::at(path),
            None => Self::in_search_path(std::env::var_os("PATH")).or_else(|| {
                let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
                Self::in_cache(&cache_folder(variable)?)
            }),
        };
        found.ok_or_else(|| match given {
            Some(path) => {
                let path = path.display();
                BenchError::input(format!("--qemu {path}: there is no QEMU: name the program, or the folder that Debian's packages were unpacked to"))
            }
            None => BenchError::input(
                "no QEMU is found to compare with: install qemu-system-x86, or run 'cargo xtask lab qemu' once to unpack it, or name it with --qemu PATH, or measure napa alone with --napa-only",
            ),
        })
    }

    /// A program, or a folder that packages were unpacked to.
    fn at(path: &Path) -> Option<Self> {
        if path.is_dir() {
            return Self::unpacked(path);
        }
        path.is_file().then(|| Self { words: vec![path.into()] })
    }

    fn in_search_path(folders: Option<OsString>) -> Option<Self> {
        let folders = folders?;
        let program =
            std::env::split_paths(&folders).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file())?;
        Some(Self { words: vec![program.into()] })
    }

    fn in_cache(cache: &Path) -> Option<Self> {
        let entries = fs::read_dir(cache).ok()?.flatten();
        let qemus = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(CACHE_ENTRY));
        let used = |path: &PathBuf| {
            fs::metadata(path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let mut roots: Vec<PathBuf> = qemus.map(|entry| entry.path()).collect();
        roots.sort_by_key(used);
        roots.iter().rev().find_map(|root| Self::unpacked(root))
    }

    /// A QEMU that is started through the loader beside it, with its own libraries and firmware.
    fn unpacked(root: &Path) -> Option<Self> {
        let program = root.join("usr/bin").join(PROGRAM);
        let loader = root.join(LOADER);
        if !program.is_file() || !loader.is_file() {
            return None;
        }
        let mut words: Vec<OsString> = vec![loader.into(), "--inhibit-cache".into(), "--library-path".into()];
        words.extend([root.join(LIBRARIES).into(), "--argv0".into(), PROGRAM.into(), program.into()]);
        for folder in FIRMWARE {
            words.extend(["-L".into(), root.join(folder).into()]);
        }
        Some(Self { words })
    }

    /// A command that starts it, to be given its options.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }

    /// The first line of what it says about its version.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn version(&self) -> Result<String, BenchError> {
        let output = self.command().arg("--version").output().map_err(|error| {
            BenchError::input(format!("QEMU cannot be started: {error}; name another with --qemu PATH"))
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.lines().next() {
            Some(line) if output.status.success() => Ok(line.to_owned()),
            _ => Err(BenchError::input("what was named with --qemu is no QEMU: it does not know --version")),
        }
    }
}

/// `$NAPA_CACHE`, else `$XDG_CACHE_HOME/napa`, else `~/.cache/napa`: where the lab keeps what it has fetched.
fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name, inside| variable(name).map(|folder| Path::new(&folder).join(inside));
    folder("NAPA_CACHE", "")
        .or_else(|| folder("XDG_CACHE_HOME", "napa"))
        .or_else(|| folder("HOME", ".cache/napa"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn unpack(root: &Path) {
        touch(&root.join("usr/bin").join(PROGRAM));
        touch(&root.join(LOADER));
    }

    #[test]
    fn an_installed_one_is_found_in_the_search_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("b").join(PROGRAM);
        touch(&program);
        let path = std::env::join_paths([folder.path().join("a"), folder.path().join("b")]).unwrap();
        assert_eq!(Qemu::in_search_path(Some(path)).unwrap().words, [program]);
        assert_eq!(Qemu::in_search_path(None), None);
    }

    #[test]
    fn a_whole_one_is_found_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join("qemu-half")).unwrap();
        fs::create_dir_all(cache.path().join("host-6.12")).unwrap();
        assert_eq!(Qemu::in_cache(cache.path()), None);
        let root = cache.path().join("qemu-whole");
        unpack(&root);
        let qemu = Qemu::in_cache(cache.path()).unwrap();
        assert_eq!(qemu, Qemu::at(&root).unwrap());
        assert_eq!(qemu.words[0], root.join(LOADER));
        assert!(qemu.words.contains(&root.join(FIRMWARE[0]).into()));
    }

    #[test]
    fn the_cache_is_where_the_lab_keeps_it() {
        for (set, expected) in [
            (&["NAPA_CACHE", "HOME"][..], Some("/napa_cache/")),
            (&["XDG_CACHE_HOME", "HOME"], Some("/xdg_cache_home/napa")),
            (&["HOME"], Some("/home/.cache/napa")),
            (&[], None),
        ] {
            let variable =
                |name: &str| set.contains(&name).then(|| format!("/{}", name.to_lowercase()).into());
            assert_eq!(cache_folder(variable), expected.map(PathBuf::from), "{set:?}");
        }
    }

    #[test]
    fn what_is_no_qemu_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("absent")] {
            assert!(Qemu::find(Some(&path)).unwrap_err().to_string().contains("there is no QEMU"));
        }
    }
}
