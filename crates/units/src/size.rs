//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size in bytes. Written by people as a number with an optional `K`, `M`, `G` or `T` (powers of two).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `count` KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The text does not start with digits, or something other than a unit follows them.
    #[error("'{0}' is not a size: write a whole number and one of K, M, G, T (powers of two), such as 512M")]
    Shape(String),
    /// The number does not fit in 64 bits.
    #[error("'{0}' is larger than any memory: sizes end at 16 EiB")]
    Range(String),
}

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let shape = || SizeError::Shape(text.to_owned());
        let range = || SizeError::Range(text.to_owned());
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" | "k" => 10,
            "M" | "m" => 20,
            "G" | "g" => 30,
            "T" | "t" => 40,
            _ => return Err(shape()),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(shape());
        }
        let count: u64 = digits.parse().map_err(|_| range())?;
        count.checked_mul(1 << shift).map(Bytes).ok_or_else(range)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Bytes {
    /// Numbers travel as numbers: a reader in any language can add them up.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    /// Takes a number of bytes or a text such as `512M`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size: a number of bytes, or a text such as \"512M\"")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Bytes, E> {
                Ok(Bytes(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Bytes, E> {
                u64::try_from(value).map(Bytes).map_err(|_| E::custom(format!("a size cannot be {value}")))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Bytes, E> {
                value.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use utoipa::openapi::schema::{OneOfBuilder, Schema, SchemaFormat, Type};
    use utoipa::openapi::{ObjectBuilder, RefOr};

    use super::Bytes;

    impl utoipa::ToSchema for Bytes {
        fn name() -> Cow<'static, str> {
            Cow::Borrowed("Bytes")
        }
    }

    impl utoipa::PartialSchema for Bytes {
        fn schema() -> RefOr<Schema> {
            let number = ObjectBuilder::new()
                .schema_type(Type::Integer)
                .format(Some(SchemaFormat::Custom("uint64".into())))
                .minimum(Some(0));
            let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]+[KkMmGgTt]?$"));
            let either = OneOfBuilder::new().item(number).item(text);
            either
                .description(Some(
                    "A size: a number of bytes, or a text such as \"512M\". Answers have numbers.",
                ))
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse::<Bytes>().ok().map(|bytes| bytes.0), expected, "{text:?}");
    }

    #[test]
    fn sizes_are_powers_of_two_and_nothing_else() {
        check("0", Some(0));
        check("4096", Some(4096));
        check("1K", Some(1024));
        check("512M", Some(512 << 20));
        check("3g", Some(3 << 30));
        check("2T", Some(2 << 40));
        check("16777216T", None);
        for wrong in
            ["", "M", "1.5G", "-1", "+1", "1 G", "1GB", "1GiB", "0x10", "1M1", "١K", "99999999999999999999"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn a_size_is_shown_in_its_largest_whole_unit() {
        for text in ["0", "1", "4097", "1K", "1536M", "3G", "2T"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
    }
}
