//! `miniflow chaos` in its short form: the engine passes, and the checker can fail.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod common;

use std::time::Duration;

use common::run_to_end;
use serde_json::Value;

/// Hundreds of kills a second; the rest is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// What must be 0 after every run.
const ZEROS: [&str; 6] = [
    "lost",
    "duplicated",
    "corrupted",
    "started_twice",
    "unexplained",
    "leftovers",
];

/// Runs `miniflow chaos` with these arguments; kills it and fails if it does not end.
fn chaos(args: &[&str]) -> (Option<i32>, String) {
    let args = [&["chaos"], args].concat();
    let (status, text) = run_to_end(env!("CARGO_BIN_EXE_miniflow"), &args, PATIENCE);
    (status.code(), text)
}

fn report(args: &[&str]) -> (Option<i32>, Value) {
    let (code, text) = chaos(args);
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: `{text}`"));
    (code, report)
}

fn number(report: &Value, key: &str) -> u64 {
    let value = report[key].as_u64();
    value.unwrap_or_else(|| panic!("no number `{key}` in {report}"))
}

#[test]
fn nothing_is_lost_when_workers_are_killed() {
    let (code, report) = report(&["--kills", "100", "--json"]);
    assert_eq!(code, Some(0), "{report}");
    for key in ZEROS {
        assert_eq!(number(&report, key), 0, "{key} in {report}");
    }
    assert!(number(&report, "kills") >= 100, "{report}");
    assert!(number(&report, "respawns") > 0, "{report}");
    assert!(number(&report, "accepted") > 0, "{report}");
    assert_eq!(number(&report, "accepted"), number(&report, "completions"));
    let by = report["kills_by"].as_object().unwrap();
    let sum: u64 = by.values().filter_map(Value::as_u64).sum();
    assert_eq!(sum, number(&report, "kills"), "{report}");
    for quantile in ["p50", "p99"] {
        let ms = report["respawn_ms"][quantile].as_f64().unwrap();
        assert!(ms > 0.0, "{quantile} in {report}");
    }
}

/// Falsifies one completion, and expects it to be counted under `key` and nothing else.
fn is_noticed(sabotage: &str, key: &str) {
    let args = [
        "--kills",
        "60",
        "--json",
        "--seed",
        "7",
        "--sabotage",
        sabotage,
    ];
    let (code, report) = report(&args);
    assert_eq!(code, Some(1), "{report}");
    for other in ZEROS {
        let expected = u64::from(other == key);
        assert_eq!(number(&report, other), expected, "{other} in {report}");
    }
    assert_eq!(number(&report, "seed"), 7);
    let told = report["violations"].as_array().unwrap();
    assert_eq!(told.len(), 1, "{report}");
}

#[test]
fn a_lost_completion_is_noticed() {
    is_noticed("lose", "lost");
}

#[test]
fn a_second_completion_is_noticed() {
    is_noticed("duplicate", "duplicated");
}

#[test]
fn a_wrong_byte_is_noticed() {
    is_noticed("corrupt", "corrupted");
}

#[test]
fn a_second_start_is_noticed() {
    is_noticed("start-twice", "started_twice");
}

#[test]
fn people_get_a_table_and_the_seed() {
    let (code, text) = chaos(&["--seconds", "1", "--seed", "12345"]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["workers killed", "respawn", "12345", "\nok\n"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    let args = ["--kills", "60", "--seed", "12345", "--sabotage", "lose"];
    let (code, text) = chaos(&args);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("NOT ok; the seed is 12345"), "{text}");
    assert!(text.contains("Lost: task"), "{text}");
}

#[test]
fn the_wrong_command_line_is_refused() {
    assert_eq!(chaos(&["--kills", "0"]).0, Some(2));
    assert_eq!(chaos(&["--kills", "5", "--seconds", "5"]).0, Some(2));
    let (_, help) = chaos(&["--help"]);
    assert!(!help.contains("sabotage"), "{help}");
}
