//! The small thread of every worker that listens to the host and notices its death.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::fork;
use crate::sys::kill_point::kill_point;
use crate::sys::process::{Process, wait_any};
use crate::sys::term::Termination;
use crate::worker::lane::Lane;
use crate::worker::link::{FromWorker, Incoming, ToWorker};

/// How often threads that may just have missed the shutdown are woken again.
const WAKE_AGAIN: Duration = Duration::from_millis(1);

/// Starts the watcher. It ends this process when the host dies, and lets it take no more tasks
/// after SIGTERM.
pub(crate) fn spawn(lane: Arc<Lane>, host: Process) -> Result<()> {
    let term = Termination::notice()?;
    std::thread::Builder::new()
        .name("mf-watcher".into())
        .spawn(move || watch(&lane, &host, &term))
        .map(drop)
        .map_err(|e| Error::system("pthread_create", "cannot start the watcher thread", e))
}

fn watch(lane: &Lane, host: &Process, term: &Termination) {
    loop {
        let ready = wait_any(&[host.as_fd(), lane.control.as_fd(), term.as_fd()], None);
        if ready[0] {
            fork::exit(0); // nobody is left to work for
        }
        if ready[2] {
            // The host, or whoever sent the signal, wants this process to leave: what is not
            // started goes to other workers, what runs may finish.
            let _ = FromWorker::Terminating.send(&lane.control); // a host that is gone needs no word
            lane.recall();
            break;
        }
        if !ready[1] {
            continue;
        }
        match ToWorker::receive(&lane.control) {
            Incoming::Message(ToWorker::Recall, _) => {
                kill_point!("recall.heard");
                lane.recall();
            }
            Incoming::Message(ToWorker::Grown, _) => lane.results.answered(),
            Incoming::Message(ToWorker::Shutdown, _) => break,
            Incoming::Nothing => {}
            // The engine was dropped without an orderly stop, or the host is dying: its socket
            // closes before its pidfd is readable.
            Incoming::Closed | Incoming::Nonsense => break,
        }
    }
    kill_point!("close.heard");
    close(lane);
    // A task in hand may go on for ever; this process must not, once the host is gone.
    while !wait_any(&[host.as_fd()], None)[0] {}
    fork::exit(0);
}

/// Ends every thread that waits for a task. Tasks in hand are finished first.
fn close(lane: &Lane) {
    while !lane.close() {
        std::thread::sleep(WAKE_AGAIN);
    }
}
