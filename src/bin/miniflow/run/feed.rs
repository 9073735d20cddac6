//! The thread that reads params and submits tasks.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use miniflow::{Engine, SubmitOptions};

use super::bell::Bell;
use super::flight::Flight;
use super::index_set::IndexSet;
use super::lines::{Line, Lines, is_blank};
use super::params::{self, Param};
use super::source::Source;
use crate::error::{Error, Result};

/// Longest line of params, and longest result, in bytes.
pub(crate) const LONGEST: u64 = 64 << 20;

/// What a worker is given for a task's params.
#[derive(Debug)]
pub(crate) enum Form {
    /// The params themselves.
    Line,
    /// What the Python worker runtime takes: the script, as a JSON string, and the params.
    Script { path: String },
}

impl Form {
    fn payload<'a>(&self, params: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        match self {
            Self::Line => params,
            Self::Script { path } => Cow::Owned(
                [
                    br#"J{"script":"#,
                    path.as_bytes(),
                    br#","params":"#,
                    &params,
                    b"}",
                ]
                .concat(),
            ),
        }
    }
}

/// How far the feeder is. Counters that guard no data: every access is Relaxed.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Tasks found in the params so far.
    pub(crate) found: AtomicU64,
    /// Those of them that a run before this one has completed.
    pub(crate) skipped: AtomicU64,
    /// Bytes of params read so far.
    bytes: AtomicU64,
    /// Bytes of params in all; 0 if unknown.
    size: AtomicU64,
}

impl Meter {
    /// How many tasks there are in all, as far as one can tell: `None` if the length of the input is
    /// unknown, an estimate until it was read to its end.
    pub(crate) fn total(&self) -> Option<u64> {
        let found = self.found.load(Relaxed);
        let (bytes, size) = (self.bytes.load(Relaxed), self.size.load(Relaxed));
        match (bytes, size) {
            (_, 0) | (0, _) => None,
            _ if bytes >= size => Some(found),
            _ => {
                let total = u128::from(found) * u128::from(size) / u128::from(bytes);
                u64::try_from(total).ok()
            }
        }
    }
}

/// What the thread needs.
#[derive(Debug)]
pub(crate) struct Feeder<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) flight: &'a Flight,
    pub(crate) extra: &'a [Param],
    pub(crate) form: &'a Form,
    pub(crate) done: &'a IndexSet,
    pub(crate) options: SubmitOptions,
    pub(crate) meter: &'a Meter,
    /// Rings when the reading shall stop.
    pub(crate) stop: &'a Bell,
}

impl Feeder<'_> {
    /// Submits a task per line, or a single one if there is no source.
    pub(crate) fn run(&self, source: Option<Source>) -> Result<()> {
        let outcome = match source {
            Some(source) => self.feed_lines(source),
            None => self.feed_one(),
        };
        self.flight.end();
        outcome
    }

    fn feed_one(&self) -> Result<()> {
        self.meter.size.store(1, Relaxed);
        self.meter.bytes.store(1, Relaxed);
        let index = self.meter.found.fetch_add(1, Relaxed);
        if self.is_wanted(index) {
            self.feed(index, params::merge(b"{}", self.extra));
        }
        Ok(())
    }

    fn feed_lines(&self, source: Source) -> Result<()> {
        let name = source.name.clone();
        self.meter.size.store(source.size.unwrap_or(0), Relaxed);
        let mut lines = Lines::new(source, LONGEST);
        let mut line = Vec::new();
        loop {
            let read = lines.next(&mut line).map_err(|source| Error::File {
                what: "cannot read the params from",
                path: format!("{name}, after line {}", lines.number()),
                source,
            })?;
            self.meter.bytes.store(lines.bytes(), Relaxed);
            let Some(kind) = read else {
                self.meter.size.store(lines.bytes(), Relaxed); // now it is known
                return Ok(());
            };
            if kind == Line::Torn && self.stop.rings() {
                return Ok(()); // what is torn is not the file, but the reading of it
            }
            if !matches!(kind, Line::TooLong(_)) && is_blank(&line) {
                continue;
            }
            let index = self.meter.found.fetch_add(1, Relaxed);
            if !self.is_wanted(index) {
                continue;
            }
            if !self.flight.await_room() {
                return Ok(());
            }
            let params = match kind {
                Line::TooLong(len) => Err(format!(
                    "the line has {len} bytes, more than the {LONGEST} that are allowed"
                )),
                Line::Whole | Line::Torn => params::merge(&line, self.extra),
            };
            self.feed(
                index,
                params.map_err(|why| format!("{name}:{}: {why}", lines.number())),
            );
            if line.capacity() > 1 << 20 {
                line = Vec::new(); // a long line was a rare one
            }
        }
    }

    fn is_wanted(&self, index: u64) -> bool {
        let done = self.done.contains(index);
        if done {
            self.meter.skipped.fetch_add(1, Relaxed);
        }
        !done
    }

    /// Submits a task, when there is memory for it.
    fn feed(&self, index: u64, params: Result<Cow<'_, [u8]>, String>) {
        let payload = match params {
            Ok(params) => self.form.payload(params),
            Err(why) => return self.flight.reject(index, why),
        };
        let options = self.options.user_data(index);
        loop {
            let submit = || self.engine.submit_with(&payload, &options);
            match self.flight.submit(index, submit) {
                Err(miniflow::Error::WouldBlock(_)) if self.flight.await_room() => {
                    self.flight.await_change();
                }
                // Stopped meanwhile: the task is not run.
                Ok(()) | Err(miniflow::Error::WouldBlock(_) | miniflow::Error::Closed) => return,
                Err(error) => return self.flight.reject(index, error.to_string()),
            }
        }
    }
}
