//! Every metric there is.
#![forbid(unsafe_code)]

use std::fmt;

use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram};

use super::Series;
use crate::engine::stats::{WorkerRow, WorkerState};
use crate::status::{ClassStatus, EngineState, MemoryState, Status};
use crate::sys::process::signal_name;

/// One metric.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// Those it has beside `engine`, which all have.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
    pub(super) read: fn(&Status, &mut Series<'_>) -> fmt::Result,
}

const CLASS: &[&str] = &["class"];
const WORKER: &[&str] = &["class", "worker"];

/// In the order in which they are written.
pub(super) const FAMILIES: &[Family] = &[
    // ---- the engine ----
    Family {
        name: "miniflow_engine_info",
        kind: Gauge,
        labels: &["version", "pid", "policy", "scaling"],
        help: "Always 1; the labels say what the engine is: its version, its host process, its \
               dispatch and scaling policies.",
        read: |s, to| {
            let pid = s.pid.to_string();
            to.put(&[&s.version, &pid, &s.policy, &s.scaling], 1_u32)
        },
    },
    Family {
        name: "miniflow_engine_running",
        kind: Gauge,
        labels: &[],
        help: "Whether the engine takes tasks: 1, or 0 when it stops, has stopped or is dead.",
        read: |s, to| to.put(&[], flag(s.state == EngineState::Running)),
    },
    Family {
        name: "miniflow_engine_degraded",
        kind: Gauge,
        labels: &[],
        help: "Whether the zygote is gone, so that no worker can be started: 1 or 0.",
        read: |s, to| to.put(&[], flag(s.degraded)),
    },
    Family {
        name: "miniflow_engine_notes",
        kind: Gauge,
        labels: &[],
        help: "How many settings the engine could not follow; `miniflow status` has them in \
               words.",
        read: |s, to| to.put(&[], s.notes.len() as u64),
    },
    Family {
        name: "miniflow_engine_start_time_seconds",
        kind: Gauge,
        labels: &[],
        help: "When the engine was started, in seconds since 1970.",
        read: |s, to| to.put(&[], of_ms(s.started_ms)),
    },
    Family {
        name: "miniflow_engine_status_time_seconds",
        kind: Gauge,
        labels: &[],
        help: "When the engine gathered these values, in seconds since 1970.",
        read: |s, to| to.put(&[], of_ms(s.at_ms)),
    },
    // ---- tasks ----
    Family {
        name: "miniflow_tasks_submitted_total",
        kind: Counter,
        labels: &[],
        help: "Tasks accepted.",
        read: |s, to| to.put(&[], s.tasks.submitted),
    },
    Family {
        name: "miniflow_tasks_ended_total",
        kind: Counter,
        labels: &["outcome"],
        help: "Tasks ended, by outcome: completed, failed, crashed, timed_out or cancelled.",
        read: |s, to| {
            to.put(&["completed"], s.tasks.completed)?;
            to.put(&["failed"], s.tasks.failed)?;
            to.put(&["crashed"], s.tasks.crashed)?;
            to.put(&["timed_out"], s.tasks.timed_out)?;
            to.put(&["cancelled"], s.tasks.cancelled)
        },
    },
    Family {
        name: "miniflow_submits_refused_total",
        kind: Counter,
        labels: &[],
        help: "Submits refused because something was full (would block).",
        read: |s, to| to.put(&[], s.tasks.would_block),
    },
    Family {
        name: "miniflow_tasks_recalled_total",
        kind: Counter,
        labels: &[],
        help: "Tasks that a worker handed back unstarted, because a long task had come up \
               before them.",
        read: |s, to| to.put(&[], s.tasks.recalled),
    },
    Family {
        name: "miniflow_tasks_redispatched_total",
        kind: Counter,
        labels: &[],
        help: "Tasks that were on a dead worker, not started, and went to another.",
        read: |s, to| to.put(&[], s.tasks.redispatched),
    },
    Family {
        name: "miniflow_tasks_retried_total",
        kind: Counter,
        labels: &[],
        help: "Starts again of tasks whose worker died, or that failed or timed out and asked \
               for it.",
        read: |s, to| to.put(&[], s.tasks.retried),
    },
    Family {
        name: "miniflow_tasks_unpolled",
        kind: Gauge,
        labels: &[],
        help: "Completions that nobody has taken.",
        read: |s, to| to.put(&[], s.tasks.unpolled),
    },
    Family {
        name: "miniflow_tasks_queued",
        kind: Gauge,
        labels: CLASS,
        help: "Tasks that no worker has.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], c.queued)),
    },
    Family {
        name: "miniflow_tasks_on_workers",
        kind: Gauge,
        labels: CLASS,
        help: "Tasks on workers, started or not.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], c.on_workers)),
    },
    Family {
        name: "miniflow_tasks_oldest_wait_seconds",
        kind: Gauge,
        labels: CLASS,
        help: "How long the task waits that has waited longest for a worker; 0 if none does.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], of_ns(c.oldest_ns))),
    },
    Family {
        name: "miniflow_task_queue_duration_seconds",
        kind: Histogram,
        labels: CLASS,
        help: "Time from submit to start, of tasks that ended.",
        read: |s, to| each_class(s, |c| to.put_times(&[c.class.name()], &c.queue_time)),
    },
    Family {
        name: "miniflow_task_run_duration_seconds",
        kind: Histogram,
        labels: CLASS,
        help: "Time from start to end, of tasks that ended.",
        read: |s, to| each_class(s, |c| to.put_times(&[c.class.name()], &c.run_time)),
    },
    // ---- workers of a class ----
    Family {
        name: "miniflow_workers",
        kind: Gauge,
        labels: &["class", "state"],
        help: "Worker processes by state: starting, ready (takes tasks), draining (finishes \
               what it runs) or leaving.",
        read: |s, to| {
            each_class(s, |c| {
                let class = c.class.name();
                let rows = |state| {
                    let rows = s.workers.iter();
                    let rows = rows.filter(|r| r.class == c.class && r.state == state);
                    rows.count() as u64
                };
                to.put(&[class, "starting"], u64::from(c.starting))?;
                to.put(&[class, "ready"], u64::from(c.workers))?;
                to.put(&[class, "draining"], rows(WorkerState::Draining))?;
                to.put(&[class, "leaving"], rows(WorkerState::Leaving))
            })
        },
    },
    Family {
        name: "miniflow_workers_target",
        kind: Gauge,
        labels: CLASS,
        help: "Workers wanted: changes(...) of it counts scaling decisions that did something.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], c.target)),
    },
    Family {
        name: "miniflow_workers_min",
        kind: Gauge,
        labels: CLASS,
        help: "Fewest workers that scaling leaves.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], c.min)),
    },
    Family {
        name: "miniflow_workers_max",
        kind: Gauge,
        labels: CLASS,
        help: "Most workers.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], c.max)),
    },
    Family {
        name: "miniflow_workers_threads",
        kind: Gauge,
        labels: CLASS,
        help: "Threads of each worker.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], c.threads)),
    },
    Family {
        name: "miniflow_workers_broken",
        kind: Gauge,
        labels: CLASS,
        help: "Whether no worker can be started: 1 or 0; `miniflow status` says why.",
        read: |s, to| each_class(s, |c| to.put(&[c.class.name()], flag(c.broken.is_some()))),
    },
    Family {
        name: "miniflow_workers_started_total",
        kind: Counter,
        labels: &[],
        help: "Worker processes started.",
        read: |s, to| to.put(&[], s.tasks.spawned),
    },
    Family {
        name: "miniflow_workers_died_total",
        kind: Counter,
        labels: &[],
        help: "Worker processes that ended although nobody wanted that.",
        read: |s, to| to.put(&[], s.tasks.died),
    },
    Family {
        name: "miniflow_workers_killed_total",
        kind: Counter,
        labels: &[],
        help: "Worker processes that the engine ended: for a task beyond its deadline or \
               cancelled by force, or because they were stopped, hung or broke the protocol.",
        read: |s, to| to.put(&[], s.tasks.killed),
    },
    Family {
        name: "miniflow_workers_recycled_total",
        kind: Counter,
        labels: &[],
        help: "Worker processes replaced because of their number of tasks or their size.",
        read: |s, to| to.put(&[], s.tasks.recycled),
    },
    Family {
        name: "miniflow_workers_violations_total",
        kind: Counter,
        labels: &[],
        help: "Workers killed because their memory could not be trusted.",
        read: |s, to| to.put(&[], s.tasks.violations),
    },
    Family {
        name: "miniflow_worker_crashes_total",
        kind: Counter,
        labels: &["signal"],
        help: "Unasked deaths of workers by the signal that ended them; none: an exit, or \
               unknown.",
        read: |s, to| {
            s.signals.iter().try_for_each(|count| {
                let signal = match count.signal {
                    0 => "none".to_owned(),
                    number => signal_name(number.cast_signed()),
                };
                to.put(&[&signal], count.deaths)
            })
        },
    },
    Family {
        name: "miniflow_dispatch_policy_failures_total",
        kind: Counter,
        labels: &[],
        help: "Times that a dispatch policy of the host's own panicked or chose a worker that \
               there is not.",
        read: |s, to| to.put(&[], s.tasks.policy_failures),
    },
    // ---- each worker ----
    Family {
        name: "miniflow_worker_busy_threads",
        kind: Gauge,
        labels: WORKER,
        help: "Threads of the worker that run a task.",
        read: |s, to| each_worker(s, |labels, w| to.put(labels, w.running)),
    },
    Family {
        name: "miniflow_worker_queued_tasks",
        kind: Gauge,
        labels: WORKER,
        help: "Tasks on the worker that are not started.",
        read: |s, to| each_worker(s, |labels, w| to.put(labels, w.queued)),
    },
    Family {
        name: "miniflow_worker_tasks_total",
        kind: Counter,
        labels: WORKER,
        help: "Tasks that the worker has ended, failed ones included; from 0 again with every \
               process in the slot.",
        read: |s, to| each_worker(s, |labels, w| to.put(labels, w.completed)),
    },
    Family {
        name: "miniflow_worker_tasks_failed_total",
        kind: Counter,
        labels: WORKER,
        help: "Tasks that failed on the worker; from 0 again with every process in the slot.",
        read: |s, to| each_worker(s, |labels, w| to.put(labels, w.failed)),
    },
    Family {
        name: "miniflow_worker_tasks_crashed_total",
        kind: Counter,
        labels: WORKER,
        help: "Tasks that crashed in the slot, over all its processes.",
        read: |s, to| each_worker(s, |labels, w| to.put(labels, w.crashed)),
    },
    Family {
        name: "miniflow_worker_busy_seconds_total",
        kind: Counter,
        labels: WORKER,
        help: "Time that the worker spent in handlers, over all its threads.",
        read: |s, to| each_worker(s, |labels, w| to.put(labels, of_ns(w.busy_ns))),
    },
    Family {
        name: "miniflow_worker_cpu_seconds_total",
        kind: Counter,
        labels: WORKER,
        help: "Processor time of the worker process; no series before it is measured.",
        read: |s, to| {
            each_worker(s, |labels, w| match w.cpu_ns {
                0 => Ok(()),
                ns => to.put(labels, of_ns(ns)),
            })
        },
    },
    Family {
        name: "miniflow_worker_resident_memory_bytes",
        kind: Gauge,
        labels: WORKER,
        help: "Resident memory of the worker process; no series before it is measured.",
        read: |s, to| {
            each_worker(s, |labels, w| match w.rss_bytes {
                0 => Ok(()),
                bytes => to.put(labels, bytes),
            })
        },
    },
    // ---- memory and the machine ----
    Family {
        name: "miniflow_payload_arena_used_bytes",
        kind: Gauge,
        labels: &[],
        help: "Bytes of the payload arena in use.",
        read: |s, to| to.put(&[], s.tasks.payload_bytes),
    },
    Family {
        name: "miniflow_payload_arena_size_bytes",
        kind: Gauge,
        labels: &[],
        help: "Bytes of the payload arena.",
        read: |s, to| to.put(&[], s.tasks.payload_capacity),
    },
    Family {
        name: "miniflow_machine_cpus",
        kind: Gauge,
        labels: &[],
        help: "Processors that the host may use.",
        read: |s, to| to.put(&[], s.machine.cpus),
    },
    Family {
        name: "miniflow_machine_cpu_usage_ratio",
        kind: Gauge,
        labels: &[],
        help: "The share of the processors in use, 0 to 1, as scaling sees it; no series if it \
               is not measured.",
        read: |s, to| put_share(to, s.machine.cpu),
    },
    Family {
        name: "miniflow_machine_memory_usage_ratio",
        kind: Gauge,
        labels: &[],
        help: "The share of memory in use, 0 to 1: of the machine's, or of the control group's \
               if that is nearer to its end; no series if it is not measured.",
        read: |s, to| put_share(to, s.machine.memory),
    },
    Family {
        name: "miniflow_machine_memory_pressure_ratio",
        kind: Gauge,
        labels: &[],
        help: "The share of the last 10 s in which some task stood still for lack of memory, 0 \
               to 1; no series if it is not measured.",
        read: |s, to| put_share(to, s.machine.memory_pressure),
    },
    Family {
        name: "miniflow_memory_state",
        kind: Gauge,
        labels: &["state"],
        help: "What the engine does about memory, 1 for the state that holds, 0 for the others: \
               nothing (ample), start no more workers (no_growth), let idle ones go (shedding), \
               refuse submits (refusing).",
        read: |s, to| {
            for (name, state) in [
                ("ample", MemoryState::Ample),
                ("no_growth", MemoryState::NoGrowth),
                ("shedding", MemoryState::Shedding),
                ("refusing", MemoryState::Refusing),
            ] {
                to.put(&[name], flag(s.machine.memory_state == state))?;
            }
            Ok(())
        },
    },
];

fn each_class(status: &Status, put: impl FnMut(&ClassStatus) -> fmt::Result) -> fmt::Result {
    status.classes.iter().try_for_each(put)
}

/// With the values of the labels [`WORKER`].
fn each_worker(
    status: &Status,
    mut put: impl FnMut(&[&str], &WorkerRow) -> fmt::Result,
) -> fmt::Result {
    status.workers.iter().try_for_each(|worker| {
        let slot = worker.slot.to_string();
        put(&[worker.class.name(), &slot], worker)
    })
}

fn put_share(to: &mut Series<'_>, share: Option<f32>) -> fmt::Result {
    share.map_or(Ok(()), |share| {
        // To what it is worth: not 0.3400000035762787.
        to.put(&[], (f64::from(share) * 1e4).round() / 1e4)
    })
}

fn flag(holds: bool) -> u32 {
    u32::from(holds)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ms are 285 000 years")]
fn of_ms(ms: i64) -> f64 {
    ms as f64 / 1e3
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 104 days, to 1 us up to 285 years"
)]
fn of_ns(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        let mut seen = HashSet::new();
        for family in FAMILIES {
            let Family { name, kind, .. } = family;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("miniflow_"), "{name}");
            let letters = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(letters), "{name}");
            let counts = name.ends_with("_total");
            assert_eq!(counts, matches!(kind, Counter), "{name}");
            for reserved in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            assert!(family.help.ends_with('.'), "{name}: {}", family.help);
            assert!(!family.help.contains(['\n', '\\']), "{name}");
            assert!(!family.labels.contains(&"engine"), "{name}");
        }
    }

    /// `UPDATE_DOCS=1 cargo test --lib the_document` writes it.
    #[test]
    fn the_document_has_every_metric_and_no_other() {
        const BEGIN: &str = "<!-- made from src/status/metrics/families.rs -->\n";
        const END: &str = "<!-- end -->\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (table, after) = rest.split_once(END).unwrap();
        let mut wanted = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for family in FAMILIES {
            let Family {
                name, kind, help, ..
            } = family;
            let mut labels = vec!["engine"];
            labels.extend(family.labels);
            let labels = labels.join("`, `");
            let kind = kind.as_str();
            writeln!(wanted, "| `{name}` | {kind} | `{labels}` | {help} |").unwrap();
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        } else {
            assert_eq!(table, wanted, "UPDATE_DOCS=1 brings {path:?} up to date");
        }
    }
}
