use std::time::Duration;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF,
};

use super::card::{Card, config};
use super::frame::{
    BOB, BROADCAST, EXPERIMENT, Frame, IPV4, TCP_HEADERS_BYTES, arp_request, ethernet, experiment, ping,
    tcp_checksum_is_right, tcp_large, udp,
};
use super::namespace::{bridge, exists, in_namespace, remove, set_address};
use crate::net::features::{has, offered};
use napa_virtio::Device;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const ALL: u64 = u64::MAX;
const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const MULTI_QUEUE: u64 = 1 << VIRTIO_NET_F_MQ;
const LARGE: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4;
/// The driver takes frames that need nothing: no checksums, no segmentation, one buffer each.
const PLAIN: u64 = !(MERGEABLE | LARGE | MULTI_QUEUE);
/// How long a test makes sure that nothing comes.
const MOMENT: Duration = Duration::from_millis(100);

/// Two cards on one Ethernet.
fn pair(first: u64, second: u64) -> (Card, Card) {
    let cards = (Card::start(&config("a", None), first), Card::start(&config("b", None), second));
    bridge(&["a", "b"]);
    cards
}

#[test]
fn the_host_answers_a_ping() {
    for features in [ALL, PLAIN] {
        in_namespace(move || {
            let mut card = Card::start(&config("t", None), features);
            set_address("t", [10, 0, 0, 1]);
            card.post(RECEIVE, 64, 2048);
            card.send(TRANSMIT, &arp_request());
            let answer = card.receive(RECEIVE, 0x0806);
            let host: [u8; 6] = answer.bytes[6..12].try_into().unwrap();
            for size in [0, 1, 56, 1400] {
                let data = vec![0x5a; size];
                card.send(TRANSMIT, &ping(host, &data));
                let echo = card.receive(RECEIVE, IPV4);
                assert_eq!(echo.bytes[34], 0, "an echo reply");
                assert_eq!(echo.bytes[42..42 + size], data);
            }
        });
    }
}

#[test]
fn a_large_segment_passes_whole_where_both_drivers_can() {
    in_namespace(|| {
        let (mut alice, mut bob) = pair(ALL, ALL);
        for payload in [3000, 20_000, 65_000] {
            bob.top_up(RECEIVE, 100, 1024);
            let segment = tcp_large(payload, 1448);
            alice.send(TRANSMIT, &segment);
            let whole = bob.receive(RECEIVE, IPV4);
            assert_eq!(whole.bytes, segment.bytes);
            assert_eq!(whole.header[..2], [1, 1], "checksum and segmentation are still undone");
            assert_eq!(whole.header[4..10], segment.header[4..10]);
            assert_eq!(usize::from(whole.num_buffers()), (12 + whole.bytes.len()).div_ceil(1024));
        }
    });
}

#[test]
fn a_large_segment_is_cut_for_a_driver_that_takes_none() {
    in_namespace(|| {
        let (mut alice, mut bob) = pair(ALL, PLAIN);
        bob.post(RECEIVE, 100, 2048);
        let large = tcp_large(5000, 1448);
        alice.send(TRANSMIT, &large);
        let mut payload: Vec<u8> = Vec::new();
        while payload.len() < 5000 {
            let segment = bob.receive(RECEIVE, IPV4);
            assert_eq!(segment.header[..10], [0; 10], "nothing is left undone");
            assert_eq!(segment.num_buffers(), 1);
            assert!(tcp_checksum_is_right(&segment.bytes));
            payload.extend(&segment.bytes[TCP_HEADERS_BYTES..]);
        }
        assert_eq!(payload, large.bytes[TCP_HEADERS_BYTES..]);
    });
}

#[test]
fn a_frame_is_spread_over_small_buffers() {
    for features in [MERGEABLE, MERGEABLE | LARGE] {
        in_namespace(move || {
            let (mut alice, mut bob) = pair(ALL, features);
            let frame = experiment(1000);
            bob.post(RECEIVE, 200, 64);
            alice.send(TRANSMIT, &frame);
            let received = bob.receive(RECEIVE, EXPERIMENT);
            assert_eq!(received.bytes, frame.bytes);
            assert_eq!(usize::from(received.num_buffers()), (12_usize + 14 + 1000).div_ceil(64));
        });
    }
}

#[test]
fn a_frame_waits_for_buffers_that_come_late() {
    for features in [MERGEABLE, PLAIN] {
        in_namespace(move || {
            let (mut alice, mut bob) = pair(ALL, features);
            let frame = experiment(600);
            for _ in 0..3 {
                alice.send(TRANSMIT, &frame);
            }
            assert!(bob.receive_for(RECEIVE, MOMENT).is_none(), "there was no buffer");
            for _ in 0..3 {
                if features == MERGEABLE {
                    bob.post(RECEIVE, 2, 64);
                    let early = bob.receive_for(RECEIVE, MOMENT);
                    assert!(
                        early.is_none(),
                        "two buffers are too few for {:x?}",
                        early.map(|frame| frame.bytes)
                    );
                    bob.post(RECEIVE, 8, 64);
                } else {
                    bob.post(RECEIVE, 1, 1526);
                }
                assert_eq!(bob.receive(RECEIVE, EXPERIMENT).bytes, frame.bytes);
            }
        });
    }
}

#[test]
fn a_frame_that_never_fits_is_dropped_and_the_next_one_arrives() {
    in_namespace(|| {
        let (mut alice, mut bob) = pair(ALL, PLAIN);
        bob.post(RECEIVE, 4, 128);
        alice.send(TRANSMIT, &experiment(600));
        alice.send(TRANSMIT, &experiment(50));
        assert_eq!(bob.receive(RECEIVE, EXPERIMENT).bytes, experiment(50).bytes);
    });
    in_namespace(|| {
        let (mut alice, mut bob) = pair(ALL, MERGEABLE);
        bob.post(RECEIVE, 256, 16);
        alice.send(TRANSMIT, &experiment(1400));
        bob.receive(RECEIVE, EXPERIMENT);
        assert!(!bob.bench.needs_reset());
    });
}

#[test]
fn many_frames_arrive_in_order() {
    in_namespace(|| {
        let (mut alice, mut bob) = pair(ALL, ALL);
        bob.post(RECEIVE, 200, 2048);
        for size in 100..600 {
            alice.send(TRANSMIT, &experiment(size));
            assert_eq!(bob.receive(RECEIVE, EXPERIMENT).bytes, experiment(size).bytes);
            bob.post(RECEIVE, 1, 2048);
        }
    });
}

#[test]
fn frames_that_make_no_sense_are_dropped_and_the_card_goes_on() {
    in_namespace(|| {
        let (mut alice, mut bob) = pair(ALL & !LARGE, ALL);
        bob.post(RECEIVE, 200, 2048);
        let bytes = ethernet(BROADCAST, [2; 6], EXPERIMENT, b"not to be seen");
        alice.send(TRANSMIT, &Frame { header: [0xff; 12], bytes: bytes.clone() });
        alice.send(TRANSMIT, &Frame::plain(bytes[..13].to_vec()));
        let mut checksum_outside = Frame::plain(bytes);
        checksum_outside.header[0] = 1;
        checksum_outside.header[6..8].copy_from_slice(&1000_u16.to_le_bytes());
        alice.send(TRANSMIT, &checksum_outside);
        alice.send(TRANSMIT, &experiment(60));
        assert_eq!(bob.receive(RECEIVE, EXPERIMENT).bytes, experiment(60).bytes);
        assert!(!alice.bench.needs_reset());
    });
}

#[test]
fn flows_are_spread_over_as_many_queues_as_the_driver_wants() {
    const CONTROL: usize = 4;
    in_namespace(|| {
        let mut alice = Card::start(&config("a", None), ALL);
        let mut bob = Card::start(&config("b", Some(2)), ALL);
        bridge(&["a", "b"]);
        let mut flows = |bob: &mut Card| {
            let mut counts = [0; 2];
            for port in 1000..1064 {
                [0, 2].into_iter().for_each(|queue| bob.top_up(queue, 100, 2048));
                alice.send(TRANSMIT, &udp(port));
                while counts.iter().sum::<u16>() <= port - 1000 {
                    let first = bob.receive_for(0, Duration::from_millis(1));
                    let second = bob.receive_for(2, Duration::from_millis(1));
                    let is_flow =
                        |frame: Option<Frame>| u16::from(frame.is_some_and(|f| f.bytes[..6] == BOB));
                    counts[0] += is_flow(first);
                    counts[1] += is_flow(second);
                }
            }
            counts
        };
        let set_pairs = |count: u8| [VIRTIO_NET_CTRL_MQ as u8, 0, count, 0];
        assert_eq!(flows(&mut bob), [64, 0], "a driver begins with one pair");
        assert_eq!(bob.command(CONTROL, &set_pairs(2)), 0);
        let [first, second] = flows(&mut bob);
        assert!(first > 8 && second > 8, "{first} and {second} flows");
        for wrong in [set_pairs(0), set_pairs(3), [1, 0, 1, 0]] {
            assert_eq!(bob.command(CONTROL, &wrong), 1, "{wrong:?}");
        }
        assert_eq!(bob.command(CONTROL, &set_pairs(1)), 0);
        assert_eq!(flows(&mut bob), [64, 0]);
        assert_eq!(bob.command(CONTROL, &set_pairs(2)), 0);
        let [first, second] = flows(&mut bob);
        assert!(first > 8 && second > 8, "{first} and {second} flows after a pause");
    });
}

#[test]
fn a_driver_without_multiqueue_finds_the_control_queue_behind_its_pair() {
    in_namespace(|| {
        let mut card = Card::start(&config("t", Some(2)), !MULTI_QUEUE);
        assert_eq!(card.command(2, &[VIRTIO_NET_CTRL_MQ as u8, 0, 1, 0]), 0);
        assert_eq!(card.command(2, &[VIRTIO_NET_CTRL_MQ as u8, 0, 2, 0]), 1, "it has one pair");
    });
}

#[test]
fn the_link_goes_down_when_the_tap_is_removed() {
    in_namespace(|| {
        let mut card = Card::start(&config("t", None), ALL);
        let status = |card: &Card| {
            let mut status = [0xff; 2];
            card.device.read_config(6, &mut status);
            u16::from_le_bytes(status)
        };
        card.post(RECEIVE, 10, 2048);
        assert_eq!(status(&card), 1);
        remove("t");
        card.bench.wait_config_interrupt();
        assert_eq!(status(&card), 0);
        card.send(TRANSMIT, &experiment(60));
        assert!(!card.bench.needs_reset());
    });
    in_namespace(|| {
        let device = Card::open(&config("t", Some(2)));
        remove("t");
        let mut card = Card::activate(device, ALL);
        card.send(TRANSMIT, &experiment(60));
        let mut status = [0xff; 2];
        card.device.read_config(6, &mut status);
        assert_eq!(status, [0; 2], "a driver that comes later finds no link");
    });
}

#[test]
fn a_card_serves_again_after_a_reset_and_its_tap_goes_with_it() {
    in_namespace(|| {
        let mut card = Card::start(&config("t", Some(2)), ALL);
        card.post(RECEIVE, 10, 2048);
        card.stop();
        assert!(exists("t"));
        drop(card);
        assert!(!exists("t"), "a tap that was made for the card is gone");
        let card = Card::start(&config("t", None), ALL);
        assert_eq!(card.device.name(), "net0");
        assert_eq!(card.device.id(), 1);
        assert_eq!(card.device.queue_sizes().len(), 2);
        let features = card.device.features();
        assert_eq!(features, offered(card.device.tap.offloads(), 1));
        assert!(has(features, VIRTIO_NET_F_GUEST_TSO4), "any kernel of this century knows TSO");
    });
}
