//! The threads of a handler worker.
#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::sys::kill_point::kill_point;
use crate::worker::lane::{Hand, Lane};
use crate::worker::task::{CODE_PANIC, Failure, Handler, Task, TaskResult};

/// Starts `lane.threads - 1` threads, which run tasks until the lane is closed.
pub(crate) fn start(lane: &Arc<Lane>, handler: &Arc<dyn Handler>) -> Result<Vec<JoinHandle<()>>> {
    let mut others = Vec::new();
    for index in 1..lane.threads {
        let (lane, handler) = (Arc::clone(lane), Arc::clone(handler));
        let thread = std::thread::Builder::new()
            .name(format!("mf-task-{index}"))
            .spawn(move || work(&lane, &*handler))
            .map_err(|e| Error::system("pthread_create", "cannot start a worker thread", e))?;
        others.push(thread);
    }
    Ok(others)
}

/// Tells the host that this worker is there, and runs tasks on this thread too until the lane is
/// closed.
pub(crate) fn run(lane: &Lane, handler: &dyn Handler, others: Vec<JoinHandle<()>>) -> Result<()> {
    kill_point!("hello.before");
    lane.hello()?;
    kill_point!("hello.after");
    work(lane, handler);
    for thread in others {
        let _ = thread.join(); // `work` catches panics
    }
    kill_point!("leave.exit");
    Ok(())
}

fn work(lane: &Lane, handler: &dyn Handler) {
    let mut hand = Hand::default();
    while let Ok(started) = lane.next(&mut hand, None) {
        let mut task = Task::new(lane, started);
        kill_point!("handler.before");
        let result = call(handler, &mut task);
        kill_point!("handler.after");
        task.finish(&mut hand, result);
    }
    kill_point!("leave.thread");
}

/// Calls user code; a panic becomes a failed task.
#[inline]
fn call(handler: &dyn Handler, task: &mut Task<'_>) -> TaskResult {
    // AssertUnwindSafe: after a panic the task is only finished as failed, and what the handler
    // itself shares between its calls is its own to keep consistent, as with any thread pool.
    catch_unwind(AssertUnwindSafe(|| handler.run(task)))
        .unwrap_or_else(|panic| Err(Failure::new(CODE_PANIC, panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(not a text)");
    format!("the handler panicked: {text}")
}
