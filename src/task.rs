//! The vocabulary of tasks: identifiers, classes, options, completions.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use crate::error::Error;

/// The identity of one accepted task: a `UUIDv7` (RFC 9562), made without a system call.
///
/// Unique across engines and restarts; ordered by time to the millisecond; not unguessable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId([u8; 16]);

impl TaskId {
    /// The 16 bytes, big-endian as in RFC 9562.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id as the `uuid` crate's type.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        Uuid::from_bytes(self.0)
    }

    /// The id whose 16 bytes are these two numbers, big-endian.
    #[inline]
    pub(crate) fn from_halves(high: u64, low: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// These two numbers.
    pub(crate) fn to_halves(self) -> [u64; 2] {
        let (halves, _) = self.0.as_chunks();
        std::array::from_fn(|half| halves.get(half).map_or(0, |h| u64::from_be_bytes(*h)))
    }

    /// The second of the two numbers.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is meant"
    )]
    pub(crate) fn low(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }

    #[inline]
    pub(crate) fn to_words(self) -> [u64; 2] {
        to_words(self.0)
    }

    pub(crate) fn from_words(words: [u64; 2]) -> Self {
        Self(from_words(words))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_uuid().hyphenated(), f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

impl FromStr for TaskId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Uuid::parse_str(text)
            .map(|id| Self(id.into_bytes()))
            .map_err(|e| Error::invalid(format!("`{text}` is not a task id: {e}")))
    }
}

/// The caller's own name for a task: 16 bytes that travel to the worker, the logs and the texts of
/// crashes. Zeros mean none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Label(pub [u8; 16]);

impl Label {
    pub(crate) fn to_words(self) -> [u64; 2] {
        to_words(self.0)
    }

    pub(crate) fn from_words(words: [u64; 2]) -> Self {
        Self(from_words(words))
    }
}

fn to_words(bytes: [u8; 16]) -> [u64; 2] {
    let value = u128::from_ne_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    [value as u64, (value >> 64) as u64]
}

fn from_words(words: [u64; 2]) -> [u8; 16] {
    (u128::from(words[0]) | u128::from(words[1]) << 64).to_ne_bytes()
}

/// Which workers a task is for. Each class has its own workers and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[repr(u32)]
pub enum Class {
    /// Keeps a processor busy.
    #[default]
    #[serde(rename = "cpu")]
    CpuBound = 0,
    /// Mostly waits.
    #[serde(rename = "io")]
    IoBound = 1,
}

impl Class {
    /// Both classes, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::CpuBound, Self::IoBound];

    pub(crate) fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.get(value as usize).copied()
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// `cpu` or `io`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuBound => "cpu",
            Self::IoBound => "io",
        }
    }
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Outcome {
    /// The handler returned success.
    Completed = 0,
    /// The handler failed; the data is its text, or data of its own
    /// ([`Completion::failed_with_data`](crate::Completion::failed_with_data)).
    Failed = 1,
    /// The worker died while it ran the task, as often as the task allows.
    Crashed = 2,
    /// The task ran beyond its deadline.
    TimedOut = 3,
    /// The task was cancelled before it ran to its end.
    Cancelled = 4,
}

impl Outcome {
    /// The lower-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a submitter may say about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmitOptions {
    /// Which workers; CPU-bound by default.
    pub class: Class,
    /// Tasks of higher priority leave the central queue first; -3 to 3, 0 by default.
    pub priority: i32,
    /// Comes back with the completion, untouched.
    pub user_data: u64,
    /// The caller's own id.
    pub label: Label,
    /// How many starts the task allows; 1 = at most once, 0 = the engine's default. Only the death
    /// of a worker uses more than one, unless a retry is asked for below.
    pub max_attempts: u32,
    /// The longest run, measured from the start of each attempt; `None` = the default of the class,
    /// [`Duration::MAX`] = no limit. A task beyond it is asked to stop, then its worker is killed.
    pub deadline: Option<Duration>,
    /// Start the task again if its handler fails and attempts are left.
    pub retry_failed: bool,
    /// Start the task again if it runs beyond its deadline and attempts are left.
    pub retry_timed_out: bool,
    /// Tasks of a class with the same key run on the same worker, as long as it is there; 0 = none.
    /// See [`SubmitOptions::sticky_key`].
    pub sticky_key: u64,
}

/// Priorities reach from minus this to plus this.
pub(crate) const MAX_PRIORITY: i32 = 3;

impl Default for SubmitOptions {
    /// Always inlined: options that are returned through memory are written field by field and read
    /// in wider pieces, which waits for all stores before it.
    #[inline(always)]
    fn default() -> Self {
        Self {
            class: Class::CpuBound,
            priority: 0,
            user_data: 0,
            label: Label::default(),
            max_attempts: 0,
            deadline: None,
            retry_failed: false,
            retry_timed_out: false,
            sticky_key: 0,
        }
    }
}

impl SubmitOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Sets the priority, -3 to 3.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the number that comes back with the completion.
    #[must_use]
    pub fn user_data(mut self, user_data: u64) -> Self {
        self.user_data = user_data;
        self
    }

    /// Sets the caller's own id.
    #[must_use]
    pub fn label(mut self, label: [u8; 16]) -> Self {
        self.label = Label(label);
        self
    }

    /// Sets how many starts the task allows: 1 = at most once, 0 = the engine's default.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the longest run, measured from the start of each attempt; [`Duration::MAX`] = no limit.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets whether the task is started again if its handler fails and attempts are left.
    #[must_use]
    pub fn retry_failed(mut self, retry: bool) -> Self {
        self.retry_failed = retry;
        self
    }

    /// Sets whether the task is started again if it runs beyond its deadline and attempts are left.
    #[must_use]
    pub fn retry_timed_out(mut self, retry: bool) -> Self {
        self.retry_timed_out = retry;
        self
    }

    /// Has the task run where others of its class with the same key run; 0 = none.
    ///
    /// It waits for that worker while it has no room, even if others have. When workers come or go,
    /// only the keys of one that goes, and those that one that comes takes over, change their worker;
    /// what a worker has been given already stays there. A task that is started again because it
    /// ran in a worker that died runs alone, on any worker.
    #[must_use]
    pub fn sticky_key(mut self, key: u64) -> Self {
        self.sticky_key = key;
        self
    }
}

/// Most starts of a task: they travel in 16 bits.
pub(crate) const MAX_ATTEMPTS: u32 = u16::MAX as u32;

/// One task of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The payload, copied at submit.
    pub payload: &'a [u8],
    /// Its options.
    pub options: SubmitOptions,
}

impl<'a> From<&'a [u8]> for Submission<'a> {
    #[inline(always)] // see `SubmitOptions::default`
    fn from(payload: &'a [u8]) -> Self {
        Self {
            payload,
            options: SubmitOptions::default(),
        }
    }
}

/// Where a task is, as [`Engine::task_state`](crate::Engine::task_state) sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// Not started: in the central queue, or on a lane.
    Queued,
    /// Started by a worker.
    Running {
        /// The worker's slot.
        worker: u32,
        /// Since when.
        elapsed: Duration,
        /// The handler's last progress report: done, total (0 = unknown).
        progress: (u64, u64),
    },
    /// Ended; the completion waits to be polled.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_a_uuid_and_parses_back() {
        let id = TaskId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(id.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        assert!("x".parse::<TaskId>().is_err());
        assert_eq!(TaskId::from_words(id.to_words()), id);
    }
}
