//! Numbers as people read them: three digits and a unit.

#![forbid(unsafe_code)]

use std::time::Duration;

/// `850 ns`, `1.25 us`, `38 ms`, `4.20 s`, `12 min 5 s`, `3 h 20 min`, `5 d 2 h`.
pub(crate) fn time(time: Duration) -> String {
    let s = time.as_secs();
    match time.as_nanos() {
        0 => "0 s".into(),
        ns @ ..1_000 => format!("{ns} ns"),
        ns @ ..1_000_000 => format!("{} us", three_digits(ns as f64 / 1e3)),
        ns @ ..1_000_000_000 => format!("{} ms", three_digits(ns as f64 / 1e6)),
        _ if s < 60 => format!("{} s", three_digits(time.as_secs_f64())),
        _ if s < 3_600 => format!("{} min {} s", s / 60, s % 60),
        _ if s < 86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// [`time`] in whole seconds, for what lasts.
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        s @ ..60 => format!("{s} s"),
        _ => time(age),
    }
}

/// `512 B`, `4.00 KiB`, `23.6 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = "";
    for next in UNITS {
        if value < 1023.5 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    format!("{} {unit}", three_digits(value))
}

/// `74 %`.
pub(crate) fn percent(share: f32) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// `1 task`, `2 tasks`.
pub(crate) fn plural(count: impl Into<u64>, what: &str) -> String {
    match count.into() {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// A number of at most four digits before the point with at least three digits in all.
fn three_digits(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_fits() {
        let shown = |ns| time(Duration::from_nanos(ns));
        assert_eq!(shown(0), "0 s");
        assert_eq!(shown(850), "850 ns");
        assert_eq!(shown(1_250), "1.25 us");
        assert_eq!(shown(38_400), "38.4 us");
        assert_eq!(shown(999_600_000), "1000 ms");
        assert_eq!(shown(4_200_000_000), "4.20 s");
        assert_eq!(shown(725_000_000_000), "12 min 5 s");
        assert_eq!(shown(12_000_000_000_000), "3 h 20 min");
        assert_eq!(shown(439_200_000_000_000), "5 d 2 h");
    }

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!(plural(1_u32, "task"), "1 task");
        assert_eq!(plural(0_u32, "task"), "0 tasks");
    }

    #[test]
    fn an_age_has_whole_seconds() {
        assert_eq!(age(Duration::from_millis(1_999)), "1 s");
        assert_eq!(age(Duration::ZERO), "0 s");
        assert_eq!(age(Duration::from_secs(61)), "1 min 1 s");
    }

    #[test]
    fn bytes_have_the_unit_below_a_thousand() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(4096), "4.00 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.00 MiB");
        assert_eq!(bytes(25_325_268_992), "23.6 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }
}
