//! The folder that holds everything the lab has fetched or built.
//!
//! An entry is a folder named `KIND-KEY`, where the key is a hash of everything the entry was made from.
//! It is built under a temporary name while a lock is held, and renamed when it is complete: a folder
//! with an entry's name is whole, and two processes never build the same one at once.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::Xxh3;

/// Puts the cache somewhere else.
pub const CACHE_VARIABLE: &str = "NAPA_CACHE";

/// An entry whose successor exists is deleted once nobody has used it for this long: other checkouts of
/// the project share the cache.
const SUPERSEDED_AGE_MAX: Duration = Duration::from_secs(3 * 24 * 3600);

/// Of each kind this many superseded entries are kept at most, so that a day of changes fits on the disk.
const SUPERSEDED_MAX: usize = 4;

/// The lab's cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Names the inputs of an entry; equal inputs give equal keys.
#[derive(Default)]
pub struct Key {
    hash: Xxh3,
}

/// Held while something in the cache is being made; released on drop.
pub struct Lock {
    _file: File,
}

impl Cache {
    /// The cache of this user: `$NAPA_CACHE`, else `$XDG_CACHE_HOME/napa`, else `~/.cache/napa`.
    ///
    /// # Errors
    /// None of the variables is set, or the folder cannot be made.
    pub fn of_this_user() -> Result<Cache> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable(CACHE_VARIABLE)
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("napa")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/napa")))
            .with_context(|| format!("no place for the cache: set {CACHE_VARIABLE} to a folder"))?;
        Cache::at(&root)
    }

    /// A cache in the folder `root`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn at(root: &Path) -> Result<Cache> {
        fs::create_dir_all(root).with_context(|| format!("make the cache folder {}", root.display()))?;
        let root =
            root.canonicalize().with_context(|| format!("find the cache folder {}", root.display()))?;
        Ok(Cache { root })
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry of this kind and key, built by `build` in an empty folder if it is not there yet.
    ///
    /// # Errors
    /// Whatever `build` reports; the half-built folder is deleted.
    pub fn entry(&self, kind: &str, key: Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let entry = self.path(kind, &key);
        if self.use_entry(&entry) {
            return Ok(entry);
        }
        let _lock = self.lock(kind)?;
        if self.use_entry(&entry) {
            return Ok(entry);
        }
        let unfinished = self.root.join(format!("unfinished-{kind}"));
        remove_tree(&unfinished)?;
        fs::create_dir(&unfinished).with_context(|| format!("make {}", unfinished.display()))?;
        if let Err(error) = build(&unfinished) {
            remove_tree(&unfinished)?;
            return Err(error.context(format!("build the lab's {kind}")));
        }
        fs::rename(&unfinished, &entry).with_context(|| format!("name the finished {}", entry.display()))?;
        self.evict(kind, &entry);
        Ok(entry)
    }

    /// The entry of this kind and key, if it has been built.
    pub fn existing(&self, kind: &str, key: &Key) -> Option<PathBuf> {
        Some(self.path(kind, key)).filter(|entry| self.use_entry(entry))
    }

    /// Waits until nobody else holds the lock `name`.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("open the lock {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("lock {}", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// Deletes everything in the cache. Entries that are in use by a running lab are lost to it.
    ///
    /// # Errors
    /// A folder cannot be deleted.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).with_context(|| format!("list {}", self.root.display()))? {
            let path = entry.with_context(|| format!("list {}", self.root.display()))?.path();
            if path.is_dir() {
                remove_tree(&path)?;
            } else {
                fs::remove_file(&path).with_context(|| format!("delete {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.root.join(format!("{kind}-{}", key.text()))
    }

    /// Whether the entry exists; if so its time of last use is now.
    fn use_entry(&self, entry: &Path) -> bool {
        let Ok(folder) = File::open(entry) else { return false };
        // A cache that may only be read still works: eviction is then somebody else's concern.
        let _ = folder.set_modified(SystemTime::now());
        true
    }

    /// Deletes old entries of a kind. Failure is no error: it costs disk space only.
    fn evict(&self, kind: &str, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        let is_kind = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.rsplit_once('-')).is_some_and(|(name, _)| name == kind)
        };
        let superseded = entries.flatten().map(|entry| entry.path());
        let superseded = superseded.filter(|path| path != newest && is_kind(path));
        let age = |path: &Path| fs::metadata(path)?.modified().map(|used| used.elapsed().unwrap_or_default());
        let mut superseded: Vec<(Duration, PathBuf)> =
            superseded.filter_map(|path| Some((age(&path).ok()?, path))).collect();
        superseded.sort();
        for (position, (age, path)) in superseded.iter().enumerate() {
            if position >= SUPERSEDED_MAX || *age > SUPERSEDED_AGE_MAX {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

impl Key {
    /// A key that so far names nothing.
    pub fn new() -> Key {
        Key::default()
    }

    /// Adds an input. Its length counts, so `ab` + `c` differs from `a` + `bc`.
    #[must_use]
    pub fn with(mut self, input: impl AsRef<[u8]>) -> Key {
        let input = input.as_ref();
        self.hash.update(&(input.len() as u64).to_le_bytes());
        self.hash.update(input);
        self
    }

    /// Adds the content of a file as an input.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn with_file(self, path: &Path) -> Result<Key> {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(self.with(content))
    }

    /// The key as 24 hexadecimal digits.
    pub fn text(&self) -> String {
        let digest = self.hash.digest128().to_be_bytes();
        digest[..12].iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("napa-cache-test-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_entry_is_built_once_by_many_threads() {
        let scratch = Scratch::new("once");
        let cache = Cache::at(&scratch.0).unwrap();
        let builds = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let entry = cache.entry("thing", Key::new().with("input"), |folder| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        fs::write(folder.join("file"), "content").map_err(Into::into)
                    });
                    assert_eq!(fs::read(entry.unwrap().join("file")).unwrap(), b"content");
                });
            }
        });
        assert_eq!(builds.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let scratch = Scratch::new("fail");
        let cache = Cache::at(&scratch.0).unwrap();
        let result = cache.entry("thing", Key::new(), |folder| {
            fs::write(folder.join("half"), "").unwrap();
            anyhow::bail!("no such package")
        });
        assert!(format!("{:#}", result.unwrap_err()).contains("no such package"));
        assert!(cache.existing("thing", &Key::new()).is_none());
        assert!(!cache.root().join("unfinished-thing").exists());
    }

    #[test]
    fn what_a_killed_builder_left_is_not_used() {
        let scratch = Scratch::new("killed");
        let cache = Cache::at(&scratch.0).unwrap();
        let left = cache.root().join("unfinished-thing");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "").unwrap();
        let entry = cache.entry("thing", Key::new(), |_| Ok(())).unwrap();
        assert!(!entry.join("half").exists());
    }

    #[test]
    fn keys_depend_on_every_input_and_on_their_borders() {
        let keys = [
            Key::new(),
            Key::new().with(""),
            Key::new().with("abc"),
            Key::new().with("ab").with("c"),
            Key::new().with("a").with("bc"),
        ];
        let mut texts: Vec<String> = keys.iter().map(Key::text).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), keys.len());
        assert_eq!(Key::new().with("a").text(), Key::new().with("a").text());
    }

    #[test]
    fn only_the_last_few_superseded_entries_are_kept() {
        let scratch = Scratch::new("count");
        let cache = Cache::at(&scratch.0).unwrap();
        let entries: Vec<PathBuf> = (0..8_u64)
            .map(|number| {
                let entry = cache.entry("thing", Key::new().with(number.to_string()), |_| Ok(())).unwrap();
                let used = SystemTime::now() - Duration::from_secs(100 - number);
                File::open(&entry).unwrap().set_modified(used).unwrap();
                entry
            })
            .collect();
        let kept: Vec<bool> = entries.iter().map(|entry| entry.exists()).collect();
        assert_eq!(kept, [false, false, false, true, true, true, true, true]);
    }

    #[test]
    fn entries_superseded_long_ago_are_deleted() {
        let scratch = Scratch::new("evict");
        let cache = Cache::at(&scratch.0).unwrap();
        let entry = |key: &str| cache.entry("thing", Key::new().with(key), |_| Ok(())).unwrap();
        let (old, recent) = (entry("old"), entry("recent"));
        let other = cache.entry("thing-else", Key::new(), |_| Ok(())).unwrap();
        for path in [&old, &other] {
            let long_ago = SystemTime::now() - 2 * SUPERSEDED_AGE_MAX;
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        entry("new");
        assert_eq!([old.exists(), recent.exists(), other.exists()], [false, true, true]);
    }
}
