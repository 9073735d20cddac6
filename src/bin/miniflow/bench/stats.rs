//! Percentiles, medians, and ratios round by round.

#![forbid(unsafe_code)]

use hdrhistogram::Histogram;
use serde::Serialize;

use super::clock::as_f64;

/// Times of many round trips, in ticks of the clock.
pub(super) type Times = Histogram<u64>;

/// Longest time that a histogram tells apart, in ticks; the watchdog ends anything longer.
const LONGEST: u64 = 1 << 36;

/// An empty histogram with three significant digits.
pub(super) fn times() -> Times {
    Times::new_with_bounds(1, LONGEST, 3).expect("the bounds are constant and in order")
}

/// What is told of a distribution; nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

/// The value below which the share `quantile` of all times lies, in nanoseconds.
pub(super) fn percentile(times: &Times, quantile: f64, ns_per_tick: f64) -> f64 {
    as_f64(times.value_at_quantile(quantile)) * ns_per_tick
}

/// The middle of `values`: the mean of the two middle ones if their number is even.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted[sorted.len() / 2 - 1];
    Some(f64::midpoint(lower, upper))
}

/// `over / under` for each round that has both; a zero below has no ratio.
pub(super) fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    over.iter()
        .zip(under)
        .filter(|(_, under)| **under > 0.0)
        .map(|(over, under)| over / under)
        .collect()
}

/// `value` with `digits` decimals, so that a report does not pretend to more.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_one_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn median_shrugs_off_an_outlier() {
        assert_eq!(median(&[1.0, 1.1, 900.0, 1.2, 0.9]), Some(1.1));
    }

    #[test]
    fn percentiles_of_a_uniform_distribution() {
        let mut times = times();
        for value in 1..=10_000 {
            times.record(value).unwrap();
        }
        // Three significant digits: within a thousandth; each tick is half a nanosecond.
        for (quantile, expected) in [(0.5, 2_500.0), (0.99, 4_950.0), (0.999, 4_995.0)] {
            let value = percentile(&times, quantile, 0.5);
            assert!((value / expected - 1.0).abs() < 1e-3, "{quantile}: {value}");
        }
    }

    #[test]
    fn a_rare_slow_trip_is_seen_only_far_out() {
        let mut times = times();
        times.record_n(100, 998).unwrap();
        times.record_n(50_000, 2).unwrap();
        assert!((percentile(&times, 0.99, 1.0) - 100.0).abs() < 1.0);
        assert!(percentile(&times, 0.999, 1.0) > 49_000.0);
    }

    #[test]
    fn times_beyond_the_longest_are_kept_as_the_longest() {
        let mut times = times();
        times.saturating_record(u64::MAX);
        assert_eq!(times.len(), 1);
        assert!(times.max() >= LONGEST);
    }

    #[test]
    fn ratios_pair_rounds_not_medians() {
        // The machine was three times slower in the second round: the ratio does not care.
        let (over, under) = ([150.0, 450.0, 160.0], [100.0, 300.0, 100.0]);
        assert_eq!(ratios(&over, &under), [1.5, 1.5, 1.6]);
        assert_eq!(median(&ratios(&over, &under)), Some(1.5));
    }

    #[test]
    fn ratios_leave_out_what_has_no_partner() {
        assert_eq!(ratios(&[1.0, 2.0, 3.0], &[2.0, 0.0]), [0.5]);
        assert_eq!(ratios(&[], &[1.0]), [0.0; 0]);
    }

    #[test]
    fn rounding_keeps_the_digits_asked_for() {
        assert_eq!(rounded(1.234_56, 2), 1.23);
        assert_eq!(rounded(123_456_789.4, 0), 123_456_789.0);
    }
}
