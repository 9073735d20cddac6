//! A logger that panics takes the supervisor thread down. In a program of its own: loggers are global.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::time::Duration;

use common::{cpu_only, is_alive, kill, watchdog_alone, worker};
use miniflow::Outcome;

struct Bomb;

impl log::Log for Bomb {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        panic!("this logger has no place for: {}", record.args());
    }

    fn flush(&self) {}
}

#[test]
fn a_supervisor_that_panics_ends_every_task_instead_of_leaving_them_for_ever() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(2, 1)
        .handler(|task| {
            if task.payload() == b"sleep" {
                std::thread::sleep(Duration::from_secs(1000));
            }
            Ok(())
        })
        .start()
        .unwrap();
    let workers = [worker(&engine, 0).pid, worker(&engine, 1).pid];
    let running: Vec<_> = (0..2).map(|_| engine.submit(b"sleep").unwrap()).collect();
    common::until("both run", || {
        engine.workers().iter().all(|row| row.running == 1)
    });
    let queued = engine.submit(b"").unwrap();
    log::set_logger(&Bomb).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    kill(workers[0]); // which the supervisor wants to log
    let wait = Some(Duration::from_secs(20));
    for id in running {
        let crashed = engine.wait(id, wait).unwrap();
        assert_eq!(crashed.outcome(), Outcome::Crashed, "{}", crashed.text());
    }
    let failed = engine.wait(queued, wait).unwrap();
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert!(failed.text().contains("panicked"), "{}", failed.text());
    let refused = engine.submit(b"").unwrap_err().to_string();
    assert!(refused.contains("no worker is left"), "{refused}");
    engine.stop(None).unwrap();
    assert!(!workers.into_iter().any(is_alive));
}
