//! Command lines that are followed, and such as are refused.

use super::*;
use proptest::prelude::*;

fn one(text: &str) -> Result<Workload, BadArgument<'_>> {
    workload(text, Duration::OnePass)
}

#[test]
fn an_empty_line_says_hello() {
    let arguments = parse("").unwrap();
    assert_eq!(arguments.workloads, [Workload::Hello]);
    assert_eq!(arguments, Arguments { workloads: arguments.workloads.clone(), ..Arguments::default() });
}

fn phases_of(wanted: &[(u64, u64, Duration)]) -> Workload {
    let mut phases = Phases::new();
    for &(held, hot, duration) in wanted {
        assert!(phases.push(Step { held, hot, duration }));
    }
    Workload::Phases(phases)
}

#[test]
fn levels_are_climbed_one_by_one() {
    let Ok(Workload::Phases(phases)) = one("phases:8M/1,64M/1,16M/1,8M/1") else { panic!("it is one") };
    let climb = |held| phases.level_above(held).map(|level| level >> 20);
    assert_eq!([0, 8 << 20, 20 << 20, 64 << 20].map(climb), [Some(8), Some(16), Some(64), None]);
}

#[test]
fn every_workload_is_understood() {
    use Duration::{OnePass, Seconds, UntilStopped};
    let memory = |order, size, duration| Workload::Memory(Memory { order, size, duration });
    let hold = |content, duration| Workload::Hold { size: 64 << 20, content, duration };
    let block = |write, sequential, block, depth, duration| {
        Workload::Block(Block { write, sequential, block, depth, duration })
    };
    for (text, expected) in [
        ("hello", Workload::Hello),
        ("idle", Workload::Idle),
        ("touch:64M", memory(Order::Touch, 64 << 20, OnePass)),
        ("sweep:1G,10", memory(Order::Sweep, 1 << 30, Seconds(10))),
        ("verify:4K,0", memory(Order::Random, 4096, UntilStopped)),
        ("zipf:8M,0.99,5", memory(Order::Zipf { theta: 990 }, 8 << 20, Seconds(5))),
        ("zipf:8M,1.2", memory(Order::Zipf { theta: 1200 }, 8 << 20, OnePass)),
        ("churn:64M,5", Workload::Churn { size: 64 << 20, duration: Seconds(5) }),
        ("hold:64M,identical", hold(Content::Identical, UntilStopped)),
        ("hold:64M,random,0", hold(Content::Random, UntilStopped)),
        ("hold:64M,zero,9", hold(Content::Zero, Seconds(9))),
        (
            "phases:8M/30,64M/9/32M,4K/0",
            phases_of(&[
                (8 << 20, 0, Seconds(30)),
                (64 << 20, 32 << 20, Seconds(9)),
                (4096, 0, UntilStopped),
            ]),
        ),
        ("balloon", Workload::Balloon),
        ("blk-read:4K,32,2", block(false, false, 4096, 32, Seconds(2))),
        ("blk-write:512,1,2", block(true, false, 512, 1, Seconds(2))),
        ("blk-seq-read:1M,4,2", block(false, true, 1 << 20, 4, Seconds(2))),
        ("blk-seq-write:1M,128,2", block(true, true, 1 << 20, 128, Seconds(2))),
        ("blk-verify:16M", Workload::BlockVerify { size: 16 << 20, duration: OnePass }),
        ("blk-latency:3", Workload::BlockLatency { duration: Seconds(3) }),
        ("net-echo", Workload::NetEcho),
        ("net-ping:10.0.2.2,5", Workload::NetPing { address: [10, 0, 2, 2], count: 5 }),
        ("console-echo", Workload::ConsoleEcho),
        ("rng:64K", Workload::Rng { size: 64 << 10 }),
        ("panic", Workload::Panic),
        ("triple-fault", Workload::TripleFault),
        ("reboot", Workload::Reboot),
        ("poweroff", Workload::PowerOff),
        ("spin:3", Workload::Spin { duration: Seconds(3) }),
        ("exit:255", Workload::Exit { code: 255 }),
    ] {
        assert_eq!(one(text), Ok(expected), "{text}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (text, culprit) in [
        ("", ""),
        ("dance", "dance"),
        ("touch", ""),
        ("touch:0", "0"),
        ("touch:64m", "64m"),
        ("touch:64M,3,4", "4"),
        ("touch:64M,x", "x"),
        ("touch:64M,99999999999", "99999999999"),
        ("zipf:64M", ""),
        ("zipf:64M,9", "9"),
        ("churn:0", "0"),
        ("hold:64M", ""),
        ("hold:64M,noise", "noise"),
        ("phases", ""),
        ("phases:8M", "8M"),
        ("phases:8M/1/9M", "8M/1/9M"),
        ("phases:8M/1/4M/2", "8M/1/4M/2"),
        ("phases:8M/x", "x"),
        ("phases:1M/1,1M/1,1M/1,1M/1,1M/1,1M/1,1M/1,1M/1,2M/1", "2M/1"),
        ("balloon:1", "1"),
        ("blk-read:1000,1,1", "1000"),
        ("blk-read:8M,1,1", "8M"),
        ("blk-read:4K,0,1", "0"),
        ("blk-read:4K,129,1", "129"),
        ("blk-verify:6K", "6K"),
        ("net-ping:10.0.2,1", "10.0.2"),
        ("net-ping:10.0.2.2", ""),
        ("exit:256", "256"),
        ("exit", ""),
        ("hello:1", "1"),
    ] {
        assert_eq!(one(text).map_err(|error| error.text), Err(culprit), "{text}");
    }
}

#[test]
fn the_keys_are_understood_in_any_order() {
    let line = "seconds=7 workload=touch:1M+verify:2M,3+exit:4 report=0 tick=2 seed=9 writes=10 poll=on disk=1 \
                ip=192.168.7.2/28 gateway=192.168.7.1 balloon=on reporting=off \
                reporting-after=9 rewrite=on pause=7 burst=5 common=40 apic=x2apic";
    let arguments = parse(line).unwrap();
    let durations: std::vec::Vec<_> = arguments
        .workloads
        .iter()
        .map(|workload| match workload {
            Workload::Memory(memory) => Some(memory.duration),
            _ => None,
        })
        .collect();
    assert_eq!(durations, [Some(Duration::Seconds(7)), Some(Duration::Seconds(3)), None]);
    assert_eq!(
        arguments,
        Arguments {
            workloads: arguments.workloads.clone(),
            workload_text: "touch:1M+verify:2M,3+exit:4",
            report_seconds: 0,
            tick_seconds: 2,
            seed: 9,
            writes_percent: 10,
            poll: true,
            disk: 1,
            address: ([192, 168, 7, 2], 28),
            gateway: Some([192, 168, 7, 1]),
            balloon: true,
            reporting: false,
            report_after_ms: 9,
            rewrite: true,
            pause_ms: 7,
            burst_pages: 5,
            common_percent: 40,
            x2apic: true,
            unknown: None,
        }
    );
}

#[test]
fn the_balloon_workload_needs_no_word_beside_it() {
    assert!(parse("workload=hello+balloon").unwrap().balloon);
    assert!(!parse("workload=hello").unwrap().balloon);
}

#[test]
fn foreign_words_are_noticed_but_not_fatal() {
    assert_eq!(parse("console=ttyS0 quiet workload=idle").unwrap().unknown, Some("console=ttyS0"));
}

#[test]
fn bad_keys_are_refused() {
    for line in [
        "poll=yes",
        "report=x",
        "ip=10.0.0.1/33",
        "writes=101",
        "gateway=1",
        "workload=hello++hello",
        "balloon=yes",
        "pause=3600001",
        "burst=0",
        "common=101",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert!(parse("workload=hello+hello+hello+hello+hello+hello+hello+hello+hello").is_ok());
    let seventeen = format!("workload=hello{}", "+hello".repeat(16));
    assert_eq!(parse(&seventeen).map_err(|error| error.expected), Err("at most sixteen workloads"));
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(line in "[a-z:,+=/.0-9KMG -]{0,80}", name in "(touch|zipf|hold|churn|blk-read|exit|net-ping)") {
        let _ = parse(&line);
        let _ = one(&format!("{name}:{line}"));
    }
}
