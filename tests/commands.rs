//! The commands that look at engines and look after them, as their users see them: `ls`, `status`,
//! `clean`, `doctor`, `completions`, `man`, and the help.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test"
)]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::run::{Bench, Finished, Running, set_signal};
use common::{Name, Proc, cpu_only, is_alive, kill, until, watchdog, zygote_of};
use miniflow::Engine;
use miniflow::status::Status;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The command line with these arguments.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_miniflow"));
    command
        .args(args)
        .env_remove("MINIFLOW_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Whoever runs the tests in the background may have SIGINT ignored.
    set_signal(&mut command, libc::SIGINT, libc::SIG_DFL);
    command
}

/// Runs it to its end.
#[track_caller]
fn miniflow(args: &[&str]) -> Finished {
    Running::start(command(args)).finish()
}

/// Runs it to its end, which must be a good one; returns what it printed.
#[track_caller]
fn printed(args: &[&str]) -> String {
    let finished = miniflow(args);
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{finished:#?}"
    );
    finished.stdout
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A named engine of this process that echoes.
#[track_caller]
fn engine(name: &Name) -> Engine {
    cpu_only(2, 1)
        .name(&**name)
        .handler(|task| {
            let payload = task.payload().to_vec();
            Ok(task.reply(&payload)?)
        })
        .start()
        .unwrap()
}

/// What `ls` says about an engine, if it knows it.
#[track_caller]
fn listed(name: &str) -> Option<Value> {
    let list = json(&printed(&["ls", "--json"]));
    let engines = list["engines"].as_array().unwrap();
    let mut found = engines.iter().filter(|engine| engine["name"] == name);
    let row = found.next().cloned();
    assert!(found.next().is_none(), "{list}");
    row
}

// ---- ls and status ----

#[test]
fn a_running_engine_is_listed_with_its_figures() {
    let _watchdog = watchdog(120);
    let name = Name::unique();
    let engine = engine(&name);
    for _ in 0..10 {
        engine.submit(b"task").unwrap();
    }
    common::collect(&engine, 10);
    // The engine says so within 100 ms.
    until("10 completed tasks are listed", || {
        listed(&name).is_some_and(|row| row["completed"] == 10)
    });
    let row = listed(&name).unwrap();
    assert_eq!(row["pid"], std::process::id());
    assert_eq!(
        (&row["state"], &row["workers"]),
        (&"running".into(), &2.into())
    );
    assert!(row["note"].is_null() && row["uptime_ms"].is_u64(), "{row}");

    let table = printed(&["ls"]);
    let line = table.lines().find(|line| line.starts_with(&*name)).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[2], "running", "{table}");
    drop(engine);
    assert_eq!(listed(&name), None);
}

#[test]
fn the_status_of_an_engine_is_a_report_or_json() {
    let _watchdog = watchdog(120);
    let name = Name::unique();
    let engine = engine(&name);
    engine.submit(b"task").unwrap();
    common::collect(&engine, 1);
    let status = || -> Status {
        let text = printed(&["status", &name, "--json"]);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    until("the completed task is told", || {
        status().tasks.completed == 1
    });
    let status = status();
    assert_eq!(status.name.as_deref(), Some(&*name));
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.workers.len(), 2);

    let report = printed(&["status", &name]);
    assert!(
        report.starts_with(&format!("{}: running, pid {}", &*name, status.pid)),
        "{report}"
    );
    for worker in &status.workers {
        assert!(report.contains(&worker.pid.to_string()), "{report}");
    }
}

#[test]
fn an_engine_that_there_is_not_is_an_error_with_its_name() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    for args in [
        vec!["status", &name],
        vec!["status", &name, "--watch", "--json"],
    ] {
        let finished = miniflow(&args);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
        let expected = format!("miniflow status: there is no engine named \"{}\"\n", &*name);
        assert_eq!(finished.stderr, expected);
    }
}

#[test]
fn of_several_engines_one_has_to_be_named() {
    let _watchdog = watchdog(60);
    let names = [Name::unique(), Name::unique()];
    let _engines = names.each_ref().map(engine);
    let finished = miniflow(&["status"]);
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(2), ""),
        "{finished:#?}"
    );
    for name in &names {
        assert!(finished.stderr.contains(&**name), "{finished:#?}");
    }
}

/// `status --watch`, read line by line.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        self.lines.next().expect("another line").unwrap()
    }

    /// The rest, and the exit code.
    fn end(mut self) -> (Vec<String>, Option<i32>) {
        let rest = self.lines.by_ref().map(Result::unwrap).collect();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn watching_as_json_is_a_line_per_look_until_ctrl_c() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let _engine = engine(&name);
    let mut watch = Watch::start(&["status", &name, "--json", "--watch", "0.1"]);
    let moments = [(); 3].map(|()| {
        let status: Status = serde_json::from_str(&watch.line()).unwrap();
        status.at_ms
    });
    assert!(moments.is_sorted(), "{moments:?}");
    kill_process(Pid::from_child(&watch.child), Signal::INT).unwrap();
    let (rest, code) = watch.end();
    assert_eq!(code, Some(0));
    for line in rest {
        json(&line);
    }
}

#[test]
fn watching_ends_with_the_engine() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let engine = engine(&name);
    // Looked at once in an hour: the end is noticed all the same.
    let mut watch = Watch::start(&["status", &name, "--watch", "3600"]);
    assert!(watch.line().starts_with(&format!("{}: running", &*name)));
    let mut objects = Watch::start(&["status", &name, "--watch", "3600", "--json"]);
    assert_eq!(json(&objects.line())["state"], "running");
    drop(engine);
    let (rest, code) = watch.end();
    assert_eq!(code, Some(0));
    assert_eq!(rest.last().unwrap(), &format!("`{}` has ended", &*name));
    let (rest, code) = objects.end();
    assert_eq!((rest.len(), code), (1, Some(0)), "{rest:?}");
    assert_ne!(json(&rest[0])["state"], "running");
}

#[test]
fn watching_ends_when_nobody_reads() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let _engine = engine(&name);
    let mut child = command(&["status", &name, "--json", "--watch", "3600"])
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

// ---- names of the dead ----

const HOST: &str = "MINIFLOW_TEST_COMMANDS_HOST";

/// Not a test by itself: a host that waits to be killed.
#[test]
fn a_host_with_a_name() {
    let Some(name) = std::env::var_os(HOST) else {
        return;
    };
    let _watchdog = watchdog(120);
    let engine = cpu_only(1, 1)
        .name(name.into_string().unwrap())
        .handler(|_| Ok(()))
        .start()
        .unwrap();
    println!("ZYGOTE {}", zygote_of(&engine));
    loop {
        std::thread::park();
    }
}

/// Makes an engine whose host and zygote are killed at once, so that its name is left.
fn leave(name: &Name) {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_host_with_a_name", "--nocapture"])
        .env(HOST, &**name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let zygote = lines.find_map(|line| line.unwrap().split_once("ZYGOTE ")?.1.parse().ok());
    // At once, as far as the host is concerned: it would put another process in the zygote's place.
    kill_process(Pid::from_child(&host), Signal::STOP).unwrap();
    until("the host is stopped", || {
        Proc::read(host.id()).unwrap().state == 'T'
    });
    kill(zygote.unwrap());
    until("the zygote is dead", || !is_alive(zygote.unwrap()));
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(name.path().exists());
}

#[test]
fn the_name_of_a_dead_engine_is_shown_and_removed_and_that_of_a_living_one_is_not() {
    let _watchdog = watchdog(300);
    let living = Name::unique();
    let _engine = engine(&living);
    // Whoever cleans meanwhile (another run of these tests) takes the name away: once more, then.
    let seen = (0..5).any(|_| {
        let dead = Name::unique();
        leave(&dead);
        let listed = listed(&dead);
        let table = printed(&["ls"]);
        let status = miniflow(&["status", &dead]);
        let would = printed(&["clean", "--dry-run"]);
        if !dead.path().exists() {
            return false;
        }
        let row = listed.unwrap();
        assert_eq!(row["state"], "dead", "{row}");
        assert!(table.contains("`miniflow clean` removes"), "{table}");
        assert_eq!(status.code, Some(1), "{status:#?}");
        assert!(
            status.stdout.starts_with(&format!("{}: dead", &*dead)),
            "{status:#?}"
        );
        assert!(status.stderr.contains("clean"), "{status:#?}");
        assert!(
            would.contains(&format!("would remove {}\n", &*dead)),
            "{would}"
        );
        assert!(!would.contains(&*living), "{would}");
        let removed = json(&printed(&["clean", "--json"]));
        assert_eq!(removed["dry_run"], false);
        let removed = removed["removed"].as_array().unwrap();
        assert!(!removed.iter().any(|name| name == &*living), "{removed:?}");
        assert!(!dead.path().exists());
        removed.iter().any(|name| name == &*dead)
    });
    assert!(seen, "somebody else is always faster");
    assert_eq!(listed(&living).unwrap()["state"], "running");
}

#[test]
fn a_segment_of_another_version_is_listed_as_such() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let mut segment = b"miniflow".to_vec();
    segment.extend(999_u32.to_ne_bytes()); // the layout's version
    segment.extend(std::process::id().to_ne_bytes());
    segment.resize(4096, 0);
    let mut file = File::create_new(name.path()).unwrap();
    // As its owner would: this says that it is alive.
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file.write_all(&segment).unwrap();
    let row = listed(&name).unwrap();
    assert_eq!(
        (&row["state"], &row["pid"]),
        (&"unknown".into(), &std::process::id().into())
    );
    let note = row["note"].as_str().unwrap();
    assert!(note.contains("layout version 999"), "{note}");
    let table = printed(&["ls"]);
    assert!(table.lines().any(|line| line.contains(note)), "{table}");
    let finished = miniflow(&["status", &name]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("999"), "{finished:#?}");
}

// ---- doctor ----

#[test]
fn the_doctor_examines_the_machine_and_runs_an_engine() {
    let _watchdog = watchdog(120);
    let report = json(&printed(&["doctor", "--json"]));
    assert_eq!(report["ok"], true, "{report:#}");
    let group = |name: &str| {
        let groups = report["groups"].as_array().unwrap();
        let group = groups.iter().find(|group| group["name"] == name).unwrap();
        group["checks"].as_array().unwrap().clone()
    };
    let engine = group("engine");
    let names: Vec<&str> = engine
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["start", "watching", "round trip", "killed worker", "stop"]
    );
    for check in &engine {
        assert_eq!(check["state"], "ok", "{check}");
    }
    for name in [
        "kernel",
        "limits",
        "control groups",
        "memory",
        "processors",
        "system",
    ] {
        assert!(!group(name).is_empty());
    }
}

#[test]
fn the_doctor_can_leave_it_at_looking() {
    let _watchdog = watchdog(60);
    let text = printed(&["doctor", "--no-engine"]);
    assert!(
        text.contains("memory files") && text.contains(" 0 FAIL, "),
        "{text}"
    );
    assert!(!text.contains("round trip"), "{text}");
}

#[test]
fn the_doctor_says_what_is_wrong_and_fails() {
    let _watchdog = watchdog(60);
    let mut command = command(&["doctor"]);
    limit_files(&mut command, 6);
    let finished = Running::start(command).finish();
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let text = finished.stdout;
    assert!(
        text.contains("FAIL") && text.contains("RLIMIT_NOFILE"),
        "{text}"
    );
}

/// The command may have so many descriptors.
fn limit_files(command: &mut Command, files: u64) {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let limit = libc::rlimit {
            rlim_cur: files,
            rlim_max: files,
        };
        // SAFETY: a valid limit, which is only read.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: only an async-signal-safe call between fork and exec.
    unsafe { command.pre_exec(limit) };
}

// ---- help, man pages, completions ----

const COMMANDS: [&str; 11] = [
    "run",
    "ls",
    "status",
    "top",
    "metrics",
    "doctor",
    "clean",
    "bench",
    "chaos",
    "completions",
    "man",
];

#[test]
fn help_has_every_command_below_a_heading() {
    let _watchdog = watchdog(60);
    let help = printed(&["--help"]);
    for heading in [
        "Run tasks:",
        "See what engines do:",
        "Look after the machine:",
    ] {
        assert!(help.contains(heading), "{help}");
    }
    for command in COMMANDS {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} in {help}"
        );
        let own = printed(&[command, "--help"]);
        for part in ["Usage: miniflow ", "Options:", "Examples:", "Exit status:"] {
            assert!(own.contains(part), "{part} in {own}");
        }
    }
}

#[test]
fn man_pages_are_written_and_have_no_faults() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let directory = bench.path("man1");
    let written = printed(&["man", "--out", &directory]);
    assert_eq!(
        written.lines().count(),
        fs::read_dir(&directory).unwrap().count()
    );
    for command in COMMANDS {
        let page = fs::read_to_string(format!("{directory}/miniflow-{command}.1")).unwrap();
        assert_eq!(printed(&["man", command]), page);
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES"] {
            let quoted = format!("\n.SH \"{section}\"\n");
            let is_there = page.contains(&format!("\n.SH {section}\n")) || page.contains(&quoted);
            assert!(is_there, "{section} in {page}");
        }
    }
    for path in written.lines() {
        lint("groff", &["-man", "-ww", "-Tutf8", "-z", path]);
        lint("mandoc", &["-T", "lint", "-W", "error", path]);
    }
    let finished = miniflow(&["man", "nonsense"]);
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("`nonsense`"), "{finished:#?}");
}

/// Runs a program, if it is installed, which must find nothing to say.
#[track_caller]
fn lint(program: &str, args: &[&str]) {
    match Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && said.is_empty(),
                "{program} {args:?}: {said}"
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIP: {program} is not installed");
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn completions_are_scripts_that_their_shells_understand() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(!script.contains("program-worker"), "{shell}");
        let path = bench.file(shell, script);
        if ["bash", "zsh", "fish"].contains(&shell) {
            lint(shell, &["-n", &path]);
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let _watchdog = watchdog(60);
    let bench = Bench::new();
    let script = bench.file("bash", printed(&["completions", "bash"]));
    let complete = |words: &str| {
        let program = format!(
            "source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _miniflow miniflow \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &program])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete("miniflow doc"), "doctor\n");
    assert_eq!(complete("miniflow clean --dr"), "--dry-run\n");
}

// ---- what all of them have in common ----

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let _watchdog = watchdog(120);
    let name = Name::unique();
    let _engine = engine(&name);
    for args in [
        &["ls"][..],
        &["status", &name],
        &["status", &name, "--watch", "0.1"],
        &["top", &name, "--once"],
        &["metrics", &name],
        &["doctor", "--no-engine"],
        &["clean", "--dry-run"],
        &["man", "run"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(args);
        command.stdout(OwnedFd::from(writer));
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn what_the_library_says_is_shown_only_if_it_is_asked_for() {
    let _watchdog = watchdog(120);
    // A worker is killed there, of which the library warns.
    let warned = |finished: &Finished| {
        let lines: Vec<&str> = finished.stderr.lines().collect();
        let warning = lines
            .iter()
            .find(|line| line.contains("WARN") && line.contains("SIGKILL"));
        warning.is_some()
    };
    let silent = miniflow(&["doctor"]);
    assert_eq!(silent.stderr, "");
    assert!(warned(&miniflow(&["doctor", "--verbose"])));
    assert!(warned(&miniflow(&["-vvv", "doctor"])));
    let with = |filter: &str, args: &[&str]| {
        let mut command = command(args);
        command.env("MINIFLOW_LOG", filter);
        Running::start(command).finish()
    };
    assert!(warned(&with("miniflow=warn", &["doctor"])));
    assert_eq!(with("miniflow=error", &["doctor"]).stderr, "");
    assert!(
        warned(&with("off", &["doctor", "-v"])),
        "the option goes before the variable"
    );
}

#[test]
fn a_wrong_command_line_is_refused_with_status_2() {
    let _watchdog = watchdog(60);
    for args in [
        &[][..],
        &["nonsense"],
        &["ls", "--nonsense"],
        &["status", "--watch", "soon"],
        &["completions", "cmd.exe"],
        &["man", "run", "--out", "x"],
    ] {
        let finished = miniflow(args);
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(2), ""),
            "{args:?}"
        );
        assert!(!finished.stderr.is_empty());
    }
    // An engine's name that was taken for the interval is explained.
    let finished = miniflow(&["status", "--watch", "orders"]);
    assert!(
        finished.stderr.contains("name goes before --watch"),
        "{finished:#?}"
    );
}
