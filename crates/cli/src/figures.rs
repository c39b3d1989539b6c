//! Numbers as people read them.

use napa_units::Bytes;

/// A count with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in the unit that leaves one to three digits before the point.
pub fn duration_ns(ns: u64) -> String {
    let scaled = |unit_ns: f64, unit: &str| {
        let value = ns as f64 / unit_ns;
        if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(1e3, "µs"),
        1_000_000..1_000_000_000 => scaled(1e6, "ms"),
        _ => scaled(1e9, "s"),
    }
}

/// A size, rounded to the unit that a person would choose.
pub fn size(bytes: Bytes) -> String {
    match bytes.0 {
        0..0xa0_0000 => format!("{} KiB", count(bytes.0 >> 10)),
        0xa0_0000..0x4000_0000 => format!("{} MiB", bytes.0 >> 20),
        _ => format!("{:.1} GiB", bytes.0 as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        for (ns, expected) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (9_940, "9.9 µs"),
            (9_960, "10 µs"),
            (254_000, "254 µs"),
            (1_440_705, "1.4 ms"),
            (2_000_000_000, "2.0 s"),
        ] {
            assert_eq!(duration_ns(ns), expected);
        }
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (bytes, expected) in [
            (Bytes(0), "0 KiB"),
            (Bytes::kib(300), "300 KiB"),
            (Bytes::kib(1200), "1,200 KiB"),
            (Bytes::mib(96), "96 MiB"),
            (Bytes::mib(1536), "1.5 GiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
