//! Rounds: every slice once a round, and what all rounds together say.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Clock;
use super::metric::{Comparison, Metric, Unit};
use super::slice::{Outcome, Slice};
use super::stats::{self, Percentiles, Times, median, percentile};
use crate::error::Result;

/// Fewer rounds than this do not make a median.
const FEWEST: u32 = 5;

/// A slice should be long enough for some hundred sleeping round trips, and short enough that the
/// machine seldom changes its mode within two of them.
const SLICE: Duration = Duration::from_millis(25);

/// How a time budget is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) rounds: u32,
    pub(super) slice: Duration,
}

impl Plan {
    /// Divides `budget` over rounds of `slices` slices; the rounds are odd in number, so that
    /// their median is one of them.
    pub(super) fn divide(budget: Duration, slices: usize) -> Self {
        let slices = u32::try_from(slices.max(1)).unwrap_or(u32::MAX);
        let per_round = SLICE.saturating_mul(slices).as_nanos().max(1);
        let rounds = u32::try_from(budget.as_nanos() / per_round).unwrap_or(u32::MAX);
        let rounds = (rounds.max(FEWEST) - 1) | 1;
        Self {
            rounds,
            slice: budget / rounds.saturating_mul(slices),
        }
    }
}

/// What all rounds found of one metric.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The figure of each round: the median time in nanoseconds, or the rate per second.
    pub(super) rounds: Vec<f64>,
    /// Every single time of all rounds.
    times: Option<Times>,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) plan: Plan,
    pub(super) series: BTreeMap<Metric, Series>,
    ns_per_tick: f64,
}

/// A quotient of two metrics, and its two sides.
#[derive(Debug)]
pub(super) struct Ratio {
    /// The median of the quotients of the rounds.
    pub(super) median: f64,
    /// The quotient of each round.
    pub(super) rounds: Vec<f64>,
    /// The medians of the two sides.
    pub(super) over: f64,
    pub(super) under: f64,
}

/// Runs all of `slices` in turn, round after round, for about `budget`.
pub(super) fn run(clock: &Clock, mut slices: Vec<Slice<'_>>, budget: Duration) -> Result<Findings> {
    slices.sort_by_key(|slice| slice.metric);
    let plan = Plan::divide(budget, slices.len());
    let mut findings = Findings {
        plan,
        series: BTreeMap::new(),
        ns_per_tick: clock.ns_per_tick(),
    };
    for _ in 0..plan.rounds {
        for slice in &mut slices {
            let outcome = slice.run(plan.slice)?;
            findings.add(slice.metric, outcome);
        }
        // There and back again (A B, B A, A B ...): a slow drift favours neither side.
        slices.reverse();
    }
    Ok(findings)
}

impl Findings {
    fn add(&mut self, metric: Metric, outcome: Outcome) {
        let series = self.series.entry(metric).or_default();
        match outcome {
            Outcome::Rate(rate) => series.rounds.push(rate),
            Outcome::Latency(times) => {
                series
                    .rounds
                    .push(percentile(&times, 0.5, self.ns_per_tick));
                series
                    .times
                    .get_or_insert_with(stats::times)
                    .add(times)
                    .expect("all histograms have the same bounds");
            }
        }
    }

    /// The median of all rounds.
    pub(super) fn median(&self, metric: Metric) -> Option<f64> {
        median(&self.series.get(&metric)?.rounds)
    }

    /// The median of the medians of the rounds; the tail over all round trips together, because a
    /// single slice has too few of them.
    pub(super) fn percentiles(&self, metric: Metric) -> Option<Percentiles> {
        let series = self.series.get(&metric)?;
        let times = series.times.as_ref()?;
        Some(Percentiles {
            p50: median(&series.rounds)?,
            p99: percentile(times, 0.99, self.ns_per_tick),
            p999: percentile(times, 0.999, self.ns_per_tick),
        })
    }

    pub(super) fn ratio(&self, comparison: &Comparison) -> Option<Ratio> {
        let over = self.series.get(&comparison.over)?;
        let under = self.series.get(&comparison.under)?;
        let rounds = stats::ratios(&over.rounds, &under.rounds);
        Some(Ratio {
            median: median(&rounds)?,
            rounds,
            over: median(&over.rounds)?,
            under: median(&under.rounds)?,
        })
    }

    /// The rates of `metric` in those rounds in which `gate` was below `limit`.
    pub(super) fn rounds_while(&self, metric: Metric, gate: Metric, limit: f64) -> Vec<f64> {
        debug_assert_eq!(gate.unit(), Unit::Nanoseconds);
        let (Some(series), Some(gate)) = (self.series.get(&metric), self.series.get(&gate)) else {
            return Vec::new();
        };
        series
            .rounds
            .iter()
            .zip(&gate.rounds)
            .filter(|(_, gate)| **gate < limit)
            .map(|(value, _)| *value)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::bench::metric::Cores;

    const OVER: Metric = Metric::Pipe(Cores::One);
    const UNDER: Metric = Metric::PingPong;

    /// `run` over two metrics that answer from a script, one number a round.
    fn scripted(over: &[u64], under: &[u64]) -> Findings {
        let clock = Clock::calibrated();
        let slice = |metric, script: Vec<u64>| {
            let next = Cell::new(0);
            Slice::new(metric, move |_| {
                let mut times = stats::times();
                times.record(script[next.get() % script.len()]).unwrap();
                next.set(next.get() + 1);
                Ok(Outcome::Latency(times))
            })
        };
        let slices = vec![slice(OVER, over.to_vec()), slice(UNDER, under.to_vec())];
        run(&clock, slices, Duration::from_millis(1)).unwrap()
    }

    #[test]
    fn a_budget_is_spent_and_the_rounds_are_odd() {
        for (seconds, slices) in [(1, 10), (10, 9), (20, 12), (20, 31), (3_600, 31)] {
            let budget = Duration::from_secs(seconds);
            let plan = Plan::divide(budget, slices);
            assert!(plan.rounds >= FEWEST && plan.rounds % 2 == 1, "{plan:?}");
            let spent = plan.slice * plan.rounds * u32::try_from(slices).unwrap();
            assert!(spent <= budget, "{plan:?}");
            assert!(budget - spent < Duration::from_millis(1), "{plan:?}");
            assert!(plan.slice <= 2 * SLICE, "{plan:?}");
        }
    }

    #[test]
    fn no_slices_are_no_division_by_zero() {
        assert!(Plan::divide(Duration::from_secs(1), 0).rounds >= FEWEST);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_own_ratios() {
        // The machine doubles its times in rounds 2 and 4; the medians of the sides do not know
        // of each other, the rounds do.
        let findings = scripted(&[150, 300, 150, 300, 150], &[100, 200, 100, 200, 100]);
        let comparison = Comparison {
            key: "test",
            over: OVER,
            under: UNDER,
        };
        let ratio = findings.ratio(&comparison).unwrap();
        assert_eq!(ratio.rounds.len(), 5);
        assert!((ratio.median - 1.5).abs() < 0.01, "{ratio:?}");
        assert!((ratio.over / ratio.under - 1.5).abs() < 0.02, "{ratio:?}");
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let findings = scripted(&[1], &[1]);
        assert_eq!(findings.median(Metric::RingRtt), None);
        assert_eq!(findings.percentiles(Metric::RingRtt), None);
        assert!(
            findings
                .rounds_while(Metric::RingRtt, UNDER, 1e9)
                .is_empty()
        );
    }

    #[test]
    fn only_the_fast_rounds_are_picked() {
        let findings = scripted(
            &[1_000, 2_000, 3_000, 4_000, 5_000],
            &[100, 900, 100, 900, 900],
        );
        let limit = 500.0 * findings.ns_per_tick;
        assert_eq!(findings.rounds_while(OVER, UNDER, limit).len(), 2);
    }

    #[test]
    fn rounds_go_there_and_back() {
        let log = RefCell::new(Vec::new());
        let slice = |metric| {
            let log = &log;
            Slice::new(metric, move |_| {
                log.borrow_mut().push(metric);
                Ok(Outcome::Rate(1.0))
            })
        };
        let slices = vec![slice(OVER), slice(UNDER)];
        run(&Clock::calibrated(), slices, Duration::from_millis(1)).unwrap();
        let log = log.into_inner();
        assert_eq!(log[..4], [UNDER, OVER, OVER, UNDER]);
        assert_eq!(log.len(), 10);
    }
}
