//! `miniflow man`: the manual as man pages.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;

use crate::error::{Error, Result};
use crate::manual;

/// Print the man page of a command, or write all pages to a directory
///
/// Without a command it is the page of miniflow itself. The pages are made from what --help says, so
/// that they are of the version that is installed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The command whose page is printed
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,

    /// Write a page for each command to this directory, which is made if there is none
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes the pages; returns what there is to print: a page, or where the pages are.
pub(crate) fn run(args: &Args) -> Result<Vec<u8>> {
    let mut command = manual::command().disable_help_subcommand(true);
    command.build();
    match (&args.out, &args.command) {
        (Some(directory), _) => write(&command, directory),
        (None, None) => Ok(manual::render(&command)),
        (None, Some(name)) => {
            let found = pages(&command).find(|page| page.get_name() == name);
            let found = found.ok_or_else(|| {
                let names: Vec<&str> = pages(&command).map(Command::get_name).collect();
                let names = names.join(", ");
                Error::Usage(format!("there is no command `{name}`, only {names}"))
            })?;
            Ok(manual::render(found))
        }
    }
}

/// The commands that have pages.
fn pages(command: &Command) -> impl Iterator<Item = &Command> {
    let subcommands = command.get_subcommands().filter(|c| !c.is_hide_set());
    std::iter::once(command).chain(subcommands)
}

fn write(command: &Command, directory: &Path) -> Result<Vec<u8>> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source: io::Error| Error::File {
            what: "cannot write",
            path,
            source,
        }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut written = String::new();
    for page in pages(command) {
        let name = page.get_display_name().unwrap_or_else(|| page.get_name());
        let path = directory.join(format!("{name}.1"));
        fs::write(&path, manual::render(page)).map_err(failed(&path))?;
        written += &format!("{}\n", path.display());
    }
    Ok(written.into_bytes())
}
