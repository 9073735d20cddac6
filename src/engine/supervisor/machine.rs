//! Looks at processors and memory now and then, and does what is called for when memory comes to its end.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::Supervisor;
use crate::config::Config;
use crate::engine::core::{Core, Phase};
use crate::engine::lane::{Lane, LaneState};
use crate::engine::memory::{Stages, Words, measures};
use crate::engine::scaling::log::Action;
use crate::status::{Machine, MemoryState};
use crate::sys::cpu::CpuMeter;
use crate::sys::memory::{Extent, Memory, MemoryMeter};
use crate::sys::process::cpus;
use crate::task::Class;

/// How often it is looked while scaling is off.
const AT_EASE: Duration = Duration::from_millis(500);
/// Else as often as at the load, but never more often than this ...
const OFTENEST: Duration = Duration::from_millis(100);
/// ... and never less.
const SELDOMEST: Duration = Duration::from_secs(1);
/// The subject of the note about it.
const SUBJECT: &str = "memory";

/// What the supervisor needs to look at the machine.
pub(super) struct Watch {
    cpus: u32,
    cpu_meter: CpuMeter,
    memory_meter: MemoryMeter,
    stages: Stages,
    every: Duration,
    due: Instant,
    cpu: Option<f32>,
    /// Not taken note of yet.
    fresh: Option<Memory>,
}

impl Watch {
    pub(super) fn new(config: &Config) -> Self {
        let scaling = &config.scaling;
        let (limits, every) = if scaling.is_off() {
            (scaling.memory.without_scaling(), AT_EASE)
        } else {
            (scaling.memory, scaling.interval.clamp(OFTENEST, SELDOMEST))
        };
        Self {
            cpus: u32::try_from(cpus()).unwrap_or(u32::MAX),
            cpu_meter: CpuMeter::new(&config.system_root),
            memory_meter: MemoryMeter::new(&config.system_root),
            stages: Stages::new(limits),
            every,
            due: Instant::now(),
            cpu: None,
            fresh: None,
        }
    }

    /// Before the lock is taken: reads what the kernel has to say, if it is time for a look.
    pub(super) fn prepare(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        self.cpu = self.cpu_meter.measure().or(self.cpu);
        self.fresh = Some(self.memory_meter.measure());
    }
}

impl Supervisor {
    /// Takes note of what was read, and does what is called for.
    pub(super) fn look_at_machine(&mut self, core: &mut Core) {
        let Some(memory) = self.watch.fresh.take() else {
            return;
        };
        let state = self.watch.stages.next(&memory);
        let machine = Machine {
            cpus: self.watch.cpus,
            cpu: self.watch.cpu,
            memory: memory.extent.as_ref().map(Extent::share),
            memory_pressure: memory.pressure,
            memory_state: state,
        };
        let before = std::mem::replace(&mut core.machine, machine).memory_state;
        if state != before {
            announce(core, state, &memory);
        }
        if before == MemoryState::Refusing && state != before {
            self.shared.wake_blocked(core); // those that wait for room
        }
        if state >= MemoryState::Shedding && core.phase == Phase::Running {
            self.shed(core, &memory);
        }
    }

    /// Lets one idle worker go, if there is one beyond the minimum.
    fn shed(&self, core: &mut Core, memory: &Memory) {
        let is_idle = |lane: &Lane| match lane.state {
            LaneState::Starting => true,
            LaneState::Ready => lane.load() == 0,
            _ => false,
        };
        let class = Class::ALL.into_iter().find(|&class| {
            let min = self.shared.config.class(class).min.max(1);
            core.classes[class.index()].target > min
                && core
                    .lanes()
                    .any(|lane| lane.class == class && is_idle(lane))
        });
        let Some(class) = class else { return };
        let snapshot = self.shared.look(core, class);
        core.classes[class.index()].target = snapshot.target - 1;
        let reason = Words(memory).to_string().into();
        self.note(core, &snapshot, Action::Shrink, snapshot.target, reason);
    }

    /// When to look again although nothing happens: while memory is short, which nobody else would
    /// notice to be over.
    pub(super) fn next_look_at_machine(&self, core: &Core) -> Option<Duration> {
        let short = core.machine.memory_state != MemoryState::Ample;
        (short && core.phase == Phase::Running)
            .then(|| self.watch.due.saturating_duration_since(Instant::now()))
    }
}

/// Says what the engine does from now on.
fn announce(core: &mut Core, state: MemoryState, memory: &Memory) {
    let text = format!("{}: {}", Words(memory), measures(state));
    if state == MemoryState::Ample {
        core.notes.clear(SUBJECT);
        log::info!("{text}");
    } else {
        core.notes.set(SUBJECT, text);
    }
}
