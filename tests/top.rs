//! `miniflow top` on a terminal, watching a real engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;
#[path = "common/pty.rs"]
mod pty;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use std::sync::Arc;

use common::{Name, Proc, collect, cpu_only, run_to_end, until, watchdog};
use miniflow::{Engine, Submission};
use pty::Pty;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use vt100::Screen;

const MINIFLOW: &str = env!("CARGO_BIN_EXE_miniflow");

/// An engine that works until it is dropped.
struct Busy {
    name: Name,
    end: Arc<AtomicBool>,
    host: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(workers: u32) -> Self {
        let name = Name::unique();
        let engine = cpu_only(workers, 1)
            .name(&*name)
            .handler(|_| {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            })
            .start()
            .unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let host = std::thread::spawn(move || work(&engine, &ended));
        Self {
            name,
            end,
            host: Some(host),
        }
    }

    /// Ends the engine.
    fn end(&mut self) {
        self.end.store(true, Relaxed);
        if let Some(host) = self.host.take() {
            host.join().unwrap();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps tasks on their way until it is told to end.
fn work(engine: &Engine, end: &AtomicBool) {
    while !end.load(Relaxed) {
        let tasks = (0..8).map(|_| Submission::from(&b""[..]));
        let count = engine.submit_batch(tasks).unwrap().len();
        collect(engine, count);
    }
}

fn top(args: &[&str]) -> Command {
    let mut command = Command::new(MINIFLOW);
    command
        .arg("top")
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR");
    command
}

fn rows(screen: &Screen) -> Vec<String> {
    let (_, columns) = screen.size();
    screen.rows(0, columns.get()).collect()
}

/// The rate that stands in a worker's row: `Process 0: ### 1 thread cpu ready QUEUE RATE`.
fn rate_of(screen: &Screen, slot: u32) -> Option<f64> {
    let begin = format!(" Process {slot}:");
    let row = rows(screen)
        .into_iter()
        .find(|row| row.starts_with(&begin))?;
    let (_, rest) = row.split_once(" ready ")?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[track_caller]
fn assert_restored(pty: &Pty) {
    let screen = pty.screen();
    assert!(!screen.alternate_screen(), "the alternate screen is left");
    assert!(!screen.hide_cursor(), "the cursor is shown");
    assert!(pty.is_cooked(), "lines are edited again");
}

#[test]
fn workers_and_their_rates_are_shown_and_the_keys_do_what_they_say() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(2);
    let mut pty = Pty::start(top(&[&engine.name, "--interval", "0.1"]), 24, 80);
    let screen = pty.until("rates of both workers", |screen| {
        (0..2).all(|slot| rate_of(screen, slot) > Some(0.0))
    });
    assert!(screen.alternate_screen() && screen.hide_cursor());
    assert!(!pty.is_cooked());
    assert!(rows(&screen)[0].starts_with(&format!(" {} ", &*engine.name)));
    assert!(screen.contents().contains("running"));

    pty.shows("process\u{25b4}");
    pty.press("s");
    pty.shows("load\u{25be}");
    pty.press("r");
    pty.shows("load\u{25b4}");

    pty.press("/io");
    pty.shows(" filter: io");
    pty.shows("workers 0 of 2");
    pty.press("\x7f\x7f0\r");
    let screen = pty.shows("workers 1 of 2");
    assert_eq!(rate_of(&screen, 1), None);

    pty.press("p");
    pty.shows("PAUSED");
    pty.press("+");
    pty.shows("+- 0.2 s");
    pty.press("?");
    pty.shows("sort by the next column");
    pty.press("x");
    pty.until("the picture", |screen| {
        !screen.contents().contains("sort by the next column")
    });
    pty.press("q");
    assert_eq!(pty.wait().code(), Some(0));
    assert_restored(&pty);
}

#[test]
fn escape_and_ctrl_c_quit_too() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(1);
    for key in ["\x1b", "\x03"] {
        let mut pty = Pty::start(top(&[&engine.name]), 24, 80);
        pty.shows("Process 0:");
        pty.press(key);
        assert_eq!(pty.wait().code(), Some(0));
        assert_restored(&pty);
    }
}

#[test]
fn signals_that_end_programs_end_it_with_the_terminal_as_it_was() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(1);
    // Of SIGQUIT, no core file.
    let limit = getrlimit(Resource::Core);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    setrlimit(Resource::Core, none).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut pty = Pty::start(top(&[&engine.name]), 24, 80);
        pty.shows("Process 0:");
        pty.signal(signal);
        assert_eq!(pty.wait().signal(), Some(signal.as_raw()));
        assert_restored(&pty);
    }
}

#[test]
fn stopped_it_gives_the_terminal_back_and_continued_it_takes_it_again() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(1);
    let mut pty = Pty::start(top(&[&engine.name, "--interval", "0.1"]), 24, 80);
    pty.shows("Process 0:");
    for stop in ["\x1a", ""] {
        if stop.is_empty() {
            pty.signal(Signal::TSTP);
        } else {
            pty.press(stop);
        }
        until("it is stopped", || {
            Proc::read(pty.pid()).is_some_and(|process| process.state == 'T')
        });
        pty.until("the shell's screen", |screen| !screen.alternate_screen());
        assert_restored(&pty);
        pty.signal(Signal::CONT);
        pty.until("the picture", |screen| {
            screen.alternate_screen() && screen.contents().contains("Process 0:")
        });
    }
    pty.press("q");
    assert_eq!(pty.wait().code(), Some(0));
    assert_restored(&pty);
}

#[test]
fn the_last_picture_of_an_engine_that_is_gone_stays_until_q() {
    let _watchdog = watchdog(120);
    let mut engine = Busy::start(1);
    let mut pty = Pty::start(top(&[&engine.name, "--interval", "0.1"]), 24, 80);
    pty.until("a rate", |screen| rate_of(screen, 0) > Some(0.0));
    engine.end();
    let screen = pty.shows("the engine is gone");
    assert!(screen.contents().contains(&*engine.name));
    pty.press("q");
    assert_eq!(pty.wait().code(), Some(0));
    assert_restored(&pty);
}

#[test]
fn another_size_of_the_terminal_is_another_picture() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(2);
    let mut pty = Pty::start(top(&[&engine.name]), 24, 80);
    pty.shows("Process 1:");
    pty.resize(50, 180);
    pty.until("more columns", |screen| {
        let heading = rows(screen)
            .into_iter()
            .find(|row| row.contains("process\u{25b4}"));
        heading.is_some_and(|row| row.contains("rss") && row.contains(" pid "))
    });
    pty.resize(5, 20);
    pty.until("fewer rows", |screen| rows(screen).len() == 5);
    pty.press("q");
    assert_eq!(pty.wait().code(), Some(0));
}

#[test]
fn without_a_name_one_chooses_among_the_engines() {
    let _watchdog = watchdog(120);
    // Other tests have engines too.
    let (one, other) = (Busy::start(1), Busy::start(1));
    for engine in [&other, &one] {
        let mut pty = Pty::start(top(&[]), 60, 80);
        pty.shows("Which engine?");
        let name = format!("  {} ", &*engine.name);
        let mut screen = pty.until("the list with the engine", |screen| {
            rows(screen).iter().any(|row| row.starts_with(&name))
        });
        while chosen(&screen).is_none_or(|row| !row.starts_with(&name)) {
            let before = chosen(&screen);
            pty.press("\x1b[B");
            screen = pty.until("the next engine", |screen| chosen(screen) != before);
        }
        pty.press("\r");
        pty.shows("Process 0:");
        assert!(rows(&pty.screen())[0].contains(&*engine.name));
        pty.press("q");
        assert_eq!(pty.wait().code(), Some(0));
    }
}

/// The row of the list that is marked.
fn chosen(screen: &Screen) -> Option<String> {
    let mut rows = (0..).zip(rows(screen));
    let is_marked = |row| screen.cell(row, 2).is_some_and(vt100::Cell::inverse);
    rows.find(|&(row, _)| is_marked(row)).map(|(_, text)| text)
}

#[test]
fn without_a_terminal_one_picture_is_printed_as_text() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(2);
    let patience = Duration::from_secs(60);
    for args in [
        &["top", &*engine.name][..],
        &[
            "top",
            &*engine.name,
            "--once",
            "--ascii",
            "--interval",
            "0.3",
        ],
    ] {
        let (status, text) = run_to_end(MINIFLOW, args, patience);
        assert!(status.success());
        assert!(
            text.contains("Process 1:") && text.contains("running"),
            "{text}"
        );
        assert!(!text.contains('\x1b') && !text.contains("q quit"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_one_picture_as_text() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(1);
    let mut command = top(&[&engine.name, "--interval", "0.2"]);
    command.env("TERM", "dumb");
    let mut pty = Pty::start(command, 40, 80);
    assert_eq!(pty.wait().code(), Some(0));
    let screen = pty.shows("Process 0:");
    assert!(!screen.contents().contains("q quit"));
    assert_restored(&pty);
}

#[test]
fn without_colours_none_is_sent_and_with_them_there_are_some() {
    let _watchdog = watchdog(120);
    let engine = Busy::start(1);
    let colored = |screen: &Screen| {
        let (rows, columns) = screen.size();
        let mut cells = (0..rows.get())
            .flat_map(|row| (0..columns.get()).filter_map(move |column| screen.cell(row, column)));
        cells.any(|cell| cell.fgcolor() != vt100::Color::Default)
    };
    let mut no_color = top(&[&engine.name]);
    no_color.env("NO_COLOR", "1");
    for (command, expected) in [
        (top(&[&engine.name]), true),
        (top(&[&engine.name, "--no-color"]), false),
        (no_color, false),
    ] {
        let pty = Pty::start(command, 24, 80);
        let screen = pty.shows("Process 0:");
        assert_eq!(colored(&screen), expected);
    }
}

#[test]
fn an_engine_that_there_is_not_is_an_error_that_names_it() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let output = top(&[&name]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("miniflow top: ") && error.contains(&*name),
        "{error}"
    );
}
