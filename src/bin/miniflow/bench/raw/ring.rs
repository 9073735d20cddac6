//! The bare ring: one producer, one consumer, 64-byte descriptors, one fence a batch.
//!
//! The consumer spins on the sequence word inside the descriptor, so that a single cache line
//! moves; the indices are for reuse of descriptors and for who wants to sleep.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use super::mem::{SEQUENCE, SLOTS, Side, load_acquire};

/// Descriptors handed over at once, at most: enough that fence and index cost next to nothing.
pub(super) const BATCH: u32 = 64;

/// The payload words of a descriptor, in the consumer's hands.
///
/// They are read where they lie, one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a>(&'a [AtomicU64; 8]);

impl Words<'_> {
    /// Payload words in a descriptor.
    pub(super) const COUNT: usize = SEQUENCE;

    /// The word at `index`, which is below [`COUNT`](Self::COUNT).
    #[inline]
    pub(super) fn get(self, index: usize) -> u64 {
        // Relaxed: ordered by `Receiver::ready`.
        self.0[index].load(Relaxed)
    }
}

/// The producing end: fills `own.slots`, learns from `peer.head` what is free again.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    own: &'a Side,
    peer: &'a Side,
    next: u64,
    /// `peer.head` as last read.
    taken: u64,
}

/// The consuming end: empties `peer.slots`, tells of it in `own.head`.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    own: &'a Side,
    peer: &'a Side,
    next: u64,
}

impl<'a> Sender<'a> {
    /// Goes on where the last sender of this side left off.
    pub(super) fn new(own: &'a Side, peer: &'a Side) -> Self {
        Self {
            own,
            peer,
            // Relaxed: only this process writes it.
            next: own.tail.0.load(Relaxed),
            taken: load_acquire(&peer.head.0),
        }
    }

    /// Whether `push` would find room.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        if self.next - self.taken < SLOTS as u64 {
            return true;
        }
        // Acquire: pairs with the Release store in `Receiver::release`; the consumer has read the
        // descriptor before it is overwritten.
        self.taken = load_acquire(&self.peer.head.0);
        self.next - self.taken < SLOTS as u64
    }

    /// Puts a descriptor of these words into the ring, or returns false if it is full.
    #[inline]
    pub(super) fn push(&mut self, word: impl Fn(usize) -> u64) -> bool {
        if !self.has_room() {
            return false;
        }
        let slot = &self.own.slots[slot_of(self.next)].0;
        for (index, target) in slot[..Words::COUNT].iter().enumerate() {
            target.store(word(index), Relaxed); // published by the sequence word
        }
        self.next += 1;
        // Release: pairs with the Acquire load in `Receiver::ready`; publishes the words above.
        slot[SEQUENCE].store(self.next, Release);
        true
    }

    /// Ends a batch. Returns whether the consumer sleeps, which it never does here.
    #[inline]
    #[must_use]
    pub(super) fn publish(&mut self) -> bool {
        // Release: pairs with the Acquire load of a consumer that is about to sleep.
        self.own.tail.0.store(self.next, Release);
        // SeqCst: between the store of `tail` and the load of `asleep`, as a lane with sleepers
        // has to have it (a consumer stores `asleep`, fences, and loads `tail`).
        fence(SeqCst);
        self.peer.asleep.0.load(Relaxed) != 0
    }
}

impl<'a> Receiver<'a> {
    /// Goes on where the last receiver of this side left off.
    pub(super) fn new(own: &'a Side, peer: &'a Side) -> Self {
        Self {
            own,
            peer,
            // Relaxed: only this process writes it.
            next: own.head.0.load(Relaxed),
        }
    }

    /// Whether `pop` would find something.
    #[inline]
    pub(super) fn ready(&self) -> bool {
        // Acquire: pairs with the Release store in `Sender::push`.
        load_acquire(&self.peer.slots[slot_of(self.next)].0[SEQUENCE]) == self.next + 1
    }

    /// Takes a descriptor out of the ring, if there is one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Words<'a>> {
        if !self.ready() {
            return None;
        }
        let words = Words(&self.peer.slots[slot_of(self.next)].0);
        self.next += 1;
        Some(words)
    }

    /// Ends a batch: what was taken out may be overwritten, and is not to be read again.
    #[inline]
    pub(super) fn release(&mut self) {
        // Release: pairs with the Acquire load in `Sender::push`; the words have been read.
        self.own.head.0.store(self.next, Release);
    }
}

/// Where the descriptor with this free-running index lies.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is less than SLOTS"
)]
fn slot_of(index: u64) -> usize {
    (index % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::super::mem::Memory;
    use super::*;

    /// A word that tells its descriptor and its place.
    fn word(value: u64) -> impl Fn(usize) -> u64 {
        move |index| value * 10 + index as u64
    }

    fn pop(receiver: &mut Receiver<'_>) -> Option<Vec<u64>> {
        let words = receiver.pop()?;
        Some((0..Words::COUNT).map(|index| words.get(index)).collect())
    }

    fn expected(value: u64) -> Option<Vec<u64>> {
        Some((0..Words::COUNT).map(word(value)).collect())
    }

    #[test]
    fn first_in_first_out_full_and_empty_over_several_laps() {
        let (down, up) = (Memory::new("down").unwrap(), Memory::new("up").unwrap());
        let (down, up) = (down.map_writable().unwrap(), up.map_writable().unwrap());
        let (mut tx, mut rx) = (Sender::new(&down, &up), Receiver::new(&up, &down));
        let (mut sent, mut got) = (0, 0);
        for _ in 0..5 {
            while tx.push(word(sent)) {
                sent += 1;
            }
            assert_eq!(sent - got, SLOTS as u64);
            assert!(!tx.publish());
            // Take out less than all, so that the laps do not coincide.
            for _ in 0..300 {
                assert_eq!(pop(&mut rx), expected(got));
                got += 1;
            }
            assert!(!tx.has_room(), "not released yet");
            rx.release();
        }
        while rx.ready() {
            assert_eq!(pop(&mut rx), expected(got));
            got += 1;
        }
        assert_eq!(got, sent);
        assert!(rx.pop().is_none());
    }

    #[test]
    fn new_ends_go_on_where_the_old_ones_stopped() {
        let (down, up) = (Memory::new("down").unwrap(), Memory::new("up").unwrap());
        let (down, up) = (down.map_writable().unwrap(), up.map_writable().unwrap());
        for value in 0..3 {
            let (mut tx, mut rx) = (Sender::new(&down, &up), Receiver::new(&up, &down));
            assert!(tx.push(word(value)));
            assert!(!tx.publish());
            assert_eq!(pop(&mut rx), expected(value));
            rx.release();
        }
    }
}
