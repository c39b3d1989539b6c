//! The page of one VM.

use napa_api::host::{Decided, VmMemoryRow};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::palette::Palette;
use super::plot::Plot;
use super::wrap::wrap;
use super::{decisions, print};
use crate::figures::{percent, short_size, size};
use crate::top::column::gives;
use crate::top::model::Model;

/// The least height of a plot.
const PLOT_LINES_MIN: u16 = 6;
/// Decisions below the plot, with their title.
const DECISION_LINES: u16 = 5;

/// Lines for the reason of the entitlement, and blanks before the second.
const REASON_LINES_MAX: usize = 2;
const INDENT: usize = 8;

/// Draws the VM that is chosen.
pub fn draw(model: &Model, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let name = model.chosen().unwrap_or_default().to_owned();
    let head = match model.chosen_row() {
        Some(row) => facts(row, palette, area.width),
        None => vec![Line::from(vec![
            Span::styled(name.clone(), palette.heading()),
            Span::styled("   does not run any more; Esc goes back", palette.bad()),
        ])],
    };
    let [head_area, rest] = split(area, head.len() as u16);
    print(&head, head_area, buffer);
    let decision_lines = DECISION_LINES.min(rest.height.saturating_sub(PLOT_LINES_MIN));
    let [plot_area, decision_area] = split(rest, rest.height - decision_lines);
    if let Some(history) = model.history() {
        let limit = model.chosen_row().map_or_else(|| history.highest(), |row| row.limit);
        Plot { history, limit, step: model.step(), palette }.draw(plot_area, buffer);
    }
    let own = |decided: &&Decided| decided.vm.as_deref() == Some(name.as_str());
    let time = model.report().time;
    let lines = decisions::lines(model.decisions().filter(own), time, palette, decision_area.as_size());
    print(&lines, decision_area, buffer);
}

/// What is above, of so many lines, and what is left below.
pub fn split(area: Rect, lines: u16) -> [Rect; 2] {
    let lines = lines.min(area.height);
    [Rect { height: lines, ..area }, Rect { y: area.y + lines, height: area.height - lines, ..area }]
}

/// All that the report says about it.
fn facts(row: &VmMemoryRow, palette: Palette, width: u16) -> Vec<Line<'static>> {
    let promised = format!(
        "   limit {}   reserved {}   shares {}   gives memory back: ",
        size(row.limit),
        size(row.reservation),
        row.shares
    );
    let places = format!(
        "in RAM {}, shared {}, swap {}, balloon {}/{}, discarded {}, zero {}",
        short_size(row.resident),
        short_size(row.shared),
        short_size(row.swapped),
        short_size(row.ballooned),
        short_size(row.balloon_target),
        short_size(row.discarded),
        short_size(row.zero)
    );
    let name = Line::from(vec![
        Span::styled(row.name.clone(), palette.heading()),
        Span::raw(promised),
        Span::styled(gives(row.cooperation), palette.cooperation(row.cooperation)),
    ]);
    let entitled = format!("entitled to {}: {}", size(row.entitlement), row.reason);
    let entitled = wrap(&entitled, width.into(), INDENT).into_iter().take(REASON_LINES_MAX);
    let lines = entitled.chain([places, use_of(row)]).map(Line::raw);
    std::iter::once(name).chain(lines).collect()
}

/// What it does, as far as anybody knows.
fn use_of(row: &VmMemoryRow) -> String {
    let mut parts = vec![format!("process {}", short_size(row.pss))];
    parts.extend(row.working_set.map(|bytes| format!("working set {}", short_size(bytes))));
    parts.extend(row.guest_available.map(|bytes| format!("guest says {} free", short_size(bytes))));
    parts.extend(row.pressure.map(|share| format!("PSI {} %", percent(share))));
    parts.push(format!("{:.1} refaults/s", row.refaults));
    parts.join(", ")
}
