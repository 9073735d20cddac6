//! The central queue of one class: what found no credit on any lane, ordered by priority.
#![forbid(unsafe_code)]

use crate::engine::task_table::{List, TaskTable};
use crate::task::MAX_PRIORITY;

const LEVELS: usize = 2 * MAX_PRIORITY as usize + 1;

/// One FIFO of tasks per priority, linked through the task table, which bounds it.
#[derive(Debug, Default)]
pub(crate) struct CentralQueue {
    levels: [List; LEVELS],
    len: usize,
}

fn level(priority: i8) -> usize {
    (i32::from(priority) + MAX_PRIORITY)
        .clamp(0, 2 * MAX_PRIORITY)
        .unsigned_abs() as usize
}

impl CentralQueue {
    #[inline]
    pub(crate) fn push(&mut self, table: &mut TaskTable, index: u32) {
        let level = level(table.get(index).priority);
        table.push_back(&mut self.levels[level], index);
        self.len += 1;
    }

    /// For a task that had left the queue already: it is next among its equals.
    pub(crate) fn push_front(&mut self, table: &mut TaskTable, index: u32) {
        let level = level(table.get(index).priority);
        table.push_front(&mut self.levels[level], index);
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self, table: &mut TaskTable) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let list = self.levels.iter_mut().rfind(|list| !list.is_empty())?;
        let index = table.pop_front(list)?;
        self.len -= 1;
        Some(index)
    }

    /// The task that [`CentralQueue::pop`] would take.
    pub(crate) fn first(&self) -> Option<u32> {
        TaskTable::first(self.levels.iter().rfind(|list| !list.is_empty())?)
    }

    /// The first task of each priority.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().filter_map(TaskTable::first)
    }

    /// Takes a task that is in this queue out of its middle.
    pub(crate) fn remove(&mut self, table: &mut TaskTable, index: u32) {
        let level = level(table.get(index).priority);
        table.unlink(&mut self.levels[level], index);
        self.len -= 1;
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
    use crate::engine::task_table::tests::{insert, table};

    #[test]
    fn higher_priorities_leave_first_and_equals_in_their_order() {
        let mut table = table(8);
        let mut queue = CentralQueue::default();
        let tasks: Vec<u32> = [0, 3, -3, 0, 3, 0]
            .iter()
            .map(|&priority| {
                let index = insert(&mut table).unwrap();
                table.get_mut(index).priority = priority;
                index
            })
            .collect();
        for &index in &tasks[..5] {
            queue.push(&mut table, index);
        }
        queue.push_front(&mut table, tasks[5]);
        queue.remove(&mut table, tasks[3]);
        assert_eq!(queue.len(), 5);
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(&mut table)).collect();
        assert_eq!(order, [1, 4, 5, 0, 2].map(|i: usize| tasks[i]));
        assert!(queue.is_empty());
    }
}
