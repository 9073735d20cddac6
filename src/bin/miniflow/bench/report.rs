//! What a run found: a table for people, one JSON object for programs.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use super::host::Host;
use super::metric::{COMPARISONS, Cores, Metric, Payload, Unit};
use super::rounds::{Findings, Ratio};
use super::stats::{Percentiles, median, rounded};

/// Rounds whose ping-pong was faster than this were measured in the machine's fast mode.
const FAST_NS: f64 = 200.0;

/// All of a run, as `--json` prints it. What was not measured is null or missing.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    miniflow: &'static str,
    host: Host,
    plan: PlanReport,
    raw: RawReport,
    pipe_rtt_ns: Option<Percentiles>,
    pipe_one_core_rtt_ns: Option<Percentiles>,
    socketpair_rtt_ns: Option<Percentiles>,
    socketpair_one_core_rtt_ns: Option<Percentiles>,
    futex_rtt_ns: Option<Percentiles>,
    futex_one_core_rtt_ns: Option<Percentiles>,
    /// Medians of the quotients of the rounds.
    ratios: BTreeMap<&'static str, Option<f64>>,
    engine: EngineReport,
    fast_rounds: FastReport,
    /// The figure of every round: medians in nanoseconds, rates per second, and the quotients.
    rounds: BTreeMap<String, Vec<f64>>,
    /// The same rows as in the table.
    #[serde(skip)]
    table: String,
}

#[derive(Debug, Serialize)]
struct PlanReport {
    seconds: f64,
    rounds: u32,
    slice_ms: f64,
}

#[derive(Debug, Serialize)]
struct RawReport {
    pingpong_rtt_ns: Option<Percentiles>,
    ring_rtt_ns: Option<Percentiles>,
    ring_tasks_per_s: Option<f64>,
    ring_tasks_per_s_by_in_flight: BTreeMap<u32, f64>,
}

#[derive(Debug, Serialize)]
struct EngineReport {
    rtt_ns: BTreeMap<&'static str, Percentiles>,
    sleep_rtt_ns: Option<Percentiles>,
    sleep_one_core_rtt_ns: Option<Percentiles>,
    one_core_rtt_ns: Option<Percentiles>,
    busy_rtt_ns: Option<Percentiles>,
    tasks_per_s: BTreeMap<String, f64>,
    tasks_per_s_by_in_flight: BTreeMap<u32, f64>,
    idle_cpu_percent: Option<f64>,
}

/// The rounds in which the ping-pong says that the machine was in its fast mode.
#[derive(Debug, Serialize)]
struct FastReport {
    pingpong_below_ns: f64,
    rounds: usize,
    ring_tasks_per_s: Option<f64>,
    engine_tasks_per_s: Option<f64>,
}

/// The engine's figure that is compared with the bare ring.
const ENGINE_RATE: Metric = Metric::EngineRate {
    workers: 1,
    threads: 1,
};

impl Report {
    /// Puts together what `findings` say; `idle_cpu_percent` is measured apart from the rounds.
    pub(super) fn new(host: Host, findings: &Findings, idle_cpu_percent: Option<f64>) -> Self {
        let percentiles = |metric| findings.percentiles(metric).map(tidy);
        let rate = |metric| findings.median(metric).map(whole);
        let slices = u32::try_from(findings.series.len()).unwrap_or(u32::MAX);
        let fast = |metric| findings.rounds_while(metric, Metric::PingPong, FAST_NS);
        Self {
            miniflow: env!("CARGO_PKG_VERSION"),
            plan: PlanReport {
                seconds: (findings.plan.slice * slices * findings.plan.rounds).as_secs_f64(),
                rounds: findings.plan.rounds,
                slice_ms: rounded(findings.plan.slice.as_secs_f64() * 1e3, 2),
            },
            raw: RawReport {
                pingpong_rtt_ns: percentiles(Metric::PingPong),
                ring_rtt_ns: percentiles(Metric::RingRtt),
                ring_tasks_per_s: rate(Metric::RING_RATE),
                ring_tasks_per_s_by_in_flight: rates(findings, |metric| match metric {
                    Metric::RingRate { in_flight } => Some(in_flight),
                    _ => None,
                }),
            },
            pipe_rtt_ns: percentiles(Metric::Pipe(Cores::Apart)),
            pipe_one_core_rtt_ns: percentiles(Metric::Pipe(Cores::One)),
            socketpair_rtt_ns: percentiles(Metric::Socketpair(Cores::Apart)),
            socketpair_one_core_rtt_ns: percentiles(Metric::Socketpair(Cores::One)),
            futex_rtt_ns: percentiles(Metric::Futex(Cores::Apart)),
            futex_one_core_rtt_ns: percentiles(Metric::Futex(Cores::One)),
            ratios: COMPARISONS
                .iter()
                .map(|comparison| {
                    let ratio = findings.ratio(comparison);
                    (comparison.key, ratio.map(|ratio| rounded(ratio.median, 3)))
                })
                .collect(),
            engine: EngineReport {
                rtt_ns: Payload::ALL
                    .into_iter()
                    .filter_map(|payload| {
                        Some((payload.key(), percentiles(Metric::EngineRtt(payload))?))
                    })
                    .collect(),
                sleep_rtt_ns: percentiles(Metric::EngineSleepRtt(Cores::Apart)),
                sleep_one_core_rtt_ns: percentiles(Metric::EngineSleepRtt(Cores::One)),
                one_core_rtt_ns: percentiles(Metric::EngineOneCoreRtt),
                busy_rtt_ns: percentiles(Metric::EngineBusyRtt),
                tasks_per_s: rates(findings, |metric| match metric {
                    Metric::EngineRate { workers, threads } => {
                        Some(format!("w{workers}_t{threads}"))
                    }
                    _ => None,
                }),
                tasks_per_s_by_in_flight: rates(findings, |metric| match metric {
                    Metric::EngineInFlight(tasks) => Some(tasks),
                    _ => None,
                }),
                idle_cpu_percent: idle_cpu_percent.map(|percent| rounded(percent, 3)),
            },
            fast_rounds: FastReport {
                pingpong_below_ns: FAST_NS,
                rounds: fast(Metric::PingPong).len(),
                ring_tasks_per_s: median(&fast(Metric::RING_RATE)).map(whole),
                engine_tasks_per_s: median(&fast(ENGINE_RATE)).map(whole),
            },
            rounds: every_round(findings),
            table: table(findings),
            host,
        }
    }

    /// The JSON object, and the end of its line.
    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("string keys and finite numbers only");
        text.push('\n');
        text
    }
}

/// The medians of all metrics that `key` knows, by its keys.
fn rates<K: Ord>(findings: &Findings, key: impl Fn(Metric) -> Option<K>) -> BTreeMap<K, f64> {
    findings
        .series
        .keys()
        .filter_map(|metric| Some((key(*metric)?, whole(findings.median(*metric)?))))
        .collect()
}

/// The figures of the single rounds, and the quotients of the single rounds.
fn every_round(findings: &Findings) -> BTreeMap<String, Vec<f64>> {
    let figures = findings.series.iter().map(|(metric, series)| {
        let digits = match metric.unit() {
            Unit::Nanoseconds => 1,
            Unit::PerSecond => 0,
        };
        (metric.key(), tidy_all(&series.rounds, digits))
    });
    let ratios = COMPARISONS.iter().filter_map(|comparison| {
        let ratio = findings.ratio(comparison)?;
        Some((comparison.key.to_owned(), tidy_all(&ratio.rounds, 3)))
    });
    figures.chain(ratios).collect()
}

fn tidy(percentiles: Percentiles) -> Percentiles {
    Percentiles {
        p50: rounded(percentiles.p50, 1),
        p99: rounded(percentiles.p99, 1),
        p999: rounded(percentiles.p999, 1),
    }
}

fn tidy_all(values: &[f64], digits: i32) -> Vec<f64> {
    values.iter().map(|value| rounded(*value, digits)).collect()
}

fn whole(rate: f64) -> f64 {
    rounded(rate, 0)
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        writeln!(f, "miniflow {} bench, {}", self.miniflow, host.date)?;
        write!(f, "  {} ({}), Linux {}", host.cpu, host.arch, host.kernel)?;
        let machine = match host.virtual_machine {
            true => ", virtual machine",
            false => "",
        };
        writeln!(f, "{machine}")?;
        write!(
            f,
            "  {} processor(s), load {} before",
            host.cpus, host.load_before
        )?;
        write!(f, "; pinned to {}", host.host_cpu)?;
        match host.other_cpu {
            Some(cpu) if host.same_core => write!(f, " and {cpu} (two threads of one core)")?,
            Some(cpu) => write!(f, " and {cpu}")?,
            None => write!(f, ", for want of a second: nothing that spins is measured")?,
        }
        let (clock, cost) = (host.clock, host.clock_read_ns);
        writeln!(f, "\n  clock: {clock}, {cost} ns a reading, taken off")?;
        let PlanReport {
            rounds, slice_ms, ..
        } = self.plan;
        writeln!(f, "  {rounds} rounds of {slice_ms} ms slices, interleaved")?;
        f.write_str(&self.table)?;
        let fast = &self.fast_rounds;
        if self.raw.pingpong_rtt_ns.is_some() {
            write!(
                f,
                "\nfast mode (ping-pong < {FAST_NS} ns): {} of {} rounds",
                fast.rounds, rounds
            )?;
            for (name, rate) in [
                ("raw ring echo", fast.ring_tasks_per_s),
                ("engine", fast.engine_tasks_per_s),
            ] {
                if let Some(rate) = rate {
                    write!(f, "; {name} {} M/s", millions(rate))?;
                }
            }
            writeln!(f)?;
        }
        if let Some(percent) = self.engine.idle_cpu_percent {
            writeln!(f, "idle engine: {percent:.3} % of one processor")?;
        }
        Ok(())
    }
}

/// The three tables: round trips, rates, ratios.
fn table(findings: &Findings) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = round_trips(&mut text, findings);
    let _ = throughput(&mut text, findings);
    let _ = quotients(&mut text, findings);
    text
}

fn round_trips(text: &mut String, findings: &Findings) -> fmt::Result {
    writeln!(
        text,
        "\n{:<38}{:>10}{:>10}{:>10}{:>22}",
        "round trip, ns", "p50", "p99", "p99.9", "p50 of the rounds"
    )?;
    for (metric, series) in &findings.series {
        if let Some(Percentiles { p50, p99, p999 }) = findings.percentiles(*metric) {
            let (low, high) = range(&series.rounds);
            let range = format!("{low:.0}..{high:.0}");
            writeln!(
                text,
                "{:<38}{p50:>10.0}{p99:>10.0}{p999:>10.0}{range:>22}",
                metric.to_string()
            )?;
        }
    }
    Ok(())
}

fn throughput(text: &mut String, findings: &Findings) -> fmt::Result {
    let mut rows = findings
        .series
        .iter()
        .filter(|(metric, _)| metric.unit() == Unit::PerSecond)
        .peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    writeln!(
        text,
        "\n{:<38}{:>10}{:>42}",
        "pipelined, million/s", "median", "rounds"
    )?;
    for (metric, series) in rows {
        let (low, high) = range(&series.rounds);
        let rate = millions(median(&series.rounds).unwrap_or_default());
        let range = format!("{}..{}", millions(low), millions(high));
        writeln!(text, "{:<38}{rate:>10}{range:>42}", metric.to_string())?;
    }
    Ok(())
}

fn quotients(text: &mut String, findings: &Findings) -> fmt::Result {
    let mut rows = COMPARISONS
        .iter()
        .filter_map(|comparison| Some((comparison, findings.ratio(comparison)?)))
        .peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    writeln!(
        text,
        "\n{:<38}{:>10}{:>20}{:>22}",
        "ratio, round by round", "median", "medians of sides", "rounds"
    )?;
    for (comparison, ratio) in rows {
        let Ratio {
            median,
            rounds,
            over,
            under,
        } = ratio;
        let sides = match comparison.over.unit() {
            Unit::Nanoseconds => format!("{over:.0} / {under:.0} ns"),
            Unit::PerSecond => format!("{} / {} M/s", millions(over), millions(under)),
        };
        let (low, high) = range(&rounds);
        let range = format!("{low:.2}..{high:.2}");
        writeln!(
            text,
            "{:<38}{median:>10.2}{sides:>20}{range:>22}",
            comparison.key
        )?;
    }
    Ok(())
}

/// The least and the greatest of `values`.
fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

/// A rate per second in millions, as it stands in a table.
fn millions(rate: f64) -> String {
    format!("{:.2}", rate / 1e6)
}
