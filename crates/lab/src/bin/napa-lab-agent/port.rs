//! The virtio serial port: frames in, frames out.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use napa_lab::protocol::{Decoder, Frame, Hello, Message};
use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::job::Job;

const PORT: &str = "/dev/lab/agent";

/// The request RNDRESEEDCRNG.
const RESEED: Opcode = opcode::none(b'R', 0x07);

/// How long to sleep while nobody has the other end open; a restored host answers within this time.
const DISCONNECTED_POLL: Duration = Duration::from_millis(5);

/// Where jobs send their frames to.
#[derive(Clone)]
pub struct Sender {
    port: Arc<Mutex<File>>,
}

impl Sender {
    /// Sends a frame whole. A frame that nobody is there to receive is lost: its job's owner is gone.
    pub fn send(&self, job: u32, message: Message) {
        let bytes = Frame { job, message }.encode();
        let _ = locked(&self.port).write_all(&bytes);
    }
}

/// Serves the port until it fails.
pub fn serve() -> Result<()> {
    let mut port = OpenOptions::new().read(true).write(true).open(PORT).context("open the agent's port")?;
    let sender = Sender { port: Arc::new(Mutex::new(port.try_clone().context("share the agent's port")?)) };
    let mut jobs: HashMap<u32, Job> = HashMap::new();
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match port.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read the agent's port"),
        };
        if length == 0 {
            decoder.clear();
            sleep(DISCONNECTED_POLL);
            continue;
        }
        decoder.push(&buffer[..length]);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => handle(&mut jobs, &sender, frame),
                Ok(None) => break,
                Err(error) => {
                    eprintln!("napa-lab-agent: {error}");
                    decoder.clear();
                    break;
                }
            }
        }
        jobs.retain(|_, job| !job.has_ended());
    }
}

fn handle(jobs: &mut HashMap<u32, Job>, sender: &Sender, frame: Frame) {
    let Frame { job, message } = frame;
    match message {
        Message::Hello(hello) => {
            take_over(&hello);
            sender.send(job, Message::Hello(Hello { entropy: Vec::new(), ..hello }));
        }
        Message::Start(command) => match Job::start(job, &command, sender) {
            Ok(started) => drop(jobs.insert(job, started)),
            Err(error) => sender.send(job, Message::Failed(format!("{error:#}"))),
        },
        message => {
            if let Some(job) = jobs.get(&job) {
                job.tell(message);
            }
        }
    }
}

/// Takes over the lab's clock and some of its randomness. Either failing shows in the tests that need it.
fn take_over(hello: &Hello) {
    let time = Timespec {
        tv_sec: (hello.time_ns / 1_000_000_000) as i64,
        tv_nsec: (hello.time_ns % 1_000_000_000) as i64,
    };
    if let Err(error) = clock_settime(ClockId::Realtime, time) {
        eprintln!("napa-lab-agent: set the clock: {error}");
    }
    if let Err(error) = stir(&hello.entropy) {
        eprintln!("napa-lab-agent: stir the random numbers: {error}");
    }
}

/// Mixes `entropy` into the kernel's pool, and lets the generator draw from the pool at once: by itself it
/// would go on with the saved seed for up to a minute.
#[allow(unsafe_code)] // No safe wrapper knows this request.
fn stir(entropy: &[u8]) -> std::io::Result<()> {
    let mut random = OpenOptions::new().write(true).open("/dev/urandom")?;
    random.write_all(entropy)?;
    // SAFETY: `_IO('R', 0x07)` is RNDRESEEDCRNG of linux/random.h, which takes no argument.
    let reseed = unsafe { NoArg::<RESEED>::new() };
    // SAFETY: the request takes no argument, so the kernel reads and writes no memory of ours.
    Ok(unsafe { ioctl(&random, reseed) }?)
}

/// A poisoned lock only means that another job's thread panicked between two whole frames.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
