//! Messages as lines: what is read, what is refused, and with which code.

use napa_units::Bytes;
use proptest::prelude::*;

use super::*;

fn refusal(line: &str) -> Option<(Id, i32, String)> {
    let response = Request::decode(line.as_bytes()).unwrap_err()?;
    let error = response.outcome.unwrap_err();
    Some((response.id, error.code, error.message))
}

fn status() -> Status {
    let device = DeviceStatus {
        name: "disk0".into(),
        kind: "virtio-blk".into(),
        pci: Some("00:03.0".into()),
        state: DeviceState::NeedsReset,
    };
    Status {
        name: "web".into(),
        state: State::Paused,
        pid: 7,
        vcpus: 2,
        memory: Bytes::mib(128),
        uptime_ms: 1500,
        devices: vec![device],
    }
}

#[test]
fn a_request_is_read() {
    let id = Some(Id::Number(1.into()));
    for (line, command) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#, Command::Status),
        (r#"{"jsonrpc":"2.0","id":1,"method":"config"}"#, Command::Config),
        (r#"{"jsonrpc":"2.0","id":1,"method":"pause","params":{}}"#, Command::Pause),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resume","params":[]}"#, Command::Resume),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"brake","params":{"time_ms":2000}}"#,
            Command::Brake { time_ms: 2000 },
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"stop"}"#, Command::Stop { timeout_s: None }),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"stop","params":{"timeout_s":5}}"#,
            Command::Stop { timeout_s: Some(5) },
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"kill","extra":0}"#, Command::Kill),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"balloon"}"#,
            Command::Memory(MemoryCommand::Balloon { target: None }),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"balloon","params":{"target":8192}}"#,
            Command::Memory(MemoryCommand::Balloon { target: Some(Bytes(8192)) }),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"plug"}"#, Command::Memory(MemoryCommand::Plug { size: None })),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"plug","params":{"size":"4M"}}"#,
            Command::Memory(MemoryCommand::Plug { size: Some(Bytes::mib(4)) }),
        ),
    ] {
        assert_eq!(Request::decode(line.as_bytes()), Ok(Request { id: id.clone(), command }), "{line}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_the_standard_code() {
    let null = || Id::Null;
    let one = || Id::Number(1.into());
    for (line, id, code, text) in [
        ("{", null(), code::PARSE, "the line is not JSON"),
        ("\u{7f}", null(), code::PARSE, "the line is not JSON"),
        ("[]", null(), code::INVALID_REQUEST, "batches are not taken"),
        (r#"{"id":1,"method":"status"}"#, null(), code::INVALID_REQUEST, "\"jsonrpc\""),
        (r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#, null(), code::INVALID_REQUEST, "\"id\""),
        (r#"{"jsonrpc":"2.0","id":1}"#, null(), code::INVALID_REQUEST, "\"method\""),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"puase"}"#,
            one(),
            code::METHOD_NOT_FOUND,
            "did you mean \"pause\"",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"kill","params":{"a":1}}"#,
            one(),
            code::INVALID_PARAMS,
            "kill takes no parameters",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"balloon","params":{"target":8193}}"#,
            one(),
            code::INVALID_PARAMS,
            "whole pages of 4096",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"plug","params":{"size":"much"}}"#,
            one(),
            code::INVALID_PARAMS,
            "plug takes one named parameter",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"stop","params":[5]}"#,
            one(),
            code::INVALID_PARAMS,
            "timeout_s",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"stop","params":{"timeout_s":86401}}"#,
            one(),
            code::INVALID_PARAMS,
            "up to one day",
        ),
    ] {
        let found = refusal(line).unwrap();
        assert_eq!((&found.0, found.1), (&id, code), "{line}");
        assert!(found.2.contains(text), "{line}: {}", found.2);
    }
}

#[test]
fn a_notification_is_never_answered() {
    let request = Request::decode(br#"{"jsonrpc":"2.0","method":"pause"}"#).unwrap();
    assert_eq!(request.answer(reply(Ok(status()))), None);
    assert_eq!(refusal(r#"{"jsonrpc":"2.0","method":"nonsense"}"#), None);
}

#[test]
fn nesting_without_end_is_refused() {
    let line = "[".repeat(LINE_BYTES_MAX);
    assert_eq!(refusal(&line).unwrap().1, code::PARSE);
}

#[test]
fn a_response_goes_over_the_wire_as_the_specification_says() {
    let response =
        Response { id: Id::Text("a".into()), outcome: Err(RpcError::new(code::WRONG_STATE, "no")) };
    let line = response.encode();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"error\":{\"code\":-32000,\"message\":\"no\"},\"id\":\"a\",\"jsonrpc\":\"2.0\"}\n"
    );
    let response = Response { id: Id::Number(1.into()), outcome: reply(Ok(status())) };
    let text = String::from_utf8(response.encode()).unwrap();
    assert!(text.contains(r#""state":"paused""#) && text.contains(r#""state":"needs_reset""#), "{text}");
    assert_eq!(Response::decode(text.as_bytes()).unwrap(), response);
}

#[test]
fn a_response_with_neither_or_both_is_refused() {
    for line in
        [r#"{"jsonrpc":"2.0","id":1}"#, "[]", r#"{"id":1,"result":1,"error":{"code":1,"message":""}}"#]
    {
        assert!(Response::decode(line.as_bytes()).is_err(), "{line}");
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::Status),
        Just(Command::Config),
        Just(Command::Pause),
        (0..=BRAKE_MS_MAX).prop_map(|time_ms| Command::Brake { time_ms }),
        Just(Command::Resume),
        proptest::option::of(0..=86_400_u32).prop_map(|timeout_s| Command::Stop { timeout_s }),
        Just(Command::Kill),
        any_memory_command().prop_map(Command::Memory),
    ]
}

fn any_memory_command() -> impl Strategy<Value = MemoryCommand> {
    let target = proptest::option::of((0..1_u64 << 40).prop_map(|pages| Bytes(pages * 4096)));
    prop_oneof![
        Just(MemoryCommand::Report),
        target.prop_map(|target| MemoryCommand::Balloon { target }),
        Just(MemoryCommand::BalloonStatistics),
        Just(MemoryCommand::BalloonHint),
        (4096..=u64::MAX).prop_map(|size| MemoryCommand::Reclaim { size: Bytes(size) }),
        Just(MemoryCommand::Share(ShareOrder::On)),
        Just(MemoryCommand::Share(ShareOrder::Off)),
        Just(MemoryCommand::Sample),
        Just(MemoryCommand::Mapping),
        Just(MemoryCommand::WorkingSet),
        Just(MemoryCommand::Means),
    ]
}

fn any_id() -> impl Strategy<Value = Option<Id>> {
    let id = prop_oneof![
        any::<i64>().prop_map(|number| Id::Number(number.into())),
        any::<String>().prop_map(Id::Text),
        Just(Id::Null),
    ];
    proptest::option::of(id)
}

/// Bytes that look enough like requests to reach every branch.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("\"jsonrpc\":\"2.0\",".to_owned()),
        Just("\"method\":\"stop\",".to_owned()),
        Just("\"params\":".to_owned()),
        Just("\"id\":1e999,".to_owned()),
        Just("\"id\":null".to_owned()),
        any::<String>(),
    ];
    let near = proptest::collection::vec(token, 0..8).prop_map(|tokens| tokens.concat().into_bytes());
    prop_oneof![near, proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn a_request_loses_nothing(command in any_command(), id in any_id()) {
        let request = Request { id, command };
        let line = request.encode();
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert_eq!(Request::decode(&line), Ok(request));
    }

    #[test]
    fn hostile_bytes_get_one_line_back_or_none(line in hostile()) {
        if let Err(Some(response)) = Request::decode(&line) {
            let answer = response.encode();
            prop_assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert!(response.outcome.is_err());
            prop_assert_eq!(Response::decode(&answer).unwrap(), response);
        }
        let _ = Response::decode(&line);
    }
}
