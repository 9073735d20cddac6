//! How long tasks wait when a few are a hundred times as long as the others: `cargo bench --bench tail`.
//!
//! 99.5 % of the tasks sleep for 0.5 ms and 0.5 % for 50 ms; they arrive at random (a Poisson process) at
//! 80 % load of four workers of one thread. Nothing can do better than a queue in the middle from which
//! each worker takes the next task at the very moment at which it is free. So the queueing that the
//! engine reports (`Completion::queued`) stands beside that of such a queue, simulated with the same
//! arrivals and with the times that each task has really run (`Completion::ran`). Every seed is run with
//! each dispatch policy, one after the other; the figure is the median over the seeds.
//!
//! `cargo bench --bench tail -- --seconds 20 --seeds 5`: so long for each seed and policy, and so many
//! seeds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a program that prints what it measured"
)]

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use std::cmp::Reverse;

use miniflow::{Candidate, Class, Completion, Engine, Policy, SubmitOptions};

const WORKERS: u32 = 4;
const LOAD: f64 = 0.8;
const SHORT: Duration = Duration::from_micros(500);
const LONG: Duration = Duration::from_millis(50);
const LONG_SHARE: f64 = 0.005;
/// What the engine may take for the p99.9, of what the simulated queue takes.
const BOUND: f64 = 1.25;

/// A small generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// A task of a plan.
#[derive(Clone, Copy)]
struct Planned {
    /// When it is to be submitted, from the start.
    at: Duration,
    /// How long it is to sleep.
    sleeps: Duration,
}

/// What arrives in one run; `mean` is how long a task runs on average.
fn plan(seed: u64, length: Duration, mean: Duration) -> Vec<Planned> {
    let mut random = Random(seed);
    let between = mean.as_secs_f64() / (LOAD * f64::from(WORKERS));
    let mut tasks = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_secs_f64(-random.share().ln() * between);
        if at > length {
            return tasks;
        }
        let is_long = random.share() <= LONG_SHARE;
        let sleeps = if is_long { LONG } else { SHORT };
        tasks.push(Planned { at, sleeps });
    }
}

/// What became of a task.
#[derive(Clone, Copy, Default)]
struct Measured {
    /// When it was submitted, from the start.
    at: Duration,
    queued: Duration,
    ran: Duration,
}

fn start(policy: Policy) -> Engine {
    Engine::builder()
        .workers(Class::CpuBound, WORKERS)
        .threads(Class::CpuBound, 1)
        .workers(Class::IoBound, 0)
        .policy(policy)
        .handler(|task| {
            let nanos = u64::from_le_bytes(task.payload().try_into().unwrap());
            std::thread::sleep(Duration::from_nanos(nanos));
            Ok(())
        })
        .start()
        .unwrap()
}

/// Submits the tasks of a plan, each in its time, while another thread takes the completions.
fn run(engine: &Engine, plan: &[Planned]) -> Vec<Measured> {
    let mut measured = vec![Measured::default(); plan.len()];
    let submitted = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let poller = scope.spawn(|| {
            let mut all: Vec<Completion> = Vec::with_capacity(plan.len());
            while all.len() < plan.len() || !submitted.load(Relaxed) {
                let wait = Some(Duration::from_millis(100));
                engine.poll_into(&mut all, 256, wait).unwrap();
            }
            all
        });
        let start = Instant::now();
        for (index, task) in plan.iter().enumerate() {
            wait_until(start + task.at);
            let options = SubmitOptions::new().user_data(index as u64);
            let nanos = task.sleeps.as_nanos() as u64;
            measured[index].at = start.elapsed();
            engine.submit_with(&nanos.to_le_bytes(), &options).unwrap();
        }
        submitted.store(true, Relaxed);
        poller.join().unwrap()
    });
    for completion in taken {
        assert!(completion.is_completed(), "{}", completion.text());
        let task = &mut measured[completion.user_data() as usize];
        (task.queued, task.ran) = (completion.queued(), completion.ran());
    }
    measured
}

/// Sleeps while that is exact enough, then spins.
fn wait_until(time: Instant) {
    const SPUN: Duration = Duration::from_micros(150);
    loop {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match left.checked_sub(SPUN) {
            Some(sleep) if !sleep.is_zero() => std::thread::sleep(sleep),
            _ => std::hint::spin_loop(),
        }
    }
}

/// A queue in the middle: the waits of tasks that came and ran as these did.
fn central(tasks: &[Measured]) -> Vec<Duration> {
    let mut free: BinaryHeap<Reverse<Duration>> =
        (0..WORKERS).map(|_| Reverse(Duration::ZERO)).collect();
    (tasks.iter())
        .map(|task| {
            let Reverse(soonest) = free.pop().unwrap();
            let start = soonest.max(task.at);
            free.push(Reverse(start + task.ran));
            start - task.at
        })
        .collect()
}

/// A queue for each worker, which `choose` fills without a look at how long they are.
fn separate(tasks: &[Measured], mut choose: impl FnMut() -> usize) -> Vec<Duration> {
    let mut free = [Duration::ZERO; WORKERS as usize];
    (tasks.iter())
        .map(|task| {
            let worker = &mut free[choose() % WORKERS as usize];
            let start = (*worker).max(task.at);
            *worker = start + task.ran;
            start - task.at
        })
        .collect()
}

/// The wait that this share of the tasks does not exceed.
fn quantile(mut waits: Vec<Duration>, share: f64) -> Duration {
    waits.sort_unstable();
    let rank = (waits.len() as f64 * share).ceil() as usize;
    waits[rank.clamp(1, waits.len()) - 1]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The p99.9 of the engine, over that of the queue in the middle.
fn ratio_of(tasks: &[Measured]) -> f64 {
    let waits = tasks.iter().map(|task| task.queued).collect();
    quantile(waits, 0.999).as_secs_f64() / quantile(central(tasks), 0.999).as_secs_f64()
}

fn report(seed: u64, name: &str, engine: &Engine, tasks: &[Measured], before: u64) -> f64 {
    let waits: Vec<Duration> = tasks.iter().map(|task| task.queued).collect();
    let end = tasks.iter().map(|task| task.at + task.queued + task.ran);
    let busy: Duration = tasks.iter().map(|task| task.ran).sum();
    let load = busy.as_secs_f64() / end.max().unwrap().as_secs_f64() / f64::from(WORKERS);
    let ideal = central(tasks);
    let ratio = ratio_of(tasks);
    println!(
        "{seed:4}  {name:12} {:7} {load:6.2} {:9.3} {:9.3} {:8.2} {:8.2} {:9.2} {:9.2} {ratio:7.2} {:9}",
        tasks.len(),
        ms(quantile(waits.clone(), 0.5)),
        ms(quantile(ideal.clone(), 0.5)),
        ms(quantile(waits.clone(), 0.99)),
        ms(quantile(ideal.clone(), 0.99)),
        ms(quantile(waits, 0.999)),
        ms(quantile(ideal, 0.999)),
        engine.stats().recalled - before,
    );
    ratio
}

/// How long tasks run, of which this is the planned mix: longer than they are asked to, by what the
/// kernel takes to wake a sleeper.
fn mean_run(engine: &Engine) -> Duration {
    const PROBES: usize = 400;
    let probe = Planned {
        at: Duration::ZERO,
        sleeps: SHORT,
    };
    let probes: Vec<Planned> = (0..PROBES as u32)
        .map(|n| Planned {
            at: SHORT * n * 3 / 4,
            ..probe
        })
        .collect();
    let ran: Vec<f64> = (run(engine, &probes).iter())
        .map(|task| task.ran.as_secs_f64())
        .collect();
    let late = (median(ran) - SHORT.as_secs_f64()).max(0.0);
    let asked = SHORT.as_secs_f64() * (1.0 - LONG_SHARE) + LONG.as_secs_f64() * LONG_SHARE;
    Duration::from_secs_f64(asked + late)
}

/// The number behind a word on the command line.
fn argument(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} takes a number, not `{text}`"))
    })
}

fn main() {
    let length = Duration::from_secs(argument("--seconds", 20));
    let seeds = argument("--seeds", 5).max(1);
    let state = AtomicU64::new(1);
    let random = move |_: Class, workers: &[Candidate]| {
        let next = Random(state.fetch_add(1, Relaxed)).next();
        Some((next % workers.len() as u64) as usize)
    };
    let policies = [
        ("least loaded", Policy::LeastLoaded),
        ("round robin", Policy::RoundRobin),
        ("random", Policy::custom(random)),
    ];
    let engines = policies.map(|(name, policy)| (name, start(policy)));
    let mean = mean_run(&engines[0].1);
    println!("a task runs for {:.3} ms on average\n", ms(mean));
    println!(
        "                                  p50, ms             p99, ms           p99.9, ms\n\
         seed  policy         tasks   load    engine   central   engine  central    engine   central   ratio  recalled"
    );
    let mut ratios = vec![Vec::new(); engines.len()];
    let mut apart = [Vec::new(), Vec::new()];
    for seed in 1..=seeds {
        let plan = plan(seed, length, mean);
        for ((name, engine), ratios) in engines.iter().zip(&mut ratios) {
            let before = engine.stats().recalled;
            let tasks = run(engine, &plan);
            ratios.push(report(seed, name, engine, &tasks, before));
            if *name == "least loaded" {
                let ideal = quantile(central(&tasks), 0.999).as_secs_f64();
                let mut turn = 0;
                let in_turn = separate(&tasks, || {
                    turn += 1;
                    turn
                });
                let mut random = Random(seed);
                let at_random = separate(&tasks, || (random.next() >> 33) as usize);
                for (ratios, waits) in apart.iter_mut().zip([in_turn, at_random]) {
                    ratios.push(quantile(waits, 0.999).as_secs_f64() / ideal);
                }
            }
        }
    }
    println!("\np99.9 over that of the simulated central queue, median of {seeds} seeds");
    for ((name, _), ratios) in engines.iter().zip(&ratios) {
        println!("  {name:44} {:6.2}", median(ratios.clone()));
    }
    for (name, ratios) in ["round robin", "random"].iter().zip(apart) {
        let name = format!("{name}, simulated, a queue for each worker");
        println!("  {name:44} {:6.2}", median(ratios));
    }
    let ratio = median(ratios[0].clone());
    let holds = if ratio <= BOUND { "holds" } else { "MISSED" };
    println!("bound of {BOUND} for the default policy: {holds}");
}
