//! What the host takes without asking.

use napa_units::{Bytes, Pages};

use crate::draft::Draft;
use crate::napa::consent::STEP_MIN;
use crate::napa::row::Row;
use crate::napa::{Guest, Situation};
use crate::words::Figure;
use crate::{Cooperation, Level};

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub ordered: Bytes,
    pub guests: usize,
    /// What nobody could be told to give.
    pub missing: Bytes,
}

/// Takes what is wanted and what is arriving from guests above their entitlement, all at once: first whole from those that do not answer,
/// then from the others, each in proportion to what it has beyond, then from those that are answering right now, who
/// are not asked any more. Nobody falls below its entitlement by it.
///
/// Only if that does not bring memory back to the worst threshold, because offers are missing, the rest of that comes
/// from all guests, down to their reservations.
pub fn take(situation: &Situation, rows: &[Row], guests: &mut [Guest], draft: &mut Draft) -> Taken {
    if situation.wanted.0.saturating_add(situation.arriving.0) == 0 {
        return Taken::default();
    }
    let mut plan = Plan::new(rows);
    let wanted = situation.wanted.0.saturating_add(situation.arriving.0);
    let mut left = wanted;
    let beyond = |index: usize| rows[index].beyond().0;
    for group in [Group::Unanswering, Group::Silent, Group::Answering] {
        let members: Vec<usize> =
            (0..rows.len()).filter(|index| Group::of(&guests[*index]) == group).collect();
        left -= plan.spread(&members, left, &beyond);
    }
    let found = wanted - left;
    let dire = situation.dire().0.saturating_sub(found);
    if situation.level == Level::Low && dire > 0 {
        let everybody: Vec<usize> = (0..rows.len()).collect();
        let above_reservation =
            |index: usize| rows[index].charge.0.saturating_sub(rows[index].guest.reservation.0);
        left = left.saturating_sub(plan.spread(&everybody, dire, &above_reservation));
    }
    let mut taken = Taken { missing: Bytes(left.saturating_sub(situation.arriving.0)), ..Taken::default() };
    for (index, bytes) in plan.bytes.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
        let ordered = order(situation, &rows[index], &mut guests[index], Bytes(*bytes), draft);
        taken.ordered.0 = taken.ordered.0.saturating_add(ordered.0);
        taken.guests += usize::from(ordered.0 > 0);
    }
    taken
}

/// Who is taken from first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Those that do not do what they are asked.
    Unanswering,
    /// Those that nobody asked.
    Silent,
    /// Those that are giving memory themselves.
    Answering,
}

impl Group {
    fn of(guest: &Guest) -> Self {
        match guest.consent.cooperation() {
            Cooperation::Stuck | Cooperation::Uncooperative => Self::Unanswering,
            Cooperation::Cooperative if guest.consent.is_waiting() => Self::Answering,
            Cooperation::Cooperative => Self::Silent,
        }
    }
}

/// How much to take from each guest.
struct Plan {
    bytes: Vec<u64>,
    /// What the offers allow.
    most: Vec<u64>,
}

impl Plan {
    fn new(rows: &[Row]) -> Self {
        let most = |row: &Row| {
            let offered =
                row.offers.takes.iter().fold(0_u64, |sum, offer| sum.saturating_add(offer.pages_max.0));
            Pages(offered).bytes().0
        };
        Self { bytes: vec![0; rows.len()], most: rows.iter().map(most).collect() }
    }

    /// Spreads `wanted` over these guests in proportion to what each may lose in all, those with most first, and in
    /// pieces that are worth the trouble. Returns how much found a guest.
    fn spread(&mut self, members: &[usize], wanted: u64, may_lose: &dyn Fn(usize) -> u64) -> u64 {
        let room = |plan: &Self, index: usize| {
            may_lose(index).min(plan.most[index]).saturating_sub(plan.bytes[index])
        };
        let mut members: Vec<(u64, usize)> =
            members.iter().map(|index| (room(self, *index), *index)).collect();
        members.retain(|(room, _)| *room > 0);
        members.sort_by_key(|(room, index)| (std::cmp::Reverse(*room), *index));
        let sum: u128 = members.iter().map(|(room, _)| u128::from(*room)).sum();
        let mut left = wanted;
        for (room, index) in members {
            let part = (u128::from(wanted) * u128::from(room)).div_ceil(sum) as u64;
            let part = part.max(STEP_MIN.bytes().0).min(room).min(left);
            self.bytes[index] += part;
            left -= part;
        }
        wanted - left
    }
}

/// Orders the cheapest offers of one guest. It is not asked for memory at the same time.
fn order(situation: &Situation, row: &Row, guest: &mut Guest, bytes: Bytes, draft: &mut Draft) -> Bytes {
    let mut left = Pages::covering(bytes);
    for offer in &row.offers.takes {
        let ordered = draft.order(offer, left.min(offer.pages_max), || reason(situation, row, bytes));
        left.0 -= ordered.0;
    }
    if left < Pages::covering(bytes) {
        guest.consent.forget();
        for offer in &row.offers.asks {
            draft.withdraw(offer, || "not asked any more: the host takes its memory itself now".to_owned());
        }
    }
    Bytes(Pages::covering(bytes).bytes().0 - left.bytes().0)
}

fn reason(situation: &Situation, row: &Row, bytes: Bytes) -> String {
    let (taken, beyond, entitled) = (Figure(bytes), Figure(row.beyond()), Figure(row.entitled));
    let Situation { level, free, unit, .. } = situation;
    let (free, unit) = (Figure(*free), Figure(*unit));
    if bytes <= row.beyond() {
        format!(
            "{taken} of the {beyond} beyond its entitlement of {entitled}: memory is {level}, {free} free of {unit}"
        )
    } else {
        format!(
            "{taken}, {beyond} of it beyond its entitlement of {entitled}, since nobody else can give: memory is \
             {level}, {free} free of {unit}"
        )
    }
}
