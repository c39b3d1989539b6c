//! Where a VM's memory was over time: areas one above the other, and the entitlement as a line.

use std::time::Duration;

use napa_units::Bytes;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::palette::{Palette, Part};
use super::print;
use crate::figures::short_size;
use crate::top::history::{History, Sample};

/// Room for sizes at the left, with the axis.
const LABELS: u16 = 7;
/// Lines below the areas: the time, and what the areas are.
const FOOT_LINES: u16 = 2;
/// A gap of so many columns, or of so long, is no gap yet: a busy host is looked at late.
const GAP_COLUMNS: u32 = 3;
const GAP_TIME: Duration = Duration::from_secs(3);

/// What is plotted.
pub struct Plot<'a> {
    pub history: &'a History,
    /// The top of the plot.
    pub limit: Bytes,
    /// Time in a column.
    pub step: Duration,
    pub palette: Palette,
}

impl Plot<'_> {
    /// Draws it.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let rows = area.height.saturating_sub(FOOT_LINES);
        let columns = area.width.saturating_sub(LABELS);
        if rows == 0 || columns == 0 {
            return;
        }
        for row in 0..rows {
            let label = self.label(row, rows);
            print(&[Line::raw(format!("{label:>5} |"))], Rect { y: area.y + row, height: 1, ..area }, buffer);
        }
        let gap_max = (self.step * GAP_COLUMNS).max(GAP_TIME);
        let samples = self.history.columns(usize::from(columns), self.step, gap_max);
        for (x, sample) in (area.x + LABELS..).zip(samples) {
            let Some(sample) = sample else { continue };
            for row in 0..rows {
                self.cell(&sample, row, rows, &mut buffer[(x, area.y + rows - 1 - row)]);
            }
        }
        let foot = Rect { y: area.y + rows, height: FOOT_LINES, ..area };
        print(&[self.time_axis(columns), self.legend()], foot, buffer);
    }

    /// The size at a line, counted from the top: the limit, its half, nothing.
    fn label(&self, row: u16, rows: u16) -> String {
        match row {
            0 => short_size(self.limit),
            row if row + 1 == rows => "0".into(),
            row if row == rows / 2 && rows > 4 => short_size(Bytes(self.limit.0 / 2)),
            _ => String::new(),
        }
    }

    /// A cell, counted from the bottom: the part that its middle is in, and the line above it.
    fn cell(&self, sample: &Sample, row: u16, rows: u16, cell: &mut ratatui::buffer::Cell) {
        let limit = u128::from(self.limit.0.max(1));
        let middle = limit * (2 * u128::from(row) + 1) / (2 * u128::from(rows));
        if let Some(part) = part_at(sample, middle) {
            cell.set_symbol(self.palette.part_symbol(part)).set_style(self.palette.part(part));
        }
        let line = u128::from(sample.entitlement.0.min(self.limit.0)) * u128::from(rows) / limit;
        if line.min(u128::from(rows) - 1) == u128::from(row) {
            cell.set_symbol("-").set_style(self.palette.heading());
        }
    }

    fn time_axis(&self, columns: u16) -> Line<'static> {
        let seconds = self.step.as_secs() * u64::from(columns);
        let past =
            if seconds < 120 { format!("{seconds} s ago") } else { format!("{} min ago", seconds / 60) };
        let columns = usize::from(columns).saturating_sub(past.len());
        Line::raw(format!("{}{past}{:>columns$}", " ".repeat(usize::from(LABELS)), "now"))
    }

    fn legend(&self) -> Line<'static> {
        let mut spans = vec![Span::raw(" ".repeat(usize::from(LABELS)))];
        for part in Part::ALL {
            spans.push(Span::styled(self.palette.part_symbol(part), self.palette.part(part)));
            spans.push(Span::raw(format!(" {}   ", part.name())));
        }
        spans.push(Span::styled("-", self.palette.heading()));
        spans.push(Span::raw(format!(" entitlement   {} s a column", self.step.as_secs())));
        Line::from(spans)
    }
}

/// The part that lies at this height.
fn part_at(sample: &Sample, height: u128) -> Option<Part> {
    let mut top = 0;
    Part::ALL.into_iter().find(|part| {
        top += u128::from(bytes(sample, *part).0);
        height < top
    })
}

const fn bytes(sample: &Sample, part: Part) -> Bytes {
    match part {
        Part::Resident => sample.resident,
        Part::Shared => sample.shared,
        Part::Swapped => sample.swapped,
        Part::Ballooned => sample.ballooned,
    }
}

#[cfg(test)]
mod tests {
    use napa_api::host::{Time, VmMemoryRow};

    use super::*;
    use crate::top::view::text;

    /// KiB that no host has.
    const MANY: u64 = u64::MAX >> 10;

    fn row(resident: u64, shared: u64, swapped: u64, ballooned: u64, entitlement: u64) -> VmMemoryRow {
        VmMemoryRow {
            resident: Bytes::kib(resident),
            shared: Bytes::kib(shared),
            swapped: Bytes::kib(swapped),
            ballooned: Bytes::kib(ballooned),
            entitlement: Bytes::kib(entitlement),
            ..VmMemoryRow::default()
        }
    }

    #[track_caller]
    fn check(limit: u64, rows: &[(u64, VmMemoryRow)], width: u16, height: u16, expected: &str) {
        let mut history = History::default();
        for (second, row) in rows {
            history.push(Time(second * 1000), row);
        }
        let second = Duration::from_secs(1);
        let palette = Palette { has_colours: false };
        let plot = Plot { history: &history, limit: Bytes::kib(limit), step: second, palette };
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        plot.draw(area, &mut buffer);
        let found = format!("\n{}", text(&buffer));
        assert!(found == expected, "found:{found}END");
    }

    #[test]
    fn areas_stand_one_above_the_other_under_a_line() {
        let samples = [(100, row(200, 100, 0, 100, 480)), (101, row(100, 100, 100, 200, 300))];
        check(
            512,
            &samples,
            34,
            7,
            "
 512K |                         -o
      |                         oo
 256K |                         =-
      |                         #=
    0 |                         ##
       27 s ago                now
       # in RAM   = shared   s swa
",
        );
    }

    #[test]
    fn a_gap_is_seen_and_no_size_leaves_the_plot() {
        let lies = [(100, row(200, 100, 0, 100, 480)), (105, row(MANY, MANY, MANY, MANY, MANY))];
        check(
            512,
            &lies,
            20,
            4,
            "
 512K |       ---- -
    0 |       #### #
       13 s ago  now
       # in RAM   =
",
        );
    }

    #[test]
    fn there_is_a_plot_of_any_size() {
        for (width, height) in [(0, 0), (7, 9), (8, 2), (8, 3), (40, 1)] {
            let area = Rect::new(0, 0, width, height);
            let mut buffer = Buffer::empty(area);
            let mut history = History::default();
            history.push(Time(0), &row(1, 1, 1, 1, 1));
            let second = Duration::from_secs(1);
            let palette = Palette { has_colours: true };
            Plot { history: &history, limit: Bytes(0), step: second, palette }.draw(area, &mut buffer);
        }
    }
}
