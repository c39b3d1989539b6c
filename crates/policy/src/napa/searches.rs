//! Looking for memory that nobody would miss: equal pages, and pages of zeros.

use std::collections::HashMap;

use napa_units::{Bytes, Pages, VmId};

use crate::draft::Draft;
use crate::napa::Situation;
use crate::napa::row::Row;
use crate::words::Figure;
use crate::{Level, Offer};

/// Sets the pace of each search by the level: everything once in 200 s at most while memory is high and a search runs
/// already, in 60 s while it is clear, in 30 s while it is short.
///
/// A pace that is right within a quarter is left alone. With plenty of memory nothing is begun: looking has a price.
pub fn pace(situation: &Situation, rows: &[Row], searches: &[&Offer], draft: &mut Draft) {
    let seconds = match situation.level {
        Level::High => 200,
        Level::Clear => 60,
        Level::Soft | Level::Hard | Level::Low => 30,
    };
    let resident: HashMap<VmId, u64> = rows.iter().map(|row| (row.guest.id, row.guest.resident.0)).collect();
    let everything = rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.guest.resident.0));
    for offer in searches {
        if situation.level == Level::High && offer.outstanding == Pages(0) {
            continue;
        }
        let extent = match offer.guest {
            None => everything,
            Some(id) => resident.get(&id).copied().unwrap_or(0),
        };
        let pace = Pages::covering(Bytes(extent / seconds)).min(offer.pages_max);
        let near = offer.outstanding.0.abs_diff(pace.0) <= pace.0 / 4;
        if !near {
            draft.order(offer, pace, || {
                let extent = Figure(Bytes(extent));
                format!("look through {extent} once in {seconds} s: memory is {}", situation.level)
            });
        }
    }
}
