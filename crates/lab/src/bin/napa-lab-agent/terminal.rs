//! Pseudo terminals for interactive jobs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use napa_lab::protocol::TerminalSize;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A new terminal: the controlling end and the end for a program.
///
/// # Errors
/// The kernel has no terminal to give.
pub fn open(size: TerminalSize) -> Result<(File, File)> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("open a terminal")?;
    grantpt(&controller).context("grant the terminal")?;
    unlockpt(&controller).context("unlock the terminal")?;
    let name = ptsname(&controller, Vec::new()).context("name the terminal")?;
    let name = name.to_str().context("the terminal's name is no text")?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32);
    let user = options.open(name).with_context(|| format!("open {name}"))?;
    let controller = File::from(controller);
    resize(&controller, size).context("set the terminal's size")?;
    Ok((controller, user))
}

/// Gives the terminal another size.
pub fn resize(terminal: &File, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Makes `command` the leader of a new session on the terminal.
#[allow(unsafe_code)] // A session can only be made between fork and exec.
pub fn attach(command: &mut Command, user: File) -> Result<()> {
    command.stdin(user.try_clone().context("share the terminal")?);
    command.stdout(user.try_clone().context("share the terminal")?);
    command.stderr(user);
    let lead_session = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory of ours.
    unsafe { command.pre_exec(lead_session) };
    Ok(())
}
