//! `miniflow completions`: what a shell has to know to complete command lines.

#![forbid(unsafe_code)]

use clap_complete::Shell;

use crate::manual;

/// Print the completions for a shell
///
/// Where the shell looks for them, the examples show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// The script.
pub(crate) fn run(args: &Args) -> Vec<u8> {
    let mut command = manual::visible(&manual::command());
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "miniflow", &mut script);
    script
}
