//! Whether and when a VM is started again that has ended. Pure.

use std::time::Duration;

use napa_api::host::{RestartPolicy, VmExit};

use crate::state::Wanted;

/// The wait before a VM is first started again.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait: long enough that a VM which cannot run costs its host next to nothing.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A VM that ran so long did not end for want of something at its start.
const STEADY: Duration = Duration::from_secs(60);

/// What follows from the end of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It stays ended.
    Rest,
    /// It is started again.
    StartAgain {
        /// After this time.
        wait: Duration,
        /// How often it has been started again then without having run steadily.
        restarts: u32,
    },
}

/// What follows from an end of a VM that ran for `ran` and was started again `restarts` times before.
pub fn after_end(policy: RestartPolicy, wanted: Wanted, exit: &VmExit, ran: Duration, restarts: u32) -> Next {
    let is_failure = exit.code != Some(0);
    let again = match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => is_failure,
        RestartPolicy::Always => true,
    };
    if !again || wanted == Wanted::Stopped {
        return Next::Rest;
    }
    let restarts = if ran >= STEADY { 0 } else { restarts };
    let doubled = WAIT_MIN.saturating_mul(1 << restarts.min(16));
    Next::StartAgain { wait: doubled.min(WAIT_MAX), restarts: restarts.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use napa_api::host::Time;

    use super::*;

    fn check(policy: RestartPolicy, wanted: Wanted, code: Option<u8>, expected: bool) {
        let exit = VmExit { time: Time(0), code, signal: None, reason: String::new() };
        let next = after_end(policy, wanted, &exit, Duration::ZERO, 0);
        assert_eq!(next != Next::Rest, expected, "{policy} {wanted:?} {code:?}");
    }

    #[test]
    fn the_policy_and_the_end_decide() {
        use RestartPolicy::{Always, Never, OnFailure};
        for (policy, code, expected) in [
            (Never, Some(81), false),
            (Never, None, false),
            (OnFailure, Some(0), false),
            (OnFailure, Some(81), true),
            (OnFailure, None, true),
            (Always, Some(0), true),
            (Always, None, true),
        ] {
            check(policy, Wanted::Running, code, expected);
            check(policy, Wanted::Stopped, code, false);
        }
    }

    #[test]
    fn it_waits_longer_each_time_until_it_runs_steadily() {
        let exit = VmExit { time: Time(0), code: Some(1), signal: None, reason: String::new() };
        let next = |ran, restarts| match after_end(
            RestartPolicy::Always,
            Wanted::Running,
            &exit,
            Duration::from_secs(ran),
            restarts,
        ) {
            Next::StartAgain { wait, restarts } => (wait.as_secs(), restarts),
            Next::Rest => panic!("it is started again"),
        };
        let waits: Vec<u64> = (0..8).map(|restarts| next(0, restarts).0).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(next(61, 7), (1, 1));
        assert_eq!(next(0, u32::MAX), (60, u32::MAX));
    }
}
