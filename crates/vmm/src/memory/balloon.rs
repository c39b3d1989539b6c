//! What is asked of the balloon.

use std::sync::Arc;
use std::time::Duration;

use napa_api::control::{BalloonReport, HintReport, RpcError, code};
use napa_devices::balloon::{Balloon, BalloonError};
use napa_units::{Bytes, Pages};

use super::Subject;

/// How long the guest may take for statistics: a guest whose vCPUs run answers within milliseconds.
const STATISTICS_BOUND: Duration = Duration::from_secs(1);
/// How long it may take to name its free pages; what it has named by then counts.
const HINT_BOUND: Duration = Duration::from_secs(5);

/// The balloon as it is, after the guest was asked to give up `target`.
pub fn set_target(subject: &Subject, target: Option<Bytes>) -> Result<BalloonReport, RpcError> {
    let balloon = balloon_of(subject)?;
    if let Some(target) = target {
        balloon.set_target(target, subject.pages.count().bytes()).map_err(refusal)?;
    }
    Ok(report(subject, balloon))
}

/// What the balloon says, and the size that the guest has now.
pub fn report(subject: &Subject, balloon: &Balloon) -> BalloonReport {
    BalloonReport { size: subject.pages.count().bytes(), ..balloon.report() }
}

/// The balloon as it is, with fresh statistics if the guest gives any.
pub fn with_statistics(subject: &Subject) -> Result<BalloonReport, RpcError> {
    let balloon = balloon_of(subject)?;
    balloon.refresh_statistics(STATISTICS_BOUND);
    Ok(report(subject, balloon))
}

/// What the guest says now that it uses: all its memory but what new programs could have, and what it has given up.
/// `None`: it says nothing.
pub fn used_by_guest(subject: &Subject) -> Option<Bytes> {
    let given_up = balloon_of(subject).ok()?.counted_as_used();
    let statistics = with_statistics(subject).ok()?.statistics?;
    let is_fresh = u128::from(statistics.age_ms) <= STATISTICS_BOUND.as_millis();
    let used = statistics.total?.0.checked_sub(statistics.available?.0)?;
    is_fresh.then_some(Bytes(used.saturating_sub(given_up.0)))
}

/// What the guest calls free.
pub fn hint(subject: Arc<Subject>) -> Result<HintReport, RpcError> {
    let (balloon, size) = (Arc::clone(balloon_of(&subject)?), subject.pages.count().bytes());
    // The machine may end meanwhile.
    drop(subject);
    let hints = balloon.hint(HINT_BOUND).map_err(refusal)?;
    Ok(HintReport { size, hinted: Pages(hints.pages.count()).bytes(), is_complete: hints.is_complete })
}

fn balloon_of(subject: &Subject) -> Result<&Arc<Balloon>, RpcError> {
    let missing =
        || RpcError::new(code::WRONG_STATE, "the VM has no balloon: it was started with --balloon off");
    subject.balloon.as_ref().ok_or_else(missing)
}

fn refusal(error: BalloonError) -> RpcError {
    let code = match error {
        BalloonError::TooLarge { .. } | BalloonError::Unaligned(_) => code::INVALID_PARAMS,
        _ => code::WRONG_STATE,
    };
    RpcError::new(code, error.to_string())
}
