//! The processor time of any process, to the nanosecond. (`/proc/PID/stat` counts in ticks of
//! 10 ms, which are half a percent of two seconds.)

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};

/// What all threads of the process have used so far.
pub(super) fn used_by(pid: u32) -> Result<Duration> {
    let failed = |call| Error::system::<io::Error>(call);
    let pid = libc::pid_t::try_from(pid)
        .map_err(|_| Error::Unfit(format!("{pid} is not a process id")))?;
    let mut clock = 0;
    // SAFETY: `clock` is valid for writes, as the call asks.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(failed("clock_getcpuclockid")(io::Error::from_raw_os_error(
            error,
        )));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes, as the call asks; a clock that is no more is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(failed("clock_gettime")(io::Error::last_os_error()));
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Ok(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let id = std::process::id();
        let before = used_by(id).unwrap();
        let end = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < end {
            std::hint::spin_loop();
        }
        assert!(used_by(id).unwrap() > before);
    }
}
