//! The sleep type of S5, from the bytes of `Name (_S5, Package () { type, … })` (ACPI 6.5 §7.4.2, §20.2.5).

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const BYTE_PREFIX: u8 = 0x0a;

/// The first element of `_S5` in `aml`; none if it is absent or not a small constant.
pub(super) fn of_s5(aml: &[u8]) -> Option<u8> {
    let place = aml.windows(4).position(|name| name == b"_S5_")?;
    let named =
        place > 0 && (aml[place - 1] == NAME_OP || place > 1 && aml[place - 2..place] == [NAME_OP, b'\\']);
    let package = aml.get(place + 4..)?;
    if !named || *package.first()? != PACKAGE_OP {
        return None;
    }
    // The two high bits of the first length byte say how many more there are; then comes the number of elements.
    let more = usize::from(*package.get(1)? >> 6);
    match *package.get(3 + more..)? {
        [value @ (0 | 1), ..] => Some(value),
        [BYTE_PREFIX, value, ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sleep_type_is_read_in_each_of_its_encodings() {
        for (bytes, expected) in [
            (b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x00".as_slice(), Some(5)),
            (b"xx\x08\\_S5_\x12\x06\x04\x0a\x07\x00", Some(7)),
            (b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00", Some(0)),
            (b"\x08_S5_\x12\x47\x00\x04\x01\x00\x00\x00", Some(1)),
            (b"\x08_S5_\x12\x06", None),
            (b"\x08_S5_\x0a\x05", None),
            (b"_S5_\x12\x06\x04\x0a\x05", None),
            (b"", None),
        ] {
            assert_eq!(of_s5(bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_after_the_name_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..16)) {
            let mut bytes = b"\x08_S5_".to_vec();
            bytes.extend(tail);
            let _ = of_s5(&bytes);
        }
    }
}
