//! Transparent huge pages (Documentation/admin-guide/mm/transhuge.rst).

use super::Root;

/// For which memory huge pages are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThpRule {
    /// All.
    Always,
    /// Memory whose owner asks for it.
    Madvise,
    /// None.
    Never,
}

impl ThpRule {
    /// Reads `/sys/kernel/mm/transparent_hugepage`. `None`: the kernel has none.
    pub fn read(root: &Root) -> Option<Self> {
        Some(match root.choice("sys/kernel/mm/transparent_hugepage/enabled")?.as_str() {
            "always" => Self::Always,
            "madvise" => Self::Madvise,
            _ => Self::Never,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn the_rule_in_brackets_holds() {
        let path = "sys/kernel/mm/transparent_hugepage/enabled";
        for (text, expected) in [
            ("[always] madvise never", Some(ThpRule::Always)),
            ("always [madvise] never", Some(ThpRule::Madvise)),
            ("always madvise [never]", Some(ThpRule::Never)),
            ("", None),
        ] {
            assert_eq!(ThpRule::read(&Fixture::new(&[(path, text)]).root()), expected);
        }
    }
}
