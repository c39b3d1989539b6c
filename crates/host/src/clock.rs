//! What time it is, for what is shown and written.

use std::time::{Duration, SystemTime};

use napa_api::host::Time;

/// Now.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time(since.unwrap_or_default().as_millis() as u64)
}

/// The moment so long after now.
pub fn in_future(wait: Duration) -> Time {
    Time(now().0 + wait.as_millis() as u64)
}
