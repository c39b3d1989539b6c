//! Registers of an MC146818 (its data sheet, tables 2 to 6) and the RAM behind them. The time is an argument.

use std::time::Duration;

use super::calendar::WallTime;

/// Bytes that the index reaches.
const BYTES: usize = 128;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;
const D: u8 = 0x0d;
/// Where PCs keep the century, and where ACPI's FADT says that it is.
const CENTURY: u8 = 0x32;

/// Register A: an update is in progress or about to begin; the time may not be read.
const UPDATE_IN_PROGRESS: u8 = 0x80;
/// Register A after power-on: 32,768 Hz, periodic rate 1,024 Hz.
const A_RESET: u8 = 0x26;
/// Register B: updates are halted while the time is set.
const SET: u8 = 0x80;
/// Register B: binary instead of decimal digits.
const BINARY: u8 = 0x04;
/// Register B: hours 0 to 23 instead of 1 to 12 with a PM bit.
const HOURS_24: u8 = 0x02;
/// Register C: an update has ended since the last read.
const UPDATE_ENDED: u8 = 0x10;
/// Register D: the battery has held.
const VALID: u8 = 0x80;
const PM: u8 = 0x80;

/// An update takes 1,984 µs and is announced 244 µs before.
const UPDATE: Duration = Duration::from_micros(1984 + 244);

/// The registers and what the guest has changed about the time.
pub(super) struct Registers {
    bytes: [u8; BYTES],
    /// What the guest's clock shows beyond the host's, in seconds.
    shift: i64,
    /// The time being set, while updates are halted.
    halted: Option<WallTime>,
    /// The second in which register C was last read.
    update_seen: u64,
}

impl Default for Registers {
    fn default() -> Self {
        let mut bytes = [0; BYTES];
        bytes[usize::from(A)] = A_RESET;
        bytes[usize::from(B)] = HOURS_24;
        Self { bytes, shift: 0, halted: None, update_seen: 0 }
    }
}

impl Registers {
    /// Reads register `index` (0 to 127) at the time `now` since 1970.
    pub fn read(&mut self, index: u8, now: Duration) -> u8 {
        let time = self.time(now);
        match index {
            SECONDS => self.encode(time.second),
            MINUTES => self.encode(time.minute),
            HOURS => self.encode_hour(time.hour),
            DAY_OF_WEEK => self.encode(time.day_of_week()),
            DAY => self.encode(time.day),
            MONTH => self.encode(time.month),
            YEAR => self.encode(time.year.rem_euclid(100)),
            CENTURY => self.encode(time.year.div_euclid(100).rem_euclid(100)),
            A => self.byte(A) | self.update_in_progress(now),
            C => self.read_c(now),
            D => VALID,
            _ => self.byte(index),
        }
    }

    /// Writes register `index` (0 to 127).
    pub fn write(&mut self, index: u8, value: u8, now: Duration) {
        match index {
            SECONDS | MINUTES | HOURS | DAY | MONTH | YEAR | CENTURY => self.set_field(index, value, now),
            // It follows from the date.
            DAY_OF_WEEK => {}
            A => self.bytes[usize::from(A)] = value & !UPDATE_IN_PROGRESS,
            B => self.write_b(value, now),
            C | D => {}
            _ => self.bytes[usize::from(index) % BYTES] = value,
        }
    }

    fn byte(&self, index: u8) -> u8 {
        self.bytes[usize::from(index) % BYTES]
    }

    fn has_mode(&self, bit: u8) -> bool {
        self.byte(B) & bit != 0
    }

    /// What the guest's clock shows.
    fn time(&self, now: Duration) -> WallTime {
        self.halted.unwrap_or_else(|| WallTime::from_seconds(seconds(now) + self.shift))
    }

    fn update_in_progress(&self, now: Duration) -> u8 {
        let until_next = Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into());
        if self.halted.is_none() && until_next <= UPDATE { UPDATE_IN_PROGRESS } else { 0 }
    }

    fn read_c(&mut self, now: Duration) -> u8 {
        let before = std::mem::replace(&mut self.update_seen, now.as_secs());
        if self.halted.is_none() && before != now.as_secs() { UPDATE_ENDED } else { 0 }
    }

    fn write_b(&mut self, value: u8, now: Duration) {
        let time = self.time(now);
        self.bytes[usize::from(B)] = value;
        if value & SET != 0 {
            self.halted = Some(time);
        } else if self.halted.take().is_some() {
            self.shift = time.to_seconds() - seconds(now);
        }
    }

    fn set_field(&mut self, index: u8, value: u8, now: Duration) {
        let mut time = self.time(now);
        match index {
            SECONDS => time.second = self.decode(value).min(59),
            MINUTES => time.minute = self.decode(value).min(59),
            HOURS => time.hour = self.decode_hour(value),
            DAY => time.day = self.decode(value).clamp(1, 31),
            MONTH => time.month = self.decode(value).clamp(1, 12),
            YEAR => time.year += self.decode(value).min(99) - time.year.rem_euclid(100),
            _ => time.year = self.decode(value).min(99) * 100 + time.year.rem_euclid(100),
        }
        match &mut self.halted {
            Some(halted) => *halted = time,
            None => self.shift = time.to_seconds() - seconds(now),
        }
    }

    fn encode(&self, value: i64) -> u8 {
        let value = value as u8;
        if self.has_mode(BINARY) { value } else { value / 10 * 16 + value % 10 }
    }

    fn decode(&self, value: u8) -> i64 {
        let value = i64::from(value);
        if self.has_mode(BINARY) { value } else { value / 16 * 10 + value % 16 }
    }

    fn encode_hour(&self, hour: i64) -> u8 {
        if self.has_mode(HOURS_24) {
            return self.encode(hour);
        }
        let hour_12 = self.encode((hour + 11) % 12 + 1);
        if hour >= 12 { hour_12 | PM } else { hour_12 }
    }

    fn decode_hour(&self, value: u8) -> i64 {
        if self.has_mode(HOURS_24) {
            return self.decode(value).min(23);
        }
        let afternoon = if value & PM != 0 { 12 } else { 0 };
        self.decode(value & !PM).min(12) % 12 + afternoon
    }
}

fn seconds(now: Duration) -> i64 {
    i64::try_from(now.as_secs()).expect("the host's clock is within a thousand years of today")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2024-02-29 23:59:58 UTC, a Thursday.
    const NOW: Duration = Duration::from_secs(1_709_251_198);

    fn read_all(registers: &mut Registers, now: Duration) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, DAY_OF_WEEK, HOURS, MINUTES, SECONDS]
            .map(|index| registers.read(index, now))
    }

    #[test]
    fn the_time_is_the_hosts_in_utc() {
        let mut registers = Registers::default();
        assert_eq!(read_all(&mut registers, NOW), [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]);
        let later = NOW + Duration::from_secs(2);
        assert_eq!(read_all(&mut registers, later), [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00]);
    }

    #[test]
    fn digits_and_hours_follow_register_b() {
        let check = |mode, expected: [u8; 3]| {
            let mut registers = Registers::default();
            registers.write(B, mode, NOW);
            assert_eq!(
                [HOURS, MINUTES, SECONDS].map(|index| registers.read(index, NOW)),
                expected,
                "{mode:#x}"
            );
        };
        check(HOURS_24, [0x23, 0x59, 0x58]);
        check(HOURS_24 | BINARY, [23, 59, 58]);
        check(BINARY, [11 | PM, 59, 58]);
        check(0, [0x11 | PM, 0x59, 0x58]);
    }

    #[test]
    fn a_clock_that_was_set_goes_on_from_there() {
        let mut registers = Registers::default();
        registers.write(B, SET | HOURS_24, NOW);
        let fields = [(CENTURY, 0x19), (YEAR, 0x99), (MONTH, 0x12), (DAY, 0x31)];
        for (index, value) in fields.into_iter().chain([(HOURS, 0x23), (MINUTES, 0x59), (SECONDS, 0x59)]) {
            registers.write(index, value, NOW);
        }
        // Updates are halted: the time that is being set stands.
        let later = NOW + Duration::from_secs(5);
        assert_eq!(registers.read(SECONDS, later), 0x59);
        registers.write(B, HOURS_24, later);
        assert_eq!(read_all(&mut registers, later), [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59]);
        let next = later + Duration::from_secs(1);
        assert_eq!(read_all(&mut registers, next), [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
    }

    #[test]
    fn an_update_is_announced_and_reported_once() {
        let mut registers = Registers::default();
        let before = NOW + Duration::from_micros(997_700);
        let announced = NOW + Duration::from_micros(997_800);
        assert_eq!(registers.read(A, before), A_RESET);
        assert_eq!(registers.read(A, announced), A_RESET | UPDATE_IN_PROGRESS);
        registers.read(C, announced);
        assert_eq!(registers.read(C, announced), 0);
        assert_eq!(registers.read(C, NOW + Duration::from_secs(1)), UPDATE_ENDED);
        registers.write(B, SET | HOURS_24, NOW);
        assert_eq!(registers.read(A, announced), A_RESET, "a halted clock is not updated");
    }

    #[test]
    fn other_bytes_are_memory() {
        let mut registers = Registers::default();
        registers.write(0x40, 0xa5, NOW);
        registers.write(D, 0, NOW);
        assert_eq!(
            (registers.read(0x40, NOW), registers.read(0x41, NOW), registers.read(D, NOW)),
            (0xa5, 0, VALID)
        );
    }

    proptest! {
        #[test]
        fn any_sequence_of_writes_leaves_a_clock_that_reads(
            writes in proptest::collection::vec((0_u8..128, any::<u8>(), 0_u64..1 << 40), 0..100)
        ) {
            let mut registers = Registers::default();
            for (index, value, milliseconds) in writes {
                let now = Duration::from_millis(milliseconds);
                registers.write(index, value, now);
                let month = registers.read(MONTH, now);
                let month = registers.decode(month);
                prop_assert!((1..=12).contains(&month), "{}", month);
            }
        }
    }
}
