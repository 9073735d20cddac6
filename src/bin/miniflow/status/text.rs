//! A status as people read it.

use std::fmt::Write;
use std::time::Duration;

use miniflow::Action;
use miniflow::status::{
    ClassStatus, Crash, DecisionRow, EngineState, Histogram, Machine, MemoryState, Status,
    WorkerRow, WorkerState, signal_name,
};

use crate::table::{Side, Table};
use crate::units::{age, bytes, percent, plural, time};

/// Crashes and decisions that are shown, of those that are known.
const SHOWN: usize = 5;

/// The whole report.
pub(super) fn report(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = heading(&mut text, status);
    let _ = counters(&mut text, status);
    let _ = write!(text, "\n{}", classes(status));
    for class in &status.classes {
        if let Some(why) = &class.broken {
            let _ = writeln!(
                text,
                "no {} worker can be started: {why}",
                class.class.name()
            );
        }
    }
    if !status.workers.is_empty() {
        let _ = write!(text, "\n{}", workers(status));
    }
    let _ = crashes(&mut text, status);
    let _ = decisions(&mut text, status);
    if !status.notes.is_empty() {
        let _ = writeln!(text, "\nnotes");
        for note in &status.notes {
            let _ = writeln!(text, "  {note}");
        }
    }
    text
}

fn heading(text: &mut String, status: &Status) -> std::fmt::Result {
    let state = match status.state {
        EngineState::Running => "running",
        EngineState::Stopping => "stopping",
        EngineState::Stopped => "stopped",
        EngineState::Dead => "dead",
        _ => "in a state of a newer version",
    };
    let lived = match status.state {
        EngineState::Dead => "lived",
        _ => "up",
    };
    writeln!(
        text,
        "{}: {state}, pid {}, {lived} {} (miniflow {})",
        status.name.as_deref().unwrap_or("engine without a name"),
        status.pid,
        age(between(status.started_ms, status.at_ms)),
        status.version
    )?;
    if status.degraded {
        writeln!(
            text,
            "  degraded: the zygote is gone, no worker can be started"
        )?;
    }
    Ok(())
}

fn counters(text: &mut String, status: &Status) -> std::fmt::Result {
    let tasks = &status.tasks;
    let ended: [(&str, u64); 5] = [
        ("completed", tasks.completed),
        ("failed", tasks.failed),
        ("crashed", tasks.crashed),
        ("timed out", tasks.timed_out),
        ("cancelled", tasks.cancelled),
    ];
    writeln!(
        text,
        "\ntasks     {} submitted, {} queued, {} on workers, {} not fetched",
        tasks.submitted, tasks.queued, tasks.on_workers, tasks.unpolled
    )?;
    writeln!(text, "ended     {}", counts(&ended))?;
    let apart: [(&str, u64); 5] = [
        ("refused (would block)", tasks.would_block),
        ("recalled", tasks.recalled),
        ("moved from dead workers", tasks.redispatched),
        ("started again", tasks.retried),
        ("failures of the dispatch policy", tasks.policy_failures),
    ];
    if apart.iter().any(|&(_, count)| count > 0) {
        writeln!(text, "apart     {}", counts_above_0(&apart))?;
    }
    let processes: [(&str, u64); 5] = [
        ("started", tasks.spawned),
        ("died", tasks.died),
        ("killed", tasks.killed),
        ("recycled", tasks.recycled),
        ("untrusted", tasks.violations),
    ];
    writeln!(
        text,
        "workers   {} ready; {}",
        tasks.workers,
        counts_above_0(&processes)
    )?;
    if !status.signals.is_empty() {
        let deaths = status.signals.iter().map(|s| match s.signal {
            0 => format!("{} without a signal", s.deaths),
            signal => format!("{} by {}", s.deaths, signal_name(signal)),
        });
        writeln!(text, "deaths    {}", deaths.collect::<Vec<_>>().join(", "))?;
    }
    writeln!(
        text,
        "payloads  {} of {}",
        bytes(tasks.payload_bytes),
        bytes(tasks.payload_capacity)
    )?;
    writeln!(text, "machine   {}", machine_line(&status.machine))?;
    writeln!(
        text,
        "policies  dispatch {}, scaling {}",
        status.policy, status.scaling
    )
}

/// What was measured of the machine: nothing unless the engine scales by it.
fn machine_line(machine: &Machine) -> String {
    let mut line = plural(machine.cpus, "processor");
    for (what, share) in [
        ("busy", machine.cpu),
        ("of memory used", machine.memory),
        ("of the time short of memory", machine.memory_pressure),
    ] {
        if let Some(share) = share {
            line += &format!(", {} {what}", percent(share));
        }
    }
    line + match machine.memory_state {
        MemoryState::NoGrowth => "; no more workers are started for want of memory",
        MemoryState::Shedding => "; idle workers are let go for want of memory",
        MemoryState::Refusing => "; submits are refused for want of memory",
        _ => "",
    }
}

fn counts(counts: &[(&str, u64)]) -> String {
    let words = counts.iter().map(|(what, count)| format!("{count} {what}"));
    words.collect::<Vec<_>>().join(", ")
}

fn counts_above_0(all: &[(&str, u64)]) -> String {
    let some: Vec<_> = all
        .iter()
        .copied()
        .filter(|&(_, count)| count > 0)
        .collect();
    counts(&some)
}

fn classes(status: &Status) -> Table<10> {
    use Side::{Left, Right};
    let mut table = Table::new([
        ("CLASS", Left),
        ("WORKERS", Right),
        ("TARGET", Right),
        ("THREADS", Right),
        ("QUEUED", Right),
        ("ON WORKERS", Right),
        ("OLDEST", Right),
        ("QUEUE TIME 50/99 %", Right),
        ("RUN TIME 50/99 %", Right),
        ("PLACEMENT", Left),
    ]);
    for class in &status.classes {
        table.push(class_row(class));
    }
    table
}

fn class_row(class: &ClassStatus) -> [String; 10] {
    let starting = match class.starting {
        0 => String::new(),
        count => format!("+{count}"),
    };
    let target = match (class.min, class.max) {
        (min, max) if min == max => class.target.to_string(),
        (min, max) => format!("{} ({min}-{max})", class.target),
    };
    let oldest = match class.oldest_ns {
        0 => "-".into(),
        ns => time(Duration::from_nanos(ns)),
    };
    [
        class.class.name().to_owned(),
        format!("{}{starting}", class.workers),
        target,
        class.threads.to_string(),
        class.queued.to_string(),
        class.on_workers.to_string(),
        oldest,
        quantiles(&class.queue_time),
        quantiles(&class.run_time),
        class.placement.clone(),
    ]
}

fn quantiles(histogram: &Histogram) -> String {
    match (histogram.quantile(0.5), histogram.quantile(0.99)) {
        (Some(median), Some(tail)) => format!("{} / {}", time(median), time(tail)),
        _ => "-".into(),
    }
}

fn workers(status: &Status) -> Table<13> {
    use Side::{Left, Right};
    let mut table = Table::new([
        ("WORKER", Right),
        ("CLASS", Left),
        ("PID", Right),
        ("STATE", Left),
        ("THREADS", Right),
        ("QUEUED", Right),
        ("RUNNING", Right),
        ("ENDED", Right),
        ("FAILED", Right),
        ("MEAN", Right),
        ("CPU", Right),
        ("MEMORY", Right),
        ("UP", Right),
    ]);
    for worker in &status.workers {
        table.push(worker_row(worker, status.at_ms));
    }
    table
}

fn worker_row(worker: &WorkerRow, now_ms: i64) -> [String; 13] {
    let state = match worker.state {
        WorkerState::Starting => "starting",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Leaving => "leaving",
        _ => "?",
    };
    let known = |value: u64, shown: String| match value {
        0 => "-".into(),
        _ => shown,
    };
    let up = age(between(worker.started_ms, now_ms));
    [
        worker.slot.to_string(),
        worker.class.name().to_owned(),
        worker.pid.to_string(),
        state.to_owned(),
        worker.threads.to_string(),
        worker.queued.to_string(),
        worker.running.to_string(),
        worker.completed.to_string(),
        worker.failed.to_string(),
        known(
            worker.service_ns,
            time(Duration::from_nanos(worker.service_ns)),
        ),
        known(worker.cpu_ns, format!("{} %", worker.cpu_permille / 10)),
        known(worker.rss_bytes, bytes(worker.rss_bytes)),
        known(worker.started_ms.unsigned_abs(), up),
    ]
}

fn crashes(text: &mut String, status: &Status) -> std::fmt::Result {
    let all = &status.crashes;
    if all.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{}", last("crashes", all.len()))?;
    for crash in all.iter().rev().take(SHOWN) {
        writeln!(text, "  {}", crash_line(crash, status.at_ms))?;
    }
    Ok(())
}

fn crash_line(crash: &Crash, now_ms: i64) -> String {
    let end = match (crash.signal, crash.exit_code) {
        (0, 0) => "ended".to_owned(),
        (0, code) => format!("exited with {code}"),
        (signal, _) => signal_name(signal),
    };
    let mut line = format!(
        "{} ago  {} worker {} (pid {}): {end} after {}; {} started, {} went elsewhere",
        age(between(crash.at_ms, now_ms)),
        crash.class.name(),
        crash.worker,
        crash.pid,
        time(Duration::from_millis(crash.uptime_ms)),
        plural(crash.started, "task"),
        crash.returned
    );
    if let Some(task) = &crash.task {
        line += &format!("; by task {task}");
    }
    if !crash.place.is_empty() {
        line += &format!("; at {}", crash.place);
    }
    line
}

fn decisions(text: &mut String, status: &Status) -> std::fmt::Result {
    let all = &status.decisions;
    if all.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{}", last("changes of size", all.len()))?;
    for decision in all.iter().rev().take(SHOWN) {
        writeln!(text, "  {}", decision_line(decision, status.at_ms))?;
    }
    Ok(())
}

fn decision_line(decision: &DecisionRow, now_ms: i64) -> String {
    let what = match decision.action {
        Action::Failure => "the policy failed".to_owned(),
        _ => format!("{} -> {} workers", decision.before, decision.after),
    };
    format!(
        "{} ago  {}: {what}: {}",
        age(between(decision.at_ms, now_ms)),
        decision.class.name(),
        decision.reason
    )
}

/// A heading for the newest of `count`.
fn last(what: &str, count: usize) -> String {
    match count {
        ..=SHOWN => format!("{what}, newest first"),
        _ => format!("{what}, newest first ({SHOWN} of {count})"),
    }
}

/// From one moment to another, both in milliseconds since 1970; 0 if the clock was set back.
fn between(earlier_ms: i64, later_ms: i64) -> Duration {
    let ms = later_ms.saturating_sub(earlier_ms);
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn histogram(buckets: &[(u64, u64)]) -> Value {
        let count: u64 = buckets.iter().map(|&(_, count)| count).sum();
        json!({"count": count, "sum_ns": 0, "buckets": buckets})
    }

    fn class(name: &str) -> Value {
        json!({
            "class": name, "workers": 2, "starting": 1, "target": 3, "min": 1, "max": 8, "threads": 1,
            "queued": 12, "on_workers": 3, "oldest_ns": 3_100_000, "placement": "spread over 2 cores",
            "broken": null,
            "queue_time": histogram(&[(1_280, 99), (1_048_576, 1)]),
            "run_time": histogram(&[]),
        })
    }

    fn tasks() -> Value {
        json!({
            "submitted": 1000, "completed": 980, "failed": 3, "crashed": 2, "timed_out": 0,
            "cancelled": 0, "would_block": 5, "recalled": 0, "redispatched": 0, "retried": 0,
            "spawned": 4, "died": 2, "killed": 0, "recycled": 0, "violations": 0,
            "policy_failures": 0, "queued": 12, "on_workers": 3, "unpolled": 7, "workers": 2,
            "payload_bytes": 4096, "payload_capacity": 268_435_456, "degraded": false,
        })
    }

    fn worker() -> Value {
        json!({
            "slot": 1, "pid": 4712, "incarnation": 3, "class": "cpu", "state": "ready", "threads": 1,
            "depth": 4, "queued": 2, "running": 1, "completed": 490, "failed": 1, "busy_ns": 5,
            "service_ns": 1_250_000, "crashed": 0, "cpu_ns": 7, "cpu_permille": 430,
            "rss_bytes": 12_582_912, "started_ms": 1_000_060_000,
        })
    }

    fn crash(signal: u32) -> Value {
        json!({
            "at_ms": 1_000_057_000, "worker": 0, "pid": 4711, "class": "cpu", "signal": signal,
            "exit_code": 0, "started": 1, "returned": 4, "uptime_ms": 57_000,
            "task": "0190f2c0-0000-7000-8000-000000000001", "place": "divide (math.c:12)",
        })
    }

    fn decision() -> Value {
        json!({
            "at_ms": 1_000_050_000, "class": "cpu", "action": "grow", "before": 1, "after": 3,
            "reason": "tasks wait 3 ms", "starting": 0, "threads": 1, "queued": 9, "on_workers": 1,
            "oldest_ns": 3_000_000, "cpu": 0.5, "memory": null,
        })
    }

    fn status(change: impl FnOnce(&mut Value)) -> Status {
        let mut value = json!({
            "schema": 1, "version": "9.9.9", "name": "orders", "pid": 4700, "state": "running",
            "at_ms": 1_000_060_000, "started_ms": 1_000_000_000, "degraded": false,
            "policy": "least_loaded", "scaling": "by_load", "tasks": tasks(),
            "machine": {"cpus": 2, "cpu": 0.43, "memory": 0.12, "memory_pressure": null,
                        "memory_state": "ample"},
            "classes": [class("cpu")], "workers": [worker()],
            "signals": [{"signal": 11, "deaths": 1}, {"signal": 0, "deaths": 1}],
            "crashes": [], "decisions": [], "notes": [],
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn assert_line(report: &str, expected: &str) {
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = report.lines().any(|line| squeezed(line) == expected);
        assert!(found, "`{expected}` is no line of\n{report}");
    }

    #[test]
    fn a_report_has_what_the_engine_is_and_does() {
        let report = report(&status(|_| {}));
        for line in [
            "orders: running, pid 4700, up 1 min 0 s (miniflow 9.9.9)",
            "tasks 1000 submitted, 12 queued, 3 on workers, 7 not fetched",
            "ended 980 completed, 3 failed, 2 crashed, 0 timed out, 0 cancelled",
            "apart 5 refused (would block)",
            "workers 2 ready; 4 started, 2 died",
            "deaths 1 by SIGSEGV, 1 without a signal",
            "payloads 4.00 KiB of 256 MiB",
            "machine 2 processors, 43 % busy, 12 % of memory used",
            "policies dispatch least_loaded, scaling by_load",
            "cpu 2+1 3 (1-8) 1 12 3 3.10 ms 1.28 us / 1.28 us - spread over 2 cores",
            "1 cpu 4712 ready 1 2 1 490 1 1.25 ms 43 % 12.0 MiB 0 s",
        ] {
            assert_line(&report, line);
        }
        for absent in [
            "degraded",
            "crashes",
            "changes of size",
            "notes",
            "no cpu worker",
        ] {
            assert!(!report.contains(absent), "`{absent}` in\n{report}");
        }
    }

    #[test]
    fn a_dead_engine_has_lived() {
        let report = report(&status(|value| value["state"] = json!("dead")));
        assert_line(
            &report,
            "orders: dead, pid 4700, lived 1 min 0 s (miniflow 9.9.9)",
        );
    }

    #[test]
    fn what_went_wrong_is_told() {
        let report = report(&status(|value| {
            value["degraded"] = json!(true);
            value["classes"][0]["broken"] = json!("the program is gone");
            value["notes"] = json!(["no huge pages"]);
            value["machine"]["memory_state"] = json!("refusing");
            value["crashes"] = json!([crash(6), crash(11)]);
            value["decisions"] = json!([decision()]);
        }));
        for line in [
            "degraded: the zygote is gone, no worker can be started",
            "no cpu worker can be started: the program is gone",
            "no huge pages",
            "crashes, newest first",
            "3 s ago cpu worker 0 (pid 4711): SIGSEGV after 57.0 s; 1 task started, 4 went elsewhere; \
             by task 0190f2c0-0000-7000-8000-000000000001; at divide (math.c:12)",
            "10 s ago cpu: 1 -> 3 workers: tasks wait 3 ms",
        ] {
            assert_line(&report, line);
        }
        assert!(
            report.contains("; submits are refused for want of memory"),
            "{report}"
        );
        let (first, second) = (report.find("SIGSEGV after"), report.find("SIGABRT after"));
        assert!(first < second && first.is_some(), "{report}");
    }

    #[test]
    fn of_long_lists_the_newest_are_shown() {
        let report = report(&status(|value| {
            value["crashes"] = (0..9).map(|_| crash(9)).collect();
        }));
        assert_line(&report, "crashes, newest first (5 of 9)");
        assert_eq!(report.matches("SIGKILL after").count(), SHOWN, "{report}");
    }

    #[test]
    fn a_policy_that_failed_is_no_change_of_size() {
        let report = report(&status(|value| {
            value["decisions"] = json!([decision()]);
            value["decisions"][0]["action"] = json!("failure");
            value["decisions"][0]["reason"] = json!("it panicked");
        }));
        assert_line(&report, "10 s ago cpu: the policy failed: it panicked");
    }

    #[test]
    fn a_worker_that_starts_has_no_figures() {
        let report = report(&status(|value| {
            let row = &mut value["workers"][0];
            row["state"] = json!("starting");
            for key in ["service_ns", "cpu_ns", "rss_bytes", "started_ms"] {
                row[key] = json!(0);
            }
        }));
        assert_line(&report, "1 cpu 4712 starting 1 2 1 490 1 - - - -");
    }
}
