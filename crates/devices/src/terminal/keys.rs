//! What keys mean on a terminal that is attached to a guest.
//!
//! ```text
//!            Ctrl-A                 c
//!  guest  ----------->  escape  --------->  prompt
//!    ^                    |                    |
//!    +---- any other -----+                    |
//!    +----------------- Esc -------------------+
//! ```

/// What a person at the console asks of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleCommand {
    /// End the VM now.
    HardStop,
    /// Ask the guest to switch itself off.
    OrderlyStop,
    /// Stop the vCPUs.
    Pause,
    /// Let the vCPUs go on.
    Resume,
    /// Say how the VM is, by [`ConsoleBackend::say`](super::ConsoleBackend::say).
    Status,
}

/// What one key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing yet.
    Nothing,
    /// The guest gets this byte.
    Send(u8),
    /// The guest gets the escape key and then this byte.
    SendEscaped(u8),
    /// The VM gets this command.
    Command(ConsoleCommand),
    /// The person is told the prompt's keys.
    Help,
    /// The person is told that keys go to the guest again.
    Leave,
}

/// Ctrl-A.
const ESCAPE_KEY: u8 = 1;
/// Esc.
const LEAVE_KEY: u8 = 0x1b;

/// The keys of napa's prompt, as they are shown.
pub(super) const HELP: &str =
    "napa: p pause, r resume, s orderly stop, x hard stop, i status, Esc back to the guest";

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Guest,
    Escape,
    Prompt,
}

/// Tells keys for the guest from keys for napa.
#[derive(Debug, Default)]
pub(super) struct Keys {
    state: State,
}

impl Keys {
    /// Takes the next byte from the terminal.
    pub fn press(&mut self, byte: u8) -> Action {
        let (state, action) = match self.state {
            State::Guest => in_guest(byte),
            State::Escape => after_escape(byte),
            State::Prompt => in_prompt(byte),
        };
        self.state = state;
        action
    }
}

fn in_guest(byte: u8) -> (State, Action) {
    match byte {
        ESCAPE_KEY => (State::Escape, Action::Nothing),
        _ => (State::Guest, Action::Send(byte)),
    }
}

fn after_escape(byte: u8) -> (State, Action) {
    match byte {
        ESCAPE_KEY => (State::Guest, Action::Send(ESCAPE_KEY)),
        b'x' => (State::Guest, Action::Command(ConsoleCommand::HardStop)),
        b'c' => (State::Prompt, Action::Help),
        // Ctrl-A means something to shells, and a person who means napa uses one of the keys above.
        _ => (State::Guest, Action::SendEscaped(byte)),
    }
}

fn in_prompt(byte: u8) -> (State, Action) {
    let command = match byte {
        b'p' => ConsoleCommand::Pause,
        b'r' => ConsoleCommand::Resume,
        b's' => ConsoleCommand::OrderlyStop,
        b'x' => ConsoleCommand::HardStop,
        b'i' => ConsoleCommand::Status,
        LEAVE_KEY => return (State::Guest, Action::Leave),
        _ => return (State::Prompt, Action::Help),
    };
    (State::Prompt, Action::Command(command))
}

/// The bytes for the guest that an action stands for.
impl Action {
    pub fn guest_bytes(self) -> Option<([u8; 2], usize)> {
        match self {
            Self::Send(byte) => Some(([byte, 0], 1)),
            Self::SendEscaped(byte) => Some(([ESCAPE_KEY, byte], 2)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the guest gets and what else happens when `typed` is typed.
    fn check(typed: &[u8], guest: &[u8], others: &[Action]) {
        let mut keys = Keys::default();
        let mut sent = Vec::new();
        let mut done = Vec::new();
        for byte in typed {
            let action = keys.press(*byte);
            match action.guest_bytes() {
                Some((bytes, count)) => sent.extend_from_slice(&bytes[..count]),
                None if action != Action::Nothing => done.push(action),
                None => {}
            }
        }
        assert_eq!((sent.as_slice(), done.as_slice()), (guest, others), "{typed:?}");
    }

    #[test]
    fn keys_go_to_the_guest_unless_ctrl_a_stands_before_them() {
        use Action::{Command, Help, Leave};
        check(b"ls\r\x03\x1a", b"ls\r\x03\x1a", &[]);
        check(b"a\x01\x01b", b"a\x01b", &[]);
        check(b"\x01l", b"\x01l", &[]);
        check(b"\x01x", b"", &[Command(ConsoleCommand::HardStop)]);
        check(b"\x01ci\x1bq", b"q", &[Help, Command(ConsoleCommand::Status), Leave]);
    }

    #[test]
    fn the_prompt_has_a_key_for_every_command_and_explains_itself() {
        use Action::{Command, Help};
        let commands = [
            (b'p', ConsoleCommand::Pause),
            (b'r', ConsoleCommand::Resume),
            (b's', ConsoleCommand::OrderlyStop),
            (b'x', ConsoleCommand::HardStop),
            (b'i', ConsoleCommand::Status),
        ];
        for (key, command) in commands {
            check(&[1, b'c', key], b"", &[Help, Command(command)]);
            assert!(HELP.contains(&format!("{} ", char::from(key))), "{HELP}");
        }
        check(b"\x01c?", b"", &[Help, Help]);
    }

    proptest! {
        #[test]
        fn without_the_escape_key_every_byte_reaches_the_guest(typed in proptest::collection::vec(2_u8.., 0..64)) {
            check(&typed, &typed, &[]);
        }
    }
}
