//! How things look: with the terminal's sixteen colours, or without any.

use napa_api::host::{Cooperation, Level};
use ratatui::style::{Color, Modifier, Style};

/// Whether things are coloured. Bold and reversed text is for all.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    pub has_colours: bool,
}

/// A part of a VM's memory in a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Resident,
    Shared,
    Swapped,
    Ballooned,
}

impl Part {
    /// From the bottom of a plot to its top.
    pub const ALL: [Self; 4] = [Self::Resident, Self::Shared, Self::Swapped, Self::Ballooned];

    /// Stands for it where there are no colours.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Resident => "#",
            Self::Shared => "=",
            Self::Swapped => "s",
            Self::Ballooned => "o",
        }
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resident => "in RAM",
            Self::Shared => "shared",
            Self::Swapped => "swap",
            Self::Ballooned => "balloon",
        }
    }

    const fn colour(self) -> Color {
        match self {
            Self::Resident => Color::Blue,
            Self::Shared => Color::Cyan,
            Self::Swapped => Color::Red,
            Self::Ballooned => Color::DarkGray,
        }
    }
}

impl Palette {
    /// Of what is above others.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of what is chosen.
    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of what should not be.
    pub fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Of what is worth a look.
    pub fn doubtful(self) -> Style {
        self.coloured(Color::Yellow)
    }

    /// Of how scarce memory is.
    pub fn level(self, level: Level) -> Style {
        let style = match level {
            Level::High | Level::Clear => self.coloured(Color::Green),
            Level::Soft => self.coloured(Color::Yellow),
            Level::Hard | Level::Low => self.coloured(Color::Red),
        };
        let style = style.add_modifier(Modifier::BOLD);
        if level == Level::Low { style.add_modifier(Modifier::REVERSED) } else { style }
    }

    /// Of whether a guest gives memory back.
    pub fn cooperation(self, cooperation: Cooperation) -> Style {
        match cooperation {
            Cooperation::Cooperative => Style::new(),
            Cooperation::Stuck | Cooperation::Uncooperative => self.doubtful(),
        }
    }

    /// Of a part of memory: an area in its colour, or of its symbols.
    pub fn part(self, part: Part) -> Style {
        if self.has_colours { Style::new().fg(Color::White).bg(part.colour()) } else { Style::new() }
    }

    /// What fills the area of a part.
    pub const fn part_symbol(self, part: Part) -> &'static str {
        if self.has_colours { " " } else { part.symbol() }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }
}
