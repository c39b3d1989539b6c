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

/// A size in five characters at most, for columns: `512K`, `9.5M`, `512M`, `1.5G`.
pub fn short_size(bytes: Bytes) -> String {
    let scaled = |shift: u32, whole_from: f64, unit: &str| {
        let value = bytes.0 as f64 / (1_u64 << shift) as f64;
        if value < whole_from { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
    };
    match bytes.0 {
        0 => "0".into(),
        1..0x10_0000 => format!("{}K", bytes.0 >> 10),
        0x10_0000..0x4000_0000 => format_mebibytes(bytes),
        0x4000_0000..0x100_0000_0000 => scaled(30, 99.95, "G"),
        _ => scaled(40, 99.95, "T"),
    }
}

/// Whole mebibytes from ten on. They are rounded down: 1,023.9 MiB are not 1,024.
fn format_mebibytes(bytes: Bytes) -> String {
    match bytes.0 {
        0..0xa0_0000 => format!("{:.1}M", ((bytes.0 * 10) >> 20) as f64 / 10.0),
        _ => format!("{}M", bytes.0 >> 20),
    }
}

/// A share, 0 to 1, in per cent with one place.
pub fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
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

    #[test]
    fn short_sizes_fit_in_five_characters() {
        for (bytes, expected) in [
            (Bytes(0), "0"),
            (Bytes(1), "0K"),
            (Bytes::kib(1023), "1023K"),
            (Bytes::mib(1), "1.0M"),
            (Bytes::kib(10 * 1024 - 1), "9.9M"),
            (Bytes::mib(10), "10M"),
            (Bytes::kib((1 << 20) - 1), "1023M"),
            (Bytes::gib(1), "1.0G"),
            (Bytes::mib(102_390), "100G"),
            (Bytes::gib(1023), "1023G"),
            (Bytes::gib(1536), "1.5T"),
            (Bytes::gib(2048 * 1024), "2048T"),
        ] {
            assert_eq!(short_size(bytes), expected);
        }
        assert_eq!(percent(0.125), "12.5");
    }
}
