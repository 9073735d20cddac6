//! Looks at the load now and then, asks the scaling policy, and carries out what it proposes.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Supervisor;
use crate::engine::core::{Core, Phase};
use crate::engine::scaling::custom::Thinker;
use crate::engine::scaling::log::{Action, Decision};
use crate::engine::scaling::{IDLE_LOOK, Kind, Proposal, ScalingPolicy, Snapshot};
use crate::engine::shared::Shared;
use crate::engine::stats;
use crate::error::Result;
use crate::status::MemoryState;
use crate::sys::sync::lock;
use crate::task::Class;

/// So long after a resize by hand the policy leaves the class alone.
const HANDS_OFF: Duration = Duration::from_secs(10);

/// Who decides.
enum Decider {
    BuiltIn([Box<dyn ScalingPolicy>; 2]),
    Custom {
        thinker: Thinker,
        /// The class that it is asked about next.
        next: Class,
    },
}

/// What the supervisor needs for scaling.
pub(super) struct Scaler {
    decider: Decider,
    interval: Duration,
    due: Instant,
}

impl Scaler {
    /// `None` if the engine does not scale.
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Option<Self>> {
        let settings = &shared.config.scaling;
        let decider = match &settings.kind {
            Kind::Off => return Ok(None),
            Kind::Custom(policy) => {
                let Some(policy) = lock(policy).take() else {
                    return Err(crate::Error::invalid(
                        "the scaling policy is that of another engine already",
                    ));
                };
                let ours = Arc::clone(shared);
                Decider::Custom {
                    thinker: Thinker::start(policy, move || ours.supervisor.signal())?,
                    next: Class::CpuBound,
                }
            }
            _ => match (settings.built_in(), settings.built_in()) {
                (Some(a), Some(b)) => Decider::BuiltIn([a, b]),
                _ => return Ok(None),
            },
        };
        let now = Instant::now();
        Ok(Some(Self {
            decider,
            interval: settings.interval,
            due: now + settings.interval,
        }))
    }
}

impl Supervisor {
    /// Asks the policy if it is time for that; carries out what it has decided.
    pub(super) fn scale(&mut self, core: &mut Core) {
        let Some(scaler) = &mut self.scaler else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let now = Instant::now();
        let due = now >= scaler.due;
        if due {
            scaler.due = now + scaler.interval;
        }
        if core.phase != Phase::Running || core.starting {
            return;
        }
        let scales = |class: Class| core.classes[class.index()].target > 0;
        let mut proposals = Vec::new();
        match &mut scaler.decider {
            Decider::Custom { thinker, .. } if !due => {
                if let Some(answer) = thinker.answer() {
                    proposals.push((answer.snapshot, answer.proposal));
                }
            }
            Decider::Custom { thinker, next } => {
                if let Some(answer) = thinker.answer() {
                    proposals.push((answer.snapshot, answer.proposal));
                }
                let other = match *next {
                    Class::CpuBound => Class::IoBound,
                    Class::IoBound => Class::CpuBound,
                };
                let class = if scales(*next) { *next } else { other };
                *next = if scales(other) { other } else { class };
                if scales(class) {
                    let snapshot = shared.look(core, class);
                    if let Decider::Custom { thinker, .. } = &scaler.decider {
                        thinker.ask(snapshot);
                    }
                }
            }
            Decider::BuiltIn(_) if !due => {}
            Decider::BuiltIn(_) => {
                for class in Class::ALL.into_iter().filter(|&class| scales(class)) {
                    let mut snapshot = shared.look(core, class);
                    if is_in_hand(core, class) {
                        // It watches, but finds nothing to do: what it remembers of its steps is
                        // what has been done.
                        (snapshot.min, snapshot.max) = (snapshot.target, snapshot.target);
                    }
                    if let Decider::BuiltIn(policies) = &mut scaler.decider {
                        let proposal = policies[class.index()].decide(&snapshot);
                        proposals.push((snapshot, Ok(proposal)));
                    }
                }
            }
        }
        for (snapshot, proposal) in proposals {
            self.carry_out(core, &snapshot, proposal);
        }
    }

    fn carry_out(
        &self,
        core: &mut Core,
        snapshot: &Snapshot,
        proposal: std::result::Result<Option<Proposal>, String>,
    ) {
        let before = core.classes[snapshot.class.index()].target;
        let proposal = match proposal {
            Ok(None) => return,
            Ok(Some(proposal)) => proposal,
            Err(panic) => {
                log::error!("the scaling policy panicked: {panic}");
                let reason = Cow::Owned(format!("the policy panicked: {panic}"));
                return self.note(core, snapshot, Action::Failure, before, reason);
            }
        };
        // The last worker stays: there may be tasks for it at any time.
        let after = proposal.workers.clamp(snapshot.min.max(1), snapshot.max);
        let short = after > before && core.machine.memory_state != MemoryState::Ample;
        if is_in_hand(core, snapshot.class) || before == 0 || after == before || short {
            return;
        }
        core.classes[snapshot.class.index()].target = after;
        let action = if after > before {
            Action::Grow
        } else {
            Action::Shrink
        };
        self.note(core, snapshot, action, before, proposal.reason);
    }

    pub(super) fn note(
        &self,
        core: &mut Core,
        snapshot: &Snapshot,
        action: Action,
        before: u32,
        reason: Cow<'static, str>,
    ) {
        let decision = Decision {
            at: SystemTime::now(),
            action,
            before,
            after: core.classes[snapshot.class.index()].target,
            reason,
            snapshot: *snapshot,
        };
        stats::log_decision(&decision, &self.shared.control);
        core.decisions.push(decision);
    }

    /// When the next look is due, if there may be something to see.
    pub(super) fn next_look(&self, core: &Core) -> Option<Duration> {
        let scaler = self.scaler.as_ref()?;
        let min = |class: Class| self.shared.config.class(class).min.max(1);
        let idle = core.unfinished() == 0;
        let above = |class: &Class| core.classes[class.index()].target > min(*class);
        if core.phase != Phase::Running || idle && !Class::ALL.iter().any(above) {
            return None; // a submit wakes us
        }
        let due = scaler.due.saturating_duration_since(Instant::now());
        // Nothing but idle looks is to be had: those are not so frequent.
        Some(if idle { due.max(IDLE_LOOK / 2) } else { due })
    }
}

/// Whether a class was resized by hand, too short a time ago for a policy to touch it.
fn is_in_hand(core: &Core, class: Class) -> bool {
    let resized = core.classes[class.index()].resized;
    resized.is_some_and(|resized| resized.elapsed() < HANDS_OFF)
}
