//! What the reader of the log gets, message by message. In a program of its own: loggers are global.

#![allow(clippy::unwrap_used, reason = "a test says so when it fails")]

mod common;

use std::ffi::CStr;

use common::watchdog_alone;
use miniflow::ffi::{
    MF_E_TIMEOUT, MF_LOG_DEBUG, MF_LOG_ERROR, MF_LOG_INFO, MF_LOG_OFF, MF_OK, mf_log_level,
    mf_log_read, mf_log_record,
};

fn read() -> Option<mf_log_record> {
    // SAFETY: numbers and arrays of them: zeros are values.
    let mut record: mf_log_record = unsafe { std::mem::zeroed() };
    record.size = u32::try_from(size_of::<mf_log_record>()).unwrap();
    // SAFETY: a record of the size that it says.
    match unsafe { mf_log_read(&raw mut record, 0) } {
        MF_OK => Some(record),
        other => {
            assert_eq!(other, MF_E_TIMEOUT);
            None
        }
    }
}

fn text(string: &[std::ffi::c_char]) -> &str {
    assert!(string.contains(&0));
    // SAFETY: NUL-terminated.
    let string = unsafe { CStr::from_ptr(string.as_ptr()) };
    string.to_str().unwrap()
}

#[test]
fn messages_come_in_order_by_level_cut_where_there_is_no_room() {
    let _watchdog = watchdog_alone(60);
    log::error!("nobody reads yet");
    assert_eq!(mf_log_level(MF_LOG_INFO), MF_OK);
    log::debug!("below the level");
    log::info!(target: "short", "one\n\0two");
    let (long_target, long_text) = ("t".repeat(200), format!("{}\u{e9}", "x".repeat(3582)));
    log::error!(target: &long_target, "{long_text}");
    let first = read().unwrap();
    assert_eq!((first.level, first.dropped), (MF_LOG_INFO, 0));
    assert_eq!(
        (text(&first.target), text(&first.message)),
        ("short", "one\ntwo")
    );
    assert_eq!((first.target_len, first.message_len), (5, 7));
    let second = read().unwrap();
    assert_eq!(second.level, MF_LOG_ERROR);
    assert!(second.time_ns >= first.time_ns);
    assert_eq!(text(&second.target), &long_target[..95]);
    assert_eq!(text(&second.message), "x".repeat(3582)); // the last character has two bytes
    assert_eq!((second.target_len, second.message_len), (200, 3584));
    assert!(read().is_none());
}

#[test]
fn what_finds_no_room_is_counted_and_what_waits_survives_another_level() {
    let _watchdog = watchdog_alone(60);
    assert_eq!(mf_log_level(MF_LOG_DEBUG), MF_OK);
    for number in 0..1100 {
        log::debug!("{number}");
    }
    assert_eq!(mf_log_level(MF_LOG_OFF), MF_OK);
    log::error!("not asked for");
    for number in 0..1024 {
        let record = read().unwrap();
        assert_eq!(
            (text(&record.message), record.dropped),
            (&*number.to_string(), 0)
        );
    }
    assert!(read().is_none());
    assert_eq!(mf_log_level(MF_LOG_ERROR), MF_OK);
    log::error!("later");
    let record = read().unwrap();
    assert_eq!((text(&record.message), record.dropped), ("later", 76));
    assert_eq!(mf_log_level(MF_LOG_OFF), MF_OK);
}
