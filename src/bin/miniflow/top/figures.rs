//! Numbers as they stand in a narrow column: five characters, six for an age.

use std::time::Duration;

/// A count: exact up to four digits, then with about three significant ones.
pub(crate) fn count(number: u64) -> String {
    match number {
        0..=9_999 => number.to_string(),
        _ => in_units(number as f64, 1e3, &["", "k", "M", "G", "T", "P", "E"]),
    }
}

/// How many in a second; `None` where that is not known.
pub(crate) fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => "-".into(),
        Some(rate) if rate < 0.05 => "0".into(),
        Some(rate) if rate < 99.95 => format!("{rate:.1}"),
        Some(rate) if rate < 9_999.5 => format!("{rate:.0}"),
        Some(rate) => in_units(rate, 1e3, &["", "k", "M", "G", "T", "P", "E"]),
    }
}

/// How long something takes; `None` where that is not known.
pub(crate) fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".into() };
    let ns = time.as_nanos() as f64;
    match ns {
        ..0.5 => "0".into(),
        ..999.5e9 => in_units(ns, 1e3, &["ns", "us", "ms", "s"]),
        _ => age(time),
    }
}

/// How long ago something was, or how long something has lived.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The time from one moment to another, both in milliseconds since 1970; nothing if the clock was
/// put back meanwhile.
pub(crate) fn between(earlier_ms: i64, later_ms: i64) -> Duration {
    let ms = later_ms.saturating_sub(earlier_ms);
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// Memory.
pub(crate) fn bytes(bytes: u64) -> String {
    in_units(bytes as f64, 1024.0, &["B", "K", "M", "G", "T", "P", "E"])
}

/// A share of a whole, or of a processor; `None` where it is not known.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.0}", share * 100.0))
}

/// With the unit that leaves one to three digits before the point; one digit behind it, of what is
/// not counted singly, where five characters allow it.
fn in_units(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    let room = if name.len() < 2 { 99.95 } else { 9.95 };
    let digits = usize::from(unit > 0 && number < room);
    format!("{number:.digits$}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_up_to_four_digits() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (12_345_678, "12.3M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn times_take_the_unit_that_fits() {
        for (ns, text) in [
            (0, "0"),
            (256, "256ns"),
            (1_280, "1.3us"),
            (12_800, "13us"),
            (999_499, "999us"),
            (1_250_000, "1.2ms"),
            (999_499_999, "999ms"),
            (1_000_000_000, "1.0s"),
            (137_000_000_000, "137s"),
            (1_000_000_000_000, "16m40s"),
        ] {
            assert_eq!(time(Some(Duration::from_nanos(ns))), text);
        }
        assert_eq!(time(None), "-");
    }

    #[test]
    fn ages_are_told_in_their_two_largest_units() {
        for (seconds, text) in [
            (59, "59s"),
            (61, "1m01s"),
            (3_661, "1h01m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        assert_eq!(between(5, 3), Duration::ZERO);
    }

    #[test]
    fn whatever_the_number_is_it_keeps_to_its_column() {
        for exponent in 0..64 {
            for number in [1 << exponent, (1 << exponent) - 1, u64::MAX >> exponent] {
                assert!(count(number).len() <= 5, "{}", count(number));
                assert!(bytes(number).len() <= 5, "{}", bytes(number));
                let per_second = rate(Some(number as f64));
                assert!(per_second.len() <= 5, "{per_second}");
                let short = time(Some(Duration::from_nanos(number % 999_000_000_000)));
                assert!(short.len() <= 5, "{short}");
            }
        }
    }
}
