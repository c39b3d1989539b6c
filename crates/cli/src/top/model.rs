//! What is known, chosen and shown. Nothing here reads a clock, a terminal or a socket.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use napa_api::host::{Decided, HostReport, Time, VmMemoryRow};

use super::column::Column;
use super::history::History;
use super::keys::{Action, Step};

/// Decisions that are kept: an hour of a quiet host, a minute of one with 30 decisions a second.
const DECISIONS_MAX: usize = 2000;
/// Seconds in a column of a plot.
const ZOOMS_S: [u64; 6] = [1, 2, 5, 10, 30, 60];

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Up,
    /// It has not answered since then, counted from the start, for this reason.
    Lost {
        since: Duration,
        why: String,
    },
}

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The host and all VMs.
    Fleet,
    /// The VM that is chosen.
    Vm,
}

/// How the VMs are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub column: Column,
    /// From large to small.
    pub descending: bool,
}

/// What the shell has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    Quit,
    Suspend,
    Redraw,
}

/// All that the picture is made of.
#[derive(Debug)]
pub struct Model {
    /// The report that is shown.
    report: HostReport,
    /// The time of the last report, shown or not.
    seen: Time,
    /// When the last answer came, counted from the start.
    answered_at: Duration,
    link: Link,
    /// The VMs of the report as they are sorted.
    order: Vec<usize>,
    sort: Sort,
    /// The VM that is chosen. `None`: nobody has chosen, and the first row is.
    chosen: Option<String>,
    /// The row that is chosen.
    row: usize,
    page: Page,
    shows_help: bool,
    is_held: bool,
    zoom: usize,
    histories: HashMap<String, History>,
    decisions: VecDeque<Decided>,
    rows_shown: usize,
}

impl Model {
    /// Starts with a first report.
    pub fn new(first: HostReport) -> Self {
        let mut model = Self {
            report: first.clone(),
            seen: first.time,
            answered_at: Duration::ZERO,
            link: Link::Up,
            order: Vec::new(),
            sort: Sort { column: Column::InRam, descending: true },
            chosen: None,
            row: 0,
            page: Page::Fleet,
            shows_help: false,
            is_held: false,
            zoom: 0,
            histories: HashMap::new(),
            decisions: VecDeque::new(),
            rows_shown: 1,
        };
        model.remember(&first);
        model.show(first);
        model
    }

    /// Takes a report, `now` after the start.
    pub fn answered(&mut self, report: HostReport, now: Duration) {
        self.link = Link::Up;
        self.answered_at = now;
        // The daemon gives the same one until it has looked again.
        if report.time != self.seen {
            self.seen = report.time;
            self.remember(&report);
        }
        if !self.is_held {
            self.show(report);
        }
    }

    /// Keeps the last picture: there was no answer.
    pub fn failed(&mut self, why: String) {
        self.link = Link::Lost { since: self.answered_at, why };
    }

    /// How long there has been no answer, `now` after the start.
    pub const fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.answered_at)
    }

    /// So many rows of the table can be seen: what a page up or down is.
    pub fn drawn(&mut self, rows_shown: usize) {
        self.rows_shown = rows_shown.max(1);
    }

    /// Does what a key asks for.
    pub fn act(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Back => return self.back(),
            Action::Help => self.shows_help = !self.shows_help,
            Action::Open => self.open(),
            Action::Choose(step) => self.choose(step),
            Action::SortBy(column) => self.sort_by(column),
            Action::SortRight => self.sort_by(self.neighbour(1)),
            Action::SortLeft => self.sort_by(self.neighbour(Column::ALL.len() - 1)),
            Action::Reverse => {
                self.sort.descending = !self.sort.descending;
                self.arrange();
            }
            Action::ZoomOut => self.zoom = (self.zoom + 1).min(ZOOMS_S.len() - 1),
            Action::ZoomIn => self.zoom = self.zoom.saturating_sub(1),
            Action::Hold => self.is_held = !self.is_held,
        }
        Effect::Nothing
    }

    /// The last report.
    pub const fn report(&self) -> &HostReport {
        &self.report
    }

    pub const fn link(&self) -> &Link {
        &self.link
    }

    pub const fn sort(&self) -> Sort {
        self.sort
    }

    pub const fn page(&self) -> Page {
        self.page
    }

    pub const fn shows_help(&self) -> bool {
        self.shows_help
    }

    /// Whether the picture is kept as it is.
    pub const fn is_held(&self) -> bool {
        self.is_held
    }

    /// The VMs as they are sorted.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &VmMemoryRow> {
        self.order.iter().map(|index| &self.report.vms[*index])
    }

    /// The row that is chosen.
    pub const fn row(&self) -> usize {
        self.row
    }

    /// The name of the VM that is chosen.
    pub fn chosen(&self) -> Option<&str> {
        let first = || Some(self.report.vms[*self.order.first()?].name.as_str());
        self.chosen.as_deref().or_else(first)
    }

    /// The row of the VM that is chosen, while it runs.
    pub fn chosen_row(&self) -> Option<&VmMemoryRow> {
        let name = self.chosen()?;
        self.rows().nth(self.row).filter(|row| row.name == name)
    }

    /// What the chosen VM had over time.
    pub fn history(&self) -> Option<&History> {
        self.histories.get(self.chosen()?)
    }

    /// Time in a column of a plot.
    pub const fn step(&self) -> Duration {
        Duration::from_secs(ZOOMS_S[self.zoom])
    }

    /// The decisions that are kept, from new to old.
    pub fn decisions(&self) -> impl Iterator<Item = &Decided> {
        self.decisions.iter().rev()
    }

    fn back(&mut self) -> Effect {
        if self.shows_help {
            self.shows_help = false;
        } else if self.page == Page::Vm {
            self.page = Page::Fleet;
            self.arrange();
        } else {
            return Effect::Quit;
        }
        Effect::Nothing
    }

    fn open(&mut self) {
        if self.shows_help {
            self.shows_help = false;
        } else if let Some(name) = self.chosen().map(str::to_owned) {
            (self.chosen, self.page) = (Some(name), Page::Vm);
        }
    }

    fn choose(&mut self, step: Step) {
        let last = self.order.len().saturating_sub(1);
        self.row = match step {
            Step::Up => self.row.saturating_sub(1),
            Step::Down => self.row + 1,
            Step::PageUp => self.row.saturating_sub(self.rows_shown),
            Step::PageDown => self.row + self.rows_shown,
            Step::First => 0,
            Step::Last => last,
        }
        .min(last);
        let is_first = step == Step::First && self.page == Page::Fleet;
        self.chosen = self.name_at(self.row).filter(|_| !is_first);
    }

    fn name_at(&self, row: usize) -> Option<String> {
        self.rows().nth(row).map(|row| row.name.clone())
    }

    /// The column so many places to the right of the one that sorts.
    fn neighbour(&self, places: usize) -> Column {
        let place = Column::ALL.iter().position(|column| *column == self.sort.column).unwrap_or(0);
        Column::ALL[(place + places) % Column::ALL.len()]
    }

    /// A second time turns the order round.
    fn sort_by(&mut self, column: Column) {
        let again = self.sort.column == column;
        let descending = if again { !self.sort.descending } else { column.is_number() };
        self.sort = Sort { column, descending };
        self.arrange();
    }

    fn remember(&mut self, report: &HostReport) {
        let chosen = self.chosen.clone();
        let names: HashSet<&str> = report.vms.iter().map(|row| row.name.as_str()).collect();
        self.histories.retain(|name, _| names.contains(name.as_str()) || Some(name) == chosen.as_ref());
        for row in &report.vms {
            match self.histories.get_mut(&row.name) {
                Some(history) => history.push(report.time, row),
                None => self.histories.entry(row.name.clone()).or_default().push(report.time, row),
            }
        }
        self.decisions.extend(report.decisions.iter().cloned());
        let excess = self.decisions.len().saturating_sub(DECISIONS_MAX);
        self.decisions.drain(..excess);
    }

    fn show(&mut self, report: HostReport) {
        self.report = report;
        self.arrange();
    }

    /// Sorts the VMs, and finds the chosen one again. Where it is gone, its place in the table is chosen.
    fn arrange(&mut self) {
        let (rows, sort) = (&self.report.vms, self.sort);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&rows[*a], &rows[*b]);
            let by_column = sort.column.compare(a, b);
            let by_column = if sort.descending { by_column.reverse() } else { by_column };
            by_column.then_with(|| a.name.cmp(&b.name))
        });
        self.order = order;
        let last = self.order.len().saturating_sub(1);
        let Some(name) = &self.chosen else {
            self.row = 0;
            return;
        };
        let place = self.rows().position(|row| row.name == *name);
        match place {
            Some(row) => self.row = row,
            // The page of a VM that has ended keeps its name.
            None if self.page == Page::Vm => self.row = self.row.min(last),
            None => {
                self.row = self.row.min(last);
                self.chosen = self.name_at(self.row);
            }
        }
    }
}

#[cfg(test)]
mod tests;
