//! Which parts of a shared-memory arena are in use: a buddy allocator over offsets.
//!
//! The books are private to the process that writes the arena and are kept outside it. The
//! allocator deals in offsets and never touches the memory they stand for, so that nothing that a
//! peer writes can damage it; what a peer says about blocks comes in through [`Arena::free_at`]
//! and [`Arena::size_at`], which take any number. There are no locks: whoever shares an `Arena`
//! between threads puts a lock around it.
//!
//! The arena is a row of *top blocks*, each of which is halved until the pieces fit. A freed block
//! is joined with its other half if that is free as well, up to the top block, except that each
//! order (power of two) keeps its last few freed blocks aside, whole, for the next request of that
//! size: without that, one small block that comes and goes in an empty arena would split and join
//! a top block every time. The blocks kept aside are joined before a top block that was never
//! used is opened and before a request is refused, so they never cost an allocation.

#![forbid(unsafe_code)]

use std::fmt;
use std::iter;

/// The smallest block, and the unit that everything is counted in; bytes, a power of two.
pub(crate) const MIN_BLOCK: u64 = 256;

/// How many freed blocks an order keeps aside. Measured with 0, 1, 4, 8 and 16: with none, a block
/// that comes and goes costs ten times as much; more than 8 gain little.
const KEPT: usize = 8;

/// Part of the arena that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Bytes from the start of the arena; a multiple of the block's size.
    pub(crate) offset: u64,
    order: u8,
}

impl Block {
    /// The number of bytes that belong to the block: what was asked for, rounded up.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        MIN_BLOCK << self.order
    }
}

/// The allocator; see the module's text.
///
/// A block of order `k` is `MIN_BLOCK << k` bytes, and its index is its offset divided by that.
/// The books have room for about ten bits for each `MIN_BLOCK` of capacity. All of it is reserved
/// at the start, so that no later call allocates from the heap; each table is written only up to
/// the highest entry that was ever needed, so that what was never used takes no memory.
pub(crate) struct Arena {
    /// The order of the allocated block that starts at each `MIN_BLOCK`, plus one; 0, or beyond the
    /// end, if none does.
    starts: Vec<u8>,
    /// The blocks that are not allocated, by order, up to the order of the top blocks. None if the
    /// capacity is 0.
    orders: Box<[Order]>,
    /// Bit `k` is set while `orders[k].free` has a block.
    with_free: u64,
    /// Bit `k` is set while `orders[k].kept` has a block.
    with_kept: u64,
    /// Top blocks from this one on were never used; they are in no free set.
    opened: usize,
    tops: usize,
    capacity: u64,
    in_use: u64,
    blocks: usize,
}

/// The blocks of one order that are not allocated.
struct Order {
    free: IndexSet,
    /// Blocks kept aside, the last freed one last; only the first `kept_len` mean anything.
    kept: [usize; KEPT],
    kept_len: usize,
}

impl Arena {
    /// Makes an allocator for an arena of which nothing is in use.
    ///
    /// Blocks of up to `max_alloc` bytes can be had: the top block is `max_alloc` rounded up to a
    /// power of two, at least `MIN_BLOCK`. The capacity is rounded down to whole top blocks. If
    /// there is not even one, the capacity is 0 and every request is refused. The caller has made
    /// sure that the capacity is one that a machine can have: the books are reserved here.
    pub(crate) fn new(capacity: u64, max_alloc: u64) -> Self {
        let top = max_alloc.max(MIN_BLOCK).checked_next_power_of_two();
        let top = top.filter(|top| *top <= capacity).unwrap_or(0);
        let tops = capacity.checked_div(top).unwrap_or(0);
        let capacity = tops * top;
        let sizes = iter::successors(Some(MIN_BLOCK), |size| size.checked_mul(2));
        Self {
            starts: Vec::with_capacity(index(capacity / MIN_BLOCK)),
            orders: sizes
                .take_while(|size| *size <= top)
                .map(|size| Order::new(index(capacity / size)))
                .collect(),
            with_free: 0,
            with_kept: 0,
            opened: 0,
            tops: index(tops),
            capacity,
            in_use: 0,
            blocks: 0,
        }
    }

    /// Allocates a block of at least `len` bytes, and at least `MIN_BLOCK`.
    ///
    /// Space at low addresses and in top blocks that are already split goes first, so that the
    /// highest offset ever handed out grows slowly. `None` if no free block is large enough.
    #[inline]
    pub(crate) fn allocate(&mut self, len: u64) -> Option<Block> {
        if len > self.largest() {
            return None;
        }
        let order = order_for(len);
        let at = match self.take_kept(order) {
            Some(at) => at,
            None if self.orders.is_empty() => return None, // the capacity is 0, and so is `len`
            None => self.take(order)?,
        };
        self.note_start(at << order, order);
        let block = Block {
            offset: (at as u64) * (MIN_BLOCK << order),
            order,
        };
        self.in_use += block.size();
        self.blocks += 1;
        Some(block)
    }

    /// Frees a block of this arena. A block that is not allocated is a bug of the caller; it is
    /// left alone.
    #[inline]
    pub(crate) fn free(&mut self, block: Block) {
        let known = self.size_at(block.offset) == Some(block.size());
        debug_assert!(known, "{block:?} is not allocated");
        if known {
            self.free_at(block.offset);
        }
    }

    /// Frees the allocated block that starts at `offset`. If there is none, answers false and
    /// changes nothing.
    #[inline]
    pub(crate) fn free_at(&mut self, offset: u64) -> bool {
        let Some(order) = self.order_at(offset) else {
            return false;
        };
        let unit = index(offset / MIN_BLOCK);
        self.starts[unit] = 0;
        self.in_use -= MIN_BLOCK << order;
        self.blocks -= 1;
        let at = unit >> order;
        if !self.keep(at, order) {
            self.join(at, order);
        }
        true
    }

    /// The size of the allocated block that starts at `offset`.
    #[inline]
    pub(crate) fn size_at(&self, offset: u64) -> Option<u64> {
        self.order_at(offset).map(|order| MIN_BLOCK << order)
    }

    /// The bytes in allocated blocks, each counted with its whole size.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use
    }

    /// The bytes that can be handed out in all.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The number of allocated blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The size of a top block, which is the largest that can be allocated; 0 if the capacity is.
    #[inline]
    pub(crate) fn largest(&self) -> u64 {
        match self.orders.len() {
            0 => 0,
            count => MIN_BLOCK << (count - 1),
        }
    }

    #[inline]
    fn order_at(&self, offset: u64) -> Option<u8> {
        if !offset.is_multiple_of(MIN_BLOCK) {
            return None;
        }
        self.starts.get(index(offset / MIN_BLOCK))?.checked_sub(1)
    }

    #[inline]
    fn note_start(&mut self, unit: usize, order: u8) {
        if let Some(start) = self.starts.get_mut(unit) {
            *start = order + 1;
        } else {
            self.starts.resize(unit, 0);
            self.starts.push(order + 1);
        }
    }

    /// The order of the top blocks. Only for an arena that has one.
    fn top_order(&self) -> u8 {
        order_for(self.largest())
    }

    /// Takes a block of `order` from the free ones, or else from a new top block.
    fn take(&mut self, order: u8) -> Option<usize> {
        if let Some(at) = self.take_free(order) {
            return Some(at);
        }
        if self.with_kept != 0 {
            self.join_kept();
            return self.take(order);
        }
        if self.opened == self.tops {
            return None;
        }
        self.opened += 1;
        Some(self.split(self.opened - 1, self.top_order(), order))
    }

    /// Takes the lowest of the smallest free blocks that are large enough.
    fn take_free(&mut self, order: u8) -> Option<usize> {
        let large_enough = self.with_free & (u64::MAX << order);
        if large_enough == 0 {
            return None;
        }
        let found = lowest_bit(large_enough);
        let at = self.orders[usize::from(found)].free.lowest()?;
        self.remove_free(at, found);
        Some(self.split(at, found, order))
    }

    /// Cuts a block of order `from` down to `order`: answers the lowest piece, frees the others.
    fn split(&mut self, at: usize, from: u8, order: u8) -> usize {
        let mut at = at;
        for half in (order..from).rev() {
            at *= 2;
            self.insert_free(at + 1, half);
        }
        at
    }

    /// Makes a block free, joined with the free blocks that it makes a larger one with.
    fn join(&mut self, at: usize, order: u8) {
        let (mut at, mut order) = (at, order);
        let top = self.top_order();
        while order < top && self.orders[usize::from(order)].free.contains(at ^ 1) {
            self.remove_free(at ^ 1, order);
            at /= 2;
            order += 1;
        }
        self.insert_free(at, order);
    }

    /// Joins all the blocks that were kept aside.
    #[cold]
    fn join_kept(&mut self) {
        while self.with_kept != 0 {
            let order = lowest_bit(self.with_kept);
            while let Some(at) = self.take_kept(order) {
                self.join(at, order);
            }
        }
    }

    /// Keeps a freed block aside, if there is room for it.
    #[inline]
    fn keep(&mut self, at: usize, order: u8) -> bool {
        let Order { kept, kept_len, .. } = &mut self.orders[usize::from(order)];
        let Some(place) = kept.get_mut(*kept_len) else {
            return false;
        };
        *place = at;
        *kept_len += 1;
        self.with_kept |= 1 << order;
        true
    }

    #[inline]
    fn take_kept(&mut self, order: u8) -> Option<usize> {
        let Order { kept, kept_len, .. } = self.orders.get_mut(usize::from(order))?;
        let last = kept_len.checked_sub(1)?;
        *kept_len = last;
        if last == 0 {
            self.with_kept &= !(1 << order);
        }
        Some(kept[last])
    }

    fn insert_free(&mut self, at: usize, order: u8) {
        self.orders[usize::from(order)].free.insert(at);
        self.with_free |= 1 << order;
    }

    fn remove_free(&mut self, at: usize, order: u8) {
        if !self.orders[usize::from(order)].free.remove(at) {
            self.with_free &= !(1 << order);
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("capacity", &self.capacity())
            .field("largest", &self.largest())
            .field("in_use", &self.in_use)
            .field("blocks", &self.blocks)
            .finish_non_exhaustive()
    }
}

impl Order {
    fn new(len: usize) -> Self {
        Self {
            free: IndexSet::new(len),
            kept: [0; KEPT],
            kept_len: 0,
        }
    }
}

/// A set of the indices below a fixed number that finds its lowest member in a few steps.
///
/// `levels[0]` has a bit for each index; a bit in a higher level says whether that word of the
/// level below has any. The last level is a single word. A level ends after the highest word that
/// was ever needed; memory for the rest is reserved.
struct IndexSet {
    levels: Box<[Vec<u64>]>,
}

impl IndexSet {
    fn new(len: usize) -> Self {
        let mut levels = Vec::new();
        let mut words = len;
        loop {
            words = words.div_ceil(64);
            levels.push(Vec::with_capacity(words));
            if words <= 1 {
                break;
            }
        }
        Self {
            levels: levels.into_boxed_slice(),
        }
    }

    #[inline]
    fn contains(&self, at: usize) -> bool {
        let word = self.levels[0].get(at / 64);
        word.is_some_and(|word| word & bit(at) != 0)
    }

    #[inline]
    fn insert(&mut self, at: usize) {
        let mut at = at;
        for level in &mut self.levels {
            if level.len() <= at / 64 {
                level.resize(at / 64 + 1, 0);
            }
            let word = &mut level[at / 64];
            let known_above = *word != 0;
            *word |= bit(at);
            if known_above {
                return;
            }
            at /= 64;
        }
    }

    /// Removes a member and answers whether there are others.
    #[inline]
    fn remove(&mut self, at: usize) -> bool {
        let mut at = at;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !bit(at);
            if *word != 0 {
                return true;
            }
            at /= 64;
        }
        false
    }

    #[inline]
    fn lowest(&self) -> Option<usize> {
        let mut at = 0;
        for level in self.levels.iter().rev() {
            let word = level.get(at).copied().filter(|word| *word != 0)?;
            at = at * 64 + usize::from(lowest_bit(word));
        }
        Some(at)
    }
}

/// The mask of an index in its word.
#[inline]
fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

/// The number of the lowest bit that is set; `word` is not 0.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 64")]
fn lowest_bit(word: u64) -> u8 {
    word.trailing_zeros() as u8
}

/// The order of the smallest blocks that have room for `len` bytes.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 64")]
fn order_for(len: u64) -> u8 {
    let last_unit = len.saturating_sub(1) / MIN_BLOCK;
    (u64::BITS - last_unit.leading_zeros()) as u8
}

/// A number as an index. What does not fit becomes the largest one, which no table is long enough
/// for.
#[inline]
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;

    /// Allocates and frees every top block, which works only if nothing is in use and everything
    /// was joined.
    fn check_all_joined(arena: &mut Arena) {
        assert_eq!((arena.in_use(), arena.blocks()), (0, 0));
        let size = arena.largest();
        let tops: Vec<Block> = (0..arena.capacity() / size)
            .map(|_| arena.allocate(size).expect("it is empty"))
            .collect();
        assert_eq!(arena.in_use(), arena.capacity());
        assert_eq!(arena.allocate(1), None);
        for top in tops {
            arena.free(top);
        }
    }

    #[test]
    fn rounds_the_capacity_down_and_the_top_block_up() {
        let arena = Arena::new(10 * MIB + 5, MIB - 1);
        assert_eq!((arena.capacity(), arena.largest()), (10 * MIB, MIB));
        let arena = Arena::new(3 * MIB - 1, MIB);
        assert_eq!((arena.capacity(), arena.largest()), (2 * MIB, MIB));
        let arena = Arena::new(MIN_BLOCK, 0);
        assert_eq!((arena.capacity(), arena.largest()), (MIN_BLOCK, MIN_BLOCK));
    }

    #[test]
    fn has_no_capacity_if_the_top_block_does_not_fit() {
        for (capacity, max_alloc) in [(0, 0), (255, 1), (MIB - 1, MIB), (MIB, u64::MAX)] {
            let mut arena = Arena::new(capacity, max_alloc);
            assert_eq!((arena.capacity(), arena.largest()), (0, 0));
            assert_eq!(arena.allocate(0), None);
            assert_eq!(arena.allocate(1), None);
            assert!(!arena.free_at(0));
        }
    }

    #[test]
    fn rounds_a_request_up_to_a_power_of_two() {
        let mut arena = Arena::new(4 * MIB, MIB);
        for len in [0, 1, 256, 257, KIB, KIB + 1, MIB - 1, MIB] {
            let block = arena.allocate(len).unwrap();
            assert_eq!(block.size(), len.max(256).next_power_of_two());
            assert!(block.offset.is_multiple_of(block.size()));
            arena.free(block);
        }
        assert_eq!(arena.allocate(MIB + 1), None);
        assert_eq!(arena.allocate(u64::MAX), None);
        check_all_joined(&mut arena);
    }

    #[test]
    fn fills_from_the_bottom() {
        let mut arena = Arena::new(4 * MIB, MIB);
        let offsets: Vec<u64> = (0..8)
            .map(|_| arena.allocate(256 * KIB).unwrap().offset)
            .collect();
        assert_eq!(offsets, (0..8).map(|i| i * 256 * KIB).collect::<Vec<_>>());
        assert!(arena.free_at(0));
        // Not at the start of the third top block: what was freed goes first.
        assert_eq!(arena.allocate(KIB).unwrap().offset, 0);
    }

    #[test]
    fn prefers_the_remains_of_a_split_block_to_a_whole_one() {
        let mut arena = Arena::new(4 * MIB, MIB);
        let first = arena.allocate(MIB).unwrap();
        let second = arena.allocate(KIB).unwrap();
        assert_eq!(second.offset, MIB);
        arena.free(first);
        assert_eq!(arena.allocate(2 * KIB).unwrap().offset, MIB + 2 * KIB);
    }

    #[test]
    fn one_block_that_comes_and_goes_stays_where_it_is() {
        let mut arena = Arena::new(1 << 30, 64 * MIB);
        for _ in 0..1000 {
            let block = arena.allocate(64 * KIB).unwrap();
            assert_eq!(block.offset, 0);
            arena.free(block);
        }
        check_all_joined(&mut arena);
    }

    #[test]
    fn every_byte_can_be_handed_out_in_the_smallest_blocks() {
        let mut arena = Arena::new(3 * MIB, MIB);
        let mut offsets: Vec<u64> = (0..3 * MIB / MIN_BLOCK)
            .map(|_| arena.allocate(1).expect("there is room").offset)
            .collect();
        assert_eq!(arena.allocate(1), None);
        assert_eq!((arena.in_use(), arena.blocks()), (3 * MIB, offsets.len()));
        offsets.sort_unstable();
        for (i, offset) in (0..).zip(&offsets) {
            assert_eq!(*offset, i * MIN_BLOCK);
        }
        // From the outside in, so that the blocks meet their other halves in a mixed order.
        while let Some(last) = offsets.pop() {
            assert!(arena.free_at(last));
            if !offsets.is_empty() {
                assert!(arena.free_at(offsets.remove(0)));
            }
        }
        check_all_joined(&mut arena);
    }

    #[test]
    fn works_with_one_order_only() {
        let mut arena = Arena::new(100 * MIN_BLOCK, 1);
        assert_eq!(arena.largest(), MIN_BLOCK);
        check_all_joined(&mut arena);
        check_all_joined(&mut arena);
    }

    #[test]
    fn refuses_to_free_what_is_not_the_start_of_a_block() {
        let mut arena = Arena::new(4 * MIB, MIB);
        let block = arena.allocate(KIB).unwrap();
        let near = [1, 255, 256, 512, KIB, MIB];
        let far = [4 * MIB - 256, 4 * MIB, u64::MAX - 255, u64::MAX];
        for offset in near.into_iter().chain(far) {
            assert!(!arena.free_at(offset), "{offset}");
            assert_eq!(arena.size_at(offset), None, "{offset}");
        }
        assert_eq!((arena.in_use(), arena.blocks()), (KIB, 1));
        assert!(arena.free_at(block.offset));
        assert!(!arena.free_at(block.offset), "a double free");
        assert_eq!(arena.size_at(block.offset), None);
        check_all_joined(&mut arena);
    }

    /// The size of the books: that of `starts`, and for each table of words what `of` answers.
    fn books(arena: &Arena, starts: usize, of: impl Fn(&Vec<u64>) -> usize) -> usize {
        let tables = arena.orders.iter().flat_map(|order| &order.free.levels);
        starts + 8 * tables.map(of).sum::<usize>()
    }

    #[test]
    fn the_books_are_written_only_for_the_part_that_was_used() {
        let written = |arena: &Arena| books(arena, arena.starts.len(), Vec::len);
        let mut arena = Arena::new(1 << 30, MIB);
        assert_eq!(written(&arena), 0);
        let blocks: Vec<Block> = (0..64).map(|_| arena.allocate(KIB).unwrap()).collect();
        for block in blocks {
            arena.free(block);
        }
        assert!(written(&arena) < 1000, "{}", written(&arena));
    }

    #[test]
    fn no_call_allocates_from_the_heap() {
        let reserved = |arena: &Arena| books(arena, arena.starts.capacity(), Vec::capacity);
        let mut arena = Arena::new(3 * MIB, MIB);
        let at_first = reserved(&arena);
        while arena.allocate(1).is_some() {}
        // Every second block first, so that each of them is in the free set by itself.
        for parity in [0, 1] {
            for unit in (0..3 * MIB / MIN_BLOCK).filter(|unit| unit % 2 == parity) {
                assert!(arena.free_at(unit * MIN_BLOCK));
            }
        }
        check_all_joined(&mut arena);
        assert_eq!(reserved(&arena), at_first);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u64),
        /// Frees the n-th of the live blocks, modulo their number; by handle or by offset.
        Free(usize, bool),
        FreeAt(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = prop_oneof![0..=600_u64, 0..=9000_u64, Just(16 * KIB), 0..=20_000_u64];
        let step = prop_oneof![
            5 => len.prop_map(Step::Allocate),
            4 => any::<(usize, bool)>().prop_map(|(n, by_offset)| Step::Free(n, by_offset)),
            1 => (0..=700_u64).prop_map(|unit| Step::FreeAt(unit * 128)),
            1 => any::<u64>().prop_map(Step::FreeAt),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_model(
            capacity in 0..=80 * KIB,
            max_alloc in prop_oneof![0..=16 * KIB, Just(16 * KIB)],
            steps in steps(),
        ) {
            let mut arena = Arena::new(capacity, max_alloc);
            prop_assert!(arena.capacity() <= capacity);
            let mut live = BTreeMap::new(); // offset -> block
            for step in steps {
                match step {
                    Step::Allocate(len) => match arena.allocate(len) {
                        Some(block) => {
                            prop_assert!(block.size() >= len);
                            prop_assert!(block.size() == MIN_BLOCK || block.size() < 2 * len);
                            prop_assert!(block.offset.is_multiple_of(block.size()));
                            prop_assert!(block.offset + block.size() <= arena.capacity());
                            live.insert(block.offset, block);
                        }
                        None => prop_assert!(!naive_has_room(&arena, &live, len)),
                    },
                    Step::Free(n, by_offset) => {
                        if live.is_empty() {
                            continue;
                        }
                        let offset = *live.keys().nth(n % live.len()).unwrap();
                        let block = live.remove(&offset).unwrap();
                        if by_offset {
                            prop_assert!(arena.free_at(offset));
                        } else {
                            arena.free(block);
                        }
                    }
                    Step::FreeAt(offset) => {
                        prop_assert_eq!(arena.free_at(offset), live.remove(&offset).is_some());
                    }
                }
                check_against(&arena, &live)?;
            }
            for offset in live.into_keys() {
                prop_assert!(arena.free_at(offset));
            }
            if arena.capacity() > 0 {
                check_all_joined(&mut arena);
            }
        }
    }

    /// Whether there is an aligned hole for a block of `len` bytes.
    fn naive_has_room(arena: &Arena, live: &BTreeMap<u64, Block>, len: u64) -> bool {
        let size = len.max(MIN_BLOCK).next_power_of_two();
        let overlaps = |start: u64| {
            live.values()
                .any(|b| b.offset < start + size && start < b.offset + b.size())
        };
        size <= arena.largest() && (0..arena.capacity() / size).any(|i| !overlaps(i * size))
    }

    fn check_against(arena: &Arena, live: &BTreeMap<u64, Block>) -> Result<(), TestCaseError> {
        let mut end = 0;
        for block in live.values() {
            prop_assert!(block.offset >= end, "{block:?} overlaps the one before");
            end = block.offset + block.size();
            prop_assert_eq!(arena.size_at(block.offset), Some(block.size()));
        }
        prop_assert_eq!(arena.in_use(), live.values().map(Block::size).sum::<u64>());
        prop_assert_eq!(arena.blocks(), live.len());
        Ok(())
    }
}
