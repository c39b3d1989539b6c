//! The verbs that talk to a running VM through its control socket.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use napa_api::config::check_name;
use napa_api::control::{
    Command, Exchange, ExchangeError, LINE_BYTES_MAX, Progress, RpcError, SOCKET_SUFFIX, Status, code,
    socket_folder, socket_path,
};

use napa_api::host::VmDetail;
use napa_host::client::Client;
use serde::de::DeserializeOwned;

use crate::command::{StatusArgs, StopArgs, Target};
use crate::error::Error;
use crate::host::{self, HostArgs};
use crate::output::{self, Table};

/// A VM that has not answered by then hangs: its socket is served by the same thread that serves devices.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `XDG_RUNTIME_DIR`.
pub fn runtime_dir() -> Option<OsString> {
    std::env::var_os("XDG_RUNTIME_DIR")
}

/// Shows how a VM is.
pub fn status(arguments: &StatusArgs) -> Result<ExitCode, Error> {
    if let Some((_, detail)) = of_host(&arguments.target)?
        && !detail.summary.state.is_alive()
    {
        return host::inspect_resting(&detail, arguments.format.json);
    }
    let status: Status = ask(&arguments.target, Command::Status)?;
    if arguments.format.json {
        output::print_json(&status)
    } else {
        output::print(describe(&status).as_bytes())
    }
}

/// Stops the vCPUs.
pub fn pause(target: &Target) -> Result<ExitCode, Error> {
    match of_host(target)? {
        Some((client, detail)) => host::pause(&client, &detail.summary.name),
        None => tell(target, Command::Pause),
    }
}

/// Lets the vCPUs run again.
pub fn resume(target: &Target) -> Result<ExitCode, Error> {
    match of_host(target)? {
        Some((client, detail)) => host::resume(&client, &detail.summary.name),
        None => tell(target, Command::Resume),
    }
}

/// Asks for an orderly stop and waits for the end.
pub fn stop(arguments: &StopArgs) -> Result<ExitCode, Error> {
    match of_host(&arguments.target)? {
        Some((client, detail)) => host::stop(&client, &detail.summary.name, arguments.timeout),
        None => end(&arguments.target, Command::Stop { timeout_s: arguments.timeout }),
    }
}

/// Stops hard and waits for the end.
pub fn kill(target: &Target) -> Result<ExitCode, Error> {
    match of_host(target)? {
        Some((client, detail)) => host::kill(&client, &detail.summary.name),
        None => end(target, Command::Kill),
    }
}

/// The VM of the host that is meant. `None`: a VM that runs by itself is, or nobody knows it.
pub fn of_host(target: &Target) -> Result<Option<(Client, VmDetail)>, Error> {
    let Some(name) = name_of(target)? else { return Ok(None) };
    if UnixStream::connect(socket_path(&name, runtime_dir().as_deref())).is_ok() {
        return Ok(None);
    }
    let client = host::client_for(&HostArgs { socket: None });
    let detail = host::detail_if_there(&client, &name)?;
    Ok(detail.map(|detail| (client, detail)))
}

/// Asks a running VM, and gives what it answers.
pub fn ask<T: DeserializeOwned>(target: &Target, command: Command) -> Result<T, Error> {
    Connection::open(target)?.ask(command)
}

fn tell(target: &Target, command: Command) -> Result<ExitCode, Error> {
    let status: Status = ask(target, command)?;
    output::print(format!("{} is {}\n", status.name, status.state).as_bytes())
}

fn end(target: &Target, command: Command) -> Result<ExitCode, Error> {
    let last = tell_and_wait(target, command)?;
    output::print(format!("{} has ended\n", last.name).as_bytes())
}

/// Gives the last status before the end.
fn tell_and_wait(target: &Target, command: Command) -> Result<Status, Error> {
    let mut connection = Connection::open(target)?;
    let status = connection.ask(command)?;
    connection.wait_for_end()?;
    Ok(status)
}

/// A connection to the control socket of one VM.
struct Connection {
    stream: UnixStream,
    path: PathBuf,
}

impl Connection {
    fn open(target: &Target) -> Result<Self, Error> {
        let path = path_of(target)?;
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { stream, path }),
            Err(error) => Err(nobody(&path, &error)),
        }
    }

    /// Sends a command and waits for what follows from it.
    fn ask<T: DeserializeOwned>(&mut self, command: Command) -> Result<T, Error> {
        let bounded = self.stream.set_read_timeout(Some(ANSWER_TIMEOUT));
        let bounded = bounded.and_then(|()| self.stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
        bounded.map_err(|error| self.broken(&error))?;
        match Exchange::new(command).advance(&self.stream) {
            Ok(Progress::Answered(answer)) => Ok(answer),
            // The stream's timeout is over.
            Ok(Progress::Sending | Progress::Waiting) => {
                Err(self.broken(&format!("there was none within {} seconds", ANSWER_TIMEOUT.as_secs())))
            }
            Err(ExchangeError::Refused(error)) => Err(self.refused(&error)),
            Err(ExchangeError::Broken(error)) => Err(self.broken(&error)),
            Err(ExchangeError::Nonsense(error)) => Err(self.broken(&error)),
        }
    }

    /// Waits until the VM's process is gone: the kernel closes its end then.
    fn wait_for_end(&mut self) -> Result<(), Error> {
        let ended = |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionReset);
        self.stream.set_read_timeout(None).map_err(|error| self.broken(&error))?;
        match io::copy(&mut (&self.stream).take(LINE_BYTES_MAX as u64), &mut io::sink()) {
            Err(error) if !ended(&error) => Err(self.broken(&error)),
            _ => Ok(()),
        }
    }

    fn refused(&self, error: &RpcError) -> Error {
        let what = format!("{}: {error}", self.path.display());
        if error.code == code::INVALID_PARAMS { Error::bad_input(what) } else { Error::failure(what) }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Error {
        let path = self.path.display();
        Error::failure(format!(
            "{path}: the VM's answer cannot be read: {error}; look at the VM's own output"
        ))
    }
}

/// A word with a `/` is a socket's path, any other a VM's name.
fn name_of(target: &Target) -> Result<Option<String>, Error> {
    if target.vm.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(None);
    }
    let name = target.vm.to_string_lossy().into_owned();
    match check_name(&name) {
        Ok(()) => Ok(Some(name)),
        Err(_) => Err(Error::bad_input(format!(
            "'{name}' is neither a VM's name nor a socket's path: a path has a '/' in it"
        ))),
    }
}

/// The control socket of the VM that is meant.
fn path_of(target: &Target) -> Result<PathBuf, Error> {
    let Some(name) = name_of(target)? else { return Ok(target.vm.clone()) };
    match of_host(target)? {
        Some((_, detail)) if detail.summary.state.is_alive() => Ok(detail.control_socket),
        Some((_, detail)) => {
            let state = detail.summary.state;
            Err(Error::bad_input(format!("VM {name:?} is {state}: start it with 'napa start {name}'")))
        }
        None => Ok(socket_path(&name, runtime_dir().as_deref())),
    }
}

fn nobody(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let names = running(&socket_folder(runtime_dir().as_deref()));
            let known = match names.is_empty() {
                true => "no named VM runs; start one with 'napa run --name NAME'".into(),
                false => format!("these VMs run: {}", names.join(", ")),
            };
            Error::bad_input(format!("nobody listens on {shown}: {known}"))
        }
        io::ErrorKind::PermissionDenied => {
            Error::bad_input(format!("{shown} belongs to somebody else: run this verb as the VM's user"))
        }
        io::ErrorKind::InvalidInput => {
            Error::bad_input(format!("{shown} is too long for a socket's path: 107 bytes at most"))
        }
        _ => Error::failure(format!("cannot connect to {shown}: {error}")),
    }
}

/// The names of the VMs that answer in a folder, in order.
fn running(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries
        .filter_map(name)
        .filter_map(|file| file.strip_suffix(SOCKET_SUFFIX).map(str::to_owned))
        .filter(|name| UnixStream::connect(folder.join(format!("{name}{SOCKET_SUFFIX}"))).is_ok())
        .collect();
    names.sort();
    names
}

/// A VM's status for people.
pub fn describe(status: &Status) -> String {
    let mut vm = Table::new();
    vm.row(["name", &status.name]);
    vm.row(["state", &status.state.to_string()]);
    vm.row(["pid", &status.pid.to_string()]);
    vm.row(["vCPUs", &status.vcpus.to_string()]);
    vm.row(["memory", &status.memory.to_string()]);
    vm.row(["uptime", &format!("{:.1} s", Duration::from_millis(status.uptime_ms).as_secs_f64())]);
    let mut devices = Table::new();
    for device in &status.devices {
        let place = device.pci.as_deref().unwrap_or("-");
        devices.row([&device.name, &device.kind, place, &device.state.to_string()]);
    }
    format!("{}\n{}", vm.finish(), devices.finish())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use napa_api::control::{DeviceState, DeviceStatus, Id, Request, Response, State, reply};
    use napa_units::Bytes;

    use super::*;

    fn paused() -> Status {
        Status {
            name: "web".into(),
            state: State::Paused,
            pid: 7,
            vcpus: 2,
            memory: Bytes::mib(128),
            uptime_ms: 1540,
            devices: vec![DeviceStatus {
                name: "disk0".into(),
                kind: "virtio-blk".into(),
                pci: Some("00:03.0".into()),
                state: DeviceState::Active,
            }],
        }
    }

    /// A VM that answers one line with `answer`, whatever it is asked, and ends. Gives what it was asked.
    fn asked(answer: &[u8], ask: impl FnOnce(Target) -> Result<(), Error>) -> (Vec<u8>, Result<(), Error>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = answer.to_vec();
        let vm = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = Vec::new();
            BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
            (&stream).write_all(&answer).unwrap();
            line
        });
        let result = ask(Target { vm: path });
        (vm.join().unwrap(), result)
    }

    fn ask(answer: &[u8], command: Command) -> Result<Status, Error> {
        let mut status = None;
        let (_, result) = asked(answer, |target| {
            status = Some(Connection::open(&target)?.ask(command)?);
            Ok(())
        });
        result.map(|()| status.unwrap())
    }

    #[test]
    fn a_command_gets_its_answer() {
        let answer = Response { id: Id::Number(1.into()), outcome: reply(Ok(paused())) }.encode();
        assert_eq!(ask(&answer, Command::Pause).unwrap(), paused());
    }

    #[test]
    fn stop_sends_its_bound_and_waits_for_the_end() {
        let answer = Response { id: Id::Number(1.into()), outcome: reply(Ok(paused())) }.encode();
        let stop = Command::Stop { timeout_s: Some(5) };
        let (line, result) = asked(&answer, |target| tell_and_wait(&target, stop).map(drop));
        result.unwrap();
        assert_eq!(Request::decode(&line).unwrap().command, stop);
    }

    #[test]
    fn a_refusal_and_nonsense_are_errors() {
        let refusal =
            Response { id: Id::Null, outcome: Err(RpcError::new(code::WRONG_STATE, "it ends already")) };
        let error = |answer: &[u8]| ask(answer, Command::Resume).unwrap_err().to_string();
        assert!(error(&refusal.encode()).ends_with("it ends already"));
        assert!(error(b"nonsense\n").contains("cannot be read"));
        assert!(error(b"half a line").contains("ended before it answered"));
        assert!(error(&[b'x'; LINE_BYTES_MAX + 2]).contains("cannot be read"));
    }

    #[test]
    fn a_name_is_no_path_and_a_path_no_name() {
        let path = |vm: &str| path_of(&Target { vm: vm.into() });
        assert_eq!(path("./web").unwrap(), Path::new("./web"));
        assert!(path("web").unwrap().ends_with("napa/web.sock"));
        assert!(path("-web").unwrap_err().to_string().contains("neither a VM's name nor a socket's path"));
    }

    #[test]
    fn only_those_that_answer_run() {
        let folder = tempfile::tempdir().unwrap();
        let _web = UnixListener::bind(folder.path().join("web.sock")).unwrap();
        drop(UnixListener::bind(folder.path().join("gone.sock")).unwrap());
        std::fs::write(folder.path().join("other.txt"), "").unwrap();
        assert_eq!(running(folder.path()), ["web"]);
        assert!(running(&folder.path().join("absent")).is_empty());
    }

    #[test]
    fn a_status_is_shown_line_by_line() {
        let expected = "\
name    web
state   paused
pid     7
vCPUs   2
memory  128M
uptime  1.5 s

disk0  virtio-blk  00:03.0  active
";
        assert_eq!(describe(&paused()), expected);
    }
}
