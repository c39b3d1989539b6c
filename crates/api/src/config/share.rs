//! Which pages of a VM may be merged with equal ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far equal pages of a VM are merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ShareConfig {
    /// Pages of zeros are given back to the host; nothing else.
    Zero,
    /// Equal pages of this VM alone are merged, and pages of zeros are given back.
    Vm,
    /// Equal pages of all VMs of the host that name the same trust domain are merged: each of them can find out, by
    /// how long a write takes, whether another one holds a page that it knows.
    Domain(String),
    /// Never.
    Off,
}

impl fmt::Display for ShareConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("zero"),
            Self::Vm => f.write_str("vm"),
            Self::Domain(name) => write!(f, "domain={name}"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Why a text does not say how far pages are merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a choice: write zero, vm, domain=NAME or off")]
pub struct ShareError(String);

impl FromStr for ShareConfig {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        match text.split_once('=') {
            None if text == "zero" => Ok(Self::Zero),
            None if text == "vm" => Ok(Self::Vm),
            None if text == "off" => Ok(Self::Off),
            Some(("domain", name)) if !name.is_empty() => Ok(Self::Domain(name.to_owned())),
            _ => Err(ShareError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_is_read_and_written() {
        for text in ["zero", "vm", "off", "domain=web"] {
            assert_eq!(text.parse::<ShareConfig>().unwrap().to_string(), text);
        }
        for text in ["", "on", "domain", "domain=", "vm=1", "Zero"] {
            let expected = format!("'{text}' is not a choice: write zero, vm, domain=NAME or off");
            assert_eq!(text.parse::<ShareConfig>().unwrap_err().to_string(), expected);
        }
    }
}
