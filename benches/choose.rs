//! What one choice among many workers costs: `cargo bench --bench choose`.
//!
//! The structure that the engine uses, and beside it what the engine reads of a worker: its counters
//! and, on a page of its own, whether it sleeps. Every choice adds a task to the chosen worker and
//! takes one from another, as an engine in its steady state does.
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a program that prints what it measured, and uses a part of the module"
)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

#[path = "../src/engine/core/ready.rs"]
mod ready;

use ready::{Fit, Ready};

/// What the engine reads of a worker, about as far apart as it is there.
struct Worker {
    load: u32,
    bound: u32,
    _rest: [u64; 96],
}

/// The page that a worker writes.
#[repr(align(4096))]
struct Page(AtomicU32);

struct World {
    ready: Ready,
    workers: Vec<Worker>,
    pages: Vec<Page>,
}

impl World {
    fn new(count: u32, asleep: bool) -> Self {
        let mut ready = Ready::default();
        for worker in 0..count {
            let _ = ready.add(worker);
        }
        for worker in 0..count {
            ready.note(worker, Some(0));
        }
        Self {
            ready,
            workers: (0..count)
                .map(|_| Worker {
                    load: 0,
                    bound: 4,
                    _rest: [0; 96],
                })
                .collect(),
            pages: (0..count)
                .map(|_| Page(AtomicU32::new(u32::from(asleep))))
                .collect(),
        }
    }

    #[inline(never)]
    fn choose(&mut self) -> Option<u32> {
        let Self {
            ready,
            workers,
            pages,
        } = self;
        let workers = &*workers;
        let fit = |worker: u32| {
            let at = worker as usize;
            if workers[at].load >= workers[at].bound {
                Fit::Full
            } else if pages[at].0.load(Relaxed) != 0 {
                Fit::Asleep
            } else {
                Fit::Awake
            }
        };
        if ready.is_indexed() {
            return ready.least_loaded(fit);
        }
        // As `Core::choose_of_few` does.
        let (start, count) = (ready.turn, ready.len());
        let mut best: Option<(u32, bool, usize)> = None;
        for step in 0..count {
            let at = (start + step) % count;
            let worker = ready.workers()[at];
            let fits = fit(worker);
            let merit = (workers[worker as usize].load, fits == Fit::Asleep);
            if fits != Fit::Full && best.is_none_or(|(l, a, _)| merit < (l, a)) {
                best = Some((merit.0, merit.1, at));
                if merit == (0, false) {
                    break;
                }
            }
        }
        let (.., at) = best?;
        ready.turn = at + 1;
        Some(ready.workers()[at])
    }

    #[inline]
    fn change(&mut self, worker: u32, by: i32) {
        let w = &mut self.workers[worker as usize];
        w.load = w.load.saturating_add_signed(by);
        let room = w.load < w.bound;
        self.ready.note(worker, room.then_some(w.load));
    }
}

fn main() {
    const ROUNDS: u32 = 200_000;
    println!(
        "{:>8} {:>8} {:>12} {:>20}",
        "workers", "asleep", "ns/choice", "ns with bookkeeping"
    );
    for count in [4, 64, 1024] {
        for asleep in [false, true] {
            let mut samples: Vec<(f64, f64)> = (0..11)
                .map(|_| {
                    let mut world = World::new(count, asleep);
                    for _ in 0..count * 2 {
                        if let Some(worker) = world.choose() {
                            world.change(worker, 1); // two tasks on each
                        }
                    }
                    let start = Instant::now();
                    for _ in 0..ROUNDS {
                        black_box(world.choose());
                    }
                    let choice = start.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
                    let mut seed = 1_u32;
                    let start = Instant::now();
                    for _ in 0..ROUNDS {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        world.change((seed >> 8) % count, -1);
                        if let Some(worker) = world.choose() {
                            world.change(worker, 1);
                        }
                    }
                    (
                        choice,
                        start.elapsed().as_nanos() as f64 / f64::from(ROUNDS),
                    )
                })
                .collect();
            samples.sort_by(|a, b| a.0.total_cmp(&b.0));
            let choice = samples[samples.len() / 2].0;
            samples.sort_by(|a, b| a.1.total_cmp(&b.1));
            let all = samples[samples.len() / 2].1;
            println!("{count:>8} {asleep:>8} {choice:>12.1} {all:>20.1}");
        }
    }
}
