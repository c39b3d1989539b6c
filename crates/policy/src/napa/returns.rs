//! What goes back to the guests.
//!
//! Only memory that is free now is returned: what is being taken may never come.

use napa_units::{Bytes, Pages};

use crate::draft::Draft;
use crate::napa::consent::{STEP_MIN, floor};
use crate::napa::row::Row;
use crate::napa::{Guest, Situation};
use crate::words::Figure;
use crate::working_set::used;
use crate::{Level, Offer};

/// Returns memory to guests, those first that lack most for what they use, and returns how much to how many.
///
/// While memory is high, what a guest gave goes back until it has its entitlement, in small steps beyond what it
/// needs. While it is clear, only what it needs goes back.
pub fn give_back(situation: &Situation, rows: &[Row], guests: &[Guest], draft: &mut Draft) -> (Bytes, usize) {
    let mut budget = match situation.level {
        Level::High => situation.free.0.saturating_sub(situation.unit.0.saturating_mul(4)) / 2,
        Level::Clear => situation.free.0.saturating_sub(situation.unit.0 / 4 * 5) / 2,
        Level::Soft | Level::Hard | Level::Low => return (Bytes(0), 0),
    };
    let sum = |offers: &[&Offer]| {
        offers.iter().fold(0_u64, |sum, offer| sum.saturating_add(offer.outstanding.bytes().0))
    };
    let under_way = |row: &Row| sum(&row.offers.gives).saturating_add(sum(&row.offers.brings));
    budget = budget.saturating_sub(rows.iter().fold(0, |sum, row| under_way(row).saturating_add(sum)));
    let mut wishes: Vec<(Wish, usize)> = rows
        .iter()
        .enumerate()
        .filter(|(index, row)| !guests[*index].consent.is_waiting() && under_way(row) == 0)
        .filter_map(|(index, row)| wish(situation.level, row).map(|wish| (wish, index)))
        .collect();
    wishes.sort_by_key(|(wish, index)| (std::cmp::Reverse(wish.need), *index));
    let (mut returned, mut count) = (0, 0);
    for (wish, index) in wishes {
        let pages = wish.pages.min(Pages(budget / 4096));
        if pages < STEP_MIN {
            continue;
        }
        let ordered = draft.order(wish.offer, pages, || reason(situation, &rows[index], wish.need)).bytes().0;
        budget -= ordered;
        returned += ordered;
        count += usize::from(ordered > 0);
    }
    (Bytes(returned), count)
}

/// What one guest should get back.
struct Wish<'a> {
    offer: &'a Offer,
    pages: Pages,
    /// What it lacks for what it uses.
    need: Bytes,
}

fn wish<'a>(level: Level, row: &Row<'a>) -> Option<Wish<'a>> {
    let given = row.given().bytes().0;
    let usable = row.guest.limit.0.saturating_sub(given);
    let (need, may) = (wanted(row).saturating_sub(usable), row.entitled.0.saturating_sub(usable));
    let comfort = if level == Level::High { row.guest.limit.0 / 20 } else { 0 };
    let back = need.max(comfort).min(may);
    let wish = |offer, bytes, need| Wish { offer, pages: Pages(bytes / 4096), need: Bytes(need) };
    if let Some(offer) = row.offers.gives.first().filter(|_| back >= STEP_MIN.bytes().0) {
        return Some(wish(*offer, back, need));
    }
    // What it wants of its swapped memory comes back by itself, one page at a time; with room it comes at once.
    let offer =
        row.offers.brings.first().filter(|_| level == Level::High && row.guest.refaults > Pages(0))?;
    let missing = row.working_set.min(row.entitled).0.saturating_sub(row.charge.0);
    Some(wish(*offer, missing, missing))
}

/// The size that the guest needs: what it uses with the buffer, and what it should be able to give to programs.
fn wanted(row: &Row) -> u64 {
    let floor = floor(row.guest.limit).0;
    let word = row.hints.as_ref().and_then(|hints| used(row.guest, hints)).map_or(0, |used| used.0);
    row.working_set.0.max(word).saturating_add(2 * floor).min(row.guest.limit.0)
}

fn reason(situation: &Situation, row: &Row, need: Bytes) -> String {
    let Situation { level, free, .. } = situation;
    let (free, entitled) = (Figure(*free), Figure(row.entitled));
    if need.0 > 0 {
        format!("returned: it lacks {} for what it uses, memory is {level} with {free} free", Figure(need))
    } else {
        format!("returned: memory is {level} with {free} free, and it is entitled to {entitled}")
    }
}
