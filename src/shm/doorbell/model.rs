//! Loom models of the doorbell with the leader's hand-over: one host, a worker with two or three
//! threads, each of which takes one task. Task 0 lasts until the others were run.
//!
//! The futex of a model has no time-out, so a lost wake-up is a deadlock.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;
use crate::shm::leader::Leadership;
use crate::shm::ring::{self, Head, Message, Meta, Ring};
use crate::sys::model::{explore, explore_within, must_fail, without_full_fence};
use crate::sys::sync::{AtomicU64, lock, spin_hint};

const NAP: Duration = Duration::from_secs(60);

struct Worker {
    ring: Ring,
    head: Head,
    tail: Tail,
    epoch: SleepEpoch,
    leadership: Leadership<Sleeper>,
    tasks: u16,
    /// How many tasks were run, apart from task 0, which waits for them.
    ran: Mutex<u16>,
    changed: Condvar,
}

type Sleep = fn(&Worker, &mut Sleeper);

impl Worker {
    fn new(tasks: u16) -> Arc<Self> {
        Arc::new(Self {
            tasks,
            ring: Ring::new(),
            head: Line(AtomicU64::new(0)),
            tail: Line(FutexWord::new(0)),
            epoch: Line(AtomicU32::new(0)),
            leadership: Leadership::new(Sleeper::default()),
            ran: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    fn sleep(&self, sleeper: &mut Sleeper) {
        let head = self.head.0.load(Ordering::Relaxed);
        sleeper.sleep(head, &self.tail, &self.epoch, NAP, || false);
    }

    fn pop(&self) -> Option<Message> {
        ring::pop(&self.ring, &self.head)
    }

    /// As `worker::lane::Lane::next` does it.
    fn next(&self, sleep: Sleep) -> Message {
        loop {
            if let Some(message) = self.pop() {
                return message;
            }
            let idle = || !ring::has_work(&self.ring, &self.head);
            self.leadership
                .lead(true, NAP, idle, |sleeper| sleep(self, sleeper));
            // A descriptor shows up before the tail does, so this may go round without a sleep.
            spin_hint();
        }
    }

    /// User code.
    fn run(&self, task: &Message) {
        if task.payload[0] == 0 {
            self.await_runs(self.tasks - 1);
        } else {
            *lock(&self.ran) += 1;
            self.changed.notify_all();
        }
    }

    fn await_runs(&self, count: u16) {
        let mut ran = lock(&self.ran);
        while *ran < count {
            ran = self.changed.wait(ran).expect("not poisoned");
        }
    }
}

fn push(worker: &Worker, producer: &mut ring::Producer, task: u16) {
    let message = Message {
        ticket: u64::from(task) + 1,
        meta: Meta::new(task, 1, 8, false),
        payload: [u64::from(task)],
    };
    producer.push(&worker.ring, &message);
}

fn ring_bell(worker: &Worker, bell: &mut Producer, tail: u64) -> bool {
    bell.ring(tail, &worker.tail, &worker.epoch)
}

type RingBell = fn(&Worker, &mut Producer, u64) -> bool;

/// Publishes `THREADS` tasks, announcing each one or (`at_once`) the first two together. The ring
/// has two cells, so the third task has to wait for the end of the second.
fn run<const THREADS: usize>(at_once: bool, ring_bell: RingBell, sleep: Sleep) {
    let tasks = THREADS as u16;
    let worker = Worker::new(tasks);
    let threads = [(); THREADS].map(|()| {
        let worker = Arc::clone(&worker);
        thread::spawn(move || {
            let task = worker.next(sleep);
            worker.run(&task);
            task.payload[0]
        })
    });
    let mut producer = ring::Producer::default();
    let mut bell = Producer::default();
    for task in 0..tasks {
        worker.await_runs(task.saturating_sub(1));
        push(&worker, &mut producer, task);
        if !at_once || task != 0 {
            ring_bell(&worker, &mut bell, producer.tail());
        }
    }
    let mut ran = threads.map(|t| t.join().expect("a thread failed"));
    ran.sort_unstable();
    assert!(
        ran.into_iter().eq(0..u64::from(tasks)),
        "tasks run: {ran:?}"
    );
}

#[test]
fn two_tasks_announced_one_by_one_wake_two_threads() {
    explore(|| run::<2>(false, ring_bell, Worker::sleep));
}

#[test]
fn two_tasks_announced_at_once_wake_two_threads() {
    explore(|| run::<2>(true, ring_bell, Worker::sleep));
}

#[test]
fn a_third_thread_takes_the_place_of_leaders_that_run_tasks() {
    explore_within(1, || run::<3>(false, ring_bell, Worker::sleep));
}

#[test]
fn without_the_producers_fence_a_wake_up_is_lost() {
    must_fail("deadlock", || {
        run::<2>(
            false,
            |worker, bell, tail| without_full_fence(|| ring_bell(worker, bell, tail)),
            Worker::sleep,
        );
    });
}

#[test]
fn without_the_sleepers_fence_a_wake_up_is_lost() {
    must_fail("deadlock", || {
        run::<2>(false, ring_bell, |worker, sleeper| {
            without_full_fence(|| worker.sleep(sleeper));
        });
    });
}

/// A thread may claim a descriptor before the tail says so, and then sleep for the next one with
/// an epoch that the host has seen already.
#[test]
fn a_wake_that_found_no_sleeper_must_not_count() {
    must_fail("deadlock", || {
        let ring_bell = |worker: &Worker, bell: &mut Producer, tail| {
            worker.tail.0.publish(truncate(tail));
            fence(Ordering::SeqCst);
            let z = worker.epoch.0.load(Ordering::Relaxed);
            if z != 0 && z != bell.last_woken {
                bell.last_woken = z;
                worker.tail.0.wake_all();
            }
            true
        };
        run::<2>(false, ring_bell, Worker::sleep);
    });
}

#[test]
fn a_leader_that_runs_user_code_in_its_place_blocks_the_other_thread() {
    must_fail("deadlock", || {
        run::<2>(false, ring_bell, |worker, sleeper| {
            worker.sleep(sleeper);
            if let Some(task) = worker.pop() {
                worker.run(&task);
            }
        });
    });
}
