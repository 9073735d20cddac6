//! The task table: the only truth about which task is where.
//!
//! Private memory of the host, under the engine's lock. Shared memory carries messages; what they
//! say counts only if it agrees with this table.
#![forbid(unsafe_code)]

use crate::engine::completion::Completion;
use crate::shm::arena::Block;
use crate::shm::layout::PAYLOAD_WORDS;
use crate::task::{Class, Label, SubmitOptions, TaskId};

/// No task.
const NIL: u32 = u32::MAX;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    /// In the central queue of its class.
    Central,
    /// On the lane of this worker slot, with this credit.
    Lane {
        worker: u32,
        slot: u16,
    },
    /// Ended; the completion waits in the ready list for a poll.
    Ready,
    /// Ended; the completion waits for the thread that waits for this id.
    Held,
}

/// A task's payload while the task is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload {
    Inline {
        words: [u64; PAYLOAD_WORDS],
        len: u32,
    },
    Arena {
        block: Block,
        len: u32,
    },
}

/// One task.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: TaskId,
    pub(crate) place: Place,
    pub(crate) class: Class,
    pub(crate) priority: i8,
    /// A thread waits for this id.
    pub(crate) awaited: bool,
    /// Its submitter asked for it to be cancelled.
    pub(crate) cancelled: bool,
    /// Starts so far.
    pub(crate) attempt: u16,
    pub(crate) max_attempts: u16,
    generation: u32,
    /// Of the present dispatch; 0 if there is none.
    pub(crate) ticket: u64,
    pub(crate) user_data: u64,
    pub(crate) label: Label,
    pub(crate) submitted: u64,
    pub(crate) payload: Payload,
    previous: u32,
    next: u32,
}

/// All tasks of an engine.
#[derive(Debug)]
pub(crate) struct TaskTable {
    entries: Vec<Entry>,
    /// Completions of the entries that are `Ready` or `Held`, by the same index.
    completions: Vec<Option<Completion>>,
    free: Vec<u32>,
    capacity: u32,
    /// Low half of every id: tells this engine's ids from others'.
    tag: u32,
    ready_first: u32,
    ready_last: u32,
    ready: u32,
    held: u32,
}

impl TaskTable {
    pub(crate) fn new(capacity: u32, tag: u32) -> Self {
        Self {
            entries: Vec::new(),
            completions: Vec::new(),
            free: Vec::new(),
            capacity,
            tag,
            ready_first: NIL,
            ready_last: NIL,
            ready: 0,
            held: 0,
        }
    }

    /// Takes a slot for a new task, and makes its id; `None` if the table is full.
    #[inline(always)] // see `Core::submit_copy`
    pub(crate) fn insert(
        &mut self,
        options: &SubmitOptions,
        payload: Payload,
        submitted: u64,
        unix_ms: u64,
    ) -> Option<(u32, TaskId)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.extend()?,
        };
        let tag = self.tag;
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let id = make_id(unix_ms, entry.generation, index, tag);
        entry.id = id;
        entry.place = Place::Central;
        entry.class = options.class;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked at submit: -3 to 3"
        )]
        {
            entry.priority = options.priority as i8;
        }
        entry.awaited = false;
        entry.cancelled = false;
        entry.attempt = 0;
        entry.max_attempts = u16::try_from(options.max_attempts).unwrap_or(u16::MAX);
        entry.ticket = 0;
        entry.user_data = options.user_data;
        entry.label = options.label;
        entry.submitted = submitted;
        entry.payload = payload;
        Some((index, id))
    }

    #[cold]
    fn extend(&mut self) -> Option<u32> {
        let index = u32::try_from(self.entries.len())
            .ok()
            .filter(|&i| i < self.capacity)?;
        self.entries.push(Entry {
            id: TaskId::from_bytes([0; 16]),
            place: Place::Free,
            class: Class::CpuBound,
            priority: 0,
            awaited: false,
            cancelled: false,
            attempt: 0,
            max_attempts: 1,
            generation: 0,
            ticket: 0,
            user_data: 0,
            label: Label::default(),
            submitted: 0,
            payload: Payload::Inline {
                words: [0; PAYLOAD_WORDS],
                len: 0,
            },
            previous: NIL,
            next: NIL,
        });
        self.completions.push(None);
        Some(index)
    }

    /// Tasks that can still be inserted.
    pub(crate) fn room(&self) -> usize {
        self.capacity as usize - self.entries.len() + self.free.len()
    }

    /// Tasks that are queued, running or not yet delivered.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Tasks that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.len() - (self.ready + self.held) as usize
    }

    /// Completions in the ready list.
    #[inline]
    pub(crate) fn ready(&self) -> usize {
        self.ready as usize
    }

    /// The slot of a task that has not been delivered.
    #[inline]
    pub(crate) fn find(&self, id: TaskId) -> Option<u32> {
        let index = ((id.low() >> 32) & 0xf_ffff) as u32;
        let entry = self.entries.get(index as usize)?;
        (entry.id == id && entry.place != Place::Free).then_some(index)
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// Gives a slot back; its id means nothing from now on.
    #[inline]
    pub(crate) fn remove(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.place != Place::Free);
        entry.place = Place::Free;
        self.free.push(index);
    }

    /// Keeps the completion of an ended task until somebody takes it: the thread that waits for
    /// its id, or else a poll.
    pub(crate) fn keep(&mut self, index: u32, completion: Completion) {
        self.completions[index as usize] = Some(completion);
        if self.entries[index as usize].awaited {
            self.entries[index as usize].place = Place::Held;
            self.held += 1;
        } else {
            self.push_ready(index);
        }
    }

    fn push_ready(&mut self, index: u32) {
        let last = self.ready_last;
        let entry = &mut self.entries[index as usize];
        entry.place = Place::Ready;
        entry.previous = last;
        entry.next = NIL;
        match last {
            NIL => self.ready_first = index,
            last => self.entries[last as usize].next = index,
        }
        self.ready_last = index;
        self.ready += 1;
    }

    /// Takes the oldest completion of the ready list and gives its slot back.
    #[inline]
    pub(crate) fn pop_ready(&mut self) -> Option<Completion> {
        match self.ready_first {
            NIL => None,
            first => self.take(first),
        }
    }

    /// Takes the completion of an ended task and gives its slot back.
    pub(crate) fn take(&mut self, index: u32) -> Option<Completion> {
        match self.entries[index as usize].place {
            Place::Ready => self.unlink(index),
            Place::Held => self.held -= 1,
            _ => return None,
        }
        let completion = self.completions[index as usize].take();
        self.remove(index);
        completion
    }

    fn unlink(&mut self, index: u32) {
        let Entry { previous, next, .. } = self.entries[index as usize];
        match previous {
            NIL => self.ready_first = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NIL => self.ready_last = previous,
            next => self.entries[next as usize].previous = previous,
        }
        self.ready -= 1;
    }

    /// Nobody waits for this id any more: a completion that was held for the waiter is polled.
    pub(crate) fn stop_awaiting(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.awaited = false;
        if entry.place == Place::Held {
            self.held -= 1;
            self.push_ready(index);
        }
    }

    /// The kept completions, oldest slot first.
    pub(crate) fn kept_mut(&mut self) -> impl Iterator<Item = &mut Completion> {
        self.completions.iter_mut().flatten()
    }

    /// The slots of all tasks that have not ended.
    pub(crate) fn unfinished_slots(&self) -> Vec<u32> {
        (0_u32..)
            .zip(&self.entries)
            .filter(|(_, e)| matches!(e.place, Place::Central | Place::Lane { .. }))
            .map(|(index, _)| index)
            .collect()
    }
}

/// `ms:48 | 7:4 | gen_hi:12 | 10:2 | gen_lo:10 | slot:20 | engine:32`, big-endian.
#[inline]
fn make_id(unix_ms: u64, generation: u32, slot: u32, tag: u32) -> TaskId {
    let generation = u64::from(generation);
    let high = unix_ms << 16 | 0x7000 | (generation >> 10 & 0xfff);
    let low = 0b10 << 62 | (generation & 0x3ff) << 52 | u64::from(slot) << 32 | u64::from(tag);
    TaskId::from_halves(high, low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::{Variant, Version};

    fn table(capacity: u32) -> TaskTable {
        TaskTable::new(capacity, 0xdead_beef)
    }

    fn insert(table: &mut TaskTable) -> Option<u32> {
        let payload = Payload::Inline {
            words: [0; PAYLOAD_WORDS],
            len: 0,
        };
        let options = SubmitOptions::default();
        let (index, id) = table.insert(&options, payload, 0, 1_700_000_000_000)?;
        assert_eq!(table.get(index).id, id);
        Some(index)
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7_with_the_time_in_it() {
        let mut table = table(4);
        let index = insert(&mut table).unwrap();
        let id = table.get(index).id.as_uuid();
        assert_eq!(id.get_version(), Some(Version::SortRand));
        assert_eq!(id.get_variant(), Variant::RFC4122);
        assert_eq!(id.as_u128() >> 80, 1_700_000_000_000);
    }

    #[test]
    fn a_slot_that_is_reused_has_another_id() {
        let mut table = table(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..5000 {
            let index = insert(&mut table).unwrap();
            let id = table.get(index).id;
            assert!(seen.insert(id));
            assert_eq!(table.find(id), Some(index));
            table.remove(index);
            assert_eq!(table.find(id), None);
        }
    }

    #[test]
    fn a_full_table_refuses() {
        let mut table = table(3);
        assert!((0..3).all(|_| insert(&mut table).is_some()));
        assert_eq!(insert(&mut table), None);
        assert_eq!((table.room(), table.len(), table.unfinished()), (0, 3, 3));
        table.remove(1);
        assert_eq!(insert(&mut table), Some(1));
    }

    #[test]
    fn the_ready_list_keeps_its_order_when_one_is_taken_from_the_middle() {
        let mut table = table(8);
        let indices: Vec<u32> = (0..4).map(|_| insert(&mut table).unwrap()).collect();
        for &index in &indices {
            let mut completion = Completion::for_test(table.get(index).id);
            completion.user_data = u64::from(index);
            table.keep(index, completion);
        }
        assert_eq!((table.ready(), table.unfinished()), (4, 0));
        assert_eq!(
            table.take(indices[1]).unwrap().user_data,
            u64::from(indices[1])
        );
        assert_eq!(
            table.take(indices[3]).unwrap().user_data,
            u64::from(indices[3])
        );
        assert_eq!(table.pop_ready().unwrap().user_data, u64::from(indices[0]));
        assert_eq!(table.pop_ready().unwrap().user_data, u64::from(indices[2]));
        assert!(table.pop_ready().is_none());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn an_awaited_completion_is_never_polled_until_its_waiter_gives_up() {
        let mut table = table(8);
        let index = insert(&mut table).unwrap();
        table.get_mut(index).awaited = true;
        let id = table.get(index).id;
        table.keep(index, Completion::for_test(id));
        assert!(table.pop_ready().is_none());
        table.stop_awaiting(index);
        assert_eq!(table.pop_ready().unwrap().id(), id);
    }
}
