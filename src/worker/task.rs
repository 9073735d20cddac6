//! What user code in a worker sees of a task.
#![forbid(unsafe_code)]

use std::fmt;

use crate::error::{Error, Result};
use crate::shm::arena::Block;
use crate::shm::layout::RESULT_WORDS;
use crate::shm::segments::{words_as_bytes, words_as_bytes_mut};
use crate::shm::slot::{Ending, Kind};
use crate::sys::sync::Ordering;
use crate::sys::view::View;
use crate::task::{Class, Label, TaskId};
use crate::worker::lane::{Hand, Lane, Started};

/// The code of a task whose handler panicked; the same number as `MF_E_INTERNAL`.
pub(crate) const CODE_PANIC: i32 = -10;

/// Why a task failed: a code of the handler's own choice, and a text for people or data for a
/// program.
///
/// Every error type converts into a failure with code 1, so `?` works in a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: i32,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Text(String),
    Data(Vec<u8>),
}

impl Failure {
    /// A failure; a `code` of 0 would mean success and is taken as 1.
    pub fn new(code: i32, text: impl Into<String>) -> Self {
        Self {
            code: not_zero(code),
            what: What::Text(text.into()),
        }
    }

    /// A failure whose data come back as they are
    /// ([`Completion::failed_with_data`](crate::Completion::failed_with_data)): as many bytes as a
    /// result may have, else a text takes their place. [`Task::fail_with_data`] saves a copy, and
    /// says whether there is room.
    pub fn with_data(code: i32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            code: not_zero(code),
            what: What::Data(data.into()),
        }
    }

    /// The code, never 0.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The text; empty if there are data instead.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.what {
            What::Text(text) => text,
            What::Data(_) => "",
        }
    }

    /// The data, if there are any instead of a text.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        match &self.what {
            What::Text(_) => None,
            What::Data(data) => Some(data),
        }
    }
}

/// A code that does not mean success.
fn not_zero(code: i32) -> i32 {
    if code == 0 { 1 } else { code }
}

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(1, error.to_string())
    }
}

/// What a handler returns. A reply is made through the task, before.
pub type TaskResult = Result<(), Failure>;

/// User code that a worker process runs, on several threads at once if the class has several.
///
/// Implemented by every `Fn(&mut Task<'_>) -> TaskResult` that is `Send + Sync`.
pub trait Handler: Send + Sync {
    /// Runs one task. A panic is a failed task, not a dead worker.
    ///
    /// # Errors
    /// Whatever the handler wants the submitter to see as a failed task.
    fn run(&self, task: &mut Task<'_>) -> TaskResult;
}

impl<F> Handler for F
where
    F: Fn(&mut Task<'_>) -> TaskResult + Send + Sync,
{
    fn run(&self, task: &mut Task<'_>) -> TaskResult {
        self(task)
    }
}

/// A task in hand: from the moment it is started until it is finished.
pub struct Task<'a> {
    lane: &'a Lane,
    started: Started,
    ending: Ending,
    result: [u64; RESULT_WORDS],
    block: Option<Block>,
    failure: Option<Failure>,
}

impl<'a> Task<'a> {
    #[inline]
    pub(crate) fn new(lane: &'a Lane, started: Started) -> Self {
        Self {
            lane,
            started,
            ending: Ending::new(Kind::Completed),
            result: [0; RESULT_WORDS],
            block: None,
            failure: None,
        }
    }

    /// The payload as it was submitted, read in place.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        payload_of(self.lane, &self.started)
    }

    /// A view of the payload that outlives the task.
    pub(crate) fn view(&self) -> Result<View> {
        let message = &self.started.message;
        if message.meta.in_arena() {
            self.lane.shared().payload_view(message)
        } else {
            Ok(View::copy(self.payload()))
        }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId::from_words(self.info().id.each_ref().map(|w| w.load(Ordering::Relaxed)))
    }

    /// The submitter's own id for the task; zeros if none was given.
    #[must_use]
    pub fn label(&self) -> Label {
        Label::from_words(
            self.info()
                .label
                .each_ref()
                .map(|w| w.load(Ordering::Relaxed)),
        )
    }

    /// The number that was given at submit.
    #[must_use]
    pub fn user_data(&self) -> u64 {
        self.info().user_data.load(Ordering::Relaxed)
    }

    /// 1 for the first start of this task.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.started.message.meta.attempt()
    }

    /// The slot of the worker that runs this.
    #[must_use]
    pub fn worker(&self) -> u32 {
        self.lane.worker
    }

    /// The class of the worker that runs this.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::from_wire(self.lane.class).unwrap_or(Class::CpuBound)
    }

    /// Whether the submitter asked the task to stop. Asking costs a load from shared memory.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.lane.is_cancelled(&self.started.message)
    }

    /// Tells whoever looks how far the task is; `total` 0 means unknown.
    pub fn progress(&self, done: u64, total: u64) {
        self.lane.progress(&self.started.message, done, total);
    }

    /// Sets the result, copying it. A second reply replaces the first.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the configured largest result, [`Error::NoMemory`] if the host
    /// holds all result memory for longer than `reply_wait`, [`Error::Invalid`] after
    /// [`Task::fail_with_data`], whose data have the reply's place.
    pub fn reply(&mut self, data: &[u8]) -> Result<()> {
        self.reply_buf(data.len())?.copy_from_slice(data);
        Ok(())
    }

    /// Room for a result of `len` bytes, to be written in place; its contents are undefined at
    /// first. A second reply replaces the first.
    ///
    /// # Errors
    /// As for [`Task::reply`].
    pub fn reply_buf(&mut self, len: usize) -> Result<&mut [u8]> {
        Ok(self.payload_and_reply_buf(len)?.1)
    }

    /// The payload and, as [`Task::reply_buf`] gives it, room for a result of `len` bytes: for
    /// writing the one while reading the other.
    ///
    /// # Errors
    /// As for [`Task::reply`].
    pub fn payload_and_reply_buf(&mut self, len: usize) -> Result<(&[u8], &mut [u8])> {
        if self.ending.kind == Kind::FailedWithData {
            return Err(Error::invalid(
                "the task has failed with data, in whose place a reply would be",
            ));
        }
        self.place(len)
    }

    /// The payload, and room for what travels as the result.
    fn place(&mut self, len: usize) -> Result<(&[u8], &mut [u8])> {
        self.reserve(len)?;
        let Self {
            lane,
            started,
            ending,
            result,
            ..
        } = self;
        let reply = if ending.in_arena {
            lane.shared().result_mut(result[0], len)?
        } else {
            &mut words_as_bytes_mut(result)[..len]
        };
        Ok((payload_of(lane, started), reply))
    }

    /// Makes the task fail when it is finished, with this code (not 0) and text. Overrides what
    /// the handler returns, and an earlier failure.
    pub fn fail(&mut self, code: i32, text: impl Into<String>) {
        self.failure = Some(Failure::new(code, text));
    }

    /// Makes the task fail when it is finished, with this code (not 0) and data for a program to
    /// read ([`Completion::failed_with_data`](crate::Completion::failed_with_data)), which are
    /// copied at once. Overrides what the handler returns, and an earlier failure.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::NoMemory`] as for [`Task::reply`]: then the task has not
    /// failed by this, and an earlier reply is gone.
    pub fn fail_with_data(&mut self, code: i32, data: &[u8]) -> Result<()> {
        self.put(data)?;
        self.failure = None;
        self.ending.kind = Kind::FailedWithData;
        self.ending.code = not_zero(code);
        Ok(())
    }

    /// Whether the task fails when it is finished, whatever it is finished with.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some() || self.ending.kind == Kind::FailedWithData
    }

    fn info(&self) -> &crate::shm::layout::TaskInfo {
        &self.lane.shared().down().info[self.started.message.meta.slot()]
    }

    /// Makes room for a result, inline or in the arena; an earlier reply is gone.
    fn reserve(&mut self, len: usize) -> Result<()> {
        self.drop_reply();
        if len > self.lane.inline_result() {
            let results = &self.lane.results;
            let block = results.allocate(self.lane.shared(), &self.lane.control, len)?;
            self.block = Some(block);
            self.ending.in_arena = true;
            self.result[0] = block.offset;
        }
        self.ending.len = u32::try_from(len).unwrap_or(u32::MAX); // `max_result` is below 4 GiB
        Ok(())
    }

    fn drop_reply(&mut self) {
        if let Some(block) = self.block.take() {
            self.lane.results.free(block);
        }
        self.ending.in_arena = false;
        self.ending.len = 0;
    }

    /// Publishes the task's end; once.
    #[inline]
    pub(crate) fn finish(&mut self, hand: &mut Hand, result: TaskResult) {
        let returned = result.err().filter(|_| self.ending.kind == Kind::Completed);
        if let Some(failure) = self.failure.take().or(returned) {
            self.put_failure(&failure);
        }
        self.lane
            .finish(hand, &self.started, &mut self.ending, &self.result);
    }

    /// Copies what travels as the result.
    fn put(&mut self, data: &[u8]) -> Result<()> {
        self.place(data.len())?.1.copy_from_slice(data);
        Ok(())
    }

    /// Puts a failure in the reply's place. A text that finds no room is cut; one that says so is
    /// put in the place of data that find none.
    fn put_failure(&mut self, failure: &Failure) {
        self.ending.code = failure.code;
        self.ending.kind = Kind::Failed;
        match &failure.what {
            What::Text(text) => self.put_text(text),
            What::Data(data) => match self.put(data) {
                Ok(()) => self.ending.kind = Kind::FailedWithData,
                Err(error) => self.put_text(&format!("the data of the failure are lost: {error}")),
            },
        }
    }

    fn put_text(&mut self, text: &str) {
        if self.put(text.as_bytes()).is_err() {
            let cut = text.floor_char_boundary(self.lane.inline_result());
            let _ = self.put(&text.as_bytes()[..cut]); // fits inline
        }
    }
}

/// The payload where it lies: in the descriptor's copy or in the arena.
#[inline]
fn payload_of<'a>(lane: &'a Lane, started: &'a Started) -> &'a [u8] {
    let message = &started.message;
    if message.meta.in_arena() {
        lane.shared().payload(message)
    } else {
        let bytes = words_as_bytes(&message.payload);
        &bytes[..(message.meta.len() as usize).min(bytes.len())]
    }
}

impl fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}
