//! Figures as people read them.

use std::fmt;

use napa_units::Bytes;

/// A size, rounded to what a person wants to know: `0`, `812 KiB`, `312 MiB`, `1.4 GiB`.
#[derive(Clone, Copy)]
pub struct Figure(pub Bytes);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GIB: u64 = 1 << 30;
        const TIB: u64 = 1 << 40;
        match self.0.0 {
            0 => f.write_str("0"),
            bytes if bytes < 1 << 20 => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes if bytes < GIB => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes < TIB => write!(f, "{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB),
            bytes => write!(f, "{}.{} TiB", bytes / TIB, (bytes % TIB / (1 << 20) * 10) >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_two_or_three_digits_that_matter() {
        for (bytes, expected) in [
            (Bytes(0), "0"),
            (Bytes(1), "1 KiB"),
            (Bytes::kib(812), "812 KiB"),
            (Bytes::mib(312), "312 MiB"),
            (Bytes::mib(1536), "1.5 GiB"),
            (Bytes(Bytes::gib(2).0 - 1), "1.9 GiB"),
            (Bytes::gib(1536), "1.5 TiB"),
            (Bytes(u64::MAX), "16777215.9 TiB"),
        ] {
            assert_eq!(Figure(bytes).to_string(), expected);
        }
    }
}
