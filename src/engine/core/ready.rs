//! The workers of a class that take tasks, and the least loaded one among many of them without a
//! look at each.
//!
//! Few workers are looked at one by one, which no index beats. Many are kept in bitmaps, one per
//! load level, so that a choice costs a handful of bit scans however many there are. It knows
//! numbers only; what a worker's load is, its owner says whenever that may have changed.
#![forbid(unsafe_code)]

/// Up to so many workers there is no index.
pub(crate) const FEW: usize = 8;
/// One more than the highest worker number.
const WORKERS: usize = 1024;
const WORDS: usize = WORKERS / 64;
/// Loads from the last level on count as equal.
const LEVELS: usize = 64;
/// Not in any level: has no room.
const NONE: u8 = u8::MAX;
/// Not in any level: is none of the ready workers.
const ABSENT: u8 = u8::MAX - 1;
const LAST: u8 = 63;
const _: () = assert!(LAST as usize == LEVELS - 1);
/// How many workers of the lowest level are looked at for one that is awake.
const PROBES: usize = 2;

/// What the owner says about a worker that the index proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It has room, and takes a task without being woken.
    Awake,
    /// It has room.
    Asleep,
    /// It has no room after all.
    Full,
}

/// The ready workers, in the order in which they became so.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    workers: Vec<u32>,
    /// Where the rotation stands: a place in the list, or a worker number with an index.
    pub(crate) turn: usize,
    index: Option<Box<Index>>,
}

impl Ready {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    #[inline]
    pub(crate) fn workers(&self) -> &[u32] {
        &self.workers
    }

    /// Whether there are so many that their loads must be told by [`Ready::note`].
    #[inline]
    pub(crate) fn is_indexed(&self) -> bool {
        self.index.is_some()
    }

    /// Panics if the index does not say what `load` says, or more.
    #[cfg(debug_assertions)]
    pub(crate) fn assert_holds(&self, load: impl Fn(u32) -> Option<u32>) {
        let Some(index) = &self.index else { return };
        let present = index.level_of.iter().filter(|&&level| level != ABSENT);
        assert_eq!(present.count(), self.workers.len());
        for &worker in &self.workers {
            let expected = load(worker).map_or(NONE, level);
            assert_eq!(
                index.level_of[worker as usize % WORKERS],
                expected,
                "worker {worker}"
            );
        }
    }

    /// True if the owner must now tell the load of every worker.
    #[must_use]
    pub(crate) fn add(&mut self, worker: u32) -> bool {
        if !self.workers.contains(&worker) {
            self.workers.push(worker);
        }
        if let Some(index) = &mut self.index {
            index.admit(worker);
            return false;
        }
        if self.workers.len() <= FEW {
            return false;
        }
        let mut index = Box::<Index>::default();
        for &worker in &self.workers {
            index.admit(worker);
        }
        self.index = Some(index);
        true
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, worker: u32) -> bool {
        let before = self.workers.len();
        self.workers.retain(|&other| other != worker);
        if self.workers.len() <= FEW {
            self.index = None;
        }
        if let Some(index) = &mut self.index {
            index.dismiss(worker);
        }
        self.workers.len() != before
    }

    /// The load of a worker; `None` if it has no room. Of one that is not ready (any more: what it has
    /// ended is still collected) it counts for nothing.
    #[inline]
    pub(crate) fn note(&mut self, worker: u32, load: Option<u32>) {
        if let Some(index) = &mut self.index {
            index.note(worker, load);
        }
    }

    /// The least loaded worker with room; among equals the next one in turn, rather one that is
    /// awake. Only with an index.
    pub(crate) fn least_loaded(&mut self, fit: impl FnMut(u32) -> Fit) -> Option<u32> {
        let worker = self.index.as_ref()?.least_loaded(self.turn, fit)?;
        self.turn = worker as usize + 1;
        Some(worker)
    }

    /// The next worker in turn that has room. Only with an index.
    pub(crate) fn next_in_turn(&mut self, fit: impl FnMut(u32) -> Fit) -> Option<u32> {
        let worker = self.index.as_ref()?.next_in_turn(self.turn, fit)?;
        self.turn = worker as usize + 1;
        Some(worker)
    }
}

/// Loads of up to [`WORKERS`] workers.
#[derive(Debug)]
struct Index {
    /// Those with room, by load.
    levels: [Bitmap; LEVELS],
    /// Levels that are not empty, a bit each.
    used: u64,
    /// All of them.
    with_room: Bitmap,
    /// The level of each worker.
    level_of: [u8; WORKERS],
}

impl Default for Index {
    fn default() -> Self {
        Self {
            levels: [Bitmap::default(); LEVELS],
            used: 0,
            with_room: Bitmap::default(),
            level_of: [ABSENT; WORKERS],
        }
    }
}

impl Index {
    fn admit(&mut self, worker: u32) {
        let level = &mut self.level_of[worker as usize % WORKERS];
        if *level == ABSENT {
            *level = NONE;
        }
    }

    fn dismiss(&mut self, worker: u32) {
        self.note(worker, None);
        self.level_of[worker as usize % WORKERS] = ABSENT;
    }

    #[inline]
    fn note(&mut self, worker: u32, load: Option<u32>) {
        let level = load.map_or(NONE, level);
        let worker = worker as usize % WORKERS;
        let before = self.level_of[worker];
        if before == level || before == ABSENT {
            return;
        }
        self.level_of[worker] = level;
        if let Some(bitmap) = self.levels.get_mut(usize::from(before)) {
            bitmap.remove(worker);
            if bitmap.used == 0 {
                self.used &= !(1 << before);
            }
        }
        if let Some(bitmap) = self.levels.get_mut(usize::from(level)) {
            bitmap.insert(worker);
            self.used |= 1 << level;
            self.with_room.insert(worker);
        } else {
            self.with_room.remove(worker);
        }
    }

    fn least_loaded(&self, turn: usize, mut fit: impl FnMut(u32) -> Fit) -> Option<u32> {
        let mut levels = self.used;
        while levels != 0 {
            let level = levels.trailing_zeros() as usize;
            levels &= levels - 1;
            let mut asleep = None;
            let mut probes = 0;
            for worker in self.levels[level].from(turn) {
                match fit(worker) {
                    Fit::Awake => return Some(worker),
                    Fit::Asleep => {
                        asleep = asleep.or(Some(worker));
                        probes += 1;
                        if probes == PROBES {
                            break;
                        }
                    }
                    Fit::Full => {}
                }
            }
            if asleep.is_some() {
                return asleep;
            }
        }
        None
    }

    fn next_in_turn(&self, turn: usize, mut fit: impl FnMut(u32) -> Fit) -> Option<u32> {
        self.with_room
            .from(turn)
            .find(|&worker| fit(worker) != Fit::Full)
    }
}

#[inline]
fn level(load: u32) -> u8 {
    u8::try_from(load).map_or(LAST, |load| load.min(LAST))
}

/// A set of worker numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Bitmap {
    words: [u64; WORDS],
    /// Words that are not 0, a bit each.
    used: u32,
}

impl Bitmap {
    #[inline]
    fn insert(&mut self, worker: usize) {
        self.words[worker / 64] |= 1 << (worker % 64);
        self.used |= 1 << (worker / 64);
    }

    #[inline]
    fn remove(&mut self, worker: usize) {
        let word = &mut self.words[worker / 64];
        *word &= !(1 << (worker % 64));
        if *word == 0 {
            self.used &= !(1 << (worker / 64));
        }
    }

    /// All members, beginning with the first that is not below `start`, once around.
    #[inline]
    fn from(&self, start: usize) -> impl Iterator<Item = u32> {
        let start = if start < WORKERS { start } else { 0 };
        let (first, bit) = (start / 64, start % 64);
        // The bits of the first word below `start` come last.
        let head = self.words[first] & (!0 << bit);
        let tail = self.words[first] & !(!0 << bit);
        let others = self.used & !(1 << first);
        let (behind, before) = (others >> first << first, others & !(!0 << first));
        bits(head)
            .map(move |b| first * 64 + b)
            .chain(self.members(behind))
            .chain(self.members(before))
            .chain(bits(tail).map(move |b| first * 64 + b))
            .map(|worker| u32::try_from(worker).unwrap_or(0))
    }

    #[inline]
    fn members(&self, words: u32) -> impl Iterator<Item = usize> {
        bits(u64::from(words)).flat_map(|word| bits(self.words[word]).map(move |b| word * 64 + b))
    }
}

/// The numbers of the bits that are set, from the lowest.
#[inline]
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "small numbers of a test; a bench has this module without them"
)]
mod tests {
    use super::*;

    fn ready(count: u32) -> Ready {
        let mut ready = Ready::default();
        for worker in 0..count {
            let _ = ready.add(worker);
        }
        for worker in 0..count {
            ready.note(worker, Some(0));
        }
        ready
    }

    #[test]
    fn the_index_agrees_with_a_look_at_every_worker() {
        let mut ready = ready(1000);
        let mut loads = vec![Some(0); 1000];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let worker = (seed >> 33) as usize % loads.len();
            loads[worker] = [None, Some((seed >> 50) as u32 % 7)][(seed >> 20) as usize % 2];
            ready.note(worker as u32, loads[worker]);
            let turn = ready.turn;
            let least = loads.iter().flatten().min().copied();
            let order = (turn..1000).chain(0..turn.min(1000));
            let expected = order
                .into_iter()
                .find(|&w| loads[w] == least && least.is_some());
            let chosen = ready.least_loaded(|_| Fit::Awake);
            assert_eq!(chosen.map(|w| w as usize), expected);
        }
    }

    #[test]
    fn equals_are_chosen_in_turn_once_around() {
        for count in [9, 64, 65, 1024] {
            let mut ready = ready(count);
            let chosen: Vec<u32> = (0..2 * count)
                .map(|_| ready.least_loaded(|_| Fit::Awake).unwrap())
                .collect();
            let expected: Vec<u32> = (0..count).chain(0..count).collect();
            assert_eq!(chosen, expected);
            let chosen: Vec<u32> = (0..count)
                .map(|_| ready.next_in_turn(|_| Fit::Awake).unwrap())
                .collect();
            assert_eq!(chosen, expected[..count as usize]);
        }
    }

    #[test]
    fn a_worker_that_is_awake_is_preferred_and_a_full_one_passed_over() {
        let mut ready = ready(9);
        let fit = |worker| match worker {
            0 => Fit::Full,
            2 => Fit::Awake,
            _ => Fit::Asleep,
        };
        assert_eq!(ready.least_loaded(fit), Some(2));
        assert_eq!(ready.least_loaded(|_| Fit::Full), None);
        assert_eq!(ready.least_loaded(|_| Fit::Asleep), Some(3));
    }

    #[test]
    fn what_is_said_of_a_worker_that_is_not_ready_counts_for_nothing() {
        let mut ready = ready(12);
        assert!(ready.remove(3));
        for worker in [3, 12, 1023] {
            ready.note(worker, Some(0));
        }
        for chosen in [
            Ready::least_loaded as fn(&mut Ready, fn(u32) -> Fit) -> Option<u32>,
            Ready::next_in_turn,
        ] {
            let seen: Vec<u32> = (0..24)
                .map(|_| chosen(&mut ready, |_| Fit::Awake).unwrap())
                .collect();
            assert!(seen.iter().all(|&worker| worker < 12 && worker != 3));
        }
        assert!(!ready.add(3));
        for worker in 0..12 {
            ready.note(worker, Some(u32::from(worker != 3)));
        }
        assert_eq!(ready.least_loaded(|_| Fit::Awake), Some(3), "it is back");
    }

    #[test]
    fn workers_that_left_are_never_chosen_whatever_the_turn() {
        let mut ready = ready(20);
        ready.turn = usize::MAX;
        for worker in (0..20).rev() {
            assert!(ready.remove(worker) && !ready.remove(worker));
            if ready.is_indexed() {
                assert!(ready.least_loaded(|_| Fit::Awake).unwrap() < worker);
                assert!(ready.next_in_turn(|_| Fit::Awake).unwrap() < worker);
                ready.turn = worker as usize;
            }
        }
        assert!(ready.is_empty());
    }
}
