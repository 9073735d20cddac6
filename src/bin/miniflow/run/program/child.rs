//! One running program, and the exchange of a line for a line.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::LEAVE;
use super::guard::Guard;
use crate::run::bell::{wait, wait_readable};
use crate::run::feed::LONGEST;

/// How often a task in hand is asked whether it is cancelled.
const LOOK: Duration = Duration::from_millis(100);
/// How long a program that has closed its output may take to end.
const FALL: Duration = Duration::from_millis(200);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// A program, in a process group of its own. Dropping it kills
/// the group; [`leave`](Program::leave) is the friendly way.
#[derive(Debug)]
pub(super) struct Program<'a> {
    child: Child,
    group: Pid,
    /// Tells when the child has ended.
    pidfd: OwnedFd,
    /// `None` when there is no more for it to read.
    input: Option<ChildStdin>,
    /// It reads no more.
    is_deaf: bool,
    output: ChildStdout,
    guard: &'a Guard,
    /// What it has written since its last answer.
    written: Vec<u8>,
    answers: u64,
    /// It has closed its output.
    is_over: bool,
    is_reaped: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    Start {
        program: OsString,
        source: io::Error,
    },
    Died {
        how: ExitStatus,
        /// It has not read a byte of the line.
        unread: bool,
    },
    /// It lives, but it has closed its output.
    Mute,
    TimedOut,
    Cancelled,
    /// It has written an answer before it had read the line.
    Hasty,
    Talkative,
    TooLong,
    System {
        call: &'static str,
        source: io::Error,
    },
}

/// What is there to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing more for now.
    Pause,
    /// Perhaps more.
    More,
    /// Nothing more for ever.
    End,
}

impl<'a> Program<'a> {
    /// Starts the program. What it reads, how long that takes, and whether it can do anything at all
    /// shows with the first line.
    pub(super) fn start(argv: &[OsString], guard: &'a Guard) -> Result<Self, Trouble> {
        let (name, arguments) = argv.split_first().ok_or(Trouble::Mute)?; // checked by the host
        let fail = |source| Trouble::Start {
            program: name.clone(),
            source,
        };
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env_remove("MINIFLOW_LANE") // the worker's own
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = guard.spawn(&mut command).map_err(fail)?;
        let group = Pid::from_child(&child);
        match Self::ends_of(&mut child, group) {
            Ok((pidfd, input, output)) => Ok(Self {
                child,
                group,
                pidfd,
                input: Some(input),
                is_deaf: false,
                output,
                guard,
                written: Vec::new(),
                answers: 0,
                is_over: false,
                is_reaped: false,
            }),
            Err(source) => {
                let _ = kill_process_group(group, Signal::KILL);
                guard.leave(group);
                let _ = child.wait();
                Err(fail(source))
            }
        }
    }

    fn ends_of(child: &mut Child, pid: Pid) -> io::Result<(OwnedFd, ChildStdin, ChildStdout)> {
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::NotFound.into()); // spawned with both
        };
        // Not reaped yet, so that the pid is still its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        for fd in [input.as_fd(), output.as_fd()] {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok((pidfd, input, output))
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether it can answer no more.
    pub(super) fn has_ended(&self) -> bool {
        self.is_over || self.has_exited(Duration::ZERO)
    }

    /// Whether it is no more, within `patience`.
    fn has_exited(&self, patience: Duration) -> bool {
        let mut polls = [PollFd::new(&self.pidfd, PollFlags::IN)];
        wait(&mut polls, Some(patience));
        !polls[0].revents().is_empty()
    }

    /// Whether it has written something that nobody has asked for.
    pub(super) fn has_more_to_say(&mut self) -> bool {
        let _ = self.hear(); // what is wrong with it shows when it is needed
        !self.written.is_empty()
    }

    /// Writes the line, which has its newline, and reads one, which is returned without.
    pub(super) fn exchange(
        &mut self,
        line: &[u8],
        deadline: Option<Instant>,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Vec<u8>, Trouble> {
        let mut rest = line;
        loop {
            self.say(&mut rest)?;
            let (speaks, ended) = self.await_answer(!rest.is_empty(), deadline);
            if speaks || ended {
                let searched = self.written.len();
                let heard = self.hear()?;
                let newline = self.written[searched..].iter().position(|&b| b == b'\n');
                if let Some(end) = newline {
                    return self.answer(searched + end, rest.is_empty());
                }
                if self.written.len() as u64 > LONGEST {
                    return Err(Trouble::TooLong);
                }
                if heard == Heard::End || (ended && heard == Heard::Pause) {
                    return Err(self.bury(line.len() - rest.len()));
                }
            }
            if is_cancelled() {
                return Err(Trouble::Cancelled);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Trouble::TimedOut);
            }
        }
    }

    /// Writes as much of `rest` as the program takes now.
    fn say(&mut self, rest: &mut &[u8]) -> Result<(), Trouble> {
        while let Some(input) = &mut self.input
            && !self.is_deaf
            && !rest.is_empty()
        {
            match input.write(rest) {
                Ok(written) => *rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // It reads no more; it may have something to say nevertheless.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.is_deaf = true,
                Err(source) => {
                    let call = "write";
                    return Err(Trouble::System { call, source });
                }
            }
        }
        Ok(())
    }

    /// Waits until it has written something or has ended, or takes more input if there is some, but
    /// not for long. Says which of the first two is the case.
    fn await_answer(&self, more: bool, deadline: Option<Instant>) -> (bool, bool) {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let mut polls = vec![
            PollFd::new(&self.output, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        if let Some(input) = &self.input
            && !self.is_deaf
            && more
        {
            polls.push(PollFd::new(input, PollFlags::OUT));
        }
        wait(&mut polls, Some(left.map_or(LOOK, |left| left.min(LOOK))));
        (
            !polls[0].revents().is_empty(),
            !polls[1].revents().is_empty(),
        )
    }

    /// Reads what is there.
    fn hear(&mut self) -> Result<Heard, Trouble> {
        self.written.reserve(CHUNK);
        let mut chunk = (&mut self.output).take(CHUNK as u64);
        match chunk.read_to_end(&mut self.written) {
            Ok(CHUNK) => Ok(Heard::More),
            Ok(_) => {
                self.is_over = true;
                Ok(Heard::End)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Pause),
            Err(source) => {
                let call = "read";
                Err(Trouble::System { call, source })
            }
        }
    }

    /// Takes the answer, which ends before `end`.
    fn answer(&mut self, end: usize, has_read: bool) -> Result<Vec<u8>, Trouble> {
        if !has_read {
            return Err(Trouble::Hasty);
        }
        if self.written.len() > end + 1 {
            return Err(Trouble::Talkative);
        }
        self.answers += 1;
        let mut answer = std::mem::take(&mut self.written);
        answer.truncate(end);
        Ok(answer)
    }

    /// Finds out why there is no answer. Of the line, `sent` bytes were written.
    fn bury(&mut self, sent: usize) -> Trouble {
        self.is_over = true;
        if !self.has_exited(FALL) {
            return Trouble::Mute;
        }
        // Its children end too, so that nobody reads the line from now on.
        self.kill_group();
        let left = self.input.as_ref().map_or(0, |input| {
            ioctl_fionread(input).unwrap_or(0) // as if it had read everything
        });
        match self.reap() {
            Ok(how) => Trouble::Died {
                how,
                unread: left >= sent as u64,
            },
            Err(source) => {
                let call = "wait";
                Trouble::System { call, source }
            }
        }
    }

    /// Lets it end by itself: there is no more to read. What it still writes is nobody's.
    pub(super) fn leave(mut self) {
        self.input = None;
        let deadline = Instant::now() + LEAVE;
        while !self.has_exited(Duration::ZERO) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if self.is_over {
                wait_readable(&[self.pidfd.as_fd()], Some(left));
            } else {
                wait_readable(&[self.pidfd.as_fd(), self.output.as_fd()], Some(left));
                if self.hear().is_err() {
                    break;
                }
                self.written.clear();
            }
        }
    }

    /// Kills it and all its children that have not left its group.
    fn kill_group(&self) {
        let _ = kill_process_group(self.group, Signal::KILL); // they may all be gone
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.guard.leave(self.group);
        self.is_reaped = true;
        self.child.wait()
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill_group();
            let _ = self.reap(); // there is nothing left to know
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { program, source } => {
                write!(f, "cannot start {}: {source}", program.display())
            }
            // Such as `signal: 9 (SIGKILL)` or `exit status: 3`.
            Self::Died { how, unread } => {
                let when = match unread {
                    true => "without reading its line",
                    false => "before it answered",
                };
                write!(f, "the program ended {when}: {how}")
            }
            Self::Mute => f.write_str("the program closed its output before it answered"),
            Self::TimedOut => f.write_str("the program did not answer in time and was killed"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Hasty => f.write_str("the program answered before it had read its line"),
            Self::Talkative => f.write_str("the program wrote more than one line"),
            Self::TooLong => write!(
                f,
                "the program wrote more than {LONGEST} bytes without the end of a line"
            ),
            Self::System { call, source } => {
                write!(f, "cannot talk to the program: {call}: {source}")
            }
        }
    }
}
