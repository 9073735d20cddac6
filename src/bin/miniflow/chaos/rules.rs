//! How a task may end, given what it was, what was done to it, and what its workers wrote down.

#![forbid(unsafe_code)]

use std::time::Duration;

use miniflow::{Class, Completion, Outcome};
use serde::Serialize;

use super::handler::cancelled;
use super::plan::{CODE_CANCELLED, CODE_PLANNED, Deed, Plan};
use super::starts::Starts;

/// What can be wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wrong {
    /// Accepted, and no completion.
    Lost,
    /// A second completion.
    Duplicated,
    /// Other bytes than those that belong to it.
    Corrupted,
    /// One attempt begun twice, more attempts than allowed, or a start after the end.
    StartedTwice,
    /// An end that nothing explains, and everything else.
    Unexplained,
}

/// A completion, as far as it is judged.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) code: i32,
    pub(super) collateral: bool,
    pub(super) attempt: u32,
    pub(super) ran: Duration,
    pub(super) bytes: Vec<u8>,
}

impl End {
    pub(super) fn of(completion: &Completion) -> Self {
        Self {
            outcome: completion.outcome(),
            code: completion.code(),
            collateral: completion.is_collateral(),
            attempt: completion.attempt(),
            ran: completion.ran(),
            bytes: completion.to_vec(),
        }
    }
}

/// What else is known when a task has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) starts: Starts,
    /// The host has asked for the task to be cancelled, or for the engine to stop.
    pub(super) cancellable: bool,
}

/// What is wrong with this end, if anything.
pub(super) fn judge(plan: &Plan, end: &End, known: Known) -> Option<(Wrong, &'static str)> {
    use Wrong::{StartedTwice, Unexplained};
    let starts = known.starts;
    if starts.repeated() {
        return Some((StartedTwice, "one attempt was started more than once"));
    }
    if starts.total() > plan.max_attempts {
        return Some((StartedTwice, "it was started more often than allowed"));
    }
    if end.attempt > plan.max_attempts {
        return Some((Unexplained, "more attempts than allowed"));
    }
    if starts.last() > end.attempt {
        return Some((Unexplained, "its last start counts as no attempt"));
    }
    let in_handler = matches!(end.outcome, Outcome::Completed | Outcome::Failed);
    if in_handler && starts.of(end.attempt) == 0 {
        return Some((Unexplained, "its handler returned and had never begun"));
    }
    match end.outcome {
        Outcome::Completed => judge_completed(plan, end),
        Outcome::Failed => judge_failed(plan, end, known),
        Outcome::Crashed => judge_crashed(plan, end, known),
        Outcome::TimedOut => judge_timed_out(plan, end, known),
        Outcome::Cancelled if !known.cancellable => Some((Unexplained, "nobody had cancelled it")),
        Outcome::Cancelled => None,
    }
}

fn judge_completed(plan: &Plan, end: &End) -> Option<(Wrong, &'static str)> {
    let succeeds = match plan.deed {
        Deed::Fail { times } | Deed::Die { times, .. } => end.attempt > times,
        Deed::Hang { .. } => false,
        _ => true,
    };
    if !succeeds {
        return Some((Wrong::Unexplained, "it could not succeed"));
    }
    (end.bytes != plan.reply()).then_some((Wrong::Corrupted, "the reply has other bytes"))
}

fn judge_failed(plan: &Plan, end: &End, known: Known) -> Option<(Wrong, &'static str)> {
    let text = match (end.code, plan.deed) {
        (CODE_CANCELLED, Deed::Sleep { .. } | Deed::Hang { deaf: false }) => {
            // Beyond its deadline it is asked as well, and what it answers then counts.
            let asked = known.cancellable || plan.deadline.is_some_and(|d| end.ran >= d);
            if !asked {
                return Some((Wrong::Unexplained, "it gave up, and nobody had asked it to"));
            }
            cancelled(plan)
        }
        (CODE_PLANNED, Deed::Fail { times }) if end.attempt <= times => plan.failure(end.attempt),
        _ => return Some((Wrong::Unexplained, "a failure that was not planned")),
    };
    let left = plan.retry_failed && end.attempt < plan.max_attempts && !known.cancellable;
    if left {
        return Some((Wrong::Unexplained, "it failed with attempts left"));
    }
    (end.bytes != text.as_bytes()).then_some((Wrong::Corrupted, "the error text has other bytes"))
}

fn judge_crashed(plan: &Plan, end: &End, known: Known) -> Option<(Wrong, &'static str)> {
    // That no start was noted proves nothing: its worker may have died between the engine's mark
    // and the first line of the handler. `Ledger` keeps an eye on how often.
    if end.attempt == 0 {
        return Some((Wrong::Unexplained, "it crashed without an attempt"));
    }
    if end.attempt < plan.max_attempts && !known.cancellable {
        return Some((Wrong::Unexplained, "it crashed with attempts left"));
    }
    (end.collateral && plan.class == Class::CpuBound).then_some((
        Wrong::Unexplained,
        "its worker had one thread: no collateral",
    ))
}

fn judge_timed_out(plan: &Plan, end: &End, known: Known) -> Option<(Wrong, &'static str)> {
    let Some(deadline) = plan.deadline else {
        return Some((Wrong::Unexplained, "it had no deadline"));
    };
    if plan.retry_timed_out && end.attempt < plan.max_attempts && !known.cancellable {
        return Some((Wrong::Unexplained, "it timed out with attempts left"));
    }
    (end.ran < deadline).then_some((Wrong::Unexplained, "it timed out before its deadline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 5;

    fn plan(what: impl Fn(&Plan) -> bool) -> Plan {
        let plans = (0..100_000).map(|number| Plan::of(SEED, number));
        plans.into_iter().find(what).unwrap()
    }

    fn end(outcome: Outcome, attempt: u32) -> End {
        End {
            outcome,
            code: 0,
            collateral: false,
            attempt,
            ran: Duration::from_secs(1),
            bytes: Vec::new(),
        }
    }

    fn started(starts: u64) -> Known {
        Known {
            starts: Starts(starts),
            cancellable: false,
        }
    }

    fn wrong(plan: &Plan, end: &End, known: Known) -> Option<Wrong> {
        judge(plan, end, known).map(|(wrong, _)| wrong)
    }

    #[test]
    fn a_completed_task_has_its_own_bytes_and_was_started_once() {
        let plan = plan(|p| p.deed == Deed::Echo && p.max_attempts == 1 && p.reply_len() > 0);
        let mut good = end(Outcome::Completed, 1);
        good.bytes = plan.reply();
        assert_eq!(wrong(&plan, &good, started(1)), None);
        assert_eq!(wrong(&plan, &good, started(2)), Some(Wrong::StartedTwice));
        assert_eq!(
            wrong(&plan, &good, started(0x101)),
            Some(Wrong::StartedTwice)
        );
        assert_eq!(wrong(&plan, &good, started(0)), Some(Wrong::Unexplained));
        good.bytes[0] ^= 1;
        assert_eq!(wrong(&plan, &good, started(1)), Some(Wrong::Corrupted));
        good.bytes.clear();
        assert_eq!(wrong(&plan, &good, started(1)), Some(Wrong::Corrupted));
    }

    #[test]
    fn a_task_that_dies_completes_only_in_a_later_attempt() {
        let plan = plan(|p| matches!(p.deed, Deed::Die { times: 1, .. }) && p.max_attempts == 3);
        let mut good = end(Outcome::Completed, 2);
        good.bytes = plan.reply();
        assert_eq!(wrong(&plan, &good, started(0x101)), None);
        // Its first worker may have died before the handler could note it.
        assert_eq!(wrong(&plan, &good, started(0x100)), None);
        good.attempt = 1;
        assert_eq!(wrong(&plan, &good, started(1)), Some(Wrong::Unexplained));
        let crashed = |attempt| end(Outcome::Crashed, attempt);
        assert_eq!(
            wrong(&plan, &crashed(2), started(0x101)),
            Some(Wrong::Unexplained)
        );
        assert_eq!(wrong(&plan, &crashed(3), started(0x1_0101)), None);
    }

    #[test]
    fn only_what_was_cancelled_is_cancelled_and_only_the_late_time_out() {
        let plan = plan(|p| p.deed == Deed::Echo && p.deadline.is_none() && p.max_attempts == 1);
        let mut known = started(0);
        let (cancelled, late) = (end(Outcome::Cancelled, 0), end(Outcome::TimedOut, 1));
        assert_eq!(wrong(&plan, &cancelled, known), Some(Wrong::Unexplained));
        assert_eq!(wrong(&plan, &late, known), Some(Wrong::Unexplained));
        known.cancellable = true;
        assert_eq!(wrong(&plan, &cancelled, known), None);
        let mut limited = plan;
        limited.deadline = Some(Duration::from_secs(1));
        assert_eq!(wrong(&limited, &late, started(1)), None);
        let early = End {
            ran: Duration::from_millis(999),
            ..late
        };
        assert_eq!(
            wrong(&limited, &early, started(1)),
            Some(Wrong::Unexplained)
        );
    }

    #[test]
    fn a_failure_is_the_planned_one() {
        let plan = plan(|p| matches!(p.deed, Deed::Fail { .. }) && p.max_attempts == 1);
        let mut failed = end(Outcome::Failed, 1);
        failed.code = CODE_PLANNED;
        failed.bytes = plan.failure(1).into_bytes();
        assert_eq!(wrong(&plan, &failed, started(1)), None);
        failed.code = CODE_CANCELLED;
        assert_eq!(wrong(&plan, &failed, started(1)), Some(Wrong::Unexplained));
        failed.code = CODE_PLANNED;
        failed.bytes.pop();
        assert_eq!(wrong(&plan, &failed, started(1)), Some(Wrong::Corrupted));
    }
}
