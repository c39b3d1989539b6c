//! Raw mode: every key goes to the guest at once. It is always undone.
//!
//! A process has one terminal, so the settings to go back to are kept in one place, where a panic's
//! hook finds them too.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize, tcgetattr, tcsetattr};

/// The terminal in raw mode and its settings before.
struct Saved {
    terminal: OwnedFd,
    settings: Termios,
}

static SAVED: Mutex<Option<Saved>> = Mutex::new(None);
static PANIC_HOOK: Once = Once::new();

/// Puts `terminal` into raw mode until [`leave`]. Does nothing if it is in raw mode already.
///
/// Output processing stays on, so that lines of napa and of a simple guest begin at the left.
///
/// # Errors
/// The terminal refused its new settings.
pub(super) fn enter(terminal: &impl AsFd) -> rustix::io::Result<()> {
    PANIC_HOOK.call_once(restore_on_panic);
    let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    if saved.is_some() {
        return Ok(());
    }
    let settings = tcgetattr(terminal)?;
    let kept = rustix::io::fcntl_dupfd_cloexec(terminal, 0)?;
    let mut raw = settings.clone();
    raw.make_raw();
    raw.output_modes |= OutputModes::OPOST;
    *saved = Some(Saved { terminal: kept, settings });
    tcsetattr(terminal, OptionalActions::Now, &raw)
}

/// Gives the terminal its settings back, if it is in raw mode.
pub(super) fn leave() {
    restore(SAVED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Whether this process may read the terminal and change its settings without being stopped for it.
pub(super) fn is_ours(terminal: &impl AsFd) -> bool {
    match rustix::termios::tcgetpgrp(terminal) {
        Ok(foreground) => foreground == rustix::process::getpgrp(),
        // A terminal that does not control this process cannot stop it.
        Err(error) => error == Errno::NOTTY,
    }
}

/// Columns and rows; zero where the terminal does not know.
pub(super) fn size(terminal: &impl AsFd) -> (u16, u16) {
    match rustix::termios::tcgetwinsize(terminal) {
        Ok(Winsize { ws_col, ws_row, .. }) => (ws_col, ws_row),
        Err(_) => (0, 0),
    }
}

fn restore(saved: Option<Saved>) {
    // A shell that took the terminal meanwhile has its own settings on it.
    if let Some(Saved { terminal, settings }) = saved
        && is_ours(&terminal)
    {
        // A terminal that was hung up needs no settings.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &settings);
    }
}

fn restore_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        leave_at_once();
        next(panic);
    }));
}

/// As [`leave`], for a process that ends now. May be called in a signal handler: where somebody has the settings in hand
/// nothing happens, because it may be the interrupted thread itself.
pub fn leave_at_once() {
    if let Ok(mut saved) = SAVED.try_lock() {
        restore(saved.take());
    }
}
