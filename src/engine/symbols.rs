//! From addresses to names: what a worker's backtrace means, found out on a thread of its own.
//!
//! Reading the debug information of a large program takes a while, so that nobody waits for it who
//! holds the engine's lock or has other workers to look after. The thread is started by the first
//! crash.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use addr2line::Loader;

use crate::engine::modules::{Modules, Segments};
use crate::shm::crash::CrashFacts;
use crate::sys::memfd;
use crate::task::TaskId;

/// Crashes that may wait to be looked at; further ones go without names.
const WAITING: usize = 64;
/// How long what was read of a program's debug information is kept for the next crash.
const KEEP: Duration = Duration::from_secs(10);

/// What became known of a backtrace.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The function that crashed, as far as its author is concerned: `parse_header (handler.c:88)`.
    pub(crate) place: Option<String>,
    /// One line for each function, innermost first.
    lines: Vec<String>,
}

/// A backtrace to be looked at.
pub(crate) struct Request {
    pub(crate) worker: u32,
    pub(crate) pid: u32,
    /// What its thread ran, for the log.
    pub(crate) task: Option<TaskId>,
    pub(crate) facts: Arc<CrashFacts>,
    pub(crate) modules: Arc<Modules>,
    pub(crate) answer: Arc<OnceLock<Trace>>,
    /// Called when the answer is there.
    pub(crate) wake: Box<dyn FnOnce() + Send>,
}

/// The thread's owner; ends it when dropped.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    thread: Option<(SyncSender<Request>, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
}

impl Symbols {
    /// Has a backtrace looked at. False if nobody can at present.
    pub(crate) fn request(&mut self, request: Request) -> bool {
        if self.thread.is_none() {
            let (sender, receiver) = sync_channel(WAITING);
            let stop = Arc::clone(&self.stop);
            let started = std::thread::Builder::new()
                .name("mf-symbols".into())
                .spawn(move || run(&receiver, &stop));
            match started {
                Ok(thread) => self.thread = Some((sender, thread)),
                Err(e) => log::warn!("cannot start the thread that names crashed functions: {e}"),
            }
        }
        match &self.thread {
            Some((sender, _)) => sender.try_send(request).is_ok(),
            None => false,
        }
    }
}

impl Drop for Symbols {
    /// Waits for the thread: it runs code of a library that may be unloaded next. What it is looking
    /// at just now may take a moment.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // Relaxed: a flag that guards no data.
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join(); // a panic of the thread was reported when it happened
        }
    }
}

fn run(requests: &Receiver<Request>, stop: &AtomicBool) {
    let mut images = HashMap::new();
    loop {
        match requests.recv_timeout(KEEP) {
            Ok(request) => answer(request, &mut images, stop),
            Err(RecvTimeoutError::Timeout) => {
                images.clear();
                // Nothing is kept, so there is nothing to give up later.
                match requests.recv() {
                    Ok(request) => answer(request, &mut images, stop),
                    Err(_) => return,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn answer(request: Request, images: &mut HashMap<PathBuf, Image>, stop: &AtomicBool) {
    let stopped = || stop.load(Ordering::Relaxed); // Relaxed: see `Symbols::drop`.
    // The files may be anything: a parser that gives up must not take the names of later crashes
    // with it. What it leaves half done is forgotten.
    let trace = catch_unwind(AssertUnwindSafe(|| {
        trace(&request.facts.frames, &request.modules, images, &stopped)
    }))
    .unwrap_or_else(|_| {
        images.clear();
        Trace::default()
    });
    let Request { worker, pid, .. } = request;
    let thread = request.facts.thread;
    let running = match request.task {
        Some(task) => format!(", running task {task}"),
        None => String::new(),
    };
    log::error!(
        "worker {worker} (pid {pid}), backtrace of its thread {thread}{running}:\n{}",
        trace.lines.join("\n")
    );
    let _ = request.answer.set(trace); // only we set it, once
    (request.wake)();
}

fn trace(
    addresses: &[u64],
    modules: &Modules,
    images: &mut HashMap<PathBuf, Image>,
    stopped: &dyn Fn() -> bool,
) -> Trace {
    let mut trace = Trace::default();
    let mut first = None;
    for (number, &address) in addresses.iter().enumerate() {
        if stopped() {
            break;
        }
        let Some((path, place)) = modules.find(address) else {
            let line = format!("  #{number} {address:#x} in no known module");
            trace.lines.push(line);
            continue;
        };
        let image = images
            .entry(path.to_owned())
            .or_insert_with(|| Image::open(path));
        for function in image.functions(path, place) {
            let line = format!("  #{number} {address:#x} {function} in {}", path.display());
            trace.lines.push(line);
            if trace.place.is_none() && !is_runtime(&function, path) {
                trace.place = Some(function.clone());
            }
            first.get_or_insert(function);
        }
    }
    trace.place = trace.place.or(first);
    trace
}

/// Larger files are not read.
const LARGEST: u64 = 1 << 30;

/// What is known of one file.
struct Image {
    loader: Option<Loader>,
    segments: Segments,
}

/// A private copy of a regular file. The loader maps what it reads, and a file that somebody
/// truncates meanwhile (a worker, or whoever installs a new version) would be SIGBUS.
fn copy_of(path: &Path) -> Option<File> {
    // Opening anything but a regular file may have effects, or never end.
    let size = std::fs::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?
        .len();
    let file = File::open(path).ok()?;
    if size == 0 || size > LARGEST {
        return None;
    }
    let copy = memfd::create("miniflow-symbols", size).ok()?;
    memfd::commit(copy.as_fd(), 0, size).ok()?;
    let mut copy = File::from(copy);
    std::io::copy(&mut file.take(size), &mut copy).ok()?;
    Some(copy)
}

impl Image {
    fn open(path: &Path) -> Self {
        let Some(file) = copy_of(path) else {
            return Self {
                loader: None,
                segments: Segments::default(),
            };
        };
        let copy = format!("/proc/self/fd/{}", file.as_raw_fd());
        Self {
            loader: Loader::new(copy)
                .inspect_err(|e| log::warn!("{}: {e}", path.display()))
                .ok(),
            segments: Segments::read(&file),
        }
    }

    /// The functions at a place in the file: those that were inlined there first, at least one.
    fn functions(&self, path: &Path, place: u64) -> Vec<String> {
        let mut functions = Vec::new();
        let address = self.segments.address_of(place);
        if let (Some(loader), Some(address)) = (&self.loader, address) {
            if let Ok(mut frames) = loader.find_frames(address) {
                while let Ok(Some(frame)) = frames.next() {
                    let Some(name) = &frame.function else {
                        continue;
                    };
                    let Ok(name) = name.demangle() else { continue };
                    functions.push(match &frame.location {
                        Some(addr2line::Location {
                            file: Some(file),
                            line: Some(line),
                            ..
                        }) => format!("{} ({}:{line})", without_hash(&name), base_name(file)),
                        _ => without_hash(&name).to_owned(),
                    });
                }
            }
            if functions.is_empty()
                && let Some(symbol) = loader.find_symbol_info(address)
            {
                let name = addr2line::demangle_auto(symbol.name().into(), None);
                let offset = address.saturating_sub(symbol.address());
                functions.push(format!("{}+{offset:#x}", without_hash(&name)));
            }
        }
        if functions.is_empty() {
            let module = base_name(&path.to_string_lossy()).to_owned();
            functions.push(format!("{module}+{:#x}", address.unwrap_or(place)));
        }
        functions
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A Rust name without the hash that the older mangling ends with.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            rest
        }
        _ => name,
    }
}

/// Whether a function is not where its user would look for a mistake: ours, a standard library's,
/// or what ends a process.
fn is_runtime(function: &str, module: &Path) -> bool {
    const MODULES: [&str; 7] = [
        "libc.so",
        "libc-",
        "libpthread",
        "libgcc_s",
        "libminiflow.so",
        "ld-linux",
        "ld-musl",
    ];
    const NAMES: [&str; 15] = [
        "miniflow::",
        "mf_",
        "core::",
        "std::",
        "alloc::",
        "__rust",
        "rust_",
        "_Unwind_",
        "__GI_",
        "__pthread_kill",
        "pthread_kill",
        "raise",
        "gsignal",
        "abort",
        "kill",
    ];
    let module = base_name(module.to_str().unwrap_or_default());
    // `<core::option::Option<T> as ...>` and `<&core::...>` too.
    let name = function.trim_start_matches(['<', '&']);
    MODULES.iter().any(|prefix| module.starts_with(prefix))
        || NAMES.iter().any(|prefix| {
            name.strip_prefix(prefix).is_some_and(|rest| {
                // `raise`, but not `raise_the_roof`.
                let whole = prefix.ends_with([':', '_']) || *prefix == "__rust";
                whole || !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_truncated_while_it_is_read_does_no_harm() {
        let name = format!("miniflow-test-symbols-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        let image = Image::open(&path);
        let places = [0, 4096, 1 << 20, 3 << 20, u64::MAX];
        let before: Vec<_> = places.map(|place| image.functions(&path, place)).into();
        let image = Image::open(&path); // nothing of it is known yet
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(0))
            .unwrap();
        let after: Vec<_> = places.map(|place| image.functions(&path, place)).into();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(before, after);
        assert!(Image::open(Path::new("/dev/zero")).loader.is_none());
    }

    #[test]
    fn a_place_is_outside_the_runtime() {
        let program = Path::new("/bin/program");
        for name in [
            "miniflow::worker::pool::work",
            "mf_task_reply (task.rs:1)",
            "core::ptr::write_volatile (mod.rs:1)",
            "<core::option::Option<T> as Clone>::clone",
            "std::process::abort",
            "abort+0x12",
            "raise (raise.c:26)",
            "kill",
            "__GI_raise",
        ] {
            assert!(is_runtime(name, program), "{name}");
        }
        for name in [
            "parse_header (a.c:1)",
            "raise_x",
            "abort2",
            "killer",
            "Std::x",
        ] {
            assert!(!is_runtime(name, program), "{name}");
        }
        assert!(is_runtime("memcpy", Path::new("/lib/libc.so.6")));
    }

    #[test]
    fn names_lose_their_hash_only() {
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::hello"), "a::hello");
        assert_eq!(base_name("/a/b.c"), "b.c");
    }

    #[test]
    fn addresses_of_this_program_get_names_and_others_do_not() {
        let here = names_lose_their_hash_only as fn() as usize as u64;
        let modules = Modules::of_this_process();
        let mut images = HashMap::new();
        let found = trace(&[1, here + 1], &modules, &mut images, &|| false);
        assert_eq!(found.lines.len(), 2, "{found:?}");
        assert_eq!(found.lines[0], "  #0 0x1 in no known module");
        // Runtime's, as it is ours; but there is nothing else.
        let place = found.place.unwrap();
        assert!(
            place.starts_with("miniflow::engine::symbols::tests::names_lose_their_hash_only ("),
            "{place}"
        );
        assert!(place.contains("(symbols.rs:"), "{place}");
    }

    #[test]
    fn what_is_not_a_program_is_named_by_its_place() {
        for path in ["/dev/zero", "/nowhere", "/proc/self/status"] {
            let path = Path::new(path);
            let image = Image::open(path);
            let name = base_name(path.to_str().unwrap());
            assert_eq!(image.functions(path, 16), [format!("{name}+0x10")]);
        }
    }
}
