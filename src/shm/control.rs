//! The control segment: where a monitor finds an engine, and what says that the engine is alive.
//!
//! It is POSIX shared memory named `/miniflow.<uid>.<name>` (the file
//! `/dev/shm/miniflow.<uid>.<name>`, mode 0600), made with the crate `shared_memory`. What lies in
//! it is described in `load_table`. An engine without a name keeps the same table in private
//! memory.
//!
//! # The rules
//!
//! 1. Pages are reserved with `fallocate` through the name before the first touch: a `/dev/shm`
//!    that is too small is an error and never a SIGBUS.
//! 2. The owner holds a flock on the file for as long as it lives.
//! 3. The name is removed by the owner's drop; if the host died, by the zygote
//!    ([`unlink_name`]); if that died too, by the next engine of the name or by [`clean`].
//!    Who removes a name proves first, under the directory lock, that it is still the one meant:
//!    a successor's segment is never removed for its predecessor's.
//! 4. Whoever opens it from outside maps it read-only and checks owner, size, magic and version.
//!
//! Names are made and removed under a flock on the directory `/dev/shm`, so that neither meets a
//! half-made segment. It is waited for at most 5 seconds (any user may lock that directory).
//!
//! # Alive
//!
//! A name is alive if the flock on its file is held *and* its process lives. The flock alone is
//! not enough: a forked child of a dead host still holds it. The process is looked at only from
//! the same pid namespace, by pid and start time; from another one the flock decides alone.
//!
//! # Fork
//!
//! The mapping is `MADV_DONTFORK`: a forked child of the host must not touch the table, and the
//! engine, which finds out that it was forked, does not. Dropping is allowed there: it closes the
//! file and touches neither name, nor lock, nor mapping.
//!
//! What stays open: another process of the *same user* can open the name for writing and truncate
//! it; kernel seals are not to be had for named memory. It is the one segment of which I8 (no
//! SIGBUS) rests on the goodwill of the user's own processes.

mod names;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, OFlags, fallocate, flock, fstat, statat, unlinkat,
};
use rustix::io::{Errno, pread};
use shared_memory::{Shmem, ShmemConf, ShmemError};

use self::names::{
    Directory, Identity, LockedDirectory, Verdict, examine, examine_name, file_name,
    flock_patiently, is_ours, path_of, read_owner,
};
#[cfg(test)]
use self::names::{Found, is_alive};
pub(crate) use self::names::{clean, list, os_name_of, unlink_name, valid_name};
use super::load_table::{
    Birth, ClassRecord, EngineRecord, HistogramRecord, LAYOUT_VERSION, LENGTH_OFFSET, MAGIC,
    MAX_WORKERS, MAX_WORKERS_OFFSET, NotesRecord, Owner, Row, SIGNALS, Table, TableWriter, Times,
    segment_bytes,
};
use crate::error::{Error, Result};
use crate::sys::clock::unix_ms_of;
use crate::sys::sync::{
    AtomicU32,
    Ordering::{AcqRel, Release},
};

/// `Shmem` is neither `Send` nor `Sync` because it holds a raw pointer.
struct SharedMemory(#[expect(dead_code, reason = "kept for its drop, which unmaps")] Shmem);

// SAFETY: after construction the value is only kept and dropped, and its drop (munmap, close) may
// happen on any thread. The pointer taken from it is `TableWriter`'s, which is `Send` by itself.
unsafe impl Send for SharedMemory {}
// SAFETY: no method of it is called through a shared reference.
unsafe impl Sync for SharedMemory {}

enum Memory {
    Named(ManuallyDrop<SharedMemory>),
    Private(#[expect(dead_code, reason = "kept for its drop, which unmaps")] MmapRaw),
}

/// A mapped segment with its table.
struct Mapping {
    /// Points into `memory`, which lives exactly as long.
    table: TableWriter,
    memory: Memory,
    /// 1 if there is a [`Publisher`]. Not in the segment.
    taken: AtomicU32,
    /// Who mapped it.
    pid: u32,
}

impl Mapping {
    /// # Safety
    ///
    /// `base` and the `segment_bytes(max_workers)` bytes behind it are page-aligned, readable and
    /// writable memory of `memory`, used through `Table`s alone, and zeroed.
    unsafe fn new(memory: Memory, base: NonNull<u8>, max_workers: u32) -> Self {
        // SAFETY: alignment, size and access by the caller's promise. It stays mapped as long as
        // the table is used, because both are in the same value.
        let table = unsafe { TableWriter::new(base, max_workers) };
        Self {
            table,
            memory,
            taken: AtomicU32::new(0),
            pid: std::process::id(),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Memory::Named(memory) = &mut self.memory
            && self.pid == std::process::id()
        {
            // SAFETY: dropped here alone, at the end of the value that holds it.
            unsafe { ManuallyDrop::drop(memory) };
        }
        // Else this is a forked child. The mapping was not inherited (MADV_DONTFORK), and its
        // addresses may by now belong to something else, so that there is nothing to unmap.
    }
}

/// A name in use by this process.
#[derive(Debug)]
struct Claim {
    name: String,
    os_name: CString,
    /// Holds the flock that says "alive".
    lock: OwnedFd,
    /// Whether dropping removes the name.
    owner: bool,
}

/// The host's control segment. Reads and logs through [`Deref`] to [`TableWriter`]; the rest is
/// written by the [`Publisher`].
///
/// Dropping it removes the name, except in a forked child or after [`disown`](Self::disown). The
/// memory stays until the [`Publisher`] has gone too.
pub(crate) struct ControlSegment {
    mapping: Arc<Mapping>,
    /// `None` if the table is private.
    claim: Option<Claim>,
    pid: u32,
}

impl std::fmt::Debug for ControlSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let claim = &self.claim;
        f.debug_struct("ControlSegment")
            .field("claim", claim)
            .finish_non_exhaustive()
    }
}

impl ControlSegment {
    /// Makes the control segment of an engine called `name`. What a dead engine of that name left
    /// behind is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the name is not acceptable, or in use (the text names the pid), or the
    /// number of workers is too large. [`Error::NoMemory`]: `/dev/shm` is too small.
    pub(crate) fn create(name: &str, max_workers: u32) -> Result<Self> {
        check_workers(max_workers)?;
        let os_name = os_name_of(name)?;
        let directory = LockedDirectory::lock_or_explain()?;
        make_room(&directory, name, &os_name)?;

        let bytes = segment_bytes(max_workers);
        // Until `set_owner` the crate's `Shmem` removes the name if anything fails.
        let (mut memory, lock) = reserve_named(&directory, name, &os_name, bytes)?;
        let base = NonNull::new(memory.as_ptr())
            .ok_or_else(|| Error::Internal(format!("{os_name:?} was mapped at 0")))?;
        let advice = rustix::mm::Advice::LinuxDontFork;
        // SAFETY: exactly the mapping that `Shmem` made; DONTFORK changes nothing in this process.
        unsafe { rustix::mm::madvise(base.as_ptr().cast(), bytes, advice) }
            .map_err(|errno| Error::system("madvise", format!("{os_name:?}"), errno))?;
        memory.set_owner(false);
        let memory = Memory::Named(ManuallyDrop::new(SharedMemory(memory)));
        // SAFETY: `base` is a fresh shared mapping (so page-aligned) of `bytes` bytes, readable
        // and writable, zeroed since the file is new, and used by nothing else here.
        let mapping = unsafe { Mapping::new(memory, base, max_workers) };
        let claim = Claim {
            name: name.into(),
            os_name,
            lock,
            owner: true,
        };
        let segment = Self::new(mapping, Some(claim));
        let same_file = segment.claim.as_ref().is_some_and(|claim| {
            read_owner(claim.lock.as_fd()) == Ok(Some(segment.mapping.table.owner()))
        });
        // Before `segment` can be dropped: its drop takes this lock too.
        drop(directory);
        if !same_file {
            return Err(Error::Internal(format!(
                "{name:?}: the mapping is of another file"
            )));
        }
        Ok(segment)
    }

    /// The same table in private memory, for an engine without a name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the number of workers is too large, [`Error::NoMemory`].
    pub(crate) fn private(max_workers: u32) -> Result<Self> {
        check_workers(max_workers)?;
        let bytes = segment_bytes(max_workers);
        let failed = |error| Error::system("mmap", format!("load table of {bytes} bytes"), error);
        let memory: MmapMut = MmapOptions::new().len(bytes).map_anon().map_err(failed)?;
        let memory = MmapRaw::from(memory);
        let base = NonNull::new(memory.as_mut_ptr())
            .ok_or_else(|| Error::Internal("load table mapped at 0".into()))?;
        // SAFETY: a fresh anonymous mapping: page-aligned, zeroed, readable, writable, `bytes`
        // long, and used by nothing else.
        let mapping = unsafe { Mapping::new(Memory::Private(memory), base, max_workers) };
        Ok(Self::new(mapping, None))
    }

    /// Says in the segment whose it is, and that it is ready.
    fn new(mapping: Mapping, claim: Option<Claim>) -> Self {
        let Identity {
            pid,
            start_time,
            pid_namespace,
        } = Identity::of_this_process();
        mapping.table.finish(&Birth {
            name: claim.as_ref().map_or("", |claim| &claim.name),
            pid,
            start_time,
            pid_namespace,
            created_ms: unix_ms_of(SystemTime::now()),
        });
        Self {
            mapping: Arc::new(mapping),
            claim,
            pid,
        }
    }

    /// The name to hand to the zygote for [`unlink_name`].
    pub(crate) fn os_name(&self) -> Option<&CStr> {
        self.claim.as_ref().map(|claim| claim.os_name.as_c_str())
    }

    /// The file behind the name.
    #[cfg(test)]
    pub(crate) fn path(&self) -> Option<std::path::PathBuf> {
        self.os_name().map(path_of)
    }

    /// The one writer of all records but the logs; `None` if there is one already.
    pub(crate) fn publisher(&self) -> Option<Publisher> {
        // Acquire: pairs with the Release in `Publisher::drop`; this one goes on where the last one
        // ended.
        (self.mapping.taken.swap(1, AcqRel) == 0).then(|| Publisher {
            mapping: Arc::clone(&self.mapping),
        })
    }

    /// Whether anybody but the host can see it.
    pub(crate) fn is_named(&self) -> bool {
        self.claim.is_some()
    }
}

impl Deref for ControlSegment {
    type Target = TableWriter;

    fn deref(&self) -> &TableWriter {
        &self.mapping.table
    }
}

impl ControlSegment {
    /// Gives the name up; the memory stays. For an engine that has stopped, before its zygote ends,
    /// which would remove the name of a host that is killed. Once more does no harm.
    pub(crate) fn remove_name(&self) {
        let Some(claim) = &self.claim else { return };
        // A child forked without a word must not take the name from its parent either.
        if !claim.owner || self.pid != std::process::id() {
            return;
        }
        // If the lock is not to be had, the check below is as good as certain all the same.
        let (locked, directory) = (LockedDirectory::lock(), Directory::open());
        let file = file_name(&claim.os_name);
        if let Ok(directory) = &directory
            && is_same_file(directory, file, claim.lock.as_fd())
        {
            let _ = unlinkat(&directory.0, file, AtFlags::empty());
        }
        drop(locked);
        // The flock ends here also for children that were forked, all the more if the name could
        // not be removed.
        let _ = flock(&claim.lock, FlockOperation::Unlock);
    }
}

impl Drop for ControlSegment {
    fn drop(&mut self) {
        self.remove_name();
    }
}

/// Whether the name still stands for the open file.
fn is_same_file(directory: &Directory, file: &CStr, open: BorrowedFd<'_>) -> bool {
    let named = statat(&directory.0, file, AtFlags::SYMLINK_NOFOLLOW);
    let (Ok(named), Ok(open)) = (named, fstat(open)) else {
        return false;
    };
    (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
}

fn check_workers(max_workers: u32) -> Result<()> {
    if (1..=MAX_WORKERS).contains(&max_workers) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "max_workers is {max_workers}; it must be 1 to {MAX_WORKERS}"
    )))
}

/// Sees to it that nothing stands in the way of a new segment.
fn make_room(directory: &LockedDirectory, name: &str, os_name: &CStr) -> Result<()> {
    let what = || format!("control segment {os_name:?}");
    let file = file_name(os_name);
    let pid = match examine_name(directory, file) {
        Ok(None) => return Ok(()),
        Ok(Some(Verdict::Alive(pid))) => {
            return Err(Error::invalid(format!(
                "name {name:?} is in use by pid {pid}"
            )));
        }
        Ok(Some(Verdict::Foreign)) => {
            return Err(Error::invalid(format!(
                "name {name:?} is taken: {} is not a control segment of this user's",
                path_of(os_name).display()
            )));
        }
        Ok(Some(Verdict::Dead(pid))) => pid,
        Ok(Some(Verdict::Unfinished)) => 0,
        Err(errno) => return Err(Error::system("open", what(), errno)),
    };
    directory
        .unlink(file)
        .map_err(|errno| Error::system("unlink", what(), errno))?;
    log::info!("removed the control segment of the dead engine {name:?} (pid {pid})");
    Ok(())
}

/// Makes the file with all its pages, maps it and takes the flock that says "alive".
fn reserve_named(
    directory: &LockedDirectory,
    name: &str,
    os_name: &CStr,
    bytes: usize,
) -> Result<(Shmem, OwnedFd)> {
    let what = || format!("control segment {os_name:?} of {bytes} bytes");
    let conf = ShmemConf::new()
        .os_id(os_name.to_string_lossy())
        .size(bytes);
    let memory = conf.create().map_err(|error| creation_error(name, error))?;
    let lock = directory
        .open_file(file_name(os_name), OFlags::RDWR)
        .map_err(|errno| Error::system("open", what(), errno))?;
    reserve(&lock, bytes).map_err(|errno| Error::system("posix_fallocate", what(), errno))?;
    flock_patiently(lock.as_fd(), FlockOperation::NonBlockingLockExclusive)
        .map_err(|errno| Error::system("flock", what(), errno))?;
    Ok((memory, lock))
}

/// Gives the file its pages now. Without this `/dev/shm` can promise more than it has, and the
/// process that touches the missing page gets SIGBUS.
fn reserve(file: &OwnedFd, bytes: usize) -> Result<(), Errno> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes as u64) {
            Err(Errno::INTR) => {} // tmpfs takes back what it had reserved
            answer => return answer,
        }
    }
}

fn creation_error(name: &str, error: ShmemError) -> Error {
    match error {
        ShmemError::MapCreateFailed(errno) | ShmemError::UnknownOsError(errno) => {
            let source = std::io::Error::from_raw_os_error(errno.cast_signed());
            Error::system("shm_open", format!("control segment of {name:?}"), source)
        }
        ShmemError::MappingIdExists => Error::invalid(format!(
            "name {name:?} has just been taken by another program"
        )),
        other => Error::Internal(format!("control segment of {name:?}: {other}")),
    }
}

/// The one writer of everything that is published now and then: all but the logs.
pub(crate) struct Publisher {
    mapping: Arc<Mapping>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// Shows readers new records, each as a whole. What has not changed costs no store.
//
// `&mut self`, and one publisher (`Mapping::taken`): nobody else is at these records.
impl Publisher {
    /// The rows that there are.
    pub(crate) fn max_workers(&self) -> u32 {
        self.mapping.table.max_workers()
    }

    pub(crate) fn engine(&mut self, record: &EngineRecord) {
        self.mapping.table.publish_engine(record);
    }

    pub(crate) fn class(&mut self, class: usize, record: &ClassRecord) {
        self.mapping.table.publish_class(class, record);
    }

    pub(crate) fn histogram(&mut self, class: usize, times: Times, record: &HistogramRecord) {
        self.mapping.table.publish_histogram(class, times, record);
    }

    pub(crate) fn notes(&mut self, record: &NotesRecord) {
        self.mapping.table.publish_notes(record);
    }

    /// Unasked deaths by signal.
    pub(crate) fn deaths(&mut self, deaths: &[u64; SIGNALS]) {
        self.mapping.table.publish_deaths(deaths);
    }

    pub(crate) fn row(&mut self, worker: u32, row: &Row) {
        self.mapping.table.publish_row(worker, row);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `ControlSegment::publisher`.
        self.mapping.taken.store(0, Release);
    }
}

// ---------------------------------------------------------------------------------------------
// The monitor's side
// ---------------------------------------------------------------------------------------------

/// A control segment of another process, read-only. Reads through [`Deref`] to [`Table`].
///
/// It stays readable after its engine has ended; [`is_alive`](Self::is_alive) tells.
#[derive(Debug)]
pub(crate) struct ControlReader {
    /// Points into `_memory`, which lives exactly as long.
    table: Table,
    file: OwnedFd,
    _memory: MmapRaw,
}

impl ControlReader {
    /// Opens the control segment of the engine of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: there is no such engine, it is not ready yet, or the file is not a
    /// control segment. [`Error::Unsupported`]: it has another layout version.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let os_name = os_name_of(name)?;
        let what = || format!("control segment {os_name:?}");
        let file = Directory::open()
            .and_then(|directory| directory.open_file(file_name(&os_name), OFlags::RDONLY))
            .map_err(|errno| match errno {
                Errno::NOENT => Error::invalid(format!("there is no engine named {name:?}")),
                errno => Error::system("open", what(), errno),
            })?;
        let max_workers = check_file(name, file.as_fd())?;
        let memory = MmapOptions::new()
            .len(segment_bytes(max_workers))
            .map_raw_read_only(&file)
            .map_err(|error| Error::system("mmap", what(), error))?;
        let base = NonNull::new(memory.as_mut_ptr())
            .ok_or_else(|| Error::Internal(format!("{}: mapped at 0", what())))?;
        // SAFETY: a shared mapping, so page-aligned, of just that many bytes, inside the file by
        // `check_file`; it is kept beside the table. `Table` only reads.
        let table = unsafe { Table::new(base, max_workers) };
        // Once more, through the mapping: the acquire load is what orders all later reads behind
        // the publication of the segment.
        check_owner(name, &table.owner())?;
        Ok(Self {
            table,
            file,
            _memory: memory,
        })
    }

    /// Whether the engine lives.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(examine(self.file.as_fd()), Ok(Verdict::Alive(_)))
    }
}

/// Checks owner, size, magic and version of an open file, and returns its number of workers.
fn check_file(name: &str, file: BorrowedFd<'_>) -> Result<u32> {
    let failed = |errno| Error::system("read", format!("control segment of {name:?}"), errno);
    let broken = |what: &str| Error::invalid(format!("control segment of {name:?}: {what}"));
    let stat = fstat(file).map_err(failed)?;
    if !is_ours(&stat) {
        return Err(broken("not a plain file of this user"));
    }
    check_owner(name, &read_owner(file).map_err(failed)?.unwrap_or_default())?;
    // Read after the version, so that they are there.
    let mut workers = [0; 4];
    let mut length = [0; 8];
    pread(file, &mut workers[..], MAX_WORKERS_OFFSET).map_err(failed)?;
    pread(file, &mut length[..], LENGTH_OFFSET).map_err(failed)?;
    let (workers, length) = (u32::from_ne_bytes(workers), u64::from_ne_bytes(length));
    if !(1..=MAX_WORKERS).contains(&workers)
        || length != segment_bytes(workers) as u64
        || !u64::try_from(stat.st_size).is_ok_and(|size| size >= length)
    {
        return Err(broken("the sizes in it do not fit together"));
    }
    Ok(workers)
}

fn check_owner(name: &str, owner: &Owner) -> Result<()> {
    match *owner {
        // As it is between the creation of the file and the last word of the header.
        Owner { magic: 0, .. }
        | Owner {
            magic: MAGIC,
            version: 0,
            ..
        } => Err(Error::invalid(format!(
            "engine {name:?} is starting, or its start was cut short"
        ))),
        Owner {
            magic: MAGIC,
            version: LAYOUT_VERSION,
            ..
        } => Ok(()),
        Owner {
            magic: MAGIC,
            version,
            ..
        } => Err(Error::Unsupported(format!(
            "control segment of {name:?} has layout version {version}, not {LAYOUT_VERSION}: \
             its engine is of another miniflow version"
        ))),
        _ => Err(Error::invalid(format!(
            "{name:?} is not a control segment of miniflow"
        ))),
    }
}

impl Deref for ControlReader {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}
