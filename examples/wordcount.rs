//! Counts the words of every file under a directory, in forked worker processes.
//!
//! `cargo run --release --example wordcount -- [--inline] [--workers N] [DIR]`
//!
//! One task a file. Its payload is the file's path or, with `--inline`, the file's contents, which
//! the host reads straight into shared memory. The result is the file's words with their counts.
//! DIR is the sources of the crates that cargo has downloaded, if nothing else is said. Then one
//! thread does the same alone: the ratio is printed, and a difference is an error (exit code 1).
//!
//! A word is a maximal run of ASCII letters, digits and `_`, so no file is too odd to count.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Engine, Error, SubmitOptions, TaskId};

/// Largest file that is sent as a payload; of larger ones the path is.
const INLINE_LIMIT: u64 = 1 << 20;
/// Bit of a task's `user_data` that says that the payload is contents, not a path. The other bits
/// are the number of the file, by which the completion is told.
const CONTENTS: u64 = 1 << 63;

// ---- in the workers ----

/// Runs in a worker process, once for each task. Whatever error `?` meets fails the task.
fn count_file(task: &mut Task<'_>) -> TaskResult {
    let reply = if task.user_data() & CONTENTS != 0 {
        encode(&count(task.payload())) // read in place, in shared memory
    } else {
        encode(&count(&fs::read(OsStr::from_bytes(task.payload()))?))
    };
    Ok(task.reply(&reply)?)
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| !(b.is_ascii_alphanumeric() || b == b'_'))
        .filter(|word| !word.is_empty())
}

fn count(text: &[u8]) -> HashMap<&[u8], u32> {
    let mut counts = HashMap::new();
    for word in words(text) {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// For each word four bytes of count, the word, and a zero byte, which no word contains.
fn encode(counts: &HashMap<&[u8], u32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(counts.keys().map(|word| word.len() + 5).sum());
    for (word, count) in counts {
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(word);
        bytes.push(0);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    std::iter::from_fn(move || {
        let (count, rest) = bytes.split_first_chunk()?;
        let end = rest.iter().position(|&b| b == 0)?;
        bytes = &rest[end + 1..];
        Some((&rest[..end], u32::from_le_bytes(*count)))
    })
}

// ---- in the host ----

/// A count of words under way.
#[derive(Default)]
struct Count<'a> {
    files: &'a [PathBuf],
    words: HashMap<Box<[u8]>, u64>,
    /// Numbers of the files that could not be read.
    unreadable: BTreeSet<usize>,
    too_large: usize,
    ended: usize,
    by_worker: BTreeMap<u32, u64>,
}

impl<'a> Count<'a> {
    fn of(files: &'a [PathBuf]) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    fn with_engine(&mut self, engine: &Engine, inline: bool) -> Result<(), Error> {
        for number in 0..self.files.len() {
            while let Err(error) = self.submit(engine, number, inline) {
                match error {
                    // Full: take results, which makes room, and try again.
                    Error::WouldBlock(_) => self.collect(engine, Some(Duration::from_secs(1)))?,
                    error => return Err(error),
                }
            }
            self.collect(engine, Some(Duration::ZERO))?;
        }
        while self.ended < self.files.len() {
            self.collect(engine, None)?;
        }
        Ok(())
    }

    fn submit(&mut self, engine: &Engine, n: usize, inline: bool) -> Result<TaskId, Error> {
        let file = &self.files[n];
        let path = file.as_os_str().as_bytes();
        let options = SubmitOptions::new().user_data(n as u64);
        // A file that the host cannot read is left to a worker, which says why not.
        let Some((mut source, len)) = open(file).ok().filter(|_| inline) else {
            return engine.submit_with(path, &options);
        };
        match engine.loan(len) {
            Ok(mut loan) => match source.read_exact(&mut loan) {
                Ok(()) => loan.submit(&options.user_data(n as u64 | CONTENTS)),
                Err(_) => engine.submit_with(path, &options),
            },
            Err(Error::TooLarge { .. }) => engine
                .submit_with(path, &options)
                .inspect(|_| self.too_large += 1),
            Err(error) => Err(error),
        }
    }

    fn collect(&mut self, engine: &Engine, timeout: Option<Duration>) -> Result<(), Error> {
        for completion in engine.poll(64, timeout)? {
            self.ended += 1;
            *self.by_worker.entry(completion.worker()).or_default() += 1;
            if completion.is_completed() {
                decode(&completion.to_vec()).for_each(|(word, n)| self.add(word, n));
            } else {
                let number = (completion.user_data() & !CONTENTS) as usize;
                eprintln!("{}: {}", self.files[number].display(), completion.text());
                self.unreadable.insert(number);
            }
        } // dropping a completion gives its memory back to the worker
        Ok(())
    }

    fn alone(&mut self) {
        for (number, file) in self.files.iter().enumerate() {
            match fs::read(file) {
                Ok(text) => words(&text).for_each(|word| self.add(word, 1)),
                Err(_) => drop(self.unreadable.insert(number)),
            }
        }
    }

    fn add(&mut self, word: &[u8], n: u32) {
        match self.words.get_mut(word) {
            Some(total) => *total += u64::from(n),
            None => drop(self.words.insert(word.into(), n.into())),
        }
    }
}

fn open(file: &Path) -> io::Result<(File, usize)> {
    let source = File::open(file)?;
    let len = source.metadata()?.len();
    Ok((source, usize::try_from(len).map_err(io::Error::other)?))
}

/// All files under `dir`, and their bytes. Symbolic links are not followed, so there is no loop.
fn walk(dir: PathBuf) -> (Vec<PathBuf>, u64) {
    let (mut files, mut bytes, mut dirs) = (Vec::new(), 0, vec![dir]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => dirs.push(entry.path()),
                Ok(about) if about.is_file() => {
                    bytes += about.len();
                    files.push(entry.path());
                }
                _ => {}
            }
        }
    }
    (files, bytes)
}

fn default_dir() -> PathBuf {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::home_dir().map(|home| home.join(".cargo"));
    let mut dirs = [cargo, home].into_iter().flatten();
    dirs.find_map(|dir| Some(dir.join("registry/src")).filter(|dir| dir.is_dir()))
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// One line for each name, with a bar as long as its number says.
fn bars(rows: Vec<(String, u64)>) {
    let most = rows.iter().map(|row| row.1).max().unwrap_or(0).max(1);
    for (name, n) in rows {
        let bar = "\u{2588}".repeat((40 * n).div_ceil(most) as usize);
        println!("  {name:<20} {n:>9} {bar}");
    }
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (mut inline, mut dir) = (false, default_dir());
    let mut workers = std::thread::available_parallelism()?.get().try_into()?;
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--inline") => inline = true,
            Some("--workers") => {
                let number = arguments.next().ok_or("--workers needs a number")?;
                workers = number.to_string_lossy().parse::<u32>()?;
            }
            Some(o) if o.starts_with('-') => Err("wordcount [--inline] [--workers N] [DIR]")?,
            _ => dir = argument.into(),
        }
    }
    // Early: the workers are forked from this process as it is now.
    let engine = Engine::builder()
        .handler(count_file)
        .workers(Class::CpuBound, workers)
        .workers(Class::IoBound, 0)
        .max_payload(INLINE_LIMIT)
        .payload_arena(64 * INLINE_LIMIT)
        .max_tasks(4096)
        .start()?;
    let (files, bytes) = walk(dir);
    for file in &files {
        let _ = fs::read(file); // into the page cache, to be fair to whoever counts first
    }
    let (files, megabytes) = (&files[..], bytes as f64 / 1e6);
    let (mut count, mut expected) = (Count::of(files), Count::of(files));
    let start = Instant::now();
    count.with_engine(&engine, inline)?;
    let together = start.elapsed().as_secs_f64();
    let start = Instant::now();
    expected.alone();
    let alone = start.elapsed().as_secs_f64();

    let mode = if inline { "contents" } else { "paths" };
    let (large, unreadable) = (count.too_large, count.unreadable.len());
    let full = engine.stats().would_block;
    println!("{} files, {megabytes:.1} MB", files.len());
    println!("{workers} workers, {mode} as payloads; the engine was full {full} times");
    println!("{large} files too large for a payload went as paths, {unreadable} were unreadable");
    let mut top: Vec<_> = count.words.iter().map(|(word, &n)| (n, word)).collect();
    top.sort_unstable_by(|a, b| b.cmp(a));
    let (total, different) = (top.iter().map(|t| t.0).sum::<u64>(), top.len());
    println!("\n{total} words, {different} different; the most frequent:");
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    bars(
        top.iter()
            .take(20)
            .map(|(n, word)| (text(word), *n))
            .collect(),
    );
    println!("\nfiles per worker:");
    bars(
        count
            .by_worker
            .iter()
            .map(|(w, &n)| (format!("worker {w}"), n))
            .collect(),
    );
    println!();
    for (who, seconds) in [("engine", together), ("one thread", alone)] {
        let speed = megabytes / seconds;
        println!("{who:<10} {seconds:>8.3} s {speed:>8.1} MB/s");
    }
    let equal = count.words == expected.words && count.unreadable == expected.unreadable;
    let verdict = ["THE COUNTS DIFFER", "equal counts"][usize::from(equal)];
    println!("ratio      {:>8.2} x, {verdict}", alone / together);
    engine.stop(None)?;
    Ok(ExitCode::from(u8::from(!equal)))
}
