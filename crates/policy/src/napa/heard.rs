//! What a guest said, brought up to date.
//!
//! A guest is asked about its memory every few seconds, and memory moves faster than that. What it gave since it spoke is
//! not there any more, whatever it said, and what it touched since for the first time is in use.

use napa_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

use crate::{GuestHints, GuestObservation};

/// What a guest said last, and how it was then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    last: Option<(GuestHints, Then)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Then {
    given: Pages,
    touched: Bytes,
}

impl Heard {
    /// The guest's words, less what it has given since, or with what it has got back.
    pub fn update(&mut self, guest: &GuestObservation, given: Pages) -> Option<GuestHints> {
        let Some(said) = &guest.hints else {
            self.last = None;
            return None;
        };
        let now = Then { given, touched: Bytes(guest.resident.0.saturating_add(guest.swapped.0)) };
        let then = match &self.last {
            Some((before, then)) if before == said => *then,
            _ => now,
        };
        self.last = Some((said.clone(), then));
        let less = given.bytes().0.saturating_sub(then.given.bytes().0);
        let more = then.given.bytes().0.saturating_sub(given.bytes().0);
        let used = now.touched.0.saturating_sub(then.touched.0);
        let total = |size: Bytes| Bytes(size.0.saturating_sub(less).saturating_add(more));
        let unused = |size: Bytes| Bytes(total(size).0.saturating_sub(used));
        Some(GuestHints {
            total: said.total.map(total),
            available: said.available.map(unused),
            free: said.free.map(unused),
            ..said.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use napa_units::VmId;

    use super::*;

    fn saying(available_mib: u64) -> GuestObservation {
        let hints = GuestHints {
            total: Some(Bytes::mib(900)),
            available: Some(Bytes::mib(available_mib)),
            ..GuestHints::default()
        };
        GuestObservation { hints: Some(hints), ..GuestObservation::untouched(VmId(1), Bytes::gib(1)) }
    }

    #[test]
    fn what_was_given_since_is_not_there_any_more() {
        let mut heard = Heard::default();
        let mut available = |said_mib, given_mib| {
            let given = Pages::covering(Bytes::mib(given_mib));
            let hints = heard.update(&saying(said_mib), given).expect("it speaks");
            // What it uses stays the same.
            assert_eq!(hints.total.unwrap().0 - hints.available.unwrap().0, Bytes::mib(900 - said_mib).0);
            hints.available.unwrap().0 >> 20
        };
        assert_eq!(available(500, 100), 500);
        assert_eq!(available(500, 150), 450);
        assert_eq!(available(500, 0), 600);
        // It has spoken again.
        assert_eq!(available(440, 160), 440);
    }

    #[test]
    fn what_was_touched_since_is_in_use() {
        let mut heard = Heard::default();
        let mut available = |resident_mib| {
            let guest = GuestObservation { resident: Bytes::mib(resident_mib), ..saying(500) };
            let hints = heard.update(&guest, Pages(0)).expect("it speaks");
            assert_eq!(hints.total, Some(Bytes::mib(900)));
            hints.available.unwrap().0 >> 20
        };
        assert_eq!([available(100), available(250), available(50)], [500, 350, 500]);
    }

    #[test]
    fn who_is_silent_is_not_quoted() {
        let mut heard = Heard::default();
        heard.update(&saying(500), Pages(0));
        let silent = GuestObservation { hints: None, ..saying(0) };
        assert_eq!(heard.update(&silent, Pages(0)), None);
    }
}
