//! The runtime of one worker process: takes tasks off the lane and publishes what became of them.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::error::Result;
use crate::shm::doorbell::Sleeper;
use crate::shm::hostbell::{self, Signaller};
use crate::shm::layout::{Down, RESULT_WORDS, Up};
use crate::shm::leader::Leadership;
use crate::shm::ring::{self, Message};
use crate::shm::segments::{LaneFds, WorkerLane};
use crate::shm::slot::{Ending, Kind, Pending};
use crate::sys::clock::Clock;
use crate::sys::event::Event;
use crate::sys::kill_point::kill_point;
use crate::sys::socket::Socket;
use crate::sys::spin::Spin;
use crate::worker::link::FromWorker;
use crate::worker::results::Results;

/// Finished tasks whose flips one thread may hold back.
const BATCH: u32 = 16;
/// Tasks that take longer than this are published one by one.
const BATCH_BELOW: Duration = if cfg!(feature = "kill-points") {
    Duration::from_micros(100) // so that there are batches in a debug build too
} else {
    Duration::from_micros(1)
};
/// The longest sleep on the doorbell: a backstop, not part of the protocol.
const NAP: Duration = Duration::from_secs(60);

/// What an incoming worker process inherits.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) lane: LaneFds,
    pub(crate) event: OwnedFd,
    pub(crate) control: Socket,
}

const NO_RESULT: [u64; RESULT_WORDS] = [0; RESULT_WORDS];

/// One worker's end of its lane, shared by its threads.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: WorkerLane,
    pub(crate) worker: u32,
    pub(crate) threads: u32,
    pub(crate) class: u32,
    pub(crate) clock: Clock,
    pub(crate) results: Results,
    pub(crate) control: Socket,
    inline_result: usize,
    batch_below: u64,
    event: Event,
    /// Written by whichever thread signals; the fields around it are only read.
    signaller: CachePadded<Signaller>,
    leadership: Leadership<Sleeper>,
    spin: Spin,
    closing: AtomicBool,
    /// Threads inside [`Lane::wait`].
    waiting: CachePadded<AtomicU32>,
}

/// What one thread of a worker keeps between two tasks.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    pending: Pending,
    /// When the last task ended, if the thread has not waited since; else 0.
    now: u64,
    /// The thread that starts tasks with this; 0 if none does.
    thread: u32,
}

impl Hand {
    /// The hand of the thread with this id, which is going to start tasks.
    pub(crate) fn of_thread(thread: u32) -> Self {
        Self {
            thread,
            ..Self::default()
        }
    }
}

/// Why [`Lane::next`] has no task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTask {
    Timeout,
    Closed,
}

/// A task that was taken and started: user code may run.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) message: Message,
    pub(crate) start: u64,
}

impl Lane {
    /// Maps the lane; the host is not told yet.
    pub(crate) fn open(inherited: Inherited) -> Result<Self> {
        let shared = WorkerLane::map(inherited.lane)?;
        let c = &shared.down().constants;
        // Relaxed: written before this process existed.
        let clock = Clock::from_wire(c.clock_scale.load(Ordering::Relaxed));
        let capacity = c.up_size.load(Ordering::Relaxed) - crate::shm::layout::RESULTS_OFFSET;
        Ok(Self {
            worker: c.worker.load(Ordering::Relaxed),
            threads: c.threads.load(Ordering::Relaxed),
            class: c.class.load(Ordering::Relaxed),
            clock,
            results: Results::new(
                capacity,
                c.max_result.load(Ordering::Relaxed),
                Duration::from_nanos(c.reply_wait_ns.load(Ordering::Relaxed)),
            ),
            control: inherited.control,
            inline_result: c.inline_result.load(Ordering::Relaxed) as usize,
            batch_below: clock.ticks(BATCH_BELOW),
            event: Event::from_fd(inherited.event),
            signaller: CachePadded::new(Signaller::new()),
            leadership: Leadership::new(Sleeper::default()),
            spin: Spin::new(clock.ticks(Duration::from_nanos(c.spin_ns.load(Ordering::Relaxed)))),
            closing: AtomicBool::new(false),
            waiting: CachePadded::new(AtomicU32::new(0)),
            shared,
        })
    }

    /// Tells the host that this worker takes tasks from now on.
    pub(crate) fn hello(&self) -> Result<()> {
        FromWorker::Hello
            .send(&self.control)
            .map_err(|e| crate::Error::system("sendmsg", "cannot report to the host", e))
    }

    pub(crate) fn shared(&self) -> &WorkerLane {
        &self.shared
    }

    #[inline]
    fn down(&self) -> &Down {
        self.shared.down()
    }

    #[inline]
    fn up(&self) -> &Up {
        self.shared.up()
    }

    /// Longest result that this engine lets travel in the task slot.
    pub(crate) fn inline_result(&self) -> usize {
        self.inline_result
    }

    /// Takes the oldest task, waiting for one until `deadline` (`None`: for ever), and marks it as
    /// started. A task that was cancelled meanwhile is published as such and passed over.
    ///
    /// Always inlined: a message that is returned through memory is written by words and read in
    /// wider pieces, which waits for all stores before it, those to the task slot too.
    #[inline(always)]
    pub(crate) fn next(
        &self,
        hand: &mut Hand,
        deadline: Option<Instant>,
    ) -> Result<Started, NoTask> {
        loop {
            // First: a worker that has to leave takes no more tasks, whatever lies on its lane.
            while !self.is_closing()
                && let Some(message) = ring::pop(&self.down().ring, &self.up().head)
            {
                if let Some(started) = self.start(hand, message) {
                    return Ok(started);
                }
            }
            self.flush(hand);
            hand.now = 0;
            if self.is_closing() {
                return Err(NoTask::Closed);
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Err(NoTask::Timeout);
            }
            self.wait(deadline);
        }
    }

    #[inline(always)] // see `next`
    fn start(&self, hand: &mut Hand, message: Message) -> Option<Started> {
        let slot = message.meta.slot();
        self.up().slots[slot].prefetch();
        if let Some(soon) = ring::peek_slot(&self.down().ring, &self.up().head) {
            self.up().slots[soon].prefetch();
        }
        if hand.now == 0 {
            hand.now = self.clock.now();
        }
        let start = hand.now;
        self.up().slots[slot].start(message.ticket, start, u64::from(hand.thread));
        // Relaxed: advice, as every cancellation is.
        if self.down().cancel[slot].load(Ordering::Relaxed) == message.ticket {
            let started = Started { message, start };
            kill_point!("start.cancelled");
            self.finish(
                hand,
                &started,
                &mut Ending::new(Kind::Cancelled),
                &NO_RESULT,
            );
            return None;
        }
        if !hand.pending.is_empty() && hostbell::host_sleeps(&self.shared.inputs().host_epoch) {
            kill_point!("start.before-flush");
            // This task may run long: do not hold the others back. A host that falls asleep just
            // after this looks at the done words first.
            self.flush(hand);
        }
        Some(Started { message, start })
    }

    /// Publishes a completion. The times of `ending` are filled in here.
    #[inline]
    pub(crate) fn finish(
        &self,
        hand: &mut Hand,
        started: &Started,
        ending: &mut Ending,
        result: &[u64; RESULT_WORDS],
    ) {
        let message = &started.message;
        let slot = message.meta.slot();
        let end = self.clock.now();
        ending.start = started.start;
        ending.end = end;
        self.up().slots[slot].finish(message.ticket, ending, result);
        hand.now = end;
        let noted = hand.pending.add(slot);
        if noted >= BATCH || end.wrapping_sub(started.start) > self.batch_below {
            self.flush(hand);
        }
    }

    /// Publishes the flips that were held back and wakes the host if it sleeps.
    pub(crate) fn flush(&self, hand: &mut Hand) {
        if hand.pending.is_empty() {
            return;
        }
        hand.pending.flush(&self.up().bitmap);
        if self.signaller.due(&self.shared.inputs().host_epoch) {
            kill_point!("flush.before-signal");
            self.event.signal();
            kill_point!("flush.after-signal");
        }
    }

    /// Whether the task's submitter asked it to stop.
    pub(crate) fn is_cancelled(&self, message: &Message) -> bool {
        // Relaxed: advice.
        self.down().cancel[message.meta.slot()].load(Ordering::Relaxed) == message.ticket
    }

    /// Says how far the task is.
    pub(crate) fn progress(&self, message: &Message, done: u64, total: u64) {
        self.up().slots[message.meta.slot()].set_progress(done, total);
    }

    /// Waits until there may be work: spinning first, then asleep. One thread (the leader) watches
    /// the doorbell, the others wait for its place; it leaves the place before it runs user code.
    fn wait(&self, deadline: Option<Instant>) {
        let left = || match deadline {
            Some(d) => d.saturating_duration_since(Instant::now()).min(NAP),
            None => NAP,
        };
        let idle = || !self.has_work() && !self.is_closing();
        let shared = self.threads > 1;
        // A thread that is alone needs no place to spin.
        if !shared && self.spin.until(self.clock, || !idle()) {
            return;
        }
        // Relaxed: read by the watcher only, which looks again until it is 0.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.leadership.lead(shared, left(), idle, |sleeper| {
            if shared && self.spin.until(self.clock, || !idle()) {
                return;
            }
            // Relaxed: only this process moves the head; a stale value only means another look.
            let head = self.up().head.0.load(Ordering::Relaxed);
            sleeper.sleep(
                head,
                &self.down().tail,
                &self.up().sleep_epoch,
                left(),
                || self.is_closing(),
            );
        });
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn has_work(&self) -> bool {
        ring::has_work(&self.down().ring, &self.up().head)
    }

    #[inline]
    fn is_closing(&self) -> bool {
        // Relaxed: set by the watcher, which wakes every thread until it has seen it.
        self.closing.load(Ordering::Relaxed)
    }

    /// Watcher: hands back every task that no thread has claimed. Each is claimed exactly as a
    /// thread would, so that nothing can be both run and returned.
    pub(crate) fn recall(&self) {
        let mut hand = Hand::default();
        while let Some(message) = ring::pop(&self.down().ring, &self.up().head) {
            kill_point!("recall.claimed");
            // Not started: the ticket stays out of the slot.
            let started = Started { message, start: 0 };
            self.finish(
                &mut hand,
                &started,
                &mut Ending::new(Kind::Returned),
                &NO_RESULT,
            );
            kill_point!("recall.published");
        }
        self.flush(&mut hand);
        kill_point!("recall.flushed");
    }

    /// Watcher: makes every [`Lane::next`] end; true once nobody waits inside.
    pub(crate) fn close(&self) -> bool {
        self.closing.store(true, Ordering::Relaxed); // Relaxed: see `is_closing`.
        kill_point!("close.closing");
        // A thread may look at `closing` just before this and fall asleep just after, so the
        // caller repeats this until it is true.
        self.down().tail.0.wake_all();
        self.leadership.wake_all();
        kill_point!("close.woken");
        self.waiting.load(Ordering::Relaxed) == 0
    }
}
