//! What excludes, limits or needs what: the one table.

use std::fmt;

use super::Feature;

/// How one feature stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first is refused without the second.
    Needs,
    /// Both together are refused.
    Excludes,
    /// Both together work, and one of them does less than alone.
    Limits,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The feature that the rule is about.
    pub feature: Feature,
    /// How it stands to the other.
    pub relation: Relation,
    /// The other one.
    pub other: Feature,
    /// Why, as a sentence without its first capital and its full stop.
    pub because: &'static str,
    /// What to do. Empty for what is only limited.
    pub mend: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feature, other, because, mend, .. } = self;
        match self.relation {
            Relation::Needs => write!(f, "{feature} needs {other}: {because}; {mend}"),
            Relation::Excludes => write!(f, "{feature} and {other} exclude each other: {because}; {mend}"),
            Relation::Limits => write!(f, "{feature} with {other}: {because}"),
        }
    }
}

/// All rules there are.
pub const RULES: &[Rule] = &[
    Rule {
        feature: Feature::MemoryLow,
        relation: Relation::Needs,
        other: Feature::Cgroup,
        because: "the kernel keeps that promise to a control group",
        mend: "add --cgroup auto, or name one with --cgroup PATH",
    },
    Rule {
        feature: Feature::SwapMax,
        relation: Relation::Needs,
        other: Feature::Cgroup,
        because: "the kernel counts the swap of a control group",
        mend: "add --cgroup auto, or name one with --cgroup PATH",
    },
    Rule {
        feature: Feature::NoSwapAllowed,
        relation: Relation::Excludes,
        other: Feature::MemoryLow,
        because: "memory that may not go into swap cannot be taken, so that there is nothing to protect",
        mend: "leave one of them out",
    },
    Rule {
        feature: Feature::Sharing,
        relation: Relation::Limits,
        other: Feature::HugePages,
        because: "a huge page is split before one of its pages is merged: merged memory is backed with small pages",
        mend: "",
    },
    Rule {
        feature: Feature::Sharing,
        relation: Relation::Limits,
        other: Feature::Swap,
        because: "a merged page that comes back from swap is the VM's own until it is found equal again",
        mend: "",
    },
    Rule {
        feature: Feature::Balloon,
        relation: Relation::Limits,
        other: Feature::Swap,
        because: "a page in swap that the guest looks at before it gives it up is read back first: \
                  take memory from one VM by the balloon or by swap, not by both at once",
        mend: "",
    },
    Rule {
        feature: Feature::Cgroup,
        relation: Relation::Limits,
        other: Feature::PvmHost,
        because: "this KVM's guests do not survive a hard limit of their group: the VM's process gives pages up \
                  itself",
        mend: "",
    },
    Rule {
        feature: Feature::Pmem,
        relation: Relation::Limits,
        other: Feature::Sharing,
        because: "an image in memory is shared by all VMs that have it through the host's page cache, \
                  whatever --share says",
        mend: "",
    },
];

/// The first rule that these features break: one that needs what is not there, or excludes what is.
pub fn broken_rule(features: &[Feature]) -> Option<&'static Rule> {
    RULES.iter().find(|rule| {
        let has_other = features.contains(&rule.other);
        let is_broken = match rule.relation {
            Relation::Needs => !has_other,
            Relation::Excludes => has_other,
            Relation::Limits => false,
        };
        features.contains(&rule.feature) && is_broken
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_why_and_what_to_do() {
        for rule in RULES {
            assert_ne!(rule.feature, rule.other);
            assert!(!rule.because.is_empty() && !rule.because.ends_with('.'), "{rule:?}");
            assert_eq!(rule.mend.is_empty(), rule.relation == Relation::Limits, "{rule:?}");
        }
    }

    #[test]
    fn no_pair_stands_twice() {
        let pair = |rule: &Rule| [rule.feature.min(rule.other), rule.feature.max(rule.other)];
        for (index, rule) in RULES.iter().enumerate() {
            assert!(RULES[index + 1..].iter().all(|later| pair(later) != pair(rule)), "{rule:?}");
        }
    }

    #[test]
    fn rules_are_broken_by_what_lacks_and_by_what_is_too_much() {
        use Feature::{Cgroup, HugePages, MemoryLow, NoSwapAllowed, Sharing, SwapMax};
        let check = |features: &[Feature], expected: Option<(Feature, Feature)>| {
            let found = broken_rule(features).map(|rule| (rule.feature, rule.other));
            assert_eq!(found, expected, "{features:?}");
        };
        check(&[], None);
        check(&[Sharing, HugePages], None);
        check(&[MemoryLow], Some((MemoryLow, Cgroup)));
        check(&[SwapMax], Some((SwapMax, Cgroup)));
        check(&[Cgroup, MemoryLow, SwapMax], None);
        check(&[Cgroup, MemoryLow, SwapMax, NoSwapAllowed], Some((NoSwapAllowed, MemoryLow)));
    }
}
