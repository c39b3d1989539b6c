//! The programs of this workspace that go into a host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use crate::command::run_to_text;

/// Puts this `napa` into the hosts instead of a freshly built one.
pub const NAPA_VARIABLE: &str = "NAPA_BINARY";

/// The `napa` under test: the one named by `NAPA_BINARY`, or built from this checkout.
///
/// # Errors
/// It does not build.
pub fn napa() -> Result<PathBuf> {
    static NAPA: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os(NAPA_VARIABLE) {
        return Ok(PathBuf::from(path));
    }
    once(&NAPA, || built("build", "napa-cli", "napa", &[]))
}

/// The agent that runs in a host.
///
/// # Errors
/// It does not build.
pub fn agent() -> Result<PathBuf> {
    static AGENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&AGENT, || built("rustc", "napa-lab", "napa-lab-agent", STRIPPED))
}

/// The program that connects a socket of a host or a guest to its standard input and output.
///
/// # Errors
/// It does not build.
pub fn socket() -> Result<PathBuf> {
    static SOCKET: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&SOCKET, || built("rustc", "napa-lab", "napa-lab-socket", STRIPPED))
}

/// Without symbols a program is the same after changes elsewhere, and so are the images and snapshots with it.
const STRIPPED: &[&str] = &["--", "-C", "strip=symbols"];

fn once(
    cell: &OnceLock<Result<PathBuf, String>>,
    build: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    let built = cell.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

/// One line of cargo's JSON messages.
#[derive(Deserialize)]
struct CargoMessage {
    target: Option<CargoTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
}

fn built(subcommand: &str, package: &str, binary: &str, flags: &[&str]) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args([
        subcommand,
        "--quiet",
        "--release",
        "--message-format=json-render-diagnostics",
    ]);
    let messages = run_to_text(command.args(["--package", package, "--bin", binary]).args(flags))
        .with_context(|| format!("build {binary} for the lab"))?;
    executable(&messages, binary).with_context(|| format!("cargo built {binary}, but did not say where"))
}

fn executable(messages: &str, binary: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<CargoMessage>(line).ok());
    let mut matching =
        messages.filter(|message| message.target.as_ref().is_some_and(|target| target.name == binary));
    matching.find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_the_program_is() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"libc\"},\"executable\":null}\n\
            not json\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"napa\"},\"executable\":\"/t/release/napa\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(messages, "napa"), Some(PathBuf::from("/t/release/napa")));
        assert_eq!(executable(messages, "other"), None);
    }
}
