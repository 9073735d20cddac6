//! A worker that the harness plays: what it should do, and its bare page.
#![forbid(unsafe_code)]

use super::*;

/// A worker as it looks to the host, played by this thread.
pub(super) struct Double {
    pub(super) lane: Arc<WorkerLane>,
    pub(super) _control: Socket,
    pub(super) clock: Clock,
    /// Where its consumed index should stand.
    pub(super) head: u64,
    pub(super) in_hand: Vec<Message>,
    /// Tickets and slots that it has had.
    pub(super) past: Vec<(u64, usize)>,
    pub(super) pending: Pending,
    pub(super) arena: Arena,
    pub(super) released: u64,
}

impl Double {
    pub(super) fn new(lane: Arc<WorkerLane>, control: Socket, clock: Clock) -> Self {
        Self {
            lane,
            _control: control,
            clock,
            head: 0,
            in_hand: Vec::new(),
            past: Vec::new(),
            pending: Pending::default(),
            arena: Arena::new(RESULT_ARENA, MAX_RESULT),
            released: 0,
        }
    }

    /// The oldest task, started.
    pub(super) fn take(&mut self) -> bool {
        let up = self.lane.up();
        up.head.0.store(self.head, Relaxed); // whatever stands there now
        let Some(message) = ring::pop(&self.lane.down().ring, &up.head) else {
            return false;
        };
        self.head += 1;
        up.slots[message.meta.slot()].start(message.ticket, self.clock.now(), 1);
        self.past.push((message.ticket, message.meta.slot()));
        if self.past.len() > CREDITS {
            self.past.drain(..CREDITS / 2);
        }
        self.in_hand.push(message);
        true
    }

    /// What an honest worker answers: the payload, each byte changed.
    fn answer(&self, message: &Message) -> Vec<u8> {
        let len = message.meta.len() as usize;
        let payload = if message.meta.in_arena() {
            self.lane.payload(message)
        } else {
            &words_as_bytes(&message.payload)[..len]
        };
        payload.iter().map(|byte| byte ^ 0x5a).collect()
    }

    /// Ends one task in hand as it should be: with the answer, whether as a result or as the data of
    /// a failure.
    pub(super) fn finish(&mut self, which: usize) {
        if self.in_hand.is_empty() {
            return;
        }
        let message = self.in_hand.swap_remove(which % self.in_hand.len());
        let slot = message.meta.slot();
        if self.lane.down().cancel[slot].load(Relaxed) == message.ticket {
            return self.publish(&message, Kind::Cancelled, &[]);
        }
        let answer = self.answer(&message);
        let kind = match message.ticket % 5 {
            0 => Kind::FailedWithData,
            _ => Kind::Completed,
        };
        self.publish(&message, kind, &answer);
    }

    pub(super) fn publish(&mut self, message: &Message, kind: Kind, answer: &[u8]) {
        let mut words = [0; RESULT_WORDS];
        let mut ending = Ending::new(kind);
        ending.len = answer.len() as u32;
        ending.start = self.clock.now();
        ending.end = self.clock.now();
        if answer.len() > INLINE_RESULT {
            match self.block(answer.len()) {
                Some(block) => {
                    let room = self.lane.result_mut(block.offset, answer.len()).unwrap();
                    room.copy_from_slice(answer);
                    ending.in_arena = true;
                    words[0] = block.offset;
                }
                None => {
                    ending.kind = Kind::Failed;
                    ending.len = NO_ROOM.len() as u32;
                    words_as_bytes_mut(&mut words)[..NO_ROOM.len()].copy_from_slice(NO_ROOM);
                }
            }
        } else {
            words_as_bytes_mut(&mut words)[..answer.len()].copy_from_slice(answer);
        }
        let slot = message.meta.slot();
        self.lane.up().slots[slot].finish(message.ticket, &ending, &words);
        if self.pending.add(slot) >= 16 {
            self.flush();
        }
    }

    fn block(&mut self, len: usize) -> Option<Block> {
        while let Some(offset) = self.lane.released(self.released) {
            self.released += 1;
            self.arena.free_at(offset);
        }
        let block = self.arena.allocate(len as u64)?;
        if block.offset + len as u64 > self.lane.committed() {
            self.arena.free(block);
            return None;
        }
        Some(block)
    }

    pub(super) fn flush(&mut self) {
        self.pending.flush(&self.lane.up().bitmap);
    }

    /// Hands back what it has not started.
    pub(super) fn hand_back(&mut self, most: usize) {
        let up = self.lane.up();
        up.head.0.store(self.head, Relaxed);
        for _ in 0..most {
            let Some(message) = ring::pop(&self.lane.down().ring, &up.head) else {
                break;
            };
            self.head += 1;
            let ending = Ending::new(Kind::Returned);
            up.slots[message.meta.slot()].finish(message.ticket, &ending, &[0; RESULT_WORDS]);
            if self.pending.add(message.meta.slot()) >= 16 {
                self.pending.flush(&up.bitmap);
            }
        }
        self.pending.flush(&up.bitmap);
    }

    pub(super) fn work(&mut self, steps: u8) {
        for _ in 0..steps {
            self.take();
            self.finish(0);
        }
        self.flush();
    }

    // ---- what no worker should do ----

    pub(super) fn store(&self, word: usize, value: u64) {
        let words = self.lane.words();
        words[word % words.len()].store(value, Release);
    }

    pub(super) fn xor(&self, word: usize, bits: u64) {
        let words = self.lane.words();
        words[word % words.len()].fetch_xor(bits, Release);
    }
}

/// Where the words of a task slot lie, counted from the start of the segment.
pub(super) const SLOTS: usize = 320 / 8;
pub(super) const BITMAP: usize = 256 / 8;
pub(super) const EPOCH: usize = 128 / 8;

pub(super) fn slot_word(slot: usize, word: usize) -> usize {
    SLOTS + (slot % CREDITS) * 32 + word
}

pub(super) const W_TICKET: usize = 0;
pub(super) const W_START: usize = 1;
pub(super) const W_DONE: usize = 8;
pub(super) const W_KIND: usize = 9;
pub(super) const W_CODE: usize = 10;
pub(super) const W_TIMES: usize = 11;
pub(super) const W_RESULT: usize = 13;
