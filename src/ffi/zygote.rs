//! Zygote programs: language runtimes that load what workers need once, then fork them.

use std::ffi::{CStr, c_char};

use crate::error::{Error, Result};
use crate::ffi::error::guard;
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::worker::{SpawnRequest, Zygote};

fn find(fd: i32) -> Result<Zygote> {
    let zygote = Zygote::opened()?;
    if zygote.fd() != fd {
        return Err(Error::invalid(format!(
            "{fd} is not what mf_zygote_open() has returned"
        )));
    }
    Ok(zygote)
}

/// For a language runtime that an engine has executed as its zygote (MF_ZYGOTE in mf_config.flags):
/// opens its end. Once per process.
///
/// The runtime loads what its workers need, before or after this call, then repeats:
/// mf_zygote_recv(); fork; in the parent mf_zygote_reply(); in the child mf_worker_join() and what a
/// worker does. If it cannot start workers it says so by mf_zygote_fail(). It has its own process
/// group, signals at their defaults (but for SIGHUP, which is ignored), and of the host's
/// descriptors only 0 to 2 and mf_config.inherit_fds. If it ends, the engine executes it again; the
/// workers that it had go on.
///
/// It notices the death of the host in mf_zygote_recv(), and only there. If it has threads, its
/// children may use only what survives a fork; and they end with the thread that forked them if that
/// ends before they have joined. It must not wait for workers itself: how they ended would be lost.
///
/// Returns a descriptor that names the zygote in the other calls (not to be read, written or
/// closed), or
/// - MF_E_INVALID: this process was not executed as a zygote, or has opened it already;
/// - MF_E_UNSUPPORTED: the host has another version of the shared layout;
/// - MF_E_SYSTEM: the system refuses.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_zygote_open() -> i32 {
    guard(|| Ok(Zygote::open()?.fd()))
}

/// Waits until a worker is to be forked. Meanwhile the library reaps and reports workers that end
/// (no other children of this process), and when the host dies it kills them and removes the
/// engine's name.
///
/// - `fd`: from mf_zygote_open().
/// - `request`: its `size` is set by the caller; receives the request. One that is not answered by
///   mf_zygote_reply() before the next call counts as refused.
///
/// Returns MF_OK, or
/// - MF_E_CLOSED: the runtime must exit;
/// - MF_E_INVALID: `fd` is not a zygote, or `request` is NULL or of a wrong size.
///
/// Any thread, one at a time: others wait. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `request` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_zygote_recv(fd: i32, request: *mut mf_zygote_request) -> i32 {
    guard(|| {
        let zygote = find(fd)?;
        // SAFETY: the caller's word.
        unsafe { sized::check_growable(request, "mf_zygote_request") }?;
        let asked = zygote.recv()?;
        let answer = mf_zygote_request {
            size: 0, // set by `write_growable`
            worker: asked.worker,
            incarnation: asked.incarnation,
        };
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(request, &answer, "mf_zygote_request") }?;
        Ok(MF_OK)
    })
}

/// Answers the last request, in the process that received it, not in its child.
///
/// - `fd`: from mf_zygote_open().
/// - `request`: as mf_zygote_recv() filled it.
/// - `pid`: the child that was forked; or, if that failed, < 0: the negative error number.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: `fd` is not a zygote, the request does not wait for an answer (any more), or
///   `pid` is not a child of this process: then it counts as refused;
/// - MF_E_SYSTEM: no descriptor is left to watch the child, which is killed.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `request` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_zygote_reply(
    fd: i32,
    request: *const mf_zygote_request,
    pid: i64,
) -> i32 {
    const EMPTY: mf_zygote_request = mf_zygote_request {
        size: 0,
        worker: 0,
        incarnation: 0,
    };
    guard(|| {
        let zygote = find(fd)?;
        // SAFETY: the caller's word.
        let request = unsafe { sized::read_growable(request, EMPTY, "mf_zygote_request") }?;
        let request = SpawnRequest {
            worker: request.worker,
            incarnation: request.incarnation,
        };
        let child = match u32::try_from(pid) {
            Ok(pid) => Ok(pid),
            Err(_) => {
                let errno = pid.checked_neg().and_then(|e| i32::try_from(e).ok());
                Err(std::io::Error::from_raw_os_error(
                    errno.filter(|&e| e > 0).unwrap_or(libc::EINVAL),
                ))
            }
        };
        zygote.reply(&request, child)?;
        Ok(MF_OK)
    })
}

/// Tells the host that this runtime cannot start workers, and why: mf_engine_start() fails with that
/// text. In an engine that has started before, and has executed the runtime again since, it counts
/// as a failed start: it is tried again, and after several in a row tasks fail with that text. The
/// host kills this process.
///
/// - `fd`: from mf_zygote_open().
/// - `text`: the reason, of which about 1000 bytes arrive; what is not UTF-8 in it is replaced. NULL
///   = none.
///
/// Returns MF_OK, MF_E_CLOSED if the host is gone, or MF_E_INVALID if `fd` is not a zygote. Any
/// thread; waits for another thread's mf_zygote_recv(). Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_zygote_fail(fd: i32, text: *const c_char) -> i32 {
    guard(|| {
        let zygote = find(fd)?;
        let text = if text.is_null() {
            "it does not say why".into()
        } else {
            // SAFETY: not NULL, so a string by the caller's word.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        zygote.fail(&text)?;
        Ok(MF_OK)
    })
}
