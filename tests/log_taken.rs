//! Reading the log of a program that has a logger of its own. In a program of its own: loggers are
//! global.

#![allow(clippy::unwrap_used, reason = "a test says so when it fails")]

mod common;

use common::watchdog;
use miniflow::ffi::{MF_E_UNSUPPORTED, MF_LOG_OFF, MF_LOG_TRACE, mf_log_level};

struct Own;

impl log::Log for Own {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}

#[test]
fn a_logger_that_the_program_has_set_stays_and_keeps_its_level() {
    let _watchdog = watchdog(60);
    log::set_logger(&Own).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    for level in [MF_LOG_TRACE, MF_LOG_OFF] {
        assert_eq!(mf_log_level(level), MF_E_UNSUPPORTED);
        assert_eq!(log::max_level(), log::LevelFilter::Info);
    }
}
