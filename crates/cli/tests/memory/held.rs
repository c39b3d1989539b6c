//! Memory that the embedded guest fills and holds: `hold` sleeps on it, `churn` frees it and takes it again, `phases`
//! holds more and less of it.

use crate::support::{Host, number};

/// The phases of which the guest reported the end, in order.
fn phases(output: &str) -> Vec<&str> {
    let totals = output.lines().filter(|line| line.starts_with("REPORT ") && line.contains(" part=total "));
    totals.filter_map(|line| line.split(" phase=").nth(1)?.split(' ').next()).collect()
}

#[test]
fn what_a_guest_holds_is_checked_and_written_when_it_is_stopped() {
    let Some(host) = Host::new() else { return };
    for (content, rewrite, expected) in [
        ("identical", "off", &["fill", "check"][..]),
        ("identical", "on", &["fill", "rewrite", "check"]),
        ("random", "off", &["fill", "check"]),
        ("zero", "on", &["fill", "rewrite", "check"]),
    ] {
        let line = format!("workload=hold:32M,{content} rewrite={rewrite}");
        let mut vm = host.run(&["--memory", "64M", "--cpus", "2", "--name", "vm", "--cmdline", &line]);
        vm.wait_line("REPORT workload=hold phase=fill part=total");
        assert_eq!(host.napa(&["stop", "vm"]).0, Some(0), "{line}");
        let ended = vm.end();
        assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{line}: {}", ended.output);
        assert_eq!(phases(&ended.output), expected, "{line}");
        assert!(!ended.output.contains("CORRUPT"), "{line}: {}", ended.output);
    }
}

#[test]
fn what_a_guest_writes_after_it_freed_memory_stays() {
    let Some(host) = Host::new() else { return };
    let line = "workload=churn:48M,3 pause=1 report=0";
    let ended = host.run(&["--memory", "64M", "--cpus", "2", "--cmdline", line]).end();
    assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{}", ended.output);
    let report = ended.output.lines().find(|line| line.starts_with("REPORT ")).unwrap_or_default();
    let (cycles, pages) = (number(report, "cycles"), 48 << 8);
    // Each page of a cycle is written and checked; the last cycle may be cut short.
    assert!((cycles * 2 * pages..=(cycles + 1) * 2 * pages).contains(&number(report, "ops")), "{report}");
}

#[test]
fn what_a_guest_keeps_from_step_to_step_stays_while_more_comes_and_goes() {
    let Some(host) = Host::new() else { return };
    // Eight amounts, so that the guest's steps are as deep as they get.
    let line = "workload=phases:4M/1/2M,40M/1/30M,8M/1/8M,12M/1,20M/1,24M/1,28M/1/28M,32M/0/16M balloon=on report=0 \
                pause=10 common=50";
    let mut vm = host.run(&["--memory", "64M", "--cpus", "2", "--name", "vm", "--cmdline", line]);
    let works = std::iter::repeat_with(|| vm.wait_line("REPORT workload=phases phase=work part=total"));
    let visits: Vec<u64> = works.take(4).map(|line| number(&line, "ops")).collect();
    assert!(visits.iter().all(|&visits| visits >= 256), "a burst each at least: {visits:?}");
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    let ended = vm.end();
    assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{}", ended.output);
    assert!(!ended.output.contains("CORRUPT"), "{}", ended.output);
    let (mut filled, mut checked) = (0, 0);
    for line in ended.output.lines().filter(|line| line.starts_with("REPORT ")) {
        match line {
            _ if line.contains("phase=fill") => filled += number(line, "ops"),
            _ if line.contains("phase=check") => checked += number(line, "ops"),
            _ => {}
        }
    }
    assert_eq!(filled, checked, "what was filled is checked: {}", ended.output);
    // Up to 40M, down to 8M, and up again to 32M.
    assert_eq!(filled, (40 + 24) << 8, "{}", ended.output);
}
