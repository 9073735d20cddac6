//! The engine half: what a user of the library gets, through its public functions only.
//!
//! One engine per way of working. Between its slices an engine sleeps: its waiting threads give up
//! spinning after the builder's 50 us.

#![forbid(unsafe_code)]

mod busy;
mod crew;
mod handler;
mod idle;
mod pipeline;
mod round_trip;

use std::time::Duration;

use miniflow::Engine;

use self::crew::Crew;
pub(super) use self::idle::percent as idle_cpu_percent;
use super::clock::Clock;
use super::metric::{Cores, Metric, Payload};
use super::pin::{CpuSet, Cpus};
use super::slice::{Outcome, Slice};
use crate::error::Result;

/// Workers of the engine that has more of them than there are cores.
const MANY: u32 = 4;

/// The engines that are measured; all of their workers have one thread.
#[derive(Debug)]
pub(super) struct EngineBench<'a> {
    clock: &'a Clock,
    cpus: Cpus,
    /// One worker; host and worker have a core each.
    one: Crew,
    /// One worker; host and worker share a core. An engine of its own, because what an engine has
    /// learnt about spinning here does not hold there.
    one_core: Crew,
    /// One worker, and nobody ever spins.
    sleeper: Crew,
    /// Two workers.
    two: Crew,
    /// [`MANY`] workers.
    many: Crew,
}

impl<'a> EngineBench<'a> {
    /// Starts all engines.
    pub(super) fn start(clock: &'a Clock, cpus: Cpus) -> Result<Self> {
        let spinning = |workers| Crew::start(workers, Engine::builder());
        Ok(Self {
            clock,
            cpus,
            one: spinning(1)?,
            one_core: spinning(1)?,
            sleeper: Crew::start(1, Engine::builder().spin(Duration::ZERO))?,
            two: spinning(2)?,
            many: spinning(MANY)?,
        })
    }

    /// Everything that the engines can be asked for on this machine.
    pub(super) fn slices(&self) -> Vec<Slice<'_>> {
        let host = self.cpus.host.alone();
        let mut slices = vec![
            self.round_trip(Metric::EngineSleepRtt(Cores::One), &self.sleeper, host),
            self.round_trip(Metric::EngineOneCoreRtt, &self.one_core, host),
        ];
        // On one processor a spinner only keeps the other side from answering.
        let Some(other) = self.cpus.other else {
            return slices;
        };
        let both = host.with(other);
        slices.push(self.round_trip(
            Metric::EngineSleepRtt(Cores::Apart),
            &self.sleeper,
            other.alone(),
        ));
        slices.extend(Payload::ALL.map(|payload| {
            self.payload_round_trip(
                Metric::EngineRtt(payload),
                &self.one,
                other.alone(),
                payload,
            )
        }));
        slices.push(Slice::new(Metric::EngineBusyRtt, move |length| {
            self.place(&self.many, both, both)?;
            busy::round_trips(&self.many, self.clock, length)
        }));
        slices.extend(Metric::ENGINE_RATES.map(|(workers, threads)| {
            let metric = Metric::EngineRate { workers, threads };
            let crew = if workers == 1 { &self.one } else { &self.two };
            // Each spinner on a core of its own; where there are too few, as the system sees fit.
            let (host_at, crew_at) = match (workers, threads) {
                (1, 1) => (host, other.alone()),
                _ => (self.cpus.allowed, self.cpus.allowed),
            };
            Slice::new(metric, move |length| {
                self.place(crew, host_at, crew_at)?;
                pipeline::rate_of(crew, pipeline::IN_FLIGHT, threads, self.clock, length)
            })
        }));
        slices.extend(Metric::IN_FLIGHT.map(|in_flight| {
            Slice::new(Metric::EngineInFlight(in_flight), move |length| {
                self.place(&self.one, host, other.alone())?;
                pipeline::rate_of(&self.one, in_flight, 1, self.clock, length)
            })
        }));
        slices
    }

    /// The round trip of 16 bytes, the host on its own processor.
    fn round_trip<'s>(&'s self, metric: Metric, crew: &'s Crew, at: CpuSet) -> Slice<'s> {
        self.payload_round_trip(metric, crew, at, Payload::B16)
    }

    fn payload_round_trip<'s>(
        &'s self,
        metric: Metric,
        crew: &'s Crew,
        at: CpuSet,
        payload: Payload,
    ) -> Slice<'s> {
        Slice::new(metric, move |length| -> Result<Outcome> {
            self.place(crew, self.cpus.host.alone(), at)?;
            round_trip::of(crew, payload, self.clock, length)
        })
    }

    /// Binds the calling thread and the workers to processors.
    fn place(&self, crew: &Crew, host: CpuSet, workers: CpuSet) -> Result<()> {
        host.bind_this_thread()?;
        crew.bind(workers)
    }
}
