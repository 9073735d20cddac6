//! `miniflow run`: a script or a program over JSON lines, on crash-isolated workers.
//!
//! Two threads: one reads params and submits tasks ([`feed`]), one takes completions and writes
//! results ([`host`]). Between them never more than a window of tasks ([`flight`]).

mod args;
pub(crate) mod bell;
mod executable;
mod feed;
mod flight;
mod host;
mod index_set;
mod lines;
mod output;
mod params;
pub(crate) mod program;
mod progress;
mod resume;
mod row;
mod script;
pub(crate) mod signals;
mod source;
mod tally;

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use miniflow::{Builder, Class, Engine, SubmitOptions};

pub(crate) use self::args::Args;
use self::args::Crew;
use self::bell::Bell;
use self::feed::{Feeder, Form, LONGEST, Meter};
use self::flight::{Flight, WINDOW};
use self::host::{Host, Turn};
use self::index_set::IndexSet;
use self::output::Output;
use self::progress::Progress;
use self::script::Script;
use self::signals::Signals;
use self::source::Source;
use self::tally::Tally;
use crate::error::{Error, Result};

/// A worker waits so long for memory for its result: the reader of the results may pause as it likes.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
/// How long a worker may take to start: imports of a script's modules included.
const START: Duration = Duration::from_secs(120);

/// Runs all tasks; returns the exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let crew = args.crew();
    let work = Work::of(args, &crew)?;
    let bell = Arc::new(Bell::new()?);
    let source = match &args.params {
        Some(path) => Some(Source::open(path, Arc::clone(&bell))?),
        None => None,
    };
    let (output, done) = open_output(args)?;
    resume::check_params(&done, source.as_ref())?;
    let signals = Signals::block()?;
    redirect()?;
    signals.watch(Arc::clone(&bell))?; // a start may take long: a script's modules are imported
    let engine = work
        .engine(settings(&crew), args)
        .start()
        .map_err(Error::engine("cannot start the workers"))?;
    signals.working();
    Run {
        args,
        crew,
        done,
        form: work.form(),
        signals,
        engine,
        stop: bell,
        meter: Meter::default(),
        tally: Tally::default(),
    }
    .go(source, output)
}

/// What the tasks are.
#[derive(Debug)]
enum Work {
    Script(Script),
    Program(program::Command),
}

impl Work {
    fn of(args: &Args, crew: &Crew) -> Result<Self> {
        match &args.script {
            Some(path) => Script::find(path, args, crew).map(Self::Script),
            None => program::Command::find(&args.argv).map(Self::Program),
        }
    }

    fn form(&self) -> Form {
        match self {
            Self::Script(script) => script.form(),
            Self::Program(_) => Form::Line,
        }
    }

    fn engine(&self, builder: Builder, args: &Args) -> Builder {
        match self {
            Self::Script(script) => script.engine(builder),
            Self::Program(command) => command.engine(builder, args.timeout),
        }
    }
}

fn open_output(args: &Args) -> Result<(Output, IndexSet)> {
    match &args.out {
        Some(path) if path.as_os_str() != "-" => Output::open(path, args.resume),
        Some(_) if args.resume => Err(Error::Usage(
            "--resume needs a file to read, not standard output".into(),
        )),
        _ => Ok((Output::standard()?, IndexSet::default())),
    }
}

/// Gives the workers, which inherit them, other standard descriptors: a script that prints must not
/// write into the results, and one that reads must not take the params.
fn redirect() -> Result<()> {
    let null = File::open("/dev/null").map_err(Error::system("open(/dev/null)"))?;
    rustix::stdio::dup2_stdin(&null).map_err(Error::system("dup2"))?;
    rustix::stdio::dup2_stdout(io::stderr()).map_err(Error::system("dup2"))
}

/// The settings that all kinds of work share.
fn settings(crew: &Crew) -> Builder {
    let mut builder = Engine::builder();
    for class in Class::ALL {
        let workers = if class == crew.class { crew.workers } else { 0 };
        builder = builder.workers(class, workers);
    }
    builder
        .threads(crew.class, crew.threads)
        .max_tasks(u32::try_from(WINDOW).unwrap_or(u32::MAX))
        .max_payload(LONGEST * 2) // a line, and what is put around it
        .payload_arena(LONGEST * 4)
        .max_result(LONGEST * 2)
        .result_arena(LONGEST * 4)
        .reply_wait(FOR_EVER)
        .start_timeout(START)
}

/// A run that has begun.
struct Run<'a> {
    args: &'a Args,
    crew: Crew,
    form: Form,
    /// What an earlier run has completed.
    done: IndexSet,
    signals: Signals,
    engine: Engine,
    /// Ends the reading of params.
    stop: Arc<Bell>,
    meter: Meter,
    tally: Tally,
}

impl Run<'_> {
    fn go(mut self, source: Option<Source>, mut output: Output) -> Result<ExitCode> {
        let started = Instant::now();
        let flight = Flight::new(Bell::new()?);
        let mut progress = Progress::new(self.args.progress, output.is_terminal());
        let feeder = Feeder {
            engine: &self.engine,
            flight: &flight,
            extra: &self.args.extra,
            form: &self.form,
            done: &self.done,
            options: self.options(),
            meter: &self.meter,
            stop: &self.stop,
        };
        let host = Host {
            engine: &self.engine,
            flight: &flight,
            meter: &self.meter,
            signals: &self.signals,
            form: &self.form,
            crew: self.crew,
            output: &mut output,
            progress: &mut progress,
            tally: &mut self.tally,
            turn: Turn::new(self.args.ordered),
            stop: &self.stop,
        };
        let (hosted, fed) = thread::scope(|scope| {
            let feeding = scope.spawn(|| feeder.run(source));
            let hosted = host.run();
            let fed = feeding.join();
            (
                hosted,
                fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        });
        match hosted {
            Err(Error::ReaderGone) => return Ok(self.status()), // it has seen enough
            outcome => {
                self.summarize(started.elapsed());
                outcome.and(fed)?;
            }
        }
        if self.signals.seen().is_none() {
            // Relaxed: the thread that counted has been joined.
            resume::compare(&self.done, self.meter.found.load(Relaxed))?;
        }
        Ok(self.status())
    }

    fn options(&self) -> SubmitOptions {
        let options = SubmitOptions::new()
            .class(self.crew.class)
            .max_attempts(self.args.retries + 1)
            .retry_failed(self.args.retries > 0)
            .retry_timed_out(self.args.retries > 0);
        match (&self.form, self.args.timeout) {
            (Form::Script { .. }, Some(timeout)) => options.deadline(timeout),
            // The worker itself sees to it: it need not die for a program that is late.
            _ => options,
        }
    }

    fn summarize(&self, elapsed: Duration) {
        // Relaxed: as in `go`.
        let skipped = self.meter.skipped.load(Relaxed);
        let stats = self.engine.stats();
        let text = self.tally.summary(&self.crew, elapsed, skipped, &stats);
        let _ = io::stderr().write_all(text.as_bytes()); // nobody to tell
    }

    fn status(&self) -> ExitCode {
        match self.signals.seen() {
            Some(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
            None if self.tally.failed() > 0 => ExitCode::from(1),
            None => ExitCode::SUCCESS,
        }
    }
}
