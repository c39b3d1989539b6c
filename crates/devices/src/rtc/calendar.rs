//! Seconds since 1970 to year, month and day (proleptic Gregorian, UTC), and back.

/// A point in time as a clock on the wall shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WallTime {
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

const DAY_SECONDS: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
const ERA_YEARS: i64 = 400;
/// Days from 0000-03-01, where the count of eras begins, to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

impl WallTime {
    /// The time `seconds` after 1970 began.
    pub fn from_seconds(seconds: i64) -> Self {
        let (days, second_of_day) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
        let (year, month, day) = date(days);
        Self {
            year,
            month,
            day,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }

    /// Seconds since 1970 began. Fields past their range count on into the next larger one.
    pub fn to_seconds(self) -> i64 {
        days(self.year, self.month, self.day) * DAY_SECONDS
            + self.hour * 3600
            + self.minute * 60
            + self.second
    }

    /// 1 (Sunday) to 7.
    pub fn day_of_week(self) -> i64 {
        // 1970-01-01 was a Thursday.
        (days(self.year, self.month, self.day) + 4).rem_euclid(7) + 1
    }
}

/// Year, month and day that begin `days` after 1970-01-01. The year is taken to begin in March, so that
/// the leap day is its last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (ERA_DAYS - 1);
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * ERA_YEARS + i64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to the date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(ERA_YEARS), year.rem_euclid(ERA_YEARS));
    let march_month = (month + 9).rem_euclid(12);
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates_are_right() {
        let check = |seconds, (year, month, day), (hour, minute, second), day_of_week| {
            let time = WallTime { year, month, day, hour, minute, second };
            assert_eq!(WallTime::from_seconds(seconds), time);
            assert_eq!(time.to_seconds(), seconds);
            assert_eq!(time.day_of_week(), day_of_week, "{time:?}");
        };
        check(0, (1970, 1, 1), (0, 0, 0), 5);
        check(951_782_399, (2000, 2, 28), (23, 59, 59), 2);
        check(951_782_400, (2000, 2, 29), (0, 0, 0), 3);
        check(1_709_251_199, (2024, 2, 29), (23, 59, 59), 5);
        check(4_107_542_400, (2100, 3, 1), (0, 0, 0), 2);
        check(-1, (1969, 12, 31), (23, 59, 59), 4);
    }

    proptest! {
        #[test]
        fn a_time_survives_the_way_there_and_back(seconds in -100_000_000_000_i64..1_000_000_000_000) {
            let time = WallTime::from_seconds(seconds);
            prop_assert_eq!(time.to_seconds(), seconds);
            prop_assert!((1..=12).contains(&time.month) && (1..=31).contains(&time.day));
            prop_assert_eq!((time.hour, time.minute, time.second) < (24, 60, 60), true);
            let next_day = WallTime::from_seconds(seconds + DAY_SECONDS);
            prop_assert_eq!(next_day.day_of_week() % 7, (time.day_of_week() + 1) % 7);
        }
    }
}
