//! Bad input: each has its own problem, which says how to mend it.

use napa_api::host::ProblemKind;
use serde_json::{Value, json};

use crate::support::{Answer, Api};

fn check(answer: &Answer, kind: ProblemKind, words: &str) {
    let problem = answer.problem();
    assert!(problem.kind == kind && problem.detail.contains(words), "{problem:?}");
}

fn vm(name: &str) -> Value {
    json!({ "config": { "name": name, "memory": "32M" } })
}

#[test]
fn bodies_of_a_wrong_shape_are_refused_with_the_place() {
    let api = Api::new();
    let post = |body: &str| api.send("POST", "/v1/vms", "application/json", body.as_bytes());
    for (body, kind, words) in [
        ("", ProblemKind::BadRequest, "EOF"),
        ("{", ProblemKind::BadRequest, "EOF"),
        ("[]", ProblemKind::BadRequest, ""),
        ("{}", ProblemKind::BadRequest, "config"),
        (r#"{"config": {"name": "a", "memory": "1.5G"}}"#, ProblemKind::BadRequest, "config.memory"),
        (r#"{"config": {"name": "a", "memroy": 1}}"#, ProblemKind::BadRequest, "memroy"),
        (r#"{"config": {"name": "a"}, "restart": "often"}"#, ProblemKind::BadRequest, "restart"),
        (r#"{"config": {}}"#, ProblemKind::BadConfig, "config.name"),
        (r#"{"config": {"name": "../a"}}"#, ProblemKind::BadConfig, "name"),
        (r#"{"config": {"name": "a", "cpus": 65}}"#, ProblemKind::BadConfig, "cpus"),
        (r#"{"config": {"name": "a", "kernel": "k"}}"#, ProblemKind::BadConfig, "relative"),
        (r#"{"config": {"name": "a", "api_socket": "/s"}}"#, ProblemKind::BadConfig, "api_socket"),
        (r#"{"config": {"name": "a"}, "reservation": "1G"}"#, ProblemKind::BadConfig, "reservation"),
        (r#"{"config": {"name": "a"}, "shares": 0}"#, ProblemKind::BadConfig, "shares"),
    ] {
        check(&post(body), kind, words);
    }
    let body = vm("a").to_string();
    check(&api.send("POST", "/v1/vms", "text/plain", body.as_bytes()), ProblemKind::NotJson, "Content-Type");
    let long = format!("{{\"config\": {{\"name\": \"{}\"}}}}", "a".repeat(1 << 20));
    check(&post(&long), ProblemKind::BodyTooLarge, "bytes");
    assert_eq!(api.get("/v1/vms").value(), json!({ "vms": [] }), "nothing was created");
}

#[test]
fn names_are_unique_and_unknown_ones_have_a_hint() {
    let api = Api::new();
    assert_eq!(api.json("POST", "/v1/vms", &vm("web")).status, 201);
    check(&api.json("POST", "/v1/vms", &vm("web")), ProblemKind::NameInUse, "napa rm web");
    check(&api.get("/v1/vms/wbe"), ProblemKind::UnknownVm, "did you mean \"web\"?");
    check(&api.json("POST", "/v1/vms/web/pause", &json!({})), ProblemKind::WrongState, "web\" is created");
    let late = json!({ "timeout_s": 86_401 });
    check(&api.json("POST", "/v1/vms/web/stop", &late), ProblemKind::BadConfig, "one day");
    check(&api.get("/v1/vms/web/logs?lines=x"), ProblemKind::BadRequest, "lines");
    check(&api.get("/v1/vms/%ff"), ProblemKind::BadRequest, "");
    assert_eq!(api.json("DELETE", "/v1/vms/web", &json!({})).status, 204);
    check(&api.json("DELETE", "/v1/vms/web", &json!({})), ProblemKind::UnknownVm, "web");
}

#[test]
fn verbs_that_have_nothing_to_do_are_done() {
    let api = Api::new();
    assert_eq!(api.json("POST", "/v1/vms", &vm("web")).status, 201);
    for _ in 0..2 {
        assert_eq!(api.send("POST", "/v1/vms/web/stop", "application/json", b"").status, 200);
        assert_eq!(api.send("POST", "/v1/vms/web/kill", "text/plain", b"").status, 200);
    }
}

#[test]
fn a_vm_that_ends_before_it_runs_is_a_failed_start() {
    let api = Api::new();
    assert_eq!(api.json("POST", "/v1/vms", &vm("web")).status, 201);
    let answer = api.json("POST", "/v1/vms/web/start", &json!({}));
    check(&answer, ProblemKind::StartFailed, "ended with code 1");
    let detail = api.get("/v1/vms/web").value();
    assert_eq!((&detail["state"], &detail["exit"]["code"]), (&json!("stopped"), &json!(1)));
}

#[test]
fn metrics_are_in_the_text_format() {
    let api = Api::new();
    assert_eq!(api.json("POST", "/v1/vms", &vm("web")).status, 201);
    let answer = api.get("/metrics");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(answer.content_type.starts_with("application/openmetrics-text"));
    for line in
        ["napa_vms{state=\"created\"} 1", "napa_host_level 1", "# UNIT napa_host_ram_bytes bytes", "# EOF"]
    {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn events_are_a_stream() {
    let api = Api::new();
    let answer = api.get("/v1/events");
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "text/event-stream"));
}
