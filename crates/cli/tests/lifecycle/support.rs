//! A host to run VMs on, and VMs that end with the test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes on a busy machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A folder for sockets and images, and the words of napa run in it.
pub struct Host {
    folder: TempDir,
}

impl Host {
    /// `None`, with a word about it: no VM runs on this machine.
    pub fn new() -> Option<Self> {
        match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Some(Self { folder: tempfile::tempdir().unwrap() }),
            Err(error) => {
                println!("skipped: /dev/kvm cannot be opened: {error}");
                None
            }
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.path("napa").join(format!("{name}.sock"))
    }

    /// An empty image; returns the flag's value that makes it a disk.
    pub fn disk(&self, name: &str, mebibytes: u64) -> String {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
        // The page cache: the host's disk is not what is tested here.
        format!("path={},cache=writeback", path.display())
    }

    /// A kernel of hand-written machine code.
    pub fn kernel(&self, name: &str, code: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, crate::machine_code::image(code)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        self.wrapped(&[], words)
    }

    /// napa as the argument of another program.
    pub fn wrapped(&self, wrapper: &[&str], words: &[&str]) -> Command {
        let all: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_napa")]).collect();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).args(words).env("XDG_RUNTIME_DIR", self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs `napa run` with these words.
    pub fn run(&self, words: &[&str]) -> Vm {
        let all: Vec<&str> = ["run"].iter().chain(words).copied().collect();
        Vm::spawn(self.command(&all))
    }

    /// Runs a verb to its end: exit code, standard output and error.
    pub fn napa(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let ended = Vm::spawn(self.command(words)).end();
        (ended.code, ended.output, ended.error)
    }
}

/// A process of napa. It is killed if the test ends first.
pub struct Vm {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    error: Option<JoinHandle<String>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub output: String,
    pub error: String,
}

impl Vm {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut stream = child.stderr.take().unwrap();
        let error = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, lines, seen: Vec::new(), error: Some(error) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that starts like this.
    pub fn wait_line(&mut self, start: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line.clone()),
                Err(error) => panic!("no line {start:?} came ({error}); there were {:#?}", self.seen),
            }
            if let Some(line) = self.seen.last().filter(|line| line.starts_with(start)) {
                return line.clone();
            }
        }
    }

    /// Lines that are there without waiting.
    pub fn lines_now(&mut self) -> Vec<String> {
        let new: Vec<String> = self.lines.try_iter().collect();
        self.seen.extend(new.iter().cloned());
        new
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {:#?}", self.seen),
            }
        }
        let code = wait(&mut self.child).code();
        let error = self.error.take().unwrap().join().unwrap();
        Ended { code, output: self.seen.join("\n"), error }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Nothing to kill if the test has seen its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process, which is killed if it does not come.
pub fn wait(child: &mut Child) -> std::process::ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("process {} does not end", child.id());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number behind `key=` in a line of the guest.
pub fn number(line: &str, key: &str) -> u64 {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key}= in {line:?}"))
}

/// Whether somebody holds a lock on the file.
pub fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{} ", path.metadata().unwrap().ino());
    std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| line.contains(&inode))
}
