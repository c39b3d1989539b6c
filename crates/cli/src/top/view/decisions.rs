//! The last decisions, with their reasons.

use napa_api::host::{Decided, Direction, Time};
use ratatui::layout::Size;
use ratatui::text::{Line, Span};

use super::palette::Palette;
use super::wrap::wrap;
use crate::figures::size;

/// Characters of a VM's name that are shown.
const NAME_MAX: usize = 16;
/// Blanks before what does not fit into a line.
const INDENT: usize = 8;

/// A title, and as many of the newest decisions as there is room for.
pub fn lines<'a>(
    decisions: impl Iterator<Item = &'a Decided>,
    now: Time,
    palette: Palette,
    room: Size,
) -> Vec<Line<'static>> {
    let lines_max = usize::from(room.height);
    let shown: Vec<&Decided> = decisions.take(lines_max.saturating_sub(1)).collect();
    let title = if shown.is_empty() { "nothing was decided so far" } else { "decisions, the newest first" };
    let width = |text: &dyn Fn(&Decided) -> String| shown.iter().map(|one| text(one).chars().count()).max();
    let (names, whats) = (width(&name).unwrap_or(0), width(&|one| one.what.clone()).unwrap_or(0));
    let line = |one: &&Decided| {
        let (name, what, bytes) = (name(one), &one.what, size(one.bytes));
        let (age, way) = (age(now, one.time), way(one.direction));
        let text = format!("{age:>6}  {name:<names$}  {what:<whats$}  {way:<6} {bytes:>9}  {}", one.reason);
        wrap(&text, room.width.into(), INDENT).into_iter().map(Line::raw)
    };
    let title = Line::from(Span::styled(title, palette.heading()));
    std::iter::once(title).chain(shown.iter().flat_map(line)).take(lines_max).collect()
}

fn name(decided: &Decided) -> String {
    decided.vm.as_deref().unwrap_or("host").chars().take(NAME_MAX).collect()
}

/// What is done to the VM's memory.
pub const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Take => "take",
        Direction::Return => "give",
        Direction::Cancel => "cancel",
    }
}

/// How long ago, in the unit that people would choose.
fn age(now: Time, then: Time) -> String {
    let seconds = now.0.saturating_sub(then.0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_the_unit_that_fits() {
        let now = Time(10_000_000);
        for (ago_ms, expected) in [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h")] {
            assert_eq!(age(now, Time(now.0 - ago_ms)), expected);
        }
        assert_eq!(age(now, Time(now.0 + 5000)), "0 s");
    }
}
