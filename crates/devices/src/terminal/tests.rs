use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use napa_sys::reactor::{self, Handle};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::testing::{Piped, on};
use super::*;

/// A console that takes at most `room` bytes and tells all that happens to it.
struct Probe {
    backend: Arc<ConsoleBackend>,
    listens: AtomicBool,
    room: Mutex<usize>,
    log: Mutex<Sender<Event>>,
}

#[derive(Debug, PartialEq)]
enum Event {
    Input(Vec<u8>),
    OutputRoom,
    Resized(u16, u16),
}

impl Probe {
    fn connect(
        backend: &Arc<ConsoleBackend>,
        kind: ConsoleKind,
        room: usize,
    ) -> (Arc<Self>, Receiver<Event>) {
        let (log, seen) = channel();
        let probe = Arc::new(Self {
            backend: Arc::clone(backend),
            listens: AtomicBool::new(true),
            room: Mutex::new(room),
            log: Mutex::new(log),
        });
        let console: Arc<dyn Console> = probe.clone();
        backend.connect(kind, Arc::downgrade(&console));
        (probe, seen)
    }

    fn make_room(&self, room: usize) {
        *self.room.lock().unwrap() = room;
        self.backend.input_room();
    }

    fn tell(&self, event: Event) {
        self.log.lock().unwrap().send(event).unwrap();
    }
}

impl Console for Probe {
    fn listens(&self) -> bool {
        self.listens.load(Ordering::SeqCst)
    }

    fn input(&self, bytes: &[u8]) -> usize {
        let mut room = self.room.lock().unwrap();
        let count = bytes.len().min(*room);
        *room -= count;
        if count > 0 {
            self.tell(Event::Input(bytes[..count].to_vec()));
        }
        count
    }

    fn output_room(&self) {
        self.tell(Event::OutputRoom);
    }

    fn resized(&self, columns: u16, rows: u16) {
        self.tell(Event::Resized(columns, rows));
    }
}

/// Waits for the next `count` bytes of input.
fn input(seen: &Receiver<Event>, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match seen.recv().unwrap() {
            Event::Input(bytes) => all.extend(bytes),
            other => panic!("expected input, got {other:?}"),
        }
    }
    all
}

fn run(worker: Box<dyn Worker>) -> Handle {
    let (handle, _detached) = reactor::spawn("console").unwrap();
    handle.add(worker).unwrap();
    handle
}

#[test]
fn input_goes_to_the_console_that_wrote_last() {
    let mut piped = Piped::new();
    let (_serial, serial_seen) = Probe::connect(&piped.backend, ConsoleKind::Serial, 1000);
    let (_virtio, virtio_seen) = Probe::connect(&piped.backend, ConsoleKind::Virtio, 1000);
    piped.input.write_all(b"one").unwrap();
    assert_eq!(input(&serial_seen, 3), b"one", "nobody wrote yet");
    piped.backend.write_or_drop(ConsoleKind::Virtio, b"login: ");
    assert_eq!(piped.read(7), b"login: ");
    piped.input.write_all(b"two").unwrap();
    assert_eq!(input(&virtio_seen, 3), b"two");
}

#[test]
fn a_message_on_a_console_that_does_not_listen_takes_no_input_away() {
    let mut piped = Piped::new();
    let (serial, serial_seen) = Probe::connect(&piped.backend, ConsoleKind::Serial, 1000);
    let (_virtio, virtio_seen) = Probe::connect(&piped.backend, ConsoleKind::Virtio, 1000);
    serial.listens.store(false, Ordering::SeqCst);
    piped.backend.write_or_drop(ConsoleKind::Serial, b"[0.1] hello");
    piped.input.write_all(b"one").unwrap();
    assert_eq!(input(&serial_seen, 3), b"one", "the other never wrote");
    piped.backend.write_or_drop(ConsoleKind::Virtio, b"login: ");
    piped.backend.write_or_drop(ConsoleKind::Serial, b"[0.2] hello");
    piped.input.write_all(b"two").unwrap();
    assert_eq!(input(&virtio_seen, 3), b"two");
}

#[test]
fn input_waits_for_room_and_nothing_is_lost() {
    let mut piped = Piped::new();
    let (probe, seen) = Probe::connect(&piped.backend, ConsoleKind::Serial, 0);
    let paste: Vec<u8> = (0..100_000).map(|index| (index % 251) as u8).collect();
    let mut writer = piped.input.try_clone().unwrap();
    let writing = std::thread::spawn({
        let paste = paste.clone();
        move || writer.write_all(&paste).unwrap()
    });
    let mut all = Vec::new();
    while all.len() < paste.len() {
        let room = 777.min(paste.len() - all.len());
        probe.make_room(room);
        all.extend(input(&seen, room));
    }
    writing.join().unwrap();
    assert_eq!(all, paste);
    piped.backend.write_or_drop(ConsoleKind::Serial, b"still there");
    assert_eq!(piped.read(11), b"still there");
}

#[test]
fn the_end_of_input_is_not_the_end_of_output() {
    for name in ["/dev/null", "/etc/hostname"] {
        let file = std::fs::File::open(name).unwrap();
        let (mut output, writer) = pipe().unwrap();
        let (backend, worker, _commands) = on(&file, &writer);
        let (_probe, seen) = Probe::connect(&backend, ConsoleKind::Serial, usize::MAX);
        let handle = run(worker);
        let contents = std::fs::read(name).unwrap();
        assert_eq!(input(&seen, contents.len()), contents);
        backend.write_or_drop(ConsoleKind::Serial, b"on we go");
        let mut bytes = [0; 8];
        output.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"on we go");
        handle.quit();
    }
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_guest() {
    let piped = Piped::new();
    let Piped { backend, .. } = &piped;
    let (reader, writer) = pipe().unwrap();
    let (lonely, _worker, _commands) = on(&std::fs::File::open("/dev/null").unwrap(), &writer);
    drop((reader, writer));
    for _ in 0..100_000 {
        assert_eq!(lonely.write(ConsoleKind::Virtio, b"anybody?"), 8);
    }
    assert!(!lonely.is_output_full());
    assert_eq!(backend.dropped_bytes(), 0);
}

#[test]
fn a_reader_that_catches_up_frees_the_consoles() {
    let mut piped = Piped::new();
    let (_probe, seen) = Probe::connect(&piped.backend, ConsoleKind::Virtio, 0);
    let mut written = 0;
    while piped.backend.write(ConsoleKind::Virtio, &[7; 1000]) == 1000 {
        written += 1000;
    }
    assert!(piped.backend.is_output_full());
    piped.backend.write_or_drop(ConsoleKind::Serial, b"lost");
    assert_eq!(piped.backend.dropped_bytes(), 4);
    assert!(piped.read(written).iter().all(|byte| *byte == 7));
    assert_eq!(seen.recv().unwrap(), Event::OutputRoom);
}

#[test]
fn a_file_is_appended_to_and_may_not_be_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.log");
    std::fs::write(&path, "before\n").unwrap();
    let open = |path: PathBuf| ConsoleBackend::open(&ConsoleConfig::File(path), None, Box::new(|_| {}));
    let (backend, _worker) = open(path.clone()).unwrap();
    backend.write_or_drop(ConsoleKind::Serial, b"after\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"before\nafter\n");
    for bad in [folder.path().to_owned(), folder.path().join("no/such")] {
        let error = open(bad.clone()).err().unwrap().to_string();
        assert!(error.contains(&bad.display().to_string()) && error.contains("name a file"), "{error}");
    }
}

/// A back end on a socket in a folder of its own.
fn on_socket()
-> (tempfile::TempDir, PathBuf, Arc<ConsoleBackend>, Handle, std::thread::JoinHandle<std::io::Result<()>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console");
    let (backend, worker) =
        ConsoleBackend::open(&ConsoleConfig::Socket(path.clone()), None, Box::new(|_| {})).unwrap();
    let (handle, thread) = reactor::spawn("console").unwrap();
    handle.add(worker).unwrap();
    (folder, path, backend, handle, thread)
}

fn read(client: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_client_sees_what_it_missed_and_may_come_again() {
    let (_folder, path, backend, handle, thread) = on_socket();
    let (_probe, seen) = Probe::connect(&backend, ConsoleKind::Serial, usize::MAX);
    backend.write_or_drop(ConsoleKind::Serial, b"login: ");
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).unwrap();
        assert_eq!(read(&mut client, 7), b"login: ");
        client.write_all(b"root\n\x01x").unwrap();
        assert_eq!(input(&seen, 7), b"root\n\x01x", "a client has no escape key");
        drop(client);
        while backend.output.is_connected() {
            std::thread::yield_now();
        }
        backend.write_or_drop(ConsoleKind::Serial, b"login: ");
    }
    handle.quit();
    thread.join().unwrap().unwrap();
    drop(backend);
    assert!(!path.exists(), "the socket is removed at the end");
}

#[test]
fn a_second_client_is_turned_away_until_the_first_is_done() {
    let (_folder, path, backend, handle, _thread) = on_socket();
    let (_probe, seen) = Probe::connect(&backend, ConsoleKind::Serial, usize::MAX);
    let mut first = UnixStream::connect(&path).unwrap();
    backend.write_or_drop(ConsoleKind::Serial, b"hi");
    assert_eq!(read(&mut first, 2), b"hi");
    let mut second = String::new();
    UnixStream::connect(&path).unwrap().read_to_string(&mut second).unwrap();
    assert!(second.contains("another client"), "{second}");
    // The first closes its sending side only: it still gets what is written, and makes way for a next one.
    first.write_all(b"bye").unwrap();
    first.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(input(&seen, 3), b"bye");
    backend.write_or_drop(ConsoleKind::Serial, b"!");
    assert_eq!(read(&mut first, 1), b"!");
    handle.quit();
}

/// A terminal: the person's end and the process's end.
fn terminal() -> (OwnedFd, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let process =
        ioctl_tiocgptpeer(&person, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    (person, process)
}

fn is_raw(terminal: &OwnedFd) -> bool {
    !tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON)
}

fn read_until(person: &OwnedFd, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        rustix::io::read(person, &mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// One test, because a process has one terminal.
#[test]
fn a_person_at_a_terminal_has_keys_for_napa_and_gets_the_terminal_back() {
    let (person, process) = terminal();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&process, size).unwrap();
    let before = tcgetattr(&process).unwrap();
    let (backend, worker, commands) = on(&process, &process);
    let (_probe, seen) = Probe::connect(&backend, ConsoleKind::Serial, usize::MAX);
    let handle = run(worker);
    assert_eq!(backend.size(), (80, 24));
    assert!(!is_raw(&process), "opening does not take the terminal");

    backend.attach().unwrap();
    assert!(is_raw(&process));
    rustix::io::write(&person, b"ls\x03\x01\x01\x01x").unwrap();
    assert_eq!(input(&seen, 4), b"ls\x03\x01");
    assert_eq!(commands.recv().unwrap(), ConsoleCommand::HardStop);
    rustix::io::write(&person, b"\x01cp\x1bq").unwrap();
    assert_eq!(commands.recv().unwrap(), ConsoleCommand::Pause);
    assert_eq!(input(&seen, 1), b"q");
    assert!(read_until(&person, "keys go to the guest\r").contains("p pause"));

    tcsetwinsize(&process, Winsize { ws_col: 132, ..size }).unwrap();
    backend.resized();
    backend.resized();
    assert_eq!(seen.recv().unwrap(), Event::Resized(132, 24));
    assert!(seen.try_recv().is_err(), "told once");

    // A shell that had the terminal in between has put it into its own mode.
    let mut cooked = before.clone();
    cooked.local_modes |= LocalModes::ICANON;
    rustix::termios::tcsetattr(&process, rustix::termios::OptionalActions::Now, &cooked).unwrap();
    backend.continued().unwrap();
    assert!(is_raw(&process));

    backend.close();
    assert_settings(&process, &before);
    backend.attach().unwrap();
    assert!(is_raw(&process));
    let panicked = std::thread::spawn(|| panic!("on purpose, to see the terminal restored")).join();
    assert!(panicked.is_err());
    assert_settings(&process, &before);
    backend.detach();
    backend.attach().unwrap();
    assert!(is_raw(&process));
    handle.quit();
    drop(person);
    backend.detach();
}

fn assert_settings(terminal: &OwnedFd, expected: &rustix::termios::Termios) {
    let now = tcgetattr(terminal).unwrap();
    assert_eq!(
        (now.input_modes, now.output_modes, now.control_modes, now.local_modes),
        (expected.input_modes, expected.output_modes, expected.control_modes, expected.local_modes)
    );
}
