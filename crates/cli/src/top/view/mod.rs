//! The picture of a model: pure, into a buffer of any size.
//!
//! The host is at the top, the table of VMs or one VM's page in the middle, decisions below it, keys in the last line.
//! On a small screen less important lines and columns are left out.

mod decisions;
mod head;
mod help;
mod palette;
mod plot;
mod table;
mod vm;
mod wrap;

use std::time::Duration;

use napa_api::host::HostReport;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

pub use decisions::way;
pub use palette::Palette;
use vm::split;

use super::model::{Model, Page};

/// Below this height there are no decisions beside the table.
const DECISIONS_HEIGHT_MIN: u16 = 16;

/// Columns of text where nobody says how many there are.
const PLAIN_WIDTH: u16 = 80;

/// What keys do, from long to short.
const FLEET_HINTS: [&str; 3] = [
    "Up/Down choose  Left/Right sort by  r reverse  Enter one VM  ? help  q quit",
    "Enter one VM  ? help  q quit",
    "? help  q quit",
];
const VM_HINTS: [&str; 2] =
    ["Esc back  Up/Down other VM  +/- time  ? help  q quit", "Esc back  ? help  q quit"];
const HELP_HINTS: [&str; 1] = ["Esc back  q quit"];

/// Draws the picture, `now` after the start. Returns how many rows of the table there is room for.
pub fn draw(model: &Model, now: Duration, palette: Palette, area: Rect, buffer: &mut Buffer) -> usize {
    let [body, last] = split(area, area.height.saturating_sub(1));
    let hints: &[&str] = match model.page() {
        _ if model.shows_help() => &HELP_HINTS,
        Page::Fleet => &FLEET_HINTS,
        Page::Vm => &VM_HINTS,
    };
    let hint = hints.iter().find(|hint| hint.len() <= usize::from(area.width)).copied().unwrap_or_default();
    print(&[Line::styled(hint, palette.chosen())], last, buffer);
    match model.page() {
        _ if model.shows_help() => print(&help::lines(palette), body, buffer),
        Page::Fleet => return draw_fleet(model, now, palette, body, buffer),
        Page::Vm => {
            let mut head = vec![head::summary(model, palette)];
            head.extend(head::link(model, now, palette, body.width));
            let [head_area, rest] = split(body, head.len() as u16);
            print(&head, head_area, buffer);
            vm::draw(model, palette, rest, buffer);
        }
    }
    1
}

fn draw_fleet(model: &Model, now: Duration, palette: Palette, area: Rect, buffer: &mut Buffer) -> usize {
    let head = head::lines(model, now, palette, area.width, usize::from(area.height / 3).clamp(1, 7));
    let [head_area, rest] = split(area, head.len() as u16);
    print(&head, head_area, buffer);
    let decision_lines_min = if area.height < DECISIONS_HEIGHT_MIN { 0 } else { area.height / 4 };
    let wanted = u16::try_from(model.rows().len()).unwrap_or(u16::MAX).saturating_add(table::HEAD_LINES);
    let table_lines = match decision_lines_min {
        0 => rest.height,
        lines => wanted.min(rest.height.saturating_sub(lines)),
    };
    let [table_area, decision_area] = split(rest, table_lines);
    let time = model.report().time;
    let size = decision_area.as_size();
    print(&decisions::lines(model.decisions(), time, palette, size), decision_area, buffer);
    table::draw(model, palette, table_area, buffer)
}

/// Writes lines into an area, cut at its margins.
fn print(lines: &[Line<'_>], area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// The lines about the host as text.
pub fn plain_head(report: &HostReport) -> String {
    let model = Model::new(report.clone());
    let lines = head::lines(&model, Duration::ZERO, Palette { has_colours: false }, PLAIN_WIDTH, usize::MAX);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What can be read in a buffer.
#[cfg(test)]
fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content().chunks(width).map(line).collect()
}

#[cfg(test)]
mod tests;
