//! What becomes of an engine whose zygote dies, and of one whose workers cannot be started.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{
    Proc, collect, cpu_only, is_alive, kill, until, watchdog, watchdog_alone, worker, zygote_of,
};
use miniflow::{Builder, Completion, Engine, Outcome, TaskId};

/// Not a test by itself: a worker program that echoes.
#[test]
fn a_program_that_echoes() {
    if std::env::var_os("MINIFLOW_LANE").is_none() {
        return;
    }
    let worker = miniflow::worker::Worker::join().unwrap();
    while let Ok(mut assigned) = worker.next(None) {
        let payload = assigned.task().payload().to_vec();
        if payload == b"sleep" {
            std::thread::sleep(Duration::from_millis(200));
        }
        assigned.task().reply(&payload).unwrap();
        assigned.finish(Ok(()));
    }
}

fn echoes(workers: u32) -> Builder {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    cpu_only(workers, 1).program([program, "--exact", "a_program_that_echoes"])
}

fn wait(engine: &Engine, id: TaskId) -> Completion {
    engine.wait(id, Some(Duration::from_secs(20))).unwrap()
}

#[test]
fn an_engine_of_programs_starts_another_zygote_and_goes_on() {
    let _watchdog = watchdog(60);
    let engine = echoes(2).start().unwrap();
    let zygote = zygote_of(&engine);
    let workers = [worker(&engine, 0).pid, worker(&engine, 1).pid];
    let running = engine.submit(b"sleep").unwrap();
    kill(zygote);
    until("it is gone", || !is_alive(zygote));
    // The workers go on.
    assert!(wait(&engine, running).is_completed());
    assert!(workers.iter().all(|&pid| is_alive(pid)));
    // A dead one is replaced: by the new zygote.
    kill(workers[0]);
    until("it is replaced", || {
        engine
            .workers()
            .iter()
            .any(|row| row.slot == 0 && row.pid != workers[0] && row.pid != 0)
            && engine.stats().workers == 2
    });
    let successor = Proc::read(worker(&engine, 0).pid).unwrap().parent;
    assert_ne!(successor, zygote);
    assert_eq!(Proc::read(successor).unwrap().name, "mf-zygote");
    for _ in 0..100 {
        engine.submit(b"x").unwrap();
    }
    assert!(collect(&engine, 100).iter().all(Completion::is_completed));
    assert!(!engine.stats().degraded);
    engine.stop(None).unwrap();
    assert!(!is_alive(successor) && !is_alive(workers[1]));
}

#[test]
fn zygotes_that_are_killed_again_and_again_degrade_the_engine_but_lose_no_task() {
    let _watchdog = watchdog(60);
    let engine = echoes(1).start().unwrap();
    let mut last = zygote_of(&engine);
    let mut done = 0;
    while !engine.stats().degraded {
        if is_alive(last) {
            kill(last);
        }
        for child in common::children() {
            if Proc::read(child).is_some_and(|p| p.name == "mf-zygote" && p.state != 'Z') {
                last = child;
            }
        }
        let id = engine.submit(b"x").unwrap();
        assert!(wait(&engine, id).is_completed());
        done += 1;
        assert!(done < 1_000_000);
    }
    let id = engine.submit(b"x").unwrap();
    assert!(wait(&engine, id).is_completed(), "its worker lives");
    assert_eq!(engine.stats().died, 0);
}

#[test]
fn a_zygote_whose_inherited_descriptors_have_changed_is_not_started_again() {
    let _watchdog = watchdog(60);
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let engine = echoes(1).inherit([file.as_raw_fd()]).start().unwrap();
    let zygote = zygote_of(&engine);
    drop(file); // the number is free, or means something else from now on
    kill(zygote);
    until("it is degraded", || engine.stats().degraded);
    let id = engine.submit(b"x").unwrap();
    assert!(wait(&engine, id).is_completed(), "its worker lives");
}

#[test]
fn a_zygote_that_is_stopped_is_woken_when_it_is_needed() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(|_| Ok(())).start().unwrap();
    let zygote = rustix::process::Pid::from_raw(zygote_of(&engine).cast_signed()).unwrap();
    rustix::process::kill_process(zygote, rustix::process::Signal::STOP).unwrap();
    kill(worker(&engine, 0).pid);
    let id = engine.submit(b"").unwrap();
    assert!(wait(&engine, id).is_completed());
}

/// A copy of this program that a test can take away; removed when dropped.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("miniflow-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        Self(path)
    }

    fn set_executable(&self, executable: bool) {
        let mode = if executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&self.0, PermissionsExt::from_mode(mode)).unwrap();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[test]
fn tasks_of_a_class_whose_program_is_gone_fail_with_the_reason_until_it_is_back() {
    // Alone: a program that a forked child has open for writing, for a moment, cannot be executed.
    let _watchdog = watchdog_alone(60);
    let copy = Copy::new();
    let engine = cpu_only(1, 1)
        .program([copy.0.to_str().unwrap(), "--exact", "a_program_that_echoes"])
        .start()
        .unwrap();
    let id = engine.submit(b"sleep").unwrap();
    until("it runs", || engine.workers()[0].running == 1);
    let queued = engine.submit(b"x").unwrap();
    copy.set_executable(false);
    kill(worker(&engine, 0).pid);
    assert_eq!(wait(&engine, id).outcome(), Outcome::Crashed);
    let failed = wait(&engine, queued);
    assert_eq!((failed.outcome(), failed.attempt()), (Outcome::Failed, 0));
    let text = failed.text();
    assert!(text.contains("cannot execute"), "{text}");
    assert!(engine.status_json().contains("cannot execute"));
    copy.set_executable(true);
    until("it works again", || {
        let id = engine.submit(b"x").unwrap();
        wait(&engine, id).is_completed()
    });
}

#[test]
fn tasks_of_a_class_whose_workers_die_at_their_start_fail_with_the_reason() {
    // Alone: a program that a forked child has open for writing, for a moment, cannot be executed.
    let _watchdog = watchdog_alone(60);
    let copy = Copy::new();
    std::fs::write(
        &copy.0,
        format!(
            "#!/bin/sh\n[ -e {0}.bad ] && kill -SEGV $$\nexec {1} --exact a_program_that_echoes\n",
            copy.0.display(),
            std::env::current_exe().unwrap().display()
        ),
    )
    .unwrap();
    copy.set_executable(true);
    let engine = cpu_only(2, 1)
        .program([copy.0.to_str().unwrap()])
        .start()
        .unwrap();
    let bad = PathBuf::from(format!("{}.bad", copy.0.display()));
    std::fs::write(&bad, "").unwrap();
    for row in engine.workers() {
        kill(row.pid);
    }
    let id = engine.submit(b"x").unwrap();
    let failed = engine.wait(id, Some(Duration::from_secs(20)));
    std::fs::remove_file(&bad).unwrap();
    let failed = failed.unwrap();
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert!(failed.text().contains("SIGSEGV"), "{}", failed.text());
    until("it works again", || {
        let id = engine.submit(b"x").unwrap();
        wait(&engine, id).is_completed()
    });
}
