//! `miniflow metrics`: what it prints, and how its server takes good and bad clients.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test says so when it fails"
)]

mod common;

use std::fs;
use std::io::{BufRead, ErrorKind, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::exposition::Exposition;
use common::http::{Answer, Server};
use common::{
    Name, Random, collect, cpu_only, cpu_time, run_to_end, until, watchdog, watchdog_alone,
};
use miniflow::Engine;
use miniflow::status::Status;
use rustix::process::Signal;

const MINIFLOW: &str = env!("CARGO_BIN_EXE_miniflow");

fn engine(name: &str) -> Engine {
    let engine = cpu_only(2, 1).name(name).handler(|_| Ok(()));
    engine.start().unwrap()
}

#[test]
fn prints_one_exposition_of_the_engine_that_is_named() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let engine = engine(&name);
    engine.submit(b"x").unwrap();
    collect(&engine, 1);
    until("the engine has told", || {
        let (status, text) = run_to_end(MINIFLOW, &["metrics", &name], Duration::from_secs(20));
        assert!(status.success());
        let text = Exposition::parse(&text);
        let labels = [("engine", &*name), ("outcome", "completed")];
        text.value("miniflow_tasks_ended_total", &labels) == 1.0
    });
}

#[test]
fn an_engine_that_is_not_there_is_an_error_that_names_it() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let output = Command::new(MINIFLOW)
        .args(["metrics", &name])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&*name));
    assert!(output.stdout.is_empty());
}

#[test]
fn an_address_that_is_none_is_a_wrong_command_line() {
    let _watchdog = watchdog(60);
    let output = Command::new(MINIFLOW)
        .args(["metrics", "--listen", "nonsense"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("127.0.0.1:9184")
    );
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let _watchdog = watchdog(60);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(MINIFLOW)
        .args(["metrics", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&address));
}

#[test]
fn every_path_has_its_content_and_the_fields_that_keep_it_from_others() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let _engine = engine(&name);
    let server = Server::of(&name);
    for (path, kind, part) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/?x", "text/html; charset=utf-8", "<!doctype html>"),
        ("/app.js", "text/javascript; charset=utf-8", "use strict"),
        ("/app.css", "text/css; charset=utf-8", ":root"),
        ("/icon.svg", "image/svg+xml", "<svg"),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "# HELP miniflow_",
        ),
        ("/status.json", "application/json", &*name),
        ("/engines.json", "application/json", &*name),
        ("/healthz", "text/plain; charset=utf-8", "ok\n"),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.contains(part), "{path}");
        assert_eq!(answer.fields["content-type"], kind, "{path}");
        assert_eq!(
            answer.fields["content-length"],
            answer.body.len().to_string(),
            "{path}"
        );
        assert_eq!(answer.fields["connection"], "close", "{path}");
        assert_eq!(answer.fields["cache-control"], "no-store", "{path}");
        assert_eq!(answer.fields["x-content-type-options"], "nosniff", "{path}");
        assert!(
            answer.fields["content-security-policy"].contains("default-src 'none'"),
            "{path}"
        );
        assert!(
            !answer.fields.contains_key("access-control-allow-origin"),
            "{path}"
        );

        let head = server.ask(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
        assert_eq!(head.fields["content-type"], kind, "{path}");
    }
    Exposition::parse(&server.get("/metrics").body);
    until("both workers are told", || {
        let status: Status = serde_json::from_str(&server.get("/status.json").body).unwrap();
        assert_eq!(status.name.as_deref(), Some(&*name));
        status.workers.len() == 2
    });
    assert_eq!(
        server.get("/status.json?engine=none-of-that-name").status,
        503
    );
}

#[test]
fn what_is_no_request_gets_the_status_that_says_why() {
    let _watchdog = watchdog(60);
    let server = Server::of(&Name::unique());
    let long = "x".repeat(5000);
    for (status, request) in [
        (400, "\x16\x03\x01\x02".to_owned()), // TLS
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        (
            400,
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            400,
            "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            400,
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n".to_owned(),
        ),
        (
            404,
            "GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            404,
            "GET /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            405,
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            405,
            "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            414,
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", &long[..2000]),
        ),
        (414, format!("GET /{long}")),
        (
            421,
            "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
        ),
        (505, "GET / HTTP/3.0\r\nHost: localhost\r\n\r\n".to_owned()),
    ] {
        let answer = server.ask(&request);
        assert_eq!(answer.status, status, "{request}");
        assert!(!answer.body.is_empty(), "{request}");
        let allow = answer.fields.get("allow").map(String::as_str);
        assert_eq!(allow, (status == 405).then_some("GET, HEAD"), "{request}");
    }
    // An end in the middle, and nothing at all.
    assert_eq!(server.throw(b"GET / HT").unwrap().status, 400);
    assert!(server.throw(b"").is_none());
    // A body is not read, and costs nobody the answer.
    let body = format!("GET /healthz HTTP/1.0\r\nContent-Length: 5000\r\n\r\n{long}");
    assert_eq!(server.ask(body).status, 200);
}

#[test]
fn slow_clients_hold_up_nobody_and_are_given_up() {
    let _watchdog = watchdog(60);
    let server = Server::of(&Name::unique());
    // Those of a round in which the machine was too slow have been given up by then.
    let at_once = (0..10).any(|_| {
        let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
        for stream in &mut slow {
            // Given up in the middle of all this, it may be closed.
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHo");
        }
        assert_eq!(server.get("/healthz").status, 200);
        let is_waited_for = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let seen = stream.peek(&mut [0]);
            stream.set_nonblocking(false).unwrap();
            seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        let all = slow.iter().all(is_waited_for);
        for stream in &mut slow {
            assert_eq!(Answer::read(stream).status, 408);
        }
        all
    });
    assert!(
        at_once,
        "others are answered only when the slow ones are given up"
    );
}

#[test]
fn of_two_hundred_connections_each_is_answered_and_afterwards_there_is_room() {
    let _watchdog = watchdog(60);
    let server = Server::of(&Name::unique());
    let mut streams: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let mut served = 0;
    for stream in &mut streams {
        // Those that were turned away may be closed by now; the answer is there.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        match Answer::read(stream).status {
            200 => served += 1,
            503 | 408 => {}
            other => panic!("{other}"),
        }
    }
    assert!(served > 0);
    drop(streams);
    until("there is room", || server.get("/healthz").status == 200);
}

#[test]
fn whatever_bytes_come_it_goes_on() {
    let _watchdog = watchdog(120);
    let server = Server::of(&Name::unique());
    let good = b"GET /metrics HTTP/1.1\r\nHost: localhost:80\r\nAccept: */*\r\n\r\n";
    let mut random = Random(std::process::id().into());
    for round in 0..400 {
        let mut bytes = good.to_vec();
        if round % 4 == 0 {
            bytes = (0..random.below(6000))
                .map(|_| random.next() as u8)
                .collect();
        } else {
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(3) {
                    0 => bytes[at] = random.next() as u8,
                    1 => bytes.truncate(at + 1),
                    _ => bytes.insert(at, b"\r\n\0: /?"[random.below(7) as usize]),
                }
            }
        }
        if let Some(answer) = server.throw(&bytes) {
            assert!(answer.status >= 200, "{bytes:?}");
        }
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn without_its_engine_it_says_503_until_one_of_that_name_is_there() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let mut server = Server::of(&name);
    let mut warning = String::new();
    server.stderr().read_line(&mut warning).unwrap();
    assert!(warning.contains(&*name), "{warning}");
    let statuses = |metrics, health| {
        assert_eq!(server.get("/metrics").status, metrics);
        assert_eq!(server.get("/status.json").status, metrics);
        assert_eq!(server.get("/healthz").status, health);
    };
    statuses(503, 200);
    for _ in 0..2 {
        let engine = engine(&name);
        statuses(200, 200);
        drop(engine);
        statuses(503, 200);
    }
    assert!(server.get("/metrics").body.contains(&*name));
}

#[test]
fn without_a_name_all_engines_are_served_and_no_metric_is_told_twice() {
    let _watchdog = watchdog(60);
    let names = [Name::unique(), Name::unique()];
    let _engines = [engine(&names[0]), engine(&names[1])];
    let server = Server::start(&["--listen", "127.0.0.1:0"]);
    let text = Exposition::parse(&server.get("/metrics").body);
    let found: Vec<String> = serde_json::from_str(&server.get("/engines.json").body).unwrap();
    for name in &names {
        let running = text.value("miniflow_engine_running", &[("engine", name)]);
        assert_eq!(running, 1.0);
        assert!(found.iter().any(|f| **f == **name));
        let status = server.get(&format!("/status.json?engine={}", &**name));
        let status: Status = serde_json::from_str(&status.body).unwrap();
        assert_eq!(status.name.as_deref(), Some(&**name));
    }
    assert_eq!(server.get("/status.json").status, 400);
}

#[test]
fn a_signal_ends_it_with_status_0() {
    let _watchdog = watchdog(60);
    for signal in [Signal::INT, Signal::TERM] {
        let mut server = Server::of(&Name::unique());
        let _open = server.connect();
        server.signal(signal);
        assert_eq!(server.end().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn an_address_for_others_is_warned_about_and_goes_by_any_name() {
    let _watchdog = watchdog(60);
    let mut server = Server::start(&[&Name::unique(), "--listen", "0.0.0.0:0"]);
    let mut warning = String::new();
    server.stderr().read_line(&mut warning).unwrap();
    assert!(warning.contains("no authentication"), "{warning}");
    let answer = server.ask("GET /healthz HTTP/1.1\r\nHost: build-host.example\r\n\r\n");
    assert_eq!(answer.status, 200);
}

#[test]
fn promtool_finds_nothing_wrong() {
    let _watchdog = watchdog(60);
    let names = [Name::unique(), Name::unique()];
    let engines = [engine(&names[0]), engine(&names[1])];
    for engine in &engines {
        engine.submit(b"x").unwrap();
        collect(engine, 1);
    }
    let (_, text) = run_to_end(MINIFLOW, &["metrics"], Duration::from_secs(20));
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIP: no promtool (Debian: prometheus)");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stderr.is_empty() && output.stdout.is_empty(),
        "{output:?}"
    );
}

/// How often a thread of this process has gone to sleep of itself.
fn sleeps(thread: &str) -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let read = |path: PathBuf, file| fs::read_to_string(path.join(file)).unwrap_or_default();
    let mut of = threads.filter(|t| read(t.path(), "comm").trim_end() == thread);
    let status = read(of.next().unwrap().path(), "status");
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn an_engine_that_is_scraped_does_not_notice() {
    let _watchdog = watchdog_alone(60);
    let name = Name::unique();
    let engine = engine(&name);
    let server = Server::of(&name);
    let processes = || -> Duration { engine.workers().iter().map(|w| cpu_time(w.pid)).sum() };
    let mut at_rest = 0;
    until("the engine is at rest", || {
        let before = std::mem::replace(&mut at_rest, sleeps("mf-supervisor"));
        std::thread::sleep(Duration::from_millis(300)); // what is looked for is that nothing happens
        before == at_rest
    });
    let before = processes();
    for _ in 0..100 {
        assert_eq!(server.get("/metrics").status, 200);
        assert_eq!(server.get("/status.json").status, 200);
    }
    assert_eq!(sleeps("mf-supervisor"), at_rest, "its supervisor was woken");
    assert_eq!(processes(), before, "its workers have run");
}
