//! Numbers as the command line writes them: sizes with K, M or G, decimals, addresses.

/// A number that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadNumber;

/// A size in bytes: digits, then at most one of `K`, `M`, `G` (powers of two).
pub fn parse_size(text: &str) -> Result<u64, BadNumber> {
    let shift = match text.as_bytes().last() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let number = parse_u64(digits)?;
    number.checked_mul(1 << shift).ok_or(BadNumber)
}

/// A whole number in decimal: digits only, no sign.
pub fn parse_u64(text: &str) -> Result<u64, BadNumber> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadNumber);
    }
    text.parse().map_err(|_| BadNumber)
}

/// A decimal with at most three places, in thousandths: `0.99` is 990.
pub fn parse_thousandths(text: &str) -> Result<u64, BadNumber> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    if places.len() > 3 {
        return Err(BadNumber);
    }
    let scale = 10_u64.pow(3 - places.len() as u32);
    let thousandths = parse_u64(places)? * scale;
    parse_u64(whole)?.checked_mul(1000).and_then(|whole| whole.checked_add(thousandths)).ok_or(BadNumber)
}

/// An IPv4 address in dotted decimal.
pub fn parse_ipv4(text: &str) -> Result<[u8; 4], BadNumber> {
    let mut address = [0; 4];
    let mut parts = text.split('.');
    for byte in &mut address {
        let number = parse_u64(parts.next().ok_or(BadNumber)?)?;
        *byte = u8::try_from(number).map_err(|_| BadNumber)?;
    }
    if parts.next().is_some() { Err(BadNumber) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_take_powers_of_two_and_nothing_else() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("4096", Ok(4096)),
            ("64K", Ok(64 << 10)),
            ("3M", Ok(3 << 20)),
            ("2G", Ok(2 << 30)),
            ("", Err(BadNumber)),
            ("M", Err(BadNumber)),
            ("64k", Err(BadNumber)),
            ("1T", Err(BadNumber)),
            ("-1", Err(BadNumber)),
            ("+1", Err(BadNumber)),
            ("1.5G", Err(BadNumber)),
            ("18446744073709551615G", Err(BadNumber)),
            ("18446744073709551616", Err(BadNumber)),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn decimals_keep_three_places() {
        for (text, expected) in [
            ("0.99", Ok(990)),
            ("1", Ok(1000)),
            ("1.0", Ok(1000)),
            ("0.123", Ok(123)),
            ("0.1234", Err(BadNumber)),
            (".5", Err(BadNumber)),
            ("1.", Err(BadNumber)),
            ("18446744073709551615", Err(BadNumber)),
        ] {
            assert_eq!(parse_thousandths(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_have_four_bytes() {
        assert_eq!(parse_ipv4("10.0.2.15"), Ok([10, 0, 2, 15]));
        for text in ["", "10.0.2", "10.0.2.256", "10.0.2.1.1", "a.b.c.d", "10..2.1"] {
            assert_eq!(parse_ipv4(text), Err(BadNumber), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,24}") {
            let _ = (parse_size(&text), parse_thousandths(&text), parse_ipv4(&text));
        }
    }
}
