//! A program on a terminal of its own, and what a user would see there.
#![allow(dead_code, reason = "every program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, ioctl_tiocsctty, kill_process, setsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use vt100::{Parser, Screen};

/// How long a condition may take to come true that comes true by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Killed when dropped.
pub(crate) struct Pty {
    child: Child,
    keyboard: File,
    /// The terminal's side; it keeps its settings while somebody has it open.
    line: OwnedFd,
    parser: Arc<Mutex<Parser>>,
}

impl Pty {
    /// Starts the program in a session of its own, whose terminal has this size.
    pub(crate) fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let line = ioctl_tiocgptpeer(&master, flags).unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&line, size).unwrap();
        let end = || line.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: between fork and exec, two system calls and nothing else.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                Ok(ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let child = command.spawn().unwrap();
        let parser = Arc::new(Mutex::new(Parser::new(cells(rows), cells(columns), 0)));
        let (mut output, shown) = (File::from(master.try_clone().unwrap()), Arc::clone(&parser));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end: nobody has the terminal any more.
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self {
            child,
            keyboard: File::from(master),
            line,
            parser,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Gives the terminal another size, as a window manager does.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        self.parser
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.line, size).unwrap();
    }

    /// What is to be seen now.
    pub(crate) fn screen(&self) -> Screen {
        self.parser.lock().unwrap().screen().clone()
    }

    /// Waits until this is to be seen, and returns it.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&Screen) -> bool) -> Screen {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if condition(&screen) {
                return screen;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}\n{}",
                screen.contents()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the screen has this text.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> Screen {
        self.until(text, |screen| screen.contents().contains(text))
    }

    /// Whether typed characters are shown and lines edited, as a shell needs it.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }
}
