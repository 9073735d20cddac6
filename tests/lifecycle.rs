//! Engines start, grow, shrink, idle and stop, and leave nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{
    Board, Name, Proc, children, children_of, collect, cpu_only, cpu_time, is_alive, until,
    watchdog, watchdog_alone, worker, zygote_of,
};
use miniflow::worker::{Task, TaskResult};
use miniflow::{
    Class, Completion, Engine, Error, Outcome, Submission, SubmitOptions, TaskId, WorkerState,
};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn echo(task: &mut Task<'_>) -> TaskResult {
    let payload = task.payload().to_vec();
    Ok(task.reply(&payload)?)
}

/// All completions of a stopped engine, each once.
#[track_caller]
fn rest(engine: &Engine, ids: &[TaskId]) -> Vec<Completion> {
    let done = engine.poll(usize::MAX, NOW).unwrap();
    let mut got: Vec<TaskId> = done.iter().map(Completion::id).collect();
    let mut expected = ids.to_vec();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected, "every task has one completion");
    done
}

// ---- stop ----

#[test]
fn stop_lets_accepted_tasks_finish() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1)
        .handler(|task| {
            std::thread::sleep(Duration::from_millis(1));
            echo(task)
        })
        .start()
        .unwrap();
    let ids: Vec<TaskId> = (0..200).map(|_| engine.submit(b"x").unwrap()).collect();
    engine.stop(None).unwrap();
    let done = rest(&engine, &ids);
    assert!(done.iter().all(|c| c.is_completed() && c.to_vec() == b"x"));
}

#[test]
fn stop_without_a_drain_cancels_what_waits_and_tells_what_runs() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .handler(move |task| {
            board.add(0);
            until("it is cancelled", || task.is_cancelled());
            Err("told to stop".into())
        })
        .start()
        .unwrap();
    let ids: Vec<TaskId> = (0..50).map(|_| engine.submit(b"").unwrap()).collect();
    until("two run", || board.get(0) == 2);
    engine.stop(NOW).unwrap();
    let done = rest(&engine, &ids);
    let failed: Vec<_> = done
        .iter()
        .filter(|c| c.outcome() == Outcome::Failed)
        .collect();
    assert_eq!(failed.len() as u64, board.get(0), "those that ran");
    assert!(failed.iter().all(|c| c.text() == "told to stop"));
    let cancelled = done.iter().filter(|c| c.outcome() == Outcome::Cancelled);
    assert_eq!(cancelled.count() + failed.len(), 50);
    let stats = engine.stats();
    assert_eq!(
        (stats.died, stats.workers, stats.queued, stats.on_workers),
        (0, 0, 0, 0)
    );
}

#[test]
fn stop_kills_workers_whose_tasks_do_not_listen() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .handler(move |_| {
            board.add(0);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        })
        .stop_grace(Duration::from_millis(50))
        .start()
        .unwrap();
    let ids: Vec<TaskId> = (0..10).map(|_| engine.submit(b"").unwrap()).collect();
    until("two run", || board.get(0) == 2);
    let workers: Vec<u32> = engine.workers().iter().map(|row| row.pid).collect();
    let start = Instant::now();
    engine.stop(Some(Duration::from_millis(50))).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    let done = rest(&engine, &ids);
    assert!(done.iter().all(|c| c.outcome() == Outcome::Cancelled));
    assert_eq!(done.iter().filter(|c| c.attempt() == 1).count(), 2);
    assert!(!workers.iter().any(|&pid| is_alive(pid)));
}

#[test]
fn a_stopped_engine_answers_closed_and_still_hands_out_completions() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(echo).start().unwrap();
    let polled = engine.submit(b"polled").unwrap();
    let waited = engine.submit(b"waited").unwrap();
    let mut loan = engine.loan(100).unwrap();
    engine.stop(None).unwrap();

    let closed = |result: Result<TaskId, Error>| matches!(result, Err(Error::Closed));
    let options = SubmitOptions::new();
    assert!(closed(engine.submit(b"")));
    assert!(closed(engine.submit_with(&[0; 100_000], &options)));
    assert!(closed(engine.submit_wait(b"", &options, None)));
    assert!(closed(loan.try_submit(&options)));
    drop(loan);
    assert!(matches!(engine.loan(1), Err(Error::Closed)));
    let batch = [Submission::from(&b"x"[..])];
    assert!(matches!(engine.submit_batch(batch), Err(Error::Closed)));
    assert!(matches!(
        engine.resize(Class::CpuBound, 1),
        Err(Error::Closed)
    ));
    assert!(matches!(engine.stop(None), Err(Error::Closed)));

    assert_eq!(engine.wait(waited, None).unwrap().to_vec(), b"waited");
    let done = engine.poll(10, None).unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(
        (done[0].id(), done[0].to_vec()),
        (polled, b"polled".to_vec())
    );
    assert!(engine.poll(10, NOW).unwrap().is_empty());
    assert!(matches!(engine.poll(10, None), Err(Error::Closed)));
    assert!(matches!(engine.wait(polled, None), Err(Error::NotFound)));
    assert_eq!(engine.completions().count(), 0);
    assert!(engine.workers().is_empty());
    assert!(engine.status_json().contains("\"state\":\"stopped\""));
}

#[test]
fn threads_that_wait_are_let_go_when_the_engine_stops() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(move |_| {
            board.set(0, 1);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        })
        .stop_grace(Duration::from_millis(20))
        .start()
        .unwrap();
    let waited = engine.submit(b"").unwrap();
    until("it runs", || board.get(0) == 1);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| engine.wait(waited, None).unwrap());
        let pollers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| engine.poll(1, None)))
            .collect();
        engine.stop(NOW).unwrap();
        // A poller may have had the completion if the waiter came too late: not here, the id was
        // waited for or the completion was still there.
        let outcomes = pollers.into_iter().map(|p| p.join().unwrap());
        let polled: usize = outcomes.map(|r| r.map_or(0, |c| c.len())).sum();
        match waiter.join() {
            Ok(completion) => {
                assert_eq!((completion.outcome(), polled), (Outcome::Cancelled, 0));
            }
            Err(_) => assert_eq!(polled, 1),
        }
    });
}

#[test]
fn two_threads_that_stop_at_once_are_told_apart() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    let ids: Vec<TaskId> = (0..100).map(|_| engine.submit(b"").unwrap()).collect();
    let stopped = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| engine.stop(None)));
        threads.map(|t| t.join().unwrap().is_ok())
    });
    assert_ne!(stopped[0], stopped[1]);
    rest(&engine, &ids);
}

// ---- resize ----

#[test]
fn an_engine_grows_and_shrinks_under_load_without_losing_a_task() {
    let _watchdog = watchdog(60);
    let engine = Engine::builder()
        .handler(|task| {
            std::thread::sleep(Duration::from_micros(500));
            echo(task)
        })
        .workers_between(Class::CpuBound, 1, 4)
        .workers(Class::IoBound, 0)
        .start()
        .unwrap();
    let mut sizes = [4, 1, 3, 2, 4, 1].into_iter();
    let mut ids = Vec::new();
    let mut done = Vec::new();
    for number in 0..3000_u32 {
        ids.push(engine.submit(&number.to_le_bytes()).unwrap());
        if number.is_multiple_of(500)
            && let Some(workers) = sizes.next()
        {
            engine.resize(Class::CpuBound, workers).unwrap();
        }
        if number.is_multiple_of(10) {
            engine
                .poll_into(&mut done, 10, Some(Duration::from_millis(1)))
                .unwrap();
        }
    }
    done.extend(collect(&engine, 3000 - done.len()));
    let mut numbers: Vec<u32> = done
        .iter()
        .map(|c| u32::from_le_bytes(c.as_bytes().unwrap().try_into().unwrap()))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..3000));
    assert!(done.iter().all(|c| c.is_completed() && c.attempt() == 1));
    until("one worker is left", || engine.workers().len() == 1);
    let stats = engine.stats();
    assert_eq!((stats.died, stats.workers, stats.crashed), (0, 1, 0));
}

#[test]
fn a_class_can_shrink_to_nothing_and_come_back() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = Engine::builder()
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .workers_between(Class::CpuBound, 1, 2)
        .workers(Class::IoBound, 0)
        .start()
        .unwrap();
    let invalid = |result| matches!(result, Err(Error::Invalid(_)));
    assert!(invalid(engine.resize(Class::CpuBound, 3)));
    assert!(invalid(engine.resize(Class::IoBound, 1)));
    engine.submit(b"").unwrap();
    assert!(invalid(engine.resize(Class::CpuBound, 0)), "it has a task");
    board.set(0, 1);
    collect(&engine, 1);
    engine.resize(Class::CpuBound, 0).unwrap();
    assert!(matches!(engine.submit(b""), Err(Error::Invalid(_))));
    until("no worker is left", || engine.workers().is_empty());
    engine.resize(Class::CpuBound, 2).unwrap();
    engine.submit(b"").unwrap();
    assert!(collect(&engine, 1)[0].is_completed());
    until("two are ready", || engine.stats().workers == 2);
    assert!(
        engine
            .workers()
            .iter()
            .all(|row| row.state == WorkerState::Ready)
    );
}

#[test]
fn workers_that_are_dismissed_before_they_are_there_go_away() {
    let _watchdog = watchdog(60);
    let engine = Engine::builder()
        .handler(echo)
        .workers_between(Class::CpuBound, 1, 4)
        .workers(Class::IoBound, 0)
        .start()
        .unwrap();
    let zygote = Pid::from_raw(zygote_of(&engine).cast_signed()).unwrap();
    let state = |state| engine.workers().iter().filter(|w| w.state == state).count();
    kill_process(zygote, Signal::STOP).unwrap();
    engine.resize(Class::CpuBound, 4).unwrap();
    until("they are asked for", || state(WorkerState::Starting) == 3);
    engine.resize(Class::CpuBound, 1).unwrap();
    until("they are dismissed", || state(WorkerState::Starting) == 0);
    kill_process(zygote, Signal::CONT).unwrap();
    until("one worker is left", || engine.workers().len() == 1);
    let id = engine.submit(b"still here").unwrap();
    assert!(engine.wait(id, None).unwrap().is_completed());
    engine.stop(None).unwrap();
}

#[test]
fn hundreds_of_workers_start_at_once() {
    let _watchdog = watchdog(120);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    if limit.current.is_some_and(|most| most < 8_000) {
        return; // each takes five descriptors
    }
    let engine = cpu_only(700, 1)
        .handler(echo)
        .start_timeout(Duration::from_secs(60))
        .start()
        .unwrap();
    assert_eq!(engine.stats().workers, 700);
}

#[test]
fn a_worker_that_does_not_leave_is_killed() {
    let _watchdog = watchdog(60);
    let engine = Engine::builder()
        .handler(echo)
        .workers_between(Class::CpuBound, 2, 2)
        .workers(Class::IoBound, 0)
        .stop_grace(Duration::from_millis(50))
        .start()
        .unwrap();
    let stuck = Pid::from_raw(worker(&engine, 1).pid.cast_signed()).unwrap();
    kill_process(stuck, Signal::STOP).unwrap();
    engine.resize(Class::CpuBound, 1).unwrap();
    until("one worker is left", || engine.workers().len() == 1);
}

// ---- what is left behind ----

/// What a process has of each kind.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    descriptors: usize,
    shared_mappings: usize,
    children: usize,
    threads: u64,
    names: usize,
}

impl Belongings {
    fn now(prefix: &str) -> Self {
        let names = fs::read_dir("/dev/shm").unwrap().flatten();
        Self {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            shared_mappings: fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .filter(|line| line.contains("memfd:") || line.contains("/dev/shm"))
                .count(),
            children: children().len(),
            threads: Proc::read(std::process::id()).unwrap().threads,
            names: names
                .filter(|name| name.file_name().to_string_lossy().contains(prefix))
                .count(),
        }
    }
}

fn all_mappings() -> usize {
    fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

#[test]
fn a_hundred_starts_and_stops_leave_nothing_behind() {
    let _watchdog = watchdog_alone(120);
    let name = Name::unique();
    let cycle = |number: usize| {
        let mut builder = Engine::builder()
            .handler(echo)
            .workers(Class::CpuBound, 1)
            .workers(Class::IoBound, 1)
            .threads(Class::IoBound, 2);
        if number.is_multiple_of(2) {
            builder = builder.name(&*name);
        }
        let engine = builder.start().unwrap();
        engine.event_fd().unwrap();
        for len in [0, 40, 1000, 100_000] {
            engine.submit(&vec![7; len]).unwrap();
        }
        let held = collect(&engine, 3);
        let _loan = engine.loan(5000).unwrap();
        if number.is_multiple_of(3) {
            engine.stop(None).unwrap();
        }
        drop(engine);
        assert!(held.iter().all(|c| c.to_vec().iter().all(|&b| b == 7)));
    };
    cycle(0);
    cycle(1);
    let before = Belongings::now(&name);
    let mappings = all_mappings();
    for number in 0..100 {
        cycle(number);
    }
    assert_eq!(Belongings::now(&name), before);
    let more = all_mappings().saturating_sub(mappings);
    assert!(more < 10, "{more} more mappings");
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let _watchdog = watchdog_alone(60);
    let name = Name::unique();
    let fail = || {
        let program = cpu_only(1, 1).name(&*name).program(["/nonexistent/worker"]);
        assert!(matches!(program.start(), Err(Error::System { .. })));
        let exits = cpu_only(1, 1).name(&*name).program(["true"]);
        assert!(exits.start_timeout(Duration::from_secs(5)).start().is_err());
        let never = cpu_only(1, 1).name(&*name).program(["sleep", "1000"]);
        let never = never.start_timeout(Duration::from_millis(20)).start();
        assert!(matches!(never, Err(Error::Timeout)), "{never:?}");
    };
    fail();
    let before = Belongings::now(&name);
    fail();
    assert_eq!(Belongings::now(&name), before);
}

#[test]
fn a_name_is_there_while_its_engine_is_and_belongs_to_it_alone() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let path = name.path();
    let start = || cpu_only(1, 1).name(&*name).handler(echo).start();
    assert!(!path.exists());
    let engine = start().unwrap();
    assert!(path.exists());
    match start() {
        Err(Error::Invalid(text)) => assert!(text.contains(&*name), "{text}"),
        other => panic!("{other:?}"),
    }
    engine.submit(b"").unwrap();
    collect(&engine, 1);
    engine.stop(None).unwrap();
    drop(engine);
    assert!(!path.exists());
    drop(start().unwrap());
    assert!(!path.exists());
}

// ---- processes ----

#[test]
fn workers_and_zygote_are_not_in_the_hosts_process_group() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    let zygote = zygote_of(&engine);
    let ours = Proc::read(std::process::id()).unwrap().group;
    let group = Proc::read(zygote).unwrap().group;
    assert_eq!(group, zygote);
    assert_ne!(group, ours);
    for pid in children_of(zygote) {
        assert_eq!(Proc::read(pid).unwrap().group, zygote);
    }
    assert_eq!(children_of(zygote).len(), 2);
    assert_eq!(
        Proc::read(zygote).unwrap().threads,
        1,
        "the zygote is single-threaded"
    );
}

#[test]
fn a_zygote_and_its_workers_hold_no_descriptor_of_the_hosts() {
    let _watchdog = watchdog(60);
    let mine = fs::File::open("/proc/self/status").unwrap();
    let inherited = fs::File::open("/proc/self/cmdline").unwrap();
    let first = cpu_only(1, 1).handler(echo).start().unwrap();
    let second = cpu_only(1, 1)
        .handler(echo)
        .inherit([inherited.as_raw_fd()])
        .start()
        .unwrap();
    let links = |pid: u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let fds = fds.filter(|fd| fd.file_name().to_string_lossy().parse::<u32>().unwrap() > 2);
        let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links
            .map(|l| l.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    for (engine, files) in [(&first, 0), (&second, 1)] {
        let zygote = zygote_of(engine);
        // Socket, the host's pidfd, one worker's pidfd.
        assert_eq!(links(zygote).len(), 3 + files, "{:?}", links(zygote));
        assert!(!links(zygote).iter().any(|l| l.contains("memfd")));
        let worker = worker(engine, 0).pid;
        // Three segments, eventfd, control socket, the host's pidfd twice, SIGTERM's eventfd.
        assert!(links(worker).len() <= 8 + files, "{:?}", links(worker));
        let status = format!("/proc/{}/", std::process::id());
        let open = links(worker)
            .iter()
            .filter(|l| l.starts_with(&status))
            .count();
        assert_eq!(open, files, "{:?}", links(worker));
    }
    drop(mine);
}

#[test]
fn a_worker_program_has_the_descriptors_that_it_shall_inherit() {
    let _watchdog = watchdog(60);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fd = writer.as_raw_fd();
    let script = format!("echo here > /proc/self/fd/{fd}");
    let started = cpu_only(1, 1)
        .program(["sh", "-c", &script])
        .inherit([fd])
        .start();
    assert!(started.is_err(), "it does not join");
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("here\n"), "{said:?}");
}

#[test]
fn the_longest_grace_is_no_overflow() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(echo)
        .start_timeout(Duration::MAX)
        .stop_grace(Duration::MAX)
        .start()
        .unwrap();
    engine.stop(Some(Duration::MAX)).unwrap();
}

#[test]
fn an_idle_engine_uses_no_processor_time() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(4, 2).handler(echo).start().unwrap();
    engine.event_fd().unwrap();
    for _ in 0..100 {
        engine.submit(b"x").unwrap();
    }
    collect(&engine, 100);
    let mut pids = vec![std::process::id(), zygote_of(&engine)];
    pids.extend(engine.workers().iter().map(|row| row.pid));
    let used = || -> Duration { pids.iter().map(|&pid| cpu_time(pid)).sum() };
    // It comes to rest within some 100 ms; the first second after that counts.
    let window = Duration::from_secs(1);
    let mut shares = Vec::new();
    for _ in 0..3 {
        let before = used();
        let start = Instant::now();
        std::thread::sleep(window);
        let share = (used() - before).as_secs_f64() / start.elapsed().as_secs_f64();
        if share < 0.002 {
            return;
        }
        shares.push(share);
    }
    panic!("used {shares:?} of a processor");
}

#[test]
fn an_idle_engine_whose_completions_nobody_polls_uses_no_processor_time() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    for _ in 0..100 {
        engine.submit(&[1; 50_000]).unwrap();
    }
    until("all have ended", || engine.stats().unpolled == 100);
    let mut pids = vec![std::process::id(), zygote_of(&engine)];
    pids.extend(engine.workers().iter().map(|row| row.pid));
    let used = || -> Duration { pids.iter().map(|&pid| cpu_time(pid)).sum() };
    let mut shares = Vec::new();
    for _ in 0..3 {
        let before = used();
        std::thread::sleep(Duration::from_secs(1));
        let share = (used() - before).as_secs_f64();
        if share < 0.002 {
            return;
        }
        shares.push(share);
    }
    panic!("used {shares:?} of a processor");
}

// ---- configuration ----

#[test]
fn a_bad_setting_is_refused_with_its_name() {
    let _watchdog = watchdog(60);
    let refused = |builder: miniflow::Builder, what: &str| match builder.start() {
        Err(Error::Invalid(text)) => assert!(text.contains(what), "`{what}` not in `{text}`"),
        other => panic!("{what}: {other:?}"),
    };
    let good = || cpu_only(1, 1).handler(echo);
    refused(Engine::builder(), "handler");
    refused(cpu_only(1, 1).program([""; 0]), "argv");
    refused(cpu_only(1, 1).program(["a\0b"]), "NUL");
    refused(good().name(""), "name");
    refused(good().name("a/b"), "name");
    refused(good().name("x".repeat(65)), "name");
    refused(good().workers(Class::CpuBound, 0), "workers");
    refused(good().workers(Class::CpuBound, 2000), "workers");
    refused(good().workers_between(Class::CpuBound, 2, 1), "workers");
    refused(good().threads(Class::CpuBound, 0), "threads");
    refused(good().threads(Class::CpuBound, 1000), "threads");
    refused(good().max_tasks(0), "max_tasks");
    refused(good().max_tasks(u32::MAX), "max_tasks");
    refused(good().max_payload(0), "max_payload");
    refused(good().max_result(u64::MAX), "max_result");
    refused(good().payload_arena(1), "payload_arena");
    refused(good().result_arena(1), "result_arena");
    refused(good().inherit([-1]), "descriptor -1");
    refused(good().inherit([987_654]), "descriptor 987654");
    refused(good().inline_payload(41), "inline_payload");
    refused(good().inline_result(153), "inline_result");
}

#[test]
fn a_bad_submit_is_refused_and_changes_nothing() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(echo)
        .max_payload(1000)
        .start()
        .unwrap();
    let options = SubmitOptions::new();
    let invalid = |result| matches!(result, Err(Error::Invalid(_)));
    assert!(invalid(engine.submit_with(b"", &options.priority(4))));
    assert!(invalid(engine.submit_with(b"", &options.priority(-4))));
    assert!(invalid(
        engine.submit_with(b"", &options.class(Class::IoBound))
    ));
    assert!(invalid(
        engine.submit_with(b"", &options.max_attempts(65_536))
    ));
    assert!(invalid(
        engine.submit_with(b"", &options.deadline(Duration::ZERO))
    ));
    for len in [1001, 5000] {
        match engine.submit(&vec![0; len]) {
            Err(Error::TooLarge { len: l, max: 1000 }) => assert_eq!(l, len),
            other => panic!("{other:?}"),
        }
        assert!(matches!(engine.loan(len), Err(Error::TooLarge { .. })));
    }
    let unknown = TaskId::from_bytes([0xff; 16]);
    assert!(matches!(engine.wait(unknown, None), Err(Error::NotFound)));
    assert!(matches!(engine.cancel(unknown), Err(Error::NotFound)));
    assert!(matches!(engine.task_state(unknown), Err(Error::NotFound)));
    let stats = engine.stats();
    assert_eq!(
        (stats.submitted, stats.payload_bytes, stats.unpolled),
        (0, 0, 0)
    );
    let ok = engine.submit(&[7; 1000]).unwrap();
    assert_eq!(engine.wait(ok, None).unwrap().to_vec(), [7; 1000]);
}

#[test]
fn a_stop_while_a_dead_worker_is_being_replaced_leaves_no_lane() {
    let _watchdog = watchdog(60);
    for _ in 0..20 {
        let engine = cpu_only(1, 1).handler(|_| Ok(())).start().unwrap();
        let id = engine.submit(b"").unwrap();
        engine.wait(id, None).unwrap();
        common::kill(worker(&engine, 0).pid);
        // It is buried and its successor made in one turn: a sleep would miss that.
        let begin = Instant::now();
        while !engine.workers().is_empty() && begin.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        engine.stop(Some(Duration::ZERO)).unwrap();
        assert_eq!(engine.workers().len(), 0);
    }
}
