//! The names of control segments: how they are made up, locked, judged and removed.
//!
//! What "alive" means is said in the parent module.

use std::ffi::{CStr, CString};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::unlinkat;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, openat};
use rustix::io::{Errno, pread};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};

use super::super::load_table::{MAGIC, NAME_BYTES, Owner, STABLE_BYTES};
use crate::error::{Error, Result};
use crate::sys::proc_stat::ProcStat;

/// Where POSIX shared memory has its names on Linux (fixed in glibc and musl).
const DIRECTORY: &CStr = c"/dev/shm";
/// How long to wait for a lock that others hold for microseconds.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Whether `name` can name an engine: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub(crate) fn valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// What all file names of this user's engines start with.
pub(super) fn prefix() -> String {
    format!("miniflow.{}.", geteuid().as_raw())
}

/// `/miniflow.<uid>.<name>`, the name that `shm_open` takes.
pub(crate) fn os_name_of(name: &str) -> Result<CString> {
    if !valid_name(name) {
        return Err(Error::invalid(format!(
            "engine name {name:?} must be 1 to {NAME_BYTES} of the characters A-Z a-z 0-9 . _ -"
        )));
    }
    CString::new(format!("/{}{name}", prefix()))
        .map_err(|_| Error::Internal(format!("NUL in the engine name {name:?}")))
}

/// The name without the slash in front, as it stands in the directory.
pub(super) fn file_name(os_name: &CStr) -> &CStr {
    let bytes = os_name.to_bytes_with_nul();
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    CStr::from_bytes_with_nul(bytes).unwrap_or(os_name)
}

pub(super) fn path_of(os_name: &CStr) -> PathBuf {
    PathBuf::from(format!(
        "{}/{}",
        DIRECTORY.to_string_lossy(),
        file_name(os_name).to_string_lossy()
    ))
}

// ---------------------------------------------------------------------------------------------
// Locks
// ---------------------------------------------------------------------------------------------

/// Takes a flock; gives up after [`LOCK_PATIENCE`] with `EWOULDBLOCK`.
pub(super) fn flock_patiently(fd: BorrowedFd<'_>, operation: FlockOperation) -> Result<(), Errno> {
    let start = Instant::now();
    loop {
        match flock(fd, operation) {
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            answer => return answer,
        }
    }
}

/// The directory of the names.
#[derive(Debug)]
pub(super) struct Directory(pub(super) OwnedFd);

impl Directory {
    pub(super) fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(rustix::fs::CWD, DIRECTORY, flags, Mode::empty()).map(Self)
    }

    /// Opens a name to look at. Never blocks, follows no symbolic link.
    pub(super) fn open_file(&self, file: &CStr, access: OFlags) -> Result<OwnedFd, Errno> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&self.0, file, flags, Mode::empty())
    }

    fn lock(self) -> Result<LockedDirectory, Errno> {
        flock_patiently(self.0.as_fd(), FlockOperation::NonBlockingLockExclusive)?;
        Ok(LockedDirectory(self))
    }
}

/// The directory, while nobody else makes or removes names.
#[derive(Debug)]
pub(super) struct LockedDirectory(Directory);

impl LockedDirectory {
    pub(super) fn lock() -> Result<Self, Errno> {
        Directory::open()?.lock()
    }

    /// The same with an error to show.
    pub(super) fn lock_or_explain() -> Result<Self> {
        Self::lock().map_err(|errno| Error::system("flock", "lock /dev/shm", errno))
    }

    pub(super) fn unlink(&self, file: &CStr) -> Result<(), Errno> {
        unlinkat(&self.0.0, file, AtFlags::empty())
    }
}

impl Deref for LockedDirectory {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.0
    }
}

impl Drop for LockedDirectory {
    fn drop(&mut self) {
        // Explicitly: a child forked meanwhile holds the same open file, so that closing our
        // descriptor alone would leave the lock with it.
        let _ = flock(&self.0.0, FlockOperation::Unlock);
    }
}

// ---------------------------------------------------------------------------------------------
// Alive or not
// ---------------------------------------------------------------------------------------------

/// What a file of our prefix turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not ours to judge: another user's, no plain file, or other contents.
    Foreign,
    /// Its creation is going on, or was cut short: which, only the directory lock can tell.
    Unfinished,
    /// Its engine is gone.
    Dead(u32),
    /// Its engine lives, under this pid of its own namespace.
    Alive(u32),
}

/// Judges an open name. Allocates nothing, so that the zygote can use it.
pub(super) fn examine(file: BorrowedFd<'_>) -> Result<Verdict, Errno> {
    let stat = fstat(file)?;
    if !is_ours(&stat) {
        return Ok(Verdict::Foreign);
    }
    let owner = match read_owner(file)? {
        Some(owner) if owner.magic != 0 && owner.magic != MAGIC => return Ok(Verdict::Foreign),
        Some(owner) if owner.version != 0 => owner,
        _ => return Ok(Verdict::Unfinished),
    };
    // A shared lock: several who ask at once do not take each other for the owner.
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = flock(file, FlockOperation::Unlock);
            Ok(Verdict::Dead(owner.pid))
        }
        Err(Errno::WOULDBLOCK) if process_is_gone(&owner) => Ok(Verdict::Dead(owner.pid)),
        Err(Errno::WOULDBLOCK) => Ok(Verdict::Alive(owner.pid)),
        Err(errno) => Err(errno),
    }
}

pub(super) fn is_ours(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == geteuid().as_raw()
}

/// The first words of the file; `None` if it is shorter. Read, not mapped: a file that shrinks
/// meanwhile is no SIGBUS.
pub(super) fn read_owner(file: BorrowedFd<'_>) -> Result<Option<Owner>, Errno> {
    let mut bytes = [0; STABLE_BYTES];
    let n = pread(file, &mut bytes[..], 0)?;
    Ok((n == STABLE_BYTES).then(|| Owner::parse(&bytes)))
}

/// Who this process is, in words that another process can check.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// 0 if `/proc` is missing or shows another pid namespace than ours.
    pub(super) start_time: u64,
    /// Likewise.
    pub(super) pid_namespace: u64,
}

impl Identity {
    pub(super) fn of_this_process() -> Self {
        let pid = std::process::id();
        let nameless = Self {
            pid,
            ..Self::default()
        };
        let Ok(Some(stat)) = ProcStat::read(c"/proc/self/stat") else {
            return nameless;
        };
        let Ok(namespace) = rustix::fs::stat(c"/proc/self/ns/pid") else {
            return nameless;
        };
        if stat.pid != pid {
            return nameless; // this /proc counts pids from another namespace
        }
        Self {
            pid,
            start_time: stat.start_time,
            pid_namespace: namespace.st_ino,
        }
    }
}

/// Whether the owner's process certainly does not run any more. In doubt it does.
fn process_is_gone(owner: &Owner) -> bool {
    let here = Identity::of_this_process();
    let comparable = owner.start_time != 0
        && owner.pid_namespace != 0
        && owner.pid_namespace == here.pid_namespace;
    let pid = i32::try_from(owner.pid).ok().and_then(Pid::from_raw);
    let (true, Some(pid)) = (comparable, pid) else {
        return false;
    };
    // First the pidfd, then the start time: if that fits, the pidfd is of this very process.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Some(pidfd),
        Err(Errno::SRCH) => return true,
        Err(_) => None, // an old kernel, or no descriptors left
    };
    let stat = match ProcStat::of(owner.pid) {
        Ok(Some(stat)) => stat,
        Ok(None) => return false,
        Err(errno) => return matches!(errno, Errno::NOENT | Errno::SRCH),
    };
    if stat.start_time != owner.start_time {
        return true; // the number has gone to another process
    }
    match pidfd {
        // Readable: all threads have ended, though the parent may not have asked yet.
        Some(pidfd) => {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            matches!(poll(&mut fds, Some(&now)), Ok(1..))
        }
        None => matches!(stat.state, b'Z' | b'X'),
    }
}

/// Opens and judges a name; `Ok(None)` if there is none.
pub(super) fn examine_name(directory: &Directory, file: &CStr) -> Result<Option<Verdict>, Errno> {
    match directory.open_file(file, OFlags::RDONLY) {
        Ok(fd) => examine(fd.as_fd()).map(Some),
        Err(Errno::NOENT) => Ok(None),
        // Another user's file, a symbolic link, a socket: nothing that we make.
        Err(Errno::ACCESS | Errno::LOOP | Errno::NXIO) => Ok(Some(Verdict::Foreign)),
        Err(errno) => Err(errno),
    }
}

/// Removes a name if its engine is dead; says whether it did. Allocates nothing if all goes well.
fn remove_if_dead(directory: &LockedDirectory, file: &CStr) -> Result<bool, Errno> {
    match examine_name(directory, file)? {
        // Unfinished: nobody is creating it now (we hold the lock), so its creator was cut short.
        Some(Verdict::Dead(_) | Verdict::Unfinished) => match directory.unlink(file) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        },
        Some(Verdict::Foreign | Verdict::Alive(_)) | None => Ok(false),
    }
}

/// For the zygote, when the host is gone: removes the host's name, if it is not in use by a new
/// engine already. True if it was removed.
///
/// It uses no memory but the stack and waits at most [`LOCK_PATIENCE`].
pub(crate) fn unlink_name(os_name: &CStr) -> bool {
    let Ok(directory) = LockedDirectory::lock() else {
        return false;
    };
    remove_if_dead(&directory, file_name(os_name)).unwrap_or(false)
}

/// Whether an engine of this name, of this user, is alive.
#[cfg(test)]
pub(crate) fn is_alive(name: &str) -> bool {
    let verdict = || {
        let os_name = os_name_of(name).ok()?;
        examine_name(&Directory::open().ok()?, file_name(&os_name)).ok()?
    };
    matches!(verdict(), Some(Verdict::Alive(_)))
}

/// A control segment of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The engine's name.
    pub(crate) name: String,
    /// Its process, in the engine's own pid namespace; 0 if its start was cut short.
    pub(crate) pid: u32,
    /// Whether the engine lives.
    pub(crate) alive: bool,
}

/// The names in the directory that look like this user's, sorted.
fn names() -> Result<Vec<String>> {
    let failed = |error| Error::system("readdir", "list /dev/shm", error);
    let prefix = prefix();
    let mut names = Vec::new();
    let path = DIRECTORY.to_string_lossy();
    for entry in std::fs::read_dir(&*path).map_err(failed)? {
        let file = entry.map_err(failed)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_prefix(&prefix));
        names.extend(name.filter(|name| valid_name(name)).map(String::from));
    }
    names.sort_unstable();
    Ok(names)
}

/// The control segments of this user's engines, dead ones too, by name.
pub(crate) fn list() -> Result<Vec<Found>> {
    let failed = |errno| Error::system("open", "list /dev/shm", errno);
    let directory = Directory::open().map_err(failed)?;
    let mut found = Vec::new();
    for name in names()? {
        let os_name = os_name_of(&name)?;
        let (pid, alive) = match examine_name(&directory, file_name(&os_name)) {
            Ok(Some(Verdict::Alive(pid))) => (pid, true),
            Ok(Some(Verdict::Dead(pid))) => (pid, false),
            Ok(Some(Verdict::Unfinished)) => (0, false),
            Ok(Some(Verdict::Foreign) | None) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        found.push(Found { name, pid, alive });
    }
    Ok(found)
}

/// Removes the names of this user's dead engines and returns them.
pub(crate) fn clean() -> Result<Vec<String>> {
    clean_if(|_| true)
}

/// [`clean`] among the names that `wanted` picks, so that tests leave each other's alone.
pub(super) fn clean_if(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let directory = LockedDirectory::lock_or_explain()?;
    let mut removed = Vec::new();
    for name in names()?.into_iter().filter(|name| wanted(name)) {
        let os_name = os_name_of(&name)?;
        let gone = remove_if_dead(&directory, file_name(&os_name))
            .map_err(|errno| Error::system("unlink", format!("clean {os_name:?}"), errno))?;
        if gone {
            removed.push(name);
        }
    }
    Ok(removed)
}
