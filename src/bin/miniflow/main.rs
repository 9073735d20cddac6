//! The command line of miniflow: one subcommand a file.

mod bench;
mod chaos;
mod error;
mod run;
mod top;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Run(run::Args),
    Top(top::Args),
    #[command(hide = true)]
    ProgramWorker(run::program::WorkerArgs),
    #[command(hide = true)]
    ProgramGuard,
}

fn main() -> ExitCode {
    // clap itself answers a wrong command line with exit status 2.
    match Cli::parse().command {
        Command::Bench(args) => finish("bench", bench::run(&args)),
        Command::Chaos(args) => match chaos::run(&args) {
            Ok(verdict) if verdict.clean => finish::<error::Error>("chaos", Ok(verdict.text)),
            Ok(verdict) => {
                let _ = finish::<error::Error>("chaos", Ok(verdict.text)); // failed in any case
                ExitCode::FAILURE
            }
            Err(error) => complain("chaos", &error),
        },
        Command::Run(args) => match run::run(&args) {
            Ok(status) => status,
            Err(error) => {
                let _ = complain("run", &error);
                ExitCode::from(error.status())
            }
        },
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
