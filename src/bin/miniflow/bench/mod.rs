//! `miniflow bench`: the engine beside what the machine itself can do, measured in one run.
//!
//! Machines change their speed within seconds, and two runs are never comparable. So everything
//! that is compared is measured in short slices, one after the other, round after round, and the
//! figure is the median of the quotients of the rounds.

pub(crate) mod clock;
mod engine;
mod host;
mod metric;
mod pin;
mod process_clock;
mod raw;
mod report;
mod rounds;
mod slice;
mod stats;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use self::clock::Clock;
use self::engine::EngineBench;
use self::host::Host;
use self::pin::Cpus;
use self::raw::Raw;
use self::report::Report;
use crate::error::{Error, Result};

/// Measure the engine beside the raw machine
///
/// Round trips and rates of the engine, and of what it is made of: a cache line, a bare ring, a
/// futex, pipes and sockets between two processes. All of it is interleaved in short slices, and
/// compared round by round. Leave the machine alone meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// How long to measure, in all
    #[arg(long, value_name = "S", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,

    /// Measure only what has one of these in its name (as in the JSON object "rounds")
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    fn wants(&self, key: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| key.contains(text))
    }
}

/// Measures, and returns the report.
pub(crate) fn run(args: &Args) -> Result<String> {
    let cpus = Cpus::pick()?;
    let clock = Clock::calibrated();
    let host = Host::describe(&cpus, &clock);
    // Before anything that starts threads, for it forks. Pinning is the slices' own business, so
    // that what is started here does not inherit it.
    let raw = Raw::start(&clock, cpus)?;
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "measuring for {} s ...", args.seconds);
    }
    // Alone, and before it shares this process with other engines.
    let idle = match args.wants("idle_cpu_percent") {
        true => Some(engine::idle_cpu_percent()?),
        false => None,
    };
    let engines = EngineBench::start(&clock, cpus)?;
    let mut slices = raw.slices();
    slices.extend(engines.slices());
    slices.retain(|slice| args.wants(&slice.metric.key()));
    if slices.is_empty() && idle.is_none() {
        return Err(Error::Unfit(format!(
            "nothing that can be measured here has a name with {} in it",
            args.only.join(" or ")
        )));
    }
    let findings = rounds::run(&clock, slices, Duration::from_secs(args.seconds.into()))?;
    let report = Report::new(host, &findings, idle);
    Ok(match args.json {
        true => report.json(),
        false => report.to_string(),
    })
}
