//! The names of what is measured, and which of them are compared.

#![forbid(unsafe_code)]

use std::fmt;

/// Where the two sides of a round trip run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cores {
    /// Each on a core of its own.
    Apart,
    /// Both on one core.
    One,
}

/// The payload of an engine round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payload {
    /// 16 bytes, within the descriptor.
    B16,
    /// 64 KiB in place, written once before, of which the handler reads one word.
    Loaned65536,
    /// 1 KiB, copied in.
    B1024,
    /// 64 KiB, copied in.
    B65536,
    /// 64 KiB in place, every byte written and read each time.
    Touched65536,
}

/// One figure of the bench.
///
/// The order of the variants is the order of measurement: neighbours here are neighbours in time,
/// within one mode of the machine most of the time, and so can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// The bare ring there and back, one descriptor at a time, spinning.
    RingRtt,
    /// One cache line each way, spinning.
    PingPong,
    /// An engine's no-op task, spinning.
    EngineRtt(Payload),
    /// The bare ring both ways with so many descriptors on their way.
    RingRate { in_flight: u32 },
    /// An engine's no-op tasks, as many in flight as it takes.
    EngineRate { workers: u32, threads: u32 },
    /// An engine's no-op tasks, one worker and one submitting thread, so many in flight.
    EngineInFlight(u32),
    /// A futex each way, sleeping.
    Futex(Cores),
    /// An engine's no-op task, both sides sleeping.
    EngineSleepRtt(Cores),
    /// An engine's no-op task, both sides on one core and free to spin.
    EngineOneCoreRtt,
    /// An engine's no-op tasks, one on its way for each of four workers, all on two cores.
    EngineBusyRtt,
    /// 16 bytes through a stream socket pair and back.
    Socketpair(Cores),
    /// 16 bytes through one pipe and back through another.
    Pipe(Cores),
}

/// What a metric counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds a round trip.
    Nanoseconds,
    /// Tasks, or descriptors, per second.
    PerSecond,
}

impl Metric {
    /// The bare ring as it is compared with the engine: on their way are as many descriptors as
    /// one ring holds.
    pub(super) const RING_RATE: Self = Self::RingRate { in_flight: 512 };

    /// Workers and submitting threads that the engine's rate is measured with.
    pub(super) const ENGINE_RATES: [(u32, u32); 3] = [(1, 1), (2, 1), (1, 2)];

    /// How many tasks in flight the engine's pipelined rate is measured with: it should rise, and
    /// then stay flat.
    pub(super) const IN_FLIGHT: [u32; 5] = [1, 8, 64, 1_024, 16_384];

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::RingRate { .. } | Self::EngineRate { .. } | Self::EngineInFlight(_) => {
                Unit::PerSecond
            }
            _ => Unit::Nanoseconds,
        }
    }

    /// The name in the JSON object `rounds`.
    pub(super) fn key(self) -> String {
        match self {
            Self::RingRtt => "ring_rtt_ns".into(),
            Self::PingPong => "pingpong_rtt_ns".into(),
            Self::EngineRtt(payload) => format!("engine_rtt_ns_{}", payload.key()),
            Self::RingRate { in_flight } => format!("ring_tasks_per_s_{in_flight}"),
            Self::EngineRate { workers, threads } => {
                format!("engine_tasks_per_s_w{workers}_t{threads}")
            }
            Self::EngineInFlight(tasks) => format!("engine_tasks_per_s_in_flight_{tasks}"),
            Self::Futex(cores) => format!("futex_rtt_ns{}", cores.suffix()),
            Self::EngineSleepRtt(cores) => format!("engine_sleep_rtt_ns{}", cores.suffix()),
            Self::EngineOneCoreRtt => "engine_one_core_rtt_ns".into(),
            Self::EngineBusyRtt => "engine_busy_rtt_ns".into(),
            Self::Socketpair(cores) => format!("socketpair_rtt_ns{}", cores.suffix()),
            Self::Pipe(cores) => format!("pipe_rtt_ns{}", cores.suffix()),
        }
    }
}

impl Payload {
    pub(super) const ALL: [Self; 5] = [
        Self::B16,
        Self::Loaned65536,
        Self::B1024,
        Self::B65536,
        Self::Touched65536,
    ];

    /// The name in the JSON object `engine.rtt_ns`.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::B16 => "16",
            Self::Loaned65536 => "65536_loaned",
            Self::B1024 => "1024",
            Self::B65536 => "65536",
            Self::Touched65536 => "65536_loaned_touched",
        }
    }
}

impl Cores {
    fn suffix(self) -> &'static str {
        match self {
            Self::Apart => "",
            Self::One => "_one_core",
        }
    }
}

/// As people read it in the table.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingRtt => f.write_str("raw ring echo, 1 in flight"),
            Self::PingPong => f.write_str("raw cache-line ping-pong"),
            Self::EngineRtt(payload) => write!(f, "engine, {payload}"),
            Self::RingRate { in_flight } => write!(f, "raw ring echo, {in_flight} in flight"),
            Self::EngineRate { workers, threads } => {
                write!(f, "engine, {workers} worker(s), {threads} thread(s)")
            }
            Self::EngineInFlight(tasks) => write!(f, "engine, {tasks} in flight"),
            Self::Futex(cores) => write!(f, "futex, {cores}"),
            Self::EngineSleepRtt(cores) => write!(f, "engine sleeping, {cores}"),
            Self::EngineOneCoreRtt => f.write_str("engine, one core"),
            Self::EngineBusyRtt => f.write_str("engine, 4 busy workers, two cores"),
            Self::Socketpair(cores) => write!(f, "socketpair, {cores}"),
            Self::Pipe(cores) => write!(f, "pipe, {cores}"),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::B16 => "16 B",
            Self::Loaned65536 => "64 KiB loaned",
            Self::B1024 => "1 KiB copied",
            Self::B65536 => "64 KiB copied",
            Self::Touched65536 => "64 KiB loaned, every byte used",
        })
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apart => "cores apart",
            Self::One => "one core",
        })
    }
}

/// Two metrics of one unit whose quotient is taken round by round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    /// The name in the JSON object `ratios`.
    pub(super) key: &'static str,
    pub(super) over: Metric,
    pub(super) under: Metric,
}

/// Every quotient that the report tells, where both sides were measured.
pub(super) const COMPARISONS: [Comparison; 8] = [
    Comparison {
        key: "ring_rtt_over_raw",
        over: Metric::RingRtt,
        under: Metric::PingPong,
    },
    Comparison {
        key: "rtt_over_raw",
        over: Metric::EngineRtt(Payload::B16),
        under: Metric::PingPong,
    },
    Comparison {
        key: "pipelined_over_raw_ring",
        over: Metric::EngineRate {
            workers: 1,
            threads: 1,
        },
        under: Metric::RING_RATE,
    },
    Comparison {
        key: "loaned64k_over_16",
        over: Metric::EngineRtt(Payload::Loaned65536),
        under: Metric::EngineRtt(Payload::B16),
    },
    Comparison {
        key: "sleep_over_futex",
        over: Metric::EngineSleepRtt(Cores::Apart),
        under: Metric::Futex(Cores::Apart),
    },
    Comparison {
        key: "sleep_one_core_over_futex",
        over: Metric::EngineSleepRtt(Cores::One),
        under: Metric::Futex(Cores::One),
    },
    Comparison {
        key: "one_core_over_futex",
        over: Metric::EngineOneCoreRtt,
        under: Metric::Futex(Cores::One),
    },
    Comparison {
        key: "busy_over_futex",
        over: Metric::EngineBusyRtt,
        under: Metric::Futex(Cores::One),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compared_metrics_have_one_unit() {
        for comparison in COMPARISONS {
            assert_eq!(comparison.over.unit(), comparison.under.unit());
        }
    }

    #[test]
    fn the_judged_engine_figures_follow_their_raw_ones() {
        let mut order = [
            Metric::EngineSleepRtt(Cores::Apart),
            Metric::EngineRtt(Payload::B16),
            Metric::Futex(Cores::Apart),
            Metric::PingPong,
        ];
        order.sort_unstable();
        assert_eq!(order[0], Metric::PingPong);
        assert_eq!(order[1], Metric::EngineRtt(Payload::B16));
        assert!(
            Metric::RING_RATE
                < Metric::EngineRate {
                    workers: 1,
                    threads: 1
                }
        );
        assert!(Metric::Futex(Cores::Apart) < Metric::EngineSleepRtt(Cores::Apart));
    }
}
