//! A logger that queues what it is told, for somebody to fetch.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::{Log, Metadata, Record};

use crate::ffi::per_process::PerProcess;
use crate::sys::sync::lock;

/// Messages that can wait; when there are that many, the newest are dropped.
const CAPACITY: usize = 1024;

/// The logger of a process that wants to fetch messages: its queue, if it has one. A forked child
/// has none of its own, so it neither locks nor queues anything, whatever logs in it.
pub(crate) struct Logger(PerProcess<Queue>);

impl Logger {
    pub(crate) const fn new() -> Self {
        Self(PerProcess::new())
    }

    /// The queue of this process, made if need be.
    pub(crate) fn queue(&self) -> crate::error::Result<&'static Queue> {
        self.0.get_or_make(Queue::new)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && self.0.get().is_some()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some(queue) = self.0.get()
        {
            queue.push(Message::of(record));
        }
    }

    fn flush(&self) {}
}

/// Messages that wait, and who waits for them.
pub(crate) struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    messages: VecDeque<Message>,
    /// Messages dropped since the last one that was queued.
    dropped: u64,
    /// Waits that are to end without a message.
    wakes: u64,
}

/// One message, no longer than whoever fetches it can take.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) level: log::Level,
    pub(crate) time: SystemTime,
    /// Messages that were dropped before it.
    pub(crate) dropped: u64,
    pub(crate) target: Text<{ Self::TARGET }>,
    pub(crate) text: Text<{ Self::TEXT }>,
}

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoMessage {
    Timeout,
    Woken,
}

impl Queue {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                messages: VecDeque::new(),
                dropped: 0,
                wakes: 0,
            }),
            news: Condvar::new(),
        }
    }

    fn push(&self, mut message: Message) {
        let mut state = lock(&self.state);
        if state.messages.len() >= CAPACITY {
            state.dropped += 1;
            return;
        }
        message.dropped = std::mem::take(&mut state.dropped);
        state.messages.push_back(message);
        drop(state);
        self.news.notify_one();
    }

    /// The oldest message, waiting for one at most `timeout` (`None`: for ever).
    pub(crate) fn pop(&self, timeout: Option<Duration>) -> Result<Message, NoMessage> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let waits = timeout != Some(Duration::ZERO);
        let mut state = lock(&self.state);
        loop {
            if waits && state.wakes > 0 {
                state.wakes -= 1;
                return Err(NoMessage::Woken);
            }
            if let Some(message) = state.messages.pop_front() {
                return Ok(message);
            }
            state = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Err(NoMessage::Timeout),
                Some(left) => {
                    let woken = self.news.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.news.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// The oldest message, waiting for one; `None` if there is none and `over` has been set, which
    /// [`Queue::finish`] does.
    pub(crate) fn next(&self, over: &AtomicBool) -> Option<Message> {
        let mut state = lock(&self.state);
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Some(message);
            }
            // Relaxed: the lock orders it.
            if over.load(Ordering::Relaxed) {
                return None;
            }
            state = (self.news.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sets `over`, and tells who waits in [`Queue::next`].
    pub(crate) fn finish(&self, over: &AtomicBool) {
        let state = lock(&self.state);
        over.store(true, Ordering::Relaxed); // the lock orders it
        drop(state);
        self.news.notify_all();
    }

    /// Ends one wait, or the next one if nobody waits.
    pub(crate) fn wake(&self) {
        lock(&self.state).wakes += 1;
        self.news.notify_all(); // one may be in `next`, which this does not concern
    }
}

impl Message {
    /// Bytes of a target and of a text that are kept; C needs one more for its NUL.
    pub(crate) const TARGET: usize = 95;
    pub(crate) const TEXT: usize = 3583;

    /// Made without a lock: what is formatted may log as well.
    fn of(record: &Record<'_>) -> Self {
        Self {
            level: record.level(),
            time: SystemTime::now(),
            dropped: 0,
            target: Text::of(format_args!("{}", record.target())),
            text: Text::of(*record.args()),
        }
    }
}

/// A text of which at most `MAX` bytes are kept, cut between two characters, and no NUL.
#[derive(Debug, Default)]
pub(crate) struct Text<const MAX: usize> {
    kept: String,
    /// Bytes of the whole text.
    len: usize,
}

impl<const MAX: usize> Text<MAX> {
    fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self::default();
        // An implementation of Display that fails has said what is kept.
        let _ = text.write_fmt(args);
        text
    }

    pub(crate) fn kept(&self) -> &str {
        &self.kept
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl<const MAX: usize> Write for Text<MAX> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split('\0') {
            if self.kept.len() == self.len {
                // Nothing was cut so far.
                let end = piece.floor_char_boundary(MAX - self.kept.len());
                self.kept.push_str(&piece[..end]);
            }
            self.len += piece.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{Fork, exit, fork};
    use crate::sys::process::{Exit, Process};

    fn message(text: &str) -> Message {
        let mut record = Record::builder();
        record.level(log::Level::Warn).target("here");
        Message::of(&record.args(format_args!("{text}")).build())
    }

    #[test]
    fn texts_are_cut_between_characters_and_have_no_nul() {
        let text = Text::<5>::of(format_args!("{}{}", "ab", "cd\u{e9}f"));
        assert_eq!((text.kept(), text.len()), ("abcd", 7));
        let whole = Text::<5>::of(format_args!("a\0b\0\0{}", "cde"));
        assert_eq!((whole.kept(), whole.len()), ("abcde", 5));
        let later = Text::<2>::of(format_args!("{}{}", "\u{e9}\u{e9}", "x"));
        assert_eq!((later.kept(), later.len()), ("\u{e9}", 5));
    }

    #[test]
    fn the_newest_messages_are_dropped_and_counted_when_the_queue_is_full() {
        let queue = Queue::new();
        for number in 0..CAPACITY + 3 {
            queue.push(message(&number.to_string()));
        }
        let next = || queue.pop(Some(Duration::ZERO));
        let first = next().unwrap();
        assert_eq!((first.text.kept(), first.dropped), ("0", 0));
        queue.push(message("later"));
        for number in 1..CAPACITY {
            let message = next().unwrap();
            assert_eq!(
                (message.text.kept(), message.dropped),
                (&*number.to_string(), 0)
            );
        }
        let later = next().unwrap();
        assert_eq!((later.text.kept(), later.dropped), ("later", 3));
        assert_eq!(next().unwrap_err(), NoMessage::Timeout);
    }

    #[test]
    fn a_wake_ends_one_wait_and_leaves_the_messages() {
        const SOON: Option<Duration> = Some(Duration::from_millis(1));
        let queue = Queue::new();
        assert_eq!(queue.pop(SOON).unwrap_err(), NoMessage::Timeout);
        queue.push(message("kept"));
        queue.wake();
        queue.wake();
        for _ in 0..2 {
            assert_eq!(queue.pop(None).unwrap_err(), NoMessage::Woken);
        }
        queue.wake(); // does not concern who does not wait
        assert_eq!(queue.pop(Some(Duration::ZERO)).unwrap().text.kept(), "kept");
        assert_eq!(queue.pop(SOON).unwrap_err(), NoMessage::Woken);
        std::thread::scope(|scope| {
            let waiters = [(); 2].map(|()| scope.spawn(|| queue.pop(None).map(drop)));
            queue.push(message("one"));
            queue.wake();
            let mut ends = waiters.map(|waiter| waiter.join().unwrap());
            ends.sort_by_key(Result::is_err);
            assert_eq!(ends, [Ok(()), Err(NoMessage::Woken)]);
        });
    }

    #[test]
    fn a_forked_child_neither_waits_for_the_parents_lock_nor_queues() {
        static LOGGER: Logger = Logger::new();
        let queue = LOGGER.queue().unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let args = format_args!("from the child");
        let record = Record::builder()
            .level(log::Level::Error)
            .args(args)
            .build();
        assert!(LOGGER.enabled(record.metadata()));
        let locked = lock(&queue.state);
        // SAFETY: the child calls what takes no lock, which is what is tested, and exits.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                LOGGER.log(&record);
                exit(i32::from(LOGGER.enabled(record.metadata())));
            }
            Fork::Parent(pid) => {
                let child = Process::of_child(pid).unwrap();
                let ended = child.wait_end(Duration::from_secs(10));
                if !ended {
                    child.kill();
                }
                assert_eq!((ended, child.reap()), (true, Exit::Code(0)));
            }
        }
        drop(locked);
        assert_eq!(
            queue.pop(Some(Duration::ZERO)).unwrap_err(),
            NoMessage::Timeout
        );
    }
}
