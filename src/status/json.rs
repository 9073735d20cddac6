//! A status as JSON: its own fields, and the shape in which the Python API has always told it,
//! component by component.
#![forbid(unsafe_code)]

use serde::{Serialize, Serializer};

use super::{ClassStatus, EngineState, Status};
use crate::engine::stats::WorkerState;
use crate::task::Class;

/// What is written: the status with two fields more.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    status: &'a Status,
    engine: Engine,
    components: Components,
}

#[derive(Serialize)]
struct Engine {
    is_running: bool,
}

#[derive(Serialize)]
struct Components {
    input_queue: Component<InputQueue>,
    output_queue: Component<OutputQueue>,
    process_pool: Component<ProcessPool>,
}

#[derive(Serialize)]
struct Component<M> {
    name: &'static str,
    health: Health,
    metrics: M,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Healthy,
    Degraded,
    Unhealthy,
}

#[derive(Serialize)]
struct InputQueue {
    size: u64,
    total_put: u64,
    total_dropped: u64,
}

#[derive(Serialize)]
struct OutputQueue {
    size: u64,
    total_put: u64,
    total_get: u64,
}

#[derive(Serialize)]
struct ProcessPool {
    cpu_bound_workers: usize,
    io_bound_workers: usize,
    total_workers: usize,
    cpu_bound_active_threads: u32,
    io_bound_active_threads: u32,
    cpu_worker_tasks: Workers,
    io_worker_tasks: Workers,
}

/// By name, in the order of their slots.
struct Workers(Vec<(String, WorkerTasks)>);

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, tasks)| (name, tasks)))
    }
}

impl Workers {
    fn active(&self) -> u32 {
        let active = self.0.iter().map(|(_, tasks)| tasks.active_tasks);
        active.fold(0, u32::saturating_add)
    }
}

#[derive(Serialize)]
struct WorkerTasks {
    active_tasks: u32,
    queue_size: u32,
    thread_pool_queue_size: u32,
    total_load: u32,
    pid: u32,
}

impl Status {
    /// This status as JSON: its fields by their names, and `engine` and `components` in the shape of
    /// the Python API. `docs/status.md` describes them all. It can be read back as a [`Status`].
    #[must_use]
    pub fn to_json(&self) -> String {
        let written = Written {
            status: self,
            engine: Engine {
                is_running: self.is_running(),
            },
            components: Components {
                input_queue: self.input_queue(),
                output_queue: self.output_queue(),
                process_pool: self.process_pool(),
            },
        };
        // Numbers and strings only: this cannot fail.
        serde_json::to_string(&written).unwrap_or_default()
    }

    fn is_running(&self) -> bool {
        self.state == EngineState::Running
    }

    fn health(&self, is_short: bool) -> Health {
        match (self.is_running(), is_short) {
            (false, _) => Health::Unhealthy,
            (true, true) => Health::Degraded,
            (true, false) => Health::Healthy,
        }
    }

    fn input_queue(&self) -> Component<InputQueue> {
        Component {
            name: "input_queue",
            health: self.health(false),
            metrics: InputQueue {
                size: self.tasks.queued,
                total_put: self.tasks.submitted,
                total_dropped: self.tasks.would_block,
            },
        }
    }

    fn output_queue(&self) -> Component<OutputQueue> {
        let tasks = &self.tasks;
        let ended = [
            tasks.completed,
            tasks.failed,
            tasks.crashed,
            tasks.timed_out,
            tasks.cancelled,
        ];
        let ended = ended.into_iter().fold(0, u64::saturating_add);
        Component {
            name: "output_queue",
            health: self.health(false),
            metrics: OutputQueue {
                size: tasks.unpolled,
                total_put: ended,
                total_get: ended.saturating_sub(tasks.unpolled),
            },
        }
    }

    fn process_pool(&self) -> Component<ProcessPool> {
        let [cpu, io] = Class::ALL.map(|class| self.worker_tasks(class));
        let is_short = |class: &ClassStatus| class.workers < class.target || class.broken.is_some();
        let ready = |row: &super::WorkerRow| row.state == WorkerState::Ready;
        let health = match self.health(self.degraded || self.classes.iter().any(is_short)) {
            Health::Degraded if !self.workers.iter().any(ready) => Health::Unhealthy,
            health => health,
        };
        Component {
            name: "process_pool",
            health,
            metrics: ProcessPool {
                cpu_bound_workers: cpu.0.len(),
                io_bound_workers: io.0.len(),
                total_workers: self.workers.len(),
                cpu_bound_active_threads: cpu.active(),
                io_bound_active_threads: io.active(),
                cpu_worker_tasks: cpu,
                io_worker_tasks: io,
            },
        }
    }

    /// The workers of a class, called `cpu-0`, `io-0` and so on by their slots.
    fn worker_tasks(&self, class: Class) -> Workers {
        let before = self
            .classes
            .iter()
            .take_while(|status| status.class != class);
        let first = before.fold(0, |sum: u32, status| sum.saturating_add(status.max));
        let rows = self.workers.iter().filter(|row| row.class == class);
        let named = rows.map(|row| {
            let name = format!("{}-{}", class.name(), row.slot.saturating_sub(first));
            let tasks = WorkerTasks {
                active_tasks: row.running,
                queue_size: row.queued,
                // Threads take tasks from the worker's queue: there is no second one behind it.
                thread_pool_queue_size: 0,
                total_load: row.running.saturating_add(row.queued),
                pid: row.pid,
            };
            (name, tasks)
        });
        Workers(named.collect())
    }
}
