//! The table of VMs.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use napa_api::host::VmMemoryRow;

use super::palette::Palette;
use super::print;
use crate::figures::count;
use crate::top::column::{self, Column};
use crate::top::model::Model;

/// Lines above the rows: what there is, and the titles of columns.
pub const HEAD_LINES: u16 = 2;
/// A VM that waits for memory for more than this share of time is in trouble.
const PRESSURE_BAD: f64 = 0.1;

/// Draws the table; returns how many rows there is room for.
pub fn draw(model: &Model, palette: Palette, area: Rect, buffer: &mut Buffer) -> usize {
    let room = usize::from(area.height.saturating_sub(HEAD_LINES));
    let first = first_row(model.row(), model.rows().len(), room);
    let longest = model.rows().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let columns = column::that_fit(area.width, u16::try_from(longest).unwrap_or(u16::MAX));
    let mut lines = vec![title(model, first, room, palette)];
    if model.rows().len() > 0 {
        lines.push(titles(model, &columns, palette));
    }
    for (index, row) in model.rows().enumerate().skip(first).take(room) {
        let line = cells(row, &columns, palette);
        let line = if index == model.row() { pad(line, area.width).style(palette.chosen()) } else { line };
        lines.push(line);
    }
    print(&lines, area, buffer);
    room
}

/// The first row that is seen: the chosen one is in the middle, where the ends of the table allow it.
fn first_row(chosen: usize, rows: usize, room: usize) -> usize {
    chosen.saturating_sub(room / 2).min(rows.saturating_sub(room))
}

fn title(model: &Model, first: usize, room: usize, palette: Palette) -> Line<'static> {
    let rows = model.rows().len();
    let sort = model.sort();
    let direction = match (sort.column.is_number(), sort.descending) {
        (true, true) => "largest first",
        (true, false) => "smallest first",
        (false, true) => "backwards",
        (false, false) => "in order",
    };
    let column = if sort.column.is_number() { sort.column.title() } else { "name" };
    let what = match rows {
        0 => return Line::styled("no VM runs", palette.heading()),
        rows if rows > room => {
            let (from, to) = (count(first as u64 + 1), count((first + room) as u64));
            format!("VMs {from} to {to} of {}", count(rows as u64))
        }
        _ => "VMs".into(),
    };
    Line::styled(format!("{what} by {column}, {direction}"), palette.heading())
}

fn titles(model: &Model, columns: &[(Column, u16)], palette: Palette) -> Line<'static> {
    let title = |column: Column| {
        let style = if column == model.sort().column { palette.chosen() } else { palette.heading() };
        (column.title().to_owned(), style)
    };
    line(columns, title)
}

fn cells(row: &VmMemoryRow, columns: &[(Column, u16)], palette: Palette) -> Line<'static> {
    let cell = |column: Column| {
        let style = match column {
            Column::Cooperation => palette.cooperation(row.cooperation),
            Column::Pressure if row.pressure.is_some_and(|share| share > PRESSURE_BAD) => palette.bad(),
            Column::Swapped if row.swapped.0 > 0 => palette.doubtful(),
            _ => Style::new(),
        };
        (column.text(row), style)
    };
    line(columns, cell)
}

/// Cells in their columns: the name to the left, all others to the right.
fn line(columns: &[(Column, u16)], cell: impl Fn(Column) -> (String, Style)) -> Line<'static> {
    let mut spans = Vec::new();
    for (column, width) in columns {
        let (text, style) = cell(*column);
        let text: String = text.chars().take(usize::from(*width)).collect();
        let blanks = " ".repeat(usize::from(*width) - text.chars().count());
        let text = Span::styled(text, style);
        match column {
            Column::Name => spans.extend([text, Span::raw(blanks)]),
            _ => spans.extend([Span::raw(" "), Span::raw(blanks), text]),
        }
    }
    Line::from(spans)
}

/// A line that reaches to the margin.
fn pad(mut line: Line<'static>, width: u16) -> Line<'static> {
    let blanks = usize::from(width).saturating_sub(line.width());
    line.push_span(" ".repeat(blanks));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_row_is_seen() {
        for (chosen, rows, room, expected) in [
            (0, 5, 10, 0),
            (4, 5, 10, 0),
            (4, 20, 10, 0),
            (6, 20, 10, 1),
            (19, 20, 10, 10),
            (3, 5, 0, 3),
            (0, 0, 5, 0),
        ] {
            let first = first_row(chosen, rows, room);
            assert_eq!(first, expected, "{chosen} of {rows} in {room}");
        }
    }
}
