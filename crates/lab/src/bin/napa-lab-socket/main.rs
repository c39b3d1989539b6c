//! Copies standard input into a socket and what comes out of it to standard output, like a cable. busybox, which is
//! all that a host and a small guest have, knows neither vsock nor Unix sockets.
//!
//! ```text
//! napa-lab-socket connect|listen unix:PATH|vsock:PORT
//! ```
//!
//! A vsock connection goes to the host (context id 2). `listen` takes one connection. Either side may end first.

mod vsock;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::net::{Shutdown, shutdown};

const USAGE: &str = "usage: napa-lab-socket connect|listen unix:PATH|vsock:PORT";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [action, place] = words.as_slice() else { bail!(USAGE) };
    let socket = open(action, place).with_context(|| format!("{action} {place}"))?;
    cable(socket).with_context(|| format!("copy to and from {place}"))
}

fn open(action: &str, place: &str) -> Result<OwnedFd> {
    let (kind, name) = place.split_once(':').context(USAGE)?;
    let port = || name.parse().with_context(|| format!("{name:?} is no port"));
    Ok(match (action, kind) {
        ("connect", "unix") => UnixStream::connect(name)?.into(),
        ("listen", "unix") => UnixListener::bind(name)?.accept()?.0.into(),
        ("connect", "vsock") => vsock::connect(port()?)?,
        ("listen", "vsock") => vsock::accept_one(port()?)?,
        _ => bail!(USAGE),
    })
}

/// Ends when both directions have.
fn cable(socket: OwnedFd) -> Result<()> {
    let (mut to, mut from) = (File::from(socket.try_clone()?), File::from(socket));
    let sends = thread::spawn(move || -> io::Result<()> {
        io::copy(&mut io::stdin(), &mut to)?;
        Ok(shutdown(to.as_fd(), Shutdown::Write)?)
    });
    io::copy(&mut from, &mut io::stdout())?;
    sends.join().ok().context("the sending thread panicked")??;
    Ok(())
}
