//! A stock Debian host: an emulated machine with its own kernel, KVM and all, in which commands run.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::connection::Connection;
use crate::devices::{Backends, SCRATCH};
use crate::job::{Job, JobError, Output};
use crate::process::ProcessGroup;
use crate::protocol::{CommandLine, Hello, Message, TerminalSize};
use crate::qemu::Qemu;
use crate::qmp::Qmp;

/// How long a host may take to answer for the first time, on a machine that is many times overloaded.
const BOOT_WAIT: Duration = Duration::from_secs(180);

/// How long the commands that prepare a host may take.
const SETUP_WAIT: Duration = Duration::from_secs(60);

/// The most CPU time of one host; the longest test needs a few minutes.
const CPU_SECONDS_MAX: u64 = 2 * 3600;

/// A running host. It ends when this value is dropped.
pub struct Host {
    connection: Arc<Connection>,
    qmp: Qmp,
    process: ProcessGroup,
    /// Dropped after the process has ended.
    folder: RunFolder,
}

/// What a host boots from.
pub(crate) struct Boot<'a> {
    /// Options of the machine and how it starts: a kernel, or a snapshot that comes in.
    pub options: Vec<String>,
    /// The snapshot to load.
    pub snapshot: Option<&'a Path>,
}

/// The files of one running host; deleted when dropped.
pub(crate) struct RunFolder {
    path: PathBuf,
}

/// Our ends of a host's sockets.
pub(crate) struct Sockets {
    pub control: UnixStream,
    pub agent: UnixStream,
}

impl Host {
    /// Starts the emulator and waits for the agent.
    pub(crate) fn boot(
        qemu: &Qemu,
        boot: Boot<'_>,
        backends: Backends,
        sockets: Sockets,
        folder: RunFolder,
    ) -> Result<Host> {
        let console = backends.console.clone();
        let mut command = qemu.command()?;
        command.args(boot.options).args(backends.options()).env("TMPDIR", &folder.path);
        let log = fs::File::create(folder.path.join("qemu.log")).context("make QEMU's log")?;
        command.stdout(log.try_clone().context("share QEMU's log")?).stderr(log);
        command.stdin(std::process::Stdio::null());
        let process = ProcessGroup::spawn(command, backends.into_descriptors(), CPU_SECONDS_MAX)?;
        let connected = connect(sockets, boot.snapshot);
        let (qmp, connection) = connected.with_context(|| last_words(&folder.path, &console))?;
        Ok(Host { connection, qmp, process, folder })
    }

    /// Cuts the scratch disk off: every access to it fails from now on, as if its cable were pulled.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn cut_scratch_off(&mut self) -> Result<()> {
        self.qmp.remove_drive(SCRATCH)
    }

    /// Runs a command to its end and collects its output.
    ///
    /// # Errors
    /// It is not done within `bound`, it cannot be started, or the host is gone.
    pub fn run_within(&self, words: &[&str], bound: Duration) -> Result<Output, JobError> {
        let job = self.spawn(words)?;
        job.end_input()?;
        job.wait(bound)
    }

    /// Runs a command that takes a minute at most.
    ///
    /// # Errors
    /// As [`Host::run_within`].
    pub fn run(&self, words: &[&str]) -> Result<Output, JobError> {
        self.run_within(words, SETUP_WAIT)
    }

    /// Runs a shell script that has to succeed within a minute, and gives back what it printed.
    ///
    /// # Errors
    /// As [`Host::run_within`], or its exit code is not 0.
    pub fn shell(&self, script: &str) -> Result<String> {
        let output = self.run(&["sh", "-e", "-c", script])?;
        let (text, errors) = (output.text(), output.error_text());
        ensure!(output.status == 0, "`{script}` ended with code {}:\n{text}{errors}", output.status);
        Ok(text)
    }

    /// Starts a command and leaves it running.
    ///
    /// # Errors
    /// The host is gone.
    pub fn spawn(&self, words: &[&str]) -> Result<Job, JobError> {
        self.start(words, None)
    }

    /// Starts a command on a terminal of its own.
    ///
    /// # Errors
    /// The host is gone.
    pub fn spawn_on_terminal(&self, words: &[&str], size: TerminalSize) -> Result<Job, JobError> {
        self.start(words, Some(size))
    }

    /// Writes a small file; large ones travel faster in a [`crate::Share`].
    ///
    /// # Errors
    /// The file cannot be written, or the host is gone.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        let job = self.spawn(&["sh", "-c", "cat > \"$0\"", path])?;
        job.write(content)?;
        job.end_input()?;
        let output = job.wait(SETUP_WAIT)?;
        ensure!(output.status == 0, "write {path} in the host: {}", output.error_text().trim());
        Ok(())
    }

    /// Reads a small file.
    ///
    /// # Errors
    /// The file cannot be read, or the host is gone.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.run(&["cat", path])?;
        ensure!(output.status == 0, "read {path} in the host: {}", output.error_text().trim());
        Ok(output.stdout)
    }

    /// What the host's kernel has printed.
    pub fn console(&self) -> String {
        read_lossily(&self.folder.path.join("console"))
    }

    /// The process number of the emulator.
    pub fn emulator_id(&self) -> u32 {
        self.process.id()
    }

    /// How the emulator ended, if it has: a defect of the lab, never of what runs in it.
    pub fn emulator_ended(&mut self) -> Option<String> {
        self.process.ended()
    }

    /// Stops the host and writes its state to a file.
    pub(crate) fn save(mut self, snapshot: &Path) -> Result<()> {
        self.qmp
            .save(snapshot)
            .with_context(|| last_words(&self.folder.path, &self.folder.path.join("console")))
    }

    fn start(&self, words: &[&str], terminal: Option<TerminalSize>) -> Result<Job, JobError> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Job::start(&self.connection, CommandLine { words, environment: Vec::new(), terminal })
    }
}

impl RunFolder {
    /// A new folder below `parent`. Folders of processes that are gone are deleted.
    pub fn new(parent: &Path) -> Result<RunFolder> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        delete_abandoned(parent);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(RunFolder { path })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What cannot be deleted now is deleted when the next host starts.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Sockets {
    /// Both ends of the sockets: ours, then QEMU's for control and agent.
    pub fn pairs() -> Result<(Sockets, OwnedFd, OwnedFd)> {
        let (control, qemu_control) = UnixStream::pair().context("make a socket for QEMU's control")?;
        let (agent, qemu_agent) = UnixStream::pair().context("make a socket for the agent")?;
        Ok((Sockets { control, agent }, qemu_control.into(), qemu_agent.into()))
    }
}

fn connect(sockets: Sockets, snapshot: Option<&Path>) -> Result<(Qmp, Arc<Connection>)> {
    let mut qmp = Qmp::new(sockets.control)?;
    if let Some(snapshot) = snapshot {
        qmp.load(snapshot)?;
    }
    let connection = Arc::new(Connection::new(sockets.agent).context("read from the agent")?);
    greet(&connection)?;
    Ok((qmp, connection))
}

fn greet(connection: &Connection) -> Result<()> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    let mut entropy = vec![0; 32];
    let mut random = fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    std::io::Read::read_exact(&mut random, &mut entropy).context("read /dev/urandom")?;
    let (job, answer) = connection.register()?;
    let hello = Hello { time_ns: time.as_nanos() as u64, entropy };
    connection.send(job, Message::Hello(hello))?;
    let answer = answer.recv_timeout(BOOT_WAIT).context("wait for the host's agent")?;
    connection.forget(job);
    ensure!(matches!(answer, Message::Hello(_)), "the host's agent greets with {answer:?}");
    Ok(())
}

fn delete_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split_once('-')).map(|(process, _)| process);
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What QEMU and the host's kernel said last.
fn last_words(folder: &Path, console: &Path) -> String {
    const LENGTH_MAX: usize = 3000;
    let text = read_lossily(&folder.join("qemu.log")) + &read_lossily(console);
    let text: Vec<char> = text.chars().collect();
    let end: String = text[text.len().saturating_sub(LENGTH_MAX)..].iter().collect();
    format!("start a host; QEMU and its console said last:\n{end}")
}

fn read_lossily(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_processes_are_deleted_and_living_ones_kept() {
        let parent = std::env::temp_dir().join(format!("napa-run-test-{}", std::process::id()));
        let dead = parent.join("4194999-0");
        fs::create_dir_all(&dead).unwrap();
        let first = RunFolder::new(&parent).unwrap();
        let second = RunFolder::new(&parent).unwrap();
        assert_eq!([dead.exists(), first.path().exists(), second.path().exists()], [false, true, true]);
        drop(first);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        drop(second);
        fs::remove_dir_all(&parent).unwrap();
    }
}
