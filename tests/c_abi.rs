//! The C programs of `tests/c` and `examples/c`, each as C and as C++, against the shared and the
//! static library, under sanitizers, and under valgrind where that knows the system calls.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says so when it fails"
)]

#[path = "c/library.rs"]
mod library;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use library::{libraries, root, run};

/// A compiler and the language that it is told the sources are in.
const GCC: [&str; 4] = ["gcc", "-std=c11", "-x", "c"];
const GPP: [&str; 4] = ["g++", "-std=c++17", "-x", "c++"];

#[derive(Clone, Copy, PartialEq)]
enum Link {
    Shared,
    Static,
}

/// Says aloud, past libtest's capture, that something was not tested.
fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {what}");
}

/// Compiles one source file; the program.
fn compile(
    source: &Path,
    [compiler, standard, x, language]: [&str; 4],
    link: Link,
    flags: &[&str],
) -> PathBuf {
    let kind = match (link, flags) {
        (_, [_, ..]) => "sanitized",
        (Link::Shared, _) => "shared",
        (Link::Static, _) => "static",
    };
    let name = source.file_stem().unwrap().to_str().unwrap();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{compiler}-{kind}"));
    let mut command = Command::new(compiler);
    command
        .args([standard, "-g", "-O1", "-pthread"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .args(flags)
        .arg("-I")
        .arg(root().join("include"))
        .args([x, language])
        .arg(source)
        .args(["-x", "none", "-o"])
        .arg(&program);
    match link {
        Link::Shared => command
            .arg("-L")
            .arg(libraries())
            .arg("-lminiflow")
            .arg(format!("-Wl,-rpath,{}", libraries().display())),
        // What `cargo rustc --crate-type staticlib -- --print native-static-libs` says.
        Link::Static => command
            .arg(libraries().join("libminiflow.a"))
            .args("-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc".split(' ')),
    };
    run(&mut command);
    program
}

/// Compiles and runs every test program but those named in `except`.
fn all(compiler: [&str; 4], link: Link, flags: &[&str], except: &[&str]) {
    let mut sources: Vec<_> = std::fs::read_dir(root().join("tests/c"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .filter(|path| !path.ends_with("layout.c")) // `tests/header.rs` has it
        .filter(|path| !except.iter().any(|name| path.ends_with(name)))
        .collect();
    sources.sort();
    assert!(sources.len() + except.len() >= 12);
    let mut failures = Vec::new();
    for source in sources {
        let program = compile(&source, compiler, link, flags);
        let output = Command::new(&program)
            // The sanitizer's own fault handler, to which a worker's faults are passed on, exits; so
            // it aborts, and the worker dies of the fault that it was.
            .env("ASAN_OPTIONS", "abort_on_error=1")
            .output()
            .unwrap();
        let name = program.file_name().unwrap().to_string_lossy();
        match output.status.code() {
            Some(0) => {}
            Some(77) => skip(&format!(
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            )),
            _ => failures.push(format!(
                "{name}: {}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn c_with_the_shared_library() {
    all(GCC, Link::Shared, &[], &[]);
}

#[test]
fn c_with_the_static_library() {
    all(GCC, Link::Static, &[], &[]);
}

#[test]
fn cpp_with_the_shared_library() {
    all(GPP, Link::Shared, &[], &[]);
}

#[test]
fn cpp_with_the_static_library() {
    all(GPP, Link::Static, &[], &[]);
}

const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Wrong reads and writes of the programs, and leaks of theirs and of the library's.
#[test]
fn c_under_sanitizers() {
    let leak = Path::new(env!("CARGO_TARGET_TMPDIR")).join("leak.c");
    let text = "#include <stdlib.h>\nint main(void) { return malloc(7) == 0; }\n";
    std::fs::write(&leak, text).unwrap();
    let leak = compile(&leak, GCC, Link::Shared, &["-fsanitize=address", "-O0"]);
    if Command::new(leak).output().unwrap().status.success() {
        skip("the leak sanitizer finds no leak here (ptrace is forbidden?)");
        return;
    }
    // In a forked child of a process with threads, the sanitizer's allocator may stay locked.
    // And the undefined-behaviour sanitizer does not let a program read a null pointer.
    all(GCC, Link::Shared, &SANITIZERS, &["forked.c", "crash.c"]);
    for name in ["hello", "checksum"] {
        let program = compile(&example(name), GCC, Link::Shared, &SANITIZERS);
        run(Command::new(program).arg(root().join("src")));
    }
}

fn example(name: &str) -> PathBuf {
    root().join(format!("examples/c/{name}.c"))
}

#[test]
fn the_smallest_host_works_and_is_small() {
    let text = std::fs::read_to_string(example("hello")).unwrap();
    assert!(text.lines().count() <= 40);
    for (compiler, link) in [
        (GCC, Link::Shared),
        (GCC, Link::Static),
        (GPP, Link::Shared),
        (GPP, Link::Static),
    ] {
        let program = compile(&example("hello"), compiler, link, &[]);
        assert_eq!(run(&mut Command::new(program)), "completed: hello\n");
    }
}

/// The line of a report that begins with a word.
fn line<'a>(report: &'a str, word: &str) -> &'a str {
    report
        .lines()
        .find(|line| line.starts_with(word))
        .unwrap_or_else(|| panic!("no `{word}` in {report}"))
}

#[test]
fn checksums_are_the_same_with_every_compiler_and_kind_of_worker() {
    let mut totals = Vec::new();
    for compiler in [GCC, GPP] {
        let host = compile(&example("checksum"), compiler, Link::Shared, &[]);
        let worker = compile(&example("worker"), compiler, Link::Static, &[]);
        for program in [None, Some(&worker)] {
            let mut command = Command::new(&host);
            command.args(["--verify", "--workers", "2"]);
            if let Some(program) = program {
                command.arg("--program").arg(program);
            }
            let report = run(command.arg(root().join("src")));
            assert!(line(&report, "single").ends_with(": equal"), "{report}");
            assert!(line(&report, "files").contains("(0 failed, 0 dir"));
            totals.push(line(&report, "total").to_owned());
        }
    }
    totals.dedup();
    assert_eq!(totals.len(), 1, "{totals:?}");
}

/// More files than an engine has room for tasks, and paths that are too long to be opened.
#[test]
fn checksums_of_a_large_and_of_a_deep_tree() {
    let top = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tree");
    let _ = std::fs::remove_dir_all(&top);
    for dir in 0..70 {
        let dir = top.join(format!("wide/{dir}"));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..1000 {
            std::fs::write(dir.join(file.to_string()), file.to_string()).unwrap();
        }
    }
    // As deep as a path can be: the file's own name makes it too long, here or a level further.
    let mut deep = top.clone();
    while deep.as_os_str().len() < 4096 - 110 {
        deep.push("d".repeat(100));
    }
    std::fs::create_dir_all(&deep).unwrap();
    let file = |name: &str| {
        let cd = format!("cd '{}' && echo x > {name}", deep.display());
        run(Command::new("sh").args(["-c", &cd]));
    };
    file("short");
    file(&"f".repeat(200));

    let host = compile(&example("checksum"), GCC, Link::Shared, &[]);
    let mut command = Command::new(host);
    let report = run(command.args(["--verify", "--workers", "2"]).arg(&top));
    assert!(
        line(&report, "files").contains(" 70002 (1 failed, 0 dir"),
        "{report}"
    );
    assert!(line(&report, "single").ends_with(": equal"), "{report}");
    let errors = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(errors.contains("File name too long"), "{errors}");
    std::fs::remove_dir_all(&top).unwrap();
}

#[test]
fn valgrind_finds_no_error_and_no_leak_in_the_examples() {
    let hello = compile(&example("hello"), GCC, Link::Shared, &[]);
    let checksum = compile(&example("checksum"), GPP, Link::Shared, &[]);
    for program in [hello, checksum] {
        // The valgrind of an older distribution may not know pidfd_open: name another one.
        let command = std::env::var_os("VALGRIND").unwrap_or_else(|| "valgrind".into());
        let mut valgrind = Command::new(command);
        valgrind
            .args(["--leak-check=full", "--error-exitcode=9", "--quiet"])
            .arg("--errors-for-leak-kinds=definite,indirect")
            .arg(format!(
                "--suppressions={}",
                root().join("tests/c/valgrind.supp").display()
            ))
            .arg("--child-silent-after-fork=yes") // the workers' memory is the host's, forked
            .arg(program)
            .arg(root().join("src"));
        let Ok(output) = valgrind.output() else {
            skip("valgrind is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("unhandled amd64-linux syscall: 434") {
            skip("this valgrind does not know pidfd_open, so no engine starts under it");
            return;
        }
        assert!(output.status.success(), "{}: {text}", output.status);
    }
}
