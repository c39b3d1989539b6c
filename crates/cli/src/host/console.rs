//! `napa console`: the terminal becomes that of a VM of the host.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::Args;
use napa_api::host::VmDetail;
use napa_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

use super::place::{HostArgs, client_for, vm_path};
use crate::error::Error;
use crate::output;

/// Ctrl-A, as at the terminal of `napa run`.
const ESCAPE_KEY: u8 = 1;
/// What is read at once, in bytes.
const PIECE_BYTES: usize = 4096;

/// Which console.
#[derive(Args)]
pub struct ConsoleArgs {
    /// Name of the VM
    #[arg(value_name = "NAME")]
    pub vm: String,
    #[command(flatten)]
    pub host: HostArgs,
}

/// Connects the terminal with a VM until the VM ends or the person leaves.
pub fn console(arguments: &ConsoleArgs) -> Result<ExitCode, Error> {
    let vm = &arguments.vm;
    let detail: VmDetail = client_for(&arguments.host).get(&vm_path(vm, "")?)?;
    let state = detail.summary.state;
    if !state.is_alive() {
        return Err(Error::bad_input(format!("VM {vm:?} is {state}: start it with 'napa start {vm}'")));
    }
    let Some(path) = detail.console_socket else {
        return Err(Error::bad_input(format!(
            "the console of VM {vm:?} goes elsewhere: {}",
            detail.config.console
        )));
    };
    let stream = UnixStream::connect(&path).map_err(|error| {
        Error::failure(format!("cannot connect to the console {}: {error}", path.display()))
    })?;
    let failed = |error: io::Error| Error::failure(format!("the console of VM {vm:?}: {error}"));
    // Before the terminal changes: whatever ends this puts it back.
    let signals = SignalFd::new(&[libc::SIGTERM, libc::SIGHUP, libc::SIGINT]).map_err(failed)?;
    let raw = RawTerminal::enter().map_err(failed)?;
    if raw.is_some() {
        output::warn(format_args!("this is the console of {vm}; leave it with Ctrl-A d"));
    }
    let ended = converse(&stream, &signals, raw.is_some());
    drop(raw);
    match ended.map_err(failed)? {
        End::Left => Ok(ExitCode::SUCCESS),
        End::Closed => {
            output::warn(format_args!("the VM has closed its console"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

enum End {
    /// The person left.
    Left,
    /// The VM has ended.
    Closed,
}

/// Carries bytes both ways.
fn converse(stream: &UnixStream, signals: &SignalFd, is_terminal: bool) -> io::Result<End> {
    let (mut keys, mut input_is_open) = (Keys::default(), true);
    let mut piece = [0; PIECE_BYTES];
    loop {
        let stdin = io::stdin();
        let mut waits = vec![PollFd::new(stream, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if input_is_open {
            waits.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut waits, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
        drop(waits);
        if ready[1] {
            return Ok(End::Left);
        }
        if ready[0] {
            match (&*stream).read(&mut piece) {
                Ok(0) => return Ok(End::Closed),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(End::Closed),
                count => write(&piece[..count?])?,
            }
        }
        if ready.get(2) == Some(&true) {
            let count = rustix::io::read(&stdin, &mut piece)?;
            if count == 0 {
                input_is_open = false;
                continue;
            }
            let pressed =
                if is_terminal { keys.press(&piece[..count]) } else { Pressed::plain(&piece[..count]) };
            send(stream, &pressed.bytes)?;
            if pressed.leaves {
                return Ok(End::Left);
            }
        }
    }
}

/// A VM that ends while keys are sent is seen to have ended by the next read.
fn send(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}

/// The escape key, and the key after it.
#[derive(Default)]
struct Keys {
    is_escaped: bool,
}

/// What keys mean.
#[derive(Debug, PartialEq, Eq)]
struct Pressed {
    /// For the guest.
    bytes: Vec<u8>,
    /// The person leaves after that.
    leaves: bool,
}

impl Pressed {
    fn plain(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), leaves: false }
    }
}

impl Keys {
    fn press(&mut self, keys: &[u8]) -> Pressed {
        let mut bytes = Vec::with_capacity(keys.len());
        for key in keys {
            match (std::mem::take(&mut self.is_escaped), *key) {
                (false, ESCAPE_KEY) => self.is_escaped = true,
                (true, b'd' | b'D') => return Pressed { bytes, leaves: true },
                (true, ESCAPE_KEY) | (false, _) => bytes.push(*key),
                (true, _) => bytes.extend([ESCAPE_KEY, *key]),
            }
        }
        Pressed { bytes, leaves: false }
    }
}

/// The terminal in raw mode, until this is dropped.
struct RawTerminal {
    settings: Termios,
}

impl RawTerminal {
    /// `None`: standard input is no terminal.
    fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !rustix::termios::isatty(&stdin) {
            return Ok(None);
        }
        let settings = tcgetattr(stdin.as_fd())?;
        let mut raw = settings.clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST;
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { settings }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_key_leaves_or_is_sent() {
        for (keys, bytes, leaves) in [
            (&b"ls\r"[..], &b"ls\r"[..], false),
            (b"a\x01d", b"a", true),
            (b"\x01\x01", b"\x01", false),
            (b"\x01x", b"\x01x", false),
        ] {
            assert_eq!(Keys::default().press(keys), Pressed { bytes: bytes.to_vec(), leaves });
        }
        let mut keys = Keys::default();
        assert!(!keys.press(b"\x01").leaves && keys.press(b"d").leaves, "the keys may come apart");
    }
}
