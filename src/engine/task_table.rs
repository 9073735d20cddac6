//! The task table: the only truth about which task is where.
//!
//! Private memory of the host, under the engine's lock. Shared memory carries messages; what they
//! say counts only if it agrees with this table.
#![forbid(unsafe_code)]

use crate::engine::completion::Completion;
use crate::error::{Error, Result};
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

/// What a running task has against it, if its worker is killed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    None,
    /// It ran beyond its deadline.
    Late,
    /// Its submitter cancelled it by force.
    Cancelled,
}

/// What a task allows beyond one start, and for how long each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_attempts: u16,
    pub(crate) retry_failed: bool,
    pub(crate) retry_timed_out: bool,
    /// Longest run in ticks; 0 = no limit.
    pub(crate) deadline: u64,
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
    /// It ran when a worker died for a reason that may have been its own: no other runs beside it.
    pub(crate) alone: bool,
    pub(crate) charge: Charge,
    /// Starts that have ended, all without an end of the task.
    pub(crate) attempt: u16,
    pub(crate) limits: Limits,
    generation: u32,
    /// Of the present dispatch; 0 if there is none.
    pub(crate) ticket: u64,
    pub(crate) user_data: u64,
    pub(crate) label: Label,
    pub(crate) submitted: u64,
    pub(crate) payload: Payload,
    /// Tasks with the same key go to the same worker; 0 = none.
    pub(crate) sticky_key: u64,
    /// The worker for which it waits, if that is because of its key.
    pub(crate) home: Option<u32>,
    previous: u32,
    next: u32,
}

/// A list of tasks, linked through their entries: a task is in one list at most, and leaves it from
/// any place at the same cost.
#[derive(Debug)]
pub(crate) struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        Self {
            first: NIL,
            last: NIL,
            len: 0,
        }
    }
}

impl List {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn push_back(&mut self, entries: &mut [Entry], index: u32) {
        let entry = &mut entries[index as usize];
        (entry.previous, entry.next) = (self.last, NIL);
        match self.last {
            NIL => self.first = index,
            last => entries[last as usize].next = index,
        }
        self.last = index;
        self.len += 1;
    }

    fn push_front(&mut self, entries: &mut [Entry], index: u32) {
        let entry = &mut entries[index as usize];
        (entry.previous, entry.next) = (NIL, self.first);
        match self.first {
            NIL => self.last = index,
            first => entries[first as usize].previous = index,
        }
        self.first = index;
        self.len += 1;
    }

    #[inline]
    fn unlink(&mut self, entries: &mut [Entry], index: u32) {
        let Entry { previous, next, .. } = entries[index as usize];
        match previous {
            NIL => self.first = next,
            previous => entries[previous as usize].next = next,
        }
        match next {
            NIL => self.last = previous,
            next => entries[next as usize].previous = previous,
        }
        self.len -= 1;
    }
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
    ready: List,
    held: u32,
}

impl TaskTable {
    /// Takes address space for all entries at once, so that no later submit can fail for want of
    /// it; the memory behind it comes as it is used.
    pub(crate) fn new(capacity: u32, tag: u32) -> Result<Self> {
        let mut table = Self {
            entries: Vec::new(),
            completions: Vec::new(),
            free: Vec::new(),
            capacity,
            tag,
            ready: List::default(),
            held: 0,
        };
        let count = capacity as usize;
        let reserved = (table.entries.try_reserve_exact(count))
            .and_then(|()| table.completions.try_reserve_exact(count))
            .and_then(|()| table.free.try_reserve_exact(count));
        reserved.map_err(|_| {
            Error::NoMemory(format!(
                "no address space for a table of {capacity} tasks (lower max_tasks, or raise \
                 RLIMIT_AS)"
            ))
        })?;
        Ok(table)
    }

    /// Takes a slot for a new task, and makes its id; `None` if the table is full.
    #[inline(always)] // see `Core::submit_copy`
    pub(crate) fn insert(
        &mut self,
        options: &SubmitOptions,
        limits: Limits,
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
        entry.alone = false;
        entry.charge = Charge::None;
        entry.attempt = 0;
        entry.limits = limits;
        entry.ticket = 0;
        entry.user_data = options.user_data;
        entry.label = options.label;
        entry.submitted = submitted;
        entry.payload = payload;
        entry.sticky_key = options.sticky_key;
        entry.home = None;
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
            alone: false,
            charge: Charge::None,
            attempt: 0,
            limits: Limits {
                max_attempts: 1,
                retry_failed: false,
                retry_timed_out: false,
                deadline: 0,
            },
            generation: 0,
            ticket: 0,
            user_data: 0,
            label: Label::default(),
            submitted: 0,
            payload: Payload::Inline {
                words: [0; PAYLOAD_WORDS],
                len: 0,
            },
            sticky_key: 0,
            home: None,
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
        self.len() - self.ready.len() - self.held as usize
    }

    /// Completions in the ready list.
    #[inline]
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
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
        self.entries[index as usize].place = Place::Ready;
        self.ready.push_back(&mut self.entries, index);
    }

    /// Puts a task at the end of a list of its owner's.
    #[inline]
    pub(crate) fn push_back(&mut self, list: &mut List, index: u32) {
        list.push_back(&mut self.entries, index);
    }

    /// Puts a task at the front of a list of its owner's.
    pub(crate) fn push_front(&mut self, list: &mut List, index: u32) {
        list.push_front(&mut self.entries, index);
    }

    /// Takes the first task of a list.
    #[inline]
    pub(crate) fn pop_front(&mut self, list: &mut List) -> Option<u32> {
        let first = (list.first != NIL).then_some(list.first)?;
        list.unlink(&mut self.entries, first);
        Some(first)
    }

    /// The first task of a list.
    pub(crate) fn first(list: &List) -> Option<u32> {
        (list.first != NIL).then_some(list.first)
    }

    /// Takes a task out of the list that it is in.
    pub(crate) fn unlink(&mut self, list: &mut List, index: u32) {
        list.unlink(&mut self.entries, index);
    }

    /// Takes the oldest completion of the ready list and gives its slot back.
    #[inline]
    pub(crate) fn pop_ready(&mut self) -> Option<Completion> {
        match self.ready.first {
            NIL => None,
            first => self.take(first),
        }
    }

    /// The completion of an ended task that nobody has taken.
    pub(crate) fn kept(&self, index: u32) -> Option<&Completion> {
        self.completions[index as usize].as_ref()
    }

    /// Takes the completion of an ended task and gives its slot back.
    pub(crate) fn take(&mut self, index: u32) -> Option<Completion> {
        match self.entries[index as usize].place {
            Place::Ready => self.ready.unlink(&mut self.entries, index),
            Place::Held => self.held -= 1,
            _ => return None,
        }
        let completion = self.completions[index as usize].take();
        self.remove(index);
        completion
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
pub(crate) mod tests {
    use super::*;
    use uuid::{Variant, Version};

    pub(crate) fn table(capacity: u32) -> TaskTable {
        TaskTable::new(capacity, 0xdead_beef).unwrap()
    }

    pub(crate) fn insert(table: &mut TaskTable) -> Option<u32> {
        let payload = Payload::Inline {
            words: [0; PAYLOAD_WORDS],
            len: 0,
        };
        let options = SubmitOptions::default();
        let limits = Limits {
            max_attempts: 1,
            retry_failed: false,
            retry_timed_out: false,
            deadline: 0,
        };
        let (index, id) = table.insert(&options, limits, payload, 0, 1_700_000_000_000)?;
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
