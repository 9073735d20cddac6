//! What a submitter gets back.

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::shm::layout::RESULT_WORDS;
use crate::shm::segments::{HostLane, words_as_bytes};
use crate::shm::slot::TaskSlot;
use crate::task::{Label, Outcome, TaskId};

/// Words of result that a completion carries in itself.
const WORDS: usize = 6;

/// The end of one task. Every accepted task has exactly one.
///
/// Large results lie in memory that their worker can write; they are read by copy
/// ([`Completion::to_vec`], [`Completion::copy_to`], [`Completion::reader`]) and given back to the
/// worker when the completion is dropped. A forked child of the host reads them as empty.
pub struct Completion {
    pub(crate) id: TaskId,
    pub(crate) user_data: u64,
    pub(crate) label: Label,
    pub(crate) queued_ns: u64,
    pub(crate) run_ns: u64,
    pub(crate) outcome: Outcome,
    pub(crate) code: i32,
    pub(crate) worker: u32,
    pub(crate) attempt: u16,
    pub(crate) marks: Marks,
    pub(crate) data: Data,
}

// Two cache lines, which millions of them a second go through.
const _: () = assert!(size_of::<Completion>() <= 128);

/// Yes-or-no facts about a completion, with the numbers that they have in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    pub(crate) const NONE: Self = Self(0);
    /// The code is the number of a signal.
    pub(crate) const BY_SIGNAL: Self = Self(1);
    /// It died beside others and may not be the one to blame.
    pub(crate) const COLLATERAL: Self = Self(2);
    /// It failed with data of the handler's own.
    pub(crate) const DATA: Self = Self(4);

    /// These, on a condition.
    #[inline]
    pub(crate) fn if_so(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }
}

impl BitOr for Marks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where a result is.
pub(crate) enum Data {
    Inline { words: [u64; WORDS], len: u32 },
    Heap(Box<[u8]>),
    InPlace(InPlace),
}

/// A result block of a worker, held until dropped.
pub(crate) struct InPlace {
    lane: Arc<HostLane>,
    incarnation: u64,
    offset: u64,
    len: u32,
}

impl InPlace {
    fn start(&self) -> NonNull<u8> {
        // Validated by `Data::in_place`; the range only grows.
        self.lane
            .result(self.offset, u64::from(self.len))
            .unwrap_or(NonNull::dangling())
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.lane.release_held(self.offset);
    }
}

impl Data {
    pub(crate) const EMPTY: Self = Self::Inline {
        words: [0; WORDS],
        len: 0,
    };

    /// A result of `len` bytes out of a task slot; `len` is at most `INLINE_RESULT`.
    #[inline(always)] // see `Core::submit_copy`
    pub(crate) fn from_slot(cell: &TaskSlot, len: u32) -> Self {
        if len == 0 {
            return Self::EMPTY;
        }
        let bytes = len as usize;
        let used = bytes.div_ceil(8);
        if used <= WORDS {
            let mut words = [0; WORDS];
            cell.read_result(&mut words[..used]);
            return Self::Inline { words, len };
        }
        let mut words = [0; RESULT_WORDS];
        cell.read_result(&mut words);
        Self::Heap(words_as_bytes(&words)[..bytes].into())
    }

    /// A result in a worker's arena; `None` if the worker's word does not hold.
    pub(crate) fn in_place(
        lane: &Arc<HostLane>,
        incarnation: u64,
        offset: u64,
        len: u32,
    ) -> Option<Self> {
        lane.result(offset, u64::from(len))?;
        if !lane.hold() {
            return None;
        }
        Some(Self::InPlace(InPlace {
            lane: Arc::clone(lane),
            incarnation,
            offset,
            len,
        }))
    }

    pub(crate) fn text(text: String) -> Self {
        Self::Heap(text.into_bytes().into())
    }

    fn len(&self) -> usize {
        match self {
            Self::Inline { len, .. } => *len as usize,
            Self::Heap(bytes) => bytes.len(),
            Self::InPlace(place) => place.len as usize,
        }
    }
}

impl Completion {
    /// The task's id, as submit returned it.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The number given at submit.
    #[must_use]
    pub fn user_data(&self) -> u64 {
        self.user_data
    }

    /// The submitter's own id for the task; zeros if none was given.
    #[must_use]
    pub fn label(&self) -> Label {
        self.label
    }

    /// How the task ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the handler returned success.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.outcome == Outcome::Completed
    }

    /// The handler's code; for a crash the exit code or, if [`Completion::by_signal`], the signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// Whether [`Completion::code`] is a signal number.
    #[must_use]
    pub fn by_signal(&self) -> bool {
        self.marks.has(Marks::BY_SIGNAL)
    }

    /// Whether the task crashed beside others, so that it may not be the one to blame.
    #[must_use]
    pub fn is_collateral(&self) -> bool {
        self.marks.has(Marks::COLLATERAL)
    }

    /// Whether the task failed with data of the handler's own
    /// ([`Failure::with_data`](crate::worker::Failure::with_data)) and not with a text.
    #[must_use]
    pub fn failed_with_data(&self) -> bool {
        self.marks.has(Marks::DATA)
    }

    /// The slot of the worker that ran the task last; `u32::MAX` if none did.
    #[must_use]
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// 1 if the task ended in its first start, 0 if it never started.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::from(self.attempt)
    }

    /// From submit to the last start.
    #[must_use]
    pub fn queued(&self) -> Duration {
        Duration::from_nanos(self.queued_ns)
    }

    /// From the last start to the end.
    #[must_use]
    pub fn ran(&self) -> Duration {
        Duration::from_nanos(self.run_ns)
    }

    /// Length of the result, or of the error text or data if the task did not complete.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no result.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The result without a copy, if it lies in the host's own memory, as shorter ones do
    /// ([`Builder::in_place_from`](crate::Builder::in_place_from)).
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Inline { words, len } => Some(&words_as_bytes(words)[..*len as usize]),
            Data::Heap(bytes) => Some(bytes),
            Data::InPlace(_) => None,
        }
    }

    /// The result, copied.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        match &self.data {
            Data::InPlace(place) => {
                let mut bytes = vec![0; place.len as usize];
                match place.lane.read_result(place.offset, &mut bytes) {
                    Some(()) => bytes,
                    None => Vec::new(), // in a forked child
                }
            }
            _ => self.as_bytes().unwrap_or_default().to_vec(),
        }
    }

    /// Copies as much of the result as fits, from its start; returns how much.
    pub fn copy_to(&self, buffer: &mut [u8]) -> usize {
        self.read_at(0, buffer)
    }

    /// Copies what lies from `offset` on.
    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let len = self.len().saturating_sub(offset).min(buffer.len());
        match &self.data {
            Data::InPlace(place) => place
                .lane
                .read_result(place.offset + offset as u64, &mut buffer[..len])
                .map_or(0, |()| len),
            _ => {
                let bytes = self.as_bytes().unwrap_or_default();
                buffer[..len].copy_from_slice(&bytes[offset..offset + len]);
                len
            }
        }
    }

    /// The result as a stream.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            completion: self,
            position: 0,
        }
    }

    /// The error text of a task that did not complete (its result or its failure's data as text,
    /// otherwise).
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.to_vec()).into_owned()
    }

    /// Where the result lies, for reading in place: valid for [`Completion::len`] bytes until the
    /// completion is dropped. The bytes may change under the reader if the worker misbehaves, so
    /// no reference to them may be made: use raw reads.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        match &self.data {
            Data::InPlace(place) => place.start().as_ptr(),
            _ => self.as_bytes().unwrap_or_default().as_ptr(),
        }
    }

    /// Whether the result holds memory of this incarnation of a worker.
    pub(crate) fn is_in_place_of(&self, incarnation: u64) -> bool {
        matches!(&self.data, Data::InPlace(p) if p.incarnation == incarnation)
    }

    /// Copies the result out of the worker's memory, which is given back.
    pub(crate) fn move_to_heap(&mut self) {
        if let Data::InPlace(place) = &self.data
            && let Some(bytes) = place.lane.copy_result(place.offset, u64::from(place.len))
        {
            self.data = Data::Heap(bytes);
        } // else there is no memory for it: it stays where it is
    }

    #[cfg(test)]
    pub(crate) fn for_test(id: TaskId) -> Self {
        Self {
            id,
            user_data: 0,
            label: Label::default(),
            queued_ns: 0,
            run_ns: 0,
            outcome: Outcome::Completed,
            code: 0,
            worker: 0,
            attempt: 1,
            marks: Marks::NONE,
            data: Data::EMPTY,
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("id", &self.id)
            .field("outcome", &self.outcome)
            .field("code", &self.code)
            .field("worker", &self.worker)
            .field("attempt", &self.attempt)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Reads a completion's result; see [`Completion::reader`].
#[derive(Debug)]
pub struct Reader<'a> {
    completion: &'a Completion,
    position: usize,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.completion.read_at(self.position, buffer);
        self.position += read;
        Ok(read)
    }
}
