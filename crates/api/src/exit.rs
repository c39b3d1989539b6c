//! How a VM ends, and the exit code that says so.

/// Why a `napa run` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason", content = "code")]
pub enum Exit {
    /// The guest switched itself off (ACPI S5), by itself or because it was asked to.
    PowerOff,
    /// The guest wrote this code to the exit port.
    Guest(u8),
    /// The guest asked for a reset and the configuration says to end then.
    Reboot,
    /// The guest reported a panic (pvpanic).
    Panic,
    /// A vCPU met a triple fault.
    TripleFault,
    /// The guest did not switch itself off in time, or a hard stop was asked for.
    HardStop,
    /// KVM could not go on with a vCPU, or the host has lost memory of the VM.
    Stuck,
}

impl Exit {
    /// Exit code of a command line, a file or an image that cannot be used.
    pub const BAD_INPUT: u8 = 2;
    /// Exit code of a failure of napa itself or of the host.
    pub const FAILURE: u8 = 1;

    /// The code with which the process ends.
    pub const fn code(self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::Guest(code) => code,
            Self::Reboot => 80,
            Self::Panic => 81,
            Self::TripleFault => 82,
            Self::HardStop => 83,
            Self::Stuck => 84,
        }
    }

    /// A line that says what happened, without the VM's name.
    pub fn describe(self) -> String {
        match self {
            Self::PowerOff => "the guest switched itself off".into(),
            Self::Guest(code) => format!("the guest ended with exit code {code}"),
            Self::Reboot => "the guest asked for a reboot".into(),
            Self::Panic => "the guest reported a panic".into(),
            Self::TripleFault => "a vCPU met a triple fault".into(),
            Self::HardStop => "the VM was stopped hard".into(),
            Self::Stuck => "KVM could not run a vCPU any further, or the host has lost memory".into(),
        }
    }
}

/// How a VM's process ended, as it notes it for whoever started it (`napa run --exit-file`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExitNote {
    /// The exit code of the process.
    pub code: u8,
    /// What happened, in words.
    pub reason: String,
}
