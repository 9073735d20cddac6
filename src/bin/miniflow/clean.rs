//! `miniflow clean`: removes the names that dead engines have left.

#![forbid(unsafe_code)]

use miniflow::monitor;
use serde::Serialize;

use crate::error::{Error, Result};

/// Remove the names of dead engines
///
/// A name is left in /dev/shm only if an engine's host process and its zygote were killed at once. It
/// holds a few pages of memory and shows up in `miniflow ls`; the next engine of that name takes it
/// over. Names of living engines, and of other users, are left alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say which would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Print one JSON object instead of a line per name
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    /// The names that were removed, or would be.
    removed: Vec<String>,
}

/// Removes them, and returns what was removed.
pub(crate) fn run(args: &Args) -> Result<String> {
    let removed = match args.dry_run {
        true => dead()?,
        false => monitor::clean().map_err(Error::engine("cannot clean /dev/shm"))?,
    };
    let report = Report {
        dry_run: args.dry_run,
        removed,
    };
    Ok(match args.json {
        true => json(&report),
        false => text(&report),
    })
}

fn dead() -> Result<Vec<String>> {
    let names = monitor::list().map_err(Error::engine("cannot list /dev/shm"))?;
    let dead = names.into_iter().filter(|found| !found.alive);
    Ok(dead.map(|found| found.name).collect())
}

fn json(report: &Report) -> String {
    let mut text = serde_json::to_string(report).expect("a flag and strings only");
    text.push('\n');
    text
}

fn text(report: &Report) -> String {
    let would = if report.dry_run {
        "would remove"
    } else {
        "removed"
    };
    if report.removed.is_empty() {
        return "no dead engine has left a name\n".into();
    }
    (report.removed.iter())
        .map(|name| format!("{would} {name}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_or_one_object_tells_what_was_removed() {
        let report = |dry_run, names: &[&str]| Report {
            dry_run,
            removed: names.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(text(&report(false, &["a", "b"])), "removed a\nremoved b\n");
        assert_eq!(text(&report(true, &["a"])), "would remove a\n");
        assert_eq!(
            text(&report(false, &[])),
            "no dead engine has left a name\n"
        );
        assert_eq!(
            json(&report(true, &["a"])),
            "{\"dry_run\":true,\"removed\":[\"a\"]}\n"
        );
    }
}
