//! Workers, the zygote and the host die; nothing but what they were doing is lost.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test"
)]

mod common;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Board, Name, collect, cpu_only, is_alive, kill, until, watchdog, watchdog_alone, worker,
    zygote_of,
};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Completion, Engine, Error, Outcome, SubmitOptions, TaskId, WorkerState};
use rustix::process::{Pid, Signal, kill_process};

const GATE: u64 = 1;

/// A handler whose tasks wait at a gate (word 0 of the board) if their `user_data` says so, count
/// how many came there (word 1), and echo.
fn gated(board: Board) -> impl Fn(&mut Task<'_>) -> TaskResult + Send + Sync {
    move |task| {
        if task.user_data() == GATE {
            board.add(1);
            board.wait(0);
        }
        let payload = task.payload().to_vec();
        Ok(task.reply(&payload)?)
    }
}

fn submit_gated(engine: &Engine, payload: &[u8]) -> TaskId {
    let options = SubmitOptions::new()
        .user_data(GATE)
        .label(*b"a label, 16 long");
    engine.submit_with(payload, &options).unwrap()
}

#[track_caller]
fn assert_killed(crashed: &Completion, pid: u32) {
    assert_eq!(crashed.outcome(), Outcome::Crashed);
    assert_eq!((crashed.code(), crashed.by_signal()), (9, true));
    assert_eq!((crashed.attempt(), crashed.user_data()), (1, GATE));
    assert_eq!(&crashed.label().0, b"a label, 16 long");
    let text = crashed.text();
    for part in [
        format!("worker {}", crashed.worker()),
        format!("pid {pid}"),
        "SIGKILL".to_owned(),
        crashed.id().to_string(),
    ] {
        assert!(text.contains(&part), "`{part}` is not in `{text}`");
    }
}

#[test]
fn killing_a_busy_worker_costs_only_the_task_that_it_ran() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1).handler(gated(board)).start().unwrap();
    let held = [submit_gated(&engine, b"one"), submit_gated(&engine, b"two")];
    until("both run", || board.get(1) == 2);
    let queued: HashSet<TaskId> = (0..50).map(|_| engine.submit(b"x").unwrap()).collect();

    let victim = worker(&engine, 0);
    kill(victim.pid);
    let crashed = collect(&engine, 1).pop().unwrap();
    assert!(held.contains(&crashed.id()));
    assert_eq!(crashed.worker(), 0);
    assert!(!crashed.is_collateral());
    assert_killed(&crashed, victim.pid);

    board.set(0, 1);
    for completion in collect(&engine, 51) {
        assert!(completion.is_completed(), "{}", completion.text());
        assert!(queued.contains(&completion.id()) || held.contains(&completion.id()));
        assert_eq!(completion.attempt(), 1, "those that waited lost no attempt");
    }
    until("it is replaced", || engine.stats().workers == 2);
    let replacement = worker(&engine, 0);
    assert_ne!(replacement.pid, victim.pid);
    assert!(replacement.incarnation > victim.incarnation);
    assert_eq!(replacement.state, WorkerState::Ready);
    let stats = engine.stats();
    assert_eq!((stats.crashed, stats.completed, stats.died), (1, 51, 1));
    assert_eq!((stats.violations, stats.spawned), (0, 3));
}

#[test]
fn killing_an_idle_worker_harms_no_task() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(gated(Board::new())).start().unwrap();
    let victim = worker(&engine, 1);
    kill(victim.pid);
    until("it is replaced", || {
        let rows = engine.workers();
        engine.stats().workers == 2 && rows.iter().all(|row| row.pid != victim.pid)
    });
    assert!(engine.poll(1, Some(Duration::ZERO)).unwrap().is_empty());
    for _ in 0..100 {
        engine.submit(b"x").unwrap();
    }
    assert!(collect(&engine, 100).iter().all(Completion::is_completed));
    assert_eq!((engine.stats().died, engine.stats().crashed), (1, 0));
}

#[test]
fn a_handler_that_ends_its_process_is_a_crash_with_the_exit_code() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task| match task.payload() {
            b"exit" => {
                // SAFETY: ends the process without running anything of it.
                unsafe { libc::_exit(3) }
            }
            b"abort" => std::process::abort(),
            _ => Ok(()),
        })
        .start()
        .unwrap();
    let id = engine.submit(b"exit").unwrap();
    let crashed = engine.wait(id, None).unwrap();
    assert_eq!(crashed.outcome(), Outcome::Crashed);
    assert_eq!((crashed.code(), crashed.by_signal()), (3, false));
    assert!(crashed.text().contains("code 3"), "{}", crashed.text());

    let id = engine.submit(b"abort").unwrap();
    let crashed = engine.wait(id, None).unwrap();
    assert_eq!((crashed.code(), crashed.by_signal()), (libc::SIGABRT, true));
    assert!(crashed.text().contains("SIGABRT"), "{}", crashed.text());

    let id = engine.submit(b"fine").unwrap();
    assert!(engine.wait(id, None).unwrap().is_completed());
}

#[test]
fn a_handler_that_panics_fails_its_task_and_its_worker_lives() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task| match task.payload() {
            b"text" => panic!("no good"),
            b"format" => panic!("number {}", 7),
            b"other" => std::panic::panic_any(7),
            _ => Ok(()),
        })
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    for (payload, text) in [
        ("text", "no good"),
        ("format", "number 7"),
        ("other", "panicked"),
    ] {
        let id = engine.submit(payload.as_bytes()).unwrap();
        let failed = engine.wait(id, None).unwrap();
        assert_eq!((failed.outcome(), failed.code()), (Outcome::Failed, -10));
        assert!(failed.text().contains(text), "{}", failed.text());
    }
    let id = engine.submit(b"").unwrap();
    assert!(engine.wait(id, None).unwrap().is_completed());
    assert_eq!(worker(&engine, 0).pid, pid);
    assert_eq!((engine.stats().died, engine.stats().failed), (0, 3));
}

#[test]
fn all_tasks_that_run_in_a_worker_that_dies_are_suspects() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 4).handler(gated(board)).start().unwrap();
    let ids: Vec<TaskId> = (0..4).map(|_| submit_gated(&engine, b"")).collect();
    until("all run", || board.get(1) == 4);
    let victim = worker(&engine, 0);
    kill(victim.pid);
    for crashed in collect(&engine, 4) {
        assert!(ids.contains(&crashed.id()));
        assert!(crashed.is_collateral());
        assert_killed(&crashed, victim.pid);
    }
}

#[test]
fn killing_every_worker_at_once_costs_what_they_ran() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(4, 1).handler(gated(board)).start().unwrap();
    for _ in 0..4 {
        submit_gated(&engine, b"");
    }
    until("all run", || board.get(1) == 4);
    for _ in 0..200 {
        engine.submit(&[5; 100]).unwrap();
    }
    let victims: Vec<u32> = engine.workers().iter().map(|row| row.pid).collect();
    victims.iter().for_each(|&pid| kill(pid));
    let done = collect(&engine, 204);
    let crashed: Vec<_> = done
        .iter()
        .filter(|c| c.outcome() == Outcome::Crashed)
        .collect();
    assert_eq!(crashed.len(), 4);
    for crash in crashed {
        assert_killed(crash, victims[crash.worker() as usize]);
    }
    let good = done
        .iter()
        .filter(|c| c.is_completed() && c.to_vec() == [5; 100]);
    assert_eq!(good.count(), 200);
    assert_eq!(engine.stats().payload_bytes, 0);
}

#[test]
fn workers_that_are_killed_over_and_over_lose_no_task() {
    let _watchdog = watchdog(120);
    let kills: u64 = if std::env::var_os("MINIFLOW_LONG").is_some() {
        1000
    } else {
        40
    };
    let engine = cpu_only(3, 2)
        .handler(|task| {
            let payload = task.payload().to_vec();
            let len = task.user_data() as usize;
            Ok(task.reply(&payload.repeat(len))?)
        })
        .max_tasks(1000)
        .start()
        .unwrap();
    let (mut submitted, mut ended) = (HashSet::new(), 0_usize);
    let mut crashed = 0_u64;
    for round in 0..kills {
        for number in 0..100_u64 {
            let len = [0, 1, 100, 20_000][number as usize % 4];
            let options = SubmitOptions::new().user_data(len);
            let payload = [number as u8; 50];
            match engine.submit_with(&payload[..number as usize % 50 + 1], &options) {
                Ok(id) => assert!(submitted.insert(id)),
                Err(Error::WouldBlock(_)) => break,
                Err(e) => panic!("{e}"),
            }
        }
        // Anywhere in whatever they do just now.
        if let Some(row) = engine
            .workers()
            .iter()
            .find(|row| row.slot as u64 == round % 3)
            && row.pid != 0
        {
            let _ = kill_process(Pid::from_raw(row.pid.cast_signed()).unwrap(), Signal::KILL);
        }
        for completion in engine.poll(200, Some(Duration::from_millis(5))).unwrap() {
            assert!(
                submitted.remove(&completion.id()),
                "twice, or never submitted"
            );
            ended += 1;
            crashed += u64::from(completion.outcome() == Outcome::Crashed);
        }
    }
    for completion in engine.completions() {
        assert!(
            submitted.remove(&completion.id()),
            "twice, or never submitted"
        );
        ended += 1;
        match completion.outcome() {
            Outcome::Completed => {}
            Outcome::Crashed => crashed += 1,
            other => panic!("{other:?}: {}", completion.text()),
        }
    }
    assert!(
        submitted.is_empty(),
        "{} tasks never ended",
        submitted.len()
    );
    let stats = engine.stats();
    assert_eq!(stats.submitted, ended as u64);
    assert_eq!((stats.crashed, stats.violations), (crashed, 0));
    assert_eq!((stats.payload_bytes, stats.unpolled), (0, 0));
    until("all are replaced", || engine.stats().workers == 3);
}

#[test]
fn results_of_a_dead_worker_can_still_be_read() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(gated(Board::new())).start().unwrap();
    let payload = common::bytes(1, 1 << 20);
    let id = engine.submit(&payload).unwrap();
    let held = engine.wait(id, None).unwrap();
    let unfetched = engine.submit(&payload).unwrap();
    until("it has ended", || engine.stats().unpolled == 1);
    kill(worker(&engine, 0).pid);
    until("it is replaced", || {
        engine.stats().spawned == 2 && engine.stats().workers == 1
    });
    assert!(held.to_vec() == payload);
    assert!(engine.wait(unfetched, None).unwrap().to_vec() == payload);
    drop(engine);
    assert!(held.to_vec() == payload, "also when the engine is gone");
}

// ---- the zygote ----

#[test]
fn without_its_zygote_an_engine_goes_on_with_the_workers_it_has() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1).handler(gated(board)).start().unwrap();
    let id = submit_gated(&engine, b"running");
    until("it runs", || board.get(1) == 1);
    let workers: Vec<u32> = engine.workers().iter().map(|row| row.pid).collect();
    kill(zygote_of(&engine));
    until("it is noticed", || engine.stats().degraded);
    assert!(engine.status_json().contains("\"degraded\":true"));
    board.set(0, 1);
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), b"running");
    for _ in 0..100 {
        engine.submit(b"x").unwrap();
    }
    assert!(collect(&engine, 100).iter().all(Completion::is_completed));
    let now: Vec<u32> = engine.workers().iter().map(|row| row.pid).collect();
    assert_eq!(now, workers);
    assert_eq!((engine.stats().died, engine.stats().workers), (0, 2));
    engine.stop(None).unwrap();
    until("they are gone", || {
        !workers.iter().any(|&pid| is_alive(pid))
    });
}

#[test]
fn without_zygote_and_workers_every_task_still_ends() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(gated(board)).start().unwrap();
    let running = submit_gated(&engine, b"");
    until("it runs", || board.get(1) == 1);
    let queued = engine.submit(b"").unwrap();
    let pid = worker(&engine, 0).pid;
    kill(zygote_of(&engine));
    until("it is noticed", || engine.stats().degraded);
    kill(pid);
    let wait = Some(Duration::from_secs(10));
    let crashed = engine.wait(running, wait).unwrap();
    assert_eq!(crashed.outcome(), Outcome::Crashed);
    let lost = engine.wait(queued, wait).unwrap();
    assert!(!lost.is_completed());
    assert!(!lost.is_empty(), "it says why");
    match engine.submit(b"") {
        Ok(id) => assert!(!engine.wait(id, wait).unwrap().is_completed()),
        Err(Error::WouldBlock(full)) => panic!("{full}: for ever"),
        Err(_) => {}
    }
    engine.stop(None).unwrap();
}

// ---- the host ----

/// A host in a process of its own: this very test program, told by a variable to be one.
struct Host {
    process: Child,
    zygote: u32,
    workers: Vec<u32>,
}

const HOST: &str = "MINIFLOW_TEST_HOST";

impl Host {
    fn start(name: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_host_to_be_killed", "--nocapture"])
            .env(HOST, name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("PIDS ")?.1.to_owned()))
            .unwrap();
        let mut pids = line.split(' ').map(|pid| pid.parse().unwrap());
        Self {
            process,
            zygote: pids.next().unwrap(),
            workers: pids.collect(),
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Not a test by itself: see [`Host`]. One worker burns, one sleeps, two are idle.
#[test]
fn a_host_to_be_killed() {
    let Some(name) = std::env::var_os(HOST) else {
        return;
    };
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(4, 1)
        .name(name.into_string().unwrap())
        .handler(move |task| {
            board.add(1);
            loop {
                match task.payload() {
                    b"burn" => std::hint::spin_loop(),
                    _ => std::thread::sleep(Duration::from_secs(1000)),
                }
            }
        })
        .start()
        .unwrap();
    engine.submit(b"burn").unwrap();
    engine.submit(b"sleep").unwrap();
    until("both run", || board.get(1) == 2);
    let workers = engine.workers();
    let pids: Vec<String> = workers.iter().map(|row| row.pid.to_string()).collect();
    println!("PIDS {} {}", zygote_of(&engine), pids.join(" "));
    engine.poll(1, None).unwrap();
}

#[track_caller]
fn gone_within_a_second(what: &str, gone: impl Fn() -> bool) {
    let start = Instant::now();
    while !gone() {
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "after 1 s there is still {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_is_left_of_a_host_that_is_killed() {
    let _watchdog = watchdog_alone(60);
    let name = Name::unique();
    let mut host = Host::start(&name);
    assert_eq!(host.workers.len(), 4);
    assert!(name.path().exists());
    // One that cannot do anything by itself any more.
    let stopped = Pid::from_raw(host.workers[3].cast_signed()).unwrap();
    kill_process(stopped, Signal::STOP).unwrap();
    host.kill();
    gone_within_a_second("a worker", || {
        !host.workers.iter().any(|&pid| is_alive(pid))
    });
    gone_within_a_second("the zygote", || !is_alive(host.zygote));
    gone_within_a_second("the name", || !name.path().exists());
}

#[test]
fn workers_notice_the_hosts_death_also_without_a_zygote() {
    let _watchdog = watchdog_alone(60);
    let name = Name::unique();
    let mut host = Host::start(&name);
    kill(host.zygote);
    host.kill();
    gone_within_a_second("a worker", || {
        !host.workers.iter().any(|&pid| is_alive(pid))
    });
    // Host and zygote killed at once: the name alone may be left, and the next engine takes it.
    let engine = cpu_only(1, 1)
        .name(&*name)
        .handler(gated(Board::new()))
        .start()
        .unwrap();
    engine.submit(b"").unwrap();
    collect(&engine, 1);
    drop(engine);
    assert!(!name.path().exists());
}
