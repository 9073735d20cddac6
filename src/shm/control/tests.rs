//! Tests of the control segment: real names in `/dev/shm`, real deaths.

use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::process::{Pid, geteuid};

use super::super::load_table::{CrashRecord, DecisionRecord, LOG_RECORDS, Text};
use super::names::clean_if;
use super::*;
use crate::sys::sync::Ordering::Relaxed;
use std::path::PathBuf;

/// A name that no other test and no other run uses; its file is gone when the test is over.
struct Name(String);

impl Name {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Relaxed);
        Self(format!("test-{}.{n}_x", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        path_of(&os_name_of(self).unwrap())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

fn create(name: &str, max_workers: u32) -> Result<ControlSegment> {
    ControlSegment::create(name, max_workers, |_| Ok(()))
}

/// A forked child, killed and reaped at the latest when this goes.
struct Child(libc::pid_t);

impl Child {
    /// Runs `body` in a fork and ends it there with the code that `body` returns.
    fn fork(body: impl FnOnce() -> i32) -> Self {
        // SAFETY: the child runs `body` and `_exit`s. It may use malloc (glibc's fork sees to
        // that) and takes no lock that another thread of the tests could hold.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let run = std::panic::AssertUnwindSafe(body);
            let code = std::panic::catch_unwind(run).unwrap_or(101);
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(code) };
        }
        Self(pid)
    }

    /// Waits until it has ended and leaves it a zombie.
    fn wait_for_end(&self) {
        let pid = Pid::from_raw(self.0).unwrap();
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    }

    fn reap(self) -> std::process::ExitStatus {
        let mut status = 0;
        // SAFETY: our own child, not waited for by anybody else; `status` is a valid place.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(pid, self.0);
        let _ = ManuallyDrop::new(self);
        std::process::ExitStatus::from_raw(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of ours that has not been reaped, so the number is still its.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above; no status is asked for.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

fn kill_myself() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::raise(libc::SIGKILL) };
    1
}

fn invalid(result: Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(Error::Invalid(text)) => text,
        other => panic!("not Invalid: {other:?}"),
    }
}

fn found(name: &str) -> Option<Found> {
    list().unwrap().into_iter().find(|found| found.name == name)
}

#[test]
fn names_are_checked() {
    for good in ["a", "A-b_c.9", "..", &"x".repeat(64)] {
        assert!(valid_name(good), "{good}");
    }
    for bad in ["", "a/b", "a b", "\u{e4}", "a\0", &"x".repeat(65)] {
        assert!(!valid_name(bad), "{bad:?}");
        assert!(invalid(create(bad, 1)).contains("engine name"));
        assert!(invalid(ControlReader::open(bad)).contains("engine name"));
        assert!(!is_alive(bad));
    }
    assert!(invalid(create("a", 0)).contains("max_workers"));
    assert!(invalid(ControlSegment::private(MAX_WORKERS + 1)).contains("max_workers"));
}

#[test]
fn a_monitor_reads_what_the_host_wrote() {
    let name = Name::new();
    let segment = create(&name, 3).unwrap();
    let uid = geteuid().as_raw();
    let os_name = format!("/miniflow.{uid}.{}", &*name);
    assert_eq!(segment.os_name().unwrap().to_str().unwrap(), os_name);
    assert_eq!(
        segment.path().unwrap(),
        PathBuf::from(format!("/dev/shm{os_name}"))
    );
    let metadata = std::fs::metadata(name.path()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), segment_bytes(3) as u64);
    assert_eq!(
        metadata.blocks() * 512,
        metadata.len(),
        "all pages are there"
    );

    let reader = ControlReader::open(&name).unwrap();
    assert_eq!(reader.engine_name(), *name);
    assert_eq!(
        (reader.pid(), reader.max_workers()),
        (std::process::id(), 3)
    );
    assert!(reader.created_ms() > 1_600_000_000_000);
    assert!(reader.is_alive() && is_alive(&name));
    let me = Found {
        name: name.to_string(),
        pid: std::process::id(),
        alive: true,
    };
    assert_eq!(found(&name), Some(me));

    assert_eq!(reader.read_row(2), None, "nothing published yet");
    let mut publisher = segment.publisher().unwrap();
    let row = Row {
        pid: 77,
        started_ms: -1,
        busy_ns: u64::MAX,
        ..Row::default()
    };
    publisher.row(2, &row);
    publisher.row(3, &row); // no such row
    assert_eq!(reader.read_row(2), Some(row));
    assert_eq!((reader.read_row(1), reader.read_row(3)), (None, None));

    let (engine, notes) = (EngineRecord::filled(5), NotesRecord::filled(6));
    assert_eq!((reader.engine(), reader.notes()), (None, None));
    publisher.engine(&engine);
    publisher.notes(&notes);
    assert_eq!(
        (reader.engine(), reader.notes()),
        (Some(engine), Some(notes))
    );

    let (class, times) = (ClassRecord::filled(7), HistogramRecord::filled(8));
    publisher.class(1, &class);
    publisher.class(2, &class); // no such class
    publisher.histogram(1, Times::Run, &times);
    publisher.histogram(2, Times::Run, &times);
    let classes = [0, 1, 2].map(|index| reader.class(index));
    assert_eq!(classes, [None, Some(class), None]);
    for index in 0..3 {
        assert_eq!(reader.histogram(index, Times::Queue), None);
        let run = reader.histogram(index, Times::Run);
        assert_eq!(run, (index == 1).then_some(times));
    }

    let deaths = std::array::from_fn(|signal| signal as u64);
    publisher.deaths(&deaths);
    assert_eq!(reader.deaths(), deaths);

    drop(publisher);
    drop(segment);
    assert!(!name.path().exists());
    assert_eq!(
        reader.read_row(2),
        Some(row),
        "the memory outlives the name"
    );
    assert!(!reader.is_alive() && !is_alive(&name));
    assert!(invalid(ControlReader::open(&name)).contains("no engine named"));
    assert_eq!(found(&name), None);
}

#[test]
fn a_private_table_has_no_name_and_works_alike() {
    let segment = ControlSegment::private(2).unwrap();
    assert_eq!(segment.path(), None);
    assert_eq!(
        (segment.engine_name(), segment.pid()),
        (String::new(), std::process::id())
    );
    let row = Row {
        state: 1,
        ..Row::default()
    };
    let mut publisher = segment.publisher().unwrap();
    publisher.row(1, &row);
    assert_eq!(segment.read_row(1), Some(row));
    drop(segment);
    publisher.row(1, &Row::default()); // the memory is still there
}

#[test]
fn a_segment_has_one_publisher() {
    let segment = ControlSegment::private(2).unwrap();
    let first = segment.publisher().unwrap();
    assert!(segment.publisher().is_none());
    drop(first);
    assert!(segment.publisher().is_some());
}

/// The bytes of a named segment.
fn contents(name: &Name) -> Vec<u8> {
    std::fs::read(name.path()).unwrap()
}

#[test]
fn what_has_not_changed_is_not_published_again() {
    let name = Name::new();
    let segment = create(&name, 2).unwrap();
    let mut publisher = segment.publisher().unwrap();
    let mut publish = |n| {
        publisher.row(1, &Row::filled(n));
        publisher.engine(&EngineRecord::filled(n));
        publisher.class(0, &ClassRecord::filled(n));
        publisher.histogram(0, Times::Queue, &HistogramRecord::filled(n));
        publisher.notes(&NotesRecord::filled(n));
        publisher.deaths(&[n; SIGNALS]);
    };
    // All zeros too are published for the first time.
    let mut before = contents(&name);
    for n in [0, 1, 2, 1] {
        publish(n);
        let after = contents(&name);
        assert_ne!(before, after, "{n}");
        publish(n);
        before = contents(&name);
        assert_eq!(before, after, "{n}");
    }
}

#[test]
fn the_logs_keep_the_last_records() {
    let name = Name::new();
    let segment = create(&name, 1).unwrap();
    let reader = ControlReader::open(&name).unwrap();
    assert!(reader.decisions().is_empty() && reader.crashes().is_empty());
    for n in 0..LOG_RECORDS as u64 + 5 {
        let decision = DecisionRecord {
            queued: n,
            ..DecisionRecord::default()
        };
        assert_eq!(segment.log_decision(&decision), n);
    }
    let decisions = reader.decisions();
    assert_eq!(decisions.len(), LOG_RECORDS);
    for (n, (number, decision)) in (5..).zip(&decisions) {
        assert_eq!((*number, decision.queued), (n, n));
    }
    let crash = CrashRecord {
        signal: 9,
        place: Text::new("gone"),
        ..CrashRecord::default()
    };
    assert_eq!(segment.log_crash(&crash), 0);
    assert_eq!(reader.crashes(), [(0, crash)]);
}

#[test]
fn a_name_in_use_is_refused_and_says_by_whom() {
    let name = Name::new();
    let _segment = create(&name, 1).unwrap();
    let text = invalid(create(&name, 1));
    assert!(text.contains("is in use by pid"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    // From another process too, and neither its cleaning nor a zygote's does any harm.
    let child = Child::fork(|| {
        let refused = matches!(create(&name, 1), Err(Error::Invalid(_)));
        let cleaned = clean_if(|found| *found == *name).is_ok_and(|names| !names.is_empty());
        let unlinked = unlink_name(&os_name_of(&name).unwrap());
        i32::from(!refused || cleaned || unlinked)
    });
    assert_eq!(child.reap().code(), Some(0));
    assert!(is_alive(&name) && name.path().exists());
}

/// A child that makes the segment and dies of SIGKILL, as a zombie.
fn killed_owner(name: &str) -> Child {
    let child = Child::fork(|| match create(name, 2) {
        Ok(_segment) => kill_myself(),
        Err(_) => 2,
    });
    child.wait_for_end();
    child
}

#[test]
fn the_name_of_a_killed_engine_is_given_to_the_next() {
    let name = Name::new();
    let child = killed_owner(&name);
    let pid = u32::try_from(child.0).unwrap();
    assert!(name.path().exists() && !is_alive(&name));
    assert_eq!(
        found(&name),
        Some(Found {
            name: name.to_string(),
            pid,
            alive: false
        })
    );
    let stale = ControlReader::open(&name).unwrap();
    assert!(!stale.is_alive());
    let segment = create(&name, 1).unwrap();
    assert!(is_alive(&name) && !stale.is_alive());
    assert_eq!(segment.pid(), std::process::id());
    assert_eq!(child.reap().signal(), Some(libc::SIGKILL));
}

#[test]
fn the_names_of_killed_engines_are_cleaned() {
    let (dead, live) = (Name::new(), Name::new());
    drop(killed_owner(&dead));
    let _segment = create(&live, 1).unwrap();
    let cleaned = clean_if(|name| *name == *dead || *name == *live).unwrap();
    assert_eq!(cleaned, [&*dead]);
    assert!(!dead.path().exists() && live.path().exists());
}

/// A program that there is not.
fn program() -> String {
    let name = Name::new().replace('-', "_");
    format!("program_{name}")
}

#[test]
fn automatic_names_are_counted_on_while_they_are_in_use() {
    let program = program();
    let mut announced = Vec::new();
    let mut make = || {
        let announce = |os_name: &CStr| {
            announced.push(os_name.to_str().unwrap().to_owned());
            Ok(())
        };
        ControlSegment::create_for(&program, 1, announce).unwrap()
    };
    let (first, second) = (make(), make());
    let base = format!("{program}-{}", std::process::id());
    assert_eq!(first.name(), Some(&*base));
    assert_eq!(second.name(), Some(&*format!("{base}-2")));
    drop(first);
    assert_eq!(make().name(), Some(&*base), "it is free again");
    let prefix = format!("/{}{base}", names::prefix());
    let expected = [prefix.clone(), format!("{prefix}-2"), prefix];
    assert_eq!(announced, expected);
}

#[test]
fn a_program_cleans_up_after_its_dead_engines_and_nobody_else() {
    let program = program();
    let child = Child::fork(|| {
        let make = || ControlSegment::create_for(&program, 1, |_| Ok(()));
        let given = create(&format!("{program}-mine"), 1);
        match (make(), make(), given) {
            (Ok(_first), Ok(_second), Ok(_given)) => kill_myself(),
            _ => 2,
        }
    });
    child.wait_for_end();
    let left = || {
        let found = list().unwrap().into_iter().map(|found| found.name);
        found
            .filter(|name| name.starts_with(&program))
            .collect::<Vec<_>>()
    };
    let given = format!("{program}-mine");
    assert_eq!(left().len(), 3);
    let segment = ControlSegment::create_for(&program, 1, |_| Ok(())).unwrap();
    assert_eq!(left(), [segment.name().unwrap(), &*given]);
    drop(segment);
    assert_eq!(clean_if(|name| *name == given).unwrap(), [&*given]);
}

#[test]
fn a_zygote_removes_its_dead_hosts_name_and_no_successors() {
    let name = Name::new();
    drop(killed_owner(&name));
    let os_name = os_name_of(&name).unwrap();
    let successor = create(&name, 1).unwrap();
    assert!(!unlink_name(&os_name));
    assert!(name.path().exists());
    drop(successor);
    assert!(!unlink_name(&os_name), "nothing is there");
    drop(killed_owner(&name));
    assert!(unlink_name(&os_name));
    assert!(!name.path().exists());
}

#[test]
fn a_lock_that_a_grandchild_holds_does_not_keep_a_name_alive() {
    let name = Name::new();
    let (mut until_end, end) = std::io::pipe().unwrap();
    let child = Child::fork(|| {
        let Ok(segment) = create(&name, 1) else {
            return 2;
        };
        let grandchild = Child::fork(|| {
            // Keeps all descriptors open, until the test closes the pipe (or ends).
            // SAFETY: closes the inherited writing end, which nothing here uses any more.
            unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(&end)) };
            i32::from(until_end.read(&mut [0]).is_err())
        });
        let _ = (ManuallyDrop::new(grandchild), &segment);
        kill_myself()
    });
    child.wait_for_end();
    let file = Directory::open().unwrap();
    let os_name = os_name_of(&name).unwrap();
    let file = file.open_file(file_name(&os_name), OFlags::RDONLY).unwrap();
    let held = flock(&file, FlockOperation::NonBlockingLockShared);
    assert_eq!(
        held,
        Err(Errno::WOULDBLOCK),
        "the grandchild holds the lock"
    );
    assert!(!is_alive(&name), "a zombie does not count as alive");
    assert_eq!(child.reap().signal(), Some(libc::SIGKILL));
    assert!(!is_alive(&name), "nor does a pid that is gone");
    let _segment = create(&name, 1).unwrap();
    assert!(is_alive(&name));
    drop(end);
}

#[test]
fn a_forked_child_leaves_the_name_alone() {
    let name = Name::new();
    let segment = create(&name, 1).unwrap();
    let mut segment = Some(segment);
    let silent = Child::fork(|| {
        drop(segment.take());
        0
    });
    assert_eq!(silent.reap().code(), Some(0));
    assert!(is_alive(&name) && name.path().exists());
}

#[test]
fn dropping_leaves_a_successors_name_alone() {
    let name = Name::new();
    let first = create(&name, 1).unwrap();
    std::fs::remove_file(name.path()).unwrap(); // somebody's rm
    let second = create(&name, 1).unwrap();
    drop(first);
    assert!(name.path().exists() && is_alive(&name));
    drop(second);
    assert!(!name.path().exists());
}

#[test]
fn foreign_and_broken_files_are_refused() {
    let name = Name::new();
    let write = |bytes: &[u8]| std::fs::write(name.path(), bytes).unwrap();

    write(&[b'x'; 8192]);
    assert!(invalid(ControlReader::open(&name)).contains("not a control segment"));
    assert!(invalid(create(&name, 1)).contains("is taken"));
    assert!(
        clean_if(|found| *found == *name).unwrap().is_empty(),
        "somebody else's file is not cleaned"
    );
    assert_eq!(found(&name), None);

    std::fs::remove_file(name.path()).unwrap();
    std::os::unix::fs::symlink("/dev/null", name.path()).unwrap();
    assert!(ControlReader::open(&name).is_err());
    assert!(invalid(create(&name, 1)).contains("is taken"));
    std::fs::remove_file(name.path()).unwrap();

    for cut_short in [&[][..], &[0; 31], &[0; 8192]] {
        write(cut_short);
        assert!(invalid(ControlReader::open(&name)).contains("starting"));
        assert_eq!(found(&name).map(|found| found.alive), Some(false));
        drop(create(&name, 1).unwrap());
    }
}

#[test]
fn another_layout_version_or_size_is_refused() {
    let name = Name::new();
    let segment = create(&name, 1).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(name.path())
        .unwrap();
    let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();

    put(8, &99_u32.to_ne_bytes());
    let answer = ControlReader::open(&name);
    assert!(matches!(answer, Err(Error::Unsupported(text)) if text.contains("version 99")));
    let text = invalid(create(&name, 1));
    assert!(
        text.contains("in use by pid"),
        "alive in any version: {text}"
    );
    put(8, &0_u32.to_ne_bytes());
    assert!(invalid(ControlReader::open(&name)).contains("starting"));
    put(8, &LAYOUT_VERSION.to_ne_bytes());
    ControlReader::open(&name).unwrap();

    for workers in [0, 2000, u32::MAX] {
        put(MAX_WORKERS_OFFSET, &workers.to_ne_bytes());
        assert!(
            invalid(ControlReader::open(&name)).contains("do not fit"),
            "{workers}"
        );
    }
    put(MAX_WORKERS_OFFSET, &2000_u32.to_ne_bytes());
    put(LENGTH_OFFSET, &(segment_bytes(2000) as u64).to_ne_bytes());
    assert!(
        invalid(ControlReader::open(&name)).contains("do not fit"),
        "the file is shorter"
    );

    put(0, b"MINIFLOW");
    assert!(invalid(ControlReader::open(&name)).contains("not a control segment"));
    drop(segment);
}

/// One thread publishes rows and records in which all fields are equal, others read them
/// through a read-only mapping of their own.
#[test]
fn no_reader_ever_sees_a_torn_row_or_record() {
    const ROUNDS: u64 = 200_000;
    let name = Name::new();
    let segment = create(&name, 1).unwrap();
    let mut publisher = segment.publisher().unwrap();
    publisher.row(0, &Row::default());
    let done = AtomicBool::new(false);
    let (rows, records) = std::thread::scope(|scope| {
        let rows = scope.spawn(|| {
            let reader = ControlReader::open(&name).unwrap();
            let (mut last, mut seen) = (0, 0_u64);
            while !done.load(Relaxed) {
                let Some(row) = reader.read_row(0) else {
                    continue;
                };
                let n = row.incarnation;
                assert_eq!(row, Row::filled(n), "torn");
                assert!(n >= last, "rows go forward");
                seen += u64::from(n != last);
                last = n;
            }
            seen
        });
        let records = scope.spawn(|| {
            let reader = ControlReader::open(&name).unwrap();
            let mut seen = 0_u64;
            while !done.load(Relaxed) {
                let log = reader.decisions();
                assert!(log.is_sorted_by(|a, b| a.0 < b.0));
                for (number, decision) in log {
                    assert_eq!(decision, DecisionRecord::filled(number), "torn");
                    seen += 1;
                }
                if let Some(engine) = reader.engine() {
                    assert_eq!(engine, EngineRecord::filled(engine.at_ns), "torn");
                }
                if let Some(times) = reader.histogram(1, Times::Run) {
                    assert_eq!(times, HistogramRecord::filled(times.sum_ns), "torn");
                }
            }
            seen
        });
        for n in 0..ROUNDS {
            publisher.row(0, &Row::filled(n));
            publisher.engine(&EngineRecord::filled(n));
            publisher.histogram(1, Times::Run, &HistogramRecord::filled(n));
            assert_eq!(segment.log_decision(&DecisionRecord::filled(n)), n);
        }
        done.store(true, Relaxed);
        (rows.join().unwrap(), records.join().unwrap())
    });
    assert!(
        rows > 0 && records > 0,
        "{rows} rows and {records} records were read"
    );
    assert_eq!(segment.read_row(0), Some(Row::filled(ROUNDS - 1)));
}

#[test]
fn a_row_whose_writer_died_in_the_middle_is_not_read() {
    let name = Name::new();
    let segment = create(&name, 1).unwrap();
    segment.publisher().unwrap().row(0, &Row::default());
    let reader = ControlReader::open(&name).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(name.path())
        .unwrap();
    let row = (segment_bytes(1) - 4096) as u64;
    file.write_all_at(&3_u64.to_ne_bytes(), row).unwrap();
    assert_eq!(reader.read_row(0), None);
}

#[test]
fn thousands_of_records_that_are_never_finished_do_not_hold_up_a_reader() {
    const ROWS: u32 = MAX_WORKERS;
    let name = Name::new();
    let segment = create(&name, ROWS).unwrap();
    let mut publisher = segment.publisher().unwrap();
    let reader = ControlReader::open(&name).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(name.path())
        .unwrap();
    let first = segment_bytes(ROWS) as u64 - u64::from(ROWS) * 256;
    for row in 0..u64::from(ROWS) {
        let at = first + row * 256;
        file.write_all_at(&3_u64.to_ne_bytes(), at).unwrap();
    }
    let start = Instant::now();
    reader.renew_patience();
    assert!((0..ROWS).all(|row| reader.read_row(row).is_none()));
    // Each would be waited for 4 ms and more.
    assert!(start.elapsed() < Duration::from_secs(5));
    publisher.row(7, &Row::filled(1));
    assert_eq!(reader.read_row(7), Some(Row::filled(1)), "it is finished");
}

/// Set in the process that [`a_small_dev_shm_is_an_error_and_no_sigbus`] starts.
const SMALL: &str = "MINIFLOW_TEST_SMALL_DEV_SHM";

#[test]
fn a_small_dev_shm_is_an_error_and_no_sigbus() {
    let may_mount = Command::new("unshare")
        .args([
            "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm",
        ])
        .output();
    if !may_mount
        .as_ref()
        .is_ok_and(|output| output.status.success())
    {
        eprintln!("SKIP: cannot mount a small /dev/shm here: {may_mount:?}");
        return;
    }
    let module = module_path!().split_once("::").unwrap().1;
    let test = format!("{module}::inside_a_small_dev_shm");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c"])
        .arg("mount -t tmpfs -o size=64k tmpfs /dev/shm && exec \"$@\"")
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(SMALL, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?}: {text}", output.status);
    assert!(
        text.contains("1 passed"),
        "the test is called otherwise: {text}"
    );
}

#[test]
fn inside_a_small_dev_shm() {
    if std::env::var_os(SMALL).is_none() {
        return; // started by the test above
    }
    let name = Name::new();
    let answer = create(&name, 1000);
    assert!(matches!(answer, Err(Error::NoMemory(_))), "{answer:?}");
    assert!(!name.path().exists(), "nothing is left behind");
    let segment = create(&name, 64).unwrap();
    let mut publisher = segment.publisher().unwrap();
    for worker in 0..64 {
        publisher.row(worker, &Row::filled(1));
    }
    let second = Name::new();
    assert!(matches!(create(&second, 64), Err(Error::NoMemory(_))));
}
