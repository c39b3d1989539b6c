//! Whom to ask for memory, and for how much.

use napa_units::{Bytes, Pages};

use crate::draft::Draft;
use crate::napa::consent::{STEP_MIN, floor};
use crate::napa::row::Row;
use crate::napa::{Guest, Situation};
use crate::words::Figure;
use crate::working_set::used;
use crate::{Cooperation, GuestHints, Offer};

/// Of what a guest can spare, at least this part is taken to be in RAM: the rest was never touched, and to give it
/// brings the host nothing.
const YIELD_MIN: f64 = 0.05;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub ordered: Bytes,
    pub guests: usize,
    /// What is sure to come within a second: asked of guests that have shown that they give it.
    pub expected: Bytes,
}

/// Asks the guests furthest above their entitlement until what they may give covers what is wanted. While there is
/// enough, they are asked only for what they have no use for, and entitlements do not matter.
///
/// Nobody is asked who is being swapped, who was asked before and has not answered, who has less to spare than the
/// floor, or who does not say what it can spare.
pub fn ask(situation: &Situation, rows: &[Row], guests: &mut [Guest], draft: &mut Draft) -> Asked {
    let outstanding = |row: &Row| {
        row.offers.asks.iter().map(|offer| offer.outstanding.bytes().0).fold(0, u64::saturating_add)
    };
    let under_way = rows.iter().map(outstanding).fold(0, u64::saturating_add);
    let mut wanted = situation.to_ask.0.saturating_sub(under_way);
    let mut order: Vec<usize> =
        (0..rows.len()).filter(|index| rows[*index].beyond() >= STEP_MIN.bytes()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(above(&rows[*index])));
    let mut asked = Asked::default();
    for index in order {
        if wanted == 0 {
            break;
        }
        let (row, guest) = (&rows[index], &mut guests[index]);
        let Some(question) = question(situation, row, guest, Bytes(wanted)) else { continue };
        let pages = draft.order(question.offer, question.pages, || reason(situation, row, question.pages));
        if pages > Pages(0) {
            let gain = (pages.bytes().0 as f64 * question.in_ram) as u64;
            asked.ordered.0 = asked.ordered.0.saturating_add(pages.bytes().0);
            asked.guests += 1;
            let sure = if guest.consent.is_proven() { gain } else { 0 };
            asked.expected.0 = asked.expected.0.saturating_add(sure);
            guest.consent.asked(question.offer, pages);
            wanted = wanted.saturating_sub(gain);
        }
    }
    asked
}

/// What to ask a guest for.
struct Question<'a> {
    offer: &'a Offer,
    pages: Pages,
    /// The part of it that is in RAM.
    in_ram: f64,
}

/// How far above its entitlement a guest is, against its weight: in thousandths of its limit and shares.
fn above(row: &Row) -> u128 {
    let weight = u128::from(row.guest.limit.0.max(1)) * u128::from(row.guest.shares.0.max(1));
    (u128::from(row.beyond().0) << 40) / weight
}

/// What to ask a guest for, if it may be asked at all.
fn question<'a>(situation: &Situation, row: &Row<'a>, guest: &Guest, wanted: Bytes) -> Option<Question<'a>> {
    let consent = &guest.consent;
    let hints = row.hints.as_ref()?;
    let busy = consent.is_waiting() || !consent.pause().is_zero() || row.being_taken() > Pages(0);
    let offer = *row.offers.asks.iter().find(|offer| offer.pages_max >= STEP_MIN)?;
    let available = hints.available?.0;
    // While there is enough, entitlements and caches are left alone: what it has no use for at all is asked for.
    let enough = situation.has_enough();
    let spared = if enough { hints.free?.0.min(available) } else { available };
    let spare = spared.checked_sub(floor(row.guest.limit).0)?;
    let unused = row.charge.0.saturating_sub(used(row.guest, hints)?.0);
    let in_ram = (unused as f64 / available.max(1) as f64).clamp(YIELD_MIN, 1.0);
    let may = if enough { unused } else { unused.min(row.beyond().0) };
    if busy || may < STEP_MIN.bytes().0 {
        return None;
    }
    let gain = may.min(wanted.0);
    // A guest that failed before shows with the smallest order that it answers again.
    let step = match consent.cooperation() {
        Cooperation::Cooperative => consent.step(row.guest.limit),
        Cooperation::Stuck | Cooperation::Uncooperative => STEP_MIN,
    };
    let pages = Pages((gain as f64 / in_ram) as u64 / 4096).min(Pages(spare / 4096)).min(step);
    (pages >= STEP_MIN).then_some(Question { offer, pages, in_ram })
}

fn reason(situation: &Situation, row: &Row, pages: Pages) -> String {
    let (pages, level, free) = (Figure(pages.bytes()), situation.level, Figure(situation.free));
    let said =
        |of: fn(&GuestHints) -> Option<Bytes>| Figure(row.hints.as_ref().and_then(of).unwrap_or_default());
    if situation.has_enough() {
        let unused = said(|hints| hints.free);
        format!(
            "asked for {pages} of the {unused} that it has no use for: memory is {level} with {free} free"
        )
    } else {
        let (beyond, entitled, spare) =
            (Figure(row.beyond()), Figure(row.entitled), said(|hints| hints.available));
        format!(
            "asked for {pages}: memory is {level} with {free} free, it has {beyond} beyond its entitlement of {entitled} \
             and says that it could spare {spare}"
        )
    }
}
