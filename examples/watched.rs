//! An engine to look at while it runs: `cargo run --release --example watched -- [NAME [--crashes]]`, then,
//! elsewhere, `miniflow metrics NAME --listen` or `miniflow top NAME`. Ctrl-C ends it.
//!
//! Its load comes in waves of 20 s: short tasks that compute, and others that wait, whose workers come and
//! go with them. Some fail; with `--crashes`, some take their worker along.
#![allow(clippy::print_stdout, reason = "a program")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use miniflow::worker::Failure;
use miniflow::{Class, Engine, Error, Scaling, SubmitOptions};

const WAVE: f64 = 20.0;
const STEP: Duration = Duration::from_millis(20);

/// Second byte of a task: how it takes its worker along.
const NONE: u8 = 0;
const ABORT: u8 = 1;
const OVERFLOW: u8 = 2;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "watched".into());
    let crashes = args.next().is_some_and(|arg| arg == "--crashes");
    let engine = Engine::builder()
        .name(&name)
        .handler(move |task| {
            let micros = u64::from(task.payload()[0]) + 1;
            match task.payload()[1] {
                ABORT if crashes => give_up(),
                OVERFLOW if crashes => drop(black_box(descend(&[0; 64]))),
                _ => {}
            }
            match task.class() {
                Class::CpuBound => {
                    let end = Instant::now() + Duration::from_micros(micros * 2);
                    while Instant::now() < end {
                        std::hint::spin_loop();
                    }
                }
                Class::IoBound => std::thread::sleep(Duration::from_micros(micros * 250)),
            }
            match micros {
                256 => Err(Failure::new(1, "as an example")),
                _ => Ok(()),
            }
        })
        .workers(Class::CpuBound, 2)
        .workers_between(Class::IoBound, 1, 6)
        .threads(Class::IoBound, 4)
        .scaling(Scaling::adaptive().cpu(1.0)) // they only wait
        .start()?;
    println!("engine {name} runs; Ctrl-C ends it");

    let start = Instant::now();
    let (mut number, mut submitted) = (0_u32, 0_u64);
    for step in 1.. {
        let phase = start.elapsed().as_secs_f64() / WAVE * std::f64::consts::TAU;
        let height = 1.0 - phase.cos(); // 0 to 2
        for (class, most) in [(Class::CpuBound, 12.0), (Class::IoBound, 5.0)] {
            let mut tasks = most * height + 1.0;
            while tasks >= 1.0 {
                tasks -= 1.0;
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                submitted += 1;
                let fault = match submitted % 12_000 {
                    4_000 => ABORT,
                    10_000 => OVERFLOW,
                    _ => NONE,
                };
                let payload = [number.to_be_bytes()[0], fault];
                match engine.submit_with(&payload, &SubmitOptions::new().class(class)) {
                    Ok(_) | Err(Error::WouldBlock(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let due = start + STEP * step;
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            engine.poll(1024, Some(wait))?;
            if wait.is_zero() {
                break;
            }
        }
    }
    Ok(())
}

#[inline(never)]
fn give_up() {
    std::process::abort();
}

/// Ends when the stack does.
#[inline(never)]
fn descend(above: &[u64; 64]) -> u64 {
    let mut here = *above;
    here[0] += 1;
    match black_box(&here)[0] {
        0 => 0,
        _ => descend(&here) + here[1],
    }
}
