//! Sticky tasks: those with the same key go to the same worker.
//!
//! The worker of a key is found by rendezvous hashing over the ready workers of the class: each
//! worker has a weight for the key, and the heaviest has it. A worker that leaves gives away its own
//! keys only, one that comes takes only those that become its own. What counts is the worker's slot:
//! a replacement has the keys of its predecessor.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::engine::central::CentralQueue;
use crate::engine::task_table::TaskTable;

/// Keys whose worker is remembered.
const MEMO: usize = 1024;

/// The sticky tasks of one class that wait because their worker has no room.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    queues: BTreeMap<u32, CentralQueue>,
    len: usize,
    /// Keys and their workers, by a hash of the key; a key of 0 is no entry.
    memo: Vec<(u64, u32)>,
}

impl Sticky {
    /// Tasks that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The worker of a key; `None` if there are no workers.
    pub(crate) fn worker_of(&mut self, key: u64, ready: &[u32]) -> Option<u32> {
        if self.memo.is_empty() {
            self.memo = vec![(0, 0); MEMO];
        }
        #[expect(clippy::cast_possible_truncation, reason = "a hash")]
        let place = &mut self.memo[mix(key) as usize % MEMO];
        if place.0 != key {
            *place = (key, rendezvous(key, ready)?);
        }
        Some(place.1)
    }

    /// The ready workers are not the same any more.
    pub(crate) fn forget_workers(&mut self) {
        self.memo.fill((0, 0));
    }

    /// Has a task wait for a worker.
    pub(crate) fn push(&mut self, table: &mut TaskTable, worker: u32, index: u32) {
        table.get_mut(index).home = Some(worker);
        self.queues.entry(worker).or_default().push(table, index);
        self.len += 1;
    }

    /// Workers for which tasks wait.
    pub(crate) fn awaited(&self) -> Vec<u32> {
        self.queues.keys().copied().collect()
    }

    /// The first task of each priority for each worker.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = u32> {
        self.queues.values().flat_map(CentralQueue::firsts)
    }

    /// The next task for a worker.
    pub(crate) fn first(&self, worker: u32) -> Option<u32> {
        self.queues.get(&worker)?.first()
    }

    /// Takes the next task for a worker.
    pub(crate) fn pop(&mut self, table: &mut TaskTable, worker: u32) -> Option<u32> {
        let queue = self.queues.get_mut(&worker)?;
        let index = queue.pop(table)?;
        if queue.is_empty() {
            self.queues.remove(&worker);
        }
        self.len -= 1;
        table.get_mut(index).home = None;
        Some(index)
    }

    /// Takes any task.
    pub(crate) fn pop_any(&mut self, table: &mut TaskTable) -> Option<u32> {
        let worker = *self.queues.keys().next()?;
        self.pop(table, worker)
    }

    /// Takes a task out of the middle of the queue for `worker`.
    pub(crate) fn remove(&mut self, table: &mut TaskTable, worker: u32, index: u32) {
        let Some(queue) = self.queues.get_mut(&worker) else {
            return;
        };
        queue.remove(table, index);
        if queue.is_empty() {
            self.queues.remove(&worker);
        }
        self.len -= 1;
        table.get_mut(index).home = None;
    }
}

/// The worker with the greatest weight for this key.
fn rendezvous(key: u64, workers: &[u32]) -> Option<u32> {
    workers
        .iter()
        .copied()
        .max_by_key(|&worker| (weight(key, worker), worker))
}

fn weight(key: u64, worker: u32) -> u64 {
    mix(key ^ mix(u64::from(worker) + 1))
}

/// A bijection in which every bit of the result depends on every bit of the argument (the finaliser
/// of `SplitMix64`).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn homes(workers: &[u32]) -> Vec<u32> {
        (1..=KEYS)
            .map(|key| rendezvous(key, workers).unwrap())
            .collect()
    }

    #[test]
    fn a_worker_that_leaves_moves_only_its_own_keys() {
        let all: Vec<u32> = (0..16).collect();
        let without: Vec<u32> = all.iter().copied().filter(|&w| w != 5).collect();
        for (before, after) in homes(&all).into_iter().zip(homes(&without)) {
            assert!(before == after || before == 5);
        }
    }

    #[test]
    fn keys_spread_evenly_over_workers_that_come_in_any_order() {
        let workers: Vec<u32> = (0..16).collect();
        let reversed: Vec<u32> = workers.iter().rev().copied().collect();
        assert_eq!(homes(&workers), homes(&reversed));
        let mut counts = [0_u64; 16];
        for home in homes(&workers) {
            counts[home as usize] += 1;
        }
        let fair = KEYS / 16;
        assert!(
            counts.iter().all(|&c| c.abs_diff(fair) < fair / 5),
            "{counts:?}"
        );
    }

    #[test]
    fn what_is_remembered_of_a_key_is_what_would_be_computed() {
        let mut sticky = Sticky::default();
        for workers in [&[0, 1, 2, 3][..], &[0, 2, 3], &[7]] {
            sticky.forget_workers();
            for key in (1..3000).chain(1..3000) {
                assert_eq!(sticky.worker_of(key, workers), rendezvous(key, workers));
            }
        }
        sticky.forget_workers();
        assert_eq!(sticky.worker_of(1, &[]), None);
    }
}
