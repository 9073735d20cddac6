//! Loom models of the ring: one host, two consumers, two cells.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::sys::model::{explore, must_fail, without_release};

struct Lane {
    ring: Ring,
    head: Head,
    /// By slot, as in a task slot: the ticket whose completion is there.
    done: [AtomicU64; CREDITS],
}

fn message(ticket: u64, slot: u16) -> Message {
    Message {
        ticket,
        meta: Meta::new(slot, 1, 8, false),
        payload: [ticket * 10; PAYLOAD_WORDS],
    }
}

impl Lane {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ring: Ring::new(),
            head: Line(AtomicU64::new(0)),
            done: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// One attempt of a worker's thread to take and finish a task.
    fn take(&self) -> Option<u64> {
        let taken = pop(&self.ring, &self.head)?;
        let slot = taken.meta.slot();
        assert_eq!(
            taken,
            message(taken.ticket, slot as u16),
            "contents of a descriptor"
        );
        self.done[slot].store(taken.ticket, Ordering::Release);
        Some(taken.ticket)
    }
}

/// Publishes three descriptors, the third into a cell that is used again once a credit is back,
/// while two consumers make `attempts` each. `push` and `may_reuse` are where a model is sabotaged.
fn run(
    attempts: [usize; 2],
    push: impl Fn(&mut Producer, &Ring, &Message),
    may_reuse: impl Fn(&Lane, u16) -> bool,
) {
    let lane = Lane::new();
    let mut producer = Producer::default();
    let consumers = attempts.map(|n| {
        let lane = Arc::clone(&lane);
        thread::spawn(move || (0..n).filter_map(|_| lane.take()).collect::<Vec<u64>>())
    });
    push(&mut producer, &lane.ring, &message(1, 0));
    push(&mut producer, &lane.ring, &message(2, 1));
    let mut published = 2;
    if let Some(slot) = (0..2).find(|&slot| may_reuse(&lane, slot)) {
        push(&mut producer, &lane.ring, &message(3, slot));
        published = 3;
    }
    let mut taken: Vec<u64> = consumers
        .into_iter()
        .flat_map(|c| c.join().expect("a consumer failed"))
        .collect();
    while let Some(ticket) = lane.take() {
        taken.push(ticket);
    }
    taken.sort_unstable();
    let all: Vec<u64> = (1..=published).collect();
    assert_eq!(taken, all, "descriptors claimed");
}

fn completed(lane: &Lane, slot: u16) -> bool {
    load_acquire(&lane.done[usize::from(slot)]) != 0
}

#[test]
fn each_descriptor_is_claimed_once_and_intact_also_in_a_reused_cell() {
    explore(|| run([2, 2], Producer::push, completed));
}

#[test]
fn without_the_release_of_seq_contents_are_torn() {
    must_fail("contents of a descriptor", || {
        run(
            [1, 1],
            |producer, ring, message| without_release(|| producer.push(ring, message)),
            |_, _| false,
        );
    });
}

#[test]
fn without_a_credit_the_producer_overwrites_what_is_unclaimed() {
    must_fail("descriptors claimed", || {
        run([1, 1], Producer::push, |_, _| true);
    });
}
