//! Where workers run and how, as the kernel says it of every thread of theirs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use common::{collect, cpu_only, kill, until, watchdog, watchdog_alone, worker};
use miniflow::worker::{Worker, Zygote};
use miniflow::{
    Affinity, Builder, Class, Engine, Error, HugePages, IoPriority, Sandbox, Scheduler,
};
use rustix::process::{Pid, Resource, Rlimit, getpriority_process, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CpuSet, capabilities, sched_getaffinity, set_capabilities};

// ---- the programs: this one, executed again ----

fn work(worker: &Worker) -> ! {
    while let Ok(mut assigned) = worker.next(None) {
        assigned.task().reply(b"done").unwrap();
        assigned.finish(Ok(()));
    }
    exit(0)
}

fn exit(code: i32) -> ! {
    // SAFETY: a forked child runs none of its parent's exit handlers.
    unsafe { libc::_exit(code) }
}

#[test]
fn a_worker_program() {
    if std::env::var_os("MINIFLOW_LANE").is_some() {
        work(&Worker::join().unwrap());
    }
}

/// Serves; every worker calls `before` before it joins.
fn serve(before: fn()) {
    if std::env::var_os("MINIFLOW_ZYGOTE").is_none() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    while let Ok(request) = zygote.recv() {
        // SAFETY: with --test-threads=1 this process has one thread.
        let pid = match unsafe { libc::fork() } {
            0 => {
                before();
                match Worker::join() {
                    Ok(worker) => work(&worker),
                    Err(_) => exit(70),
                }
            }
            pid => pid,
        };
        zygote.reply(&request, Ok(pid as u32)).unwrap();
    }
    exit(0);
}

#[test]
fn a_zygote_program() {
    serve(|| {});
}

#[test]
fn a_zygote_program_whose_children_start_threads_before_they_join() {
    serve(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    });
}

fn argv(program: &str) -> [String; 4] {
    let me = std::env::current_exe().unwrap();
    let me = me.to_str().unwrap().to_owned();
    [
        me,
        "--exact".into(),
        program.into(),
        "--test-threads=1".into(),
    ]
}

/// The same engine with each kind of workers.
fn every_kind(builder: impl Fn() -> Builder) -> [(&'static str, Builder); 3] {
    [
        ("handler", handled(builder())),
        ("program", builder().program(argv("a_worker_program"))),
        (
            "zygote program",
            builder().zygote_program(argv("a_zygote_program")),
        ),
    ]
}

fn handled(builder: Builder) -> Builder {
    builder.handler(|task| Ok(task.reply(b"done")?))
}

// ---- what the kernel says ----

/// The place of one thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    cpus: String,
    nice: i32,
    policy: i32,
    io_priority: i32,
}

/// The places of all threads of a process.
#[track_caller]
fn places(pid: u32) -> BTreeSet<Place> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let ids = threads.map(|thread| thread.file_name().into_string().unwrap());
    ids.filter_map(|id| place(&id)).collect()
}

/// `None` if the thread is gone.
fn place(thread: &str) -> Option<Place> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let cpus = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let id: i32 = thread.parse().ok()?;
    let nice = getpriority_process(Pid::from_raw(id)).ok()?;
    // SAFETY: takes a number only.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, id) };
    // SAFETY: takes numbers only; 1 = a thread by its id.
    let io_priority = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, id) };
    (policy >= 0 && io_priority >= 0).then(|| Place {
        cpus: cpus.trim().into(),
        nice,
        policy: policy as i32,
        io_priority: io_priority as i32,
    })
}

/// The one place that all threads of a worker have.
#[track_caller]
fn place_of(engine: &Engine, slot: u32) -> Place {
    let pid = worker(engine, slot).pid;
    let places = places(pid);
    assert_eq!(
        places.len(),
        1,
        "worker {slot}: its threads differ: {places:?}"
    );
    places.into_iter().next().unwrap()
}

/// Processors that this thread may use.
fn allowed() -> Vec<u32> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .map(|cpu| cpu as u32)
        .collect()
}

/// A list as the kernel writes it, of few numbers.
fn list(cpus: &[u32]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |&(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn check_it_works(engine: &Engine) {
    for _ in 0..20 {
        engine.submit(b"task").unwrap();
    }
    assert!(collect(engine, 20).iter().all(|done| done.text() == "done"));
}

/// The notes in the engine's status that have all these words.
fn notes_with(engine: &Engine, words: &[&str]) -> Vec<String> {
    let has_all = |note: &String| words.iter().all(|word| note.contains(word));
    engine.status().notes.into_iter().filter(has_all).collect()
}

/// What the engine's status says about the place of the CPU-bound workers.
fn text(engine: &Engine) -> String {
    engine.status().classes.swap_remove(0).placement
}

// ---- places ----

#[test]
fn every_thread_of_every_kind_of_worker_has_its_place() {
    let _watchdog = watchdog(120);
    let cpus = allowed();
    let ours = place(&std::process::id().to_string()).unwrap();
    let build = || {
        cpu_only(2, 3)
            .affinity(Class::CpuBound, Affinity::List(cpus.clone()))
            .nice(Class::CpuBound, 3)
            .scheduler(Class::CpuBound, Scheduler::Batch)
            .io_priority(Class::CpuBound, IoPriority::BestEffort(6))
    };
    for (kind, builder) in every_kind(build) {
        let engine = builder.start().unwrap();
        for slot in 0..2 {
            let row = cpus.iter().cycle().skip(slot * 3).take(3).copied();
            let expected = Place {
                cpus: list(&row.collect::<Vec<_>>()),
                nice: (ours.nice + 3).min(19),
                policy: libc::SCHED_BATCH,
                io_priority: 2 << 13 | 6,
            };
            assert_eq!(place_of(&engine, slot as u32), expected, "{kind}");
        }
        let words = "nice +3, SCHED_BATCH, I/O best effort 6";
        assert!(text(&engine).ends_with(words), "{kind}: {}", text(&engine));
        assert!(engine.status().notes.is_empty(), "{kind}");
        check_it_works(&engine);
    }
}

#[test]
fn the_gentlest_of_all_priorities_is_idle_in_every_way() {
    let _watchdog = watchdog(400);
    let build = || {
        cpu_only(1, 1)
            .start_timeout(Duration::from_secs(60)) // on a busy machine this takes its time
            .nice(Class::CpuBound, 19)
            .scheduler(Class::CpuBound, Scheduler::Idle)
            .io_priority(Class::CpuBound, IoPriority::Idle)
    };
    for (kind, builder) in every_kind(build) {
        let engine = builder.start().unwrap();
        let place = place_of(&engine, 0);
        let seen = (place.nice, place.policy, place.io_priority);
        assert_eq!(seen, (19, libc::SCHED_IDLE, 3 << 13), "{kind}");
        assert_eq!(place.cpus, list(&allowed()), "{kind}");
        let id = engine.submit(b"task").unwrap();
        let done = engine.wait(id, Some(Duration::from_secs(60))).unwrap();
        assert_eq!(done.text(), "done", "{kind}");
    }
}

#[test]
fn without_settings_workers_are_as_the_thread_that_starts_the_engine() {
    let _watchdog = watchdog(60);
    let cpus = allowed();
    let one = *cpus.last().unwrap();
    let starter = std::thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(one as usize);
        rustix::thread::sched_setaffinity(None, &set).unwrap();
        let engine = handled(cpu_only(1, 2)).start().unwrap();
        let ours = place(&rustix::thread::gettid().as_raw_nonzero().to_string()).unwrap();
        (place_of(&engine, 0), ours)
    });
    let (worker, starter) = starter.join().unwrap();
    assert_eq!(worker, starter);
    assert_eq!(worker.cpus, one.to_string());
    assert_eq!(allowed(), cpus, "this thread is another");
}

#[test]
fn the_host_stays_as_it_is() {
    let _watchdog = watchdog_alone(60);
    let before = places(std::process::id());
    assert_eq!(before.len(), 1, "{before:?}");
    let engine = handled(cpu_only(2, 1))
        .affinity(Class::CpuBound, Affinity::Spread)
        .nice(Class::CpuBound, 5)
        .scheduler(Class::CpuBound, Scheduler::Batch)
        .io_priority(Class::CpuBound, IoPriority::Idle)
        .start()
        .unwrap();
    check_it_works(&engine);
    kill(worker(&engine, 0).pid);
    until("another worker", || engine.stats().spawned > 2);
    assert_eq!(places(std::process::id()), before);
}

#[test]
fn spread_workers_of_both_classes_share_no_processor_before_each_has_one() {
    let _watchdog = watchdog(60);
    let cpus = allowed();
    let each = (cpus.len() as u32).div_ceil(2);
    let builder = Engine::builder()
        .workers(Class::CpuBound, each)
        .workers(Class::IoBound, each)
        .threads(Class::IoBound, 1)
        .affinity(Class::CpuBound, Affinity::Spread)
        .affinity(Class::IoBound, Affinity::Spread);
    let engine = handled(builder).start().unwrap();
    let seats: Vec<String> = (0..2 * each)
        .map(|slot| place_of(&engine, slot).cpus)
        .collect();
    let distinct: BTreeSet<&String> = seats.iter().collect();
    assert_eq!(distinct.len(), cpus.len(), "{seats:?}");
    assert!(
        seats.iter().all(|seat| seat.parse::<u32>().is_ok()),
        "{seats:?}"
    );
}

#[test]
fn a_spread_worker_has_as_many_processors_as_threads() {
    let _watchdog = watchdog(60);
    let cpus = allowed();
    let threads = cpus.len() as u32 + 1;
    let engine = handled(cpu_only(1, threads)).affinity(Class::CpuBound, Affinity::Spread);
    let engine = engine.start().unwrap();
    assert_eq!(
        place_of(&engine, 0).cpus,
        list(&cpus),
        "all, if it has more threads"
    );
}

#[test]
fn a_replacement_has_the_place_of_the_worker_that_died() {
    let _watchdog = watchdog(60);
    let build = || {
        cpu_only(2, 1)
            .affinity(Class::CpuBound, Affinity::Spread)
            .nice(Class::CpuBound, 2)
            .scheduler(Class::CpuBound, Scheduler::Batch)
    };
    for (kind, builder) in every_kind(build) {
        let engine = builder.start().unwrap();
        for slot in [1, 0] {
            let (before, pid) = (place_of(&engine, slot), worker(&engine, slot).pid);
            kill(pid);
            until("a replacement", || {
                let rows = engine.workers();
                let row = rows.iter().find(|row| row.slot == slot);
                row.is_some_and(|row| row.pid != pid && row.state == miniflow::WorkerState::Ready)
            });
            assert_eq!(place_of(&engine, slot), before, "{kind}");
        }
        check_it_works(&engine);
    }
}

#[test]
fn a_worker_that_is_added_gets_the_next_place() {
    let _watchdog = watchdog(60);
    let cpus = allowed();
    let builder = Engine::builder()
        .workers_between(Class::CpuBound, 1, 3)
        .workers(Class::IoBound, 0)
        .affinity(Class::CpuBound, Affinity::List(cpus.clone()));
    let engine = handled(builder).start().unwrap();
    engine.resize(Class::CpuBound, 3).unwrap();
    until("three workers", || engine.stats().workers == 3);
    for slot in 0..3 {
        let expected = cpus[slot as usize % cpus.len()];
        assert_eq!(place_of(&engine, slot).cpus, expected.to_string());
    }
}

#[test]
fn threads_that_a_forked_runtime_has_started_before_it_joins_are_placed_too() {
    let _watchdog = watchdog(60);
    let one = allowed()[0];
    let engine = cpu_only(1, 1)
        .zygote_program(argv(
            "a_zygote_program_whose_children_start_threads_before_they_join",
        ))
        .affinity(Class::CpuBound, Affinity::List(vec![one]))
        .nice(Class::CpuBound, 4)
        .io_priority(Class::CpuBound, IoPriority::BestEffort(1))
        .start()
        .unwrap();
    let place = place_of(&engine, 0);
    assert_eq!(
        (place.cpus, place.io_priority),
        (one.to_string(), 2 << 13 | 1)
    );
    let threads = fs::read_dir(format!("/proc/{}/task", worker(&engine, 0).pid));
    assert!(threads.unwrap().count() >= 3, "main, its own, the watcher");
}

#[test]
fn a_sandboxed_worker_has_its_place() {
    let _watchdog = watchdog(120);
    let one = allowed()[0];
    let build = || {
        cpu_only(1, 2)
            .sandbox(Sandbox::new().seccomp(true).limit_core(0).limit_files(100))
            .affinity(Class::CpuBound, Affinity::List(vec![one]))
            .nice(Class::CpuBound, 1)
            .scheduler(Class::CpuBound, Scheduler::Batch)
            .io_priority(Class::CpuBound, IoPriority::BestEffort(5))
    };
    for (kind, builder) in every_kind(build) {
        let engine = builder.start().unwrap();
        let place = place_of(&engine, 0);
        let seen = (place.cpus, place.policy, place.io_priority);
        assert_eq!(
            seen,
            (one.to_string(), libc::SCHED_BATCH, 2 << 13 | 5),
            "{kind}"
        );
        check_it_works(&engine);
    }
}

// ---- memory ----

/// The memory policies of the mappings of a process, of those whose line has this word.
fn policies(pid: u32, word: &str) -> Option<BTreeSet<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).ok()?;
    let lines = maps.lines().filter(|line| line.contains(word));
    lines
        .map(|line| line.split(' ').nth(1).map(str::to_owned))
        .collect()
}

#[test]
fn workers_on_a_node_prefer_its_memory_and_so_do_their_results() {
    let _watchdog = watchdog(60);
    let Some(default) = policies(std::process::id(), "stack") else {
        println!("SKIP: this kernel has no NUMA (/proc/self/numa_maps)");
        return;
    };
    let cpus = fs::read_to_string("/sys/devices/system/node/node0/cpulist").unwrap();
    let inside = |cpu: &str| allowed().contains(&cpu.parse().unwrap());
    let build = || cpu_only(1, 2).affinity(Class::CpuBound, Affinity::Node(0));
    for (kind, builder) in every_kind(build) {
        let engine = builder.start().unwrap();
        let pid = worker(&engine, 0).pid;
        let expected: BTreeSet<String> = ["prefer:0".into()].into();
        assert_eq!(policies(pid, "stack"), Some(expected.clone()), "{kind}");
        let results = policies(std::process::id(), "memfd:miniflow-up").unwrap();
        assert!(results.contains("prefer:0"), "{kind}: {results:?}");
        // Only one node here: all that may be used of it.
        if cpus.trim() == list(&allowed()) || cpus.trim().split(['-', ',']).all(inside) {
            assert_eq!(place_of(&engine, 0).cpus, list(&allowed()), "{kind}");
        }
        check_it_works(&engine);
    }
    assert_eq!(
        policies(std::process::id(), "stack"),
        Some(default),
        "the host's own"
    );
}

#[test]
fn with_huge_pages_payloads_and_results_arrive_and_lie_in_them_or_there_is_a_note() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(1, 1)
        .handler(|task| {
            let reversed: Vec<u8> = task.payload().iter().rev().copied().collect();
            Ok(task.reply(&reversed)?)
        })
        .huge_pages(HugePages::Advise)
        .start()
        .unwrap();
    for seed in 1..5 {
        let payload = common::bytes(seed, 9 << 20);
        let id = engine.submit(&payload).unwrap();
        let done = engine.wait(id, Some(Duration::from_secs(30))).unwrap();
        let result = done.to_vec();
        assert!(
            done.is_completed() && result.iter().rev().eq(payload.iter()),
            "{seed}"
        );
    }
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut mapped = 0;
    let mut of_arena = false;
    for line in smaps.lines() {
        if line.contains("memfd:miniflow-") {
            of_arena = true;
        } else if of_arena && let Some(rest) = line.strip_prefix("ShmemPmdMapped:") {
            let kib: u64 = rest.trim().trim_end_matches(" kB").parse().unwrap();
            mapped += kib;
            of_arena = false;
        }
    }
    let notes = notes_with(&engine, &["huge pages"]);
    if notes.is_empty() {
        assert!(mapped > 0, "no note, and no huge page");
    } else {
        println!("SKIP: no huge pages to be seen here: {notes:?}");
        assert!(
            notes[0].contains("shmem_enabled") || notes[0].contains("madvise"),
            "{notes:?}"
        );
    }
}

// ---- what cannot be had ----

/// On a thread of its own, which is the one that the workers are forked from.
fn without_the_right_to_be_less_nice<T: Send + 'static>(test: fn() -> T) -> T {
    let maximum = getrlimit(Resource::Nice).maximum;
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    setrlimit(Resource::Nice, none).unwrap();
    let thread = std::thread::spawn(move || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_NICE);
        sets.permitted.remove(CapabilitySet::SYS_NICE);
        sets.inheritable.remove(CapabilitySet::SYS_NICE);
        set_capabilities(None, sets).unwrap();
        test()
    });
    thread.join().unwrap()
}

#[test]
fn a_niceness_that_is_not_allowed_is_noted_and_the_rest_is_done() {
    let _watchdog = watchdog_alone(60);
    without_the_right_to_be_less_nice(|| {
        let ours = getpriority_process(None).unwrap();
        let one = allowed()[0];
        let engine = handled(cpu_only(2, 1))
            .affinity(Class::CpuBound, Affinity::List(vec![one]))
            .nice(Class::CpuBound, -5)
            .scheduler(Class::CpuBound, Scheduler::Batch)
            .start()
            .unwrap();
        for slot in 0..2 {
            let place = place_of(&engine, slot);
            assert_eq!((place.nice, place.policy), (ours, libc::SCHED_BATCH));
            assert_eq!(place.cpus, one.to_string());
        }
        check_it_works(&engine);
        let words = ["class cpu", "niceness", "setpriority", "CAP_SYS_NICE"];
        let notes = notes_with(&engine, &words);
        assert_eq!(notes.len(), 1, "one for all workers: {notes:?}");
        assert_eq!(engine.status().notes, notes, "and no others");
    });
}

#[test]
fn a_list_without_any_processor_of_this_machine_is_noted_and_binds_nobody() {
    let _watchdog = watchdog(60);
    let affinity = Affinity::List(vec![1022, 70_000, u32::MAX]);
    let engine = handled(cpu_only(1, 1)).affinity(Class::CpuBound, affinity);
    let engine = engine.start().unwrap();
    assert_eq!(place_of(&engine, 0).cpus, list(&allowed()));
    check_it_works(&engine);
    let words = ["not bound", "1022,70000,4294967295", &list(&allowed())];
    assert_eq!(notes_with(&engine, &words), engine.status().notes);
    assert_eq!((engine.status().notes.len(), &*text(&engine)), (1, "none"));
}

#[test]
fn of_a_list_the_usable_processors_are_used_and_the_others_noted() {
    let _watchdog = watchdog(60);
    let one = allowed()[0];
    let engine = handled(cpu_only(2, 1)).affinity(Class::CpuBound, Affinity::List(vec![1021, one]));
    let engine = engine.start().unwrap();
    for slot in 0..2 {
        assert_eq!(place_of(&engine, slot).cpus, one.to_string());
    }
    let notes = notes_with(&engine, &["the rest of their list", "1021"]);
    assert_eq!(notes.len(), 1, "{:?}", engine.status().notes);
    assert_eq!(text(&engine), format!("processors {one} in turn"));
}

#[test]
fn a_node_that_there_is_not_is_noted_and_binds_nobody() {
    let _watchdog = watchdog(60);
    let engine = handled(cpu_only(1, 1)).affinity(Class::CpuBound, Affinity::Node(777));
    let engine = engine.start().unwrap();
    assert_eq!(place_of(&engine, 0).cpus, list(&allowed()));
    check_it_works(&engine);
    let notes = notes_with(&engine, &["class cpu", "node 777"]);
    assert_eq!(notes.len(), 1, "{:?}", engine.status().notes);
}

#[test]
fn what_no_machine_can_do_is_an_error_of_the_start() {
    let _watchdog = watchdog(60);
    let refused = |builder: Builder, word: &str| match handled(builder).start() {
        Err(Error::Invalid(text)) => assert!(text.contains(word), "{text}"),
        other => panic!("{other:?}"),
    };
    let class = Class::CpuBound;
    refused(cpu_only(1, 1).nice(class, 20), "nice");
    refused(cpu_only(1, 1).nice(class, -21), "nice");
    refused(
        cpu_only(1, 1).affinity(class, Affinity::List(Vec::new())),
        "processors",
    );
    refused(
        cpu_only(1, 1).io_priority(class, IoPriority::BestEffort(8)),
        "I/O",
    );
}
