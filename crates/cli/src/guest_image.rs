//! `napa guest-image`: the embedded guest as a file, to run elsewhere.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crate::command::GuestImageArgs;
use crate::error::Error;
use crate::output;

/// Writes the image.
pub fn write(arguments: &GuestImageArgs) -> Result<ExitCode, Error> {
    let path = arguments.output.as_path();
    if path == Path::new("-") {
        return to_standard_output();
    }
    std::fs::write(path, napa_guest::IMAGE).map_err(|error| {
        Error::bad_input(format!("--output {}: cannot write it: {error}", path.display()))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn to_standard_output() -> Result<ExitCode, Error> {
    if std::io::stdout().is_terminal() {
        return Err(Error::bad_input(
            "--output -: an image is no text for a terminal: name a file, or a pipe",
        ));
    }
    output::print(napa_guest::IMAGE)
}
