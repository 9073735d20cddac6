//! Handing tasks to workers: whom to choose, and what goes into the descriptor.
#![forbid(unsafe_code)]

use super::{CODE_NO_WORKER, Core, NO_ZYGOTE, Phase};
use crate::config::Policy;
use crate::engine::lane::Lane;
use crate::engine::task_table::{Entry, Payload, Place};
use crate::shm::layout::{PAYLOAD_WORDS, TaskInfo};
use crate::shm::ring::{Message, Meta};
use crate::sys::sync::Ordering;
use crate::task::{Class, Outcome};

impl Core {
    /// A worker that has room for a task of this class.
    #[inline]
    pub(super) fn choose(&mut self, class: Class) -> Option<u32> {
        let state = &mut self.classes[class.index()];
        let count = state.ready.len();
        if count == 1 {
            let worker = state.ready[0];
            return Self::has_room(&mut self.lanes, worker).then_some(worker);
        }
        let start = state.turn;
        let mut best: Option<(u32, bool, usize)> = None;
        for step in 0..count {
            let at = (start + step) % count;
            let worker = state.ready[at];
            if !Self::has_room(&mut self.lanes, worker) {
                continue;
            }
            let Some(lane) = &self.lanes[worker as usize] else {
                continue;
            };
            let (load, asleep) = match self.policy {
                Policy::RoundRobin => (0, false),
                Policy::LeastLoaded => (lane.load() / lane.threads.max(1), lane.is_asleep()),
            };
            if best.is_none_or(|(l, a, _)| (load, asleep) < (l, a)) {
                best = Some((load, asleep, at));
                if (load, asleep) == (0, false) {
                    break;
                }
            }
        }
        let (_, _, at) = best?;
        state.turn = at + 1;
        Some(state.ready[at])
    }

    #[inline]
    fn has_room(lanes: &mut [Option<Lane>], worker: u32) -> bool {
        lanes[worker as usize]
            .as_mut()
            .is_some_and(Lane::has_credit)
    }

    /// Hands a task to a worker that has room.
    #[inline]
    pub(super) fn dispatch(&mut self, index: u32, worker: u32) {
        let ticket = self.next_ticket;
        let Some(lane) = &mut self.lanes[worker as usize] else {
            return self.enqueue(index);
        };
        let Some(slot) = lane.collector.give(ticket) else {
            return self.enqueue(index);
        };
        self.next_ticket += 1;
        let entry = self.table.get_mut(index);
        entry.place = Place::Lane { worker, slot };
        entry.ticket = ticket;
        lane.tasks[usize::from(slot)] = index;
        let attempt = entry.attempt + 1;
        let (meta, payload) = match entry.payload {
            Payload::Inline { words, len } => (Meta::new(slot, attempt, len, false), words),
            Payload::Arena { block, len } => {
                let mut words = [0; PAYLOAD_WORDS];
                words[0] = block.offset;
                (Meta::new(slot, attempt, len, true), words)
            }
        };
        describe(&lane.shared.down().info[usize::from(slot)], entry);
        let first = lane.publish(&Message {
            ticket,
            meta,
            payload,
        });
        if first {
            self.unannounced.push(worker);
        }
    }

    /// Hands out what waits in the central queue, as far as there are credits.
    pub(crate) fn pump(&mut self, class: Class) {
        if self.phase >= Phase::Cancelling {
            while let Some(index) = self.classes[class.index()].central.pop() {
                self.end(index, Outcome::Cancelled, 0, false, String::new());
            }
        } else if self.degraded {
            self.give_up(class);
        }
        while !self.classes[class.index()].central.is_empty() {
            let Some(worker) = self.choose(class) else {
                return;
            };
            let Some(index) = self.classes[class.index()].central.pop() else {
                return;
            };
            if self.table.get(index).cancelled {
                // Asked for while a worker had it, which then handed it back.
                self.end(index, Outcome::Cancelled, 0, false, String::new());
            } else {
                self.dispatch(index, worker);
            }
        }
    }

    /// Without the zygote: if the class has no worker any more, ends what waits for one.
    #[cold]
    pub(super) fn give_up(&mut self, class: Class) {
        if !self.is_deserted(class) {
            return;
        }
        while let Some(index) = self.classes[class.index()].central.pop() {
            self.end(
                index,
                Outcome::Failed,
                CODE_NO_WORKER,
                false,
                NO_ZYGOTE.into(),
            );
        }
    }

    /// [`Core::pump`] for both classes, and [`Core::announce`].
    #[inline]
    pub(crate) fn pump_all(&mut self) {
        for class in Class::ALL {
            self.pump(class);
        }
        self.announce();
    }

    /// Rings the bell of every lane that got descriptors: once per batch.
    #[inline]
    pub(crate) fn announce(&mut self) {
        while let Some(worker) = self.unannounced.pop() {
            if let Some(lane) = &mut self.lanes[worker as usize] {
                lane.ring_bell();
            }
        }
    }
}

/// Writes what a worker may want to know about the task.
#[inline]
fn describe(info: &TaskInfo, entry: &Entry) {
    // Relaxed: published by the Release store of the descriptor's sequence number.
    let [a, b] = entry.id.to_words();
    info.id[0].store(a, Ordering::Relaxed);
    info.id[1].store(b, Ordering::Relaxed);
    let [a, b] = entry.label.to_words();
    info.label[0].store(a, Ordering::Relaxed);
    info.label[1].store(b, Ordering::Relaxed);
    info.user_data.store(entry.user_data, Ordering::Relaxed);
}
