//! The last question: does an engine run here?

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use miniflow::monitor::Monitor;
use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Completion, Engine, Error, Outcome, TaskId, TaskState, WorkerState};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::check::Check;
use crate::units::time;

const WORKERS: u32 = 2;
/// Tasks that are timed, one after the other.
const ROUND_TRIPS: u32 = 1000;
/// Tasks that are queued and running when a worker is killed.
const TASKS: u32 = 100;
/// Nothing here takes longer on a machine that is well.
const PATIENCE: Duration = Duration::from_secs(20);
/// A completion that came twice would have come within this.
const ONCE_MORE: Duration = Duration::from_millis(50);
/// The payload of the task that runs until it is killed.
const HANG: &[u8] = b"hang";

/// Starts a small engine, uses it, kills a worker of it, and stops it. The process must have one thread
/// only, as its workers are forked from it.
pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    let name = format!("doctor-{}", std::process::id());
    if let Some(engine) = start(&name, &mut checks) {
        let pids: Vec<u32> = engine.workers().iter().map(|row| row.pid).collect();
        checks.push(verdict("round trip", round_trips(&engine)));
        checks.push(verdict("killed worker", kill_a_worker(&engine)));
        checks.push(verdict("stop", stop(engine, &name, &pids)));
    }
    checks
}

/// What an attempt came to, or what was wrong.
type Attempt = Result<String, String>;

fn verdict(name: &'static str, attempt: Attempt) -> Check {
    const ADVICE: &str = "MINIFLOW_LOG=debug miniflow doctor shows what the engine says; what fails above may be the reason";
    match attempt {
        Ok(found) => Check::ok(name, found),
        Err(wrong) => Check::fail(name, wrong, ADVICE),
    }
}

fn start(name: &str, checks: &mut Vec<Check>) -> Option<Engine> {
    const START: &str = "start";
    let builder = Engine::builder()
        .handler(work)
        .workers(Class::CpuBound, WORKERS)
        .threads(Class::CpuBound, 1)
        .workers(Class::IoBound, 0)
        .payload_arena(16 << 20)
        .result_arena(16 << 20)
        .start_timeout(PATIENCE);
    let begin = Instant::now();
    let named = builder.clone().name(name).start();
    let (engine, watched) = match named {
        Ok(engine) => (Ok(engine), watch(name)),
        // Perhaps only the name is what cannot be had.
        Err(error) => (builder.unnamed().start(), Err(error.to_string())),
    };
    let took = begin.elapsed();
    match engine {
        Ok(engine) => {
            checks.push(Check::ok(
                START,
                format!("{WORKERS} workers in {}", time(took)),
            ));
            checks.push(match watched {
                Ok(found) => Check::ok("watching", found),
                Err(wrong) => Check::warn(
                    "watching",
                    wrong,
                    "engines run, but cannot have names and be watched: see /dev/shm above",
                ),
            });
            Some(engine)
        }
        Err(error) => {
            checks.push(Check::fail(
                START,
                error.to_string(),
                "what fails above may be the reason",
            ));
            None
        }
    }
}

/// Looks at the engine as another process would.
fn watch(name: &str) -> Attempt {
    let monitor = Monitor::open(name).map_err(|error| error.to_string())?;
    match monitor.is_alive() {
        true => Ok("by its name, read-only".into()),
        false => Err(format!("the engine `{name}` does not look alive")),
    }
}

/// In a worker.
fn work(task: &mut Task<'_>) -> TaskResult {
    let payload = task.payload().to_vec();
    if payload == HANG {
        sleep(PATIENCE * 3);
    }
    Ok(task.reply(&payload)?)
}

fn round_trips(engine: &Engine) -> Attempt {
    let mut times = Vec::new();
    for number in 0..ROUND_TRIPS {
        let payload = number.to_le_bytes();
        let begin = Instant::now();
        let id = engine.submit(&payload).map_err(say("submit"))?;
        let completion = engine.wait(id, Some(PATIENCE)).map_err(say("wait"))?;
        times.push(begin.elapsed());
        if !completion.is_completed() || completion.to_vec() != payload {
            return Err(format!("task {number} came back wrong: {completion:?}"));
        }
    }
    times.sort_unstable();
    let at = |percent: usize| time(times[times.len() * percent / 100]);
    Ok(format!(
        "{ROUND_TRIPS} tasks one by one: {} (median), {} (99 %)",
        at(50),
        at(99)
    ))
}

fn say(what: &'static str) -> impl FnOnce(Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Kills one of two workers while tasks run and wait on both.
fn kill_a_worker(engine: &Engine) -> Attempt {
    let submit = |payload: &[u8]| engine.submit(payload).map_err(say("submit"));
    let hanging = submit(HANG)?;
    let mut ends: HashMap<TaskId, Vec<Completion>> = HashMap::from([(hanging, Vec::new())]);
    for number in 0..TASKS {
        ends.insert(submit(&number.to_le_bytes())?, Vec::new());
    }
    let victim = until("no worker starts a task", || worker_of(engine, hanging))?;
    kill_process(victim, Signal::KILL).map_err(|errno| format!("kill: {errno}"))?;
    let killed = Instant::now();
    let mut left = ends.len();
    until("not every task has ended", || {
        left = left.saturating_sub(collect(engine, &mut ends, Duration::from_millis(20)));
        (left == 0).then_some(())
    })?;
    until("the worker is not replaced", || {
        let rows = engine.workers();
        let ready = rows.iter().filter(|row| row.state == WorkerState::Ready);
        let victim = victim.as_raw_nonzero().get().unsigned_abs();
        (ready.filter(|row| row.pid != victim).count() == WORKERS as usize).then_some(())
    })?;
    let replaced = killed.elapsed();
    collect(engine, &mut ends, ONCE_MORE);
    judge(hanging, &ends)?;
    Ok(format!(
        "its task ended once, as crashed by signal 9, {TASKS} others completed once; replaced in {}",
        time(replaced)
    ))
}

/// The process that runs a task.
fn worker_of(engine: &Engine, task: TaskId) -> Option<Pid> {
    let Ok(TaskState::Running { worker, .. }) = engine.task_state(task) else {
        return None;
    };
    let row = engine
        .workers()
        .into_iter()
        .find(|row| row.slot == worker)?;
    Pid::from_raw(row.pid.cast_signed())
}

/// Sorts what has ended by its id; returns how many there were.
fn collect(engine: &Engine, ends: &mut HashMap<TaskId, Vec<Completion>>, wait: Duration) -> usize {
    let batch = engine.poll(TASKS as usize, Some(wait)).unwrap_or_default();
    let count = batch.len();
    for completion in batch {
        ends.entry(completion.id()).or_default().push(completion);
    }
    count
}

fn judge(hanging: TaskId, ends: &HashMap<TaskId, Vec<Completion>>) -> Result<(), String> {
    let wanted = TASKS as usize + 1;
    if ends.len() != wanted {
        return Err(format!("{} ids came back of {wanted}", ends.len()));
    }
    for (&id, completions) in ends {
        let [end] = &completions[..] else {
            return Err(format!("{} completions of task {id}", completions.len()));
        };
        let as_expected = match id == hanging {
            true => end.outcome() == Outcome::Crashed && end.by_signal() && end.code() == 9,
            false => end.is_completed(),
        };
        if !as_expected {
            return Err(format!("task {id} ended wrong: {end:?}"));
        }
    }
    Ok(())
}

/// Stops the engine: nothing of it may be left.
fn stop(engine: Engine, name: &str, pids: &[u32]) -> Attempt {
    let begin = Instant::now();
    engine.stop(None).map_err(say("stop"))?;
    drop(engine);
    let took = begin.elapsed();
    until("a worker is left", || {
        let gone = |&pid: &u32| {
            let pid = Pid::from_raw(pid.cast_signed());
            pid.is_none_or(|pid| test_kill_process(pid).is_err())
        };
        pids.iter().all(gone).then_some(())
    })?;
    let names = miniflow::monitor::list().unwrap_or_default();
    if names.iter().any(|found| found.name == name) {
        return Err(format!("the name `{name}` is left in /dev/shm"));
    }
    Ok(format!("nothing is left after {}", time(took)))
}

/// Waits for what comes true by itself.
fn until<T>(wrong: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("{wrong} within {} s", PATIENCE.as_secs()));
        }
        sleep(Duration::from_millis(1));
    }
}
