//! What the lab needs of its surroundings and does not find: a reason to skip tests, where every other error
//! is a failure.

/// The machine lacks something that the lab needs.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No source of packages is known or answers.
    #[error("no Debian mirror: {0}")]
    Mirror(String),
    /// The mirror does not have a package that its index names, or cannot be reached any more.
    #[error("fetch packages: {0}")]
    Package(String),
    /// A program is not installed.
    #[error("{program} is not installed{}", .package.map(|package| format!(": install the Debian package {package}")).unwrap_or_default())]
    Program {
        /// Its name.
        program: String,
        /// The Debian package that has it.
        package: Option<&'static str>,
    },
    /// debootstrap changes its root folder, which only root may.
    #[error("only root can make a Debian for guests: run `cargo xtask lab build` as root once")]
    Root,
}

impl Unavailable {
    /// The missing thing behind an error, if that is its cause.
    pub fn behind(error: &anyhow::Error) -> Option<&Unavailable> {
        error.chain().find_map(|cause| cause.downcast_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_cause_is_found_below_its_contexts() {
        let error = anyhow::Error::from(Unavailable::Root).context("build images").context("build the lab");
        assert!(matches!(Unavailable::behind(&error), Some(Unavailable::Root)));
        let other = Err::<(), _>(std::io::Error::other("disk full")).context("build the lab");
        assert!(Unavailable::behind(&other.unwrap_err()).is_none());
    }
}
