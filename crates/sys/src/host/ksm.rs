//! Kernel samepage merging (Documentation/admin-guide/mm/ksm.rst).

use super::Root;

/// Settings and counters of KSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ksm {
    /// What its thread does.
    pub run: KsmRun,
    /// Pages it looks at before it sleeps.
    pub pages_to_scan: u64,
    /// How long it sleeps, in milliseconds.
    pub sleep_ms: u64,
    /// Pages that several users have in common.
    pub pages_shared: u64,
    /// Pages saved by that.
    pub pages_sharing: u64,
    /// It sets its own pace. `None`: the kernel is too old to know how.
    pub advisor: Option<bool>,
}

/// What KSM's thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KsmRun {
    /// It stands still; merged pages stay merged.
    Stopped,
    /// It merges.
    Running,
    /// It stands still, and every merged page was taken apart.
    Unmerged,
}

impl Ksm {
    /// Reads `/sys/kernel/mm/ksm`. `None`: the kernel has no KSM.
    pub fn read(root: &Root) -> Option<Self> {
        let number = |name| root.number::<u64>(&format!("sys/kernel/mm/ksm/{name}"));
        Some(Self {
            run: match number("run")? {
                0 => KsmRun::Stopped,
                1 => KsmRun::Running,
                _ => KsmRun::Unmerged,
            },
            pages_to_scan: number("pages_to_scan")?,
            sleep_ms: number("sleep_millisecs")?,
            pages_shared: number("pages_shared")?,
            pages_sharing: number("pages_sharing")?,
            advisor: root.choice("sys/kernel/mm/ksm/advisor_mode").map(|mode| mode != "none"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn settings_and_counters_are_read() {
        let mut files = vec![
            ("sys/kernel/mm/ksm/run", "1\n"),
            ("sys/kernel/mm/ksm/pages_to_scan", "100\n"),
            ("sys/kernel/mm/ksm/sleep_millisecs", "20\n"),
            ("sys/kernel/mm/ksm/pages_shared", "3\n"),
            ("sys/kernel/mm/ksm/pages_sharing", "9\n"),
        ];
        let mut expected = Ksm {
            run: KsmRun::Running,
            pages_to_scan: 100,
            sleep_ms: 20,
            pages_shared: 3,
            pages_sharing: 9,
            advisor: None,
        };
        assert_eq!(Ksm::read(&Fixture::new(&files).root()).as_ref(), Some(&expected));
        files.push(("sys/kernel/mm/ksm/advisor_mode", "none [scan-time]\n"));
        expected.advisor = Some(true);
        assert_eq!(Ksm::read(&Fixture::new(&files).root()), Some(expected));
        assert_eq!(Ksm::read(&Fixture::new(&[]).root()), None);
    }
}
