//! `miniflow bench` runs, and says everything that it promises to say. What the figures are, this
//! does not judge: tests share their machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod common;

use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use common::run_to_end;
use serde_json::Value;

/// The bench asks for a second, and takes some more to start engines and to watch an idle one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `miniflow bench` with these arguments; kills it and fails if it does not end.
fn bench(args: &[&str]) -> (ExitStatus, String) {
    let args = [&["bench"], args].concat();
    run_to_end(env!("CARGO_BIN_EXE_miniflow"), &args, PATIENCE)
}

/// The number at `path`, a list of keys with dots in between.
fn number(report: &Value, path: &str) -> f64 {
    path.split('.')
        .fold(report, |value, key| &value[key])
        .as_f64()
        .unwrap_or_else(|| panic!("no number at {path}"))
}

fn is_alone_on_its_processor() -> bool {
    thread::available_parallelism().is_ok_and(|processors| processors.get() < 2)
}

#[test]
fn the_report_is_one_json_object_with_every_figure() {
    let (status, text) = bench(&["--json", "--seconds", "1"]);
    assert!(status.success(), "{status}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(report["host"]["kernel"].is_string());
    assert!(number(&report, "plan.rounds") >= 5.0);

    let mut distributions = vec![
        "futex_one_core_rtt_ns",
        "engine.one_core_rtt_ns",
        "engine.sleep_one_core_rtt_ns",
    ];
    let mut numbers = vec![
        "ratios.one_core_over_futex",
        "ratios.sleep_one_core_over_futex",
    ];
    if !is_alone_on_its_processor() {
        distributions.extend([
            "raw.pingpong_rtt_ns",
            "pipe_rtt_ns",
            "socketpair_rtt_ns",
            "futex_rtt_ns",
            "engine.rtt_ns.16",
            "engine.rtt_ns.1024",
            "engine.rtt_ns.65536",
            "engine.rtt_ns.65536_loaned",
            "engine.rtt_ns.65536_loaned_touched",
            "engine.sleep_rtt_ns",
            "engine.busy_rtt_ns",
        ]);
        numbers.extend([
            "raw.ring_tasks_per_s",
            "ratios.rtt_over_raw",
            "ratios.pipelined_over_raw_ring",
            "ratios.loaned64k_over_16",
            "ratios.sleep_over_futex",
            "ratios.busy_over_futex",
            "engine.tasks_per_s.w1_t1",
            "engine.tasks_per_s.w2_t1",
            "engine.tasks_per_s.w1_t2",
            "engine.tasks_per_s_by_in_flight.1",
            "engine.tasks_per_s_by_in_flight.8",
            "engine.tasks_per_s_by_in_flight.64",
            "engine.tasks_per_s_by_in_flight.1024",
            "engine.tasks_per_s_by_in_flight.16384",
        ]);
    }
    for path in numbers {
        assert!(number(&report, path) > 0.0, "{path}");
    }
    for path in distributions {
        let quantiles = ["p50", "p99", "p999"].map(|q| number(&report, &format!("{path}.{q}")));
        // Not in order, strictly: p50 is the median of the rounds, the tail is that of all trips.
        assert!(quantiles.into_iter().all(|time| time > 0.0), "{path}");
    }
    assert!(number(&report, "engine.idle_cpu_percent") >= 0.0);
}

#[test]
fn people_get_a_table_of_what_they_asked_for() {
    let (status, text) = bench(&["--seconds", "1", "--only", "futex_rtt_ns,one_core_rtt_ns"]);
    assert!(status.success(), "{status}");
    assert!(text.contains("futex, one core"), "{text}");
    assert!(text.contains("engine, one core"), "{text}");
    assert!(text.contains("one_core_over_futex"), "{text}");
    assert!(!text.contains("pipe"), "{text}");
    assert!(!text.contains("idle engine"), "{text}");
}

#[test]
fn a_wrong_command_line_is_refused() {
    assert_eq!(bench(&["--seconds", "0"]).0.code(), Some(2));
    assert_eq!(bench(&["--only", "no such figure"]).0.code(), Some(1));
}
