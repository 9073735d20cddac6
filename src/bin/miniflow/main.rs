//! The command line of miniflow: one subcommand a file.

mod bench;
mod chaos;
mod clean;
mod cpu_list;
mod doctor;
mod error;
mod metrics;
mod run;
mod units;
mod verdict;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::verdict::Verdict;

/// Command line of miniflow, the shared-memory task engine.
///
/// Exit status: 0 when all went well, 1 when the command failed, 2 for a wrong command line.
#[derive(Debug, Parser)]
#[command(name = "miniflow", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Chaos(chaos::Args),
    Clean(clean::Args),
    Doctor(doctor::Args),
    Metrics(metrics::Args),
    Run(run::Args),
    #[command(hide = true)]
    ProgramWorker(run::program::WorkerArgs),
    #[command(hide = true)]
    ProgramGuard,
}

fn main() -> ExitCode {
    // clap itself answers a wrong command line with exit status 2.
    match Cli::parse().command {
        Command::Bench(args) => finish("bench", bench::run(&args)),
        Command::Chaos(args) => judge("chaos", chaos::run(&args)),
        Command::Clean(args) => finish("clean", clean::run(&args)),
        Command::Doctor(args) => judge("doctor", Ok(doctor::run(&args))),
        Command::Metrics(args) => finish("metrics", metrics::run(&args)),
        Command::Run(args) => match run::run(&args) {
            Ok(status) => status,
            Err(error) => {
                let _ = complain("run", &error);
                ExitCode::from(error.status())
            }
        },
        Command::ProgramWorker(args) => finish(
            "program-worker",
            run::program::work(&args).map(|()| String::new()),
        ),
        Command::ProgramGuard => {
            run::program::guard();
            ExitCode::SUCCESS
        }
    }
}

/// Prints what a subcommand found, which the exit status sums up.
fn judge(subcommand: &str, outcome: error::Result<Verdict>) -> ExitCode {
    let clean = outcome.as_ref().is_ok_and(|verdict| verdict.clean);
    match finish(subcommand, outcome.map(|verdict| verdict.text)) {
        status if clean => status,
        _ => ExitCode::FAILURE,
    }
}

/// Prints what a subcommand found, or why it could not.
fn finish<E: Display>(subcommand: &str, outcome: Result<String, E>) -> ExitCode {
    match outcome {
        Ok(text) => match io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            // The reader (`| head`) has seen enough; there is nobody to tell.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => complain(subcommand, &error),
        },
        Err(error) => complain(subcommand, &error),
    }
}

/// Writes `error` to stderr; if that fails too, the exit status is all that can be said.
fn complain(subcommand: &str, error: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "miniflow {subcommand}: {error}");
    ExitCode::FAILURE
}
