//! One command: its process, its streams, its end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender as ChannelSender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::protocol::{CommandLine, Message, TerminalSize};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::port::Sender;
use crate::terminal;

/// Bytes in one frame of output: small enough for several jobs to share the slow port fairly.
const OUTPUT_PIECE: usize = 16 * 1024;

/// How long the output of an ended command is waited for: a background process may hold it open forever.
const LAST_OUTPUT_WAIT: Duration = Duration::from_millis(500);

/// A running command.
pub struct Job {
    group: Pid,
    input: ChannelSender<Input>,
    ended: Arc<AtomicBool>,
}

enum Input {
    Bytes(Vec<u8>),
    Size(TerminalSize),
}

impl Job {
    /// Starts the command; its frames go to `sender` until the one that says how it ended.
    ///
    /// # Errors
    /// The program does not exist or cannot be run.
    pub fn start(number: u32, command_line: &CommandLine, sender: &Sender) -> Result<Job> {
        let (program, arguments) = command_line.words.split_first().context("the command has no words")?;
        ensure!(!program.is_empty(), "the command has an empty name");
        let mut command = Command::new(program);
        command.args(arguments).envs(command_line.environment.iter().cloned());
        let (child, input, outputs) = match command_line.terminal {
            None => on_pipes(command).with_context(|| format!("run {program}"))?,
            Some(size) => {
                on_terminal(command, size).with_context(|| format!("run {program} on a terminal"))?
            }
        };
        let group = Pid::from_child(&child);
        let ended = Arc::new(AtomicBool::new(false));
        let (input_sender, input_receiver) = channel();
        thread::spawn(move || feed(input, &input_receiver));
        let (output_sender, output_receiver) = channel();
        for (output, is_error) in outputs {
            let (sender, done) = (sender.clone(), output_sender.clone());
            thread::spawn(move || forward(output, is_error, number, &sender, &done));
        }
        drop(output_sender);
        let (sender, has_ended) = (sender.clone(), ended.clone());
        thread::spawn(move || report_end(child, number, &sender, &output_receiver, &has_ended));
        Ok(Job { group, input: input_sender, ended })
    }

    /// Passes on what the lab says about the running job.
    pub fn tell(&self, message: Message) {
        // An input thread that is gone means that the command reads no more.
        match message {
            Message::Stdin(bytes) => drop(self.input.send(Input::Bytes(bytes))),
            Message::StdinEnd => drop(self.input.send(Input::Bytes(Vec::new()))),
            Message::Resize(size) => drop(self.input.send(Input::Size(size))),
            Message::Signal(number) => self.signal(number),
            _ => {}
        }
    }

    /// Whether the command's end was reported.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn signal(&self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else { return };
        if let Err(error) = kill_process_group(self.group, signal) {
            eprintln!("napa-lab-agent: send signal {number}: {error}");
        }
    }
}

/// A started command, what it reads from, and what it writes to (with whether that is standard error).
type Started = (Child, File, Vec<(File, bool)>);

fn on_pipes(mut command: Command) -> Result<Started> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let stream = |stream: Option<OwnedFd>| stream.map(File::from).context("a stream is not a pipe");
    let input = stream(child.stdin.take().map(Into::into))?;
    let output = stream(child.stdout.take().map(Into::into))?;
    let errors = stream(child.stderr.take().map(Into::into))?;
    Ok((child, input, vec![(output, false), (errors, true)]))
}

fn on_terminal(mut command: Command, size: TerminalSize) -> Result<Started> {
    let (controller, user) = terminal::open(size)?;
    terminal::attach(&mut command, user)?;
    let child = command.spawn()?;
    let input = controller.try_clone().context("share the terminal")?;
    Ok((child, input, vec![(controller, false)]))
}

/// An empty piece of input is its end.
fn feed(mut input: File, pieces: &Receiver<Input>) {
    for piece in pieces {
        let written = match piece {
            Input::Bytes(bytes) if bytes.is_empty() => return,
            Input::Bytes(bytes) => input.write_all(&bytes),
            Input::Size(size) => terminal::resize(&input, size),
        };
        if written.is_err() {
            return;
        }
    }
}

fn forward(mut output: File, is_error: bool, number: u32, sender: &Sender, done: &ChannelSender<()>) {
    let mut buffer = vec![0; OUTPUT_PIECE];
    // A terminal ends with an error when its last user closes it.
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        let bytes = buffer[..length].to_vec();
        sender.send(number, if is_error { Message::Stderr(bytes) } else { Message::Stdout(bytes) });
    }
    let _ = done.send(());
}

fn report_end(mut child: Child, number: u32, sender: &Sender, outputs: &Receiver<()>, ended: &AtomicBool) {
    let status = child.wait();
    // The channel closes, which is an error too, when every output has ended.
    while outputs.recv_timeout(LAST_OUTPUT_WAIT).is_ok() {}
    sender.send(
        number,
        match status {
            Ok(status) => Message::Exit(exit_code(status)),
            Err(error) => Message::Failed(format!("wait for the command: {error}")),
        },
    );
    ended.store(true, Ordering::Release);
}

/// The shell's convention: 128 + the signal that ended a process.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}
