//! What a console leads to on the host, opened.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use napa_sys::socket::Listener;
use rustix::fs::{Mode, OFlags};

use super::descriptor::Descriptor;
use super::host_error;
use super::output::{Output, WhenFull};
use super::worker::Source;
use crate::OpenError;

/// What a configuration opens on the host.
pub(super) struct Ends {
    pub output: Output,
    pub source: Source,
    pub terminal: Option<OwnedFd>,
    pub is_shown: bool,
}

impl Ends {
    pub fn none() -> Self {
        let output = Output::new(WhenFull::GuestWaits, None);
        Self { output, source: Source::Nothing, terminal: None, is_shown: false }
    }

    pub fn stdio(input: &impl AsFd, output: &impl AsFd) -> Result<Self, OpenError> {
        let failed = |name| move |error: rustix::io::Errno| host_error(name)(error.into());
        let sink = Descriptor::inherited(output.as_fd(), OFlags::WRONLY)
            .map_err(failed("cannot use standard output as the console"))?;
        let source = Descriptor::inherited(input.as_fd(), OFlags::RDONLY)
            .map_err(failed("cannot use standard input as the console"))?;
        let terminal = match rustix::termios::isatty(input) {
            true => {
                Some(rustix::io::fcntl_dupfd_cloexec(input, 0).map_err(failed("cannot use the terminal"))?)
            }
            false => None,
        };
        let is_shown = rustix::termios::isatty(output);
        let output = Output::new(WhenFull::GuestWaits, Some(sink));
        let source = if terminal.is_some() { Source::terminal(source) } else { Source::stream(source) };
        Ok(Self { output, source, terminal, is_shown })
    }

    pub fn file(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::CLOEXEC
            | OFlags::NONBLOCK
            | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(0o666);
        let file = rustix::fs::open(path, flags, mode).map_err(|error| {
            let error = std::io::Error::from(error);
            OpenError::Input(format!(
                "cannot open the console file {}: {error}; name a file that you may write, in a folder that exists",
                path.display()
            ))
        })?;
        Ok(Self { output: Output::new(WhenFull::GuestWaits, Some(Descriptor::own(file))), ..Self::none() })
    }

    pub fn socket(path: &Path) -> Result<Self, OpenError> {
        let listener = Listener::bind(path)
            .map_err(|error| OpenError::Input(format!("cannot make the console socket: {error}")))?;
        let output = Output::new(WhenFull::OldestGo, None);
        Ok(Self { output, source: Source::Listener(listener), ..Self::none() })
    }
}
