//! `napa top` on a daemon with a VM.

use napa_api::host::HostReport;
use napa_units::Bytes;

use crate::daemon::{Daemon, IDLE};
use crate::support::{Host, wait_until};

#[test]
fn the_vms_that_run_have_a_row() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    daemon.create("web", &IDLE);
    let row = |text: String| text.lines().find(|line| line.starts_with("web ")).map(str::to_owned);
    wait_until("a row", || row(daemon.napa(&["top", "--once"])).is_some_and(|row| row.contains(" 32M ")));
    let report: HostReport = serde_json::from_str(&daemon.napa(&["top", "--json"])).unwrap();
    assert_eq!((report.vms[0].name.as_str(), report.vms[0].limit), ("web", Bytes::mib(32)));
    daemon.napa(&["kill", "web"]);
    wait_until("no row", || row(daemon.napa(&["top"])).is_none());
}
