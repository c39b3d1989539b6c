//! A guest that a test plays.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use napa_api::config::VsockConfig;
use napa_sys::reactor::{self, Handle, WorkerId};
use napa_virtio::{Activation, Device, Feature};
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress};

use crate::testing::{Bench, Driver, WRITE, ram};
use crate::vsock::Vsock;
use crate::vsock::request::{HEADER_BYTES, HOST_CID, Operation, Packet, Ports, STREAM};

pub const CID: u32 = 42;
pub const RAM_MIB: u64 = 32;
pub const TRANSMIT_RINGS: u64 = 0x1_0000;
pub const RECEIVE_RINGS: u64 = 0;
const RECEIVE_DATA: u64 = 0x10_0000;
const TRANSMIT_DATA: u64 = 0x80_0000;
const SIZE: u16 = 256;
/// How long a test makes sure that nothing comes.
const MOMENT: Duration = Duration::from_millis(100);

pub struct Guest {
    pub device: Vsock,
    pub bench: Bench,
    pub receive: Driver,
    pub transmit: Driver,
    folder: TempDir,
    handle: Handle,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    worker: Option<WorkerId>,
    posted: HashMap<u16, (u64, u32)>,
    next_buffer: u64,
    /// What the guest says about its buffer in every packet.
    pub buffer_bytes: u32,
    pub forwarded: u32,
}

impl Guest {
    /// A guest with `buffers` receive buffers of `bytes` bytes.
    pub fn start(buffers: u16, bytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut device = Vsock::open(&VsockConfig { cid: CID, path: folder.path().join("v") }).unwrap();
        let bench = Bench::new(&ram(RAM_MIB));
        let (receive, receive_queue) = bench.queue(RECEIVE_RINGS, SIZE);
        let (transmit, transmit_queue) = bench.queue(TRANSMIT_RINGS, SIZE);
        let placed = device.activate(Activation {
            memory: Arc::clone(&bench.ram),
            pages: bench.pages(),
            features: Feature::VERSION_1,
            queues: vec![Some(receive_queue), Some(transmit_queue), None],
            config_interrupt: bench.config_interrupt.clone(),
            health: bench.health.clone(),
        });
        let (handle, thread) = reactor::spawn("io").unwrap();
        let (_, worker) = placed.unwrap().pop().unwrap();
        let worker = handle.add(worker).unwrap();
        let mut guest = Self {
            device,
            bench,
            receive,
            transmit,
            folder,
            handle,
            thread: Some(thread),
            worker: Some(worker),
            posted: HashMap::new(),
            next_buffer: 0,
            buffer_bytes: 1 << 20,
            forwarded: 0,
        };
        guest.post(buffers, bytes);
        guest
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("v")
    }

    /// Where the guest's connections to `port` go.
    pub fn port_path(&self, port: u32) -> PathBuf {
        self.folder.path().join(format!("v_{port}"))
    }

    pub fn post(&mut self, count: u16, bytes: u32) {
        for _ in 0..count {
            let address = RECEIVE_DATA + self.next_buffer % 512 * 0x2000;
            self.next_buffer += 1;
            let head = self.receive.add(&[(address, 20, WRITE), (address + 20, bytes - 20, WRITE)]);
            self.posted.insert(head, (address, bytes));
        }
        self.receive.kick();
    }

    /// A packet of the guest about `ports`.
    pub fn packet(&self, ports: Ports, operation: Operation) -> Packet {
        Packet {
            source_cid: u64::from(CID),
            destination_cid: HOST_CID,
            source_port: ports.guest,
            destination_port: ports.host,
            length: 0,
            kind: STREAM,
            operation,
            flags: 0,
            buffer_bytes: self.buffer_bytes,
            forwarded: self.forwarded,
        }
    }

    /// Puts a packet into the transmit queue. `data` is in pieces, as a driver may have it.
    pub fn put(&mut self, packet: &Packet, data: &[u8]) {
        let address = TRANSMIT_DATA + self.next_buffer % 256 * 0x1_8000;
        self.next_buffer += 1;
        let bytes = [&packet.bytes()[..], data].concat();
        self.bench.ram.write_slice(&bytes, GuestAddress(address)).unwrap();
        let third = data.len() / 3;
        let cuts = [0, HEADER_BYTES, HEADER_BYTES + third, HEADER_BYTES + 2 * third, bytes.len()];
        let pieces: Vec<_> = cuts
            .windows(2)
            .filter(|cut| cut[1] > cut[0])
            .map(|cut| (address + cut[0] as u64, (cut[1] - cut[0]) as u32, 0))
            .collect();
        self.transmit.add(&pieces);
        self.transmit.kick();
    }

    /// Sends a packet and waits until the device took it.
    pub fn send(&mut self, packet: &Packet, data: &[u8]) {
        self.put(&Packet { length: data.len() as u32, ..*packet }, data);
        self.transmit.wait_used();
    }

    pub fn send_data(&mut self, ports: Ports, data: &[u8]) {
        self.send(&self.packet(ports, Operation::Data), data);
    }

    pub fn send_flags(&mut self, ports: Ports, flags: u32) {
        self.send(&Packet { flags, ..self.packet(ports, Operation::Shutdown) }, &[]);
    }

    /// The next packet from the host, the buffer of which is given back at once.
    pub fn next(&mut self) -> (Packet, Vec<u8>) {
        let used = self.receive.wait_used();
        self.open(used)
    }

    /// The next packet, if one comes soon.
    pub fn next_soon(&mut self) -> Option<(Packet, Vec<u8>)> {
        let used = self.receive.wait_used_for(MOMENT)?;
        Some(self.open(used))
    }

    /// The next packet, if one is there already.
    pub fn next_now(&mut self) -> Option<(Packet, Vec<u8>)> {
        let used = self.receive.used()?;
        Some(self.open(used))
    }

    fn open(&mut self, (head, written): (u16, u32)) -> (Packet, Vec<u8>) {
        let (address, bytes) = self.posted.remove(&head).expect("only posted buffers come back");
        assert!((HEADER_BYTES as u32..=bytes).contains(&written));
        let mut all = vec![0; written as usize];
        self.bench.ram.read_slice(&mut all, GuestAddress(address)).unwrap();
        let packet = Packet::parse(all[..HEADER_BYTES].try_into().unwrap());
        assert_eq!((packet.source_cid, packet.destination_cid), (HOST_CID, u64::from(CID)));
        assert_eq!(packet.length as usize, all.len() - HEADER_BYTES);
        self.post(1, bytes);
        (packet, all.split_off(HEADER_BYTES))
    }

    /// The next packet, which must be this operation about these ports.
    pub fn expect(&mut self, ports: Ports, operation: Operation) -> Packet {
        let (packet, _) = self.next();
        assert_eq!((ports_of(&packet), packet.operation), (ports, operation));
        packet
    }

    /// Receives `length` bytes of data, passing over packets about credit.
    pub fn receive_data(&mut self, ports: Ports, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            let (packet, data) = self.next();
            assert_eq!(ports_of(&packet), ports);
            assert!(matches!(
                packet.operation,
                Operation::Data | Operation::CreditUpdate | Operation::CreditRequest
            ));
            all.extend(data);
        }
        all
    }

    /// A client of the host that the guest has not answered yet.
    pub fn request(&mut self, port: u32) -> (UnixStream, Ports) {
        let mut client = UnixStream::connect(self.path()).unwrap();
        client.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        let (packet, _) = self.next();
        assert_eq!((packet.operation, packet.destination_port), (Operation::Request, port));
        (client, ports_of(&packet))
    }

    /// A client of the host that is connected to `port` of the guest.
    pub fn accept(&mut self, port: u32) -> (UnixStream, Ports) {
        let (client, ports) = self.request(port);
        self.send(&self.packet(ports, Operation::Response), &[]);
        let mut line = String::new();
        // One byte of buffer: what follows the line is the test's.
        BufReader::with_capacity(1, &client).read_line(&mut line).unwrap();
        assert_eq!(line, format!("OK {}\n", ports.host));
        (client, ports)
    }

    /// Takes the worker back, as a reset of the driver does.
    pub fn stop(&mut self) {
        if let Some(worker) = self.worker.take() {
            let worker = self.handle.remove(worker).unwrap().unwrap();
            self.device.reset(vec![worker]);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.handle.quit();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the reactor panicked").unwrap();
        }
    }
}

/// The ends of the connection that a packet from the host is about.
pub fn ports_of(packet: &Packet) -> Ports {
    Ports { host: packet.source_port, guest: packet.destination_port }
}

/// Bytes that depend on their place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}
