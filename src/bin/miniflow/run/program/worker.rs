//! The worker process: takes tasks, passes them to programs.

use std::ffi::OsString;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use miniflow::Error as EngineError;
use miniflow::worker::{Assigned, Failure, Worker};

use super::child::{Program, Trouble};
use super::guard::Guard;
use super::{CODE_DIED, CODE_TIMED_OUT};
use crate::error::{Error, Result};

/// Not for people: `miniflow run --program` starts this.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    timeout_ns: Option<u64>,

    #[arg(last = true)]
    argv: Vec<OsString>,
}

/// Works until the engine wants no more.
pub(crate) fn work(args: &WorkerArgs) -> Result<()> {
    let _ = rustix::thread::set_name(c"mf-worker"); // for ps; else it is called exe
    let worker = Worker::join().map_err(Error::engine("cannot join the engine"))?;
    let guard = Guard::start()?;
    let seat = || Seat {
        worker: &worker,
        guard: &guard,
        args,
        program: None,
    };
    thread::scope(|scope| {
        for _ in 0..worker.concurrency() {
            scope.spawn(|| seat().serve());
        }
    });
    Ok(())
}

/// One thread, and its program.
struct Seat<'a> {
    worker: &'a Worker,
    guard: &'a Guard,
    args: &'a WorkerArgs,
    program: Option<Program<'a>>,
}

impl<'a> Seat<'a> {
    fn serve(&mut self) {
        loop {
            match self.worker.next(None) {
                Ok(task) => self.run(task),
                Err(EngineError::Closed) => break,
                Err(error) => {
                    complain(&format!("no more tasks for a worker: {error}"));
                    break;
                }
            }
        }
        if let Some(program) = self.program.take() {
            program.leave();
        }
    }

    fn run(&mut self, mut task: Assigned<'_>) {
        let started = Instant::now();
        let limit = self.args.timeout_ns.map(Duration::from_nanos);
        let deadline = limit.and_then(|limit| started.checked_add(limit));
        let result = match self.pass(&mut task, deadline) {
            Ok(answer) => task.task().reply(&answer).map_err(Failure::from),
            Err(trouble) => {
                self.program = None; // killed
                let code = match trouble {
                    Trouble::Died { .. } => CODE_DIED,
                    Trouble::TimedOut => CODE_TIMED_OUT,
                    _ => 1,
                };
                Err(Failure::new(code, trouble.to_string()))
            }
        };
        task.finish(result);
    }

    /// Passes the task's line to the program, which is started if there is none.
    fn pass(
        &mut self,
        task: &mut Assigned<'_>,
        deadline: Option<Instant>,
    ) -> Result<Vec<u8>, Trouble> {
        let task = task.task();
        let mut line = Vec::with_capacity(task.payload().len() + 1);
        line.extend_from_slice(task.payload());
        line.push(b'\n');
        loop {
            let program = self.ready_program()?;
            let is_new = program.answers() == 0;
            match program.exchange(&line, deadline, || task.is_cancelled()) {
                // It was about to leave when the line came, and has not touched it.
                Err(Trouble::Died { unread: true, .. }) if !is_new => {
                    self.program = None;
                }
                other => return other,
            }
        }
    }

    /// A program that waits for a line.
    fn ready_program(&mut self) -> Result<&mut Program<'a>, Trouble> {
        if let Some(program) = &mut self.program {
            let uninvited = program.has_more_to_say();
            if uninvited {
                complain(
                    "the program wrote more than one line for a task; what came late is dropped, \
                     and the program is started again",
                );
            }
            if uninvited || program.has_ended() {
                self.program = None;
            }
        }
        match &mut self.program {
            Some(program) => Ok(program),
            none => Ok(none.insert(Program::start(&self.args.argv, self.guard)?)),
        }
    }
}

/// Tells the user what belongs to no task.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "miniflow run: {text}"); // nobody to tell
}
