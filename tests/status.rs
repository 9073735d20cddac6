//! What an engine says about itself is true, on both sides of its control segment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Board, Name, Random, collect, cpu_only, is_alive, until, watchdog, watchdog_alone};
use miniflow::monitor::Monitor;
use miniflow::status::{EngineState, Status};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Engine, Outcome, Policy, Stats, SubmitOptions, WorkerState};

/// Does what the payload says.
fn obey(board: Board) -> impl Fn(&mut Task<'_>) -> TaskResult + 'static {
    move |task| match task.payload() {
        b"fail" => Err("as asked".into()),
        b"abort" => std::process::abort(),
        b"exit" => std::process::exit(7),
        b"wait" => {
            board.add(1);
            board.wait(0);
            Ok(())
        }
        b"spin" => {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is as of the moment of asking.
fn without_moment(mut status: Status) -> Status {
    status.at_ms = 0;
    for row in &mut status.workers {
        (row.cpu_ns, row.cpu_permille, row.rss_bytes) = (0, 0, 0);
    }
    status
}

fn ended(stats: &Stats) -> u64 {
    stats.completed + stats.failed + stats.crashed + stats.timed_out + stats.cancelled
}

#[test]
fn a_monitor_sees_what_the_host_sees() {
    let _watchdog = watchdog(60);
    let (name, board) = (Name::unique(), Board::new());
    let engine = Engine::builder()
        .name(&*name)
        .workers_between(Class::CpuBound, 1, 3)
        .threads(Class::CpuBound, 2)
        .workers(Class::IoBound, 1)
        .policy(Policy::PowerOfTwo)
        .handler(obey(board))
        .start()
        .unwrap();
    let monitor = Monitor::open(&name).unwrap();
    for payload in [&b"fail"[..], b"abort", b"exit", b"", b"", b""] {
        engine.submit(payload).unwrap();
        collect(&engine, 1);
    }
    engine.resize(Class::CpuBound, 2).unwrap();
    until("all workers are there", || engine.stats().workers == 3);
    engine.submit(b"").unwrap(); // its completion is not fetched
    until("it has ended", || engine.stats().unpolled == 1);
    until("both sides say the same", || {
        without_moment(monitor.status()) == without_moment(engine.status())
    });

    let status = monitor.status();
    assert_eq!(status.name.as_deref(), Some(&*name));
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.state, EngineState::Running);
    assert_eq!((&*status.policy, &*status.scaling), ("power_of_two", "off"));
    let tasks = &status.tasks;
    assert_eq!((tasks.submitted, tasks.completed, tasks.failed), (7, 4, 1));
    assert_eq!((tasks.crashed, tasks.died, tasks.unpolled), (2, 2, 1));
    assert_eq!(monitor.stats(), *tasks);
    assert_eq!(monitor.workers(), status.workers);

    let signals: Vec<_> = status
        .signals
        .iter()
        .map(|s| (s.signal, s.deaths))
        .collect();
    assert_eq!(signals, [(0, 1), (libc::SIGABRT as u32, 1)]);
    let ends: Vec<_> = status
        .crashes
        .iter()
        .map(|c| (c.signal, c.exit_code, c.started))
        .collect();
    assert_eq!(ends, [(libc::SIGABRT as u32, 0, 1), (0, 7, 1)]);
    assert!(status.crashes[0].task.is_some(), "{:?}", status.crashes[0]);

    let decision = &status.decisions[0];
    assert_eq!((decision.before, decision.after), (1, 2));
    assert_eq!(decision.reason, "by hand");
    assert!(status.at_ms >= decision.at_ms && decision.at_ms >= status.started_ms);

    let cpu = status.class(Class::CpuBound).unwrap();
    assert_eq!(
        (cpu.workers, cpu.target, cpu.min, cpu.max, cpu.threads),
        (2, 2, 1, 3, 2)
    );
    assert_eq!((&*cpu.placement, &cpu.broken), ("none", &None));
    // Of the two that crashed the start is known.
    assert_eq!((cpu.queue_time.count(), cpu.run_time.count()), (7, 7));
    let io = status.class(Class::IoBound).unwrap();
    assert_eq!((io.workers, io.run_time.count()), (1, 0));
}

#[test]
fn a_status_as_json_comes_back_whole() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(obey(Board::new())).start().unwrap();
    for payload in [&b"abort"[..], b"fail", b"", b""] {
        engine.submit(payload).unwrap();
    }
    collect(&engine, 4);
    engine.resize(Class::CpuBound, 1).unwrap();
    until("the other worker has left", || engine.stats().workers == 1);
    let status = engine.status();
    assert_eq!(status.decisions.len(), 1);
    assert_eq!(status.crashes.len(), 1);
    let back: Status = serde_json::from_str(&status.to_json()).unwrap();
    assert_eq!(back, status);
    let json: serde_json::Value = serde_json::from_str(&engine.status_json()).unwrap();
    assert_eq!(json["schema"], miniflow::status::SCHEMA);
    assert_eq!(json["classes"][0]["run_time"]["count"], 4);
}

#[test]
fn the_components_have_the_shape_of_the_python_api() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = Engine::builder()
        .workers_between(Class::CpuBound, 1, 2)
        .workers(Class::IoBound, 1)
        .threads(Class::IoBound, 2)
        .max_tasks(8)
        .handler(obey(board))
        .start()
        .unwrap();
    let io = SubmitOptions::new().class(Class::IoBound);
    for _ in 0..8 {
        engine.submit_with(b"wait", &io).unwrap();
    }
    engine.submit_with(b"wait", &io).unwrap_err();
    until("both threads are busy", || board.get(1) == 2);
    let json: serde_json::Value = serde_json::from_str(&engine.status_json()).unwrap();
    assert_eq!(json["engine"], serde_json::json!({"is_running": true}));
    let components = &json["components"];
    for name in ["input_queue", "output_queue", "process_pool"] {
        assert_eq!(components[name]["name"], name);
        assert_eq!(components[name]["health"], "healthy");
    }
    let queue = &components["input_queue"]["metrics"];
    assert_eq!(
        (&queue["total_put"], &queue["total_dropped"]),
        (&8.into(), &1.into())
    );
    let pool = &components["process_pool"]["metrics"];
    assert_eq!(
        (&pool["cpu_bound_workers"], &pool["io_bound_workers"]),
        (&1.into(), &1.into())
    );
    assert_eq!(pool["total_workers"], 2);
    let active = (
        &pool["cpu_bound_active_threads"],
        &pool["io_bound_active_threads"],
    );
    assert_eq!(active, (&0.into(), &2.into()));
    let worker = &pool["io_worker_tasks"]["io-0"];
    assert_eq!(worker["active_tasks"], 2);
    assert_eq!(worker["thread_pool_queue_size"], 0);
    let waiting = worker["queue_size"].as_u64().unwrap();
    assert_eq!(worker["total_load"], 2 + waiting);
    assert_eq!(queue["size"], 6 - waiting);
    assert_eq!(pool["cpu_worker_tasks"]["cpu-0"]["total_load"], 0);

    board.set(0, 1);
    collect(&engine, 3);
    until("all have ended", || engine.stats().unpolled == 5);
    let json: serde_json::Value = serde_json::from_str(&engine.status_json()).unwrap();
    let results = &json["components"]["output_queue"]["metrics"];
    let want = serde_json::json!({"size": 5, "total_put": 8, "total_get": 3});
    assert_eq!(*results, want);
    engine.stop(None).unwrap();
    let json: serde_json::Value = serde_json::from_str(&engine.status_json()).unwrap();
    assert_eq!(json["engine"]["is_running"], false);
    assert_eq!(json["components"]["process_pool"]["health"], "unhealthy");
}

#[test]
fn only_tasks_that_were_started_count_in_the_histograms() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(obey(board)).start().unwrap();
    engine.submit(b"wait").unwrap();
    until("it runs", || board.get(1) == 1);
    let waiting: Vec<_> = (0..5).map(|_| engine.submit(b"").unwrap()).collect();
    for &id in &waiting {
        engine.cancel(id).unwrap();
    }
    std::thread::sleep(Duration::from_millis(30)); // is to be found in both histograms
    engine.submit(b"").unwrap();
    board.set(0, 1);
    let done = collect(&engine, 7);
    let cancelled = done
        .iter()
        .filter(|c| c.outcome() == Outcome::Cancelled)
        .count();
    let status = engine.status();
    let class = status.class(Class::CpuBound).unwrap();
    let started = 7 - cancelled as u64;
    assert!(started >= 2);
    assert_eq!(
        (class.queue_time.count(), class.run_time.count()),
        (started, started)
    );
    let longest = class.run_time.quantile(1.0).unwrap();
    assert!(longest >= Duration::from_millis(30), "{longest:?}");
    let started = done.iter().filter(|c| c.outcome() != Outcome::Cancelled);
    let (run, queued) = started.fold(Default::default(), |(run, queued), completion| {
        (run + completion.ran(), queued + completion.queued())
    });
    let sums: (Duration, Duration) = (class.run_time.sum(), class.queue_time.sum());
    assert_eq!(sums, (run, queued));
}

#[test]
fn a_task_that_waits_grows_older_also_for_a_monitor() {
    let _watchdog = watchdog(60);
    let (name, board) = (Name::unique(), Board::new());
    let engine = cpu_only(1, 1)
        .name(&*name)
        .handler(obey(board))
        .start()
        .unwrap();
    let monitor = Monitor::open(&name).unwrap();
    for _ in 0..5 {
        engine.submit(b"wait").unwrap();
    }
    let oldest = |status: Status| status.class(Class::CpuBound).unwrap().oldest_ns;
    until("some wait", || oldest(monitor.status()) > 0);
    let first = oldest(monitor.status());
    until("they grow older", || {
        oldest(monitor.status()) > first + 200_000_000
    });
    assert!(oldest(engine.status()) > first + 100_000_000);
    board.set(0, 1);
    collect(&engine, 5);
    until("none waits", || oldest(monitor.status()) == 0);
}

#[test]
fn the_kernels_word_on_a_worker_reaches_both_sides() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let engine = cpu_only(1, 1)
        .name(&*name)
        .handler(obey(Board::new()))
        .start()
        .unwrap();
    let monitor = Monitor::open(&name).unwrap();
    until("its processor time is seen", || {
        engine.submit(b"spin").unwrap();
        collect(&engine, 1);
        let rows = [engine.workers(), monitor.workers()].concat();
        rows.iter()
            .all(|row| row.cpu_ns >= 200_000_000 && row.cpu_permille > 100)
    });
    for row in [engine.workers()[0], monitor.workers()[0]] {
        assert!(row.rss_bytes > 100_000, "{row:?}");
        assert!(row.started_ms >= monitor.status().started_ms, "{row:?}");
        assert!(row.state == WorkerState::Ready && is_alive(row.pid));
    }
}

#[test]
fn an_engine_at_rest_does_not_publish() {
    let _watchdog = watchdog_alone(60);
    let name = Name::unique();
    let engine = cpu_only(1, 1)
        .name(&*name)
        .handler(obey(Board::new()))
        .start()
        .unwrap();
    let monitor = Monitor::open(&name).unwrap();
    engine.submit(b"").unwrap();
    until("it has ended", || engine.stats().unpolled == 1);
    collect(&engine, 1);
    // A status that still holds is as of now, without a word of the engine's.
    let contents = || std::fs::read(name.path()).unwrap();
    let mut before = contents();
    let mut since = Instant::now();
    until("nothing changes for half a second", || {
        let now = contents();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        since.elapsed() >= Duration::from_millis(500)
    });
    let status = monitor.status();
    assert_eq!((status.tasks.unpolled, status.tasks.completed), (0, 1));
    let host = engine.status();
    assert!(
        (host.at_ms - status.at_ms).abs() < 400,
        "{} {}",
        host.at_ms,
        status.at_ms
    );
    // Neither does who only asks wake it.
    assert_eq!(contents(), before);
}

#[test]
fn a_dead_engine_says_its_last_word_and_that_it_is_dead() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let engine = cpu_only(1, 1)
        .name(&*name)
        .handler(obey(Board::new()))
        .start()
        .unwrap();
    let monitor = Monitor::open(&name).unwrap();
    engine.submit(b"").unwrap();
    collect(&engine, 1);
    until("it is told", || monitor.stats().completed == 1);
    engine.stop(None).unwrap();
    let status = monitor.status();
    assert_eq!(status.state, EngineState::Stopped);
    assert_eq!((status.tasks.completed, status.workers.len()), (1, 0));
    assert_eq!(without_moment(status), without_moment(engine.status()));
}

/// Set in the process that reads for [`no_reader_sees_a_torn_record_while_workers_are_killed_and_resized`].
const READ: &str = "MINIFLOW_TEST_READ_STATUS_OF";

#[test]
fn no_reader_sees_a_torn_record_while_workers_are_killed_and_resized() {
    let _watchdog = watchdog(120);
    let name = Name::unique();
    let engine = Engine::builder()
        .name(&*name)
        .workers_between(Class::CpuBound, 2, 6)
        .workers_between(Class::IoBound, 1, 3)
        .handler(obey(Board::new()))
        .start()
        .unwrap();
    let mut reader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reads_until_the_engine_stops", "--nocapture"])
        .env(READ, &*name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut random = Random(1);
    let until = Instant::now() + Duration::from_secs(3);
    let (mut submitted, mut taken) = (0, 0);
    while Instant::now() < until {
        for class in Class::ALL {
            let most = if class == Class::CpuBound { 6 } else { 3 };
            engine.resize(class, 1 + random.below(most) as u32).unwrap();
            let options = SubmitOptions::new().class(class).max_attempts(100);
            for _ in 0..50 {
                submitted += usize::from(engine.submit_with(b"", &options).is_ok());
            }
        }
        let rows = engine.workers();
        let row = rows[random.below(rows.len() as u64) as usize];
        if row.state == WorkerState::Ready {
            let pid = rustix::process::Pid::from_raw(row.pid.cast_signed()).unwrap();
            // It may have left by itself meanwhile, for a resize.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        taken += engine
            .poll(1000, Some(Duration::from_millis(5)))
            .unwrap()
            .len();
    }
    collect(&engine, submitted - taken);
    engine.stop(None).unwrap();
    let mut text = String::new();
    reader
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(reader.wait().unwrap().success(), "{text}");
    assert!(
        text.contains("1 passed"),
        "the test is called otherwise: {text}"
    );
}

/// In the process that the test above starts.
#[test]
fn reads_until_the_engine_stops() {
    let Ok(name) = std::env::var(READ) else {
        return;
    };
    let _watchdog = watchdog(100);
    let monitor = Monitor::open(&name).unwrap();
    let mut last = monitor.status();
    let (mut reads, mut deaths) = (0_u64, 0);
    let mut incarnations = BTreeMap::new();
    while last.state == EngineState::Running || last.state == EngineState::Stopping {
        let status = monitor.status();
        check(&last, &status);
        for row in &status.workers {
            let newest = incarnations.entry(row.slot).or_insert(row.incarnation);
            assert!(row.incarnation >= *newest, "{row:?} after {newest}");
            *newest = row.incarnation;
        }
        (reads, deaths) = (reads + 1, status.tasks.died);
        last = status;
    }
    assert_eq!(last.state, EngineState::Stopped);
    assert_eq!(last.tasks.submitted, ended(&last.tasks));
    assert!(reads > 20 && deaths > 5, "{reads} reads, {deaths} deaths");
    println!("{reads} reads, {deaths} deaths");
}

/// What holds of every status, and between one and a later one.
fn check(before: &Status, status: &Status) {
    let tasks = &status.tasks;
    // One record: these fit together.
    let held = tasks.queued + tasks.on_workers;
    assert!(ended(tasks) + held >= tasks.submitted, "{tasks:?}");
    assert!(ended(tasks) <= tasks.submitted, "{tasks:?}");
    assert!(
        tasks.workers <= 9 && tasks.died <= tasks.spawned,
        "{tasks:?}"
    );
    let (a, b) = (&before.tasks, tasks);
    assert!(
        a.submitted <= b.submitted && ended(a) <= ended(b),
        "{a:?} {b:?}"
    );
    assert!(a.spawned <= b.spawned && a.died <= b.died, "{a:?} {b:?}");
    for row in &status.workers {
        let (slots, threads) = match row.class {
            Class::CpuBound => (0..6, 1..=1),
            Class::IoBound => (6..9, 1..=1024),
        };
        assert!(
            slots.contains(&row.slot) && threads.contains(&row.threads),
            "{row:?}"
        );
        assert!(row.pid != 0 || row.state != WorkerState::Ready, "{row:?}");
        assert!(row.incarnation > 0 && row.started_ms > 0, "{row:?}");
    }
    for (class, earlier) in status.classes.iter().zip(&before.classes) {
        assert!((1..=class.max).contains(&class.target), "{class:?}");
        for (now, then) in [
            (&class.queue_time, &earlier.queue_time),
            (&class.run_time, &earlier.run_time),
        ] {
            assert!(now.count() >= then.count() && now.sum() >= then.sum());
        }
    }
    let crashes = &status.crashes;
    assert!(
        crashes
            .iter()
            .all(|c| c.signal == libc::SIGKILL as u32 && c.pid != 0),
        "{crashes:?}"
    );
    for decision in &status.decisions {
        assert_eq!(decision.reason, "by hand");
        assert!((1..=6).contains(&decision.after), "{decision:?}");
    }
}
