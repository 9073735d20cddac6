//! The records of the segment: plain values on this side, words on the other.

use std::fmt;

/// The buckets of a histogram.
pub(crate) const HISTOGRAM_BUCKETS: usize = 118;
/// The notes that a segment has room for.
pub(crate) const NOTES: usize = 8;

/// A field of a record and the words that it takes in the segment.
trait Field: Copy {
    const WORDS: usize;
    fn put(self, words: &mut [u64]);
    fn get(words: &[u64]) -> Self;
}

impl Field for u64 {
    const WORDS: usize = 1;
    fn put(self, words: &mut [u64]) {
        words[0] = self;
    }
    fn get(words: &[u64]) -> Self {
        words[0]
    }
}

impl Field for u32 {
    const WORDS: usize = 1;
    fn put(self, words: &mut [u64]) {
        words[0] = u64::from(self);
    }
    fn get(words: &[u64]) -> Self {
        // Only a broken writer stores more; a reader must not fail on it.
        Self::try_from(words[0]).unwrap_or(Self::MAX)
    }
}

impl Field for i64 {
    const WORDS: usize = 1;
    fn put(self, words: &mut [u64]) {
        words[0] = self.cast_unsigned();
    }
    fn get(words: &[u64]) -> Self {
        words[0].cast_signed()
    }
}

/// A share of something, or nothing: bit 32 says which.
impl Field for Option<f32> {
    const WORDS: usize = 1;
    fn put(self, words: &mut [u64]) {
        words[0] = self.map_or(0, |share| 1 << 32 | u64::from(share.to_bits()));
    }
    fn get(words: &[u64]) -> Self {
        let bits = words[0].checked_sub(1 << 32)?;
        let share = f32::from_bits(u32::try_from(bits).ok()?);
        share.is_finite().then_some(share)
    }
}

impl<F: Field, const K: usize> Field for [F; K] {
    const WORDS: usize = F::WORDS * K;
    fn put(self, words: &mut [u64]) {
        for (field, words) in self.into_iter().zip(words.chunks_mut(F::WORDS)) {
            field.put(words);
        }
    }
    fn get(words: &[u64]) -> Self {
        std::array::from_fn(|i| F::get(&words[i * F::WORDS..][..F::WORDS]))
    }
}

/// Up to `W * 8` bytes of UTF-8, the rest zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<const W: usize>(pub(super) [u64; W]);

impl<const W: usize> Text<W> {
    /// Keeps what fits of `text`, cut between two characters; a NUL byte ends it.
    pub(crate) fn new(text: &str) -> Self {
        let mut end = text.len().min(W * 8);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let fits = &text.as_bytes()[..end];
        let mut words = [0; W];
        for (word, bytes) in words.iter_mut().zip(fits.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(eight);
        }
        Self(words)
    }
}

impl<const W: usize> Default for Text<W> {
    fn default() -> Self {
        Self([0; W])
    }
}

impl<const W: usize> fmt::Display for Text<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(self.0))
    }
}

impl<const W: usize> fmt::Debug for Text<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", text_of(self.0))
    }
}

impl<const W: usize> Field for Text<W> {
    const WORDS: usize = W;
    fn put(self, words: &mut [u64]) {
        words.copy_from_slice(&self.0);
    }
    fn get(words: &[u64]) -> Self {
        let mut text = [0; W];
        text.copy_from_slice(words);
        Self(text)
    }
}

/// The text in the bytes of `words`, up to the first NUL, in one line. Whoever wrote it, it may be shown on
/// a terminal, which takes orders from control characters.
pub(super) fn text_of(words: impl IntoIterator<Item = u64>) -> String {
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    bytes.truncate(
        bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(bytes.len()),
    );
    let harmless = |c: char| match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    String::from_utf8_lossy(&bytes)
        .chars()
        .map(harmless)
        .collect()
}

/// A plain struct that is kept as `N` words.
pub(super) trait Record<const N: usize>: Copy {
    fn encode(&self) -> [u64; N];
    fn decode(words: &[u64; N]) -> Self;
}

/// Declares a struct of [`Field`]s that is stored as so many words, in the order given.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident in $n:literal words {
            $( $(#[$field_meta:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        $vis struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self::decode(&[0; $n])
            }
        }

        #[cfg(test)]
        impl $name {
            /// A record in which every word is the same.
            #[allow(dead_code, reason = "not every record has a test that needs it")]
            pub(crate) fn filled(word: u64) -> Self {
                Self::decode(&[word; $n])
            }
        }

        const _: () = assert!(0 $( + <$type as Field>::WORDS )* <= $n);

        impl Record<$n> for $name {
            fn encode(&self) -> [u64; $n] {
                let mut words = [0; $n];
                let mut rest = &mut words[..];
                $(
                    let (these, others) = rest.split_at_mut(<$type as Field>::WORDS);
                    self.$field.put(these);
                    rest = others;
                )*
                let _ = rest;
                words
            }

            fn decode(words: &[u64; $n]) -> Self {
                let mut rest = &words[..];
                $(
                    let (these, others) = rest.split_at(<$type as Field>::WORDS);
                    let $field = <$type as Field>::get(these);
                    rest = others;
                )*
                let _ = rest;
                Self { $( $field, )* }
            }
        }
    };
}

record! {
    /// What the supervisor last said about the engine as a whole. What `state` and `memory_state`
    /// mean is the engine's vocabulary.
    pub(crate) struct EngineRecord in 63 words {
        /// When it said so; milliseconds of Unix time.
        at_ms: i64,
        /// The same by `CLOCK_MONOTONIC`, in ns.
        at_ns: u64,
        /// 1: nothing changes until the supervisor is woken, so all this still holds.
        resting: u32,
        /// What the engine is about.
        state: u32,
        /// The library's version.
        version: Text<2>,
        /// The dispatch policy.
        policy: Text<2>,
        /// The scaling policy.
        scaling: Text<2>,
        /// Processors that the host may use.
        cpus: u32,
        /// The share of them in use.
        cpu: Option<f32>,
        /// The share of memory in use.
        memory: Option<f32>,
        /// The share of time in which tasks stood still for lack of memory.
        memory_pressure: Option<f32>,
        /// What the engine does about memory.
        memory_state: u32,
        /// Tasks accepted.
        submitted: u64,
        /// Tasks that ended well.
        completed: u64,
        /// Tasks whose handler reported an error.
        failed: u64,
        /// Tasks that ended with the death of their worker.
        crashed: u64,
        /// Tasks that ran past their deadline.
        timed_out: u64,
        /// Tasks that ended cancelled.
        cancelled: u64,
        /// Submissions refused because something was full.
        would_block: u64,
        /// Tasks handed back unstarted.
        recalled: u64,
        /// Tasks that went from a dead worker to another.
        redispatched: u64,
        /// Starts repeated after a death or a failure.
        retried: u64,
        /// Worker processes started.
        spawned: u64,
        /// Worker processes ended without being asked to.
        died: u64,
        /// Worker processes that the engine ended.
        killed: u64,
        /// Worker processes that were replaced because they were used up.
        recycled: u64,
        /// Worker processes that broke the protocol.
        violations: u64,
        /// Failures of a dispatch policy.
        policy_failures: u64,
        /// Now: tasks that no worker has.
        queued: u64,
        /// Now: tasks on workers.
        on_workers: u64,
        /// Now: completions that nobody has fetched.
        unpolled: u64,
        /// Now: worker processes that are ready.
        workers: u64,
        /// Now: bytes of the payload arena in use.
        payload_bytes: u64,
        /// Bytes of the payload arena.
        payload_capacity: u64,
        /// 1: no worker can be started any more.
        degraded: u32,
    }
}

record! {
    /// What the supervisor last said about one class of workers.
    pub(crate) struct ClassRecord in 63 words {
        /// Worker processes that are ready.
        workers: u32,
        /// Worker processes that are being started.
        starting: u32,
        /// Workers wanted.
        target: u32,
        /// Fewest workers.
        min: u32,
        /// Most workers.
        max: u32,
        /// Threads of each.
        threads: u32,
        /// Tasks that no worker has.
        queued: u64,
        /// Tasks on workers.
        on_workers: u64,
        /// Since when the oldest of the queued tasks waits, in ns of `CLOCK_MONOTONIC`; 0: none does.
        /// Not its age, which grows without a word of the supervisor's.
        oldest_since_ns: u64,
        /// How its workers were placed.
        placement: Text<20>,
        /// 1: no worker can be started, and `why` says why not.
        broken: u32,
        /// See `broken`.
        why: Text<31>,
    }
}

record! {
    /// How long something took, over many times.
    pub(crate) struct HistogramRecord in 127 words {
        /// All of them together, in ns.
        sum_ns: u64,
        /// How many lie in each bucket (the engine's buckets).
        counts: [u64; HISTOGRAM_BUCKETS],
    }
}

record! {
    /// What could not be done as the settings ask; empty texts are none.
    pub(crate) struct NotesRecord in 143 words {
        /// In the order in which they came up.
        texts: [Text<16>; NOTES],
    }
}

record! {
    /// What the supervisor last said about one worker. What `state` and `class` mean is the
    /// engine's vocabulary.
    pub(crate) struct Row in 31 words {
        /// What the worker is doing: starting, ready, draining, ...; 0: there is none.
        state: u32,
        /// Its process id, in the host's pid namespace; 0 if there is none.
        pid: u32,
        /// Which life of this place it is; goes up with every replacement.
        incarnation: u64,
        /// The class of tasks that it takes.
        class: u32,
        /// The threads that run tasks.
        threads: u32,
        /// Tasks that it may hold at once.
        depth: u32,
        /// Tasks handed to it and not started.
        queued: u32,
        /// Tasks started and not settled.
        running: u32,
        /// Tasks ended in this incarnation.
        completed: u64,
        /// Tasks whose handler reported an error.
        failed: u64,
        /// Tasks settled as crashed when earlier incarnations died.
        crashed: u64,
        /// Time spent in handlers, over all its threads.
        busy_ns: u64,
        /// Smoothed service time.
        service_ns: u64,
        /// CPU time as the kernel counts it.
        cpu_ns: u64,
        /// CPU use lately, of 1000 for one processor.
        cpu_permille: u32,
        /// Resident memory.
        rss_bytes: u64,
        /// When this process was started; milliseconds of Unix time.
        started_ms: i64,
    }
}

record! {
    /// One scaling decision and what it was made from.
    pub(crate) struct DecisionRecord in 31 words {
        /// When; milliseconds of Unix time.
        at_ms: i64,
        /// The class of workers.
        class: u32,
        /// What was decided (the engine's vocabulary).
        action: u32,
        /// Workers before.
        before: u32,
        /// Workers wanted.
        after: u32,
        /// Workers that were starting.
        starting: u32,
        /// Threads of the ready workers.
        threads: u32,
        /// Tasks that no worker had.
        queued: u64,
        /// Tasks on workers.
        on_workers: u64,
        /// Age of the oldest task without a worker.
        oldest_ns: u64,
        /// The share of the processors in use.
        cpu: Option<f32>,
        /// The share of memory in use.
        memory: Option<f32>,
        /// Why.
        reason: Text<19>,
    }
}

record! {
    /// The end of one worker, and what it cost.
    pub(crate) struct CrashRecord in 31 words {
        /// When; milliseconds of Unix time.
        at_ms: i64,
        /// Its place in the load table.
        worker: u32,
        /// The process that ended.
        pid: u32,
        /// The class of tasks that it took.
        class: u32,
        /// The signal; 0 if it exited, or if that is unknown.
        signal: u32,
        /// The exit code, if it exited.
        exit_code: u32,
        /// Tasks that it had started.
        started: u32,
        /// Tasks that it had not started and that went elsewhere.
        returned: u32,
        /// How long it lived.
        uptime_ms: u64,
        /// 1: a task is held responsible.
        convicted: u32,
        /// That task: bytes 0 to 7 of its id, big-endian.
        task_high: u64,
        /// Bytes 8 to 15 of that id.
        task_low: u64,
        /// Where it crashed: function and line.
        place: Text<19>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let row = Row {
            state: 3,
            pid: u32::MAX,
            incarnation: u64::MAX,
            busy_ns: 1 << 63,
            started_ms: i64::MIN,
            ..Row::default()
        };
        assert_eq!(Row::decode(&row.encode()), row);
        let crash = CrashRecord {
            at_ms: -1,
            signal: 11,
            convicted: 1,
            place: Text::new("null pointer"),
            ..CrashRecord::default()
        };
        assert_eq!(CrashRecord::decode(&crash.encode()), crash);
        assert_eq!(crash.place.to_string(), "null pointer");
        let decision = DecisionRecord {
            action: 1,
            cpu: Some(0.25),
            reason: Text::new(&"x".repeat(152)),
            ..DecisionRecord::default()
        };
        assert_eq!(DecisionRecord::decode(&decision.encode()), decision);
        assert_ne!(decision.encode()[30], 0, "the last field fills the record");
        let mut histogram = HistogramRecord::default();
        (histogram.sum_ns, histogram.counts[HISTOGRAM_BUCKETS - 1]) = (7, 9);
        let words = histogram.encode();
        assert_eq!((words[0], words[HISTOGRAM_BUCKETS]), (7, 9));
        assert_eq!(HistogramRecord::decode(&words), histogram);
        let mut notes = NotesRecord::default();
        notes.texts[NOTES - 1] = Text::new("the last one");
        assert_eq!(NotesRecord::decode(&notes.encode()), notes);
        assert_ne!(EngineRecord::default(), EngineRecord::filled(1));
        assert_ne!(ClassRecord::default(), ClassRecord::filled(1));
    }

    #[test]
    fn a_share_is_finite_or_there_is_none() {
        let there_and_back = |share: Option<f32>| {
            let mut word = [0];
            share.put(&mut word);
            Option::<f32>::get(&word)
        };
        for share in [None, Some(0.0), Some(0.5), Some(-1.0), Some(f32::MAX)] {
            assert_eq!(there_and_back(share), share);
        }
        assert_eq!(there_and_back(Some(f32::NAN)), None);
        for nonsense in [1, u64::from(u32::MAX), u64::MAX, 1 << 33] {
            assert_eq!(Option::<f32>::get(&[nonsense]), None, "{nonsense:#x}");
        }
    }

    #[test]
    fn a_text_gives_a_terminal_no_orders() {
        let shown = |text: &str| Text::<4>::new(text).to_string();
        assert_eq!(shown("no\thuge\r\npages"), "no huge  pages");
        assert_eq!(
            shown("\x1b[2Jx\x7f\u{9b}1m"),
            "\u{fffd}[2Jx\u{fffd}\u{fffd}1m"
        );
        assert_eq!(shown("gr\u{fc}n"), "gr\u{fc}n");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(Text::<1>::new("12345678").to_string(), "12345678");
        assert_eq!(Text::<1>::new("1234567\u{e4}").to_string(), "1234567");
        assert_eq!(Text::<2>::new("").to_string(), "");
    }

    #[test]
    fn a_word_that_is_too_large_is_clamped() {
        assert_eq!(Row::decode(&[u64::MAX; 31]).pid, u32::MAX);
    }
}
