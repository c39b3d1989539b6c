//! `cargo xtask licences`: every dependency has a licence, a name and a source that `deny.toml` allows, and
//! every direct one has a row in `docs/dependencies.md`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The workspace, and the guest's program with a dependency graph of its own.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "crates/guest/program/Cargo.toml"];
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// How cargo names the public registry in its answers, whatever mirror serves it.
const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    name: String,
}

/// The part of cargo's answer that matters.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None`: a package of this repository.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None`: a package of this repository.
    source: Option<String>,
}

/// Checks all dependencies and says how many there are.
pub fn check() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let text = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    let mut packages = Vec::new();
    for manifest in MANIFESTS {
        packages.extend(metadata(&root.join(manifest))?.packages);
    }
    let mut faults: Vec<String> = packages.iter().flat_map(|package| rules.faults(package)).collect();
    let rows = std::fs::read_to_string(root.join("docs/dependencies.md"))
        .context("cannot read docs/dependencies.md")?;
    faults.extend(unexplained(&packages, &rows));
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} packages, all with a licence, a name and a source that deny.toml allows", packages.len());
    Ok(())
}

fn metadata(manifest: &Path) -> Result<Metadata> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            TARGET,
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata for {}: {}",
            manifest.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cargo metadata for {}", manifest.display()))
}

/// The direct dependencies of this repository's packages that have no row in the document.
fn unexplained(packages: &[Package], document: &str) -> Vec<String> {
    let own = packages.iter().filter(|package| package.source.is_none());
    let foreign =
        own.flat_map(|package| &package.dependencies).filter(|dependency| dependency.source.is_some());
    let names: BTreeSet<&str> = foreign.map(|dependency| dependency.name.as_str()).collect();
    let has_row = |name: &str| document.lines().any(|line| line.starts_with(&format!("| {name} |")));
    let without = names.into_iter().filter(|name| !has_row(name));
    without
        .map(|name| format!("{name} has no row in docs/dependencies.md: say what it does for us"))
        .collect()
}

impl Rules {
    /// What is wrong with a package.
    fn faults(&self, package: &Package) -> Vec<String> {
        let Package { name, version, license, source, .. } = package;
        let mut faults = Vec::new();
        if self.bans.deny.iter().any(|banned| banned.name == *name) {
            faults.push(format!("{name} {version} is banned by deny.toml"));
        }
        if source.as_ref().is_some_and(|source| source != PUBLIC_REGISTRY) {
            faults.push(format!(
                "{name} {version} comes from {}, not from crates.io",
                source.as_deref().unwrap_or("")
            ));
        }
        match license.as_deref().map(|license| self.allows(license)) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                let license = license.as_deref().unwrap_or_default();
                faults.push(format!("{name} {version} is under '{license}', which deny.toml does not allow"));
            }
            Some(Err(error)) => faults.push(format!("{name} {version}: {error:#}")),
            None => faults.push(format!("{name} {version} has no licence")),
        }
        faults
    }

    /// Whether the allowed licences satisfy an expression. Some packages still write '/' for OR.
    fn allows(&self, license: &str) -> Result<bool> {
        let expression = spdx::Expression::parse_mode(license, spdx::ParseMode::LAX)
            .map_err(|error| anyhow::anyhow!("'{license}' is no licence: {}", error.reason))?;
        Ok(expression.evaluate(|requirement| {
            let id = requirement.license.id();
            id.is_some_and(|id| {
                requirement.addition.is_none() && self.licenses.allow.iter().any(|allowed| allowed == id.name)
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            "licenses.allow = ['MIT', 'Apache-2.0', 'Unicode-3.0']\nbans.deny = [{ name = 'bad' }]",
        )
        .unwrap()
    }

    fn check(name: &str, license: Option<&str>, source: Option<&str>, expected: &[&str]) {
        let package = Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
            dependencies: vec![],
        };
        let found = rules().faults(&package);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (fault, words) in found.iter().zip(expected) {
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn a_licence_must_be_allowed() {
        let public = Some(PUBLIC_REGISTRY);
        check("a", Some("MIT"), public, &[]);
        check("a", Some("GPL-3.0-only OR MIT"), public, &[]);
        check("a", Some("MIT/Apache-2.0"), public, &[]);
        check("a", Some("(MIT OR GPL-3.0-only) AND Unicode-3.0"), public, &[]);
        check("a", Some("MIT AND GPL-3.0-only"), public, &["does not allow"]);
        check("a", Some("GPL-2.0-only"), public, &["'GPL-2.0-only', which deny.toml does not allow"]);
        check("a", Some("Do what you like"), public, &["is no licence"]);
        check("a", None, None, &["has no licence"]);
    }

    #[test]
    fn names_and_sources_must_be_allowed_too() {
        check("bad", Some("MIT"), Some(PUBLIC_REGISTRY), &["is banned"]);
        check("a", Some("MIT"), Some("git+https://example.org/a"), &["not from crates.io"]);
        check(
            "bad",
            None,
            Some("git+https://example.org/a"),
            &["is banned", "not from crates.io", "no licence"],
        );
    }

    #[test]
    fn a_direct_dependency_needs_a_row() {
        let package = |source: Option<&str>, dependency: &str| Package {
            name: "a".into(),
            version: "1.0.0".into(),
            license: None,
            source: source.map(str::to_owned),
            dependencies: vec![Dependency { name: dependency.into(), source: Some(PUBLIC_REGISTRY.into()) }],
        };
        let packages =
            [package(None, "told"), package(None, "untold"), package(Some(PUBLIC_REGISTRY), "indirect")];
        let found = unexplained(&packages, "| crate | why |\n| told | because |\n");
        assert_eq!(found, ["untold has no row in docs/dependencies.md: say what it does for us"]);
    }
}
