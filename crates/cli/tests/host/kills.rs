//! `kill -9` of the daemon at random moments, while VMs are created, started, stopped and removed: no VM and no state is
//! lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use napa_api::VmConfig;
use napa_api::host::{CreateVm, StopOrder, VmDetail, VmList, VmState};
use napa_host::client::{Client, ClientError};
use napa_units::Bytes;

use crate::daemon::Daemon;
use crate::support::{Host, wait_until};

const KILLS: usize = 100;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// The latest moment of a kill after the daemon answers.
const MOMENT_MS_MAX: u64 = 120;

/// What is known of a VM by the daemon's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It was not created, or was removed.
    Absent,
    /// It is there and does not run.
    Resting,
    /// It runs, in this process.
    Running(u32),
    /// A verb was under way: either of what was before and after, or in between.
    Unsure,
}

type Knowledge = Arc<Mutex<BTreeMap<&'static str, Known>>>;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % end
    }
}

/// Does random verbs until it is over.
fn busy(client: &Client, knowledge: &Knowledge, is_over: &AtomicBool, mut dice: Dice) {
    while !is_over.load(Ordering::Acquire) {
        let name = NAMES[dice.below(NAMES.len() as u64) as usize];
        let before = std::mem::replace(knowledge.lock().unwrap().get_mut(name).unwrap(), Known::Unsure);
        let path = |verb: &str| format!("/v1/vms/{name}{verb}");
        let running = |detail: VmDetail| match detail.summary.pid {
            Some(pid) if detail.summary.state == VmState::Running => Known::Running(pid),
            _ => Known::Unsure,
        };
        let resting = |_: VmDetail| Known::Resting;
        let after = match before {
            Known::Absent => client.post("/v1/vms", &vm(name)).map(resting),
            Known::Resting if dice.below(3) == 0 => client.delete(&path("")).map(|()| Known::Absent),
            Known::Resting => client.post(&path("/start"), &()).map(running),
            Known::Running(_) if dice.below(2) == 0 => client.post(&path("/kill"), &()).map(resting),
            Known::Running(_) => client.post(&path("/stop"), &StopOrder::default()).map(resting),
            Known::Unsure => client.get(&path("")).map(|_: VmDetail| Known::Unsure),
        };
        let after = match after {
            Ok(after) => after,
            // It never came to the daemon.
            Err(ClientError::Absent(_)) => before,
            Err(_) => Known::Unsure,
        };
        knowledge.lock().unwrap().insert(name, after);
    }
}

fn vm(name: &str) -> CreateVm {
    let config = VmConfig {
        name: Some(name.to_owned()),
        memory: Bytes::mib(32),
        cmdline: Some("workload=idle".to_owned()),
        ..VmConfig::default()
    };
    CreateVm { config, restart: Default::default(), reservation: None, shares: None }
}

/// What the new daemon says agrees with what was known; what was unsure is known then.
fn compare(daemon: &Daemon<'_>, knowledge: &Knowledge, round: &str) {
    let settled = |list: &VmList| {
        list.vms
            .iter()
            .all(|vm| !matches!(vm.state, VmState::Starting | VmState::Stopping | VmState::Waiting))
    };
    wait_until("rest", || settled(&daemon.client().get("/v1/vms").unwrap()));
    let list = daemon.list();
    let mut processes: Vec<u32> = list.iter().filter_map(|vm| vm.pid).collect();
    processes.sort_unstable();
    let mut found = daemon.processes();
    found.sort_unstable();
    assert_eq!(processes, found, "{round}: a process nobody knows, or a VM without one: {list:?}");
    for (name, known) in knowledge.lock().unwrap().iter_mut() {
        let now = match list.iter().find(|vm| vm.name == *name) {
            None => Known::Absent,
            Some(vm) => vm.pid.map_or(Known::Resting, Known::Running),
        };
        assert!(*known == Known::Unsure || *known == now, "{round}: {name} was {known:?} and is {now:?}");
        *known = now;
    }
}

#[test]
fn a_hundred_kills_lose_no_vm_and_no_state() {
    let Some(host) = Host::new() else { return };
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut dice = Dice(seed);
    let mut daemon = Daemon::start(&host);
    let knowledge: Knowledge =
        Arc::new(Mutex::new(NAMES.iter().map(|name| (*name, Known::Absent)).collect()));
    for kill in 0..KILLS {
        let is_over = Arc::new(AtomicBool::new(false));
        let worker = {
            let (client, knowledge, is_over) =
                (daemon.client(), Arc::clone(&knowledge), Arc::clone(&is_over));
            let dice = Dice(dice.below(u64::MAX));
            std::thread::spawn(move || busy(&client, &knowledge, &is_over, dice))
        };
        std::thread::sleep(Duration::from_micros(dice.below(MOMENT_MS_MAX * 1000)));
        daemon.kill();
        is_over.store(true, Ordering::Release);
        worker.join().unwrap();
        daemon.start_again();
        compare(&daemon, &knowledge, &format!("seed {seed}, kill {kill}"));
    }
    for vm in daemon.list() {
        daemon.napa(&["rm", "--force", &vm.name]);
    }
    assert!(daemon.processes().is_empty());
}
