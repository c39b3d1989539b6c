//! What the host asks: targets, statistics, hints.

use std::sync::Arc;
use std::time::Duration;

use napa_api::control::DeviceState;
use napa_units::{Bytes, PAGE_SIZE};
use vm_memory::{Bytes as _, GuestAddress};

use super::rig::*;
use crate::balloon::config::Feature;
use crate::balloon::{Balloon, BalloonError};
use crate::testing::WRITE;

const PATIENCE: Duration = Duration::from_secs(20);
const DATA: u64 = FIRST_PAGE * PAGE_SIZE;
const COMMAND: u64 = 8;

/// Makes a statistic available: free memory.
fn offer_free(rig: &mut Rig, bytes: u64) -> u16 {
    let entry = [&4_u16.to_le_bytes()[..], &bytes.to_le_bytes()].concat();
    rig.bench.ram.write_slice(&entry, GuestAddress(DATA)).unwrap();
    let head = rig.queues[STATISTICS].add(&[(DATA, 3, 0), (DATA + 3, 7, 0)]);
    rig.queues[STATISTICS].kick();
    head
}

fn free(rig: &Rig) -> Option<Bytes> {
    rig.balloon.report().statistics.and_then(|statistics| statistics.free)
}

fn in_background<T: Send + 'static>(
    rig: &Rig,
    ask: impl FnOnce(&Balloon) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let balloon = Arc::clone(&rig.balloon);
    std::thread::spawn(move || ask(&balloon))
}

#[test]
fn a_target_is_told_and_bounded() {
    let rig = Rig::new();
    let all = Bytes::mib(MEBIBYTES);
    rig.balloon.set_target(Bytes::mib(3), all).unwrap();
    rig.bench.wait_config_interrupt();
    assert_eq!(rig.read_config(0), 768);
    let beyond = rig.balloon.set_target(Bytes(all.0 + PAGE_SIZE), all).unwrap_err();
    assert_eq!(beyond.to_string(), "balloon beyond the guest's size: 16388K of 16M; ask for less");
    assert_eq!(rig.balloon.set_target(Bytes(100), all), Err(BalloonError::Unaligned(100)));
    assert_eq!(rig.read_config(0), 768);
    rig.balloon.set_target(all, all).unwrap();
    assert_eq!(rig.read_config(0), END_PAGE as u32);
    // A guest to which memory was plugged can give up more than it started with.
    let more = Bytes(all.0 + PAGE_SIZE);
    rig.balloon.set_target(more, more).unwrap();
    assert_eq!(rig.read_config(0), END_PAGE as u32 + 1);
}

#[test]
fn a_target_waits_for_a_driver() {
    let balloon = Balloon::new(Bytes::mib(1)).unwrap();
    balloon.set_target(Bytes::kib(8), Bytes::mib(1)).unwrap();
    let report = balloon.report();
    assert_eq!((report.driver, report.target, report.statistics), (DeviceState::Idle, Bytes::kib(8), None));
    balloon.refresh_statistics(PATIENCE);
    assert_eq!(balloon.hint(PATIENCE).unwrap_err(), BalloonError::NoDriver);
}

#[test]
fn statistics_are_asked_for_and_kept() {
    let mut rig = Rig::new();
    let first = offer_free(&mut rig, 111 << 12);
    rig.wait_until("the first statistics", |rig| free(rig) == Some(Bytes(111 << 12)));
    assert_eq!(rig.queues[STATISTICS].used(), None, "the device keeps the buffer");
    let asking = in_background(&rig, |balloon| balloon.refresh_statistics(PATIENCE));
    assert_eq!(rig.queues[STATISTICS].wait_used(), (first, 0));
    offer_free(&mut rig, 222 << 12);
    asking.join().unwrap();
    assert_eq!(free(&rig), Some(Bytes(222 << 12)));
}

#[test]
fn a_guest_that_does_not_answer_is_asked_once() {
    let mut rig = Rig::new();
    let head = offer_free(&mut rig, 111 << 12);
    rig.wait_until("the first statistics", |rig| free(rig).is_some());
    for _ in 0..3 {
        rig.balloon.refresh_statistics(Duration::from_millis(1));
    }
    assert_eq!(rig.queues[STATISTICS].wait_used(), (head, 0));
    // With nobody to answer, this would last.
    rig.balloon.refresh_statistics(Duration::from_secs(1000));
    assert_eq!(free(&rig), Some(Bytes(111 << 12)));
    offer_free(&mut rig, 222 << 12);
    rig.wait_until("the late answer", |rig| free(rig) == Some(Bytes(222 << 12)));
    assert_eq!(rig.queues[STATISTICS].used(), None);
}

#[test]
fn a_driver_that_goes_away_is_not_waited_for() {
    let mut rig = Rig::new();
    let head = offer_free(&mut rig, 111 << 12);
    let asking = in_background(&rig, |balloon| balloon.refresh_statistics(Duration::from_secs(1000)));
    let hinting = in_background(&rig, |balloon| balloon.hint(Duration::from_secs(1000)));
    rig.wait_until("hints are asked for", |rig| rig.read_config(COMMAND) != 0);
    // The statistics may have come before or after they were asked for.
    if let Some(used) = rig.queues[STATISTICS].wait_used_for(Duration::from_millis(10)) {
        assert_eq!(used, (head, 0));
    }
    rig.reset();
    asking.join().unwrap();
    assert_eq!(hinting.join().unwrap().unwrap_err(), BalloonError::Gone);
    assert_eq!(rig.balloon.report().driver, DeviceState::Idle);
}

#[test]
fn hints_are_collected_and_their_pages_kept() {
    let mut rig = Rig::new();
    rig.mark(2048, 7);
    let hinting = in_background(&rig, |balloon| balloon.hint(PATIENCE));
    rig.bench.wait_config_interrupt();
    let command = rig.read_config(COMMAND);
    rig.bench.ram.write_obj(command.to_le(), GuestAddress(DATA)).unwrap();
    rig.bench.ram.write_obj(0_u32, GuestAddress(DATA + 4)).unwrap();
    let hints = &mut rig.queues[HINTS];
    hints.add(&[(2000 * PAGE_SIZE, 4096, WRITE)]);
    hints.add(&[(DATA, 4, 0)]);
    hints.add(&[(2048 * PAGE_SIZE, 1 << 20, WRITE)]);
    hints.add(&[(2048 * PAGE_SIZE, 8192, WRITE), (3000 * PAGE_SIZE, 8191, WRITE)]);
    hints.add(&[(DATA + 4, 4, 0)]);
    hints.kick();
    let hints = hinting.join().unwrap().unwrap();
    assert!(hints.is_complete);
    assert_eq!(hints.pages.count(), 256 + 1);
    assert!(hints.pages.contains(3000) && !hints.pages.contains(2000));
    assert_eq!(rig.read_config(COMMAND), 1, "the pages are the guest's again");
    assert_eq!((rig.mark_of(2048), rig.balloon.report().discarded), (7, Bytes(0)));
}

#[test]
fn hints_need_a_driver_that_can_give_them() {
    let rig = Rig::with(Feature::MUST_TELL_HOST, &[true, true, false, false, false]);
    assert_eq!(rig.balloon.hint(PATIENCE).unwrap_err(), BalloonError::NoHints);
    let mut rig = Rig::with(Feature::ALL, &[true; 5]);
    rig.write_config(12, 0xaaaa_aaaa);
    assert_eq!(rig.balloon.hint(PATIENCE).unwrap_err(), BalloonError::Poisoned);
    rig.write_config(12, 0);
    let hints = rig.balloon.hint(Duration::ZERO).unwrap();
    assert!(hints.pages.count() == 0 && !hints.is_complete);
}

#[test]
fn queues_move_down_when_features_are_missing() {
    let wanted = Feature::MUST_TELL_HOST | Feature::REPORTING;
    // As Linux numbers them, as the specification does, and a driver that sets up less than it accepted.
    for (features, set_up, reports) in [
        (wanted, [true, true, true, false, false], 2),
        (wanted, [true, true, false, false, true], 4),
        (wanted | Feature::STATISTICS, [true, true, true, true, false], 3),
        (wanted | Feature::STATISTICS, [true, true, false, false, true], 4),
    ] {
        let mut rig = Rig::with(features, &set_up);
        rig.mark(1024, 7);
        let head = rig.queues[reports].add(&[(1024 * PAGE_SIZE, 4096, WRITE)]);
        rig.queues[reports].kick();
        assert_eq!(rig.queues[reports].wait_used(), (head, 0), "{features:#x} {set_up:?}");
        assert_eq!(rig.mark_of(1024), 0);
    }
}
