//! The log, for C: chosen by level, read from a queue.

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use ::log::LevelFilter;

use crate::error::{Error, Result};
use crate::ffi::error::{guard, refuse};
use crate::ffi::log_callback::{Teller, is_telling, mf_log_fn};
use crate::ffi::log_queue::{Logger, Message, NoMessage};
use crate::ffi::per_process::PerProcess;
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::sys::sync::lock;

static LOGGER: Logger = Logger::new();

/// Who tells the log to a function, if one is set.
static TELLER: PerProcess<Mutex<Option<Teller>>> = PerProcess::new();

/// Makes ours the logger of this program, once. Loggers cannot be replaced.
fn install() -> Result<()> {
    static OURS: OnceLock<bool> = OnceLock::new();
    let ours = *OURS.get_or_init(|| ::log::set_logger(&LOGGER).is_ok());
    ours.then_some(()).ok_or_else(|| {
        Error::Unsupported("reading the log of a program that has a Rust logger of its own".into())
    })
}

/// Chooses which messages of the library are kept for mf_log_read(): none before the first call. The
/// library itself never prints anything.
///
/// - `level`: MF_LOG_OFF to MF_LOG_TRACE; messages of this level and of those below are kept, for all
///   engines of the process. What waits already, stays.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: no such level;
/// - MF_E_UNSUPPORTED: the library is part of a Rust program that has set a logger, which gets the
///   messages. Its level is not changed.
///
/// Any thread. Forked child: has a queue of its own, from its first call of this or of mf_log_read()
/// on. Before that no message is kept in it, and no lock taken: workers that run a handler log
/// nothing. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mf_log_level(level: i32) -> i32 {
    guard(|| {
        set_level(level)?;
        Ok(MF_OK)
    })
}

fn set_level(level: i32) -> Result<()> {
    let filter = match level {
        MF_LOG_OFF => LevelFilter::Off,
        MF_LOG_ERROR => LevelFilter::Error,
        MF_LOG_WARN => LevelFilter::Warn,
        MF_LOG_INFO => LevelFilter::Info,
        MF_LOG_DEBUG => LevelFilter::Debug,
        MF_LOG_TRACE => LevelFilter::Trace,
        other => return Err(Error::invalid(format!("{other} is not a log level"))),
    };
    install()?;
    LOGGER.queue()?;
    ::log::set_max_level(filter);
    Ok(())
}

/// Fetches the oldest message of the log that was not fetched yet; see mf_log_level().
///
/// For a program that would rather be called: mf_set_log(). A thread that reads is the better way where
/// a call from a foreign thread is dear, as in an interpreter.
///
/// - `record`: receives the message; its `size` is set by the caller.
/// - `timeout_ns`: nanoseconds to wait for one; < 0 for ever, 0 not at all.
///
/// Up to 1024 messages wait to be fetched. When there are that many, the newest are dropped, and
/// mf_log_record.dropped of the next one that is not says how many.
///
/// Returns MF_OK, or, with `record` as it was,
/// - MF_E_TIMEOUT: none came in time;
/// - MF_E_CLOSED: mf_log_wake() ended the wait;
/// - MF_E_INVALID: NULL, or a size that no version of mf_log_record has.
///
/// Any thread; several may wait, and each message goes to one of them. Forked child: reads a queue of
/// its own. Since 0.1.
///
/// # Safety
/// `record` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_log_read(record: *mut mf_log_record, timeout_ns: i64) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::check_growable(record, "mf_log_record") }?;
        let message = match LOGGER.queue()?.pop(sized::timeout(timeout_ns)) {
            Ok(message) => message,
            Err(NoMessage::Timeout) => return Err(Error::Timeout),
            Err(NoMessage::Woken) => {
                return Ok(refuse(MF_E_CLOSED, "closed: mf_log_wake() ended the wait"));
            }
        };
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(record, &describe(&message), "mf_log_record") }?;
        Ok(MF_OK)
    })
}

/// Ends one mf_log_read() that waits, which then answers MF_E_CLOSED; if none waits, the next one
/// that is called with a timeout other than 0. So a thread that reads the log can be joined at exit,
/// whatever it does at the moment. Messages that wait stay, to be fetched with a timeout of 0.
///
/// Returns MF_OK. Any thread. Forked child: for its own queue. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mf_log_wake() -> i32 {
    guard(|| {
        LOGGER.queue()?.wake();
        Ok(MF_OK)
    })
}

/// Has each message of the log told to a function; see mf_log_fn for what it may do, and mf_log_level()
/// for what messages there are. It replaces the function that was told before.
///
/// - `function`: NULL for none. What waits is told to the one before; when this returns, that is not
///   called any more.
/// - `user`: its first argument.
/// - `level`: as for mf_log_level(), which this calls.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: no such level, or called by the function itself;
/// - MF_E_UNSUPPORTED: as for mf_log_level();
/// - MF_E_SYSTEM: no thread could be started.
///
/// A thread that waits in mf_log_read() meanwhile gets some of the messages in place of the function.
/// Waits for the function that was told before to return. Any thread. Forked child: has no function until
/// it sets one. Since 0.1.
///
/// # Safety
/// `function` is NULL or what mf_log_fn says, with this `user`, until it is replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_set_log(function: mf_log_fn, user: *mut c_void, level: i32) -> i32 {
    guard(|| {
        let tellers = TELLER.get_or_make(Mutex::default)?;
        if is_telling() {
            return Err(Error::invalid(
                "mf_set_log() was called by the log's function",
            ));
        }
        let mut teller = lock(tellers);
        set_level(level)?;
        if let Some(before) = teller.take() {
            before.end();
        }
        if let Some(function) = function {
            // SAFETY: the caller's word; `end` is called before another is set.
            *teller = Some(unsafe { Teller::start(LOGGER.queue()?, function, user) }?);
        }
        Ok(MF_OK)
    })
}

/// The C form of a message.
pub(crate) fn describe(message: &Message) -> mf_log_record {
    let since = message.time.duration_since(SystemTime::UNIX_EPOCH);
    let time_ns = sized::nanoseconds(since.unwrap_or_default());
    let count = |len| u32::try_from(len).unwrap_or(u32::MAX);
    mf_log_record {
        size: 0, // set by `write_growable`
        level: message.level as i32,
        time_ns: time_ns.unsigned_abs(),
        dropped: message.dropped,
        target_len: count(message.target.len()),
        message_len: count(message.text.len()),
        target: terminated(message.target.kept()),
        message: terminated(message.text.kept()),
    }
}

/// A C string of a text that is shorter than `N`.
fn terminated<const N: usize>(text: &str) -> [c_char; N] {
    const { assert!(N == Message::TARGET + 1 || N == Message::TEXT + 1) };
    let mut string = [0; N];
    for (place, byte) in string[..N - 1].iter_mut().zip(text.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    string
}
