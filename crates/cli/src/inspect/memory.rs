//! A VM's memory for people.

use napa_api::control::{BalloonReport, Certainty, DeviceState, GroupReport, MemoryReport, PlugReport};
use napa_units::{Bytes, PageState};

use super::picture;
use crate::figures;
use crate::output::{Colour, Style, Table};
use crate::share;

/// The report as a bar, a table and what else there is to say.
pub fn describe(report: &MemoryReport, style: Style) -> String {
    let head = format!("{}: {} of guest memory\n", report.name, figures::size(report.size));
    let parts = [head, picture::bar(&report.ledger, style) + "\n", parts(report, style), facts(report)];
    parts.join("\n")
}

fn parts(report: &MemoryReport, style: Style) -> String {
    let size = report.size;
    let mut table = Table::new();
    for state in PageState::ALL {
        let bytes = report.ledger.count(state).bytes();
        let is_rare = matches!(state, PageState::SwappedSomewhere | PageState::Remote);
        if bytes.0 > 0 || !is_rare {
            let look = picture::look(state);
            let mark = look.mark(style);
            table.row([&mark, look.name, &figures::size(bytes), &percent(bytes, size), look.meaning]);
        }
    }
    // As wide as the marks, with the colour that a terminal does not show.
    let blank = style.coloured(" ", Colour::Grey);
    table.row([&blank, "sum", &figures::size(report.ledger.size().bytes()), &percent(size, size)]);
    table.finish()
}

fn facts(report: &MemoryReport) -> String {
    let mut table = Table::new();
    if report.looked_at < report.size {
        let looked_at = figures::size(report.looked_at);
        table.row(["sampled", &format!("scaled from {looked_at}, chosen at random")]);
    }
    if let Some(huge) = report.huge {
        table.row(["huge pages", &figures::size(huge)]);
    }
    if let Some(found) = &report.working_set {
        let (used, low, high) = (found.working_set, figures::size(found.low), figures::size(found.high));
        table.row(["working set", &format!("{} (the last sample: {low} to {high})", figures::size(used))]);
    }
    if let Some(balloon) = &report.balloon {
        table.row(["balloon", &given_up(balloon)]);
    }
    if let Some(hotplug) = &report.hotplug {
        table.row(["hotplug", &plugged(hotplug)]);
    }
    if report.compressed == Certainty::Estimated {
        table
            .row(["compressed", "estimated from the host's zswap: the kernel does not count it for this VM"]);
    }
    table.row(["from swap", &came_back(report)]);
    if let Some(group) = &report.group {
        table.row(["group", &charged(group)]);
    }
    table.row(["sharing", &share::line(&report.sharing)]);
    table.finish() + &share::warnings(&report.sharing)
}

fn given_up(balloon: &BalloonReport) -> String {
    let [held, target, reported] = [balloon.held, balloon.target, balloon.reported].map(figures::size);
    match balloon.driver {
        DeviceState::Active => {
            format!("{held} given up of {target} asked for; {reported} reported free so far")
        }
        DeviceState::Idle => format!("{target} asked for; no driver in the guest has taken it"),
        DeviceState::NeedsReset => {
            format!("{target} asked for; its driver broke the rules and must reset it")
        }
    }
}

fn plugged(hotplug: &PlugReport) -> String {
    let [plugged, requested, size] = [hotplug.plugged, hotplug.requested, hotplug.size].map(figures::size);
    format!("{plugged} plugged of {requested} asked for, and at most {size}")
}

fn came_back(report: &MemoryReport) -> String {
    let seen = format!("{} pages seen to come back", figures::count(report.refaults));
    match report.major_faults {
        Some(faults) => format!("{seen}; waited {} times for a page", figures::count(faults)),
        None => seen,
    }
}

fn charged(group: &GroupReport) -> String {
    let mut text = format!("{} charged", figures::size(group.current));
    if let Some(swap) = group.swap {
        let limit = group.swap_max.map(|limit| format!(" of {limit}")).unwrap_or_default();
        text += &format!(", {}{limit} in swap", figures::size(swap));
    }
    if let Some(zswap) = group.zswap.filter(|zswap| *zswap > Bytes(0)) {
        text += &format!(" ({} of zswap)", figures::size(zswap));
    }
    if let Some(stalled_us) = group.stalled_us {
        text += &format!("; waited {} for memory", figures::duration_ns(stalled_us.saturating_mul(1000)));
    }
    match group.kills {
        0 => text,
        kills => format!("{text}; processes killed for want of it: {kills}"),
    }
}

fn percent(part: Bytes, whole: Bytes) -> String {
    let percent = if whole.0 == 0 { 0.0 } else { part.0 as f64 / whole.0 as f64 * 100.0 };
    format!("{percent:5.1} %")
}

#[cfg(test)]
mod tests {
    use napa_api::config::ShareConfig;
    use napa_api::control::ShareReport;
    use napa_units::{Ledger, Pages};

    use super::*;

    fn report() -> MemoryReport {
        let size = Bytes::mib(512);
        let mut ledger = Ledger::untouched(Pages::covering(size));
        ledger.shift(PageState::Zero, PageState::Resident, Pages::covering(Bytes::mib(256)));
        ledger.shift(PageState::Zero, PageState::SwappedDisk, Pages(16));
        MemoryReport {
            name: "web".into(),
            size,
            ledger,
            looked_at: size,
            huge: Some(Bytes::mib(128)),
            compressed: Certainty::Counted,
            refaults: 1234,
            major_faults: Some(5),
            working_set: None,
            balloon: None,
            hotplug: None,
            sharing: ShareReport {
                scope: ShareConfig::Vm,
                is_on: false,
                merged: None,
                zero: None,
                profit: None,
                full_scans: None,
                given_back: Bytes(0),
                left: Bytes(0),
                notes: vec![],
                strangers: vec![],
            },
            group: None,
        }
    }

    #[test]
    fn a_report_has_a_bar_a_table_and_facts() {
        let expected = "\
web: 512 MiB of guest memory

[################################................................]

#  resident             256 MiB   50.0 %  in memory, for this VM alone
=  shared               0 KiB      0.0 %  in memory, merged with equal pages
z  swapped, compressed  0 KiB      0.0 %  in zram or zswap
d  swapped, on disk     64 KiB     0.0 %  in a swap file or partition
-  discarded            0 KiB      0.0 %  given back by the guest
.  zero                 255 MiB   50.0 %  never touched, or all zeros
   sum                  512 MiB  100.0 %

huge pages  128 MiB
from swap   1,234 pages seen to come back; waited 5 times for a page
sharing     off (--share vm)
";
        assert_eq!(describe(&report(), Style::PLAIN), expected);
    }

    #[test]
    fn a_group_says_what_it_is_charged_with() {
        let mut group = GroupReport {
            current: Bytes::mib(300),
            swap: Some(Bytes::mib(20)),
            swap_max: Some(Bytes::gib(1)),
            zswap: Some(Bytes::kib(512)),
            refaults: 1,
            major_faults: 2,
            stalled_us: Some(1500),
            low_events: 0,
            kills: 0,
        };
        let full = "300 MiB charged, 20 MiB of 1G in swap (512 KiB of zswap); waited 1.5 ms for memory";
        assert_eq!(charged(&group), full);
        group = GroupReport { swap: None, zswap: None, stalled_us: None, kills: 1, ..group };
        assert_eq!(charged(&group), "300 MiB charged; processes killed for want of it: 1");
    }

    #[test]
    fn what_is_not_exact_is_said() {
        let mut report = report();
        report.looked_at = Bytes::mib(8);
        report.compressed = Certainty::Estimated;
        report.huge = None;
        report.major_faults = None;
        report.ledger.shift(PageState::Zero, PageState::SwappedSomewhere, Pages(4));
        let text = describe(&report, Style::PLAIN);
        for expected in [
            "s  swapped, kind unknown",
            "sampled     scaled from 8,192 KiB, chosen at random\n",
            "compressed  estimated from the host's zswap",
            "seen to come back\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("huge"), "{text}");
    }
}
