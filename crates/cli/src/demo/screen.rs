//! The terminal while the demonstration has it: keys come at once, the picture is drawn in place, and
//! all of it is put back whatever happens.

use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// Alternate screen, cursor hidden, no wrapping at the margin (xterm control sequences).
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Terminals that do not know their size are taken for the classic one.
const SIZE_UNKNOWN: (usize, usize) = (80, 24);
/// Ctrl-C and Ctrl-D as the terminal sends them in this mode.
const CONTROL_C: u8 = 3;
const CONTROL_D: u8 = 4;

/// The settings to go back to. In one place, so that a panic's hook finds them.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();

/// The terminal. It is given back when this is dropped.
pub struct Screen {
    /// It gives keys.
    is_there: bool,
}

impl Screen {
    /// Takes the terminal, if there is one for both directions and this process is in its foreground.
    ///
    /// # Errors
    /// The terminal refused its new settings.
    pub fn take() -> io::Result<Option<Self>> {
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        if dumb || !stdin().is_terminal() || !stdout().is_terminal() || !is_foreground() {
            return Ok(None);
        }
        PANIC_HOOK.call_once(leave_on_panic);
        let settings = tcgetattr(stdin())?;
        let mut keys = settings.clone();
        keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        let screen = Self { is_there: true };
        tcsetattr(stdin(), OptionalActions::Now, &keys)?;
        write_all(ENTER)?;
        Ok(Some(screen))
    }

    /// What to wait for, until the terminal is gone.
    pub fn keys(&self) -> Option<BorrowedFd<'static>> {
        self.is_there.then(rustix::stdio::stdin)
    }

    /// Whether one of the keys that were pressed asks for the end. Waits if there are none.
    pub fn wants_end(&mut self) -> bool {
        let mut keys = [0; 64];
        match rustix::io::read(rustix::stdio::stdin(), &mut keys) {
            Ok(count) if count > 0 => {
                keys[..count].iter().any(|key| matches!(*key, b'q' | b'Q' | CONTROL_C | CONTROL_D))
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.is_there = false;
                true
            }
        }
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => SIZE_UNKNOWN,
        }
    }

    /// Draws lines over what was there.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            frame.push_str(if index == 0 { "" } else { "\r\n" });
            frame.push_str(line);
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        write_all(frame.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave(SAVED.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A process in the background would be stopped if it touched the terminal's settings.
fn is_foreground() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == rustix::process::getpgrp())
}

fn leave(settings: Option<Termios>) {
    if let Some(settings) = settings {
        // A terminal that was hung up needs neither.
        let _ = write_all(LEAVE);
        if is_foreground() {
            let _ = tcsetattr(stdin().as_fd(), OptionalActions::Now, &settings);
        }
    }
}

fn leave_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The panicking thread may hold the lock itself.
        if let Ok(mut saved) = SAVED.try_lock() {
            leave(saved.take());
        }
        next(panic);
    }));
}

fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}
