//! The host, in a few lines at the top.

use std::time::Duration;

use napa_api::host::{HostFigures, HostReport};
use napa_units::Bytes;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::palette::{Palette, Part};
use super::wrap::wrap;
use crate::figures::{count, percent, short_size};
use crate::top::model::{Link, Model};

/// Room for what a line is about.
const LABEL: usize = 8;
/// The shortest and longest bar.
const BAR_MIN: u16 = 10;
const BAR_MAX: u16 = 40;

/// The lines about the host that fit in `lines_max`, the most important ones.
pub fn lines(
    model: &Model,
    now: Duration,
    palette: Palette,
    width: u16,
    lines_max: usize,
) -> Vec<Line<'static>> {
    let report = model.report();
    let bars = Bars { palette, width: (width / 5).clamp(BAR_MIN, BAR_MAX) };
    let mut lines = vec![summary(model, palette)];
    lines.extend(link(model, now, palette, width));
    if !report.troubles.is_empty() {
        lines.push(labelled("trouble", Span::styled(report.troubles.join("; "), palette.bad())));
    }
    let left = lines_max.saturating_sub(lines.len());
    let all = [
        bars.budget(&report.host),
        bars.ram(&report.host),
        bars.swap(report),
        labelled("PSI", pressure(report).into()),
    ];
    let why = format!("{:<LABEL$}{}", "why", report.reasons.join("; "));
    let why = wrap(&why, width.into(), LABEL).into_iter().map(Line::raw);
    lines.extend(all.into_iter().chain(why).take(left));
    lines
}

/// The line that is always there.
pub fn summary(model: &Model, palette: Palette) -> Line<'static> {
    let report = model.report();
    let vms = match report.vms.len() {
        1 => "1 VM".to_owned(),
        several => format!("{} VMs", count(several as u64)),
    };
    let admission = if report.admission_open { "VMs may start" } else { "no VM may start" };
    let mut spans = vec![
        Span::styled("napa host", palette.heading()),
        Span::raw("   level "),
        Span::styled(report.level.name(), palette.level(report.level)),
        Span::raw(format!("   policy {}   {vms}   ", report.policy)),
        Span::styled(admission, if report.admission_open { Style::new() } else { palette.bad() }),
    ];
    if model.is_held() {
        spans.push(Span::styled("   held, Space goes on", palette.doubtful()));
    }
    Line::from(spans)
}

/// Why the picture is an old one, if it is.
pub fn link(model: &Model, now: Duration, palette: Palette, width: u16) -> Vec<Line<'static>> {
    let Link::Lost { since, why } = model.link() else { return Vec::new() };
    let seconds = now.saturating_sub(*since).as_secs();
    let text = format!("the last picture, no answer for {seconds} s: {why}");
    wrap(&text, width.into(), LABEL)
        .into_iter()
        .take(2)
        .map(|line| Line::styled(line, palette.bad()))
        .collect()
}

/// Bars of one width.
struct Bars {
    palette: Palette,
    width: u16,
}

impl Bars {
    fn budget(&self, host: &HostFigures) -> Line<'static> {
        let (held, capacity) = (short_size(host.held), short_size(host.capacity));
        let left = match host.capacity.0.checked_sub(host.held.0) {
            Some(left) => format!("{} left", short_size(Bytes(left))),
            None => format!("{} too much", short_size(Bytes(host.held.0 - host.capacity.0))),
        };
        let text = format!("VMs hold {held} of {capacity}, {left}");
        self.bar("budget", &[(Part::Resident, host.held)], host.capacity, text)
    }

    fn ram(&self, host: &HostFigures) -> Line<'static> {
        // Caches that the kernel would give back count as available.
        let other = Bytes(host.ram.0.saturating_sub(host.held.0).saturating_sub(host.available.0));
        let text = format!(
            "VMs {}, others {}, available {} ({} free)",
            short_size(host.held),
            short_size(other),
            short_size(host.available),
            short_size(host.free)
        );
        self.bar("RAM", &[(Part::Resident, host.held), (Part::Shared, other)], host.ram, text)
    }

    fn swap(&self, report: &HostReport) -> Line<'static> {
        let swap = &report.host.swap;
        if swap.total.0 == 0 {
            return labelled("swap", "none".into());
        }
        let mut text = format!("{} of {}", short_size(swap.used), short_size(swap.total));
        text += &format!(", promised {}", short_size(report.guarantees.swap_promised));
        if swap.compressed.0 > 0 {
            text += &format!(", compressed {} in RAM", short_size(swap.compressed));
        }
        self.bar("swap", &[(Part::Swapped, swap.used)], swap.total, text)
    }

    fn bar(&self, label: &str, parts: &[(Part, Bytes)], whole: Bytes, text: String) -> Line<'static> {
        let mut spans = vec![Span::raw(format!("{label:<LABEL$}["))];
        let (mut sum, mut drawn) = (0_u64, 0);
        for (part, bytes) in parts {
            sum = sum.saturating_add(bytes.0);
            let end = cells(sum, whole.0, self.width);
            let area = self.palette.part_symbol(*part).repeat(usize::from(end - drawn));
            spans.push(Span::styled(area, self.palette.part(*part)));
            drawn = end;
        }
        spans.push(Span::raw(".".repeat(usize::from(self.width - drawn))));
        spans.push(Span::raw(format!("] {text}")));
        Line::from(spans)
    }
}

/// So many of `width` cells are full. What is there at all can be seen.
fn cells(part: u64, whole: u64, width: u16) -> u16 {
    if part == 0 || whole == 0 {
        return 0;
    }
    let rounded =
        (u128::from(part.min(whole)) * u128::from(width) + u128::from(whole / 2)) / u128::from(whole);
    (rounded as u16).clamp(1, width)
}

fn pressure(report: &HostReport) -> String {
    let host = &report.host;
    let mut text = format!("some {} %, full {} %", percent(host.pressure_some), percent(host.pressure_full));
    match host.sharing_profit {
        Some(saved) if saved > 0 => text += &format!("  sharing saves {}", short_size(Bytes(saved as u64))),
        Some(lost) if lost < 0 => {
            text += &format!("  sharing costs {}", short_size(Bytes(lost.unsigned_abs())))
        }
        _ => {}
    }
    let (limits, capacity) = (report.guarantees.limits, host.capacity);
    text += &format!("  limits {}", short_size(limits));
    if capacity.0 > 0 {
        text += &format!(" = {:.1} x budget", limits.0 as f64 / capacity.0 as f64);
    }
    text
}

fn labelled(label: &str, text: Span<'static>) -> Line<'static> {
    Line::from(vec![Span::raw(format!("{label:<LABEL$}")), text])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_can_be_seen_and_stays_inside() {
        for (part, whole, expected) in [
            (0, 10, 0),
            (1, 1000, 1),
            (5, 10, 10),
            (10, 10, 20),
            (30, 10, 20),
            (7, 0, 0),
            (u64::MAX, u64::MAX, 20),
        ] {
            assert_eq!(cells(part, whole, 20), expected, "{part} of {whole}");
        }
    }
}
