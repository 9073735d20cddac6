//! What the library says through the `log` facade, on standard error: nothing, unless it is asked for.

#![forbid(unsafe_code)]

use std::env;
use std::io::Write;
use std::time::SystemTime;

use env_logger::Builder;
use log::{LevelFilter, Record};

use crate::calendar::utc;

/// A filter in the syntax of `env_logger`: `debug`, `miniflow::engine=trace,warn`.
const VARIABLE: &str = "MINIFLOW_LOG";

/// Has messages shown: by the number of `-v`s, or else by what the environment says. Before any other
/// thread is started, and before any process is forked, so that all of them do the same.
pub(crate) fn start(verbose: u8) {
    let mut builder = Builder::new();
    match verbose {
        0 => match env::var(VARIABLE) {
            Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
            _ => return,
        },
        1 => builder.filter_level(LevelFilter::Info),
        2 => builder.filter_level(LevelFilter::Debug),
        _ => builder.filter_level(LevelFilter::Trace),
    };
    builder.format(|out, record| writeln!(out, "{}", line(record, SystemTime::now())));
    // It fails only if there is a logger already, and this is the one place that sets one.
    let _ = builder.try_init();
}

/// Workers write here too: the process is part of the line.
fn line(record: &Record<'_>, now: SystemTime) -> String {
    format!(
        "{} {} {:<5} {}: {}",
        utc(now),
        std::process::id(),
        record.level(),
        record.target(),
        record.args()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_how_bad_where_and_what() {
        let record = Record::builder()
            .level(log::Level::Warn)
            .target("miniflow::engine")
            .args(format_args!("a worker died"))
            .build();
        let expected = format!(
            "1970-01-01T00:00:00Z {} WARN  miniflow::engine: a worker died",
            std::process::id()
        );
        assert_eq!(line(&record, SystemTime::UNIX_EPOCH), expected);
    }
}
