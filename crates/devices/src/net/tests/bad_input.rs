use napa_api::VmConfig;

use super::card::config;
use super::namespace::{exists, in_namespace, mtu, persistent_tap};
use crate::net::Net;

/// The error of opening the card of `config`, which must say `expected` and leave no tap behind.
fn check(config: &VmConfig, expected: &[&str]) {
    let error = Net::open(config, 0).err().expect("this cannot be opened").to_string();
    assert!(!error.contains('\n') && error.starts_with("--net tap="), "{error}");
    for part in expected {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

fn with_mtu(mut config: VmConfig, mtu: u16) -> VmConfig {
    config.nets[0].mtu = Some(mtu);
    config
}

#[test]
fn names_that_no_interface_can_have_are_refused() {
    for name in ["", "sixteen-letters-", "tap%d", "a/b", "a b"] {
        check(&config(name, None), &["cannot be an interface", "1 to 15 characters"]);
    }
}

#[test]
fn an_interface_that_is_no_tap_is_refused() {
    in_namespace(|| {
        for queues in [None, Some(1), Some(2)] {
            check(&config("lo", queues), &["--net tap=lo", "not a tap", "choose a name"]);
        }
    });
}

#[test]
fn a_single_queue_tap_takes_one_queue() {
    in_namespace(|| {
        persistent_tap("single", 0);
        check(&config("single", Some(2)), &["single queue", "queues=1", "multi_queue"]);
        let many_cpus = VmConfig { cpus: 4, ..config("single", None) };
        assert_eq!(Net::open(&many_cpus, 0).unwrap().tap.queue_count(), 1);
        assert!(exists("single"), "a tap that somebody else made stays");
    });
}

#[test]
fn a_multi_queue_tap_takes_as_many_queues_as_asked_for() {
    in_namespace(|| {
        persistent_tap("multi", libc::IFF_MULTI_QUEUE);
        for (queues, cpus, expected) in
            [(None, 1, 1), (None, 3, 3), (None, 64, 4), (Some(1), 4, 1), (Some(8), 1, 8)]
        {
            let config = VmConfig { cpus, ..config("multi", queues) };
            assert_eq!(Net::open(&config, 0).unwrap().tap.queue_count(), expected, "{queues:?} {cpus}");
        }
        let made = VmConfig { cpus: 2, ..config("made", None) };
        assert_eq!(Net::open(&made, 0).unwrap().tap.queue_count(), 2);
    });
}

#[test]
fn a_tap_that_another_card_uses_is_busy() {
    in_namespace(|| {
        for queues in [None, Some(2)] {
            let card = Net::open(&config("t", queues), 0).unwrap();
            for other in [None, Some(1), Some(2)] {
                check(&config("t", other), &["--net tap=t"]);
            }
            check(&config("t", queues), &["another process uses this tap"]);
            drop(card);
            assert!(!exists("t"));
        }
    });
}

#[test]
fn an_mtu_that_the_tap_cannot_carry_is_refused() {
    in_namespace(|| {
        persistent_tap("small", 0);
        check(
            &with_mtu(config("small", None), 9000),
            &["MTU of 1500", "mtu=1500", "ip link set small mtu 9000"],
        );
        let card = Net::open(&with_mtu(config("small", None), 1400), 0).unwrap();
        assert_eq!((card.config.mtu, mtu("small")), (1400, 1500), "the tap keeps its own");
        drop(card);
        check(&with_mtu(config("made", None), 65_535), &["cannot have this MTU", "65521"]);
        assert!(!exists("made"), "a tap that could not be used is gone");
        let card = Net::open(&with_mtu(config("made", None), 9000), 0).unwrap();
        assert_eq!((card.config.mtu, mtu("made")), (9000, 9000));
    });
}

#[test]
fn a_user_without_permission_learns_what_to_do() {
    in_namespace(|| {
        persistent_tap("others", 0);
        // Capabilities belong to a thread, and this one ends with the test.
        let none = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).unwrap();
        check(&config("none", None), &["to make it", "CAP_NET_ADMIN", "ip tuntap add none mode tap user"]);
        check(&config("none", Some(2)), &["ip tuntap add none mode tap multi_queue user"]);
    });
}
