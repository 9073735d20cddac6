//! `miniflow run --program`: an ordinary program over JSON lines.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::run::{Bench, Running, by_index, column, rows_of, set_signal, whole_rows_of};
use common::{until, watchdog};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

/// A program that answers at once up to a number, and beyond it when the file `gate` is there; then it
/// says by a file that it waits.
fn gated(from: u64) -> String {
    format!(
        r#"while read -r line; do
            n=${{line#*:}}; n=${{n%\}}}}
            if [ "$n" -ge {from} ]; then
                : > waiting.$n
                while [ ! -e gate ]; do sleep 0.01; done
            fi
            echo "$line"
        done"#
    )
}

/// Waits until both workers of a run have a line for which they wait, and makes that unsaid. What was
/// not started by then may have any number: lines that lie behind a slow one go elsewhere.
#[track_caller]
fn until_both_wait(bench: &Bench) {
    let waiting = || {
        let entries = fs::read_dir(bench.path("")).unwrap().flatten();
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.file_stem().is_some_and(|stem| stem == "waiting"))
    };
    until("both workers wait", || waiting().count() == 2);
    waiting().for_each(|path| fs::remove_file(path).unwrap());
}

fn line_count(text: &str) -> usize {
    text.lines().count()
}

// ---- what goes in and what comes out ----

#[test]
fn every_line_is_passed_to_the_program_and_its_answer_comes_back() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(200);
    let finished = bench.run(&["--program", "--params", &params, "--", "cat"]);
    let rows = finished.rows_by_index(0);
    assert_eq!(rows.len(), 200);
    let mut ids: Vec<_> = rows.iter().map(|row| row["task_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200, "task ids are not unique");
    for (row, n) in rows.iter().zip(0..) {
        assert_eq!(row["data"], json!({ "n": n }));
        assert_eq!(
            (&row["status"], &row["error"]),
            (&json!("completed"), &Value::Null)
        );
        assert_eq!(row["attempt"], 1);
        assert!(row["queued_ms"].as_f64().unwrap() >= 0.0);
        assert!(row["run_ms"].as_f64().unwrap() > 0.0);
        assert!(row["worker_id"].as_str().unwrap().starts_with("cpu-"));
        let keys: Vec<_> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 9, "{keys:?}");
    }
    let summary = &finished.stderr;
    assert!(summary.contains("200 tasks in"), "{summary}");
    assert!(summary.contains("200 completed"), "{summary}");
    assert!(summary.contains("cpu-0"), "{summary}");
    bench.until_nothing_is_left();
}

#[test]
fn without_params_there_is_one_task_with_what_param_sets() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let rows = bench.run(&["--program", "--", "cat"]).rows(0);
    assert_eq!(column(&rows, "data"), [json!({})]);
    let args = [
        "--param",
        "a=[1]",
        "--param",
        "b=text",
        "--program",
        "--",
        "cat",
    ];
    let rows = bench.run(&args).rows(0);
    assert_eq!(column(&rows, "data"), [json!({"a": [1], "b": "text"})]);
}

#[test]
fn param_is_merged_into_every_line_and_wins() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let args = [
        "--program",
        "--params",
        "-",
        "--param",
        "n=7",
        "--ordered",
        "--",
        "cat",
    ];
    let rows = bench
        .run_with_input(&args, "{\"n\":1,\"m\":2}\n{}\n[1]\n")
        .rows(1);
    let data = column(&rows, "data");
    assert_eq!(
        data,
        [json!({"m": 2, "n": 7}), json!({"n": 7}), Value::Null]
    );
    let error = rows[2]["error"].as_str().unwrap();
    assert!(error.contains("standard input:3: "), "{error}");
    assert!(error.contains("expected an object"), "{error}");
}

#[test]
fn an_answer_is_json_if_it_parses_and_a_string_otherwise() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let unquote = r#"s/^"\(.*\)"$/\1/"#;
    let args = [
        "--program",
        "--ordered",
        "--params",
        "-",
        "--",
        "sed",
        "-u",
        unquote,
    ];
    let input = "\"12345678901234567890123\"\n\"some text\"\n\" [1, 2] \"\n\"\"\n";
    let output = bench.run_with_input(&args, input).stdout;
    let expected = [
        r#""data":12345678901234567890123,"#,
        r#""data":"some text","#,
        r#""data":[1, 2],"#,
        r#""data":"","#,
    ];
    for (line, expected) in output.lines().zip(expected) {
        assert!(line.contains(expected), "{line}");
    }
    assert_eq!(line_count(&output), expected.len());
}

#[test]
fn ordered_results_come_in_the_order_of_the_params() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(300);
    // The first ones take longest.
    let program = r#"while read -r line; do
        case $line in *:[0-9]\}) sleep 0.0${line#*:};; esac 2>/dev/null; echo "$line"; done"#;
    let args = [
        "--program",
        "--params",
        &params,
        "--ordered",
        "--workers",
        "3",
        "--",
        "sh",
        "-c",
        program,
    ];
    let rows = bench.run(&args).rows(0);
    let expected: Vec<Value> = (0..300).map(Value::from).collect();
    assert_eq!(column(&rows, "index"), expected);
}

#[test]
fn long_lines_pass_in_both_directions_and_one_that_is_too_long_fails_alone() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let long = format!("\"{}\"\n", "x".repeat(5_000_000));
    let too_long = format!("\"{}\"\n", "y".repeat(64 << 20));
    let input = [long.as_str(), &too_long, "1\n"].concat();
    let args = ["--program", "--params", "-", "--", "cat"];
    let rows = bench.run_with_input(&args, input).rows_by_index(1);
    assert_eq!(rows[0]["data"].as_str().unwrap().len(), 5_000_000);
    let error = rows[1]["error"].as_str().unwrap();
    assert!(
        error.contains("standard input:2: the line has 67108867 bytes"),
        "{error}"
    );
    assert_eq!(rows[2]["data"], 1);
}

#[test]
fn a_hundred_thousand_lines_take_bounded_memory() {
    let _watchdog = watchdog(240);
    let bench = Bench::new();
    let count = 100_000;
    let pad = "p".repeat(1000);
    let line = |n: u32| format!("{{\"n\":{n},\"pad\":\"{pad}\"}}\n");
    let params: String = (0..count).map(line).collect();
    assert!(params.len() > 100_000_000);
    let params = bench.file("params.jsonl", params);
    let mut command = bench.command(&[
        "--program",
        "--params",
        &params,
        "--threads",
        "2",
        "--",
        "cat",
    ]);
    command.stdout(fs::File::create(bench.path("results.jsonl")).unwrap());
    let running = Running::start(command);
    let pid = running.child.id();
    let mut peak = 0;
    let peak_of = |status: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    };
    until_long("all results are there", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        peak = peak_of(&status).unwrap_or(peak).max(peak);
        running.said().contains("100000 completed")
    });
    assert_eq!(running.finish().code, Some(0));
    let rows = by_index(rows_of(&bench.read("results.jsonl")));
    assert_eq!(rows.len(), 100_000);
    assert!(
        rows.iter()
            .zip(0_u32..)
            .all(|(row, n)| row["data"]["n"] == n)
    );
    assert!(
        (1..40_000).contains(&peak),
        "{peak} KiB for 100 000 KiB of params"
    );
}

/// [`until`] for what takes longer in a debug build on a busy machine.
#[track_caller]
fn until_long(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(200),
            "too late: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

// ---- what can be wrong with a line, a program, a command line ----

#[test]
fn a_bad_line_is_a_failed_result_that_names_it_and_the_run_goes_on() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.file("params.jsonl", "{\"n\":0}\n\n{\"n\": }\n  \n{\"n\":2}");
    let finished = bench.run(&["--program", "--params", &params, "--", "cat"]);
    let rows = finished.rows_by_index(1);
    assert_eq!(
        column(&rows, "status"),
        ["completed", "failed", "completed"]
    );
    let error = rows[1]["error"].as_str().unwrap();
    let expected = format!("{params}:3: not JSON: expected value at column 7");
    assert_eq!(error, expected);
    assert_eq!(rows[1]["task_id"], Value::Null);
    assert_eq!(rows[2]["data"], json!({"n": 2}));
    assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
}

#[test]
fn a_wrong_command_line_is_status_2_and_leaves_no_file() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(1);
    let directory = bench.path(".");
    let out = ["--out", "out.jsonl"];
    let wrong: [&[&str]; 12] = [
        &[],
        &["--program"],
        &["no-such-script.py"],
        &["script.py", "--program", "--", "cat"],
        &["--program", "--", "no-such-program-anywhere"],
        &["--program", "--", "./params.jsonl"],
        &["--program", "--params", "no-such-file", "--", "cat"],
        &["--program", "--params", &directory, "--", "cat"],
        &["--program", "--workers", "0", "--", "cat"],
        &["--program", "--timeout", "-1", "--", "cat"],
        &[
            "--program",
            "--params",
            &params,
            "--param",
            "x",
            "--",
            "cat",
        ],
        &["--program", "--preload", "json", "--", "cat"],
    ];
    for args in wrong {
        let finished = bench.run(&[&out, args].concat());
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:#?}");
        assert_eq!(finished.stdout, "");
        assert!(!finished.stderr.is_empty(), "{args:?}");
        assert!(fs::metadata(bench.path("out.jsonl")).is_err(), "{args:?}");
    }
    let finished = bench.run(&["--program", "--resume", "--", "cat"]);
    assert_eq!(finished.code, Some(2), "{finished:#?}");
}

#[test]
fn a_program_that_dies_costs_the_task_that_it_had_and_is_started_again() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(6);
    let program = r#"while read -r line; do
        case $line in *:1\}) kill -KILL $$;; *:3\}) exit 7;; esac; echo "$line"; done"#;
    let args = [
        "--program",
        "--params",
        &params,
        "--workers",
        "1",
        "--",
        "sh",
        "-c",
        program,
    ];
    let finished = bench.run(&args);
    let rows = finished.rows_by_index(1);
    let expected = [
        "completed",
        "crashed",
        "completed",
        "crashed",
        "completed",
        "completed",
    ];
    assert_eq!(column(&rows, "status"), expected);
    let error = |index: usize| rows[index]["error"].as_str().unwrap();
    assert!(error(1).contains("SIGKILL"), "{}", error(1));
    assert!(error(3).contains("exit status: 7"), "{}", error(3));
    let summary = &finished.stderr;
    assert!(summary.contains("4 completed, 2 crashed"), "{summary}");
    assert!(summary.contains("index 3: "), "{summary}");
}

#[test]
fn a_program_that_answers_once_and_leaves_is_started_for_every_line() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(60);
    let program = r#"read -r line; echo "$line""#;
    let args = ["--program", "--params", &params, "--", "sh", "-c", program];
    let rows = bench.run(&args).rows_by_index(0);
    assert_eq!(rows.len(), 60);
}

#[test]
fn a_program_that_never_reads_fails_its_tasks() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(3);
    let rows = bench
        .run(&["--program", "--params", &params, "--", "true"])
        .rows_by_index(1);
    assert_eq!(column(&rows, "status"), ["crashed"; 3]);
    let error = rows[0]["error"].as_str().unwrap();
    assert!(
        error.contains("without reading its line: exit status: 0"),
        "{error}"
    );
}

#[test]
fn a_program_that_writes_more_than_one_line_fails_and_harms_no_other_task() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(30);
    let program = r#"while read -r line; do
        case $line in *5\}) printf '%s\n%s\n' "$line" more;; *) echo "$line";; esac; done"#;
    let args = ["--program", "--params", &params, "--", "sh", "-c", program];
    let rows = bench.run(&args).rows_by_index(1);
    for (row, n) in rows.iter().zip(0..) {
        match n % 10 {
            5 => assert_eq!(row["error"], "the program wrote more than one line"),
            _ => assert_eq!(row["data"], json!({ "n": n }), "{row}"),
        }
    }
}

#[test]
fn a_second_line_that_comes_late_is_not_taken_for_the_answer_to_the_next() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let out = bench.path("out.jsonl");
    let program = r#"while read -r line; do echo "$line"; case $line in
        1) while [ ! -e gate ]; do sleep 0.01; done; echo late; : > written;; esac; done"#;
    let args = [
        "--program",
        "--params",
        "-",
        "--workers",
        "1",
        "--out",
        &out,
        "--",
        "sh",
        "-c",
        program,
    ];
    let mut command = bench.command(&args);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"1\n").unwrap();
    until("the first answer is there", || {
        line_count(&bench.read("out.jsonl")) == 1
    });
    bench.file("gate", "");
    until("the late line is written", || {
        fs::metadata(bench.path("written")).is_ok()
    });
    stdin.write_all(b"2\n").unwrap();
    drop(stdin);
    let finished = running.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(column(&rows_of(&bench.read("out.jsonl")), "data"), [1, 2]);
    let text = &finished.stderr;
    assert!(
        text.contains("wrote more than one line for a task"),
        "{text}"
    );
}

#[test]
fn a_program_that_closes_its_output_fails_its_task() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let args = [
        "--program",
        "--",
        "sh",
        "-c",
        "read -r line; exec >&-; sleep 100",
    ];
    let rows = bench.run(&args).rows(1);
    assert_eq!(
        rows[0]["error"],
        "the program closed its output before it answered"
    );
    bench.until_nothing_is_left();
}

#[test]
fn beyond_its_time_the_program_is_killed_with_its_children() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(4);
    let program = r#"while read -r line; do
        case $line in *:2\}) sleep 1000 & wait;; esac; echo "$line"; done"#;
    let args = [
        "--program",
        "--params",
        &params,
        "--timeout",
        "1.5",
        "--",
        "sh",
        "-c",
        program,
    ];
    let rows = bench.run(&args).rows_by_index(1);
    let expected = ["completed", "completed", "timed_out", "completed"];
    assert_eq!(column(&rows, "status"), expected);
    assert!(rows[2]["run_ms"].as_f64().unwrap() >= 1500.0, "{}", rows[2]);
    bench.until_nothing_is_left();
}

#[test]
fn retries_start_a_task_again_whatever_was_wrong_with_it() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    // Fails as often as there are files to remove.
    bench.file("first", "");
    bench.file("second", "");
    let program = r#"while read -r line; do
        if rm first 2>/dev/null; then exit 3; fi
        if rm second 2>/dev/null; then sleep 1000; fi
        echo "$line"; done"#;
    let args = [
        "--program",
        "--retries",
        "2",
        "--timeout",
        "1",
        "--",
        "sh",
        "-c",
        program,
    ];
    let rows = bench.run(&args).rows(0);
    assert_eq!(rows[0]["attempt"], 3);
    let always = [
        "--program",
        "--retries",
        "2",
        "--",
        "sh",
        "-c",
        "read -r l; exit 4",
    ];
    let rows = bench.run(&always).rows(1);
    assert_eq!(rows[0]["attempt"], 3);
    assert_eq!(rows[0]["status"], "crashed");
}

#[test]
fn a_killed_worker_takes_its_program_along_and_is_replaced() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(5);
    let program = r#"while read -r line; do
        case $line in *:2\}) sleep 1000 & kill -KILL $PPID; wait;; esac; echo "$line"; done"#;
    let args = [
        "--program",
        "--params",
        &params,
        "--workers",
        "1",
        "--",
        "sh",
        "-c",
        program,
    ];
    let finished = bench.run(&args);
    let rows = finished.rows_by_index(1);
    let expected = [
        "completed",
        "completed",
        "crashed",
        "completed",
        "completed",
    ];
    assert_eq!(column(&rows, "status"), expected);
    let error = rows[2]["error"].as_str().unwrap();
    assert!(error.contains("SIGKILL"), "{error}");
    let summary = &finished.stderr;
    assert!(summary.contains("ended and were replaced: 1"), "{summary}");
    bench.until_nothing_is_left();
}

#[test]
fn a_program_that_cannot_be_executed_fails_its_tasks_with_the_reason() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(2);
    let program = bench.file("program", "#!/no/such/interpreter\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let rows = bench
        .run(&["--program", "--params", &params, "--", &program])
        .rows_by_index(1);
    let expected = format!("cannot start {program}: No such file or directory (os error 2)");
    assert_eq!(column(&rows, "error"), [expected.as_str(); 2]);
    bench.until_nothing_is_left();
}

#[test]
fn what_the_program_writes_to_standard_error_passes_through() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let finished = bench.run(&[
        "--program",
        "--",
        "sh",
        "-c",
        "read -r l; echo aside >&2; echo 1",
    ]);
    finished.rows(0);
    assert!(finished.stderr.contains("aside\n"), "{}", finished.stderr);
}

#[test]
fn programs_see_the_end_of_their_input_and_may_end_in_their_own_way() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let program =
        r#"while read -r line; do echo "$line"; done; echo nobody reads this; echo end > ended"#;
    bench.run(&["--program", "--", "sh", "-c", program]).rows(0);
    assert_eq!(bench.read("ended"), "end\n");
}

#[test]
fn a_program_that_buffers_its_output_is_silent_and_the_user_is_told_the_remedy() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    // As a filter in C does that writes to a pipe.
    let program = r#"while read -r line; do answers="$answers$line
"; done; printf %s "$answers""#;
    let args = ["--program", "--timeout", "7", "--", "sh", "-c", program];
    let finished = bench.run(&args);
    assert_eq!(column(&finished.rows(1), "status"), ["timed_out"]);
    assert!(
        finished.stderr.contains("stdbuf -oL"),
        "{}",
        finished.stderr
    );
}

#[test]
fn many_threads_have_a_program_each() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(8);
    // Answers when eight of them are there.
    let program = r#"while read -r line; do : > here.$$
        until [ $(ls | grep -c '^here') -ge 8 ]; do sleep 0.01; done; echo "$line"; done"#;
    let args = [
        "--program",
        "--params",
        &params,
        "--class",
        "io",
        "--workers",
        "2",
        "--threads",
        "4",
        "--",
        "sh",
        "-c",
        program,
    ];
    let rows = bench.run(&args).rows_by_index(0);
    assert!(rows[0]["worker_id"].as_str().unwrap().starts_with("io-"));
}

// ---- where results go ----

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let mut command = bench.command(&["--program", "--params", "/dev/stdin", "--", "cat"]);
    command.stdin(Stdio::piped());
    let mut running = {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Endless, like `yes 1 | miniflow run ... | head -1`.
        let writer = std::thread::spawn(move || while stdin.write_all(b"1\n").is_ok() {});
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap(); // and closes it
        assert!(line.starts_with("{\"task_id\":"), "{line}");
        (child, writer)
    };
    until("the run ends", || running.0.try_wait().unwrap().is_some());
    running.1.join().unwrap();
    let output = running.0.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    bench.until_nothing_is_left();
}

#[test]
fn a_full_device_is_an_error_and_status_1() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let args = ["--program", "--out", "/dev/full", "--", "cat"];
    let finished = bench.run(&args);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let text = &finished.stderr;
    assert!(
        text.contains("cannot write results to /dev/full: No space left"),
        "{text}"
    );
}

#[test]
fn a_file_that_can_grow_no_more_ends_with_a_whole_line_and_can_be_resumed() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let out = bench.path("out.jsonl");
    let args = ["--program", "--params", "-", "--out", &out, "--", "cat"];
    let mut command = bench.command(&args);
    command.stdin(Stdio::piped());
    set_signal(&mut command, libc::SIGXFSZ, libc::SIG_IGN); // then the write itself fails
    let mut running = Running::start(command);
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"0\n").unwrap();
    until("the first result is there", || {
        line_count(&bench.read("out.jsonl")) == 1
    });
    let limit = Rlimit {
        current: Some(1000),
        maximum: Some(1000),
    };
    prlimit(
        Some(Pid::from_child(&running.child)),
        Resource::Fsize,
        limit,
    )
    .unwrap();
    let rest: String = (1..100).map(|n| format!("{n}\n")).collect();
    let _ = stdin.write_all(rest.as_bytes()); // it may end before it has read all
    drop(stdin);
    let finished = running.finish();
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert!(
        finished.stderr.contains("File too large"),
        "{}",
        finished.stderr
    );
    let written = rows_of(&bench.read("out.jsonl")).len();
    assert!((1..10).contains(&written), "{written} lines");

    let args = [
        "--program",
        "--params",
        "-",
        "--out",
        &out,
        "--resume",
        "--",
        "cat",
    ];
    let all: String = (0..100).map(|n| format!("{n}\n")).collect();
    let resumed = bench.run_with_input(&args, all);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    assert!(
        resumed
            .stderr
            .contains(&format!("{written} were done before"))
    );
    assert_eq!(by_index(rows_of(&bench.read("out.jsonl"))).len(), 100);
}

#[test]
fn results_are_never_mixed_with_those_of_another_run() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let out = bench.file("out.jsonl", "something\n");
    let refused = |args: &[&str], why: &str| {
        let finished = bench.run(args);
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
    };
    refused(
        &["--program", "--out", &out, "--", "cat"],
        "it is not empty",
    );
    let resume = ["--program", "--out", &out, "--resume", "--", "cat"];
    refused(&resume, "out.jsonl:1 is not a result line");
    fs::write(&out, "something without an end").unwrap();
    refused(&resume, "out.jsonl:1 is not a result line");
    assert_eq!(bench.read("out.jsonl"), "something without an end");

    // While another run is writing.
    fs::remove_file(&out).unwrap();
    let params = bench.numbers(1);
    let gated = gated(0);
    let args = [
        "--program",
        "--params",
        &params,
        "--out",
        &out,
        "--",
        "sh",
        "-c",
        &gated,
    ];
    let first = Running::start(bench.command(&args));
    until("the first has the file", || fs::metadata(&out).is_ok());
    // It is there just before it is locked.
    until("the second is refused", || {
        let finished = bench.run(&[
            "--program",
            "--params",
            "/dev/null",
            "--out",
            &out,
            "--",
            "cat",
        ]);
        finished.code == Some(2) && finished.stderr.contains("another run is writing to it")
    });
    bench.file("gate", "");
    assert_eq!(first.finish().code, Some(0));
}

// ---- resume ----

/// A run of 120 tasks on two workers, of which the first half can end.
fn half(bench: &Bench) -> Command {
    let (params, out, gated) = (bench.numbers(120), bench.path("out.jsonl"), gated(60));
    let options = ["--program", "--params", &params, "--out", &out, "--resume"];
    let program = ["--workers", "2", "--", "sh", "-c", &gated];
    bench.command(&[&options[..], &program].concat())
}

/// Starts it, and waits until only what has to wait for the gate is left on the workers.
#[track_caller]
fn half_done(bench: &Bench) -> Running {
    let running = Running::start(half(bench));
    until_both_wait(bench);
    running
}

#[test]
fn a_killed_run_is_resumed_with_what_is_missing() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let running = half_done(&bench);
    running.signal(Signal::KILL);
    let finished = running.finish();
    assert_eq!(finished.signal, Some(libc::SIGKILL));
    bench.until_nothing_is_left();
    let done = whole_rows_of(&bench.read("out.jsonl")).len();
    assert!((1..=60).contains(&done), "{done} results");

    bench.file("gate", "");
    let resumed = Running::start(half(&bench)).finish();
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    let summary = &resumed.stderr;
    assert!(
        summary.contains(&format!("{} tasks in", 120 - done)),
        "{summary}"
    );
    assert!(
        summary.contains(&format!("{done} were done before")),
        "{summary}"
    );
    let rows = by_index(rows_of(&bench.read("out.jsonl")));
    assert_eq!(rows.len(), 120);
    assert!(rows.iter().all(|row| row["data"]["n"] == row["index"]));

    // And once more, when there is nothing left to do.
    let again = Running::start(half(&bench)).finish();
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert!(again.stderr.contains("0 tasks in"), "{}", again.stderr);
    assert_eq!(line_count(&bench.read("out.jsonl")), 120);
}

#[test]
fn a_torn_last_line_is_taken_away_and_its_task_run_again() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(5);
    let out = bench.path("out.jsonl");
    let args = [
        "--program",
        "--params",
        &params,
        "--out",
        &out,
        "--resume",
        "--",
        "cat",
    ];
    assert_eq!(bench.run(&args).code, Some(0));
    let whole = bench.read("out.jsonl");
    // Torn at every place of the last line, also just before its newline.
    let last = whole[..whole.len() - 1].rfind('\n').unwrap() + 1;
    for torn in [last, last + 1, last + 11, last + 40, whole.len() - 1] {
        fs::write(&out, &whole[..torn]).unwrap();
        let resumed = bench.run(&args);
        assert_eq!(resumed.code, Some(0), "{resumed:#?}");
        assert!(
            resumed.stderr.contains("4 were done before"),
            "{}",
            resumed.stderr
        );
        assert_eq!(by_index(rows_of(&bench.read("out.jsonl"))).len(), 5);
    }
}

#[test]
fn resuming_runs_failed_tasks_again() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(4);
    let out = bench.path("out.jsonl");
    let program = r#"while read -r line; do
        case $line in *:2\}) [ -e mended ] || exit 1;; esac; echo "$line"; done"#;
    let args = [
        "--program",
        "--params",
        &params,
        "--out",
        &out,
        "--resume",
        "--",
        "sh",
        "-c",
        program,
    ];
    assert_eq!(bench.run(&args).code, Some(1));
    bench.file("mended", "");
    let resumed = bench.run(&args);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    let rows = rows_of(&bench.read("out.jsonl"));
    assert_eq!(rows.len(), 5);
    assert_eq!(
        (&rows[4]["index"], &rows[4]["status"]),
        (&json!(2), &json!("completed"))
    );
}

#[test]
fn results_of_other_params_are_noticed() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(5);
    let out = bench.path("out.jsonl");
    let args = [
        "--program",
        "--params",
        &params,
        "--out",
        &out,
        "--resume",
        "--",
        "cat",
    ];
    assert_eq!(bench.run(&args).code, Some(0));
    let refused = "have index 4, but the params only 3 tasks";
    let fewer = bench.file("fewer.jsonl", "1\n2\n3\n");
    let args = [
        "--program",
        "--params",
        &fewer,
        "--out",
        &out,
        "--resume",
        "--",
        "cat",
    ];
    let finished = bench.run(&args);
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert!(finished.stderr.contains(refused), "{}", finished.stderr);
    // From a pipe it shows only at the end.
    let args = [
        "--program",
        "--params",
        "-",
        "--out",
        &out,
        "--resume",
        "--",
        "cat",
    ];
    let finished = bench.run_with_input(&args, "1\n2\n3\n");
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert!(finished.stderr.contains(refused), "{}", finished.stderr);
    let args = ["--program", "--out", &out, "--resume", "--", "cat"];
    assert_eq!(bench.run(&args).code, Some(2));
}

// ---- signals ----

#[test]
fn ctrl_c_lets_running_tasks_end_and_keeps_what_is_finished() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = half_done(&bench);
        running.signal(signal);
        running.until_it_says("interrupted;");
        bench.file("gate", "");
        let finished = running.finish();
        assert_eq!(finished.code, Some(code), "{finished:#?}");
        let rows = rows_of(&bench.read("out.jsonl"));
        let completed = format!("{} completed", rows.len());
        assert!(finished.stderr.contains(&completed), "{}", finished.stderr);
        let late = rows.iter().filter(|row| row["index"].as_u64() >= Some(60));
        assert_eq!(late.count(), 2, "those that were running");
        bench.until_nothing_is_left();
        fs::remove_file(bench.path("out.jsonl")).unwrap();
        fs::remove_file(bench.path("gate")).unwrap();
    }
}

#[test]
fn after_ctrl_c_a_task_that_does_not_end_is_given_up_and_run_by_resume() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let running = half_done(&bench);
    running.signal(Signal::INT);
    let finished = running.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    bench.until_nothing_is_left();
    let rows = rows_of(&bench.read("out.jsonl"));
    assert!(rows.iter().all(|row| row["index"].as_u64() < Some(60)));
    bench.file("gate", "");
    let resumed = Running::start(half(&bench)).finish();
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    assert_eq!(by_index(rows_of(&bench.read("out.jsonl"))).len(), 120);
}

#[test]
fn a_second_ctrl_c_ends_the_run_at_once() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let running = half_done(&bench);
    running.signal(Signal::INT);
    running.until_it_says("interrupted;");
    let start = Instant::now();
    running.signal(Signal::INT);
    let finished = running.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "{took:?}, as long as the grace"
    );
    bench.until_nothing_is_left();
    let rows = whole_rows_of(&bench.read("out.jsonl"));
    assert!(rows.iter().all(|row| row["index"].as_u64() < Some(60)));
}

#[test]
fn ctrl_c_ends_a_run_that_waits_for_params() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let out = bench.path("out.jsonl");
    let mut command = bench.command(&["--program", "--params", "-", "--out", &out, "--", "cat"]);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"1\n2\n{\"half a li").unwrap();
    until("two results are there", || {
        line_count(&bench.read("out.jsonl")) == 2
    });
    running.signal(Signal::INT);
    let finished = running.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert_eq!(line_count(&bench.read("out.jsonl")), 2);
    drop(stdin);
}

#[test]
fn progress_is_written_if_asked_for() {
    let _watchdog = watchdog(120);
    let bench = Bench::new();
    let params = bench.numbers(3);
    let args = |style| {
        [
            "--program",
            "--params",
            &params,
            "--progress",
            style,
            "--",
            "cat",
        ]
    };
    let plain = bench.run(&args("plain")).stderr;
    assert!(
        plain.contains("miniflow run: 3/3 done, 0 failed"),
        "{plain}"
    );
    for style in ["none", "auto"] {
        let quiet = bench.run(&args(style)).stderr;
        assert!(!quiet.contains("3/3 done"), "{quiet}");
        assert!(quiet.contains("3 tasks in"), "{quiet}");
    }
}
