//! The checker: its own account of every task, beside the engine's.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use miniflow::{Completion, Outcome, Stats, TaskId};

use super::plan::Plan;
use super::rules::{self, End, Known, Wrong};
use super::starts::{StartLog, Starts};

/// Violations that are told in full.
const TOLD: usize = 20;
/// In the list of settled tasks: this one is not.
const OPEN: u64 = u64::MAX;

/// What is falsified once, to see that the checker can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sabotage {
    Lose,
    Duplicate,
    Corrupt,
    StartTwice,
}

/// Something that must not be.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) wrong: Wrong,
    pub(super) text: String,
}

/// What the ledger has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) completions: u64,
    /// By [`Wrong`].
    pub(super) wrong: [u64; 5],
    /// By [`Outcome`].
    pub(super) outcomes: [u64; 5],
    /// Tasks that crashed without a start in the log.
    pub(super) crashed_unseen: u64,
    /// Completions of more than one attempt.
    pub(super) retried: u64,
}

/// A task that was offered to the engine and has not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    plan: Plan,
    /// Once the engine has accepted it.
    id: Option<TaskId>,
    cancelled: bool,
}

struct State {
    open: HashMap<u64, Open>,
    /// Ended before the submitter could tell its id.
    early: HashMap<u64, TaskId>,
    /// By number: the starts that the log had at the end, or [`OPEN`].
    settled: Vec<u64>,
    counts: Counts,
    violations: Vec<Violation>,
    sabotage: Option<Sabotage>,
}

pub(super) struct Ledger {
    log: StartLog,
    state: Mutex<State>,
    /// The engine is being stopped: it may cancel anything.
    stopping: AtomicBool,
    /// Goes up with every completion, for the watchdog.
    settled: AtomicU64,
    accepted: AtomicU64,
}

impl Ledger {
    pub(super) fn new(log: StartLog, sabotage: Option<Sabotage>) -> Self {
        Self {
            log,
            state: Mutex::new(State {
                open: HashMap::new(),
                early: HashMap::new(),
                settled: Vec::new(),
                counts: Counts::default(),
                violations: Vec::new(),
                sabotage,
            }),
            stopping: AtomicBool::new(false),
            settled: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- submitters ----

    /// A task is about to be submitted: its completion may come at any moment.
    pub(super) fn offer(&self, plan: &Plan) {
        let open = Open {
            plan: *plan,
            id: None,
            cancelled: false,
        };
        self.lock().open.insert(plan.number, open);
    }

    /// The engine has accepted it.
    pub(super) fn accept(&self, plan: &Plan, id: TaskId) {
        self.accepted.fetch_add(1, SeqCst);
        let mut state = self.lock();
        state.counts.accepted += 1;
        match state.open.get_mut(&plan.number) {
            Some(open) => open.id = Some(id),
            None => match state.early.remove(&plan.number) {
                Some(of_completion) if of_completion == id => {}
                other => {
                    let why = format!("submit returned {id}, its completion had {other:?}");
                    self.report(&mut state, Wrong::Unexplained, plan, &why);
                }
            },
        }
    }

    /// The engine has refused it.
    pub(super) fn withdraw(&self, plan: &Plan) {
        let mut state = self.lock();
        if state.open.remove(&plan.number).is_none() {
            self.report(
                &mut state,
                Wrong::Unexplained,
                plan,
                "it was refused, and has a completion",
            );
        }
    }

    /// Tasks that have not ended.
    pub(super) fn open(&self) -> usize {
        self.lock().open.len()
    }

    // ---- meddlers ----

    /// From now on the task may be cancelled; its id, unless it has ended.
    pub(super) fn allow_cancel(&self, number: u64) -> Option<TaskId> {
        let mut state = self.lock();
        let open = state.open.get_mut(&number)?;
        open.cancelled = true;
        open.id
    }

    /// From now on everything may be cancelled.
    pub(super) fn allow_stop(&self) {
        self.stopping.store(true, SeqCst);
    }

    // ---- completions ----

    /// A completion has come.
    pub(super) fn settle(&self, completion: &Completion) {
        let mut end = End::of(completion);
        let number = completion.user_data();
        match self.sabotage(number, &end) {
            Some(Sabotage::Lose) => return,
            Some(Sabotage::Duplicate) => self.settle_as(completion, number, &end),
            Some(Sabotage::Corrupt) => {
                let byte = end.bytes.iter_mut().next();
                byte.into_iter().for_each(|byte| *byte ^= 1);
            }
            Some(Sabotage::StartTwice) => self.log.forge_start(number),
            None => {}
        }
        self.settle_as(completion, number, &end);
        self.settled.fetch_add(1, SeqCst);
    }

    /// Whether this is the completion to be falsified: the first after some fifty that fits.
    fn sabotage(&self, number: u64, end: &End) -> Option<Sabotage> {
        let mut state = self.lock();
        let sabotage = state.sabotage?;
        let plan = state.open.get(&number)?.plan;
        let fits = end.outcome == Outcome::Completed
            && !end.bytes.is_empty()
            && plan.max_attempts == 1
            && state.counts.completions >= 50;
        if !fits {
            return None;
        }
        state.sabotage.take();
        Some(sabotage)
    }

    fn settle_as(&self, completion: &Completion, number: u64, end: &End) {
        let starts = self.log.starts(number);
        let mut state = self.lock();
        state.counts.completions += 1;
        let Some(open) = state.open.remove(&number) else {
            let (wrong, why) = match is_settled(&state.settled, number) {
                true => (Wrong::Duplicated, "a second completion"),
                false => (Wrong::Unexplained, "a completion of nothing"),
            };
            let text = format!("task {number}: {why}: {completion:?}");
            return note(&mut state, wrong, text);
        };
        settle_number(&mut state.settled, number, starts);
        if open.id.is_none() {
            state.early.insert(number, completion.id());
        }
        count(&mut state.counts, end, starts);
        let known = Known {
            starts,
            cancellable: open.cancelled || self.stopping.load(SeqCst),
        };
        drop(state); // judging makes the reply anew
        let is_his = open.id.is_none_or(|id| id == completion.id())
            && completion.label().0 == open.plan.label();
        let verdict = match is_his {
            true => rules::judge(&open.plan, end, known),
            false => Some((Wrong::Unexplained, "the completion has another id or label")),
        };
        if let Some((wrong, why)) = verdict {
            let why = format!("{why}; {completion:?} {known:?} {}", excerpt(end));
            self.report(&mut self.lock(), wrong, &open.plan, &why);
        }
    }

    /// A result that was read in place reads otherwise later.
    pub(super) fn changed(&self, completion: &Completion) {
        let text = format!(
            "task {}: its result has changed: {completion:?}",
            completion.user_data()
        );
        note(&mut self.lock(), Wrong::Corrupted, text);
    }

    /// Something else is wrong.
    pub(super) fn complain(&self, text: String) {
        note(&mut self.lock(), Wrong::Unexplained, text);
    }

    /// For the watchdog: goes up as long as there is life.
    pub(super) fn pulse(&self) -> u64 {
        self.settled.load(SeqCst)
    }

    /// For the progress line.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    // ---- the end ----

    /// What the engine has counted, and what it still holds, beside what was seen; after the stop.
    pub(super) fn compare(&self, stats: &Stats, kills: u64) {
        let mut state = self.lock();
        let (counts, open) = (state.counts, state.open.len());
        let held = stats.queued + stats.on_workers + stats.unpolled + stats.payload_bytes;
        let ended = [
            stats.completed,
            stats.failed,
            stats.crashed,
            stats.timed_out,
            stats.cancelled,
        ];
        // What is lost or came twice is told as such.
        let comparable = open == 0 && counts.wrong[Wrong::Duplicated as usize] == 0;
        let wrong = stats.submitted != counts.accepted
            || held != 0
            || stats.violations != 0
            || stats.degraded
            || comparable && ended != counts.outcomes;
        if wrong {
            let text = format!("the engine's counters are not right: {stats:?} beside {counts:?}");
            note(&mut state, Wrong::Unexplained, text);
        }
        // The moment between the engine's mark and the handler's first line is short.
        if counts.crashed_unseen > 20 + kills / 10 {
            let unseen = counts.crashed_unseen;
            let text = format!("{unseen} tasks crashed whose handler never began");
            note(&mut state, Wrong::Unexplained, text);
        }
    }

    /// Nothing can come any more: what is open is lost, and no settled task was started since.
    pub(super) fn close(&self) -> (Counts, Vec<Violation>) {
        let mut state = self.lock();
        let mut lost: Vec<Open> = state.open.drain().map(|(_, open)| open).collect();
        lost.sort_unstable_by_key(|open| open.plan.number);
        for Open { plan, id, .. } in lost {
            let why = format!("no completion of {id:?}");
            self.report(&mut state, Wrong::Lost, &plan, &why);
        }
        for number in 0..state.settled.len() as u64 {
            let Some(&then) = state
                .settled
                .get(usize::try_from(number).unwrap_or_default())
            else {
                break;
            };
            let now = self.log.starts(number);
            if then != OPEN && now != Starts(then) {
                let text = format!(
                    "task {number}: started after its end: {:?}, then {now:?}",
                    Starts(then)
                );
                note(&mut state, Wrong::StartedTwice, text);
            }
        }
        (state.counts, std::mem::take(&mut state.violations))
    }

    /// Notes a violation with the task's history.
    fn report(&self, state: &mut State, wrong: Wrong, plan: &Plan, why: &str) {
        let (pid, ms) = self.log.last_start(plan.number);
        let text = format!(
            "task {}: {why}; starts by attempt {:?}, the last by pid {pid} at {ms} ms; {plan:?}",
            plan.number,
            self.log.starts(plan.number),
        );
        note(state, wrong, text);
    }
}

fn note(state: &mut State, wrong: Wrong, text: String) {
    state.counts.wrong[wrong as usize] += 1;
    if state.violations.len() < TOLD {
        state.violations.push(Violation { wrong, text });
    }
}

fn is_settled(settled: &[u64], number: u64) -> bool {
    usize::try_from(number)
        .ok()
        .and_then(|number| settled.get(number))
        .is_some_and(|&starts| starts != OPEN)
}

fn settle_number(settled: &mut Vec<u64>, number: u64, starts: Starts) {
    let Ok(number) = usize::try_from(number) else {
        return; // numbers are given out one by one
    };
    if settled.len() <= number {
        settled.resize(number + 1, OPEN);
    }
    settled[number] = starts.0;
}

fn count(counts: &mut Counts, end: &End, starts: Starts) {
    counts.outcomes[end.outcome as usize] += 1;
    counts.retried += u64::from(end.attempt > 1);
    counts.crashed_unseen += u64::from(end.outcome == Outcome::Crashed && starts.total() == 0);
}

/// The beginning of what came, for people.
fn excerpt(end: &End) -> String {
    let start = &end.bytes[..end.bytes.len().min(100)];
    match end.outcome {
        Outcome::Completed => format!("{start:02x?}"),
        _ => format!("`{}`", String::from_utf8_lossy(start)),
    }
}
