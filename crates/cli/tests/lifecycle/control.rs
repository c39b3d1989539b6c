//! The control socket under clients that know the rules, and others.

use serde_json::{Value, json};

use crate::client::Client;
use crate::machine_code;
use crate::support::Host;

const PARSE: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const WRONG_STATE: i64 = -32000;

/// The error's code; its message is one line.
fn code(answer: &Value) -> i64 {
    let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(message.lines().count(), 1, "{answer}");
    answer["error"]["code"].as_i64().unwrap()
}

#[test]
fn a_line_that_is_no_request_is_refused_and_the_next_one_is_served() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle", "--name", "vm"]);
    vm.wait_line("READY ");
    let mut client = Client::new(&host.socket("vm"));
    let long = [vec![b'x'; 70_000], vec![b'\n']].concat();
    let lines: [(&[u8], i64); 8] = [
        (b"garbage\n", PARSE),
        (b"\xff\xfe\x00\n", PARSE),
        (b"[]\n", INVALID_REQUEST),
        (b"{\"id\":1,\"method\":\"status\"}\n", INVALID_REQUEST),
        (b"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"status\"}\n", INVALID_REQUEST),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"explode\"}\n", METHOD_NOT_FOUND),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pause\",\"params\":{\"now\":true}}\n", INVALID_PARAMS),
        (&long, INVALID_REQUEST),
    ];
    for (line, expected) in lines {
        client.send(line);
        let answer = client.answer();
        assert_eq!(code(&answer), expected, "{answer}");
        assert_eq!(client.state("status"), "running");
    }
    // A notification gets no answer, even if there is no such method.
    client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"explode\"}\n");
    assert_eq!(client.state("status"), "running");
    client.ask("stop", &json!({ "timeout_s": 86_401 }));
    assert_eq!(code(&client.answer()), INVALID_PARAMS);
    assert_eq!(client.state("stop"), "stopping");
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn what_the_state_forbids_is_refused() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("stubborn", &machine_code::stubborn());
    let mut vm = host.run(&["--kernel", &kernel, "--name", "vm"]);
    vm.wait_line("R");
    let mut client = Client::new(&host.socket("vm"));
    for (method, state) in
        [("resume", "running"), ("pause", "paused"), ("pause", "paused"), ("resume", "running")]
    {
        assert_eq!(client.state(method), state, "{method}");
    }
    assert_eq!(client.state("stop"), "stopping");
    for method in ["pause", "resume"] {
        assert_eq!(code(&client.call(method)), WRONG_STATE, "{method}");
    }
    assert_eq!(client.state("status"), "stopping");
    assert_eq!(client.state("stop"), "stopping", "a stop may be asked for again");
    assert_eq!(client.state("kill"), "stopping");
    assert_eq!(vm.end().code, Some(83));
}

#[test]
fn two_clients_at_once_get_their_own_answers() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle", "--name", "vm"]);
    vm.wait_line("READY ");
    let (mut one, mut other) = (Client::new(&host.socket("vm")), Client::new(&host.socket("vm")));
    other.ask("status", &json!({}));
    assert_eq!(other.answer()["id"], 1);
    for _ in 0..50 {
        let (first, second) = (one.ask("pause", &json!({})), other.ask("resume", &json!({})));
        assert_eq!(one.answer()["id"], first);
        assert_eq!(other.answer()["id"], second);
    }
    assert_eq!(one.state("resume"), "running");
    assert_eq!(other.state("stop"), "stopping");
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn a_client_that_vanishes_takes_nothing_along() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle", "--name", "vm"]);
    vm.wait_line("READY ");
    for _ in 0..20 {
        Client::new(&host.socket("vm")).send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"meth");
        let mut hasty = Client::new(&host.socket("vm"));
        hasty.ask("pause", &json!({}));
        drop(hasty);
        // The next client gets its own answer, not that to the one before.
        let mut client = Client::new(&host.socket("vm"));
        assert_eq!(client.state("resume"), "running");
    }
    let mut deaf = Client::new(&host.socket("vm"));
    for _ in 0..2000 {
        deaf.ask("status", &json!({}));
    }
    drop(deaf);
    assert_eq!(Client::new(&host.socket("vm")).state("stop"), "stopping");
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn the_verbs_say_what_they_did() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle", "--name", "vm"]);
    vm.wait_line("READY ");
    let (code, output, _) = host.napa(&["pause", "vm"]);
    assert_eq!((code, output.as_str()), (Some(0), "vm is paused"));
    assert!(host.napa(&["status", "vm"]).1.contains("paused"));
    assert_eq!(host.napa(&["resume", "vm"]).1, "vm is running");
    assert_eq!(host.napa(&["stop", "vm"]).1, "vm has ended");
    assert_eq!(vm.end().code, Some(0));
    assert_eq!(host.napa(&["status", "vm"]).0, Some(2));
}
