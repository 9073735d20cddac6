//! What it costs to be watched: `cargo bench --bench watching [-- SECONDS]`.
//!
//! The real `miniflow top` runs on a pseudo-terminal, twice a second as by default, over an engine of
//! this process that is as busy as it can be. Two figures:
//! - the share of one processor that `top` uses, for several numbers of workers and sizes of screen;
//! - the rate of the engine while it is watched over its rate while it is not: slices of SECONDS (2),
//!   in turn, 11 rounds; the figure is the median of the rounds' own ratios.
//!
//! Each figure is held against its limit; a limit that is not kept is the exit status 1.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints what it measured; whatever fails ends it"
)]

#[path = "../tests/common/pty.rs"]
mod pty;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use miniflow::{Class, Completion, Engine, Submission};
use pty::Pty;

/// Most of one processor that `top` may use.
const MOST: f64 = 0.02;
/// Least of its rate that an engine may keep.
const LEAST: f64 = 0.95;
const ROUNDS: usize = 11;
/// Tasks on their way, and those of one call.
const IN_FLIGHT: usize = 512;
const BATCH: usize = 64;

/// Workers, columns, rows.
const SCREENS: [(u32, u16, u16); 4] = [(8, 80, 24), (8, 200, 60), (64, 80, 24), (64, 200, 60)];
/// Of the engine whose rate is measured.
const WORKERS: u32 = 2;

fn main() -> ExitCode {
    let seconds = std::env::args().find_map(|text| text.parse().ok());
    let slice = Duration::from_secs_f64(seconds.unwrap_or(2.0));
    let mut kept = true;

    println!(
        "{:>8} {:>10} {:>16} {:>16}",
        "workers", "screen", "top, % of a cpu", "at most"
    );
    for (workers, columns, rows) in SCREENS {
        let mut flow = Flow::start(workers);
        let used = flow.watched_by(columns, rows, |flow, top| {
            let before = cpu_time(top);
            let time = flow.run(slice * 5).1;
            (cpu_time(top) - before).as_secs_f64() / time.as_secs_f64()
        });
        kept &= used < MOST;
        let screen = format!("{columns}x{rows}");
        let (used, most) = (used * 100.0, MOST * 100.0);
        println!("{workers:>8} {screen:>10} {used:>16.2} {most:>16.2}");
    }

    let mut flow = Flow::start(WORKERS);
    flow.run(slice); // until it has found its pace
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let watched = |flow: &mut Flow| flow.watched_by(80, 24, |flow, _| flow.rate(slice));
            let (with, without) = match round % 2 {
                0 => {
                    let with = watched(&mut flow);
                    (with, flow.rate(slice))
                }
                _ => {
                    let without = flow.rate(slice);
                    (watched(&mut flow), without)
                }
            };
            with / without
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (low, median, high) = (ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);
    kept &= median >= LEAST;
    println!(
        "\nrate watched / unwatched, {WORKERS} workers, {ROUNDS} rounds: \
         {median:.3} ({low:.3}..{high:.3}), at least {LEAST}"
    );
    match kept {
        true => ExitCode::SUCCESS,
        false => {
            println!("missed");
            ExitCode::FAILURE
        }
    }
}

/// An engine, and tasks on their way.
struct Flow {
    name: String,
    engine: Engine,
    on_their_way: usize,
    completions: Vec<Completion>,
}

impl Flow {
    fn start(workers: u32) -> Self {
        let name = format!("bench-watching-{}", std::process::id());
        let engine = Engine::builder()
            .name(&*name)
            .handler(|_| Ok(()))
            .workers(Class::CpuBound, workers)
            .workers(Class::IoBound, 0)
            .start()
            .unwrap();
        Self {
            name,
            engine,
            on_their_way: 0,
            completions: Vec::with_capacity(BATCH),
        }
    }

    /// Keeps the engine busy for about `length`; tasks ended, and how long it took.
    fn run(&mut self, length: Duration) -> (usize, Duration) {
        let (start, mut ended) = (Instant::now(), 0);
        loop {
            let time = start.elapsed();
            if time >= length {
                return (ended, time);
            }
            ended += self.turn();
        }
    }

    fn turn(&mut self) -> usize {
        let tasks = (self.on_their_way..IN_FLIGHT).map(|_| Submission::from(&[0; 16][..]));
        self.on_their_way += self.engine.submit_batch(tasks).unwrap().len();
        self.completions.clear();
        (self.engine)
            .poll_into(
                &mut self.completions,
                BATCH,
                Some(Duration::from_millis(100)),
            )
            .unwrap();
        self.on_their_way -= self.completions.len();
        self.completions.len()
    }

    fn rate(&mut self, length: Duration) -> f64 {
        let (ended, time) = self.run(length);
        ended as f64 / time.as_secs_f64()
    }

    /// Calls `measure` with the process of a `top` that has shown its first pictures.
    fn watched_by<T>(
        &mut self,
        columns: u16,
        rows: u16,
        measure: impl FnOnce(&mut Self, u32) -> T,
    ) -> T {
        let mut command = Command::new(env!("CARGO_BIN_EXE_miniflow"));
        command
            .args(["top", &self.name])
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8");
        let mut top = Pty::start(command, rows, columns);
        while !top.screen().contents().contains("Process") {
            self.run(Duration::from_millis(50));
        }
        let measured = measure(self, top.pid());
        top.press("q");
        assert!(top.wait().success());
        measured
    }
}

/// Processor time that the threads of a process have used: to the nanosecond, unlike
/// `/proc/PID/stat`, whose ticks are half a percent of two seconds.
fn cpu_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let used = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        let ns = text.split_whitespace().next().unwrap().parse().unwrap();
        Duration::from_nanos(ns)
    });
    used.sum()
}
