//! What cannot be is refused with one line that says how to mend it, and changes nothing.

use crate::daemon::{Daemon, IDLE};
use crate::support::Host;

#[test]
fn words_that_cannot_be_are_refused() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    daemon.napa(&[&["create", "web"], &IDLE[..]].concat());
    let state = daemon.state();
    let state = state.to_str().unwrap();
    let other = host.path("other");
    let other = other.to_str().unwrap();
    let before = daemon.list();
    let cases: [(&[&str], &str); 13] = [
        (&["start", "wbe"], "there is no VM \"wbe\" on this host (did you mean \"web\"?)"),
        (&["rm", "nobody"], "there is no VM \"nobody\""),
        (&["start", "../web"], "'../web' is not a VM's name"),
        (&["create", "web"], "there is a VM \"web\" already"),
        (&["create", "b", "--memory", "1000T"], "--memory 1000T is more than a guest can address"),
        (&["create", "b", "--memory", "60T"], "of swap is missing for a limit of 60.0 TiB"),
        (&["create", "b", "--reservation", "1G"], "a reservation of 1G is more than the VM's memory"),
        (&["create", "b", "--restart", "often"], "'often' is not a choice"),
        (&["create", "b", "--api-socket", "s"], "--api-socket is the host's to choose"),
        (&["console", "web"], "VM \"web\" is created: start it with 'napa start web'"),
        (&["balloon", "web"], "VM \"web\" is created: start it"),
        (&["host", "--state", state, "--socket", other], "belongs to another 'napa host', process "),
        (&["host", "--state", other, "--listen", "127.0.0.1:0"], "--tls-cert"),
    ];
    for (words, expected) in cases {
        let (code, output, error) = host.napa(words);
        let is_one_line = error.lines().count() == 1 && output.is_empty();
        assert!(
            code == Some(2) && error.contains(expected) && is_one_line,
            "{words:?}: {code:?} {output}{error}"
        );
    }
    assert_eq!(daemon.list(), before);
}

#[test]
fn a_vm_that_cannot_be_opened_says_why_at_its_start() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    daemon.napa(&["create", "web", "--disk", "path=/no/such"]);
    let (code, _, error) = host.napa(&["start", "web"]);
    assert!(
        error.contains("VM \"web\" ended before it ran: disk /no/such does not exist"),
        "{code:?} {error}"
    );
    assert_eq!(code, Some(1));
}
