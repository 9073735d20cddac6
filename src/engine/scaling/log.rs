//! What was decided about the number of workers, when, on what grounds.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Snapshot;

/// Decisions that are kept.
const KEPT: usize = 1000;

/// What a decision was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Action {
    /// More workers, by the policy.
    Grow,
    /// Fewer workers, by the policy or for lack of memory.
    Shrink,
    /// Another number of workers, by [`Engine::resize`](crate::Engine::resize).
    Resize,
    /// None: the policy failed.
    Failure,
}

/// One decision about the number of workers of a class.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// When.
    pub at: SystemTime,
    /// What.
    pub action: Action,
    /// Workers wanted before.
    pub before: u32,
    /// Workers wanted from then on.
    pub after: u32,
    /// Why.
    pub reason: Cow<'static, str>,
    /// What was known.
    pub snapshot: Snapshot,
}

/// The last [`KEPT`] decisions.
#[derive(Debug, Default)]
pub(crate) struct DecisionLog {
    /// Shared, so that a reader holds the engine's lock for no more than pointers.
    decisions: VecDeque<Arc<Decision>>,
}

impl DecisionLog {
    pub(crate) fn push(&mut self, decision: Decision) {
        if self.decisions.len() == KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Arc::new(decision));
    }

    /// From the oldest to the newest.
    pub(crate) fn to_vec(&self) -> Vec<Arc<Decision>> {
        self.decisions.iter().cloned().collect()
    }
}
