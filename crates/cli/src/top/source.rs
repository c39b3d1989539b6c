//! Where reports come from: the host's daemon, asked once or followed.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use napa_api::host::{HostReport, ProblemKind};
use napa_host::client::{Client, ClientError};

use super::events::Events;

/// A daemon that has just started looks at its host within this time.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(10);
const FIRST_LOOK_PERIOD: Duration = Duration::from_millis(200);

/// The last report.
///
/// # Errors
/// The daemon is not there, or gives none.
pub fn report(client: &Client) -> Result<HostReport, ClientError> {
    client.get("/v1/host")
}

/// The last report; of a daemon that has just started, the first one.
///
/// # Errors
/// The daemon is not there, or gives none.
pub fn first_report(client: &Client) -> Result<HostReport, ClientError> {
    let until = Instant::now() + FIRST_LOOK_MAX;
    loop {
        match report(client) {
            Err(ClientError::Refused(problem))
                if problem.kind == ProblemKind::UnknownResource && Instant::now() < until =>
            {
                thread::sleep(FIRST_LOOK_PERIOD);
            }
            answer => return answer,
        }
    }
}

/// Hands every report on as it comes, or why there is none, until `take` has enough. Returns why no more come; the next
/// call may find them again.
pub fn follow(
    client: &Client,
    mut take: impl FnMut(Result<HostReport, String>) -> ControlFlow<()>,
) -> String {
    let mut events = Events::default();
    let ended = client.follow("/v1/events", |piece| events.push(piece).into_iter().try_for_each(&mut take));
    match ended {
        Ok(()) => "the host's daemon has ended".into(),
        Err(error) => error.to_string(),
    }
}
