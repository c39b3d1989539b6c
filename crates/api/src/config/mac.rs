//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ethernet address. Written as six pairs of hexadecimal digits: `02:00:5e:10:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// Why a text is not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address: write six pairs of hexadecimal digits, such as 02:00:5e:10:00:01")]
pub struct MacError(String);

impl MacAddress {
    /// An address of our own making: the same for the same seed and card, locally administered and unicast
    /// (IEEE 802 §8.2).
    pub fn derived(seed: &str, card: usize) -> Self {
        // FNV-1a: well spread over short texts, and the same on every host and in every release.
        let card = (card as u64).to_le_bytes();
        let hash = seed.bytes().chain(card).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let bytes = hash.to_be_bytes();
        Self([0x02, bytes[0] ^ bytes[5], bytes[1] ^ bytes[6], bytes[2] ^ bytes[7], bytes[3], bytes[4]])
    }

    /// Addresses a group of stations, not one (IEEE 802 §8.2).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All bytes zero: no address at all.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(error)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        if pairs.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddress({self})")
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_pairs_of_digits_and_nothing_else() {
        assert_eq!("02:00:5e:10:00:Ff".parse(), Ok(MacAddress([2, 0, 0x5e, 0x10, 0, 0xff])));
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "2:0:5e:10:0:1",
            "02-00-5e-10-00-01",
            "02:00:5e:10:00:0g",
            "02:00:5e:10:00:+1",
            "02:00:5e:10:00:01 ",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_derived_address_is_unicast_local_and_differs_by_name_and_card() {
        let addresses = [("a", 0), ("a", 1), ("b", 0), ("", 0)].map(|(s, c)| MacAddress::derived(s, c));
        for (index, address) in addresses.iter().enumerate() {
            assert_eq!(address.0[0], 0x02);
            assert!(!address.is_multicast());
            assert!(!addresses[..index].contains(address));
        }
        assert_eq!(addresses[0], MacAddress::derived("a", 0));
    }
}
