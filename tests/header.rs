//! `include/miniflow.h` is what `src/ffi` says, and C and C++ compilers of every age take it.
//!
//! `UPDATE_HEADER=1 cargo test --test header` writes it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says so when it fails"
)]

#[path = "c/library.rs"]
mod library;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use library::{libraries, root, run};

/// The files of `src/ffi` that declare something, in the header's order.
const SOURCES: [&str; 16] = [
    "types",
    "config",
    "placement",
    "error",
    "host",
    "policy",
    "submit",
    "completion",
    "status",
    "scaling",
    "task",
    "view",
    "worker",
    "zygote",
    "log_callback",
    "log",
];

/// The version macros, which no tool but this test can know.
fn version_macros() -> String {
    let [major, minor, patch] = [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ];
    format!(
        "\n/** The version of the library that this header belongs to. */\n\
         #define MF_VERSION_MAJOR {major}\n\
         #define MF_VERSION_MINOR {minor}\n\
         #define MF_VERSION_PATCH {patch}\n\
         #define MF_VERSION_STRING \"{}\"",
        env!("CARGO_PKG_VERSION")
    )
}

/// The header as cbindgen makes it; a warning or an error of its makes the test fail.
fn generate() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    config.after_includes = Some(version_macros());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join(format!("src/ffi/{source}.rs")));
    }
    let bindings = builder.generate().unwrap();
    let mut header = Vec::new();
    bindings.write(&mut header);
    polish(&String::from_utf8(header).unwrap())
}

/// What cbindgen has no setting for: comments of one line on one line, negative numbers in
/// parentheses, no Markdown heading.
fn polish(header: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for line in header.lines() {
        let comment = match out.as_slice() {
            [.., open, text] if open.trim_start() == "/**" && line.trim_start() == "*/" => text
                .trim_start()
                .strip_prefix("* ")
                .map(|text| format!("{open} {text} */")),
            _ => None,
        };
        let short = comment.filter(|comment| comment.len() <= 100);
        if let Some(comment) = short {
            out.truncate(out.len() - 2);
            out.push(comment);
        } else if let Some((define, number)) = line
            .strip_prefix("#define ")
            .and_then(|define| define.split_once(" -"))
        {
            out.push(format!("#define {define} (-{number})"));
        } else {
            out.push(line.replace(" * # Safety", " * Pointers:"));
        }
    }
    let text = out.join("\n") + "\n";
    text.replace("\n *\n * Pointers:\n * None.\n", "\n")
}

#[test]
fn the_header_is_current() {
    complaints::collect();
    let header = generate();
    assert_eq!(complaints::take(), [""; 0], "cbindgen complains");
    let path = root().join("include/miniflow.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &header).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        header == current,
        "include/miniflow.h is stale: UPDATE_HEADER=1 cargo test --test header"
    );
    assert!(header.is_ascii());
}

/// The functions that the header declares, each with its comment in one line.
fn declared() -> BTreeMap<String, String> {
    let header = fs::read_to_string(root().join("include/miniflow.h")).unwrap();
    let mut functions = BTreeMap::new();
    let (mut comment, mut in_comment) = (String::new(), false);
    for line in header.lines() {
        if line.starts_with("/*") {
            comment.clear();
            in_comment = true;
        }
        if in_comment {
            comment += line.trim_start_matches([' ', '*', '/']);
            comment += " ";
            in_comment = !line.ends_with("*/");
        } else if let Some((before, _)) = line.split_once('(')
            && !line.starts_with([' ', '#', '}'])
            && !line.starts_with("typedef")
        {
            let name = before.rsplit([' ', '*']).next().unwrap();
            let old = functions.insert(name.to_owned(), std::mem::take(&mut comment));
            assert!(old.is_none(), "{name} is declared twice");
        }
    }
    functions
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let library = libraries().join("libminiflow.so");
    let symbols = run(Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&library));
    let exported: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(|name| name.split('@').next().unwrap().to_owned())
        .collect();
    assert_eq!(exported, declared().into_keys().collect());
    assert!(exported.len() > 40 && exported.iter().all(|name| name.starts_with("mf_")));
}

#[test]
fn every_function_says_who_may_call_it_and_since_when() {
    for (name, comment) in declared() {
        for part in ["Since 0.", "hread", "orked child"] {
            assert!(comment.contains(part), "{name}: no `{part}` in `{comment}`");
        }
    }
}

#[test]
fn c_and_cpp_compilers_take_it() {
    for (compiler, language, standards) in [
        ("gcc", "c", ["c99", "c11", "c17"]),
        ("g++", "c++", ["c++11", "c++17", "c++20"]),
    ] {
        for standard in standards {
            run(Command::new(compiler)
                .args(["-x", language])
                .arg(format!("-std={standard}"))
                .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
                .arg("-I")
                .arg(root().join("include"))
                .arg(root().join("tests/c/layout.c")));
        }
    }
}

#[test]
fn the_soname_is_the_abi_version() {
    let library = libraries().join("libminiflow.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(library));
    let header = fs::read_to_string(root().join("include/miniflow.h")).unwrap();
    let version = header
        .lines()
        .find_map(|line| line.strip_prefix("#define MF_ABI_VERSION "))
        .unwrap();
    assert!(
        dynamic.contains(&format!("[libminiflow.so.{version}]")),
        "{dynamic}"
    );
}

/// What cbindgen says through `log`.
mod complaints {
    use std::sync::Mutex;

    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Collector;

    impl log::Log for Collector {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn
        }

        fn log(&self, record: &log::Record<'_>) {
            let text = record.args().to_string();
            if self.enabled(record.metadata()) && !is_private_item(&text) {
                SAID.lock().unwrap().push(text);
            }
        }

        fn flush(&self) {}
    }

    /// "Skip task::PHASE - (not `pub`).": a constant or a static of our own, as it should be. What
    /// is named like a function or a type is not meant to be skipped.
    fn is_private_item(text: &str) -> bool {
        text.strip_prefix("Skip ")
            .and_then(|rest| rest.split_once(" - (not `"))
            .and_then(|(path, _)| path.rsplit("::").next())
            .is_some_and(|name| !name.contains(|c: char| c.is_ascii_lowercase()))
    }

    pub(crate) fn collect() {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    }

    pub(crate) fn take() -> Vec<String> {
        std::mem::take(&mut SAID.lock().unwrap())
    }
}
