//! The names of engines, by which others can watch them: given, automatic, or none.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::fs;

use common::{Name, cpu_only, watchdog, watchdog_alone};
use miniflow::monitor::{self, Monitor};
use miniflow::{Builder, Engine};

fn engine() -> Builder {
    cpu_only(1, 1).handler(|_| Ok(()))
}

/// The names of this process's engines in shared memory, but for those that tests have given.
fn automatic_names() -> Vec<String> {
    let names = fs::read_dir("/dev/shm").unwrap().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let pid = format!("-{}", std::process::id());
    names
        .filter(|name| name.contains(&pid) && !name.contains("test-"))
        .collect()
}

#[test]
fn an_engine_that_is_given_no_name_can_be_watched_under_one_of_its_own() {
    let _watchdog = watchdog_alone(60);
    let first = engine().start().unwrap();
    let name = first.name().unwrap().to_owned();
    assert!(name.starts_with("names-"), "the program's: {name}");
    assert!(
        name.ends_with(&format!("-{}", std::process::id())),
        "{name}"
    );
    let second = engine().start().unwrap();
    assert_eq!(second.name(), Some(&*format!("{name}-2")));
    for engine in [&first, &second] {
        let monitor = Monitor::open(engine.name().unwrap()).unwrap();
        assert!(monitor.is_alive());
        assert_eq!(Some(&*monitor.name()), engine.name());
        assert_eq!(engine.status().name.as_deref(), engine.name());
        assert!(engine.status().notes.is_empty());
    }
    let alive = monitor::list().unwrap();
    assert!(alive.iter().any(|found| found.name == name && found.alive));
    first.stop(None).unwrap();
    assert_eq!(
        automatic_names().len(),
        1,
        "a stopped engine is not to be found"
    );
    assert_eq!(first.name(), Some(&*name));
    drop(second);
    assert!(automatic_names().is_empty());
}

#[test]
fn an_engine_that_wants_no_name_leaves_nothing_in_shared_memory() {
    let _watchdog = watchdog_alone(60);
    let engine = engine().unnamed().start().unwrap();
    assert_eq!((engine.name(), engine.status().name), (None, None));
    assert!(automatic_names().is_empty());
    assert!(engine.status().notes.is_empty(), "as it was asked for");
}

#[test]
fn the_last_word_about_the_name_holds() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let named = engine().unnamed().name(&*name).start().unwrap();
    assert_eq!(named.name(), Some(&*name));
    let unnamed = engine().name(&*name).unnamed().start().unwrap();
    assert_eq!(unnamed.name(), None);
}

#[test]
fn many_engines_at_once_have_names_of_their_own() {
    let _watchdog = watchdog_alone(60);
    let start = || engine().start().unwrap();
    let engines: Vec<Engine> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut names: Vec<_> = engines
        .iter()
        .map(|engine| engine.name().unwrap())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 8);
    assert_eq!(automatic_names().len(), 8);
}
