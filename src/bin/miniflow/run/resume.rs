//! What an earlier run has left in its results file.

use std::fs::File;

use super::index_set::IndexSet;
use super::lines::{Line, Lines, is_blank};
use super::row::{Past, START};
use super::source::Source;
use crate::error::{Error, Result};

/// Reads the results from the file's start: which tasks have completed, and the length up to the end
/// of the last whole line. What follows that is a torn line, which is cut off.
pub(crate) fn read(file: &File, name: &str) -> Result<(IndexSet, u64)> {
    let failed = |what| {
        move |source| Error::File {
            what,
            path: name.to_owned(),
            source,
        }
    };
    let mut done = IndexSet::default();
    let mut lines = Lines::new(file, u64::MAX);
    let (mut line, mut length) = (Vec::new(), 0);
    while let Some(kind) = lines.next(&mut line).map_err(failed("cannot read"))? {
        if kind != Line::Whole {
            let start = &START[..START.len().min(line.len())];
            if !line.starts_with(start) {
                return Err(foreign(name, lines.number(), "it does not start like one"));
            }
            file.set_len(length)
                .map_err(failed("cannot take the torn last line from"))?;
            break;
        }
        length = lines.bytes();
        if is_blank(&line) {
            continue;
        }
        match serde_json::from_slice::<Past<'_>>(&line) {
            Ok(past) if past.is_completed() => done.insert(past.index),
            Ok(_) => {} // run again
            Err(error) => return Err(foreign(name, lines.number(), &error.to_string())),
        }
    }
    Ok((done, length))
}

fn foreign(name: &str, number: u64, why: &str) -> Error {
    Error::Usage(format!(
        "{name}:{number} is not a result line of `miniflow run`: {why}"
    ))
}

/// Whether the params can be those that the results are of: they have at least as many lines.
/// Looked at before anything runs, if the params can be read twice.
pub(crate) fn check_params(done: &IndexSet, source: Option<&Source>) -> Result<()> {
    let Some(last) = done.last() else {
        return Ok(());
    };
    let found = match source {
        None => 1,
        Some(source) => match source.reopen() {
            None => return Ok(()), // noticed at the end
            Some(file) => count(file, last.saturating_add(1)).map_err(|error| Error::File {
                what: "cannot read the params from",
                path: source.name.clone(),
                source: error,
            })?,
        },
    };
    compare(done, found)
}

/// [`check_params`] when the number of tasks in the params is known.
pub(crate) fn compare(done: &IndexSet, found: u64) -> Result<()> {
    match done.last() {
        Some(last) if last >= found => Err(Error::Usage(format!(
            "the results to resume have index {last}, but the params only {found} tasks: \
             are they of other params?"
        ))),
        _ => Ok(()),
    }
}

/// Tasks of a params file, counted up to `enough`.
fn count(file: File, enough: u64) -> std::io::Result<u64> {
    let mut lines = Lines::new(file, 4096); // longer ones are only counted
    let (mut line, mut found) = (Vec::new(), 0);
    while found < enough {
        match lines.next(&mut line)? {
            None => break,
            Some(Line::Whole | Line::Torn) if is_blank(&line) => {}
            Some(_) => found += 1,
        }
    }
    Ok(found)
}
