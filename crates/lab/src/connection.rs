//! The lab's end of a host's agent: one reader thread sorts frames by job.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::protocol::{Decoder, Frame, Message};

/// The connection to a host's agent. It ends when QEMU does.
pub(crate) struct Connection {
    writer: Mutex<UnixStream>,
    jobs: Arc<Mutex<Jobs>>,
    next_job: AtomicU32,
}

/// The jobs that wait for frames; `None` once the connection has ended.
type Jobs = Option<HashMap<u32, Sender<Message>>>;

/// The host is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the host's agent has ended")]
pub(crate) struct Disconnected;

impl Connection {
    /// Starts to read frames.
    ///
    /// # Errors
    /// The stream cannot be shared between threads.
    pub fn new(stream: UnixStream) -> std::io::Result<Connection> {
        let writer = Mutex::new(stream.try_clone()?);
        let jobs = Arc::new(Mutex::new(Some(HashMap::new())));
        let readers_jobs = jobs.clone();
        thread::spawn(move || sort(stream, &readers_jobs));
        Ok(Connection { writer, jobs, next_job: AtomicU32::new(1) })
    }

    /// A new job's number, and where its frames will arrive. That end closes with the connection.
    pub fn register(&self) -> Result<(u32, Receiver<Message>), Disconnected> {
        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        locked(&self.jobs).as_mut().ok_or(Disconnected)?.insert(job, sender);
        Ok((job, receiver))
    }

    /// Lets frames of a job be dropped from now on.
    pub fn forget(&self, job: u32) {
        if let Some(jobs) = locked(&self.jobs).as_mut() {
            jobs.remove(&job);
        }
    }

    /// Sends a frame.
    pub fn send(&self, job: u32, message: Message) -> Result<(), Disconnected> {
        let bytes = Frame { job, message }.encode();
        locked(&self.writer).write_all(&bytes).map_err(|_| Disconnected)
    }
}

fn sort(mut stream: UnixStream, jobs: &Mutex<Jobs>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        decoder.push(&buffer[..length]);
        if deliver(&mut decoder, jobs).is_err() {
            break;
        }
    }
    *locked(jobs) = None;
}

/// Frames of jobs that nobody waits for any more are dropped.
fn deliver(decoder: &mut Decoder, jobs: &Mutex<Jobs>) -> Result<(), crate::protocol::ProtocolError> {
    while let Some(Frame { job, message }) = decoder.next_frame()? {
        if let Some(sender) = locked(jobs).as_ref().and_then(|jobs| jobs.get(&job)) {
            let _ = sender.send(message);
        }
    }
    Ok(())
}

/// Every holder of these locks leaves whole values behind, even when it panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_reach_their_jobs_and_the_end_reaches_all() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours).unwrap();
        let (first, first_frames) = connection.register().unwrap();
        let (second, second_frames) = connection.register().unwrap();
        for (job, message) in [
            (second, Message::Stdout(b"two".to_vec())),
            (99, Message::Exit(1)),
            (first, Message::Exit(0)),
            (second, Message::Exit(3)),
        ] {
            theirs.write_all(&Frame { job, message }.encode()).unwrap();
        }
        assert_eq!(first_frames.recv(), Ok(Message::Exit(0)));
        assert_eq!(second_frames.recv(), Ok(Message::Stdout(b"two".to_vec())));
        assert_eq!(second_frames.recv(), Ok(Message::Exit(3)));
        drop(theirs);
        assert!(first_frames.recv().is_err() && second_frames.recv().is_err());
        assert!(connection.register().is_err());
    }
}
