//! What keys and columns mean.

use ratatui::text::Line;

use super::palette::Palette;
use crate::top::column::Column;

const KEYS: [(&str, &str); 9] = [
    ("Up, Down", "choose a VM; also PageUp, PageDown, Home, End, j, k"),
    ("Enter", "one VM over time; + and - change how much time"),
    ("Left, Right", "sort by the next column; r turns the order round"),
    ("Space", "hold the picture, and go on"),
    ("Esc", "back; from the table, end"),
    ("q, Ctrl-C", "end"),
    ("Ctrl-Z", "back to the shell; fg continues"),
    ("Ctrl-L", "draw everything anew"),
    ("?", "this page"),
];

/// The whole page.
pub fn lines(palette: Palette) -> Vec<Line<'static>> {
    let key = |(key, what): (&str, &str)| Line::raw(format!("  {key:<13} {what}"));
    let column =
        |column: Column| Line::raw(format!("  {}  {:<10} {}", column.key(), column.title(), column.help()));
    let mut lines = vec![Line::styled("Keys", palette.heading())];
    lines.extend(KEYS.map(key));
    lines.push(Line::styled("Columns, with the key that sorts by them", palette.heading()));
    lines.extend(Column::ALL.map(column));
    lines
}
