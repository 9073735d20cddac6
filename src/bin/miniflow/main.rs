//! The command line of miniflow: one subcommand a file.

mod bench;
mod calendar;
mod chaos;
mod clean;
mod completions;
mod cpu_list;
mod doctor;
mod engines;
mod error;
mod logging;
mod ls;
mod man;
mod manual;
mod metrics;
mod run;
mod status;
mod table;
mod top;
mod units;
mod verdict;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgAction, FromArgMatches, Parser, Subcommand};

use self::error::{Error, Result};
use self::verdict::Verdict;

/// Run tasks on crash-isolated worker processes, and see what engines do
///
/// miniflow is a shared-memory task engine: a library, and this command line. Commands that look at
/// engines see those of the same user on the same machine; they only read, and the engines do not
/// notice.
#[derive(Debug, Parser)]
#[command(name = "miniflow", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Show what the library says: -v what happens, -vv why, -vvv everything
    #[arg(short, long, global = true, display_order = 900, action = ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Chaos(chaos::Args),
    Clean(clean::Args),
    Completions(completions::Args),
    Doctor(doctor::Args),
    Ls(ls::Args),
    Man(man::Args),
    Metrics(metrics::Args),
    Run(run::Args),
    Status(status::Args),
    Top(top::Args),
    #[command(hide = true)]
    ProgramWorker(run::program::WorkerArgs),
    #[command(hide = true)]
    ProgramGuard,
}

fn main() -> ExitCode {
    // clap itself answers a wrong command line with exit status 2.
    let matches = manual::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    logging::start(cli.verbose);
    match cli.command {
        Command::Bench(args) => finish("bench", bench::run(&args)),
        Command::Chaos(args) => judge("chaos", chaos::run(&args)),
        Command::Clean(args) => finish("clean", clean::run(&args)),
        Command::Completions(args) => finish("completions", Ok(completions::run(&args))),
        Command::Doctor(args) => judge("doctor", Ok(doctor::run(&args))),
        Command::Ls(args) => finish("ls", ls::run(&args)),
        Command::Man(args) => finish("man", man::run(&args)),
        Command::Metrics(args) => finish("metrics", metrics::run(&args)),
        Command::Run(args) => run::run(&args).unwrap_or_else(|error| refuse("run", &error)),
        Command::Status(args) => finish("status", status::run(&args).map(|()| "")),
        Command::Top(args) => finish("top", top::run(&args)),
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
fn judge(subcommand: &str, outcome: Result<Verdict>) -> ExitCode {
    let clean = outcome.as_ref().is_ok_and(|verdict| verdict.clean);
    match finish(subcommand, outcome.map(|verdict| verdict.text)) {
        status if clean => status,
        _ => ExitCode::FAILURE,
    }
}

/// Prints what a subcommand found, or why it could not.
fn finish(subcommand: &str, outcome: Result<impl AsRef<[u8]>>) -> ExitCode {
    let text = match outcome {
        Ok(text) => text,
        Err(error) => return refuse(subcommand, &error),
    };
    match io::stdout().lock().write_all(text.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader (`| head`) has seen enough; there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(subcommand, &error),
    }
}

/// Writes `error` to stderr, and answers with the status that tells it.
fn refuse(subcommand: &str, error: &Error) -> ExitCode {
    let _ = complain(subcommand, error);
    ExitCode::from(error.status())
}

/// Writes `error` to stderr; if that fails too, the exit status is all that can be said.
fn complain(subcommand: &str, error: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "miniflow {subcommand}: {error}");
    ExitCode::FAILURE
}
