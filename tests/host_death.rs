//! The host is killed at a random moment of whatever it does: within a second nothing of it is left.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Name, Proc, Random, cpu_only, watchdog, watchdog_alone};
use miniflow::{Builder, Class, Engine, SubmitOptions};

/// Tells this program to be a host, and which name its engine has. Its workers and its zygote have it
/// in their environment, too: that is how they are found.
const HOST: &str = "MINIFLOW_TEST_RANDOM_HOST";
const SEED: &str = "MINIFLOW_TEST_SEED";

/// Not a test by itself: a host that starts and stops engines, and loads, resizes and drains them,
/// until it is killed.
#[test]
fn a_host_that_does_this_and_that() {
    let (Ok(name), Ok(seed)) = (std::env::var(HOST), std::env::var(SEED)) else {
        return;
    };
    let _watchdog = watchdog(60);
    let mut random = Random(seed.parse().unwrap());
    println!("UP");
    loop {
        let builder = cpu_only(2, 1 + random.below(3) as u32)
            .workers_between(Class::CpuBound, 2, 4)
            .stop_grace(Duration::from_millis(20))
            .kill_grace(Duration::from_millis(5));
        let builder = match random.below(2) {
            0 => builder.name(name.clone()),
            _ => builder, // an automatic one
        };
        let engine = with_workers(builder, random.below(3) == 0).start().unwrap();
        work(&engine, &mut random);
        match random.below(3) {
            0 => drop(engine),
            1 => engine.stop(None).unwrap(),
            _ => engine.stop(Some(Duration::from_millis(2))).unwrap(),
        }
    }
}

fn with_workers(builder: Builder, program: bool) -> Builder {
    if program {
        let program = std::env::current_exe().unwrap();
        return builder.program([program.to_str().unwrap(), "--exact", "a_program_that_works"]);
    }
    builder.handler(|task| {
        match task.payload().first() {
            Some(0) => std::thread::sleep(Duration::from_millis(task.user_data())),
            Some(1) => while !task.is_cancelled() {},
            Some(2) if task.attempt() == 1 => std::process::abort(),
            _ => {}
        }
        Ok(task.reply(&vec![1; task.user_data() as usize * 10_000])?)
    })
}

/// Not a test by itself: a worker program.
#[test]
fn a_program_that_works() {
    if std::env::var_os("MINIFLOW_LANE").is_none() {
        return;
    }
    let worker = miniflow::worker::Worker::join().unwrap();
    while let Ok(assigned) = worker.next(None) {
        std::thread::sleep(Duration::from_millis(1));
        assigned.finish(Ok(()));
    }
}

fn work(engine: &Engine, random: &mut Random) {
    for _ in 0..random.below(60) {
        let options = SubmitOptions::new()
            .user_data(random.below(8))
            .max_attempts(1 + random.below(2) as u32)
            .deadline(Duration::from_millis(5 + random.below(20)));
        let payload = vec![random.below(20) as u8; random.below(100_000) as usize];
        let Ok(id) = engine.submit_with(&payload, &options) else {
            continue;
        };
        match random.below(20) {
            0 => engine.cancel(id).unwrap_or_default(),
            1 => engine.cancel_kill(id).unwrap_or_default(),
            2 => engine
                .resize(Class::CpuBound, 1 + random.below(4) as u32)
                .unwrap(),
            3..6 => drop(engine.poll(10, Some(Duration::from_millis(1)))),
            _ => {}
        }
    }
}

/// What has been started with this name and is alive, by pid.
fn survivors(name: &str) -> HashMap<u32, String> {
    let marker = format!("{HOST}={name}");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let mut environment = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        file.take(1 << 20).read_to_end(&mut environment).ok()?;
        let mut variables = environment.split(|&byte| byte == 0);
        variables.find(|variable| *variable == marker.as_bytes())?;
        let process = Proc::read(pid).filter(|p| p.state != 'Z')?;
        Some((pid, format!("{process:?}")))
    })
    .collect()
}

/// The names of a process's engines that are there.
fn automatic_names(pid: u32) -> Vec<String> {
    let names = fs::read_dir("/dev/shm").unwrap().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with("miniflow.") && name.ends_with(&format!("-{pid}")))
        .collect()
}

struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn nothing_is_left_of_a_host_that_is_killed_at_a_random_moment() {
    let _watchdog = watchdog_alone(600);
    let rounds = if std::env::var_os("MINIFLOW_LONG").is_some() {
        200
    } else {
        25
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut random = Random(now.as_nanos() as u64);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let name = Name::unique();
        let seed = random.next();
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_host_that_does_this_and_that", "--nocapture"])
            .env(HOST, &*name)
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Host)
            .unwrap();
        let mut out = host.0.stdout.take().unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"UP") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "the host did not come up");
            said.push(byte[0]);
        }
        // Often in the first moments, in which an engine is half made.
        let span = if random.below(2) == 0 { 8_000 } else { 150_000 };
        std::thread::sleep(Duration::from_micros(random.below(span)));
        let pid = host.0.id();
        drop(host);
        let killed = Instant::now();
        loop {
            let (left, names) = (survivors(&name), automatic_names(pid));
            if left.is_empty() && names.is_empty() && !name.path().exists() {
                break;
            }
            assert!(
                killed.elapsed() < Duration::from_secs(1),
                "round {round}, seed {seed}: after 1 s there are still {left:?}, {names:?}, name: {}",
                name.path().exists()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        slowest = slowest.max(killed.elapsed());
    }
    println!("{rounds} hosts killed, nothing left; the slowest end took {slowest:?}");
}
