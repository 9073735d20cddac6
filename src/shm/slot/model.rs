//! Loom models of task slots, done words and the bitmap: two threads of a worker, one host.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::sys::model::{explore, must_fail, without_release};

struct Up {
    bitmap: DoneBitmap,
    slots: [TaskSlot; CREDITS],
    /// Where the host puts the slot of the third dispatch, plus 1; stands for the ring.
    mail: AtomicU64,
}

/// Tickets 1 and 2 go out at first, in slots 0 and 1; ticket 3 when a credit is back.
const TICKETS: usize = 3;

fn ending(ticket: u64) -> Ending {
    Ending {
        len: 8,
        code: ticket as i32,
        start: ticket,
        end: ticket * 10,
        ..Ending::new(Kind::Failed)
    }
}

fn result(ticket: u64) -> [u64; RESULT_WORDS] {
    [ticket * 100; RESULT_WORDS]
}

impl Up {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            bitmap: DoneBitmap::new(),
            slots: std::array::from_fn(|_| TaskSlot::new()),
            mail: AtomicU64::new(0),
        })
    }

    fn finish(&self, slot: usize, ticket: u64) {
        self.slots[slot].finish(ticket, &ending(ticket), &result(ticket));
    }

    /// Claims the third dispatch: its slot.
    fn take_mail(&self) -> Option<usize> {
        let mail = load_acquire(&self.mail);
        // Relaxed: ordered by the load; decides only who has it.
        (mail != 0
            && self
                .mail
                .compare_exchange(mail, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok())
        .then(|| mail as usize - 1)
    }
}

type Finish = fn(&Up, usize, u64);
type Flush = fn(&mut Pending, &DoneBitmap);
type TakeEarly = fn(&mut Collector, u16, u64, &TaskSlot) -> bool;

struct Host {
    up: Arc<Up>,
    collector: Collector,
    delivered: [u32; TICKETS],
    dispatched: bool,
}

impl Host {
    fn deliver(delivered: &mut [u32; TICKETS], ticket: u64, cell: &TaskSlot) {
        let found = cell.ending().expect("a kind");
        let mut words = [0; RESULT_WORDS];
        cell.read_result(&mut words[..found.words()]);
        assert_eq!(
            (found.code, found.len, found.start, found.end, words),
            (ticket as i32, 8, ticket, ticket * 10, result(ticket)),
            "contents of a completion"
        );
        delivered[ticket as usize - 1] += 1;
    }

    fn take_early(&mut self, slot: u16, ticket: u64, take_early: TakeEarly) {
        let cell = &self.up.slots[usize::from(slot)];
        if take_early(&mut self.collector, slot, ticket, cell) {
            Self::deliver(&mut self.delivered, ticket, cell);
        }
    }

    fn scan(&mut self) {
        let delivered = &mut self.delivered;
        let scan = self.collector.scan(
            &self.up.bitmap,
            &self.up.slots,
            CREDITS,
            |_, ticket, cell| {
                Self::deliver(delivered, ticket, cell);
            },
        );
        assert_eq!(scan, Scan::Complete, "what a scan met");
    }

    /// Sends ticket 3 out if it was not and a credit is free.
    fn dispatch(&mut self) {
        if !self.dispatched && self.collector.has_free(&self.up.bitmap) {
            let slot = self.collector.give(3).expect("a free credit");
            // Release: as the ring's sequence word.
            self.up.mail.store(u64::from(slot) + 1, Ordering::Release);
            self.dispatched = true;
        }
    }
}

/// The first thread finishes ticket 1 and publishes its flip at once; the second one finishes
/// ticket 2 and holds the flip back. Then each looks for ticket 3, and publishes what it holds. The
/// host takes tickets 1 and 2 by their done words if it can, and everything else by scanning.
fn run(finish: Finish, flush: Flush, take_early: TakeEarly) {
    let up = Up::new();
    let mut host = Host {
        up: Arc::clone(&up),
        collector: Collector::new(),
        delivered: [0; TICKETS],
        dispatched: false,
    };
    assert_eq!(host.collector.give(1), Some(0));
    assert_eq!(host.collector.give(2), Some(1));
    let threads = [(0, 1), (1, 2)].map(|(slot, ticket)| {
        let up = Arc::clone(&up);
        thread::spawn(move || {
            let mut pending = Pending::default();
            finish(&up, slot, ticket);
            pending.add(slot);
            if ticket == 1 {
                flush(&mut pending, &up.bitmap);
            }
            let third = up.take_mail();
            if let Some(slot) = third {
                finish(&up, slot, 3);
                pending.add(slot);
            }
            flush(&mut pending, &up.bitmap);
            third.is_some()
        })
    });
    host.take_early(0, 1, take_early);
    host.dispatch();
    host.take_early(1, 2, take_early);
    host.scan();
    let third_ran = threads.map(|t| t.join().expect("a thread failed"));
    // Whatever is left, as the same worker would finish it.
    host.scan();
    host.dispatch();
    if third_ran == [false; 2] {
        let slot = up.take_mail().expect("a credit: both were finished");
        up.finish(slot, 3);
        let mut pending = Pending::default();
        pending.add(slot);
        pending.flush(&up.bitmap);
    }
    host.scan();
    assert_eq!(host.delivered, [1; TICKETS], "completions delivered");
    assert_eq!(host.collector.outstanding(), 0);
    assert_eq!(host.collector.free.len(), CREDITS, "credits that came back");
}

#[test]
fn every_completion_is_delivered_once_and_intact() {
    explore(|| run(Up::finish, Pending::flush, Collector::take_early));
}

#[test]
fn without_the_release_of_the_done_word_contents_are_torn() {
    must_fail("contents of a completion", || {
        run(
            |up, slot, ticket| without_release(|| up.finish(slot, ticket)),
            Pending::flush,
            Collector::take_early,
        );
    });
}

#[test]
fn without_the_release_of_the_flip_a_scan_finds_no_completion() {
    must_fail("what a scan met", || {
        run(
            Up::finish,
            |pending, bitmap| without_release(|| pending.flush(bitmap)),
            Collector::take_early,
        );
    });
}

/// Breaks the parity rule: the credit is free again though its flip is still on its way.
fn take_early_and_free(collector: &mut Collector, slot: u16, ticket: u64, cell: &TaskSlot) -> bool {
    let taken = collector.take_early(slot, ticket, cell);
    if taken {
        collector.credits[usize::from(slot)] = Credit::Free;
        collector.free.push(slot);
    }
    taken
}

#[test]
fn a_credit_that_is_free_before_its_flip_was_seen_breaks_the_next_dispatch() {
    must_fail("what a scan met", || {
        run(Up::finish, Pending::flush, take_early_and_free);
    });
}

/// The host asks about a dispatch that is out while a thread starts it.
fn run_started(start: fn(&TaskSlot, u64, u64)) {
    let cell = Arc::new(TaskSlot::new());
    cell.start(1, 10, 1);
    let worker = {
        let cell = Arc::clone(&cell);
        thread::spawn(move || start(&cell, 2, 20))
    };
    if let Some(at) = cell.started(2) {
        assert_eq!(at, 20, "start of the dispatch");
    }
    worker.join().expect("a thread failed");
    assert_eq!(cell.started(2), Some(20));
    assert_eq!(cell.started(1), None);
}

#[test]
fn a_started_dispatch_has_its_own_start() {
    explore(|| run_started(|cell, ticket, now| cell.start(ticket, now, 1)));
}

#[test]
fn without_the_release_of_the_ticket_it_has_that_of_another() {
    must_fail("start of the dispatch", || {
        run_started(|cell, ticket, now| without_release(|| cell.start(ticket, now, 1)));
    });
}
