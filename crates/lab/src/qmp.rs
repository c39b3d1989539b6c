//! QEMU's control protocol (QMP), as much of it as snapshots need.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long one command may take on a heavily loaded machine.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// How long saving or loading a snapshot may take: a cold page cache has been seen to need a minute.
const TRANSFER_WAIT: Duration = Duration::from_secs(180);

const TRANSFER_POLL: Duration = Duration::from_millis(10);

/// A control connection.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Takes the connection over from QEMU's greeting on.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn new(stream: UnixStream) -> Result<Qmp> {
        stream.set_read_timeout(Some(ANSWER_WAIT)).context("bound the wait for QEMU")?;
        let writer = stream.try_clone().context("share the control connection")?;
        let mut qmp = Qmp { reader: BufReader::new(stream), writer };
        let greeting = qmp.read()?;
        ensure!(greeting.get("QMP").is_some(), "QEMU greets with {greeting}");
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Writes the state of the machine, which is left stopped, to a file.
    ///
    /// # Errors
    /// QEMU cannot save it.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        self.execute("stop", json!({}))?;
        self.use_mapped_ram()?;
        self.execute("migrate", json!({ "uri": format!("file:{}", file.display()) }))?;
        self.wait_for_transfer()
    }

    /// Loads the state of the machine from a file, and lets it run.
    ///
    /// # Errors
    /// QEMU cannot load it: the file was saved by other devices or another version.
    pub fn load(&mut self, file: &Path) -> Result<()> {
        self.use_mapped_ram()?;
        self.execute("migrate-incoming", json!({ "uri": format!("file:{}", file.display()) }))?;
        self.wait_for_transfer()?;
        self.execute("cont", json!({}))?;
        Ok(())
    }

    /// Takes away what is behind a drive. The machine keeps the disk, and each access to it fails.
    ///
    /// # Errors
    /// There is no such drive.
    pub fn remove_drive(&mut self, name: &str) -> Result<()> {
        let command = json!({ "command-line": format!("drive_del {name}") });
        let said = self.execute("human-monitor-command", command)?;
        ensure!(said.as_str() == Some(""), "QEMU does not remove the drive {name}: {said}");
        Ok(())
    }

    fn use_mapped_ram(&mut self) -> Result<()> {
        let capability = json!({ "capability": "mapped-ram", "state": true });
        self.execute("migrate-set-capabilities", json!({ "capabilities": [capability] }))?;
        Ok(())
    }

    fn wait_for_transfer(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < TRANSFER_WAIT {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => bail!("the transfer of the host's state failed: {answer}"),
                _ => sleep(TRANSFER_POLL),
            }
        }
        bail!("the transfer of the host's state took more than {TRANSFER_WAIT:?}")
    }

    /// Executes one command; events that arrive meanwhile are passed over.
    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.writer.write_all(request.as_bytes()).with_context(|| format!("send {command} to QEMU"))?;
        loop {
            let mut answer = self.read().with_context(|| format!("wait for QEMU's answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).context("read from QEMU")?;
        ensure!(length > 0, "QEMU closed its control connection");
        serde_json::from_str(&line).with_context(|| format!("understand QEMU's {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{JoinHandle, spawn};

    /// Plays QEMU: sends the greeting, then one line per line it reads, and gives back what it read.
    fn qemu(answers: &[&str]) -> (UnixStream, JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let answers: Vec<String> = answers.iter().map(|answer| format!("{answer}\n")).collect();
        let thread = spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            writer.write_all(b"{\"QMP\": {}}\n{\"event\": \"RESUME\"}\n").unwrap();
            let mut requests = Vec::new();
            let lines = BufReader::new(theirs).lines();
            for (line, answer) in lines.zip(["{\"return\": {}}\n".to_owned()].into_iter().chain(answers)) {
                requests.push(line.unwrap());
                writer.write_all(answer.as_bytes()).unwrap();
            }
            requests
        });
        (ours, thread)
    }

    #[test]
    fn a_snapshot_is_polled_until_it_is_complete() {
        let done = "{\"return\": {}}";
        let (stream, thread) = qemu(&[
            done,
            done,
            done,
            "{\"return\": {\"status\": \"active\"}}",
            "{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"completed\"}}",
        ]);
        Qmp::new(stream).unwrap().save(Path::new("/snapshots/one")).unwrap();
        let requests = thread.join().unwrap();
        assert!(requests[1].contains("stop") && requests[2].contains("mapped-ram"));
        assert!(requests[3].contains("file:/snapshots/one"));
    }

    #[test]
    fn what_qemu_refuses_is_an_error() {
        let refusal = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such file\"}}";
        let (stream, thread) = qemu(&["{\"return\": {}}", refusal]);
        let error = Qmp::new(stream).unwrap().load(Path::new("/gone")).unwrap_err();
        assert!(format!("{error:#}").contains("no such file"));
        thread.join().unwrap();
    }

    #[test]
    fn a_closed_connection_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Qmp::new(ours).is_err());
    }
}
