//! A guest's memory as one bar.

use napa_units::{Ledger, PageState, Pages};

use crate::output::{Colour, Style};

/// Cells of the bar.
const CELLS: u64 = 64;
const BLOCK: &str = "█";

/// How a state is shown.
pub struct Look {
    /// Its name for people.
    pub name: &'static str,
    /// What it means, in a few words.
    pub meaning: &'static str,
    letter: &'static str,
    colour: Colour,
}

/// How a state is shown.
pub const fn look(state: PageState) -> Look {
    let (name, meaning, letter, colour) = match state {
        PageState::Resident => ("resident", "in memory, for this VM alone", "#", Colour::Green),
        PageState::Shared => ("shared", "in memory, merged with equal pages", "=", Colour::Cyan),
        PageState::SwappedCompressed => ("swapped, compressed", "in zram or zswap", "z", Colour::Yellow),
        PageState::SwappedDisk => ("swapped, on disk", "in a swap file or partition", "d", Colour::Red),
        PageState::SwappedSomewhere => {
            ("swapped, kind unknown", "the kernel shows this user no more", "s", Colour::Magenta)
        }
        PageState::Discarded => ("discarded", "given back by the guest", "-", Colour::Blue),
        PageState::Zero => ("zero", "never touched, or all zeros", ".", Colour::Grey),
        PageState::Remote => ("remote", "not arrived yet", "r", Colour::Magenta),
    };
    Look { name, meaning, letter, colour }
}

impl Look {
    /// What stands for a page in this state.
    pub fn mark(&self, style: Style) -> String {
        style.coloured(if style.has_colours() { BLOCK } else { self.letter }, self.colour)
    }
}

/// The bar: as many cells for each state as its part of the pages.
pub fn bar(ledger: &Ledger, style: Style) -> String {
    let cells = ledger.scaled_to(Pages(CELLS));
    let cell = |state| {
        let Look { letter, colour, .. } = look(state);
        let count = cells.count(state).0 as usize;
        let mark = if style.has_colours() { BLOCK } else { letter };
        if count == 0 { String::new() } else { style.coloured(&mark.repeat(count), colour) }
    };
    let cells = PageState::ALL.map(cell).concat();
    if style.has_colours() { cells } else { format!("[{cells}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_part_of_the_bar() {
        let mut ledger = Ledger::untouched(Pages(1 << 20));
        ledger.shift(PageState::Zero, PageState::Resident, Pages(1 << 19));
        ledger.shift(PageState::Zero, PageState::SwappedDisk, Pages(1 << 16));
        ledger.shift(PageState::Zero, PageState::Shared, Pages(1));
        let expected = format!("[{}{}{}]", "#".repeat(32), "d".repeat(4), ".".repeat(28));
        assert_eq!(bar(&ledger, Style::PLAIN), expected);
        let coloured = bar(&ledger, Style::COLOURED);
        assert_eq!(coloured.matches(BLOCK).count(), 64);
        assert!(coloured.starts_with(&format!("\x1b[32m{}", BLOCK.repeat(32))), "{coloured}");
    }

    #[test]
    fn no_two_states_look_alike() {
        let mut marks = PageState::ALL.map(|state| look(state).mark(Style::PLAIN)).to_vec();
        marks.sort();
        marks.dedup();
        assert_eq!(marks.len(), PageState::ALL.len());
    }
}
