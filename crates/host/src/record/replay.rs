//! Decides again what was decided before.

use napa_api::host::Time;
use napa_policy::{Decision, Engine, Policy};
use serde::Serialize;

use super::{ReadError, Reader};

/// Differences that are told; the others are counted.
const TOLD_MAX: usize = 20;

/// What came of deciding again.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replay {
    /// Ticks.
    pub ticks: u64,
    /// Ticks that were decided otherwise.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// A tick that was decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The line of the file, from 1.
    pub line: u64,
    /// When it was.
    pub time: Time,
    /// What is different, in words.
    pub what: Vec<String>,
}

/// Has `policy` decide about all that was seen; `None`: the policy of the record, in the state that it had.
///
/// # Errors
/// The record cannot be read to its end.
pub fn replay(mut reader: Reader, policy: Option<Engine>) -> Result<Replay, ReadError> {
    let mut policy = policy.unwrap_or_else(|| reader.policy().clone());
    let mut replay = Replay::default();
    while let Some(moment) = reader.next() {
        let moment = moment?;
        replay.ticks += 1;
        let decision = policy.decide(&moment.observation);
        if decision == moment.decision {
            continue;
        }
        replay.different += 1;
        if replay.differences.len() < TOLD_MAX {
            let what = differences(&moment.decision, &decision);
            replay.differences.push(Difference { line: reader.line(), time: moment.time, what });
        }
    }
    Ok(replay)
}

/// What is different, in words.
fn differences(then: &Decision, now: &Decision) -> Vec<String> {
    let mut words = Vec::new();
    let mut compare = |what: String, then: String, now: String| {
        if then != now {
            words.push(format!("{what}: {then} then, {now} now"));
        }
    };
    compare("level".into(), then.level.to_string(), now.level.to_string());
    compare("admission".into(), open(then), open(now));
    for decided in &then.guests {
        let Some(again) = now.guests.iter().find(|again| again.guest == decided.guest) else {
            compare(format!("VM {}", decided.guest), "decided about".into(), "forgotten".into());
            continue;
        };
        let vm = decided.guest;
        compare(
            format!("entitlement of VM {vm}"),
            decided.entitlement.to_string(),
            again.entitlement.to_string(),
        );
        compare(
            format!("cooperation of VM {vm}"),
            decided.cooperation.to_string(),
            again.cooperation.to_string(),
        );
        compare(format!("the rest about VM {vm}"), format!("{decided:?}"), format!("{again:?}"));
    }
    let offers = then.grants.iter().chain(&now.grants).map(|grant| grant.offer);
    for offer in offers.collect::<std::collections::BTreeSet<_>>() {
        compare(format!("order to offer {}", offer.0), order(then, offer), order(now, offer));
    }
    compare("reasons".into(), then.reasons.join("; "), now.reasons.join("; "));
    words
}

fn open(decision: &Decision) -> String {
    if decision.admission_open { "open" } else { "closed" }.to_owned()
}

fn order(decision: &Decision, offer: napa_policy::OfferId) -> String {
    let grant = decision.grants.iter().find(|grant| grant.offer == offer);
    grant.map_or_else(|| "none".to_owned(), |grant| format!("{:?}", grant.order))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use napa_policy::{
        Consent, Direction, GuestObservation, HostObservation, Kind, Observation, Offer, OfferId, Price,
        Works,
    };
    use napa_units::{Bytes, Pages, VmId};

    use super::super::Recorder;
    use super::*;

    /// A host whose two guests take turns at growing, with a way to swap each.
    fn observation(tick: u64) -> Observation {
        let guest = |id: u64| {
            let mut guest = GuestObservation::untouched(VmId(id), Bytes::mib(512));
            guest.resident = Bytes::mib(100 + (tick * 37 + id * 150) % 300);
            guest.held = Bytes(guest.resident.0 + 4096 * (tick % 3));
            guest.zero = Bytes(guest.limit.0 - guest.resident.0);
            guest.pressure.some = napa_policy::Fraction::new(0.1 / (1.0 + tick as f64));
            guest
        };
        let guests = vec![guest(1), guest(2)];
        let offer = |guest: &GuestObservation| Offer {
            id: OfferId(guest.id.0),
            guest: Some(guest.id),
            direction: Direction::Take,
            pages_max: Pages::covering(guest.resident),
            price: Price(60),
            delay: Duration::from_millis(500),
            reversible: false,
            consent: Consent::Host,
            works: Works::Amount,
            outstanding: Pages(0),
            taken: Pages(0),
        };
        let host = HostObservation {
            capacity: Bytes::mib(400),
            held: Bytes(guests.iter().map(|guest| guest.held.0).sum()),
            available: Bytes::gib(4),
            swap_total: Bytes::gib(1),
            swap_free: Bytes::gib(1),
            allocation_rate_p99: Bytes::mib(3),
            ..HostObservation::default()
        };
        let offers = guests.iter().map(offer).collect();
        Observation { elapsed: Duration::from_secs(tick.min(1)), host, guests, offers }
    }

    fn record(folder: &std::path::Path, bound: Bytes, ticks: u64) -> std::path::PathBuf {
        let mut recorder = Recorder::new(folder, bound);
        let mut policy = Kind::Napa.start();
        for tick in 0..ticks {
            recorder.prepare(&policy).unwrap();
            let seen = observation(tick);
            let decision = policy.decide(&seen);
            recorder.write(&seen, &decision).unwrap();
        }
        recorder.path()
    }

    #[test]
    fn what_was_recorded_is_decided_again_in_the_same_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = record(folder.path(), Bytes::gib(1), 60);
        let orders: usize =
            Reader::open(&path).unwrap().map(|moment| moment.unwrap().decision.grants.len()).sum();
        assert!(orders > 10, "{orders} orders");
        let again = replay(Reader::open(&path).unwrap(), None).unwrap();
        assert_eq!(again, Replay { ticks: 60, ..Replay::default() });
        let other = replay(Reader::open(&path).unwrap(), Some(Kind::Static.start())).unwrap();
        assert!(other.different > 10 && other.differences.len() <= TOLD_MAX, "{other:?}");
        assert!(other.differences.iter().all(|difference| !difference.what.is_empty()), "{other:?}");
    }

    #[test]
    fn every_file_of_a_record_can_be_replayed_alone_and_all_are_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let bound = Bytes::kib(64);
        record(folder.path(), bound, 200);
        let files: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 4, "{files:?}");
        let size: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(size < bound.0 * 3 / 2, "{size}");
        for file in files {
            let again = replay(Reader::open(&file).unwrap(), None).unwrap();
            assert!(again.ticks > 0 && again.different == 0, "{}: {again:?}", file.display());
        }
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_nonsense_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = record(folder.path(), Bytes::gib(1), 3);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(replay(Reader::open(&path).unwrap(), None).unwrap().ticks, 2);
        std::fs::write(&path, [&whole[..], b"nonsense\n"].concat()).unwrap();
        let error = replay(Reader::open(&path).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("line 5 is no tick"), "{error}");
        for (text, expected) in [
            ("", "is no record"),
            ("{\"version\":2}\n", "it is of version 2"),
            ("{\"version\":1}\n", "is no record"),
            ("x", "is no record"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Reader::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Reader::open(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_said_each_time_and_recovered_from() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("record");
        let mut recorder = Recorder::new(&inner, Bytes::mib(1));
        let mut policy = Kind::Napa.start();
        let seen = observation(0);
        assert!(recorder.prepare(&policy).unwrap_err().to_string().contains("record/ticks.jsonl"));
        recorder.write(&seen, &policy.clone().decide(&seen)).unwrap();
        std::fs::create_dir(&inner).unwrap();
        recorder.prepare(&policy).unwrap();
        let decision = policy.decide(&seen);
        recorder.write(&seen, &decision).unwrap();
        assert_eq!(replay(Reader::open(&recorder.path()).unwrap(), None).unwrap().ticks, 1);
    }
}
