//! The kept inputs, and random ones from a fixed seed, against every target. No fuzzer is needed.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use napa_fuzz::{TARGETS, Target};

/// Random inputs for each target: a few seconds' worth.
const RANDOM_INPUTS: u64 = 400;
/// Bytes of a random input at most.
const RANDOM_BYTES_MAX: u64 = 512;
const SEED: u64 = 0x6e61_7061;

/// Numbers that look random and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> =
        entries.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect();
    inputs.sort();
    inputs
}

fn check(target: Target, what: &str, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "{what} fails: {input:?}");
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|(of, _)| *of == name).unwrap().1;
    let kept = corpus(name);
    assert!(!kept.is_empty(), "{name} has no kept inputs");
    kept.iter().for_each(|(file, input)| check(target, file, input));
    let mut numbers = Numbers(SEED);
    for index in 0..RANDOM_INPUTS {
        let input = match kept.get(numbers.below(2 * kept.len() as u64) as usize) {
            Some((_, input)) => mutate(input.clone(), &mut numbers),
            None => {
                let count = numbers.below(RANDOM_BYTES_MAX);
                numbers.bytes(count)
            }
        };
        check(target, &format!("random input {index} of seed {SEED:#x}"), &input);
    }
}

fn mutate(mut input: Vec<u8>, numbers: &mut Numbers) -> Vec<u8> {
    for _ in 0..=numbers.below(8) {
        let count = input.len() as u64;
        let at = numbers.below(count + 1) as usize;
        match numbers.below(4) {
            0 if at < input.len() => input[at] = numbers.next() as u8,
            1 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            2 => input.insert(at, numbers.next() as u8),
            _ => input.truncate(count.max(1) as usize - numbers.below(count.clamp(1, 8)) as usize),
        }
    }
    input
}

#[test]
fn no_ring_harms_the_host() {
    replay("queue");
}

#[test]
fn no_register_access_harms_the_host() {
    replay("pci");
}

#[test]
fn a_disk_does_what_it_was_asked_and_nothing_else() {
    replay("blk");
}

#[test]
fn no_kernel_image_harms_the_host() {
    replay("kernel_image");
}

#[test]
fn every_line_of_a_control_socket_is_understood_or_refused() {
    replay("control");
}

#[test]
fn every_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(folders, names);
}
