//! The configuration base address of a PCI root that has no MCFG table, from the bytes of its `_CBA` object
//! (PCI Firmware 3.3 §4.1.3; ACPI 6.5 §20.2.2, §20.2.3, §20.2.5).

use crate::start_info::{u32_at, u64_at};

const DOUBLE_WORD_PREFIX: u8 = 0x0c;
const QUAD_WORD_PREFIX: u8 = 0x0e;
/// Method flags without arguments, then `Return`.
const METHOD_START: [u8; 2] = [0x00, 0xa4];

/// The value of the first `_CBA` in `aml`, whether it is a name or a method that returns a constant.
pub(super) fn of_root(aml: &[u8]) -> Option<u64> {
    let place = aml.windows(4).position(|name| name == b"_CBA")?;
    let object = aml.get(place + 4..)?;
    let value = object.strip_prefix(&METHOD_START).unwrap_or(object);
    match *value {
        [DOUBLE_WORD_PREFIX, _, _, _, _, ..] => Some(u64::from(u32_at(value, 1))),
        [QUAD_WORD_PREFIX, _, _, _, _, _, _, _, _, ..] => Some(u64_at(value, 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_address_is_read_from_names_and_methods() {
        for (bytes, expected) in [
            (b"\x14\x0c_CBA\x00\xa4\x0c\x00\x00\x00\xe0".as_slice(), Some(0xe000_0000)),
            (b"\x14\x10_CBA\x00\xa4\x0e\x00\x00\x00\x00\x01\x00\x00\x00", Some(1 << 32)),
            (b"\x08_CBA\x0c\x00\x00\x00\xb0", Some(0xb000_0000)),
            (b"\x08_CBA\x0c\x00\x00", None),
            (b"\x08_CBA\x01", None),
            (b"", None),
        ] {
            assert_eq!(of_root(bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_after_the_name_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..16)) {
            let mut bytes = b"_CBA".to_vec();
            bytes.extend(tail);
            let _ = of_root(&bytes);
        }
    }
}
