//! An engine with something to look at: `cargo run --release --example lively -- [NAME [SECONDS]]`,
//! and beside it `miniflow top NAME`.
//!
//! Tasks of both classes, in waves that come and go, so that the number of workers follows; now and
//! then one fails, or takes its worker along: by an abort, or by a recursion without an end.
#![allow(clippy::print_stdout, reason = "a program")]

use std::env;
use std::f64::consts::TAU;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Engine, Error, Scaling, SubmitOptions};

/// From one wave to the next.
const WAVE: Duration = Duration::from_secs(24);
/// Between two submits.
const TURN: Duration = Duration::from_millis(10);

/// What a task is told to do, in its first byte; the second one says how much of it.
const COMPUTE: u8 = 0;
const FETCH: u8 = 1;
const FAIL: u8 = 2;
const ABORT: u8 = 3;
const RECURSE: u8 = 4;

fn work(task: &mut Task<'_>) -> TaskResult {
    let [kind, amount] = *task.payload() else {
        return Err("two bytes are expected".into());
    };
    match kind {
        COMPUTE => compute(Duration::from_micros(500) + Duration::from_micros(10) * amount.into()),
        FETCH => thread::sleep(Duration::from_millis(5 + u64::from(amount))),
        ABORT => give_up(),
        RECURSE => drop(black_box(descend(&[0; 512]))),
        _ => return Err("no route to host".into()),
    }
    Ok(())
}

/// Keeps a processor busy.
fn compute(time: Duration) {
    let end = Instant::now() + time;
    let mut sum = 0_u64;
    while Instant::now() < end {
        for number in 0..1_000_u64 {
            sum = sum.wrapping_add(black_box(number));
        }
    }
    black_box(sum);
}

#[inline(never)]
fn give_up() {
    std::process::abort();
}

/// Ends with the stack.
#[inline(never)]
fn descend(above: &[u8; 512]) -> u64 {
    let mut here = *above;
    here[0] = here[0].wrapping_add(1);
    match black_box(&here).first() {
        Some(_) => descend(&here) + u64::from(here[1]),
        None => 0,
    }
}

fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "lively".into());
    let seconds = arguments.next().and_then(|text| text.parse().ok());
    let length = seconds.map_or(Duration::MAX, Duration::from_secs);
    let engine = Engine::builder()
        .name(&*name)
        .handler(work)
        .workers_between(Class::CpuBound, 1, 6)
        .threads(Class::CpuBound, 2)
        .workers_between(Class::IoBound, 1, 4)
        .threads(Class::IoBound, 10)
        .scaling(Scaling::by_load().cpu(1.0)) // whatever else the machine does
        .start()?;
    println!("watch it: miniflow top {name}");
    let (start, mut chance, mut due) = (Instant::now(), Chance(1), 0.0);
    while start.elapsed() < length {
        let wave = (start.elapsed().as_secs_f64() / WAVE.as_secs_f64() * TAU).sin();
        // So many tasks a second: whole ones are submitted, the rest is kept for the next turn.
        due += (500.0 + 450.0 * wave) * TURN.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            let (payload, class) = chance.task();
            match engine.submit_with(&payload, &SubmitOptions::new().class(class)) {
                Ok(_) | Err(Error::WouldBlock { .. }) => {} // counted by the engine
                Err(error) => return Err(error),
            }
        }
        engine.poll(4096, Some(Duration::ZERO))?;
        thread::sleep(TURN);
    }
    engine.stop(Some(Duration::from_secs(5)))
}

/// Numbers that look like chance and are the same in every run (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn task(&mut self) -> ([u8; 2], Class) {
        let kind = match self.below(2_000) {
            0 => ABORT,
            1 => RECURSE,
            2..12 => FAIL,
            12..700 => COMPUTE,
            _ => FETCH,
        };
        let amount = u8::try_from(self.below(80)).unwrap_or_default();
        let class = match kind {
            FETCH | FAIL => Class::IoBound,
            _ => Class::CpuBound,
        };
        ([kind, amount], class)
    }
}
