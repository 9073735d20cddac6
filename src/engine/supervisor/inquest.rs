//! What is found out about a death before it is settled: the worker's own report, and the names in
//! it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use super::Supervisor;
use crate::engine::core::{Core, Phase};
use crate::engine::crash::{Convicted, Findings};
use crate::engine::symbols::Request;
use crate::sys::process::Exit;

/// How long a death waits for the names. A large program's debug information takes longer to read;
/// then its tasks end without, and the log has them later.
const NAMES: Duration = Duration::from_millis(300);

impl Supervisor {
    /// Looks into the death of a worker whose exit is known; true once nothing more is to be
    /// expected. The names come by `mf-symbols`, which wakes this thread.
    pub(super) fn inquire(&mut self, core: &mut Core, worker: usize, exit: Exit) -> bool {
        if core.phase >= Phase::Cancelling {
            return true; // its tasks end as cancelled, whatever it was
        }
        let Some(lane) = &mut core.lanes[worker] else {
            return true;
        };
        if lane.inquest.findings.is_none() {
            let findings = Findings::of(lane, exit);
            if let Some(facts) = &findings.facts {
                let shared = Arc::clone(&self.shared);
                let modules = lane.inquest.modules.as_ref().unwrap_or(&self.modules);
                let asked = self.symbols.request(Request {
                    worker: lane.worker,
                    pid: lane.pid(),
                    task: Convicted::by(facts, &core.table, lane).map(|task| task.id),
                    facts: Arc::clone(facts),
                    modules: Arc::clone(modules),
                    answer: Arc::clone(&findings.trace),
                    wake: Box::new(move || shared.supervisor.signal()),
                });
                if !asked {
                    let _ = findings.trace.set(Default::default()); // nobody else will
                }
            }
            lane.inquest.findings = Some(findings);
        }
        let known =
            |findings: &Findings| findings.facts.is_none() || findings.trace.get().is_some();
        lane.inquest.findings.as_ref().is_none_or(known)
            || lane.ended.is_none_or(|ended| ended.elapsed() >= NAMES)
    }
}
