//! The columns of the table of VMs: what they are called, what they show, how they sort.

use std::cmp::Ordering;

use napa_api::host::{Cooperation, VmMemoryRow};

use crate::figures::{percent, short_size};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Name,
    Limit,
    InRam,
    Shared,
    Ballooned,
    Swapped,
    WorkingSet,
    Entitlement,
    Available,
    Pressure,
    Cooperation,
}

/// What there is to know about a column.
struct Facts {
    title: &'static str,
    /// Room for it, in characters.
    width: u16,
    /// The key that sorts by it.
    key: char,
    /// What it means.
    help: &'static str,
}

impl Column {
    /// From left to right.
    pub const ALL: [Self; 11] = [
        Self::Name,
        Self::Limit,
        Self::InRam,
        Self::Shared,
        Self::Ballooned,
        Self::Swapped,
        Self::WorkingSet,
        Self::Entitlement,
        Self::Available,
        Self::Pressure,
        Self::Cooperation,
    ];

    /// From the one that is left out last to the one that is left out first. The name always stays.
    const BY_IMPORTANCE: [Self; 10] = [
        Self::InRam,
        Self::Limit,
        Self::Entitlement,
        Self::Swapped,
        Self::Ballooned,
        Self::Pressure,
        Self::Shared,
        Self::WorkingSet,
        Self::Cooperation,
        Self::Available,
    ];

    const fn facts(self) -> Facts {
        let (title, width, key, help) = match self {
            Self::Name => ("VM", 8, 'n', "name"),
            Self::Limit => ("LIMIT", 5, 'l', "the most that the guest can have"),
            Self::InRam => ("IN RAM", 6, 'm', "in RAM and its own (resident)"),
            Self::Shared => ("SHARED", 6, 'h', "in RAM, merged with equal pages"),
            Self::Ballooned => ("BALLOON", 7, 'b', "given up to the balloon"),
            Self::Swapped => ("SWAP", 5, 's', "in the host's swap"),
            Self::WorkingSet => ("WORKING", 7, 'w', "what the guest uses, by estimate (working set)"),
            Self::Entitlement => ("ENTITLED", 8, 'e', "what it may hold in RAM now (entitlement)"),
            Self::Available => ("AVAIL", 5, 'a', "free for new programs, in the guest's words"),
            Self::Pressure => ("PSI %", 5, 'p', "time in which a thread of it waits for memory"),
            Self::Cooperation => ("GIVES", 5, 'g', "whether it gives memory back when asked"),
        };
        Facts { title, width, key, help }
    }

    /// What stands above it.
    pub const fn title(self) -> &'static str {
        self.facts().title
    }

    /// Room for it, in characters; the least for the name.
    pub const fn width(self) -> u16 {
        self.facts().width
    }

    /// The key that sorts by it.
    pub const fn key(self) -> char {
        self.facts().key
    }

    /// What it means, in words.
    pub const fn help(self) -> &'static str {
        self.facts().help
    }

    /// The column that a key sorts by.
    pub fn of_key(key: char) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.key() == key)
    }

    /// Whether people look for its largest values first.
    pub const fn is_number(self) -> bool {
        !matches!(self, Self::Name)
    }

    /// What it shows of a VM.
    pub fn text(self, row: &VmMemoryRow) -> String {
        let unknown = || "-".to_owned();
        match self {
            Self::Name => row.name.clone(),
            Self::Limit => short_size(row.limit),
            Self::InRam => short_size(row.resident),
            Self::Shared => short_size(row.shared),
            Self::Ballooned => short_size(row.ballooned),
            Self::Swapped => short_size(row.swapped),
            Self::WorkingSet => row.working_set.map_or_else(unknown, short_size),
            Self::Entitlement => short_size(row.entitlement),
            Self::Available => row.guest_available.map_or_else(unknown, short_size),
            Self::Pressure => row.pressure.map_or_else(unknown, percent),
            Self::Cooperation => gives(row.cooperation).into(),
        }
    }

    /// The order of two VMs, from small to large; what is not known is smaller than all.
    pub fn compare(self, a: &VmMemoryRow, b: &VmMemoryRow) -> Ordering {
        match self {
            Self::Name => a.name.cmp(&b.name),
            Self::Limit => a.limit.cmp(&b.limit),
            Self::InRam => a.resident.cmp(&b.resident),
            Self::Shared => a.shared.cmp(&b.shared),
            Self::Ballooned => a.ballooned.cmp(&b.ballooned),
            Self::Swapped => a.swapped.cmp(&b.swapped),
            Self::WorkingSet => a.working_set.cmp(&b.working_set),
            Self::Entitlement => a.entitlement.cmp(&b.entitlement),
            Self::Available => a.guest_available.cmp(&b.guest_available),
            Self::Pressure => {
                let share = |row: &VmMemoryRow| row.pressure.unwrap_or(-1.0);
                share(a).total_cmp(&share(b))
            }
            Self::Cooperation => trouble(a.cooperation).cmp(&trouble(b.cooperation)),
        }
    }
}

/// Whether a guest gives memory back, in a word.
pub const fn gives(cooperation: Cooperation) -> &'static str {
    match cooperation {
        Cooperation::Cooperative => "yes",
        Cooperation::Stuck => "stuck",
        Cooperation::Uncooperative => "no",
    }
}

/// The larger, the less it does.
const fn trouble(cooperation: Cooperation) -> u8 {
    match cooperation {
        Cooperation::Cooperative => 0,
        Cooperation::Stuck => 1,
        Cooperation::Uncooperative => 2,
    }
}

/// The columns that fit, from left to right, with their widths: those of less importance are left out first. The name
/// takes `name_width` where there is room for it. One blank stands between two columns.
pub fn that_fit(room: u16, name_width: u16) -> Vec<(Column, u16)> {
    let name_min = Column::Name.width();
    let name_wanted = name_width.max(name_min);
    let mut left = room.saturating_sub(name_wanted.min(NAME_KEPT));
    let mut kept = Vec::new();
    for column in Column::BY_IMPORTANCE {
        match left.checked_sub(column.width() + 1) {
            Some(rest) => (left, kept) = (rest, [kept, vec![column]].concat()),
            None => break,
        }
    }
    let others: u16 = kept.iter().map(|column| column.width() + 1).sum();
    let name = room.saturating_sub(others).min(name_wanted);
    let widths = Column::ALL.into_iter().filter(|column| *column == Column::Name || kept.contains(column));
    widths.map(|column| (column, if column == Column::Name { name } else { column.width() })).collect()
}

/// Characters of a name that are worth more than any other column.
const NAME_KEPT: u16 = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_key_and_a_place() {
        for column in Column::ALL {
            assert_eq!(Column::of_key(column.key()), Some(column));
            assert!(column.title().len() <= usize::from(column.width()), "{column:?}");
            assert!(Column::BY_IMPORTANCE.contains(&column) != (column == Column::Name));
        }
        assert_eq!(Column::of_key('x'), None);
    }

    #[test]
    fn columns_are_left_out_in_order_of_importance() {
        for (room, name, expected) in [
            (200, 30, "VM30 LIMIT IN RAM SHARED BALLOON SWAP WORKING ENTITLED AVAIL PSI % GIVES"),
            (80, 9, "VM9 LIMIT IN RAM SHARED BALLOON SWAP WORKING ENTITLED AVAIL PSI % GIVES"),
            (80, 40, "VM11 LIMIT IN RAM SHARED BALLOON SWAP WORKING ENTITLED AVAIL PSI % GIVES"),
            (79, 40, "VM16 LIMIT IN RAM SHARED BALLOON SWAP WORKING ENTITLED PSI % GIVES"),
            (60, 9, "VM9 LIMIT IN RAM SHARED BALLOON SWAP ENTITLED PSI %"),
            (40, 4, "VM8 LIMIT IN RAM SWAP ENTITLED"),
            (20, 12, "VM12 IN RAM"),
            (9, 40, "VM9"),
            (0, 5, "VM0"),
        ] {
            let word = |(column, width): (Column, u16)| match column {
                Column::Name => format!("VM{width}"),
                other => other.title().to_owned(),
            };
            let found: Vec<String> = that_fit(room, name).into_iter().map(word).collect();
            assert_eq!(found.join(" "), expected, "{room}");
        }
    }

    #[test]
    fn what_is_not_known_is_smaller_than_all() {
        let row = |pressure, working_set| VmMemoryRow { pressure, working_set, ..VmMemoryRow::default() };
        let (unknown, zero) = (row(None, None), row(Some(0.0), Some(napa_units::Bytes(0))));
        for column in [Column::Pressure, Column::WorkingSet] {
            assert_eq!(column.compare(&unknown, &zero), Ordering::Less);
        }
    }
}
