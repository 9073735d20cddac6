//! `miniflow chaos`: a real engine under everything that can go wrong at once, and a checker that
//! keeps its own account of every task.

mod drive;
mod fault;
mod handler;
mod killer;
mod ledger;
mod leftovers;
mod plan;
mod random;
mod report;
mod respawn;
mod rules;
mod starts;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use miniflow::{Class, Engine};
use rustix::process::{Resource, Rlimit, setrlimit};

use self::drive::{MAX_TASKS, MAX_WORKERS, Run, Told};
use self::killer::{Deaths, Kill, Killer};
use self::ledger::{Ledger, Sabotage};
use self::leftovers::Things;
use self::random::Random;
use self::report::{Findings, KillsBy, Report};
use self::starts::StartLog;
use crate::error::{Error, Result};
use crate::verdict::Verdict;

/// Tasks of one run, at most; 16 bytes of the start log each, once it has started.
const TASKS: usize = 1 << 26;
/// Nothing ends and nobody dies for so long: the engine hangs.
const SILENCE: Duration = Duration::from_secs(30);
/// Kills of the quiet engine whose respawn is timed.
const TIMED_KILLS: u32 = 100;
const SUBMITTERS: u64 = 2;
const WAITERS: u64 = 2;

/// Kill workers at random while they work, and check that nothing is lost
///
/// Runs an engine with tasks of all kinds, kills its workers (SIGKILL, SIGSEGV, SIGSTOP, and from
/// within the handler), cancels, resizes, and keeps an account of its own: every accepted task must
/// end exactly once, with its own bytes, after no more starts than it allows, and nothing may be
/// left behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, conflicts_with = "kills",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Until so many workers were killed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    kills: Option<u64>,

    /// Fixes what the tasks are (not when what happens); random by default
    #[arg(long, value_name = "X")]
    seed: Option<u64>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Falsify one completion, to see that the checker notices
    #[arg(long, hide = true)]
    sabotage: Option<Sabotage>,
}

/// The report as it is printed, and whether all is well.
fn verdict(report: &Report, json: bool) -> Verdict {
    Verdict {
        text: match json {
            true => report.json(),
            false => report.to_string(),
        },
        clean: report.is_clean(),
    }
}

/// Runs the chaos, and returns what came of it.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    // Thousands of crashes need no core files.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(Error::system("setrlimit"))?;
    let before = Things::before()?;
    let respawn = respawn::measure(TIMED_KILLS)?;
    let mut findings = unleash(args, seed)?;
    findings.respawn = respawn;
    findings.leftovers = before.left();
    Ok(verdict(&Report::new(&findings), args.json))
}

fn random_seed() -> Result<u64> {
    let mut bytes = [0; 4]; // short enough to be typed
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::system("getrandom"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

fn start_engine(seed: u64, log: StartLog) -> Result<Engine> {
    let mut builder = Engine::builder()
        .name(leftovers::engine_name())
        .handler(move |task| handler::run(task, &log, seed))
        .threads(Class::CpuBound, 1)
        .threads(Class::IoBound, 4)
        .max_tasks(MAX_TASKS)
        // So little that it is full now and then.
        .payload_arena(8 << 20)
        .max_payload(plan::LONGEST as u64)
        .result_arena(16 << 20)
        .max_result(plan::LONGEST as u64)
        .stop_grace(Duration::from_millis(200))
        .default_attempts(plan::ATTEMPTS)
        .default_deadline(Class::IoBound, plan::IO_DEADLINE)
        .kill_grace(Duration::from_millis(5))
        .stopped_grace(Duration::from_millis(50))
        .recycle_after(300);
    for (class, most) in MAX_WORKERS {
        builder = builder.workers_between(class, most, most);
    }
    builder
        .start()
        .map_err(Error::engine("cannot start the engine"))
}

/// What all threads of a run are about, and what the killer has done so far.
struct Chaos<'a> {
    args: &'a Args,
    run: Run<'a>,
    log: StartLog,
    deaths: Deaths,
    /// The watchdog may go.
    done: AtomicBool,
}

fn unleash(args: &Args, seed: u64) -> Result<Findings> {
    let log = StartLog::new(TASKS)?;
    let engine = start_engine(seed, log)?;
    let ledger = Ledger::new(log, args.sabotage);
    let chaos = Chaos {
        args,
        run: Run {
            seed,
            engine: &engine,
            ledger: &ledger,
            started: Instant::now(),
            next: AtomicU64::new(0),
            numbers: log.tasks(),
            over: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        },
        log,
        deaths: Deaths::default(),
        done: AtomicBool::new(false),
    };
    let kills = chaos.rage();
    if log.strays() > 0 {
        let strays = log.strays();
        ledger.complain(format!("{strays} tasks came to a worker not as submitted"));
    }
    let stats = engine.stats();
    ledger.compare(&stats, chaos.kills().total());
    let (counts, violations) = ledger.close();
    let mut findings = chaos.findings();
    findings.stats = stats;
    (findings.counts, findings.violations) = (counts, violations);
    findings.respawn_under_load = respawn::under_load(&kills, &log.births_from(0));
    Ok(findings)
}

impl Chaos<'_> {
    /// Runs all threads to their end; returns the kills.
    fn rage(&self) -> Vec<Kill> {
        let run = &self.run;
        let random = |stream: u64| Random::of(run.seed, u64::MAX - stream);
        thread::scope(|scope| {
            scope.spawn(|| self.watch());
            let (meddling, tasks) = sync_channel(256);
            for n in 0..SUBMITTERS.max(WAITERS) {
                let (awaited, ids) = sync_channel(64);
                let told = Told {
                    awaited,
                    meddling: meddling.clone(),
                };
                scope.spawn(move || drive::submit(run, &told, random(n)));
                scope.spawn(move || drive::wait(run, &ids, random(10 + n)));
            }
            scope.spawn(move || drive::meddle(run, &tasks, random(20)));
            let poller = scope.spawn(|| drive::poll(run, random(21)));
            let killer = Killer::new(run.engine, run.ledger, &self.deaths, self.log, random(22));
            let killer = scope.spawn(|| killer.run(|| run.has_stopped()));
            self.await_goal();
            self.stop();
            let _ = poller.join(); // a panic goes on when the scope ends
            let kills = killer.join();
            self.done.store(true, SeqCst);
            kills.unwrap_or_default()
        })
    }

    /// Waits for the end of the time, or for the last kill, and shows the progress.
    fn await_goal(&self) {
        let show = io::stderr().is_terminal();
        let mut shown = Instant::now();
        let limit = Duration::from_secs(self.args.seconds);
        let reached = || match self.args.kills {
            Some(kills) => self.kills().total() >= kills,
            None => self.run.started.elapsed() >= limit,
        };
        while !reached() && !self.run.is_over() {
            thread::sleep(Duration::from_millis(5));
            if show && shown.elapsed() >= Duration::from_secs(1) {
                shown = Instant::now();
                let _ = write!(
                    io::stderr(),
                    "\r{:>4} s, {} tasks, {} kills ",
                    self.run.started.elapsed().as_secs(),
                    self.run.ledger.accepted(),
                    self.kills().total()
                );
            }
        }
        if show {
            let _ = writeln!(io::stderr());
        }
    }

    /// Stops the engine with tasks in flight, while workers are still being killed.
    fn stop(&self) {
        self.run.over.store(true, SeqCst);
        self.run.ledger.allow_stop();
        if let Err(error) = self.run.engine.stop(Some(Duration::from_millis(300))) {
            self.run.ledger.complain(format!("stop: {error}"));
        }
        self.run.stopped.store(true, SeqCst);
    }

    fn kills(&self) -> KillsBy {
        let [sigkill, sigsegv, sigstop, sigterm] = self.deaths.by_manner();
        KillsBy {
            sigkill,
            sigsegv,
            sigstop,
            sigterm,
            handler: self.log.deaths(),
        }
    }

    /// Ends the whole process, with a report, if the engine shows no life.
    fn watch(&self) {
        let pulse = || (self.run.ledger.pulse(), self.kills().total());
        let (mut last, mut since) = (pulse(), Instant::now());
        while !self.done.load(SeqCst) {
            thread::sleep(Duration::from_millis(20));
            let now = pulse();
            if now.0 != last.0 && now.1 != last.1 {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > SILENCE {
                self.give_up();
            }
        }
    }

    /// Other threads may hang in the engine, so there is no way back.
    fn give_up(&self) -> ! {
        let engine = self.run.engine;
        self.run.ledger.complain(format!(
            "no completion or no death for {SILENCE:?}; status: {}",
            engine.status_json()
        ));
        let (counts, violations) = self.run.ledger.close();
        let mut findings = self.findings();
        findings.stats = engine.stats();
        (findings.counts, findings.violations) = (counts, violations);
        let verdict = verdict(&Report::new(&findings), self.args.json);
        let _ = io::stdout().lock().write_all(verdict.text.as_bytes());
        std::process::exit(1)
    }

    fn findings(&self) -> Findings {
        Findings {
            seed: self.run.seed,
            seconds: self.run.started.elapsed().as_secs_f64(),
            counts: ledger::Counts::default(),
            violations: Vec::new(),
            kills: self.kills(),
            first_workers: MAX_WORKERS.iter().map(|&(_, most)| u64::from(most)).sum(),
            stats: miniflow::Stats::default(),
            leftovers: Vec::new(),
            respawn: None,
            respawn_under_load: None,
        }
    }
}
