//! Debian packages of one suite, through a private apt that leaves the machine's own untouched.
//!
//! The private apt believes that nothing is installed, so what it would install for a program is the
//! program with every library down to libc and the dynamic loader. That set, unpacked side by side, runs
//! on any host ([`crate::packages`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache::{Cache, Key};
use crate::command::{run_quietly, run_to_text};
use crate::sources::Mirror;
use crate::unavailable::Unavailable;

/// A Debian release that the lab takes packages from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

/// A package at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version, as apt writes it.
    pub version: String,
}

/// The packages of one suite.
pub struct Archive {
    suite: Suite,
    mirror: Mirror,
    folder: PathBuf,
    cache: Cache,
}

impl Suite {
    /// The suite's name in the archive.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
        }
    }
}

impl Archive {
    /// Opens the suite's packages, and fetches its indexes if this cache has none.
    ///
    /// # Errors
    /// No mirror is known, it does not answer, or its signature is wrong.
    pub fn open(cache: &Cache, suite: Suite) -> Result<Archive> {
        let mirror = Mirror::of_this_machine()?;
        let folder = cache.root().join("apt").join(suite.name());
        let archive = Archive { suite, mirror, folder, cache: cache.clone() };
        if !archive.complete_mark().exists() {
            archive.update()?;
        }
        Ok(archive)
    }

    /// The release that the packages belong to.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The mirror that the packages come from.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Fetches the indexes again: later look-ups may give newer versions.
    ///
    /// # Errors
    /// The mirror does not answer, or its signature is wrong.
    pub fn update(&self) -> Result<()> {
        let _lock = self.cache.lock(&format!("apt-{}", self.suite.name()))?;
        crate::progress(&format!("fetching the package lists of {}", self.suite.name()));
        for part in ["state/lists/partial", "cache/archives/partial", "resolved"] {
            let part = self.folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
        }
        self.write("status", "")?;
        self.write("debian.sources", &sources_text(&self.mirror, self.suite))?;
        let acquire = run_to_text(Command::new("apt-config").arg("dump"))?;
        self.write("apt.conf", &configuration_text(&self.folder, &acquire))?;
        run_quietly(self.apt("apt-get").args(["update", "-q", "--error-on=any"]))
            .map_err(|error| Unavailable::Mirror(format!("{error:#}")))
            .with_context(|| format!("fetch the package lists of Debian {}", self.suite.name()))?;
        let resolved = self.folder.join("resolved");
        for memo in fs::read_dir(&resolved).with_context(|| format!("list {}", resolved.display()))? {
            let memo = memo.with_context(|| format!("list {}", resolved.display()))?.path();
            fs::remove_file(&memo).with_context(|| format!("delete {}", memo.display()))?;
        }
        self.write("complete", "")
    }

    /// The packages and everything they depend on, down to libc.
    ///
    /// # Errors
    /// A package does not exist in this suite.
    pub fn closure(&self, names: &[&str]) -> Result<Vec<Package>> {
        self.resolved("closure", names, |archive| {
            let mut command = archive.apt("apt-get");
            command.args(["install", "--simulate", "--no-install-recommends", "-q"]).args(names);
            Ok(run_to_text(&mut command)?.lines().filter_map(parse_simulated_install).collect())
        })
    }

    /// The one package that a meta-package stands for: its first dependency that starts with `prefix`.
    ///
    /// # Errors
    /// There is no such package, or it depends on nothing of that name.
    pub fn behind(&self, meta_package: &str, prefix: &str) -> Result<Package> {
        let mut found = self.resolved("behind", &[meta_package, prefix], |archive| {
            let mut command = archive.apt("apt-cache");
            command.args(["show", "--no-all-versions", meta_package]);
            Ok(parse_dependency(&run_to_text(&mut command)?, prefix).into_iter().collect())
        })?;
        found.pop().with_context(|| format!("{meta_package} depends on no package named {prefix}…"))
    }

    /// Fetches packages and unpacks them over each other into `folder`.
    ///
    /// # Errors
    /// A package cannot be fetched, or is damaged.
    pub fn unpack(&self, packages: &[Package], folder: &Path) -> Result<()> {
        let downloads = folder.join("napa-lab-downloads");
        fs::create_dir_all(&downloads).with_context(|| format!("make {}", downloads.display()))?;
        let mut fetch = self.apt("apt-get");
        fetch.current_dir(&downloads).args(["download", "-q"]);
        fetch.args(packages.iter().map(|package| format!("{}={}", package.name, package.version)));
        run_quietly(&mut fetch).map_err(|error| Unavailable::Package(format!("{error:#}")))?;
        let files = fs::read_dir(&downloads).with_context(|| format!("list {}", downloads.display()))?;
        for file in files {
            let file = file.with_context(|| format!("list {}", downloads.display()))?.path();
            run_quietly(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(folder))?;
        }
        fs::remove_dir_all(&downloads).with_context(|| format!("delete {}", downloads.display()))
    }

    /// Does `work`; if a package cannot be fetched, once more with fresh indexes, because old versions
    /// leave the mirror.
    ///
    /// # Errors
    /// What `work` reports the second time.
    pub fn with_fresh_lists_if_needed<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        work().or_else(|error| {
            if !matches!(Unavailable::behind(&error), Some(Unavailable::Package(_))) {
                return Err(error);
            }
            crate::progress(&format!("{error:#}; trying again with fresh package lists"));
            self.update()?;
            work()
        })
    }

    /// Looks packages up, and remembers the answer until the next update.
    fn resolved(
        &self,
        question: &str,
        names: &[&str],
        resolve: impl Fn(&Archive) -> Result<Vec<Package>>,
    ) -> Result<Vec<Package>> {
        let key = names.iter().fold(Key::new().with(question), Key::with);
        let memo = self.folder.join("resolved").join(key.text());
        if let Ok(text) = fs::read_to_string(&memo) {
            return Ok(text.lines().filter_map(Package::parse).collect());
        }
        let packages = resolve(self)
            .with_context(|| format!("look up {} in Debian {}", names.join(" "), self.suite.name()))?;
        ensure!(!packages.is_empty(), "Debian {} has no {}", self.suite.name(), names.join(" "));
        let text: String = packages.iter().map(|package| format!("{package}\n")).collect();
        let unfinished = memo.with_extension(std::process::id().to_string());
        fs::write(&unfinished, text).with_context(|| format!("write {}", unfinished.display()))?;
        fs::rename(&unfinished, &memo).with_context(|| format!("write {}", memo.display()))?;
        Ok(packages)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn complete_mark(&self) -> PathBuf {
        self.folder.join("complete")
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

impl Package {
    fn parse(line: &str) -> Option<Package> {
        let (name, version) = line.split_once('=')?;
        Some(Package { name: name.to_owned(), version: version.to_owned() })
    }
}

impl std::fmt::Display for Package {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}={}", self.name, self.version)
    }
}

fn sources_text(mirror: &Mirror, suite: Suite) -> String {
    let suite = suite.name();
    let signed_by = mirror.keyring.as_ref().map(|path| format!("Signed-By: {}\n", path.display()));
    let signed_by = signed_by.unwrap_or_default();
    let paragraph = |address: &str, suites: &str| {
        format!("Types: deb\nURIs: {address}\nSuites: {suites}\nComponents: main\n{signed_by}\n")
    };
    let mut text = paragraph(&mirror.archive, suite);
    if let Some(security) = &mirror.security {
        text += &paragraph(security, &format!("{suite}-security"));
    }
    text
}

/// Everything of the machine's configuration is left out but how it reaches its mirrors.
fn configuration_text(folder: &Path, machine: &str) -> String {
    let folder = folder.display();
    let mut text = format!(
        "Dir::Etc::Parts \"/dev/null\";\n\
         Dir::Etc::Main \"/dev/null\";\n\
         Dir::Etc::SourceList \"{folder}/debian.sources\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Log \"{folder}\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"\";\n"
    );
    let is_access = |line: &&str| {
        line.starts_with("Acquire::")
            && !line.starts_with("Acquire::IndexTargets")
            && !line.starts_with("Acquire::Changelogs")
    };
    for line in machine.lines().filter(is_access) {
        text += line;
        text.push('\n');
    }
    text + "Acquire::Languages { \"none\"; };\nAcquire::Retries \"3\";\n"
}

/// `Inst NAME (VERSION SUITE [ARCHITECTURE])`
fn parse_simulated_install(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split_whitespace().next()?;
    Some(Package { name: name.to_owned(), version: version.to_owned() })
}

/// The first dependency that starts with `prefix` and is pinned: `NAME (= VERSION)`.
fn parse_dependency(record: &str, prefix: &str) -> Option<Package> {
    let dependencies = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    dependencies.split(',').find_map(|dependency| {
        let (name, version) = dependency.trim().strip_suffix(')')?.split_once(" (= ")?;
        name.starts_with(prefix).then(|| Package { name: name.to_owned(), version: version.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_install_names_packages_and_versions() {
        let lines = "Reading package lists...\n\
            Inst libc6 (2.41-12 Debian:13.1/stable [amd64]) []\n\
            Inst qemu-system-x86 (1:10.0.2+ds-2 Debian:13.1/stable, Debian-Security:13/stable [amd64])\n\
            Conf libc6 (2.41-12 Debian:13.1/stable [amd64])\n";
        let packages: Vec<String> =
            lines.lines().filter_map(parse_simulated_install).map(|package| package.to_string()).collect();
        assert_eq!(packages, ["libc6=2.41-12", "qemu-system-x86=1:10.0.2+ds-2"]);
    }

    #[test]
    fn the_kernel_behind_a_meta_package_is_the_pinned_one() {
        let record = "Package: linux-image-cloud-amd64\n\
            Depends: linux-base (>= 4.3), linux-image-6.12.1-cloud-amd64 (= 6.12.1-1)\n";
        let package = parse_dependency(record, "linux-image-").map(|package| package.to_string());
        assert_eq!(package.as_deref(), Some("linux-image-6.12.1-cloud-amd64=6.12.1-1"));
        assert_eq!(parse_dependency(record, "linux-base"), None);
        assert_eq!(parse_dependency("Package: x\n", ""), None);
    }

    #[test]
    fn only_the_way_to_the_mirrors_is_taken_from_the_machine() {
        let machine = "APT::Update::Post-Invoke:: \"rm -f /var/cache/apt/archives/*.deb\";\n\
            Acquire::http::Proxy \"http://proxy.example:3128\";\n\
            Acquire::IndexTargets::deb::DEP-11::MetaKey \"x\";\n\
            Dir::Cache \"var/cache/apt\";\n";
        let text = configuration_text(Path::new("/cache/apt/trixie"), machine);
        assert!(text.contains("Acquire::http::Proxy \"http://proxy.example:3128\";"));
        for absent in ["Post-Invoke", "DEP-11", "var/cache/apt\""] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
    }

    #[test]
    fn a_mirror_without_a_security_archive_gives_one_paragraph() {
        let mut mirror = Mirror { archive: "http://m.example/debian".into(), security: None, keyring: None };
        assert_eq!(sources_text(&mirror, Suite::Trixie).matches("Types: deb").count(), 1);
        mirror.security = Some("http://m.example/debian-security".into());
        let text = sources_text(&mirror, Suite::Trixie);
        assert!(text.contains("Suites: trixie-security\n"), "{text}");
    }
}
