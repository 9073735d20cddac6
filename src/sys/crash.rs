//! Fault handlers: what a process does between the fault that kills it and its end.
//!
//! The handler reports to a [`Recorder`], then lets happen what would have happened without it: it
//! puts the disposition back that was there before and has the signal come again, so that a handler
//! of the host's language runs too and the process dies of the original signal. Everything here and
//! in a recorder is async-signal-safe but the unwinder, for which see [`unwind`]: if it hangs, a
//! timer ends the process; if it crashes, the handler is entered a second time and goes on without
//! it. No thread-local storage is touched but `errno`.
//!
//! One thread reports. Others that crash meanwhile wait, so that they do not end the process under
//! its hands; but not for ever.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::sys::unwind;

/// The signals that are reported.
const SIGNALS: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
];

/// How long the backtrace may take before the process is ended without the rest of it.
const UNWIND_SECONDS: libc::time_t = 1;
/// How often, and how many times, another thread that crashes looks whether the report is done.
const NAP_NS: libc::c_long = 1_000_000;
const NAPS: u32 = 3000;
/// How many times more, for the process to end by the signal that was reported.
const NAPS_AFTER: u32 = 100;

/// What the handler knows of a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) signal: i32,
    /// `si_code`.
    pub(crate) code: i32,
    pub(crate) address: u64,
    pub(crate) thread: u32,
    pub(crate) pc: u64,
}

/// Where a report goes. All of it is called in a signal handler.
pub(crate) trait Recorder: Sync {
    /// Whether this process may report: a forked child of the one that should may not.
    fn is_ours(&self) -> bool;
    /// What the thread was doing, for telling one crash from the next; 0 = nothing.
    fn task_of(&self, thread: u32) -> u64;
    /// A report begins.
    fn begin(&self, fault: &Fault, task: u64);
    /// One frame of the backtrace, innermost first. False if there is room for no more.
    fn frame(&self, address: u64) -> bool;
    /// There are no more frames.
    fn complete(&self);
}

/// What the five signals did at some time.
#[derive(Clone, Copy)]
pub(crate) struct Dispositions([libc::sigaction; SIGNALS.len()]);

impl Dispositions {
    /// What they do now.
    pub(crate) fn current() -> Self {
        Self(SIGNALS.map(|signal| {
            let old = action(signal, None);
            // In a worker that is a host itself: what its own handler would chain to.
            match installed() {
                Some(installed) if is_ours(&old) => *installed.previous.of(signal),
                _ => old,
            }
        }))
    }

    /// Whoever is ignored or does nothing special gets the default; handlers stay.
    pub(crate) fn handlers_only(mut self) -> Self {
        for action in &mut self.0 {
            if matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
                *action = default_action();
            }
        }
        self
    }

    fn of(&self, signal: i32) -> &libc::sigaction {
        let index = SIGNALS.iter().position(|&s| s == signal);
        &self.0[index.unwrap_or_default()]
    }
}

impl std::fmt::Debug for Dispositions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|action| action.sa_sigaction))
            .finish()
    }
}

struct Installed {
    recorder: &'static dyn Recorder,
    previous: Dispositions,
}

/// Never freed: the handler may run at any time.
static INSTALLED: AtomicPtr<Installed> = AtomicPtr::new(ptr::null_mut());
/// The thread that reports or has reported; 0 = none.
static REPORTER: AtomicU32 = AtomicU32::new(0);
/// The signal that it reports, and the task that it had in hand.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static TASK: AtomicU64 = AtomicU64::new(0);
/// The report is as complete as it will be.
static DONE: AtomicBool = AtomicBool::new(false);

fn installed() -> Option<&'static Installed> {
    // Acquire: pairs with the Release store in `install`.
    let installed = INSTALLED.load(Ordering::Acquire);
    // SAFETY: null, or a leaked box whose contents nobody changes.
    unsafe { installed.as_ref() }
}

/// Has faults reported to `recorder` from now on; the last installed one counts. Afterwards they go
/// to `previous`, or, if that is not given, to where they go now.
pub(crate) fn install(recorder: &'static dyn Recorder, previous: Option<Dispositions>) {
    let previous = previous.unwrap_or_else(Dispositions::current);
    unwind::warm_up();
    let installed = Box::leak(Box::new(Installed { recorder, previous }));
    // Relaxed: what an ancestor may have left, before any handler of this process can run.
    REPORTER.store(0, Ordering::Relaxed);
    DONE.store(false, Ordering::Relaxed);
    // Release: pairs with the acquire load in `installed`.
    INSTALLED.store(installed, Ordering::Release);
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
    let mut ours = default_action();
    ours.sa_sigaction = handler as usize;
    // NODEFER: a fault in the handler comes back to it, instead of ending the process.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    for signal in SIGNALS {
        action(signal, Some(&ours));
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
    action.sa_sigaction == handler as usize
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = errno_of_this_thread();
    // SAFETY: the kernel passes a valid description of the signal.
    let info = unsafe { &*info };
    let Some(installed) = installed() else {
        return die_of(signal); // cannot be: the handler is installed after this is set
    };
    let sent = info.si_code <= 0;
    if sent && installed.previous.of(signal).sa_sigaction == libc::SIG_IGN {
        return; // nobody is hurt
    }
    if installed.recorder.is_ours() {
        let thread = this_thread().cast_unsigned();
        // Relaxed: the winner is chosen by the exchange alone; what it writes is published by `DONE`
        // and by the recorder's own stores.
        match REPORTER.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => report(installed.recorder, signal, info, thread, context),
            Err(reporter) if reporter == thread => again(installed, thread, signal),
            Err(_) => wait_for_the_report(),
        }
    }
    // As if this handler had never been: an instruction that faults does so again when this
    // returns, and a signal that was sent is sent again.
    action(signal, Some(installed.previous.of(signal)));
    if sent {
        send_again(signal, info);
    }
    if let Some(errno) = errno {
        // SAFETY: this thread's own `errno`.
        unsafe { errno.0.write(errno.1) };
    }
}

fn report(
    recorder: &dyn Recorder,
    signal: i32,
    info: &libc::siginfo_t,
    thread: u32,
    context: *mut c_void,
) {
    // SAFETY: the kernel passes a valid context to a handler with SA_SIGINFO; it belongs to this
    // handler until that returns.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let pc = machine::pc(context);
    // SAFETY: the field is there for the signals that the kernel sends for a fault; of others it
    // is read as part of a structure that is initialised as a whole.
    let address = unsafe { info.si_addr() };
    let fault = Fault {
        signal,
        code: info.si_code,
        address: address.addr() as u64,
        thread,
        pc,
    };
    let task = recorder.task_of(thread);
    // Relaxed: read by this thread, or (in `on_alarm`) by one that may see any value and then ends
    // the process by SIGABRT instead.
    SIGNAL.store(signal, Ordering::Relaxed);
    TASK.store(task, Ordering::Relaxed);
    recorder.begin(&fault, task);
    let guard = HangGuard::arm();
    trace(recorder, pc, context);
    recorder.complete();
    drop(guard);
    // Release: pairs with the acquire loads in `again` and `wait_for_the_report`.
    DONE.store(true, Ordering::Release);
}

/// Reports the frames of what was interrupted.
fn trace(recorder: &dyn Recorder, pc: u64, context: &mut libc::ucontext_t) {
    if !matches!(peek(pc), Peek::Nothing) {
        let found = unwind::backtrace(pc, &mut |address| recorder.frame(address));
        if !found {
            recorder.frame(pc);
        }
        return;
    }
    // A jump to where no code is. The unwinder would look at the code there, and there is none;
    // but it can go on from the call, if that is taken back for it.
    recorder.frame(pc);
    let Some(before) = machine::take_back_call(context) else {
        return;
    };
    let mut call = 1; // the first address is where the call would have returned to: behind it
    unwind::backtrace(machine::pc(context), &mut |address| {
        recorder.frame(address.saturating_sub(std::mem::take(&mut call)))
    });
    machine::put_back(context, before);
}

/// The thread that reports, or has reported, is here again.
fn again(installed: &Installed, thread: u32, signal: c_int) {
    // Acquire: pairs with the Release store in `report`.
    let done = DONE.load(Ordering::Acquire);
    let first = SIGNAL.load(Ordering::Relaxed); // Relaxed: this thread stored it.
    if !done {
        // The unwinder has crashed. What it found is in the report; the fault that matters is the
        // first one.
        DONE.store(true, Ordering::Release); // Release: as in `report`.
        action(first, Some(installed.previous.of(first)));
        unblock(first);
        send(first);
    } else if signal == libc::SIGABRT
        && TASK.load(Ordering::Relaxed) == installed.recorder.task_of(thread)
    {
        // Relaxed: as above. A handler of the host's was given the first signal, and gives up by an
        // abort, as the standard library's does after a stack overflow.
        die_of(first);
    }
    // Else it was given the first signal and knew what to do, and this is another matter.
}

fn wait_for_the_report() {
    let nap = libc::timespec {
        tv_sec: 0,
        tv_nsec: NAP_NS,
    };
    let mut left = NAPS;
    let mut reported = false;
    while left > 0 {
        left -= 1;
        // Acquire: pairs with the Release store in `report`.
        if !reported && DONE.load(Ordering::Acquire) {
            // The process is to end by the signal that the report is about, not by this thread's:
            // whoever reported comes first, if it does end by it.
            reported = true;
            left = left.min(NAPS_AFTER);
        }
        // SAFETY: a valid span; the rest of an interrupted one is not asked for.
        unsafe { libc::nanosleep(&raw const nap, ptr::null_mut()) };
    }
}

/// While it lives, a hang ends this process by the signal that is being reported.
struct HangGuard {
    timer: libc::itimerval,
    action: libc::sigaction,
    mask: libc::sigset_t,
}

impl HangGuard {
    fn arm() -> Self {
        let handler: extern "C" fn(c_int) = on_alarm;
        let mut alarm = default_action();
        alarm.sa_sigaction = handler as usize;
        alarm.sa_flags = libc::SA_ONSTACK;
        let action = action(libc::SIGALRM, Some(&alarm));
        let mask = unblock(libc::SIGALRM);
        // SAFETY: plain memory, for which zero (no timer) is valid.
        let mut timer: libc::itimerval = unsafe { std::mem::zeroed() };
        timer.it_value.tv_sec = UNWIND_SECONDS;
        Self {
            timer: set_timer(&timer),
            action,
            mask,
        }
    }
}

impl Drop for HangGuard {
    /// The process may live on, if a handler of the host's knows what to do about the fault.
    fn drop(&mut self) {
        set_timer(&self.timer);
        action(libc::SIGALRM, Some(&self.action));
        // SAFETY: the mask that was in force before; the present one is not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
        }
    }
}

fn set_timer(timer: &libc::itimerval) -> libc::itimerval {
    let mut old = *timer;
    // SAFETY: a valid timer and a valid place for the one before.
    unsafe { libc::setitimer(libc::ITIMER_REAL, timer, &raw mut old) };
    old
}

extern "C" fn on_alarm(_: c_int) {
    // Relaxed: see `report`.
    match SIGNAL.load(Ordering::Relaxed) {
        0 => die_of(libc::SIGABRT),
        signal => die_of(signal),
    }
}

/// Ends this process by the default action of a signal.
fn die_of(signal: i32) {
    action(signal, Some(&default_action()));
    unblock(signal);
    send(signal);
}

fn this_process() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Sends this thread a signal.
fn send(signal: i32) {
    // SAFETY: a system call without memory. `raise` would be the same in the C library's words,
    // which may take its locks.
    unsafe { libc::syscall(libc::SYS_tgkill, this_process(), this_thread(), signal) };
}

/// Sends this thread the signal that it has just received, with what came along.
fn send_again(signal: i32, info: &libc::siginfo_t) {
    // SAFETY: a system call that reads the valid description of the signal.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            this_process(),
            this_thread(),
            signal,
            ptr::from_ref(info),
        )
    };
    if rc != 0 {
        send(signal);
    }
}

/// Sets what a signal does, if that is given; what it did before.
fn action(signal: i32, new: Option<&libc::sigaction>) -> libc::sigaction {
    let mut old = default_action();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: null, or a disposition that was in force before, or one with a handler of this file;
    // and a valid place for the answer.
    unsafe { libc::sigaction(signal, new, &raw mut old) };
    old
}

fn default_action() -> libc::sigaction {
    // SAFETY: an all-zero `sigaction` is SIG_DFL with an empty mask and no flags.
    unsafe { std::mem::zeroed() }
}

/// Unblocks a signal in this thread; the mask before.
fn unblock(signal: i32) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: an initialised set and a valid signal.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: an initialised set, and a valid place for the answer.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), old.as_mut_ptr()) };
    // SAFETY: zeroed, which is a valid (empty) set, and filled by the call above.
    unsafe { old.assume_init() }
}

/// Where this thread's `errno` is, and what it says.
fn errno_of_this_thread() -> Option<(ptr::NonNull<c_int>, c_int)> {
    // SAFETY: no preconditions.
    let place = ptr::NonNull::new(unsafe { libc::__errno_location() })?;
    // SAFETY: this thread's own `errno`.
    Some((place, unsafe { place.read() }))
}

/// What is at an address.
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        reason = "only there the return address of a call lies in memory"
    )
)]
enum Peek {
    /// This word.
    Word(u64),
    /// Nothing that could be read.
    Nothing,
    /// The kernel does not say.
    Unknown,
}

/// Reads a word that may not be there.
fn peek(address: u64) -> Peek {
    let Ok(address) = usize::try_from(address) else {
        return Peek::Nothing;
    };
    let mut word = 0_u64;
    let here = libc::iovec {
        iov_base: (&raw mut word).cast(),
        iov_len: size_of::<u64>(),
    };
    let there = libc::iovec {
        iov_base: ptr::without_provenance_mut(address),
        iov_len: size_of::<u64>(),
    };
    let pid = this_process();
    // SAFETY: `here` is `word`; what `there` names is read by the kernel, which refuses if it is
    // not readable.
    let read = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    match (read, errno_of_this_thread()) {
        (8, _) => Peek::Word(word),
        (-1, Some((_, libc::EFAULT))) => Peek::Nothing,
        _ => Peek::Unknown,
    }
}

/// What of the interrupted registers is where.
#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{Peek, peek};

    const PC: usize = libc::REG_RIP as usize;
    const STACK: usize = libc::REG_RSP as usize;

    pub(super) fn pc(context: &libc::ucontext_t) -> u64 {
        context.uc_mcontext.gregs[PC].cast_unsigned()
    }

    /// The program counter and the stack pointer as they were.
    pub(super) type Before = [i64; 2];

    /// Makes the context that of the caller, if the call has just been made; its return address
    /// lies on top of the stack.
    pub(super) fn take_back_call(context: &mut libc::ucontext_t) -> Option<Before> {
        let registers = &mut context.uc_mcontext.gregs;
        let before = [registers[PC], registers[STACK]];
        let Peek::Word(caller) = peek(registers[STACK].cast_unsigned()) else {
            return None;
        };
        let stack = registers[STACK].wrapping_add(8);
        set(context, [caller.cast_signed(), stack]);
        Some(before)
    }

    /// Volatile: the unwinder reads the registers where the kernel put them, which the compiler
    /// cannot know, and what is put back later would be all that it stores.
    fn set(context: &mut libc::ucontext_t, [pc, stack]: Before) {
        let registers = &mut context.uc_mcontext.gregs;
        // SAFETY: a place of its own.
        unsafe { (&raw mut registers[PC]).write_volatile(pc) };
        // SAFETY: as above.
        unsafe { (&raw mut registers[STACK]).write_volatile(stack) };
    }

    pub(super) fn put_back(context: &mut libc::ucontext_t, before: Before) {
        set(context, before);
    }
}

/// What of the interrupted registers is where.
#[cfg(target_arch = "aarch64")]
mod machine {
    const LINK: usize = 30;

    pub(super) fn pc(context: &libc::ucontext_t) -> u64 {
        context.uc_mcontext.pc
    }

    /// The program counter as it was.
    pub(super) type Before = u64;

    /// Makes the context that of the caller, if the call has just been made; its return address is
    /// in the link register.
    pub(super) fn take_back_call(context: &mut libc::ucontext_t) -> Option<Before> {
        let (before, caller) = (context.uc_mcontext.pc, context.uc_mcontext.regs[LINK]);
        put_back(context, caller);
        Some(before)
    }

    /// Volatile: the unwinder reads the registers where the kernel put them, which the compiler
    /// cannot know, and what is put back later would be all that it stores.
    pub(super) fn put_back(context: &mut libc::ucontext_t, pc: Before) {
        // SAFETY: a place of its own.
        unsafe { (&raw mut context.uc_mcontext.pc).write_volatile(pc) };
    }
}

/// Elsewhere there is no backtrace.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod machine {
    pub(super) fn pc(_: &libc::ucontext_t) -> u64 {
        0
    }

    pub(super) fn take_back_call(_: &mut libc::ucontext_t) -> Option<()> {
        None
    }

    pub(super) fn put_back(_: &mut libc::ucontext_t, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{self, Fork};
    use crate::sys::process::{Exit, Process};
    use std::time::{Duration, Instant};

    /// A recorder that does something with each frame, and counts what it is told.
    struct Test {
        with_frame: fn(),
        told: AtomicU32,
    }

    impl Recorder for Test {
        fn is_ours(&self) -> bool {
            true
        }

        fn task_of(&self, _: u32) -> u64 {
            0
        }

        fn begin(&self, fault: &Fault, _: u64) {
            assert_eq!((fault.signal, fault.code), (libc::SIGABRT, libc::SI_TKILL));
            self.told.fetch_add(1, Ordering::Relaxed);
        }

        fn frame(&self, _: u64) -> bool {
            (self.with_frame)();
            true
        }

        fn complete(&self) {
            self.told.fetch_add(100, Ordering::Relaxed);
        }
    }

    /// How a process ends that aborts, and how long that takes.
    fn end_of(with_frame: fn()) -> (Exit, Duration) {
        let start = Instant::now();
        // SAFETY: the child allocates, which a fork keeps possible, and ends itself.
        match unsafe { fork::fork() }.unwrap() {
            Fork::Child => {
                let recorder = Box::leak(Box::new(Test {
                    with_frame,
                    told: AtomicU32::new(0),
                }));
                fork::reset_signals();
                install(recorder, None);
                send(libc::SIGABRT);
                fork::exit(1);
            }
            Fork::Parent(pid) => {
                let child = Process::of_child(pid).unwrap();
                assert!(child.wait_end(Duration::from_secs(20)));
                (child.reap(), start.elapsed())
            }
        }
    }

    const ABORTED: Exit = Exit::Signal(libc::SIGABRT);

    #[test]
    fn the_process_ends_by_the_first_signal_also_if_the_backtrace_crashes_or_hangs() {
        assert_eq!(end_of(|| ()).0, ABORTED);
        let crash = || {
            // SAFETY: none: a process of its own is to crash here.
            unsafe { ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
        };
        assert_eq!(end_of(crash).0, ABORTED);
        assert_eq!(end_of(|| send(libc::SIGSEGV)).0, ABORTED);
        let (exit, time) = end_of(|| {
            loop {
                std::thread::sleep(Duration::from_secs(100));
            }
        });
        assert_eq!(exit, ABORTED);
        assert!(time >= Duration::from_secs(1), "{time:?}");
    }

    #[test]
    fn what_is_not_there_can_be_asked_for() {
        let word = 7_u64;
        assert!(matches!(
            peek((&raw const word).addr() as u64),
            Peek::Word(7) | Peek::Unknown
        ));
        assert!(!matches!(peek(8), Peek::Word(_)));
    }
}
