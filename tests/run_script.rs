//! `miniflow run SCRIPT.py`: a Python script's `main(params, context)` over JSON lines, with nothing
//! installed but a Python interpreter.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod common;
#[path = "c/library.rs"]
#[allow(dead_code, reason = "this test builds the library and no C program")]
mod library;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::run::{Bench, Running, by_index, column, rows_of, whole_rows_of};
use common::{until, watchdog};
use library::libraries;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A bench with the library of this build beside the executable, as `cargo build` leaves it.
fn bench() -> Bench {
    libraries();
    Bench::new()
}

#[test]
fn main_is_called_with_each_line_and_what_it_returns_is_the_data() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let params = bench.numbers(300);
    let script = bench.file(
        "script.py",
        "def main(params, context):\n\
         \x20   return {'twice': 2 * params['n'], 'id': context.task_id,\n\
         \x20           'worker': context.worker_id, 'attempt': context.attempt}\n",
    );
    for class in ["cpu", "io"] {
        let finished = bench.run(&[&script, "--params", &params, "--class", class, "--ordered"]);
        let rows = finished.rows_by_index(0);
        assert_eq!(rows.len(), 300);
        for (row, n) in rows.iter().zip(0..) {
            assert_eq!(row["data"]["twice"], 2 * n);
            assert_eq!(row["data"]["id"], row["task_id"]);
            assert_eq!(row["data"]["worker"], row["worker_id"]);
            assert_eq!(row["data"]["attempt"], 1);
            assert_eq!(
                (&row["status"], &row["error"]),
                (&json!("completed"), &Value::Null)
            );
        }
        let summary = finished.stderr;
        assert!(summary.contains(&format!("  {class}-0 ")), "{summary}");
    }
    bench.until_nothing_is_left();
}

#[test]
fn an_exception_is_a_failed_result_with_type_and_traceback() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file(
        "script.py",
        "def main(params, context):\n\
         \x20   if params['n'] == 1:\n\
         \x20       raise ValueError('no ones')\n\
         \x20   if params['n'] == 2:\n\
         \x20       return float('nan')\n\
         \x20   return None\n",
    );
    let params = bench.numbers(4);
    let finished = bench.run(&[&script, "--params", &params]);
    let rows = finished.rows_by_index(1);
    let expected = ["completed", "failed", "failed", "completed"];
    assert_eq!(column(&rows, "status"), expected);
    assert_eq!(rows[1]["error"], "no ones");
    assert_eq!(rows[1]["error_type"], "ValueError");
    let traceback = rows[1]["traceback"].as_str().unwrap();
    assert!(
        traceback.contains(&format!("File \"{script}\", line 3, in main")),
        "{traceback}"
    );
    assert!(!traceback.contains("miniflow"), "{traceback}");
    assert_eq!(rows[2]["error_type"], "ValueError"); // not JSON
    assert_eq!(rows[0]["data"], Value::Null);
    assert!(rows[0].get("traceback").is_none());
    let summary = finished.stderr;
    assert!(
        summary.contains("index 1: ValueError: no ones"),
        "{summary}"
    );
}

#[test]
fn a_result_that_is_too_large_fails_and_says_so() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file(
        "script.py",
        "def main(params, context): return 'x' * params['size']\n",
    );
    let args = [script.as_str(), "--params", "-"];
    let rows = bench
        .run_with_input(&args, "{\"size\": 135000000}\n{\"size\": 200000}\n")
        .rows_by_index(1);
    assert_eq!(column(&rows, "status"), ["failed", "completed"]);
    let error = rows[0]["error"].as_str().unwrap();
    assert!(
        error.contains("result of 135000013 bytes cannot be returned"),
        "{error}"
    );
    assert_eq!(rows[1]["data"].as_str().unwrap().len(), 200_000);
}

#[test]
fn what_a_script_prints_goes_to_standard_error_and_it_reads_nothing() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file(
        "script.py",
        "import os, sys\n\
         def main(params, context):\n\
         \x20   print('printed')\n\
         \x20   os.write(1, b'written\\n')\n\
         \x20   os.system('echo by a child')\n\
         \x20   return sys.stdin.read()\n",
    );
    let args = [script.as_str(), "--params", "-", "--workers", "1"];
    let finished = bench.run_with_input(&args, "{}\n{}\n");
    let rows = finished.rows_by_index(0);
    assert_eq!(column(&rows, "data"), ["", ""]);
    for text in ["printed\n", "written\n", "by a child\n"] {
        assert_eq!(
            finished.stderr.matches(text).count(),
            2,
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_script_that_cannot_be_loaded_fails_every_task_with_the_reason() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let params = bench.numbers(3);
    let cases = [
        ("def main(params, context:\n", "is not valid Python"),
        (
            "import no_such_module_anywhere\n",
            "no_such_module_anywhere",
        ),
        ("x = 1\n", "main"),
    ];
    for (source, reason) in cases {
        let script = bench.file("script.py", source);
        let rows = bench.run(&[&script, "--params", &params]).rows_by_index(1);
        assert_eq!(column(&rows, "status"), ["failed"; 3]);
        for row in rows {
            let error = row["error"].as_str().unwrap();
            assert!(error.contains(reason), "{error}");
        }
    }
}

#[test]
fn a_script_that_kills_its_worker_or_never_returns_costs_only_its_own_task() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let params = bench.numbers(20);
    let script = bench.file(
        "script.py",
        "import os, signal, sys, time\n\
         def main(params, context):\n\
         \x20   match = params['n']\n\
         \x20   if match == 3: os.kill(os.getpid(), signal.SIGKILL)\n\
         \x20   if match == 5: os._exit(9)\n\
         \x20   if match == 7: time.sleep(1000)\n\
         \x20   if match == 9: sys.exit('enough')\n\
         \x20   return match\n",
    );
    let finished = bench.run(&[&script, "--params", &params, "--timeout", "2"]);
    let rows = finished.rows_by_index(1);
    for (row, n) in rows.iter().zip(0..) {
        let error = row["error"].as_str().unwrap_or_default();
        let expected = match n {
            3 => ("crashed", "SIGKILL"),
            5 => ("crashed", "exited with code 9"),
            7 => ("timed_out", ""),
            9 => ("failed", "sys.exit('enough')"),
            _ => ("completed", ""),
        };
        assert_eq!(row["status"], expected.0, "{row}");
        assert!(error.contains(expected.1), "{row}");
    }
    assert!(
        finished.stderr.contains("were replaced: 3"),
        "{}",
        finished.stderr
    );
    bench.until_nothing_is_left();
}

#[test]
fn retries_start_a_task_again_whatever_was_wrong_with_it() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file(
        "script.py",
        "import os, time\n\
         def main(params, context):\n\
         \x20   if context.attempt == 1: raise ValueError('first')\n\
         \x20   if context.attempt == 2: os._exit(3)\n\
         \x20   if context.attempt == 3: time.sleep(1000)\n\
         \x20   return context.attempt\n",
    );
    let rows = bench
        .run(&[&script, "--retries", "3", "--timeout", "2"])
        .rows(0);
    assert_eq!(
        (&rows[0]["data"], &rows[0]["attempt"]),
        (&json!(4), &json!(4))
    );
    let rows = bench.run(&[&script]).rows(1);
    assert_eq!(rows[0]["error"], "first");
}

#[test]
fn preloaded_modules_are_imported_once() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let params = bench.numbers(20);
    bench.file("heavy_module.py", "import os\nloaded_by = os.getpid()\n");
    let script = bench.file(
        "script.py",
        "import os, sys\n\
         def main(params, context):\n\
         \x20   heavy = sys.modules['heavy_module']\n\
         \x20   return [heavy.loaded_by, os.getpid(), 'decimal' in sys.modules]\n",
    );
    let args = [
        script.as_str(),
        "--params",
        &params,
        "--preload",
        "heavy_module,decimal",
        "--workers",
        "3",
    ];
    let mut command = bench.command(&args);
    command.env("PYTHONPATH", bench.path(""));
    let rows = Running::start(command).finish().rows_by_index(0);
    for row in &rows {
        assert_eq!(row["data"][0], rows[0]["data"][0], "imported again");
        assert_ne!(row["data"][0], row["data"][1], "by a worker");
        assert_eq!(row["data"][2], true);
    }
    let failed = bench.run(&[&script, "--preload", "no_such_module_anywhere"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    let reason = "No module named 'no_such_module_anywhere'";
    assert!(failed.stderr.contains(reason), "{}", failed.stderr);
    bench.until_nothing_is_left();
}

#[test]
fn ctrl_c_while_modules_are_imported_ends_the_run_at_once() {
    let _watchdog = watchdog(120);
    let bench = bench();
    bench.file(
        "slow_module.py",
        "import time\nopen('importing', 'w').close()\ntime.sleep(1000)\n",
    );
    let script = bench.file("script.py", "def main(params, context): return 1\n");
    let mut command = bench.command(&[&script, "--preload", "slow_module"]);
    command.env("PYTHONPATH", bench.path(""));
    let running = Running::start(command);
    until("it is imported", || {
        fs::metadata(bench.path("importing")).is_ok()
    });
    running.signal(Signal::INT);
    assert_eq!(running.finish().code, Some(130));
    bench.until_nothing_is_left();
}

#[test]
fn an_interpreter_or_script_that_is_not_there_is_status_2() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file("script.py", "def main(params, context): return 1\n");
    let directory = bench.path("");
    let refused = |args: &[&str], why: &str| {
        let finished = bench.run(&[args, &["--out", "out.jsonl"]].concat());
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
        assert!(fs::metadata(bench.path("out.jsonl")).is_err(), "{args:?}");
    };
    refused(&["no-such-script.py"], "no-such-script.py: No such file");
    refused(&[&directory], "not a regular file");
    refused(
        &[&script, "--python", "no-such-python"],
        "there is none in PATH",
    );
    refused(
        &[&script, "--python", "./script.py"],
        "--python names another",
    );

    let mut command = bench.command(&[&script]);
    command.env("MINIFLOW_LIBRARY", "no-such-library.so");
    let finished = Running::start(command).finish();
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert!(
        finished
            .stderr
            .contains("MINIFLOW_LIBRARY names no-such-library.so")
    );
}

/// Copies the executable to `name`, without what lies beside it.
fn copy_of_the_executable(bench: &Bench, name: &str) -> String {
    let path = bench.path(name);
    fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_miniflow"), &path).unwrap();
    path
}

#[test]
fn the_library_is_found_beside_the_executable_or_in_lib_and_else_the_error_says_what_to_do() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file("script.py", "def main(params, context): return 1\n");
    let built = libraries().join("libminiflow.so");
    let run = |executable: &str, library: &str| {
        let mut command = bench.command(&[]);
        let mut copy = std::process::Command::new(executable);
        copy.args(["run", &script])
            .current_dir("/")
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .env("MINIFLOW_LIBRARY", library)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command = copy;
        Running::start(command).finish()
    };
    let alone = copy_of_the_executable(&bench, "alone/bin/miniflow");
    let finished = run(&alone, "");
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert!(
        finished.stderr.contains("cargo build --release"),
        "{}",
        finished.stderr
    );
    assert_eq!(run(&alone, built.to_str().unwrap()).rows(0).len(), 1);

    let beside = copy_of_the_executable(&bench, "beside/miniflow");
    fs::copy(&built, bench.path("beside/libminiflow.so")).unwrap();
    assert_eq!(run(&beside, "").rows(0).len(), 1);

    let installed = copy_of_the_executable(&bench, "prefix/bin/miniflow");
    fs::create_dir_all(bench.path("prefix/lib")).unwrap();
    fs::copy(&built, bench.path("prefix/lib/libminiflow.so")).unwrap();
    assert_eq!(run(&installed, "").rows(0).len(), 1);
}

#[test]
fn every_module_of_the_package_can_be_imported_by_a_script() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let script = bench.file(
        "script.py",
        "import importlib, pkgutil, miniflow\n\
         def main(params, context):\n\
         \x20   found = pkgutil.walk_packages(miniflow.__path__, 'miniflow.')\n\
         \x20   return sorted(importlib.import_module(module.name).__name__ for module in found)\n",
    );
    let rows = bench.run(&[&script]).rows(0);
    let modules = rows[0]["data"].as_array().unwrap();
    for module in [
        "miniflow._worker.zygote",
        "miniflow.engine",
        "miniflow.executor",
    ] {
        assert!(modules.contains(&json!(module)), "{module} in {modules:?}");
    }
}

#[test]
fn a_killed_run_is_resumed_with_what_is_missing() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let params = bench.numbers(100);
    let out = bench.path("out.jsonl");
    let script = bench.file(
        "script.py",
        "import os, time\n\
         def main(params, context):\n\
         \x20   while params['n'] >= 50 and not os.path.exists('gate'):\n\
         \x20       open('waiting', 'w').close()\n\
         \x20       time.sleep(0.01)\n\
         \x20   return params['n']\n",
    );
    let args = [
        script.as_str(),
        "--params",
        &params,
        "--out",
        &out,
        "--resume",
        "--workers",
        "1",
    ];
    let mut done = 0;
    for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(130))] {
        let running = Running::start(bench.command(&args));
        until("a task waits", || {
            fs::remove_file(bench.path("waiting")).is_ok()
        });
        running.signal(signal);
        if code.is_some() {
            running.until_it_says("interrupted;");
            bench.file("gate", "");
        }
        let finished = running.finish();
        assert_eq!(finished.code, code, "{finished:#?}");
        bench.until_nothing_is_left();
        let _ = fs::remove_file(bench.path("waiting")); // of the same run
        let before = std::mem::replace(&mut done, whole_rows_of(&bench.read("out.jsonl")).len());
        assert!(done < 100 && before <= done, "{before}, then {done}");
    }
    let finished = bench.run(&args);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let rows = by_index(rows_of(&bench.read("out.jsonl")));
    assert_eq!(rows.len(), 100);
    assert!(rows.iter().all(|row| row["data"] == row["index"]));
}

#[test]
fn the_first_command_of_the_readme_does_what_it_says() {
    let _watchdog = watchdog(120);
    let bench = bench();
    let readme = include_str!("../README.md");
    let line = |start| readme.lines().find(|line| line.starts_with(start)).unwrap();
    let listing = line("git ls-files").strip_suffix(" > files.jsonl").unwrap();
    let (_, command) = line("cargo build --release && ")
        .split_once("miniflow run ")
        .unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let listed = Command::new("sh")
        .args(["-c", listing])
        .current_dir(root)
        .output();
    let mut params = String::from_utf8(listed.unwrap().stdout).unwrap();
    if params.is_empty() {
        // No checkout, or no git.
        params = "{\"file\": \"README.md\"}\n{\"file\": \"src/lib.rs\"}\n".into();
    }
    let count = params.lines().count();
    let (params, out) = (bench.file("files.jsonl", params), bench.path("words.jsonl"));
    let args = command
        .replace("files.jsonl", &params)
        .replace("words.jsonl", &out);
    let mut run = bench.command(&args.split(' ').collect::<Vec<_>>());
    run.current_dir(root);
    let finished = Running::start(run).finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let rows = by_index(rows_of(&bench.read("words.jsonl")));
    assert_eq!(rows.len(), count);
    let data = rows.iter().map(|row| &row["data"]);
    let of_readme = data
        .clone()
        .find(|data| data["file"] == "README.md")
        .unwrap();
    assert_eq!(of_readme["lines"], readme.lines().count());
    let engine = readme.to_lowercase();
    let engine = engine
        .split(|c: char| !c.is_ascii_lowercase())
        .filter(|&w| w == "engine");
    let mut args = args.split(' ').collect::<Vec<_>>();
    let all = bench.path("all.jsonl");
    *args.last_mut().unwrap() = &all;
    args.extend(["--param", "top=100000"]);
    let mut run = bench.command(&args);
    run.current_dir(root);
    assert_eq!(Running::start(run).finish().code, Some(0));
    let rows = rows_of(&bench.read("all.jsonl"));
    let mut data = rows.iter().map(|row| &row["data"]);
    let of_readme = data.find(|data| data["file"] == "README.md").unwrap();
    assert_eq!(of_readme["top"]["engine"], engine.count());
}
