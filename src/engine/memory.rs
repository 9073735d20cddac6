//! What the engine does about memory that comes to its end: a pure function of what is measured and of
//! what it did before.
#![forbid(unsafe_code)]

use std::fmt;

use crate::error::{Error, Result};
use crate::status::MemoryState;
use crate::sys::memory::{Extent, Memory};

/// A stage that was entered is left when the share in use is by so much below its limit, so that it does
/// not come and go with every task.
const MARGIN: f32 = 0.03;

/// From which share in use on something is done; 1 = never. What is done at one limit includes what is done
/// at those before it in the list, whatever these are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    /// Nothing grows.
    pub(crate) grow: f32,
    /// The same, by the share of time that tasks stood still for lack of memory.
    pub(crate) pressure: f32,
    /// Idle workers leave.
    pub(crate) shed: f32,
    /// Submits would block.
    pub(crate) refuse: f32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            grow: 0.90,
            pressure: 0.10,
            shed: 0.95,
            refuse: 0.98,
        }
    }
}

impl Limits {
    pub(crate) fn validate(&self) -> Result<()> {
        let shares = [self.grow, self.shed, self.refuse, self.pressure];
        if !shares.iter().all(|&share| share > 0.0 && share <= 1.0) {
            return Err(Error::invalid(
                "one of the scaling's limits of memory is not above 0 and at most 1",
            ));
        }
        Ok(())
    }

    /// Those of an engine whose number of workers only its host changes.
    pub(crate) fn without_scaling(self) -> Self {
        Self {
            grow: 1.0,
            pressure: 1.0,
            shed: 1.0,
            ..self
        }
    }

    /// What is called for by what was measured, with limits that are lowered to leave a stage.
    fn state(&self, memory: &Memory, lowered: bool) -> MemoryState {
        let margin = if lowered { MARGIN } else { 0.0 };
        let nearness = memory.extent.as_ref().map_or(0.0, Extent::nearness);
        let reached = |limit: f32| limit < 1.0 && nearness >= limit - margin;
        let factor = if lowered { 0.5 } else { 1.0 };
        let stands_still = self.pressure < 1.0
            && (memory.pressure).is_some_and(|pressure| pressure >= self.pressure * factor);
        if reached(self.refuse) {
            MemoryState::Refusing
        } else if reached(self.shed) {
            MemoryState::Shedding
        } else if reached(self.grow) || stands_still {
            MemoryState::NoGrowth
        } else {
            MemoryState::Ample
        }
    }
}

/// The stage that the engine is in.
#[derive(Debug)]
pub(crate) struct Stages {
    limits: Limits,
    state: MemoryState,
}

impl Stages {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: MemoryState::Ample,
        }
    }

    /// The stage after this measurement; the limits of a stage that the engine is in are lower.
    pub(crate) fn next(&mut self, memory: &Memory) -> MemoryState {
        let at_least = self.limits.state(memory, false);
        let at_most = self.limits.state(memory, true);
        self.state = self.state.clamp(at_least, at_most);
        self.state
    }
}

/// What was measured, in words.
#[derive(Debug)]
pub(crate) struct Words<'a>(pub(crate) &'a Memory);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(extent) = &self.0.extent {
            let left = extent.left >> 20;
            write!(f, "{:.0} % of the memory ", extent.share() * 100.0)?;
            match &extent.group {
                None => f.write_str("of the machine")?,
                Some(group) => write!(f, "of control group {group}")?,
            }
            write!(f, " are in use, {left} MiB are left")?;
        }
        if let Some(pressure) = self.0.pressure.filter(|&share| share >= 0.01) {
            write!(
                f,
                "; tasks stood still for lack of it in {:.0} % of the last 10 s",
                pressure * 100.0
            )?;
        }
        Ok(())
    }
}

/// What the engine does in a stage, in words.
pub(crate) fn measures(state: MemoryState) -> &'static str {
    match state {
        MemoryState::Ample => "enough",
        MemoryState::NoGrowth => "no class grows",
        MemoryState::Shedding => "idle workers leave, down to the minimum",
        MemoryState::Refusing => "submits are refused (they would block)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(percent: u64, pressure: Option<f32>) -> Memory {
        Memory {
            extent: Some(Extent {
                group: None,
                total: 10_000 << 20,
                left: (100 - percent) * (100 << 20),
            }),
            pressure,
        }
    }

    fn walk(stages: &mut Stages, percents: &[u64]) -> Vec<MemoryState> {
        (percents.iter())
            .map(|&percent| stages.next(&memory(percent, None)))
            .collect()
    }

    #[test]
    fn stages_are_entered_at_their_limits_and_left_below_them() {
        use MemoryState::{Ample, NoGrowth, Refusing, Shedding};
        let mut stages = Stages::new(Limits::default());
        assert_eq!(
            walk(&mut stages, &[50, 89, 91, 96, 99]),
            [Ample, Ample, NoGrowth, Shedding, Refusing]
        );
        // Down: each is kept for a while.
        assert_eq!(
            walk(&mut stages, &[97, 96, 94, 93, 91, 88, 86]),
            [
                Refusing, Refusing, Shedding, Shedding, NoGrowth, NoGrowth, Ample
            ]
        );
        // Around a limit nothing comes and goes.
        assert_eq!(walk(&mut stages, &[91, 89, 91, 88, 90]), [NoGrowth; 5]);
        // Straight to the end and back.
        assert_eq!(walk(&mut stages, &[100, 10]), [Refusing, Ample]);
    }

    #[test]
    fn pressure_alone_only_stops_growth() {
        let mut stages = Stages::new(Limits::default());
        let mut at = |pressure| stages.next(&memory(50, pressure));
        assert_eq!(at(Some(0.09)), MemoryState::Ample);
        assert_eq!(at(Some(1.0)), MemoryState::NoGrowth);
        assert_eq!(at(Some(0.06)), MemoryState::NoGrowth, "half of the limit");
        assert_eq!(at(Some(0.04)), MemoryState::Ample);
        assert_eq!(at(None), MemoryState::Ample);
    }

    #[test]
    fn what_cannot_be_measured_and_what_has_no_limit_changes_nothing() {
        let mut stages = Stages::new(Limits::default());
        assert_eq!(stages.next(&Memory::default()), MemoryState::Ample);
        let unlimited = Limits {
            grow: 1.0,
            pressure: 1.0,
            shed: 1.0,
            refuse: 1.0,
        };
        let mut stages = Stages::new(unlimited);
        assert_eq!(stages.next(&memory(100, Some(1.0))), MemoryState::Ample);
        let mut stages = Stages::new(Limits::default().without_scaling());
        assert_eq!(stages.next(&memory(97, Some(1.0))), MemoryState::Ample);
        assert_eq!(stages.next(&memory(98, None)), MemoryState::Refusing);
        assert_eq!(stages.next(&memory(94, None)), MemoryState::Ample);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let good = Limits::default();
        assert!(good.validate().is_ok() && good.without_scaling().refuse < 1.0);
        for bad in [
            Limits { grow: 0.0, ..good },
            Limits {
                pressure: f32::NAN,
                ..good
            },
            Limits {
                refuse: 1.1,
                ..good
            },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_measured_is_told_in_one_line() {
        let text = Words(&memory(96, Some(0.25))).to_string();
        assert_eq!(
            text,
            "96 % of the memory of the machine are in use, 400 MiB are left; tasks stood still for lack of \
             it in 25 % of the last 10 s"
        );
    }
}
