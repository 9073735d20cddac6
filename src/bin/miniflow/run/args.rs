//! The command line of `miniflow run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use miniflow::Class;

use super::params::Param;

/// Run a Python script or a program over JSON lines, on worker processes
///
/// One task per line of the params file, one line of JSON per result. The script defines
/// `main(params, context)`; a program (--program) reads a line from its standard input and writes
/// one line to its standard output, again and again.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "miniflow run [OPTIONS] SCRIPT\n       miniflow run [OPTIONS] --program -- ARGV..."
)]
pub(crate) struct Args {
    /// Python script that defines main(params, context)
    #[arg(
        value_name = "SCRIPT",
        required_unless_present = "program",
        conflicts_with = "program"
    )]
    pub(crate) script: Option<PathBuf>,

    /// Run the program after `--` instead: a line in, a line out
    #[arg(long, requires = "argv")]
    pub(crate) program: bool,

    /// JSON lines, one task each (`-`: standard input); a single task with {} if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) params: Option<PathBuf>,

    /// Sets a member of every task's params: JSON if it parses, else a string
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = Param::parse)]
    pub(crate) extra: Vec<Param>,

    /// What the tasks mostly do: keep a processor busy, or wait
    #[arg(long, value_name = "CLASS", value_enum, default_value = "cpu")]
    class: ClassName,

    /// Worker processes; auto: as many as processors that this process may use
    #[arg(long, value_name = "N", default_value = "auto", value_parser = parse_workers)]
    workers: Workers,

    /// Tasks that a worker runs at a time [default: 1 for class cpu, 16 for class io]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// Longest run of a task, in seconds [default: no limit]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// How often a task is started again if it fails, crashes or takes too long
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(..=65_000))]
    pub(crate) retries: u32,

    /// Write results in the order of the params, not as they come
    #[arg(long)]
    pub(crate) ordered: bool,

    /// Append the results to this file instead of writing them to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Skip what has completed in the file of --out
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,

    /// On standard error; auto: a bar if that is a terminal and the results go elsewhere
    #[arg(long, value_name = "HOW", value_enum, default_value = "auto")]
    pub(crate) progress: ProgressStyle,

    /// Python modules that are imported once, before workers are forked
    #[arg(
        long,
        value_name = "MODULES",
        value_delimiter = ',',
        conflicts_with = "program"
    )]
    pub(crate) preload: Vec<String>,

    /// The Python interpreter [default: python3 of PATH]
    #[arg(long, value_name = "PATH", conflicts_with = "program")]
    pub(crate) python: Option<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, value_name = "ARGV", requires = "program")]
    pub(crate) argv: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClassName {
    Cpu,
    Io,
}

#[derive(Debug, Clone, Copy)]
enum Workers {
    Auto,
    Count(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    Auto,
    Plain,
    None,
}

/// Most workers of an engine.
const MAX_WORKERS: u32 = 1024;

/// How many tasks can run at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crew {
    pub(crate) class: Class,
    pub(crate) workers: u32,
    pub(crate) threads: u32,
}

impl Args {
    pub(crate) fn crew(&self) -> Crew {
        let (class, threads) = match self.class {
            ClassName::Cpu => (Class::CpuBound, 1),
            ClassName::Io => (Class::IoBound, 16),
        };
        Crew {
            class,
            workers: match self.workers {
                Workers::Count(count) => count,
                Workers::Auto => processors(),
            },
            threads: self.threads.unwrap_or(threads),
        }
    }
}

/// Processors that this process may use: the affinity mask, and the quota of its cgroups.
pub(crate) fn processors() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).map_or(MAX_WORKERS, |n| n.min(MAX_WORKERS))
}

fn parse_workers(text: &str) -> Result<Workers, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Workers::Auto),
        Ok(count @ 1..=MAX_WORKERS) => Ok(Workers::Count(count)),
        _ => Err(format!("not `auto` or a number in 1..={MAX_WORKERS}")),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && time < Duration::from_secs(1 << 30) => Ok(time),
        _ => Err("not more than 0 and less than 2^30 seconds".into()),
    }
}
