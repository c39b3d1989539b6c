//! What a decision says about itself.

use std::fmt::Write as _;
use std::time::Duration;

use napa_units::{Bytes, Pages};

use crate::napa::Guest;
use crate::napa::asks::Asked;
use crate::napa::row::Row;
use crate::napa::takes::Taken;
use crate::words::Figure;
use crate::{Cooperation, Offer};

/// What was done, about the host.
pub fn deeds(asked: Asked, taken: Taken, returned: (Bytes, usize)) -> Vec<String> {
    let mut deeds = Vec::new();
    if taken.guests > 0 {
        deeds.push(format!("takes {} from {}", Figure(taken.ordered), guests(taken.guests)));
    }
    if taken.missing > Bytes(0) {
        deeds.push(format!(
            "{} more is wanted, and no guest above its entitlement has anything that can be taken",
            Figure(taken.missing)
        ));
    }
    if asked.guests > 0 {
        deeds.push(format!("asks {} for {}", guests(asked.guests), Figure(asked.ordered)));
    }
    if returned.1 > 0 {
        deeds.push(format!("returns {} to {}", Figure(returned.0), guests(returned.1)));
    }
    deeds
}

fn guests(count: usize) -> String {
    if count == 1 { "1 guest".to_owned() } else { format!("{count} guests") }
}

/// Why an order is cancelled.
pub fn unmet(offer: &Offer, unmet: Duration) -> String {
    let left = Figure(offer.outstanding.bytes());
    format!(
        "cancelled: {left} of it has been outstanding for {} s, and it is not made to fight for it",
        unmet.as_secs()
    )
}

/// What is thought of one guest.
pub fn verdict(row: &Row, guest: &Guest) -> String {
    let mut text = format!(
        "uses {} with the buffer, holds {}, is entitled to {}",
        Figure(row.working_set),
        Figure(row.charge),
        Figure(row.entitled)
    );
    // Writing to a string cannot fail.
    let mut add = |args: std::fmt::Arguments| text.write_fmt(args).expect("a string takes all text");
    if row.beyond() > Bytes(0) {
        add(format_args!(": {} beyond", Figure(row.beyond())));
    }
    match guest.consent.cooperation() {
        Cooperation::Cooperative => {}
        Cooperation::Stuck => add(format_args!("; it did not do what it was asked")),
        Cooperation::Uncooperative => add(format_args!("; it does not do what it is asked")),
    }
    let pause = guest.consent.pause();
    if pause >= Duration::from_mins(1) {
        add(format_args!("; not asked for {} min", pause.as_secs().div_ceil(60)));
    }
    if row.being_taken() > Pages(0) {
        add(format_args!("; the host is taking {}", Figure(row.being_taken().bytes())));
    }
    text
}
