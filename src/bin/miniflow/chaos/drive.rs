//! The host's threads: those that submit, wait, poll and meddle.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use miniflow::{Class, Completion, Engine, Error, Submission, TaskId};

use rustix::event::{self, PollFd, PollFlags, Timespec};

use super::ledger::Ledger;
use super::plan::{Meddling, Plan, Route};
use super::random::Random;

/// Tasks offered to the engine at a time, at most: more than it takes, so that it has to refuse some.
const IN_FLIGHT: usize = 700;
/// Most tasks that the engine takes.
pub(super) const MAX_TASKS: u32 = 640;
/// Most workers by class.
pub(super) const MAX_WORKERS: [(Class, u32); 2] = [(Class::CpuBound, 4), (Class::IoBound, 3)];
/// Results that the poller keeps for a while.
const HELD: usize = 6;
/// Each time so long has passed, nothing is submitted for a while ...
const PERIOD: Duration = Duration::from_millis(1_000);
/// ... so that workers and threads fall asleep; now and then for so long that the whole engine does.
const LULL: Duration = Duration::from_millis(40);
const LONG_LULL: Duration = Duration::from_millis(250);
/// Everything that waits looks around after so long.
const LOOK: Duration = Duration::from_millis(20);

/// What the threads share.
pub(super) struct Run<'a> {
    pub(super) seed: u64,
    pub(super) engine: &'a Engine,
    pub(super) ledger: &'a Ledger,
    pub(super) started: Instant,
    /// Numbers below this one are given out.
    pub(super) next: AtomicU64,
    pub(super) numbers: u64,
    /// No more tasks.
    pub(super) over: AtomicBool,
    /// The engine has stopped.
    pub(super) stopped: AtomicBool,
}

impl Run<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(SeqCst)
    }

    /// Whether submitters rest now, all at the same time.
    fn is_lull(&self) -> bool {
        let elapsed = self.started.elapsed().as_millis();
        let (period, since) = (elapsed / PERIOD.as_millis(), elapsed % PERIOD.as_millis());
        let lull = if period % 4 == 3 { LONG_LULL } else { LULL };
        period > 0 && since < lull.as_millis()
    }

    fn plan(&self) -> Option<Plan> {
        let number = self.next.fetch_add(1, SeqCst);
        (number < self.numbers).then(|| Plan::of(self.seed, number))
    }
}

// ---- submitters ----

/// Where a submitter tells what it has submitted.
pub(super) struct Told {
    /// Those for which somebody shall wait.
    pub(super) awaited: SyncSender<TaskId>,
    /// Those which somebody shall cancel.
    pub(super) meddling: SyncSender<(u64, Meddling)>,
}

/// Submits until the run is over.
pub(super) fn submit(run: &Run<'_>, told: &Told, mut random: Random) {
    let mut batch = Vec::new();
    while !run.is_over() {
        if run.ledger.open() >= IN_FLIGHT || run.is_lull() {
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        let Some(plan) = run.plan() else {
            return; // the start log is full: the run ends with what it has
        };
        run.ledger.offer(&plan);
        if plan.route == Route::Batch {
            batch.push(plan);
            if batch.len() as u64 >= random.between(1, 24) {
                submit_batch(run, told, &mut batch);
            }
        } else {
            submit_one(run, told, &plan);
        }
    }
    batch.iter().for_each(|plan| run.ledger.withdraw(plan));
}

fn submit_one(run: &Run<'_>, told: &Told, plan: &Plan) {
    loop {
        match attempt(run.engine, plan) {
            Ok(id) => return accepted(run, told, plan, id),
            Err(error) => {
                if !may_try_again(run, &error) {
                    return run.ledger.withdraw(plan);
                }
            }
        }
    }
}

fn attempt(engine: &Engine, plan: &Plan) -> Result<TaskId, Error> {
    let options = plan.options();
    match plan.route {
        Route::Copy | Route::Batch => engine.submit_with(&plan.payload(), &options),
        Route::Patient => engine.submit_wait(&plan.payload(), &options, Some(LOOK)),
        Route::Loan => {
            let mut loan = engine.loan(plan.payload_len())?;
            plan.write_payload(&mut loan);
            loan.submit(&options)
        }
    }
}

fn submit_batch(run: &Run<'_>, told: &Told, plans: &mut Vec<Plan>) {
    while !plans.is_empty() {
        let payloads: Vec<Vec<u8>> = plans.iter().map(Plan::payload).collect();
        let submissions = plans.iter().zip(&payloads).map(|(plan, payload)| {
            let mut submission = Submission::from(&payload[..]);
            submission.options = plan.options();
            submission
        });
        match run.engine.submit_batch(submissions) {
            Ok(ids) => {
                for (plan, id) in plans.drain(..ids.len()).zip(ids) {
                    accepted(run, told, &plan, id);
                }
            }
            Err(error) => {
                if !may_try_again(run, &error) {
                    return plans.drain(..).for_each(|plan| run.ledger.withdraw(&plan));
                }
            }
        }
    }
}

/// Whether a refusal will pass; waits a little then.
fn may_try_again(run: &Run<'_>, error: &Error) -> bool {
    match error {
        Error::WouldBlock(_) | Error::Timeout if !run.is_over() => {
            thread::sleep(Duration::from_micros(100));
            true
        }
        Error::WouldBlock(_) | Error::Timeout => false,
        Error::Closed if run.is_over() => false,
        other => {
            run.ledger.complain(format!("submit: {other}"));
            false
        }
    }
}

fn accepted(run: &Run<'_>, told: &Told, plan: &Plan, id: TaskId) {
    run.ledger.accept(plan, id);
    // Whoever is too busy does without it.
    if plan.awaited {
        let _ = told.awaited.try_send(id);
    }
    if plan.meddling != Meddling::None {
        let _ = told.meddling.try_send((plan.number, plan.meddling));
    }
}

// ---- completions ----

/// Waits for single tasks until the engine has stopped, or nobody submits any more.
pub(super) fn wait(run: &Run<'_>, ids: &Receiver<TaskId>, mut random: Random) {
    loop {
        let id = match ids.recv_timeout(LOOK) {
            Ok(id) => id,
            Err(RecvTimeoutError::Timeout) if !run.has_stopped() => continue,
            Err(_) => return,
        };
        let patience = Duration::from_micros(random.below(5_000));
        match run.engine.wait(id, Some(patience)) {
            Ok(completion) => run.ledger.settle(&completion),
            Err(Error::NotFound | Error::Timeout) => {} // the poller had it, or will
            Err(other) => run.ledger.complain(format!("wait: {other}")),
        }
    }
}

/// Polls until the engine has stopped and nothing is left.
pub(super) fn poll(run: &Run<'_>, mut random: Random) {
    let mut batch = Vec::new();
    let mut held = Held::default();
    loop {
        let stopped = run.has_stopped(); // before the poll that finds nothing
        let max = random.index(100) + 1;
        let patience = match random.chance(300) {
            true => await_event(run),
            false => LOOK,
        };
        match run.engine.poll_into(&mut batch, max, Some(patience)) {
            Ok(0) if stopped => break,
            Ok(_) => {}
            Err(Error::Closed) => break,
            Err(other) => return run.ledger.complain(format!("poll: {other}")),
        }
        for completion in batch.drain(..) {
            run.ledger.settle(&completion);
            held.offer(run, completion, &mut random);
        }
    }
    held.release(run, 0);
}

/// Waits as an event loop does; returns how long the poll may wait after that.
fn await_event(run: &Run<'_>) -> Duration {
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: LOOK.subsec_nanos().into(),
    };
    match run.engine.event_fd() {
        Ok(event) => {
            let event = PollFd::from_borrowed_fd(event, PollFlags::IN);
            let _ = event::poll(&mut [event], Some(&time)); // a signal is as good as a time-out
        }
        Err(error) => run.ledger.complain(format!("event_fd: {error}")),
    }
    Duration::ZERO
}

/// Large results that are kept, to be read again when their worker may be dead.
#[derive(Default)]
struct Held(Vec<(Completion, Vec<u8>)>);

impl Held {
    fn offer(&mut self, run: &Run<'_>, completion: Completion, random: &mut Random) {
        if completion.as_bytes().is_none() && random.chance(300) {
            let bytes = completion.to_vec();
            self.0.push((completion, bytes));
            self.release(run, HELD);
        }
    }

    /// Lets go of the oldest until so many are left.
    fn release(&mut self, run: &Run<'_>, left: usize) {
        while self.0.len() > left {
            let (completion, bytes) = self.0.remove(0);
            if completion.to_vec() != bytes {
                run.ledger.changed(&completion);
            }
        }
    }
}

// ---- meddlers ----

/// Cancels, resizes and looks around until the run is over.
pub(super) fn meddle(run: &Run<'_>, tasks: &Receiver<(u64, Meddling)>, mut random: Random) {
    let mut resized = Instant::now();
    while !run.is_over() {
        let found = tasks.recv_timeout(Duration::from_millis(2));
        if resized.elapsed() > Duration::from_millis(30) {
            resized = Instant::now();
            resize(run, &mut random);
        }
        let Ok((number, meddling)) = found else {
            continue;
        };
        thread::sleep(Duration::from_micros(random.below(400)));
        let Some(id) = run.ledger.allow_cancel(number) else {
            continue; // it has ended
        };
        if random.chance(200) {
            let _ = run.engine.task_state(id); // wherever it is, asking must do no harm
        }
        let answer = match meddling {
            Meddling::None => Ok(()),
            Meddling::Cancel => run.engine.cancel(id),
            Meddling::CancelKill => run.engine.cancel_kill(id),
        };
        if let Err(error) = answer
            && !matches!(error, Error::NotFound)
        {
            run.ledger.complain(format!("cancel: {error}"));
        }
    }
}

fn resize(run: &Run<'_>, random: &mut Random) {
    let (class, most) = MAX_WORKERS[random.index(MAX_WORKERS.len())];
    let workers = u32::try_from(random.between(1, u64::from(most))).unwrap_or(1);
    if let Err(error) = run.engine.resize(class, workers)
        && !(run.is_over() && matches!(error, Error::Closed))
    {
        run.ledger.complain(format!("resize: {error}"));
    }
    if random.chance(100) && !run.engine.status_json().starts_with('{') {
        run.ledger.complain("the status is no JSON object".into());
    }
}
