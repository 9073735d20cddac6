//! How much of an arena has memory behind it.

#![forbid(unsafe_code)]

use std::ops::Range;

/// Tracks which part of an arena was committed (`fallocate`d): always the first so many bytes,
/// because the allocator hands out low addresses first.
///
/// It only counts. The caller asks what is [`needed`](Self::needed) for a block, commits that, and
/// says so with [`done`](Self::done); if the kernel refuses, nothing has changed.
#[derive(Debug)]
pub(crate) struct CommitMark {
    chunk: u64,
    capacity: u64,
    committed: u64,
}

impl CommitMark {
    /// Nothing is committed yet; `chunk` is how many bytes to commit at a time (0 is taken as 1).
    pub(crate) fn new(chunk: u64, capacity: u64) -> Self {
        Self {
            chunk: chunk.max(1),
            capacity,
            committed: 0,
        }
    }

    /// The bytes to commit before those below `end` may be used: up to a multiple of the chunk
    /// or to the capacity. `None` if there is nothing to do.
    #[inline]
    pub(crate) fn needed(&self, end: u64) -> Option<Range<u64>> {
        if end <= self.committed {
            return None;
        }
        let rounded = end.checked_next_multiple_of(self.chunk).unwrap_or(u64::MAX);
        let range = self.committed..rounded.min(self.capacity);
        (!range.is_empty()).then_some(range)
    }

    /// Notes that `range`, as answered by [`needed`](Self::needed), is committed now. A range that
    /// would leave a hole is a bug of the caller; it is not noted.
    pub(crate) fn done(&mut self, range: Range<u64>) {
        debug_assert!(range.start <= self.committed, "{range:?} leaves a hole");
        if range.start <= self.committed {
            self.committed = self.committed.max(range.end.min(self.capacity));
        }
    }

    /// The number of bytes, from the start of the arena, that are committed.
    #[cfg(test)]
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_to_the_chunk_and_down_to_the_capacity() {
        let mut mark = CommitMark::new(1000, 2500);
        assert_eq!(mark.needed(0), None);
        assert_eq!(mark.needed(1), Some(0..1000));
        assert_eq!(mark.needed(1000), Some(0..1000));
        assert_eq!(mark.needed(1001), Some(0..2000));
        mark.done(0..2000);
        assert_eq!(mark.committed(), 2000);
        assert_eq!(mark.needed(2000), None);
        assert_eq!(mark.needed(2001), Some(2000..2500));
        mark.done(2000..2500);
        assert_eq!(mark.needed(2500), None);
    }

    #[test]
    fn never_asks_for_more_than_the_capacity() {
        let mut mark = CommitMark::new(1 << 20, 2500);
        assert_eq!(mark.needed(u64::MAX), Some(0..2500));
        mark.done(0..u64::MAX);
        assert_eq!(mark.committed(), 2500);
        assert_eq!(mark.needed(u64::MAX), None);
        assert_eq!(CommitMark::new(0, 0).needed(1), None);
        assert_eq!(CommitMark::new(0, 10).needed(3), Some(0..3));
    }

    #[test]
    fn a_refused_commit_is_asked_for_again() {
        let mark = CommitMark::new(64, 1024);
        assert_eq!(mark.needed(65), Some(0..128));
        assert_eq!(mark.needed(65), Some(0..128));
        assert_eq!(mark.committed(), 0);
    }

    #[test]
    fn noting_the_same_range_twice_changes_nothing() {
        let mut mark = CommitMark::new(64, 1024);
        mark.done(0..128);
        mark.done(0..64);
        assert_eq!(mark.committed(), 128);
    }
}
