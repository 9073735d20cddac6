//! `/proc/<pid>/stat`: what the kernel says about a process in one line.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::io::Write as _;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, pread};

/// The parts of `/proc/<pid>/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcStat {
    pub(crate) pid: u32,
    pub(crate) state: u8,
    /// Processor time in user and kernel mode, in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// When it was started, in clock ticks since the machine was; with the pid it tells a process from
    /// all others.
    pub(crate) start_time: u64,
    /// Resident memory, in pages.
    pub(crate) rss_pages: u64,
}

impl ProcStat {
    /// Of a process by its number. Allocates nothing, so that the zygote can use it.
    ///
    /// `Ok(None)`: the file is there and cannot be understood.
    pub(crate) fn of(pid: u32) -> Result<Option<Self>, Errno> {
        let mut path = [0_u8; 32];
        // Never fails: 17 bytes and at most 10 digits.
        let _ = write!(&mut path[..], "/proc/{pid}/stat\0");
        match CStr::from_bytes_until_nul(&path) {
            Ok(path) => Self::read(path),
            Err(_) => Ok(None),
        }
    }

    /// [`ProcStat::of`] the file at `path`.
    pub(crate) fn read(path: &CStr) -> Result<Option<Self>, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        let mut bytes = [0; 1024];
        let n = pread(&file, &mut bytes[..], 0)?;
        Ok(Self::parse(&bytes[..n]))
    }

    /// `pid (comm) state ppid ...`; `comm` may itself hold parentheses and blanks, and no field
    /// after it does. proc(5) counts the fields from 1: `state` is the third.
    fn parse(line: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        let pid = line.split(|&byte| byte == b' ').next()?;
        let end_of_comm = line.iter().rposition(|&byte| byte == b')')?;
        let mut fields = line.get(end_of_comm + 2..)?.split(|&byte| byte == b' ');
        let state = *fields.next()?.first()?;
        let user = number(fields.nth(14 - 4)?)?;
        let kernel = number(fields.next()?)?;
        let start_time = number(fields.nth(22 - 16)?)?;
        let rss_pages = number(fields.nth(24 - 23)?)?;
        Some(Self {
            pid: u32::try_from(number(pid)?).ok()?,
            state,
            cpu_ticks: user.saturating_add(kernel),
            start_time,
            rss_pages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_understood_whatever_the_command_is_called() {
        let line = b"4711 (a) S 1 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20 21\n";
        let stat = ProcStat {
            pid: 4711,
            state: b'Z',
            cpu_ticks: 11 + 12,
            start_time: 98765,
            rss_pages: 21,
        };
        assert_eq!(ProcStat::parse(&line[..line.len() - 1]), Some(stat));
        for bad in [&b""[..], b"1", b"1 (x)", b"1 (x) R 1 2", b"x (x) R 1"] {
            assert_eq!(ProcStat::parse(bad), None);
        }
        let me = ProcStat::of(std::process::id()).unwrap().unwrap();
        assert_eq!(me.pid, std::process::id());
        assert!(me.start_time > 0 && me.rss_pages > 0);
    }
}
