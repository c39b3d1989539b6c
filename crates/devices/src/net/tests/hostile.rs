//! Drivers that write whatever they like.

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::card::{Card, QUEUE_BYTES, RAM_MIB, config};
use super::namespace::in_namespace;
use crate::net::request::HEADER_BYTES;
use crate::testing::WRITE;

const QUEUES: usize = 5;

/// One thing that a driver does to a queue.
#[derive(Clone, Debug)]
enum Mischief {
    Store(u16, u64, u32, u16, u16),
    Offer(u16),
    Send(Vec<(u64, u32, u16)>),
    Scribble(u64, Vec<u8>),
    Kick,
}

fn mischief() -> impl Strategy<Value = (usize, Mischief)> {
    let address = prop_oneof![0..(RAM_MIB << 20) + 0x1000, any::<u64>()];
    let length = prop_oneof![0_u32..70_000, any::<u32>()];
    let piece = (address.clone(), length.clone(), prop_oneof![Just(0), Just(WRITE)]);
    let what = prop_oneof![
        (any::<u16>(), address.clone(), length, any::<u16>(), any::<u16>()).prop_map(
            |(index, address, length, flags, next)| Mischief::Store(index, address, length, flags, next)
        ),
        any::<u16>().prop_map(Mischief::Offer),
        prop::collection::vec(piece, 1..6).prop_map(Mischief::Send),
        // The rings themselves, and what requests point to.
        (0..0x4000_u64, prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Mischief::Scribble(at, bytes)),
        Just(Mischief::Kick),
    ];
    (0..QUEUES, what)
}

fn commit(card: &mut Card, queue: usize, mischief: Mischief) {
    let driver = &mut card.queues[queue];
    match mischief {
        Mischief::Store(index, address, length, flags, next) => {
            driver.store(index, Descriptor::new(address, length, flags, next));
        }
        Mischief::Offer(head) => driver.offer(head),
        Mischief::Send(pieces) => {
            driver.add(&pieces);
        }
        Mischief::Scribble(at, bytes) => {
            let at = GuestAddress(queue as u64 * QUEUE_BYTES + at);
            card.bench.ram.write_slice(&bytes, at).unwrap();
        }
        Mischief::Kick => driver.kick(),
    }
}

#[test]
fn no_driver_stops_the_device() {
    in_namespace(|| {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 200,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let sequences = prop::collection::vec(mischief(), 1..60);
        let result = runner.run(&(sequences, any::<u64>()), |(sequence, features)| {
            let mut card = Card::start(&config("t", Some(2)), features);
            let scribbled = sequence.iter().any(|(_, mischief)| matches!(mischief, Mischief::Scribble(..)));
            for (queue, mischief) in sequence {
                commit(&mut card, queue, mischief);
            }
            card.queues.iter().for_each(|driver| driver.kick());
            // The workers still leave when asked to, and dropping the card finds their threads alive.
            card.stop();
            for driver in &mut card.queues {
                while !scribbled && driver.used().is_some() {}
                prop_assert!(driver.strays.is_empty(), "{:?}", driver.strays);
            }
            Ok(())
        });
        result.unwrap();
    });
}

#[test]
fn requests_that_make_no_sense_mark_the_device() {
    let outside = (RAM_MIB << 20) - 4;
    let check = |queue: usize, pieces: &'static [(u64, u32, u16)]| {
        in_namespace(move || {
            let mut card = Card::start(&config("t", Some(2)), u64::MAX);
            card.queues[queue].add(pieces);
            card.queues[queue].kick();
            card.bench.wait_needs_reset();
            assert!(card.queues[queue].used().is_none(), "{queue} {pieces:?}");
            card.stop();
        });
    };
    const HEADER: u32 = HEADER_BYTES as u32;
    assert_eq!(outside, 0x1ff_fffc);
    check(0, &[(0x20_0000, 2048, 0)]);
    check(0, &[(0x20_0000, HEADER - 1, WRITE)]);
    check(0, &[(0x1ff_fffc, 2048, WRITE)]);
    check(1, &[(0x20_0000, HEADER - 1, 0)]);
    check(1, &[(0x20_0000, 60, 0), (0x20_0000, 60, WRITE)]);
    check(1, &[(0x1ff_fffc, 60, 0)]);
    check(4, &[(0x20_0000, 4, 0)]);
}
