//! The records of the segment: plain values on this side, words on the other.

use std::fmt;

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

/// The text in the bytes of `words`, up to the first NUL.
pub(super) fn text_of(words: impl IntoIterator<Item = u64>) -> String {
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    bytes.truncate(
        bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(bytes.len()),
    );
    String::from_utf8_lossy(&bytes).into_owned()
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
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        $vis struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
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
    /// What the supervisor last said about one worker. What `state`, `class` and `kind` mean is
    /// the engine's vocabulary.
    pub(crate) struct Row in 31 words {
        /// What the worker is doing: starting, ready, draining, dead, ...
        state: u32,
        /// Its process id, in the host's pid namespace; 0 if there is none.
        pid: u32,
        /// Which life of this place it is; goes up with every replacement.
        incarnation: u64,
        /// The class of tasks that it takes.
        class: u32,
        /// Handler, program or a language runtime's own child.
        kind: u32,
        /// The threads that run tasks.
        threads: u32,
        /// Tasks that it may hold at once.
        credits: u32,
        /// Tasks handed to it and not started.
        queued: u32,
        /// Tasks started and not settled.
        running: u32,
        /// Tasks handed to it in this incarnation.
        dispatched: u64,
        /// Tasks completed in this incarnation.
        completed: u64,
        /// Tasks whose handler reported an error.
        failed: u64,
        /// Tasks settled as crashed when earlier incarnations died.
        crashed: u64,
        /// Tasks settled as timed out.
        timed_out: u64,
        /// Tasks that ended cancelled.
        cancelled: u64,
        /// Tasks recalled from it before they started.
        returned: u64,
        /// Time spent in handlers, over all its threads.
        busy_ns: u64,
        /// Service time of the task that it finished last.
        last_service_ns: u64,
        /// Smoothed service time.
        mean_service_ns: u64,
        /// CPU time as the kernel counts it.
        cpu_ns: u64,
        /// Resident memory.
        rss_bytes: u64,
        /// How often this place has lost its process.
        deaths: u32,
        /// The signal that ended the last one; 0 if none did, or none has ended.
        last_signal: u32,
        /// When this process was started; milliseconds of Unix time.
        started_ms: i64,
        /// Since when it has been in `state`; milliseconds of Unix time.
        since_ms: i64,
        /// When it last finished a task; milliseconds of Unix time, 0 for never.
        last_done_ms: i64,
    }
}

record! {
    /// One scaling decision and what it was made from.
    pub(crate) struct DecisionRecord in 15 words {
        /// When; milliseconds of Unix time.
        at_ms: i64,
        /// The class of workers.
        class: u32,
        /// What was decided (the engine's vocabulary).
        action: u32,
        /// Why (the engine's vocabulary).
        reason: u32,
        /// Workers before.
        before: u32,
        /// Workers wanted.
        after: u32,
        /// Of those before, how many were still starting.
        starting: u32,
        /// Threads of the ready workers.
        threads: u32,
        /// Tasks waiting.
        queued: u32,
        /// Tasks running.
        running: u32,
        /// Age of the oldest waiting task.
        oldest_us: u64,
        /// CPU in use, of 1000.
        cpu_permille: u32,
        /// Memory in use, of 1000.
        memory_permille: u32,
        /// How long no further action is taken.
        cooldown_ms: u32,
        /// Belongs to `reason`.
        detail: u64,
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
        /// Which life of the place it was.
        incarnation: u64,
        /// The class of tasks that it took.
        class: u32,
        /// What ended it: a signal, an exit, a kill for a deadline, a violation, ...
        kind: u32,
        /// The signal; 0 if it exited, or if that is unknown.
        signal: u32,
        /// The exit code, if it exited.
        exit_code: u32,
        /// The address that a memory fault named.
        fault_address: u64,
        /// Tasks that it had started.
        started: u32,
        /// Tasks that it had not started and that went elsewhere.
        returned: u32,
        /// How long it lived.
        uptime_ms: u64,
        /// The task held responsible: bytes 0 to 7 of its id, big-endian; 0 if none is.
        task_high: u64,
        /// Bytes 8 to 15 of that id.
        task_low: u64,
        /// 1 if that task is convicted, 0 if it is a suspect.
        convicted: u32,
        /// What else is known, as text.
        text: Text<16>,
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
            since_ms: -1,
            last_done_ms: i64::MAX,
            ..Row::default()
        };
        assert_eq!(Row::decode(&row.encode()), row);
        let crash = CrashRecord {
            at_ms: 1,
            signal: 11,
            convicted: 1,
            text: Text::new("null pointer"),
            ..CrashRecord::default()
        };
        assert_eq!(CrashRecord::decode(&crash.encode()), crash);
        assert_eq!(crash.text.to_string(), "null pointer");
        let decision = DecisionRecord {
            action: 1,
            detail: 7,
            ..DecisionRecord::default()
        };
        assert_eq!(DecisionRecord::decode(&decision.encode()), decision);
        assert_eq!(decision.encode()[14], 7, "the last field fills the record");
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
