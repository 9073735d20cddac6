//! The central queue of one class: what found no credit on any lane, ordered by priority.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::task::MAX_PRIORITY;

const LEVELS: usize = 2 * MAX_PRIORITY as usize + 1;

/// Task-table slots, one FIFO per priority. Bounded by the task table.
#[derive(Debug, Default)]
pub(crate) struct CentralQueue {
    levels: [VecDeque<u32>; LEVELS],
    len: usize,
}

fn level(priority: i8) -> usize {
    (i32::from(priority) + MAX_PRIORITY)
        .clamp(0, 2 * MAX_PRIORITY)
        .unsigned_abs() as usize
}

impl CentralQueue {
    #[inline]
    pub(crate) fn push(&mut self, index: u32, priority: i8) {
        self.levels[level(priority)].push_back(index);
        self.len += 1;
    }

    /// For a task that had left the queue already: it is next among its equals.
    pub(crate) fn push_front(&mut self, index: u32, priority: i8) {
        self.levels[level(priority)].push_front(index);
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let index = self.levels.iter_mut().rev().find_map(VecDeque::pop_front);
        self.len -= usize::from(index.is_some());
        index
    }

    /// Takes one task out of the middle; false if it is not here.
    pub(crate) fn remove(&mut self, index: u32, priority: i8) -> bool {
        let queue = &mut self.levels[level(priority)];
        let Some(position) = queue.iter().position(|&i| i == index) else {
            return false;
        };
        queue.remove(position);
        self.len -= 1;
        true
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priorities_leave_first_and_equals_in_their_order() {
        let mut queue = CentralQueue::default();
        for (index, priority) in [(1, 0), (2, 3), (3, -3), (4, 0), (5, 3)] {
            queue.push(index, priority);
        }
        queue.push_front(6, 0);
        assert!(queue.remove(4, 0));
        assert!(!queue.remove(4, 0));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [2, 5, 6, 1, 3]);
        assert!(queue.is_empty());
    }
}
