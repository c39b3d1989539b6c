//! Runs a helper program to its end, and reports all it said if it fails.

use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::tools::package_of;
use crate::unavailable::Unavailable;

/// Runs `command` and gives back what it printed.
///
/// # Errors
/// The program is missing (the error names the Debian package), or it fails (the error quotes its output).
pub(crate) fn run_to_bytes(command: &mut Command) -> Result<Vec<u8>> {
    Ok(run(command.stdout(Stdio::piped()))?.stdout)
}

/// As [`run_to_bytes`], for a program that prints text.
pub(crate) fn run_to_text(command: &mut Command) -> Result<String> {
    let bytes = run_to_bytes(command)?;
    String::from_utf8(bytes)
        .with_context(|| format!("read the output of {:?} as text", command.get_program()))
}

/// Runs `command` and shows nothing of it unless it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    run(command).map(drop)
}

fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let package = package_of(&program);
            return Err(Unavailable::Program { program, package }.into());
        }
        output => output.with_context(|| format!("run {program}"))?,
    };
    if !output.status.success() {
        let said =
            [output.stderr.as_slice(), &output.stdout].map(|text| String::from_utf8_lossy(text).into_owned());
        bail!("{program} failed ({}): {}", output.status, tail(said.join("\n").trim()));
    }
    Ok(output)
}

/// The end of a long text, where programs say what went wrong.
fn tail(text: &str) -> &str {
    const LENGTH_MAX: usize = 4000;
    let start = text.len().saturating_sub(LENGTH_MAX);
    let start = (start..=text.len()).find(|&start| text.is_char_boundary(start)).unwrap_or(0);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_quoted() {
        let error = run_quietly(Command::new("sh").args(["-c", "echo out; echo reason >&2; exit 3"]));
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("reason") && error.contains("out") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = run_quietly(&mut Command::new("/nonexistent/dpkg-deb")).unwrap_err();
        assert!(format!("{error:#}").contains("package dpkg"), "{error:#}");
    }

    #[test]
    fn the_tail_of_a_text_keeps_whole_characters() {
        let text = "ü".repeat(3000);
        assert!(tail(&text).len() <= 4000 && tail(&text).chars().all(|character| character == 'ü'));
        assert_eq!(tail("short"), "short");
    }
}
