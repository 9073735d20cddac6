//! Every accepted task ends exactly once, with the bytes that belong to it.
//!
//! `MINIFLOW_LONG=1` makes 20 runs of 100 000 tasks; otherwise there is one of 20 000.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{bytes, checksum, cpu_only, watchdog};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Completion, Engine, Error, Submission, SubmitOptions};

const SUBMITTERS: usize = 4;
const POLLERS: usize = 2;

/// What a task is like, all of it from its number: payload, class, how it is submitted, and whether
/// its bytes come back whole or as a checksum.
struct Plan {
    number: usize,
    len: usize,
    class: Class,
    loaned: bool,
    batch: bool,
    echo: bool,
}

impl Plan {
    fn of(number: usize) -> Self {
        let mix = checksum(&number.to_le_bytes());
        let random = (mix >> 16) as usize;
        // Mostly small: 1.6 KiB on average, but every size class up to 1 MiB is there.
        let len = match mix % 1000 {
            0 => 1 << 20,
            1..=10 => random % (64 << 10),
            11..=100 => random % 4096,
            101..=400 => random % 256,
            _ => random % 48,
        };
        Self {
            number,
            len: if mix.is_multiple_of(97) { 0 } else { len },
            class: Class::ALL[(mix >> 50) as usize % 2],
            loaned: mix >> 52 & 3 == 0,
            batch: mix >> 54 & 3 == 0,
            echo: mix >> 56 & 3 != 0,
        }
    }

    fn payload(&self) -> Vec<u8> {
        bytes(self.number as u64, self.len)
    }

    fn options(&self) -> SubmitOptions {
        SubmitOptions::new()
            .class(self.class)
            .user_data(self.number as u64)
            .priority(self.number as i32 % 7 - 3)
    }
}

fn run_task(task: &mut Task<'_>) -> TaskResult {
    let plan = Plan::of(task.user_data() as usize);
    if task.class() != plan.class {
        return Err("a task on a worker of the other class".into());
    }
    let payload = task.payload().to_vec();
    if plan.echo {
        task.reply(&payload)?;
    } else {
        task.reply(&checksum(&payload).to_le_bytes())?;
    }
    Ok(())
}

#[track_caller]
fn check(completion: &Completion) -> usize {
    let plan = Plan::of(completion.user_data() as usize);
    assert!(completion.is_completed(), "{}", completion.text());
    assert_eq!((completion.attempt(), completion.code()), (1, 0));
    let expected = if plan.echo {
        plan.payload()
    } else {
        checksum(&plan.payload()).to_le_bytes().to_vec()
    };
    assert!(
        completion.to_vec() == expected,
        "task {}: {} bytes that are not the {} submitted",
        plan.number,
        completion.len(),
        plan.len
    );
    plan.number
}

/// Submits one task or, if its plan says so, this and those after it that are alike, at once.
fn submit(engine: &Engine, numbers: &[usize]) -> Result<usize, Error> {
    let plan = Plan::of(numbers[0]);
    if plan.batch {
        let plans: Vec<Plan> = numbers.iter().take(20).map(|&n| Plan::of(n)).collect();
        let payloads: Vec<Vec<u8>> = plans.iter().map(Plan::payload).collect();
        let submissions = plans
            .iter()
            .zip(&payloads)
            .map(|(plan, payload)| Submission {
                payload,
                options: plan.options(),
            });
        return Ok(engine.submit_batch(submissions)?.len());
    }
    if plan.loaned {
        let mut loan = engine.loan(plan.len)?;
        loan.copy_from_slice(&plan.payload());
        loan.submit(&plan.options())?;
    } else {
        engine.submit_with(&plan.payload(), &plan.options())?;
    }
    Ok(1)
}

/// Tells the other threads of a test when one of them panics.
struct Alarm<'a>(&'a Mutex<Option<Error>>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.lock().unwrap() = Some(Error::Internal("another thread panicked".into()));
        }
    }
}

/// One run; `count` tasks.
fn every_task_once(count: usize) {
    let engine = Engine::builder()
        .handler(run_task)
        .workers(Class::CpuBound, 2)
        .workers(Class::IoBound, 2)
        .threads(Class::CpuBound, 4)
        .threads(Class::IoBound, 4)
        .max_tasks(5000)
        .payload_arena(32 << 20)
        .max_payload(1 << 20)
        .start()
        .unwrap();
    let seen: Vec<AtomicU8> = (0..count).map(|_| AtomicU8::new(0)).collect();
    let ended = AtomicUsize::new(0);
    let note = |completion: &Completion| {
        let before = seen[check(completion)].fetch_add(1, SeqCst);
        assert_eq!(before, 0, "task {} twice", completion.user_data());
        ended.fetch_add(1, SeqCst);
    };
    let failed = Mutex::new(None);
    let alarm = || Alarm(&failed);
    std::thread::scope(|scope| {
        for first in 0..SUBMITTERS {
            let (engine, failed, alarm) = (&engine, &failed, &alarm);
            scope.spawn(move || {
                let _alarm = alarm();
                let numbers: Vec<usize> = (first..count).step_by(SUBMITTERS).collect();
                let mut left = &numbers[..];
                while !left.is_empty() && failed.lock().unwrap().is_none() {
                    match submit(engine, left) {
                        Ok(accepted) => left = &left[accepted..],
                        Err(Error::WouldBlock(_)) => std::thread::yield_now(),
                        Err(e) => *failed.lock().unwrap() = Some(e),
                    }
                }
            });
        }
        for _ in 0..POLLERS {
            scope.spawn(|| {
                let _alarm = alarm();
                let mut batch = Vec::new();
                while ended.load(SeqCst) < count && failed.lock().unwrap().is_none() {
                    let wait = Some(Duration::from_millis(20));
                    engine.poll_into(&mut batch, 100, wait).unwrap();
                    batch.drain(..).for_each(|completion| note(&completion));
                }
            });
        }
    });
    assert!(failed.into_inner().unwrap().is_none());
    assert!(seen.iter().all(|times| times.load(SeqCst) == 1));
    let stats = engine.stats();
    assert_eq!(stats.submitted, count as u64);
    assert_eq!(stats.completed, count as u64);
    assert_eq!((stats.unpolled, stats.on_workers, stats.queued), (0, 0, 0));
    assert_eq!(
        (stats.died, stats.violations, stats.payload_bytes),
        (0, 0, 0)
    );
    assert!(engine.poll(1, Some(Duration::ZERO)).unwrap().is_empty());
    engine.stop(None).unwrap();
}

#[test]
fn every_task_ends_exactly_once_with_its_own_bytes() {
    let long = std::env::var_os("MINIFLOW_LONG").is_some_and(|v| v == "1");
    let (runs, count) = if long { (20, 100_000) } else { (1, 20_000) };
    for _ in 0..runs {
        let _watchdog = watchdog(120);
        every_task_once(count);
    }
}

#[test]
fn a_batch_that_does_not_fit_is_accepted_up_to_where_it_fits() {
    let _watchdog = watchdog(30);
    let engine = common::cpu_only(1, 1)
        .handler(|task| {
            let payload = task.payload().to_vec();
            Ok(task.reply(&payload)?)
        })
        .max_tasks(10)
        .start()
        .unwrap();
    let numbers: Vec<[u8; 1]> = (0..20).map(|n| [n]).collect();
    let ids = engine
        .submit_batch(numbers.iter().map(|n| Submission::from(&n[..])))
        .unwrap();
    assert_eq!(ids.len(), 10);
    assert!(matches!(engine.submit(b"x"), Err(Error::WouldBlock(_))));
    let mut got: Vec<(_, Vec<u8>)> = common::collect(&engine, 10)
        .iter()
        .map(|c| (c.id(), c.to_vec()))
        .collect();
    got.sort_by_key(|(_, bytes)| bytes.clone());
    for (number, (id, bytes)) in got.iter().enumerate() {
        assert_eq!((id, bytes), (&ids[number], &vec![number as u8]));
    }
    assert!(engine.stats().would_block >= 1);
}

#[test]
fn a_batch_may_be_made_with_the_engine_in_hand() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(|_| Ok(())).start().unwrap();
    let payloads: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 3000 * usize::from(n)]).collect();
    let submissions = payloads.iter().map(|payload| {
        assert_eq!(engine.stats().submitted, 0, "nothing is submitted yet");
        Submission::from(&payload[..])
    });
    let ids = engine.submit_batch(submissions).unwrap();
    let mut got: Vec<_> = engine.completions().map(|c| c.id()).collect();
    got.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(got, expected);
}
