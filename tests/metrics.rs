//! The text for Prometheus: what it has to be, and what it says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says so when it fails"
)]

mod common;

use common::exposition::Exposition;
use common::{collect, cpu_only, kill, until, watchdog, worker};
use miniflow::status::{Status, prometheus};
use serde_json::{Value, json};

/// An engine with everything that a status can have, as JSON.
fn sample(name: &str) -> Value {
    let class = |name: &str, workers: u32| {
        json!({
            "class": name, "workers": workers, "starting": 1, "target": 3, "min": 1, "max": 8,
            "threads": 4, "queued": 5, "on_workers": 6, "oldest_ns": 1_500_000_000_u64,
            "placement": "none", "broken": null,
            "queue_time": {"count": 3, "sum_ns": 4096, "buckets": [[1024, 2], [2560, 1]]},
            "run_time": {"count": 2, "sum_ns": 400_000_000_000_u64, "buckets": [[1024, 1], [0, 1]]},
        })
    };
    let worker = |slot: u32, class: &str, state: &str| {
        json!({
            "slot": slot, "pid": 100 + slot, "incarnation": 1, "class": class, "state": state,
            "threads": 4, "depth": 8, "queued": 1, "running": 3, "completed": 7, "failed": 2,
            "busy_ns": 2_500_000_000_u64, "service_ns": 10, "crashed": 1,
            "cpu_ns": if slot == 0 { 0 } else { 1_250_000_000 },
            "cpu_permille": 500, "rss_bytes": if slot == 0 { 0 } else { 4096 }, "started_ms": 1_700_000_000_000_i64,
        })
    };
    json!({
        "schema": 1, "version": "1.2.3", "name": name, "pid": 42, "state": "running",
        "at_ms": 1_700_000_001_500_i64, "started_ms": 1_700_000_000_000_i64, "degraded": false,
        "policy": "least_loaded", "scaling": "adaptive",
        "tasks": {
            "submitted": 30, "completed": 20, "failed": 4, "crashed": 3, "timed_out": 2,
            "cancelled": 1, "would_block": 9, "recalled": 8, "redispatched": 7, "retried": 6,
            "spawned": 5, "died": 4, "killed": 3, "recycled": 2, "violations": 1,
            "policy_failures": 10, "queued": 10, "on_workers": 12, "unpolled": 11, "workers": 3,
            "payload_bytes": 1000, "payload_capacity": 2000, "degraded": false,
        },
        "machine": {
            "cpus": 2, "cpu": 0.34, "memory": 0.5, "memory_pressure": null,
            "memory_state": "no_growth",
        },
        "classes": [class("cpu", 2), class("io", 1)],
        "workers": [
            worker(0, "cpu", "starting"), worker(1, "cpu", "ready"), worker(2, "cpu", "draining"),
            worker(3, "io", "ready"),
        ],
        "signals": [
            {"signal": 0, "deaths": 1}, {"signal": 9, "deaths": 2}, {"signal": 11, "deaths": 1},
        ],
        "crashes": [], "decisions": [], "notes": ["nice: not permitted"],
    })
}

fn status(json: Value) -> Status {
    serde_json::from_value(json).unwrap()
}

#[test]
fn what_a_status_says_is_in_the_text_in_base_units() {
    let text = status(sample("demo")).to_prometheus();
    let text = Exposition::parse(&text);
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(text.value(name, labels), value, "{name} {labels:?}");
    };
    is(
        "miniflow_engine_info",
        &[("engine", "demo"), ("version", "1.2.3"), ("pid", "42")],
        1.0,
    );
    is("miniflow_engine_running", &[("engine", "demo")], 1.0);
    is("miniflow_engine_start_time_seconds", &[], 1.7e9);
    is("miniflow_engine_status_time_seconds", &[], 1_700_000_001.5);
    is("miniflow_engine_notes", &[], 1.0);
    is("miniflow_tasks_submitted_total", &[], 30.0);
    is(
        "miniflow_tasks_ended_total",
        &[("outcome", "completed")],
        20.0,
    );
    is(
        "miniflow_tasks_ended_total",
        &[("outcome", "timed_out")],
        2.0,
    );
    is("miniflow_submits_refused_total", &[], 9.0);
    is("miniflow_tasks_queued", &[("class", "io")], 5.0);
    is(
        "miniflow_tasks_oldest_wait_seconds",
        &[("class", "cpu")],
        1.5,
    );
    is(
        "miniflow_workers",
        &[("class", "cpu"), ("state", "ready")],
        2.0,
    );
    is(
        "miniflow_workers",
        &[("class", "cpu"), ("state", "draining")],
        1.0,
    );
    is("miniflow_workers_target", &[("class", "cpu")], 3.0);
    is(
        "miniflow_worker_crashes_total",
        &[("signal", "SIGSEGV")],
        1.0,
    );
    is("miniflow_worker_crashes_total", &[("signal", "none")], 1.0);
    is("miniflow_worker_busy_threads", &[("worker", "1")], 3.0);
    is(
        "miniflow_worker_busy_seconds_total",
        &[("worker", "1"), ("class", "cpu")],
        2.5,
    );
    is(
        "miniflow_worker_cpu_seconds_total",
        &[("worker", "3"), ("class", "io")],
        1.25,
    );
    is("miniflow_machine_cpu_usage_ratio", &[], 0.34);
    is("miniflow_memory_state", &[("state", "no_growth")], 1.0);
    is("miniflow_memory_state", &[("state", "ample")], 0.0);
}

#[test]
fn what_is_not_measured_has_no_series() {
    let text = Exposition::parse(&status(sample("demo")).to_prometheus());
    let series = |name, labels: &[(&str, &str)]| text.values(name, labels).len();
    assert_eq!(series("miniflow_machine_memory_usage_ratio", &[]), 1);
    assert_eq!(series("miniflow_machine_memory_pressure_ratio", &[]), 0);
    let new = [("worker", "0")]; // a worker without processor time and memory yet
    assert_eq!(series("miniflow_worker_tasks_total", &new), 1);
    assert_eq!(series("miniflow_worker_cpu_seconds_total", &new), 0);
    assert_eq!(series("miniflow_worker_resident_memory_bytes", &new), 0);
}

#[test]
fn histogram_buckets_count_what_is_below_their_end() {
    let text = Exposition::parse(&status(sample("demo")).to_prometheus());
    let below = |end: &str, what: &str| {
        let name = format!("miniflow_task_{what}_duration_seconds_bucket");
        text.value(&name, &[("class", "cpu"), ("le", end)])
    };
    // Two times below 1024 ns, one between 2048 and 2560.
    assert_eq!(below("0.000001024", "queue"), 2.0);
    assert_eq!(below("0.000002048", "queue"), 2.0);
    assert_eq!(below("0.000004096", "queue"), 3.0);
    assert_eq!(below("+Inf", "queue"), 3.0);
    // One beyond the last bucket's end.
    assert_eq!(below("68.719476736", "run"), 1.0);
    assert_eq!(below("+Inf", "run"), 2.0);
    let sum = |what| text.value(what, &[("class", "io")]);
    assert_eq!(sum("miniflow_task_queue_duration_seconds_sum"), 4.096e-6);
    assert_eq!(sum("miniflow_task_run_duration_seconds_sum"), 400.0);
    assert_eq!(sum("miniflow_task_run_duration_seconds_count"), 2.0);
}

#[test]
fn several_engines_share_one_exposition_in_which_no_metric_is_told_twice() {
    let mut unnamed = sample("");
    unnamed["name"] = Value::Null;
    let engines = vec![
        status(sample("one")),
        status(sample("two")),
        status(unnamed),
    ];
    let text = Exposition::parse(&prometheus(engines));
    assert_eq!(
        text.label("miniflow_tasks_submitted_total", "engine"),
        ["42", "one", "two"]
    );
    let one = Exposition::parse(&status(sample("one")).to_prometheus());
    assert_eq!(text.names(), one.names());
    // Of no engine there is nothing to say, in the right form.
    assert_eq!(Exposition::parse(&prometheus(vec![])).names(), one.names());
}

#[test]
fn a_label_comes_back_whatever_is_in_it() {
    let name = "a\"b\\c\nd{e=\"f\"} 1";
    let text = Exposition::parse(&status(sample(name)).to_prometheus());
    assert_eq!(
        text.label("miniflow_tasks_submitted_total", "engine"),
        [name]
    );
}

#[test]
fn a_running_engine_tells_its_own_story_and_no_counter_goes_back() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1)
        .unnamed() // it is called by its pid then
        .handler(|task| match task.payload() {
            b"fail" => Err("as asked".into()),
            _ => Ok(()),
        })
        .start()
        .unwrap();
    let look = || Exposition::parse(&engine.metrics_text());
    let mut before = look();
    for round in 1..=3 {
        for payload in [&b"fail"[..], b"", b""] {
            engine.submit(payload).unwrap();
        }
        collect(&engine, 3);
        kill(worker(&engine, 0).pid);
        until("the killed worker is replaced", || {
            let stats = engine.stats();
            (stats.died, stats.workers) == (round, 2)
        });
        let now = look();
        now.assert_follows(&before);
        before = now;
    }
    let pid = std::process::id().to_string();
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(before.value(name, labels), value, "{name} {labels:?}");
    };
    is("miniflow_tasks_submitted_total", &[("engine", &pid)], 9.0);
    is("miniflow_tasks_ended_total", &[("outcome", "failed")], 3.0);
    is(
        "miniflow_tasks_ended_total",
        &[("outcome", "completed")],
        6.0,
    );
    is(
        "miniflow_task_run_duration_seconds_count",
        &[("class", "cpu")],
        9.0,
    );
    is(
        "miniflow_worker_crashes_total",
        &[("signal", "SIGKILL")],
        3.0,
    );
    is("miniflow_workers_died_total", &[], 3.0);
    is("miniflow_workers_started_total", &[], 5.0);
    is(
        "miniflow_workers",
        &[("class", "cpu"), ("state", "ready")],
        2.0,
    );
}
