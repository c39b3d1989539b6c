//! An interactive prompt in a host.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::protocol::TerminalSize;
use napa_lab::{Host, Input};
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// How soon a changed size of the window reaches the host.
const RESIZE_POLL: Duration = Duration::from_millis(250);

const WELCOME: &str = "\
A stock Debian host with KVM. napa is in the PATH, guests' images are in /images:\r
  napa run --kernel /images/vmlinux-6.12 --initrd /images/initramfs-6.12.cpio --memory 256M \\\r
    --cmdline 'console=ttyS0 quiet DO=sh'\r
  napa run --kernel /images/bzImage-6.12 --initrd /images/initramfs-6.12.cpio --memory 512M \\\r
    --disk path=/images/debian.ext4 --cmdline 'console=ttyS0 quiet root=/dev/vda'      (login: root)\r
/dev/lab/scratch is an empty disk. 'exit' ends the host and forgets all that was written.\r
";

/// The terminal as it was; restored when dropped.
struct RawTerminal {
    before: Termios,
}

/// Connects the terminal to a shell in the host, and gives back the shell's exit code.
///
/// # Errors
/// Standard input is no terminal, or the host is gone.
pub fn run(host: &Host) -> Result<i32> {
    ensure!(isatty(stdin()), "the shell needs a terminal: `cargo xtask lab run` runs commands without one");
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    let (term, prompt) = (format!("TERM={term}"), "PS1=lab:\\w# ");
    let job = host.spawn_on_terminal(&["env", &term, prompt, "sh", "-i"], window_size()?)?;
    let raw = RawTerminal::enter()?;
    print(WELCOME.as_bytes());
    let (typed, resized) = (job.input(), job.input());
    // Both threads end with this process.
    thread::spawn(move || forward_keys(&typed));
    thread::spawn(move || forward_size(&resized));
    let code = job.stream(|_, bytes| print(bytes));
    drop(raw);
    Ok(code?)
}

impl RawTerminal {
    fn enter() -> Result<RawTerminal> {
        let before = tcgetattr(stdin()).context("read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("set the terminal's mode")?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

fn forward_keys(job: &Input) {
    let mut buffer = [0; 4096];
    loop {
        let sent = match std::io::stdin().lock().read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => job.write(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn forward_size(job: &Input) {
    let mut last = None;
    while let Ok(size) = window_size() {
        if last.replace(size) != Some(size) && job.resize(size).is_err() {
            return;
        }
        thread::sleep(RESIZE_POLL);
    }
}

fn window_size() -> Result<TerminalSize> {
    let size = tcgetwinsize(stdin()).context("read the terminal's size")?;
    Ok(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Output that nobody reads any more is dropped.
fn print(bytes: &[u8]) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(bytes).and_then(|()| output.flush());
}
