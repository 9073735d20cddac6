//! `miniflow status`: what an engine is doing, once or again and again.

#![forbid(unsafe_code)]

mod text;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use miniflow::monitor::Monitor;
use miniflow::status::{EngineState, Status};

use self::watch::{Ended, watch};
use crate::engines;
use crate::error::{Error, Result};

/// Show what an engine is doing
///
/// A report for people, or everything as JSON (docs/status.md describes it). Counters are brought up to
/// date by the engine every 100 ms while it is busy; reading them costs it nothing.
///
/// With --watch again and again, until Ctrl-C or the end of the engine: on a terminal in place, else one
/// report after the other; with --json one object per line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The engine's name; not needed if there is one engine only
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print JSON, one object in one line, instead of a report
    #[arg(long)]
    json: bool,

    /// Again every so many seconds, 2 if that is not said
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = parse_interval)]
    watch: Option<Duration>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let help = "expected seconds, 0.1 to 86400; an engine's name goes before --watch";
    let seconds: f64 = text.parse().map_err(|_| help)?;
    match seconds {
        0.1..=86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(help.into()),
    }
}

/// Shows it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let monitor = engines::open(args.name.as_deref())?;
    let mut page = Page::new(args);
    match show(&monitor, args.watch, &mut page) {
        Err(Error::ReaderGone) => Ok(()), // it has seen enough
        outcome => outcome,
    }
}

fn show(monitor: &Monitor, interval: Option<Duration>, page: &mut Page) -> Result<()> {
    if let Some(interval) = interval
        && monitor.is_alive()
    {
        return match watch(monitor, interval, page)? {
            Ended::ByItself => page.finish(&format!("`{}` has ended", monitor.name())),
            Ended::Interrupted => Ok(()),
        };
    }
    let status = monitor.status();
    page.show(&status)?;
    match status.state {
        EngineState::Dead => Err(Error::Unfit(format!(
            "`{}` is dead: its host process {} is gone, and what is shown is its last word \
             (`miniflow clean` removes the name)",
            monitor.name(),
            status.pid
        ))),
        _ => Ok(()),
    }
}

/// Where reports go.
#[derive(Debug)]
pub(crate) struct Page {
    json: bool,
    /// Each report takes the place of the one before.
    in_place: bool,
    /// Reports shown.
    shown: u64,
}

impl Page {
    fn new(args: &Args) -> Self {
        Self {
            json: args.json,
            in_place: args.watch.is_some() && !args.json && io::stdout().is_terminal(),
            shown: 0,
        }
    }

    fn show(&mut self, status: &Status) -> Result<()> {
        let before = self.before();
        let report = match self.json {
            true => status.to_json() + "\n",
            false => text::report(status),
        };
        self.shown += 1;
        write(&format!("{before}{report}"))
    }

    /// What parts a report from the one before.
    fn before(&self) -> &'static str {
        match (self.in_place, self.shown) {
            (true, _) => "\x1b[H\x1b[2J", // home, and nothing on the screen
            (false, 1..) if !self.json => "\n",
            _ => "",
        }
    }

    /// The last word, which is not for programs.
    fn finish(&self, word: &str) -> Result<()> {
        match self.json {
            true => {
                let _ = writeln!(io::stderr(), "miniflow status: {word}"); // nobody to tell
                Ok(())
            }
            false => write(&format!("\n{word}\n")),
        }
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Error::ReaderGone,
        _ => Error::system("write")(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_within_reason() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["orders", "0", "-1", "inf", "NaN", "1e9"] {
            let error = parse_interval(wrong).unwrap_err();
            assert!(error.contains("name goes before"), "{wrong}: {error}");
        }
    }

    #[test]
    fn without_seconds_it_is_every_two() {
        use clap::Args as _;
        let command = Args::augment_args(clap::Command::new("status"));
        let watch = |line: &[&str]| {
            let matches = command.clone().try_get_matches_from(line).unwrap();
            matches.get_one::<Duration>("watch").copied()
        };
        assert_eq!(watch(&["status"]), None);
        assert_eq!(
            watch(&["status", "orders", "--watch"]),
            Some(Duration::from_secs(2))
        );
        assert_eq!(watch(&["status", "-w", "7"]), Some(Duration::from_secs(7)));
    }

    #[test]
    fn reports_are_in_place_or_apart_and_json_is_lines() {
        let before = |in_place, json, shown| {
            let page = Page {
                json,
                in_place,
                shown,
            };
            page.before()
        };
        assert!(before(true, false, 0).starts_with('\x1b'));
        assert!(before(true, false, 1).starts_with('\x1b'));
        assert_eq!(
            (before(false, false, 0), before(false, false, 1)),
            ("", "\n")
        );
        assert_eq!((before(false, true, 0), before(false, true, 1)), ("", ""));
    }
}
