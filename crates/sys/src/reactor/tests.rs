#![allow(unsafe_code)] // Tests submit operations on buffers that they keep alive.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fd;
use vmm_sys_util::eventfd::EventFd;

use super::*;

/// Tells what happens to it; reads a pipe with an operation when asked to.
struct Probe {
    event: EventFd,
    pipe: Option<UnixStream>,
    buffer: Box<[u8; 4]>,
    log: Sender<String>,
    dropped: Arc<Mutex<bool>>,
}

impl Probe {
    fn new(event: &EventFd, log: &Sender<String>) -> Self {
        let dropped = Arc::default();
        Self {
            event: event.try_clone().unwrap(),
            pipe: None,
            buffer: Box::new([0; 4]),
            log: log.clone(),
            dropped,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        *self.dropped.lock().unwrap() = true;
    }
}

impl Worker for Probe {
    fn start(&mut self, io: &mut Io<'_>) {
        io.wait_event(7, &self.event);
        if let Some(pipe) = &self.pipe {
            let read = opcode::Read::new(Fd(pipe.as_raw_fd()), self.buffer.as_mut_ptr(), 4).build();
            // SAFETY: buffer and pipe belong to the worker, which outlives the operation.
            unsafe { io.submit(read, 1) };
        }
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        self.log.send(format!("ready {token}")).unwrap();
        io.wait_event(token, &self.event);
    }

    fn complete(&mut self, tag: u32, result: i32, _: &mut Io<'_>) {
        self.log.send(format!("complete {tag} {result}")).unwrap();
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.log.send("end".into()).unwrap();
    }
}

#[test]
fn an_event_reaches_its_worker_each_time() {
    let (handle, thread) = spawn("test").unwrap();
    let (log, seen) = channel();
    let event = EventFd::new(0).unwrap();
    handle.add(Box::new(Probe::new(&event, &log))).unwrap();
    for _ in 0..3 {
        event.write(1).unwrap();
        assert_eq!(seen.recv().unwrap(), "ready 7");
        assert_eq!(seen.recv().unwrap(), "end");
    }
    handle.quit();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_pause_waits_for_operations_and_keeps_events_for_later() {
    let (handle, _thread) = spawn("test").unwrap();
    let (log, seen) = channel();
    let event = EventFd::new(0).unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut probe = Probe::new(&event, &log);
    probe.pipe = Some(near);
    handle.add(Box::new(probe)).unwrap();

    let pausing = std::thread::spawn({
        let handle = handle.clone();
        move || handle.pause()
    });
    far.write_all(b"data").unwrap();
    pausing.join().unwrap().unwrap();
    assert_eq!(seen.recv().unwrap(), "complete 1 4");
    assert_eq!(seen.recv().unwrap(), "end");

    event.write(1).unwrap();
    assert!(seen.recv_timeout(Duration::from_millis(50)).is_err(), "a paused reactor delivered an event");
    handle.resume();
    assert_eq!(seen.recv().unwrap(), "ready 7");
    handle.quit();
}

#[test]
fn a_worker_leaves_only_when_the_kernel_is_done_with_it() {
    let (handle, _thread) = spawn("test").unwrap();
    let (log, _seen) = channel();
    let event = EventFd::new(0).unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut probe = Probe::new(&event, &log);
    probe.pipe = Some(near);
    let dropped = Arc::clone(&probe.dropped);
    let id = handle.add(Box::new(probe)).unwrap();

    let removing = std::thread::spawn({
        let handle = handle.clone();
        move || handle.remove(id).unwrap().is_some()
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(!*dropped.lock().unwrap(), "the worker went while a read was under way");
    far.write_all(b"data").unwrap();
    assert!(removing.join().unwrap());
    assert!(*dropped.lock().unwrap());
    assert!(handle.remove(id).unwrap().is_none(), "a worker leaves once");
    handle.quit();
}

#[test]
fn asking_a_reactor_that_has_ended_is_an_error() {
    let (handle, thread) = spawn("test").unwrap();
    handle.quit();
    thread.join().unwrap().unwrap();
    assert_eq!(handle.pause(), Err(ReactorError));
    assert_eq!(
        handle.add(Box::new(Probe::new(&EventFd::new(0).unwrap(), &channel().0))).unwrap_err(),
        ReactorError
    );
}
