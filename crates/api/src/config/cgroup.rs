//! Which control group a VM runs in.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A control group of the VM's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CgroupConfig {
    /// `napa/NAME`.
    Auto,
    /// A path below the root of the hierarchy of version 2, without a `/` before it.
    Path(PathBuf),
}

/// Why a text does not name a control group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a control group: write auto, or a path below /sys/fs/cgroup such as vms/web, without '..'"
)]
pub struct CgroupError(String);

impl FromStr for CgroupConfig {
    type Err = CgroupError;

    fn from_str(text: &str) -> Result<Self, CgroupError> {
        let path = Path::new(text.trim_matches('/'));
        let is_plain = path.components().all(|component| matches!(component, Component::Normal(_)));
        match path.to_str() {
            Some("auto") => Ok(Self::Auto),
            Some(plain) if is_plain && !plain.is_empty() && !plain.contains(char::is_control) => {
                Ok(Self::Path(path.components().collect()))
            }
            _ => Err(CgroupError(text.to_owned())),
        }
    }
}

impl fmt::Display for CgroupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl TryFrom<String> for CgroupConfig {
    type Error = CgroupError;

    fn try_from(text: String) -> Result<Self, CgroupError> {
        text.parse()
    }
}

impl From<CgroupConfig> for String {
    fn from(cgroup: CgroupConfig) -> Self {
        cgroup.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_plain_path_or_left_to_napa() {
        for (text, expected) in [
            ("auto", Some("auto")),
            ("web", Some("web")),
            ("/vms/web/", Some("vms/web")),
            ("vms//web", Some("vms/web")),
            ("", None),
            ("/", None),
            ("..", None),
            ("vms/../web", None),
            ("./web", None),
            ("a\nb", None),
        ] {
            let group: Option<CgroupConfig> = text.parse().ok();
            assert_eq!(group.map(|group| group.to_string()).as_deref(), expected, "{text:?}");
        }
    }
}
