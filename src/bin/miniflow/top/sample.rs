//! Engines for tests of the picture, as other processes would read them.

use std::time::{Duration, Instant};

use miniflow::status::Status;
use serde_json::{Value, json};

use super::keys::Ui;
use super::model::Model;

/// When all of these are looked at, in milliseconds since 1970.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// An engine without workers that has done nothing.
pub(crate) fn empty() -> Value {
    json!({
        "schema": 1, "version": "0.1.0", "name": "demo", "pid": 4321, "state": "running",
        "at_ms": NOW_MS, "started_ms": NOW_MS - 3_723_000, "degraded": false,
        "policy": "least_loaded", "scaling": "by_load",
        "tasks": {
            "submitted": 0, "completed": 0, "failed": 0, "crashed": 0, "timed_out": 0,
            "cancelled": 0, "would_block": 0, "recalled": 0, "redispatched": 0, "retried": 0,
            "spawned": 0, "died": 0, "killed": 0, "recycled": 0, "violations": 0,
            "policy_failures": 0, "queued": 0, "on_workers": 0, "unpolled": 0, "workers": 0,
            "payload_bytes": 0, "payload_capacity": 0, "degraded": false
        },
        "machine": {
            "cpus": 8, "cpu": 0.61, "memory": 0.31, "memory_pressure": 0.0,
            "memory_state": "ample"
        },
        "classes": [class("cpu", 0, 8), class("io", 0, 0)],
        "workers": [], "signals": [], "crashes": [], "decisions": [], "notes": []
    })
}

pub(crate) fn class(name: &str, workers: u32, max: u32) -> Value {
    json!({
        "class": name, "workers": workers, "starting": 0, "target": workers, "min": 0, "max": max,
        "threads": 10, "queued": 0, "on_workers": 0, "oldest_ns": 0, "placement": "none",
        "broken": null, "queue_time": times(&[]), "run_time": times(&[])
    })
}

/// A histogram of so many times that end below so many ns.
pub(crate) fn times(buckets: &[(u64, u64)]) -> Value {
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    json!({ "count": count, "sum_ns": 0, "buckets": buckets })
}

/// A worker with 10 threads that runs 7 tasks.
pub(crate) fn worker(slot: u32) -> Value {
    json!({
        "slot": slot, "pid": 5000 + slot, "incarnation": 1, "class": "cpu", "state": "ready",
        "threads": 10, "depth": 12, "queued": 3, "running": 7, "completed": 1000 + slot,
        "failed": 0, "busy_ns": 0, "service_ns": 900_000_000_u64, "crashed": 0,
        "cpu_ns": 1_000_000_000_u64, "cpu_permille": 980, "rss_bytes": 12_900_000, "started_ms": NOW_MS - 65_000
    })
}

/// An engine with so many workers.
pub(crate) fn busy(workers: u32) -> Value {
    let mut engine = empty();
    engine["workers"] = (1..=workers).map(worker).collect();
    engine["classes"][0] = class("cpu", workers, workers * 2);
    engine["tasks"]["completed"] = json!(123_456);
    engine
}

/// The death of a worker by SIGSEGV, some seconds ago.
pub(crate) fn crash(seconds: i64) -> Value {
    json!({
        "at_ms": NOW_MS - seconds * 1_000, "worker": 3, "pid": 777, "class": "cpu", "signal": 11,
        "exit_code": 0, "started": 2, "returned": 5, "uptime_ms": 65_000,
        "task": "0190a5b4-0000-7000-8000-000000000001", "place": "decode at codec.rs:42"
    })
}

/// A step from 2 to 4 workers, some seconds ago.
pub(crate) fn decision(seconds: i64) -> Value {
    json!({
        "at_ms": NOW_MS - seconds * 1_000, "class": "cpu", "action": "grow", "before": 2,
        "after": 4, "reason": "more tasks per thread than 2.5", "starting": 0, "threads": 2,
        "queued": 120, "on_workers": 8, "oldest_ns": 130_000_000_u64, "cpu": 0.43, "memory": 0.2
    })
}

pub(crate) fn status(engine: &Value) -> Status {
    serde_json::from_value(engine.clone()).unwrap()
}

/// An engine that was looked at twice, 2 s apart.
pub(crate) fn seen_twice(before: &Value, after: &Value) -> Model {
    let start = Instant::now();
    let mut model = Model::new(status(before), start);
    model.update(status(after), start + Duration::from_secs(2));
    model
}

pub(crate) fn seen(engine: &Value) -> Model {
    seen_twice(engine, engine)
}

pub(crate) fn ui() -> Ui {
    Ui::new(Duration::from_millis(500))
}
