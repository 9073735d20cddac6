//! `miniflow run` as its users see it: a command line, files, an exit status.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::until;

/// How long a run may take that takes seconds.
const PATIENCE: Duration = Duration::from_secs(100);
/// By this variable in their environment the processes of a run are found.
const MARK: &str = "MINIFLOW_TEST_RUN";

/// A directory of the test's own, removed when dropped, and what is started in it.
#[derive(Debug)]
pub(crate) struct Bench {
    directory: PathBuf,
    mark: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mark = format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&mark);
        fs::create_dir_all(&directory).unwrap();
        Self { directory, mark }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file; returns its path.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `{"n":0}` and so on.
    pub(crate) fn numbers(&self, count: u64) -> String {
        let lines: String = (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        self.file("params.jsonl", lines)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `miniflow run` with these arguments, in this directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_miniflow"));
        command
            .arg("run")
            .args(args)
            .current_dir(&self.directory)
            .env(MARK, &self.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Whoever runs the tests in the background may have SIGINT ignored.
        set_signal(&mut command, libc::SIGINT, libc::SIG_DFL);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Running::start(self.command(args)).finish()
    }

    /// Runs it to its end with this on its standard input.
    #[track_caller]
    pub(crate) fn run_with_input(&self, args: &[&str], input: impl Into<Vec<u8>>) -> Finished {
        let input = input.into();
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        let mut stdin = running.child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&input).ok());
        let finished = running.finish();
        writer.join().unwrap();
        finished
    }

    /// The processes that were started here and are alive, zombies excluded.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let wanted = format!("{MARK}={}", self.mark);
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .split(|&byte| byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        })
        .collect()
    }

    /// Waits until nothing is left of what was started here.
    #[track_caller]
    pub(crate) fn until_nothing_is_left(&self) {
        until("no process is left", || self.processes().is_empty());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A run that has begun.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<()>,
    said: Arc<Mutex<String>>,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take();
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut bytes).unwrap();
            }
            bytes
        });
        let stderr = child.stderr.take().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let saying = Arc::clone(&said);
        let stderr = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let mut said = saying.lock().unwrap();
                said.push_str(&line.unwrap());
                said.push('\n');
            }
        });
        Self {
            child,
            stdout,
            stderr,
            said,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has written to standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has written this to standard error.
    #[track_caller]
    pub(crate) fn until_it_says(&self, text: &str) {
        until(text, || self.said().contains(text));
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("no end within {PATIENCE:?}; it said: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let stdout = self.stdout.join().unwrap();
        self.stderr.join().unwrap();
        let stderr = self.said.lock().unwrap().clone();
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr,
        }
    }
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Checks the exit status, and returns the result lines.
    #[track_caller]
    pub(crate) fn rows(&self, code: i32) -> Vec<Value> {
        assert_eq!(self.code, Some(code), "{self:#?}");
        rows_of(&self.stdout)
    }

    /// The same, by index, each of which must be there once, from 0 on.
    #[track_caller]
    pub(crate) fn rows_by_index(&self, code: i32) -> Vec<Value> {
        by_index(self.rows(code))
    }
}

/// Result lines.
#[track_caller]
pub(crate) fn rows_of(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text}");
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: `{line}`"));
    text.lines().map(parse).collect()
}

/// Result lines of a run that was killed, perhaps while it wrote: the last one need not be whole.
#[track_caller]
pub(crate) fn whole_rows_of(text: &str) -> Vec<Value> {
    rows_of(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
}

/// Checks that every index is there once, from 0 on, and sorts by it.
#[track_caller]
pub(crate) fn by_index(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| row["index"].as_u64());
    for (row, index) in rows.iter().zip(0_u64..) {
        assert_eq!(row["index"], index, "{row}");
    }
    rows
}

/// What is under `key` in each row.
pub(crate) fn column(rows: &[Value], key: &str) -> Vec<Value> {
    rows.iter().map(|row| row[key].clone()).collect()
}

/// Sets what a signal does to the command at first.
pub(crate) fn set_signal(command: &mut Command, signal: i32, action: libc::sighandler_t) {
    let set = move || {
        // SAFETY: a disposition that is no function.
        unsafe { libc::signal(signal, action) };
        Ok(())
    };
    // SAFETY: only an async-signal-safe call between fork and exec.
    unsafe { command.pre_exec(set) };
}
