//! What no worker should write.
#![forbid(unsafe_code)]

use super::double::*;
use super::*;

impl World {
    /// A slot: of a task that is out, of one that was, or any.
    fn slot(&self, worker: u32, which: u8) -> usize {
        if which < 160
            && let Some(lane) = &self.core.lanes[worker as usize]
        {
            let out = (0..CREDITS).filter_map(|slot| lane.collector.outstanding_at(slot));
            let count = lane.load() as usize;
            if let Some((slot, _)) = out.clone().nth(usize::from(which) % count.max(1)) {
                return usize::from(slot);
            }
        }
        if which < 200 && self.last_early.0 == worker {
            return usize::from(self.last_early.1);
        }
        (usize::from(which) * 11) % CREDITS
    }

    /// A ticket: the right one, one that will be, another lane's, an old one, or nonsense.
    fn ticket(&self, worker: u32, slot: usize, which: u8) -> u64 {
        let lane = self.core.lanes[worker as usize].as_ref();
        let right = lane.and_then(|lane| lane.collector.outstanding_at(slot));
        let honest = self.core.lanes[HONEST as usize].as_ref();
        let past = &self.doubles[worker as usize].as_ref().unwrap().past;
        let newest = past.last().map_or(0, |p| p.0);
        match which {
            0..128 => right.map_or(newest, |r| r.1),
            128..160 => newest + u64::from(which & 15),
            160..192 => (0..CREDITS)
                .filter_map(|s| honest?.collector.outstanding_at(s))
                .nth(usize::from(which & 7))
                .map_or(1, |r| r.1),
            192..224 => past
                .get(usize::from(which & 31))
                .map_or(newest.wrapping_sub(1), |p| p.0),
            224..240 => 0,
            _ => u64::MAX - u64::from(which & 1),
        }
    }

    fn time(&self, which: u8) -> u64 {
        let now = self.clock.now();
        let ms = self.clock.ticks(Duration::from_millis(1));
        match which % 8 {
            0 => 0,
            1 => now,
            2 => now + ms * 3_600_000,
            3 => u64::MAX,
            4 => now.wrapping_sub(ms * 3_600_000),
            5 => now.wrapping_sub(u64::from(which)),
            6 => 1 << 63,
            _ => u64::from(which) << 40,
        }
    }

    /// Kind, place and length in one word, as `TaskSlot::finish` packs them.
    pub(super) fn kind(which: [u8; 2]) -> u64 {
        let kind = match which[0] {
            0..160 => 0,
            160..176 => 1,
            176..192 => 5,
            192..208 => 4,
            208..224 => 7,
            other => u64::from(other),
        };
        let in_arena = which[1] & 1 != 0;
        let place = u64::from(in_arena) << 8;
        // Bits that mean nothing are not looked at.
        let nonsense = if which[0] & 7 == 7 { 0xabcd << 12 } else { 0 };
        let len = match which[1] >> 1 & 31 {
            0 => 0,
            1 => 1,
            2 => 48,
            3 => 49,
            4 => INLINE_RESULT as u64,
            5 => INLINE_RESULT as u64 + 1,
            6 => 511,
            7 => 512,
            8 => 4096,
            9 => MAX_RESULT - 1,
            10 => MAX_RESULT,
            11 => MAX_RESULT + 1,
            12 => u64::from(u32::MAX),
            13 => 1 << 31,
            14 => u64::from(which[0]),
            _ if in_arena => 700,
            _ => 40,
        };
        kind | place | nonsense | len << 32
    }

    fn offset(&self, worker: u32, which: u8) -> u64 {
        let committed = self.doubles[worker as usize]
            .as_ref()
            .unwrap()
            .lane
            .committed();
        match which % 32 {
            0 => 0,
            1 => 8,
            2 => committed - 8,
            3 => committed - 512,
            4 => committed - MAX_RESULT,
            5 => committed - 704,
            6 => 4,
            7 => committed,
            8 => committed - MAX_RESULT + 8,
            9 => u64::MAX,
            10 => u64::MAX - 7,
            11 => u64::MAX - RESULTS_OFFSET + 1,
            12 => RESULT_ARENA,
            13 => RESULT_ARENA - 8,
            14 => 1 << 63,
            _ => u64::from(which) << 8,
        }
    }

    pub(super) fn mutate(&mut self, code: u8, worker: u32, args: [u8; 4]) {
        let [a, b, c, d] = args;
        let slot = self.slot(worker, a);
        let ticket = self.ticket(worker, slot, b);
        let offset = self.offset(worker, c);
        let (from, to) = (self.time(c), self.time(d));
        let published = self.core.lanes[worker as usize]
            .as_ref()
            .map_or(0, Lane::published);
        let double = self.doubles[worker as usize].as_mut().unwrap();
        match code {
            op::SIGNALS => {
                let count = [1, 2, u64::from(b), u64::MAX - 1][usize::from(a) % 4];
                self.core.note_signals(worker as usize, count);
            }
            op::WORD => {
                let word = usize::from(u16::from_le_bytes([a, b]));
                match c % 5 {
                    0 => double.store(word, u64::from(d)),
                    1 => double.store(word, u64::MAX),
                    2 => double.xor(word, 1 << (d % 64)),
                    3 => double.store(word, u64::from(d) << 56 | u64::from(d)),
                    _ => double.store(word, ticket),
                }
            }
            op::BURST => {
                let mut state = u64::from(u32::from_le_bytes(args)) | 1 << 40;
                for _ in 0..=a % 32 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    double.store(state as usize >> 8, state.rotate_left(29));
                }
            }
            op::TICKET => {
                double.store(slot_word(slot, W_START), from);
                double.store(slot_word(slot, W_TICKET), ticket);
            }
            op::DONE => double.store(slot_word(slot, W_DONE), ticket),
            op::KIND => double.store(slot_word(slot, W_KIND), Self::kind([b, c])),
            op::OFFSET => double.store(slot_word(slot, W_RESULT), offset),
            op::TIMES => {
                double.store(slot_word(slot, W_TIMES), from);
                double.store(slot_word(slot, W_TIMES + 1), to);
            }
            op::FLIP => {
                for _ in 0..=b % 3 {
                    double.xor(BITMAP + slot / 64, 1 << (slot % 64));
                }
            }
            op::FLIPS => {
                let bits = u64::from(u32::from_le_bytes(args)).wrapping_mul(0x1_0000_0001);
                double.xor(BITMAP + usize::from(a) % 8, bits);
            }
            op::HEAD => {
                let head = match a % 6 {
                    0 => 0,
                    1 => published + 1,
                    2 => published,
                    3 => double.head.wrapping_sub(u64::from(b)),
                    4 => u64::MAX,
                    _ => double.head + u64::from(b & 3),
                };
                double.lane.up().head.0.store(head, Release);
            }
            op::EPOCH => double.store(EPOCH, u64::from(u32::from_le_bytes(args))),
            op::FORGE => {
                // A whole completion: mostly well-formed, so that it is taken.
                double.store(slot_word(slot, W_KIND), Self::kind([b, c]));
                double.store(slot_word(slot, W_CODE), u64::from(d) << 24);
                double.store(slot_word(slot, W_TIMES), to);
                double.store(slot_word(slot, W_TIMES + 1), from);
                let offset = self.offset(worker, d >> 1);
                let double = self.doubles[worker as usize].as_mut().unwrap();
                double.store(slot_word(slot, W_RESULT), offset);
                let right = self.ticket(worker, slot, 0);
                let double = self.doubles[worker as usize].as_mut().unwrap();
                double.store(slot_word(slot, W_DONE), right);
                double.in_hand.retain(|m| m.ticket != right);
                if d & 1 == 0 {
                    double.xor(BITMAP + slot / 64, 1 << (slot % 64));
                }
            }
            op::TWICE => {
                // One block for two completions.
                for _ in 0..2 {
                    if double.in_hand.is_empty() && !double.take() {
                        break;
                    }
                    let Some(message) = double.in_hand.pop() else {
                        break;
                    };
                    let mut ending = Ending::new(Kind::Completed);
                    ending.in_arena = true;
                    ending.len = 153 + u32::from(d) * 16;
                    let mut words = [0; RESULT_WORDS];
                    words[0] = u64::from(c) * 8;
                    let slot = message.meta.slot();
                    double.lane.up().slots[slot].finish(message.ticket, &ending, &words);
                    double.pending.add(slot);
                }
                double.flush();
            }
            op::RETURN => {
                // Unasked, and sometimes what it has started.
                if a & 1 == 0 {
                    double.hand_back(1 + usize::from(b));
                } else if let Some(message) = double.in_hand.pop() {
                    if b & 1 == 0 {
                        double.store(slot_word(message.meta.slot(), W_TICKET), 0);
                    }
                    double.publish(&message, Kind::Returned, &[]);
                    double.flush();
                }
            }
            _ => unreachable!("no such operation: {code}"),
        }
    }
}
