//! Pressure stall information (Documentation/accounting/psi.rst).

use super::Root;

/// How much time was lost for want of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// Shares of time, in percent, and their sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stall {
    /// Over the last 10 seconds, in percent.
    pub avg10: f64,
    /// Over the last minute, in percent.
    pub avg60: f64,
    /// Over the last five minutes, in percent.
    pub avg300: f64,
    /// Since the host started, in microseconds.
    pub total_us: u64,
}

impl Pressure {
    /// Reads `/proc/pressure/memory`. `None`: the kernel does not measure it.
    pub fn memory(root: &Root) -> Option<Self> {
        Self::parse(&root.text("proc/pressure/memory")?)
    }

    /// Reads the text of a pressure file, the host's or a control group's.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self { some: Stall::parse(text, "some")?, full: Stall::parse(text, "full")? })
    }
}

impl Stall {
    fn parse(text: &str, kind: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let value =
            |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Some(Self {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total_us: value("total")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.10 avg300=0.02 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=5\n";
        let some = Stall { avg10: 1.5, avg60: 0.1, avg300: 0.02, total_us: 77 };
        let full = Stall { avg10: 0.0, avg60: 0.0, avg300: 0.01, total_us: 5 };
        assert_eq!(Pressure::parse(text), Some(Pressure { some, full }));
        for broken in ["", "some avg10=1", "some avg10=x avg60=0 avg300=0 total=0\nfull"] {
            assert_eq!(Pressure::parse(broken), None);
        }
    }
}
