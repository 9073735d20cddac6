//! Worker programs: processes that join a lane which they inherited, executed by the engine or forked
//! by a zygote program.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::{Error, Full, Result};
use crate::sys::fork;
use crate::sys::process::Process;
use crate::task::Class;
use crate::worker::crash;
use crate::worker::lane::{Hand, Inherited, Lane, NoTask};
use crate::worker::link::FromWorker;
use crate::worker::task::{Task, TaskResult};
use crate::worker::watcher;
use crate::worker::{foreign, handover, zygote};

/// A worker program's end of its lane.
///
/// The engine starts the program with its lane's descriptors inherited, or has a zygote program fork it
/// ([`Zygote`](crate::worker::Zygote)); [`Worker::join`] adopts them. Any thread may take tasks, at most as many at a time as the engine's configured threads
/// per worker.
pub struct Worker {
    lane: Arc<Lane>,
    in_hand: AtomicU32,
}

impl Worker {
    /// Joins the lane that this process inherited. Once per process.
    ///
    /// In a child of a zygote program this comes before anything else, threads above all: it restricts
    /// the process as the engine's sandbox says. After an error such a child must exit.
    ///
    /// From then on SIGTERM, which the engine sends before it kills, makes [`Worker::next`] end with
    /// [`Error::Closed`] and hands back what is not started, unless the program has its own use for
    /// that signal.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the process was not started by an engine, nor forked by a zygote program
    /// that has a request to answer, or has joined already; [`Error::Unsupported`] if host and worker
    /// use different layouts; [`Error::Closed`] if the zygote that has forked it is gone.
    pub fn join() -> Result<Self> {
        let worker = match foreign::claim()? {
            Some((inherited, host)) => Self::open_forked(inherited, host)?,
            None => {
                let (inherited, host) = handover::adopt_lane()?;
                Self::open(inherited, host)?
            }
        };
        worker.lane.hello()?;
        Ok(worker)
    }

    fn open(inherited: Inherited, host: Process) -> Result<Self> {
        let lane = Arc::new(Lane::open(inherited)?);
        crash::install(&lane, None);
        watcher::spawn(Arc::clone(&lane), host)?;
        Ok(Self {
            lane,
            in_hand: AtomicU32::new(0),
        })
    }

    /// In a child that a zygote program has forked.
    fn open_forked(inherited: Inherited, host: Process) -> Result<Self> {
        // To say why, if the lane takes its own end along. (Under a limit there may be no room.)
        let spare = inherited.control.try_clone();
        let worker = Self::open(inherited, host).inspect_err(|e| {
            if let Ok(spare) = spare {
                let errno = zygote::number_of(e);
                let _ = FromWorker::JoinFailed { errno }.send(&spare);
            }
        })?;
        fork::outlive_parent_here(); // the watcher runs
        Ok(worker)
    }

    /// Takes the next task, waiting for one at most `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Closed`] when the engine wants no more of this worker;
    /// [`Error::WouldBlock`] when as many tasks are in hand as the configured concurrency.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Assigned<'_>> {
        // Relaxed: a counter that guards no data.
        if self.in_hand.fetch_add(1, Relaxed) >= self.lane.threads {
            self.in_hand.fetch_sub(1, Relaxed);
            return Err(Error::WouldBlock(Full::Concurrency));
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut hand = Hand::of_thread(crash::this_thread());
        let next = self.lane.next(&mut hand, deadline);
        self.lane.flush(&mut hand); // tasks that it passed over because they were cancelled
        match next {
            Ok(started) => Ok(Assigned {
                worker: self,
                task: Some(Task::new(&self.lane, started)),
            }),
            Err(no_task) => {
                self.in_hand.fetch_sub(1, Relaxed); // Relaxed: as above.
                Err(match no_task {
                    NoTask::Timeout => Error::Timeout,
                    NoTask::Closed => Error::Closed,
                })
            }
        }
    }

    /// The number of this worker in its engine.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.lane.worker
    }

    /// The class whose tasks this worker runs.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::from_wire(self.lane.class).unwrap_or(Class::CpuBound)
    }

    /// How many tasks may be in hand at a time.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        self.lane.threads
    }
}

impl Drop for Worker {
    /// Leaves the lane: what this process has not started goes to other workers. The process has
    /// the engine's `stop_grace` to end, then it is killed.
    fn drop(&mut self) {
        let _ = FromWorker::Leaving.send(&self.lane.control); // a host that is gone needs no word
        self.lane.recall();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("slot", &self.lane.worker)
            .finish_non_exhaustive()
    }
}

/// A task that a worker program has in hand. Dropped without [`Assigned::finish`], it fails.
pub struct Assigned<'a> {
    worker: &'a Worker,
    task: Option<Task<'a>>,
}

impl<'a> Assigned<'a> {
    /// The task itself.
    #[allow(
        clippy::missing_panics_doc,
        reason = "the task is there until it is finished"
    )]
    pub fn task(&mut self) -> &mut Task<'a> {
        self.task
            .as_mut()
            .unwrap_or_else(|| unreachable!("finish takes self"))
    }

    /// Ends the task, on any thread.
    pub fn finish(mut self, result: TaskResult) {
        self.end(result);
    }

    fn end(&mut self, result: TaskResult) {
        if let Some(mut task) = self.task.take() {
            let mut hand = Hand::default();
            task.finish(&mut hand, result);
            self.worker.lane.flush(&mut hand);
            self.worker.in_hand.fetch_sub(1, Relaxed); // Relaxed: as in `next`.
        }
    }
}

impl Drop for Assigned<'_> {
    fn drop(&mut self) {
        self.end(Err("the worker program dropped the task".into()));
    }
}

impl fmt::Debug for Assigned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.task, f)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::shm::layout::PAYLOAD_WORDS;
    use crate::shm::ring::{Message, Meta, Producer};
    use crate::shm::segments::{HostInputs, HostLane, LaneFds, LaneIdentity, LaneShape};
    use crate::shm::slot::{Collector, Scan};
    use crate::sys::event::Event;
    use crate::sys::socket::Socket;
    use crate::worker::lane::Inherited;

    #[test]
    fn a_cancelled_task_that_is_passed_over_is_announced() {
        let inputs = HostInputs::create(1 << 20).unwrap();
        let shape = LaneShape {
            clock_scale: 0,
            inputs_size: inputs.size(),
            result_arena: 1 << 20,
            max_result: 1 << 20,
            inline_result: 0,
            host_pid: 0,
            spin_ns: 0,
            reply_wait_ns: 0,
        };
        let who = LaneIdentity {
            worker: 0,
            incarnation: 1,
            threads: 1,
            class: 0,
        };
        let host = HostLane::create(&shape, who).unwrap();
        let (down, up) = host.fds();
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let lane = Lane::open(Inherited {
            lane: LaneFds {
                inputs: own(inputs.fd()),
                down: own(down),
                up: own(up),
            },
            event: own(Event::new().unwrap().as_fd()),
            control: Socket::pair().unwrap().0,
        });
        let worker = Worker {
            lane: Arc::new(lane.unwrap()),
            in_hand: AtomicU32::new(0),
        };

        let (mut collector, mut producer) = (Collector::new(), Producer::default());
        for ticket in [1, 2] {
            let slot = collector.give(ticket).unwrap();
            if ticket == 1 {
                host.down().cancel[usize::from(slot)].store(ticket, Relaxed);
            }
            let message = Message {
                ticket,
                meta: Meta::new(slot, 1, 0, false),
                payload: [0; PAYLOAD_WORDS],
            };
            producer.push(&host.down().ring, &message);
        }
        let _second = worker.next(Some(Duration::ZERO)).unwrap();
        let up = host.up();
        let mut announced = Vec::new();
        let scan = collector.scan(&up.bitmap, &up.slots, 9, |_, ticket, _| {
            announced.push(ticket);
        });
        assert_eq!((scan, announced), (Scan::Complete, vec![1]));
    }
}
