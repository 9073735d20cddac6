//! What lies in the control segment: header, records of engine and classes, logs and the load table.
//!
//! The supervisor's process writes, monitors read through a read-only mapping. Everything is an
//! atomic; a record of several words is guarded by a version word (a seqlock), so that a reader
//! in another process gets a whole record or none. Where the memory comes from, and what the name
//! of a segment means, is `control`'s business.
//!
//! # Layout (version 2)
//!
//! | offset | bytes | what | written by |
//! |---:|---:|---|---|
//! | 0 | 128 | [`Identity`]: magic, version (stored last), process, name | creator, once |
//! | 128 | 128 | number of decisions logged | host, under the log's private lock |
//! | 256 | 128 | number of crashes logged | host, under the log's private lock |
//! | 384 | 640 | unasked deaths by signal: 65 words, 0 = by none; the rest is 0 | the [`Publisher`] |
//! | 1024 | 512 | [`EngineRecord`]: version word + 63 words | the [`Publisher`] |
//! | 1536 | 2 x 512 | [`ClassRecord`] of each class: version word + 63 words | the [`Publisher`] |
//! | 2560 | 1152 | [`NotesRecord`]: version word + 143 words | the [`Publisher`] |
//! | 4096 | 4 x 1024 | [`HistogramRecord`]: of each class queue time, run time: version word + 127 words | the [`Publisher`] |
//! | 8192 | 64 x 256 | last 64 decisions: version word + 31 words | host, under the log's lock |
//! | 24576 | 64 x 256 | last 64 crashes: version word + 31 words | host, under the log's lock |
//! | 40960 | 256 x workers, in whole pages | [`Row`] of each worker: version word + 31 words | the [`Publisher`] |
//!
//! What is not named is 0. The words of a record are its fields in the order in which `records`
//! declares them; a text takes several, padded with zeros.
//!
//! Within [`Identity`] (offsets: magic 0, version 8, pid 12, start time 16, pid namespace 24) these
//! first five fields keep their place in every layout version: they say whether a name is in use.
//!
//! [`Publisher`]: super::control::Publisher

mod records;

use std::mem::{offset_of, size_of};
use std::ptr::NonNull;
use std::time::Duration;

pub(crate) use self::records::{
    ClassRecord, CrashRecord, DecisionRecord, EngineRecord, HISTOGRAM_BUCKETS, HistogramRecord,
    NotesRecord, Row, Text,
};
use self::records::{Record, text_of};
use crate::sys::sync::{
    AtomicU32, AtomicU64, Mutex,
    Ordering::{Acquire, Relaxed, Release},
    fence, load_acquire, load_acquire_u32, lock, spin_hint,
};

/// The first eight bytes of every control segment, readable as text in a hex dump.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"miniflow");
/// The version of the layout above. A reader refuses any other.
pub(crate) const LAYOUT_VERSION: u32 = 2;
/// The most workers that a segment has rows for.
pub(crate) const MAX_WORKERS: u32 = 4096;
/// The bytes of an engine's name.
pub(crate) const NAME_BYTES: usize = 64;
/// How many decisions, and how many crashes, the logs hold.
pub(crate) const LOG_RECORDS: usize = 64;
/// The classes of workers.
pub(crate) const CLASSES: usize = 2;
/// Deaths are counted for signals 1 to 64, and for no signal.
pub(crate) const SIGNALS: usize = 65;

const PAGE: usize = 4096;
const HISTOGRAMS: usize = PAGE;
const DECISIONS: usize = HISTOGRAMS + CLASSES * Times::COUNT * size_of::<HistogramSlot>();
const CRASHES: usize = DECISIONS + LOG_RECORDS * size_of::<DecisionSlot>();
const ROWS: usize = CRASHES + LOG_RECORDS * size_of::<CrashSlot>();

/// The bytes of a segment for so many workers, in whole pages.
pub(crate) const fn segment_bytes(max_workers: u32) -> usize {
    ROWS + (max_workers as usize * size_of::<RowSlot>()).next_multiple_of(PAGE)
}

/// The histograms of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Times {
    /// From submit to start.
    Queue,
    /// From start to end.
    Run,
}

impl Times {
    const COUNT: usize = 2;
}

/// A record in the segment. The version is odd while the one writer is at it.
#[derive(Debug)]
#[repr(C, align(128))]
struct Slot<const N: usize> {
    /// Only the slot's writer stores here.
    version: AtomicU64,
    /// Likewise.
    words: [AtomicU64; N],
}

type EngineSlot = Slot<63>;
type ClassSlot = Slot<63>;
type NotesSlot = Slot<143>;
type HistogramSlot = Slot<127>;
type DecisionSlot = Slot<31>;
type CrashSlot = Slot<31>;
type RowSlot = Slot<31>;

impl<const N: usize> Slot<N> {
    /// Stores a record; `version` is even and not the last one. One caller at a time.
    fn write(&self, version: u64, words: &[u64; N]) {
        debug_assert!(version.is_multiple_of(2));
        // Relaxed: the fence orders it.
        self.version.store(version.wrapping_sub(1), Relaxed);
        // Release: pairs with the Acquire fence in `read`. A reader that saw any word stored below
        // finds the odd version, or a later one, when it looks again.
        fence(Release);
        for (cell, &word) in self.words.iter().zip(words) {
            // Relaxed: between the fence above and the Release store below.
            cell.store(word, Relaxed);
        }
        // Release: pairs with the `load_acquire` in `read`; publishes the words.
        self.version.store(version, Release);
    }

    /// [`Slot::write`] under the next version, unless the record is there already.
    fn update(&self, words: &[u64; N]) {
        // Relaxed, here and below: only this slot's writer stores to it, and that is the caller.
        let last = self.version.load(Relaxed);
        let mut pairs = self.words.iter().zip(words);
        if last == 0 || !pairs.all(|(cell, &word)| cell.load(Relaxed) == word) {
            // The next even number, whatever another process may have left there. A value of 0 means
            // "never published", so wrapping round (in 10^11 years) skips it.
            self.write((last | 1).wrapping_add(1).max(2), words);
        }
    }

    /// One attempt to copy the record: its version and words, or `None` if a writer is at it.
    fn read(&self) -> Option<(u64, [u64; N])> {
        // Acquire: pairs with the Release store that ends `write`.
        let version = load_acquire(&self.version);
        if !version.is_multiple_of(2) {
            return None;
        }
        // Relaxed: whether these belong together is decided below.
        let words = std::array::from_fn(|i| self.words[i].load(Relaxed));
        // Acquire: pairs with the Release fence in `write`, see there.
        fence(Acquire);
        // Relaxed: the fence orders it behind the words.
        (self.version.load(Relaxed) == version).then_some((version, words))
    }

    /// `read`, patient enough for a writer that was interrupted in the middle; never for ever,
    /// because a writer that died there leaves the version odd.
    fn read_patiently(&self, patience: &Patience) -> Option<(u64, [u64; N])> {
        const SPINS: u32 = 64;
        const NAPS: u32 = 40;
        for attempt in 0..SPINS + NAPS {
            if let Some(found) = self.read() {
                return Some(found);
            }
            if attempt < SPINS {
                spin_hint();
            } else if patience.allows_a_nap() {
                std::thread::sleep(Duration::from_micros(100));
            } else {
                break;
            }
        }
        None
    }
}

/// How many naps the reads of a table may still take. A writer is at one record at a time; where many
/// are unfinished, somebody has scribbled, and to wait for each of thousands would take half a minute.
#[derive(Debug)]
struct Patience(AtomicU32);

impl Patience {
    const NAPS: u32 = 200;

    fn new() -> Self {
        Self(AtomicU32::new(Self::NAPS))
    }

    fn renew(&self) {
        // Relaxed, here and below: a number that nothing else depends on.
        self.0.store(Self::NAPS, Relaxed);
    }

    fn allows_a_nap(&self) -> bool {
        let left = self.0.load(Relaxed);
        self.0.store(left.saturating_sub(1), Relaxed);
        left > 0
    }
}

// ---------------------------------------------------------------------------------------------
// Header
// ---------------------------------------------------------------------------------------------

/// Who made the segment. Written once, before the version.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Identity {
    magic: AtomicU64,
    /// Stored last: not 0 means that the whole segment is ready.
    version: AtomicU32,
    pid: AtomicU32,
    /// Field 22 of `/proc/<pid>/stat`; 0 if unknown.
    start_time: AtomicU64,
    /// Inode of the pid namespace; 0 if unknown.
    pid_namespace: AtomicU64,
    max_workers: AtomicU32,
    reserved: AtomicU32,
    /// Milliseconds of Unix time, as the bits of an `i64`.
    created_ms: AtomicU64,
    /// Bytes of the segment.
    length: AtomicU64,
    reserved_word: AtomicU64,
    name: [AtomicU64; NAME_BYTES / 8],
}

/// One word that is written often, alone on its line.
#[derive(Debug)]
#[repr(C, align(128))]
struct Line {
    value: AtomicU64,
    reserved: [AtomicU64; 15],
}

/// The first page.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Header {
    identity: Identity,
    decisions: Line,
    crashes: Line,
    /// Each is a number by itself.
    deaths: [AtomicU64; SIGNALS],
    reserved: [AtomicU64; 80 - SIGNALS],
    engine: EngineSlot,
    classes: [ClassSlot; CLASSES],
    notes: NotesSlot,
}

const _: () = {
    assert!(size_of::<Identity>() == 128);
    assert!(size_of::<Line>() == 128);
    assert!(size_of::<Header>() <= PAGE);
    assert!(offset_of!(Identity, magic) == 0);
    assert!(offset_of!(Identity, version) == 8);
    assert!(offset_of!(Identity, pid) == 12);
    assert!(offset_of!(Identity, start_time) == 16);
    assert!(offset_of!(Identity, pid_namespace) == 24);
    assert!(offset_of!(Identity, max_workers) == 32);
    assert!(offset_of!(Identity, created_ms) == 40);
    assert!(offset_of!(Identity, length) == 48);
    assert!(offset_of!(Identity, name) == 64);
    assert!(offset_of!(Header, decisions) == 128);
    assert!(offset_of!(Header, crashes) == 256);
    assert!(offset_of!(Header, deaths) == 384);
    assert!(offset_of!(Header, engine) == 1024);
    assert!(offset_of!(Header, classes) == 1536);
    assert!(offset_of!(Header, notes) == 2560);
    assert!(size_of::<EngineSlot>() == 512);
    assert!(size_of::<ClassSlot>() == 512);
    assert!(size_of::<NotesSlot>() == 1152);
    assert!(size_of::<HistogramSlot>() == 1024);
    assert!(size_of::<DecisionSlot>() == 256);
    assert!(size_of::<CrashSlot>() == 256);
    assert!(size_of::<RowSlot>() == 256);
    assert!(offset_of!(RowSlot, words) == 8);
};

/// The bytes of [`Identity`] that mean the same in every layout version.
pub(super) const STABLE_BYTES: usize = 32;

/// What the first [`STABLE_BYTES`] of a segment say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) magic: u64,
    pub(super) version: u32,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) pid_namespace: u64,
}

/// Where max workers (u32) and length (u64) stand in this layout version, for who must know the
/// size before mapping.
pub(super) const MAX_WORKERS_OFFSET: u64 = offset_of!(Identity, max_workers) as u64;
pub(super) const LENGTH_OFFSET: u64 = offset_of!(Identity, length) as u64;

impl Owner {
    /// Takes apart what was read from the file, so that nothing needs to be mapped.
    pub(super) fn parse(bytes: &[u8; STABLE_BYTES]) -> Self {
        fn part<const N: usize>(bytes: &[u8; STABLE_BYTES], at: usize) -> [u8; N] {
            std::array::from_fn(|i| bytes[at + i])
        }
        Self {
            magic: u64::from_ne_bytes(part(bytes, 0)),
            version: u32::from_ne_bytes(part(bytes, 8)),
            pid: u32::from_ne_bytes(part(bytes, 12)),
            start_time: u64::from_ne_bytes(part(bytes, 16)),
            pid_namespace: u64::from_ne_bytes(part(bytes, 24)),
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Access
// ---------------------------------------------------------------------------------------------

/// Types that may be looked at in the segment.
///
/// # Safety
///
/// The type is `#[repr(C)]` or `#[repr(transparent)]`, consists of atomics alone, needs no more
/// alignment than 128 bytes and is valid for every bit pattern.
unsafe trait Shared {}

// SAFETY: `repr(C)`, three kinds of structs that are themselves only atomics, alignment 128.
unsafe impl Shared for Header {}
// SAFETY: `repr(C)`, a word and an array of words, all atomics, alignment 128.
unsafe impl<const N: usize> Shared for Slot<N> {}

/// The reading side of a mapped segment.
///
/// Invariant: `base` is aligned to a page, and the `segment_bytes(max_workers)` bytes behind it
/// stay mapped readable as long as this value lives, and hold no data but atomics.
#[derive(Debug)]
pub(crate) struct Table {
    base: NonNull<u8>,
    max_workers: u32,
    patience: Patience,
}

// SAFETY: the pointer is used only for `&` to atomics, which any thread may use; that the mapping
// outlives this value is the invariant, whichever thread the value is on.
unsafe impl Send for Table {}
// SAFETY: as above; all methods take `&self` and touch the segment through atomics alone.
unsafe impl Sync for Table {}

impl Table {
    /// # Safety
    ///
    /// The invariant of [`Table`] holds for `base` and `max_workers` while the result lives.
    pub(super) unsafe fn new(base: NonNull<u8>, max_workers: u32) -> Self {
        debug_assert!(base.addr().get().is_multiple_of(PAGE));
        debug_assert!(max_workers <= MAX_WORKERS);
        Self {
            base,
            max_workers,
            patience: Patience::new(),
        }
    }

    /// Before several reads that belong together: they may wait for unfinished records anew, for some
    /// 30 ms altogether.
    pub(crate) fn renew_patience(&self) {
        self.patience.renew();
    }

    /// The `T` at `offset + index * size_of::<T>()`, which must lie inside the segment.
    fn at<T: Shared>(&self, offset: usize, index: usize) -> &T {
        let start = offset + index * size_of::<T>();
        assert!(start + size_of::<T>() <= segment_bytes(self.max_workers));
        // SAFETY: `start` is inside the segment by the check above, and the segment is one
        // mapping by the invariant of `Table`.
        let place = unsafe { self.base.add(start) }.cast::<T>();
        debug_assert!(place.is_aligned());
        // SAFETY: mapped for as long as `self` lives (invariant) and large enough (checked).
        // Aligned: `base` is page-aligned, all areas start at a page and `T` repeats from there.
        // `T` is atomics only (`Shared`), so that writes by others meanwhile are no race.
        unsafe { place.as_ref() }
    }

    fn header(&self) -> &Header {
        self.at(0, 0)
    }

    fn row(&self, worker: u32) -> Option<&RowSlot> {
        let known = worker < self.max_workers;
        known.then(|| self.at(ROWS, worker as usize))
    }

    fn histogram_slot(&self, class: usize, times: Times) -> Option<&HistogramSlot> {
        let index = class * Times::COUNT + times as usize;
        (class < CLASSES).then(|| self.at(HISTOGRAMS, index))
    }

    /// Magic, version and process. A version of 0: the segment is not finished.
    pub(super) fn owner(&self) -> Owner {
        let identity = &self.header().identity;
        Owner {
            // Acquire: pairs with the Release store in `TableWriter::finish`; all that is written
            // once is seen by who sees the version. So it comes first.
            version: load_acquire_u32(&identity.version),
            // Relaxed, here and below: written once, before the version.
            magic: identity.magic.load(Relaxed),
            pid: identity.pid.load(Relaxed),
            start_time: identity.start_time.load(Relaxed),
            pid_namespace: identity.pid_namespace.load(Relaxed),
        }
    }

    /// The rows that there are.
    pub(crate) fn max_workers(&self) -> u32 {
        self.max_workers
    }

    /// The process that owns the engine, in its own pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.owner().pid
    }

    /// When the segment was made; milliseconds of Unix time.
    pub(crate) fn created_ms(&self) -> i64 {
        // Relaxed: written once, before the version.
        self.header()
            .identity
            .created_ms
            .load(Relaxed)
            .cast_signed()
    }

    /// The engine's name; empty if it has none.
    pub(crate) fn engine_name(&self) -> String {
        // Relaxed: written once, before the version.
        text_of(
            self.header()
                .identity
                .name
                .iter()
                .map(|word| word.load(Relaxed)),
        )
    }

    /// The engine's record. `None`, here and below: nothing was published yet, or its writer did not
    /// finish within some milliseconds (it is dead or stopped).
    pub(crate) fn engine(&self) -> Option<EngineRecord> {
        self.read_published(&self.header().engine)
    }

    /// The record of a class.
    pub(crate) fn class(&self, class: usize) -> Option<ClassRecord> {
        self.read_published(self.header().classes.get(class)?)
    }

    /// A histogram of a class.
    pub(crate) fn histogram(&self, class: usize, times: Times) -> Option<HistogramRecord> {
        self.read_published(self.histogram_slot(class, times)?)
    }

    /// What could not be done as the settings ask.
    pub(crate) fn notes(&self) -> Option<NotesRecord> {
        self.read_published(&self.header().notes)
    }

    /// Unasked deaths by signal.
    pub(crate) fn deaths(&self) -> [u64; SIGNALS] {
        // Relaxed: numbers for people; nothing is read on the strength of them.
        std::array::from_fn(|signal| self.header().deaths[signal].load(Relaxed))
    }

    /// A row of the load table; also `None` if there is no such row.
    pub(crate) fn read_row(&self, worker: u32) -> Option<Row> {
        self.read_published(self.row(worker)?)
    }

    /// The last decisions with their running numbers, oldest first.
    pub(crate) fn decisions(&self) -> Vec<(u64, DecisionRecord)> {
        self.read_log(&self.header().decisions, DECISIONS)
    }

    /// The last crashes with their running numbers, oldest first.
    pub(crate) fn crashes(&self) -> Vec<(u64, CrashRecord)> {
        self.read_log(&self.header().crashes, CRASHES)
    }

    /// Record `n` lies in slot `n % LOG_RECORDS` under the version `2 * n + 2`, so that one that
    /// was overwritten meanwhile shows as a gap in the numbers and never as a wrong record.
    fn read_log<const N: usize, R: Record<N>>(&self, count: &Line, area: usize) -> Vec<(u64, R)> {
        // Acquire: pairs with the Release store in `TableWriter::append`.
        let end = load_acquire(&count.value);
        let first = end.saturating_sub(LOG_RECORDS as u64);
        let read = |number: u64| {
            let slot = self.at::<Slot<N>>(area, slot_of(number));
            let (version, words) = slot.read_patiently(&self.patience)?;
            (version == version_of(number)).then(|| (number, R::decode(&words)))
        };
        (first..end).filter_map(read).collect()
    }

    /// A whole record, never a torn one.
    fn read_published<const N: usize, R: Record<N>>(&self, slot: &Slot<N>) -> Option<R> {
        match slot.read_patiently(&self.patience)? {
            (0, _) => None,
            (_, words) => Some(R::decode(&words)),
        }
    }
}

/// Where the record with this number is kept.
fn slot_of(number: u64) -> usize {
    let index = number % LOG_RECORDS as u64;
    usize::try_from(index).unwrap_or_default() // below 64
}

/// The version of the slot that holds the record with this number.
fn version_of(number: u64) -> u64 {
    number.wrapping_mul(2).wrapping_add(2)
}

/// What the creator writes once.
#[derive(Debug)]
pub(super) struct Birth<'a> {
    pub(super) name: &'a str,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) pid_namespace: u64,
    pub(super) created_ms: i64,
}

/// The writing side: only in the process that made the segment.
///
/// Invariant: that of [`Table`], and the bytes are writable too.
#[derive(Debug)]
pub(crate) struct TableWriter {
    table: Table,
    /// Makes one writer of the many threads that may log a decision.
    decisions: Mutex<()>,
    /// Likewise for crashes.
    crashes: Mutex<()>,
}

impl std::ops::Deref for TableWriter {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl TableWriter {
    /// # Safety
    ///
    /// The invariant of [`TableWriter`] holds for `base` and `max_workers` while the result lives.
    pub(super) unsafe fn new(base: NonNull<u8>, max_workers: u32) -> Self {
        // SAFETY: the caller promises more than `Table::new` asks for.
        let table = unsafe { Table::new(base, max_workers) };
        Self {
            table,
            decisions: Mutex::new(()),
            crashes: Mutex::new(()),
        }
    }

    /// Fills in the identity of a zeroed segment; the version comes last.
    pub(super) fn finish(&self, birth: &Birth<'_>) {
        let identity = &self.header().identity;
        let length = segment_bytes(self.max_workers) as u64;
        // Relaxed, all of these: published by the version below.
        identity.pid.store(birth.pid, Relaxed);
        identity.start_time.store(birth.start_time, Relaxed);
        identity.pid_namespace.store(birth.pid_namespace, Relaxed);
        identity.max_workers.store(self.max_workers, Relaxed);
        identity
            .created_ms
            .store(birth.created_ms.cast_unsigned(), Relaxed);
        identity.length.store(length, Relaxed);
        for (cell, word) in identity.name.iter().zip(Text::<8>::new(birth.name).0) {
            cell.store(word, Relaxed);
        }
        identity.magic.store(MAGIC, Relaxed);
        // Release: pairs with the Acquire load in `Table::owner`; publishes the segment.
        identity.version.store(LAYOUT_VERSION, Release);
    }

    /// Logs a decision and returns its running number.
    pub(crate) fn log_decision(&self, record: &DecisionRecord) -> u64 {
        let _one_writer = lock(&self.decisions);
        self.append(&self.header().decisions, DECISIONS, record)
    }

    /// Logs a crash and returns its running number.
    pub(crate) fn log_crash(&self, record: &CrashRecord) -> u64 {
        let _one_writer = lock(&self.crashes);
        self.append(&self.header().crashes, CRASHES, record)
    }

    /// The caller holds the log's lock.
    fn append<const N: usize, R: Record<N>>(&self, count: &Line, area: usize, record: &R) -> u64 {
        // Relaxed: stored below only, under the lock.
        let number = count.value.load(Relaxed);
        self.at::<Slot<N>>(area, slot_of(number))
            .write(version_of(number), &record.encode());
        // Release: pairs with the Acquire load in `Table::read_log`; who sees the count sees the
        // record's version.
        count.value.store(number.wrapping_add(1), Release);
        number
    }

    // The following: one caller at a time, which `Publisher` sees to; if that were broken, readers
    // could see a torn record but nothing worse. What is there already is not written again.

    pub(super) fn publish_engine(&self, record: &EngineRecord) {
        self.header().engine.update(&record.encode());
    }

    pub(super) fn publish_class(&self, class: usize, record: &ClassRecord) {
        if let Some(slot) = self.header().classes.get(class) {
            slot.update(&record.encode());
        }
    }

    pub(super) fn publish_histogram(&self, class: usize, times: Times, record: &HistogramRecord) {
        if let Some(slot) = self.histogram_slot(class, times) {
            slot.update(&record.encode());
        }
    }

    pub(super) fn publish_notes(&self, record: &NotesRecord) {
        self.header().notes.update(&record.encode());
    }

    pub(super) fn publish_deaths(&self, deaths: &[u64; SIGNALS]) {
        for (cell, &count) in self.header().deaths.iter().zip(deaths) {
            cell.store(count, Relaxed); // Relaxed: see `Table::deaths`
        }
    }

    pub(super) fn publish_row(&self, worker: u32, row: &Row) {
        if let Some(slot) = self.row(worker) {
            slot.update(&row.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_its_version_says() {
        assert_eq!(
            (HISTOGRAMS, DECISIONS, CRASHES, ROWS),
            (4096, 8192, 24_576, 40_960)
        );
        assert_eq!(segment_bytes(1), 45_056);
        assert_eq!(segment_bytes(16), 45_056);
        assert_eq!(segment_bytes(17), 49_152);
        assert_eq!(segment_bytes(64), 57_344);
        assert_eq!(segment_bytes(MAX_WORKERS), 1_089_536);
        assert_eq!((Times::Queue as usize, Times::Run as usize), (0, 1));
    }
}
