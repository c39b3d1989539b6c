//! `napa top` at a terminal and in a pipe, on a daemon that says what the test wants.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use napa_api::host::{Guarantees, HostFigures, HostReport, Level, Time, VmMemoryRow};
use napa_units::Bytes;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// Longer than anything takes on a busy machine; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const CONTROL_Z: &[u8] = b"\x1a";
/// The alternate screen is left (xterm control sequences).
const LEFT: &str = "\x1b[?1049l";

/// A report that differs from the last one.
fn report(number: u64, vms: u64) -> HostReport {
    let row = |vm: u64| VmMemoryRow {
        name: format!("vm-{vm}"),
        limit: Bytes::mib(512),
        resident: Bytes::mib(100 + vm),
        ..VmMemoryRow::default()
    };
    HostReport {
        time: Time(1_800_000_000_000 + 1000 * number),
        level: Level::Clear,
        reasons: Vec::new(),
        policy: "napa".into(),
        admission_open: true,
        host: HostFigures { ram: Bytes::gib(16), capacity: Bytes::gib(4), ..HostFigures::default() },
        guarantees: Guarantees::default(),
        vms: (0..vms).map(row).collect(),
        decisions: Vec::new(),
        troubles: Vec::new(),
    }
}

/// A daemon that gives the next report to all who ask or follow. It ends with the value.
struct Daemon {
    socket: PathBuf,
    is_over: Arc<AtomicBool>,
    threads: Option<JoinHandle<()>>,
}

impl Daemon {
    fn new(socket: &Path, vms: u64) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, number) = (is_over.clone(), Arc::new(AtomicU64::new(0)));
        let threads = std::thread::spawn(move || {
            let mut clients = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (over, number) = (over.clone(), number.clone());
                clients.push(std::thread::spawn(move || {
                    // Somebody who has gone away has had enough.
                    let _ = answer(&stream, &over, || report(number.fetch_add(1, Ordering::SeqCst), vms));
                }));
            }
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        Self { socket: socket.to_owned(), is_over, threads: Some(threads) }
    }
}

/// Answers one request: with a report, or with a stream of them.
fn answer(mut stream: &UnixStream, over: &AtomicBool, next: impl Fn() -> HostReport) -> std::io::Result<()> {
    let request = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let lines: Vec<String> = request.collect();
    let json = || serde_json::to_string(&next()).unwrap();
    match lines[0].as_str() {
        "GET /v1/host HTTP/1.1" => {
            let body = json();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes())
        }
        "GET /v1/events HTTP/1.1" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
            while !over.load(Ordering::SeqCst) {
                stream.write_all(format!("event: report\ndata: {}\n\n", json()).as_bytes())?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }
        other => panic!("nobody asks for {other}"),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.socket));
        let _ = self.threads.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A terminal with a program on it, in a session of its own.
struct Terminal {
    keyboard: File,
    /// The program's side.
    side: OwnedFd,
    before: Termios,
    child: Child,
    output: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn new(words: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let side = open(Path::new(path.to_str().unwrap()), flags, Mode::empty()).unwrap();
        set_size(&side, 80, 24);
        let before = tcgetattr(&side).unwrap();
        let end = || Stdio::from(side.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty"]).args(words).env("TERM", "xterm").env("NO_COLOR", "1");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(keyboard);
        let (sender, output) = channel();
        let mut screen = keyboard.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { keyboard, side, before, child, output, shown: String::new() }
    }

    /// napa top on this socket.
    fn top(socket: &Path) -> Self {
        Self::new(&[env!("CARGO_BIN_EXE_napa"), "top", "--socket", socket.to_str().unwrap()])
    }

    /// Waits until this is written, behind what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} does not appear: {:?}", self.shown),
            }
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.side).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the end: the exit code, with the terminal as it was before.
    fn end(mut self) -> Option<i32> {
        self.wait_for(LEFT);
        let code = self.child.wait().unwrap().code();
        let after = tcgetattr(&self.side).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before), "the terminal is not as it was");
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal goes, and with it its session.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// Sends a signal to napa, which `setsid` has become.
fn signal(terminal: &Terminal, name: &str) {
    let pid = terminal.child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

fn napa(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_napa")).args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn keys_and_signals_end_it_and_the_terminal_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(&folder.path().join("host.sock"), 3);
    for keys in [b"q".as_slice(), b"\x03", b"\x1b", b"?\x1b[Bq"] {
        let mut terminal = Terminal::top(&daemon.socket);
        terminal.wait_for("vm-2");
        assert!(terminal.is_raw());
        terminal.press(keys);
        assert_eq!(terminal.end(), Some(0), "{keys:?}");
    }
    for name in ["TERM", "HUP", "INT", "QUIT"] {
        let mut terminal = Terminal::top(&daemon.socket);
        terminal.wait_for("vm-2");
        signal(&terminal, name);
        assert_eq!(terminal.end(), Some(0), "{name}");
    }
}

#[test]
fn ctrl_z_gives_the_shell_its_terminal_and_fg_takes_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(&folder.path().join("host.sock"), 3);
    let script = "set -m; \"$0\" top --socket \"$1\"; echo SHELL; read line; fg; echo END";
    let napa = env!("CARGO_BIN_EXE_napa");
    let mut terminal = Terminal::new(&["sh", "-c", script, napa, daemon.socket.to_str().unwrap()]);
    terminal.wait_for("vm-2");
    terminal.press(CONTROL_Z);
    terminal.wait_for(LEFT);
    terminal.wait_for("SHELL");
    assert!(!terminal.is_raw());
    terminal.press(b"\n");
    terminal.wait_for("vm-2");
    assert!(terminal.is_raw());
    terminal.press(b"q");
    terminal.wait_for(LEFT);
    terminal.wait_for("END");
    assert!(!terminal.is_raw());
}

#[test]
fn ctrl_z_does_nothing_where_no_shell_could_continue_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(&folder.path().join("host.sock"), 3);
    let mut terminal = Terminal::top(&daemon.socket);
    terminal.wait_for("vm-2");
    for _ in 0..2 {
        terminal.press(CONTROL_Z);
        terminal.wait_for(LEFT);
        terminal.wait_for("vm-2");
    }
    // Somebody else may have had the terminal meanwhile.
    signal(&terminal, "CONT");
    terminal.wait_for(LEFT);
    terminal.wait_for("vm-2");
    terminal.press(b"q");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_daemon_that_goes_away_is_told_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("host.sock");
    let daemon = Daemon::new(&socket, 3);
    let mut terminal = Terminal::top(&socket);
    terminal.wait_for("vm-2");
    drop(daemon);
    terminal.wait_for("the last picture, no answer for");
    let _daemon = Daemon::new(&socket, 4);
    terminal.wait_for("vm-3");
    terminal.press(b"q");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_thousand_vms_scroll_and_sizes_change() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(&folder.path().join("host.sock"), 1000);
    let mut terminal = Terminal::top(&daemon.socket);
    terminal.wait_for("vm-999");
    // The last VM, by name backwards.
    terminal.press(b"nn\x1b[F");
    terminal.wait_for("vm-0 ");
    set_size(&terminal.side, 30, 6);
    terminal.wait_for("? help");
    set_size(&terminal.side, 1, 1);
    set_size(&terminal.side, 200, 60);
    terminal.wait_for("GIVES");
    terminal.press(b"q");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_pipe_gets_one_report_and_programs_get_json() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(&folder.path().join("host.sock"), 2);
    let socket = daemon.socket.to_str().unwrap();
    for words in [&["top", "--socket", socket][..], &["top", "--socket", socket, "--once"]] {
        let output = napa(words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(text.contains("\nvm-0  512M   100M") && !text.contains('\x1b'), "{text}");
    }
    let json: HostReport =
        serde_json::from_slice(&napa(&["top", "--socket", socket, "--json"]).stdout).unwrap();
    assert_eq!(json, report(2, 2));
}

#[test]
fn reports_come_again_and_again_until_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(&folder.path().join("host.sock"), 2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_napa"))
        .args(["top", "--json", "--interval", "1", "--socket", daemon.socket.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reports = lines.take(2).map(|line| serde_json::from_str::<HostReport>(&line.unwrap()).unwrap());
    let times: Vec<Time> = reports.map(|report| report.time).collect();
    assert_eq!(times, [report(0, 0).time, report(1, 0).time]);
    // The pipe was closed with the lines.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn without_a_daemon_the_line_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("host.sock");
    for words in [&["top"][..], &["top", "--json"], &["top", "--once"]] {
        let output = napa(&[words, &["--socket", socket.to_str().unwrap()]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("start one with 'napa host'"), "{error}");
    }
}
