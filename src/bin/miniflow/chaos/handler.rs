//! What the workers do: note the start where the engine cannot see it, then carry out the plan.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};
use std::{hint, process, thread};

use miniflow::worker::{Failure, Task, TaskResult};

use super::fault;
use super::plan::{CODE_CANCELLED, CODE_PLANNED, Death, Deed, Plan};
use super::starts::StartLog;

/// How long a task that looks for its cancellation sleeps between two looks.
const NAP: Duration = Duration::from_micros(200);

/// Runs one task of the run with this seed.
pub(super) fn run(task: &mut Task<'_>, log: &StartLog, seed: u64) -> TaskResult {
    let Some(number) = task.payload().first_chunk().map(|n| u64::from_le_bytes(*n)) else {
        log.note_stray();
        return Err(Failure::new(1, "the payload is shorter than any"));
    };
    let attempt = task.attempt();
    log.note_start(number, attempt, task.worker());
    let plan = Plan::of(seed, number);
    let is_mine = task.user_data() == number
        && task.class() == plan.class
        && task.label().0 == plan.label()
        && (1..=plan.max_attempts).contains(&attempt);
    if !is_mine {
        log.note_stray();
        return Err(Failure::new(1, format!("not as planned: {plan:?}")));
    }
    act(task, &plan, log)?;
    let (payload, reply) = task.payload_and_reply_buf(plan.reply_len())?;
    plan.write_reply(payload, reply);
    Ok(())
}

fn act(task: &Task<'_>, plan: &Plan, log: &StartLog) -> TaskResult {
    let attempt = task.attempt();
    match plan.deed {
        Deed::Echo => {}
        Deed::Sleep { us } => {
            let end = Instant::now() + Duration::from_micros(us);
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                heed(task, plan)?;
                thread::sleep(left.min(NAP));
            }
        }
        Deed::Spin { us } => {
            let end = Instant::now() + Duration::from_micros(us);
            while Instant::now() < end {
                hint::spin_loop();
            }
        }
        Deed::Steps { count } => {
            for step in 0..count {
                task.progress(step, count);
                thread::yield_now();
            }
        }
        Deed::Fail { times } if attempt <= times => {
            return Err(Failure::new(CODE_PLANNED, plan.failure(attempt)));
        }
        Deed::Die { how, times } if attempt <= times => {
            log.note_death();
            die(how);
        }
        Deed::Fail { .. } | Deed::Die { .. } => {}
        Deed::Hang { deaf } => loop {
            if !deaf {
                heed(task, plan)?;
            }
            thread::sleep(NAP);
        },
    }
    Ok(())
}

/// Gives up if the submitter asked for it.
fn heed(task: &Task<'_>, plan: &Plan) -> TaskResult {
    match task.is_cancelled() {
        true => Err(Failure::new(CODE_CANCELLED, cancelled(plan))),
        false => Ok(()),
    }
}

/// The text of a task that gave up.
pub(super) fn cancelled(plan: &Plan) -> String {
    format!("task {} was cancelled", plan.number)
}

fn die(how: Death) -> ! {
    match how {
        Death::Segfault => fault::segfault(),
        Death::Abort => process::abort(),
        Death::Exit => process::exit(3),
    }
}
