//! Whether io_uring may be used.

use std::io;

use super::Root;

/// Who may make an io_uring (`kernel.io_uring_disabled`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoUringRule {
    /// Everyone; also a kernel that is too old to have the switch.
    Everyone,
    /// Processes with `CAP_SYS_ADMIN`, and the group of `kernel.io_uring_group`.
    Privileged,
    /// Nobody.
    Nobody,
}

impl IoUringRule {
    /// Reads `/proc/sys/kernel/io_uring_disabled`.
    pub fn read(root: &Root) -> Self {
        match root.number("proc/sys/kernel/io_uring_disabled") {
            None | Some(0) => Self::Everyone,
            Some(1) => Self::Privileged,
            Some(_) => Self::Nobody,
        }
    }
}

/// Makes an io_uring on this host and closes it again: the rule says what is allowed, only this says what
/// works (a container's filter may refuse the call).
///
/// # Errors
/// What the kernel answered.
pub fn try_io_uring() -> io::Result<()> {
    ::io_uring::IoUring::new(1).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn the_switch_has_three_places() {
        for (text, expected) in [
            (Some("0"), IoUringRule::Everyone),
            (Some("1"), IoUringRule::Privileged),
            (Some("2"), IoUringRule::Nobody),
            (None, IoUringRule::Everyone),
        ] {
            let file = text.map(|text| ("proc/sys/kernel/io_uring_disabled", text));
            let host = Fixture::new(file.as_slice());
            assert_eq!(IoUringRule::read(&host.root()), expected);
        }
    }
}
