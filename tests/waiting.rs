//! Waiting, polling, the event fd, and results that hold memory: who gets what, and when.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Board, bytes, collect, cpu_only, until, watchdog, worker};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Completion, Engine, Error, Full, Outcome, SubmitOptions, TaskId, TaskState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const NOW: Option<Duration> = Some(Duration::ZERO);
const LONG: Option<Duration> = Some(Duration::from_secs(20));

fn echo(task: &mut Task<'_>) -> TaskResult {
    let payload = task.payload().to_vec();
    Ok(task.reply(&payload)?)
}

/// A handler that waits at a gate (word 0 of the board) and echoes; word 1 counts those that came.
fn gated(board: Board) -> impl Fn(&mut Task<'_>) -> TaskResult + Send + Sync {
    move |task| {
        board.add(1);
        board.wait(0);
        echo(task)
    }
}

/// A handler that replies with as many bytes as its payload says.
fn sized(task: &mut Task<'_>) -> TaskResult {
    let len = usize::from_le_bytes(task.payload().try_into()?);
    let seed = task.user_data();
    task.reply_buf(len)?.copy_from_slice(&bytes(seed, len));
    Ok(())
}

fn submit_sized(engine: &Engine, seed: u64, len: usize) -> TaskId {
    let options = SubmitOptions::new().user_data(seed);
    engine.submit_with(&len.to_le_bytes(), &options).unwrap()
}

// ---- wait and poll ----

#[test]
fn a_task_that_is_waited_for_never_comes_out_of_poll() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    let stop = AtomicBool::new(false);
    let polled = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                for completion in engine.poll(10, Some(Duration::from_millis(5))).unwrap() {
                    assert!(polled.lock().unwrap().insert(completion.id()), "twice");
                }
            }
        });
        let (mut waited, mut gone) = (0, 0);
        for number in 0..5000_u32 {
            let id = engine.submit(&number.to_le_bytes()).unwrap();
            // The poller may have been first: then the wait says so, at once.
            match engine.wait(id, LONG) {
                Ok(completion) => {
                    assert_eq!(completion.to_vec(), number.to_le_bytes());
                    assert!(
                        !polled.lock().unwrap().contains(&id),
                        "polled and waited for"
                    );
                    waited += 1;
                }
                Err(Error::NotFound) => gone += 1,
                Err(e) => panic!("{e}"),
            }
        }
        until("the rest is polled", || {
            polled.lock().unwrap().len() == gone
        });
        assert_eq!(waited + gone, 5000);
        stop.store(true, SeqCst);
    });
}

#[test]
fn waiters_and_blocked_pollers_get_what_is_theirs() {
    let _watchdog = watchdog(60);
    const POLLED: usize = 2000;
    let engine = cpu_only(2, 2).handler(echo).start().unwrap();
    let to_poll = AtomicUsize::new(POLLED);
    std::thread::scope(|scope| {
        for waiter in 0..3_u32 {
            let engine = &engine;
            scope.spawn(move || {
                for number in 0..700_u32 {
                    let label = *b"this is waited !";
                    let options = SubmitOptions::new().label(label).class(Class::CpuBound);
                    let payload = [waiter.to_le_bytes(), number.to_le_bytes()].concat();
                    // Submitted and waited for under the eyes of the pollers, which take what
                    // they can: only the marked completion that a poller got may be missing.
                    let id = engine.submit_with(&payload, &options).unwrap();
                    match engine.wait(id, LONG) {
                        Ok(completion) => assert_eq!(completion.to_vec(), payload),
                        Err(Error::NotFound) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                while to_poll.load(SeqCst) > 0 {
                    for completion in engine.poll(3, Some(Duration::from_millis(50))).unwrap() {
                        if completion.label().0 == [0; 16] {
                            to_poll.fetch_sub(1, SeqCst);
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..POLLED {
                engine.submit(b"for whoever polls").unwrap();
            }
        });
    });
    assert_eq!(engine.poll(1, NOW).unwrap().len(), 0);
    assert_eq!(engine.stats().completed, 3 * 700 + POLLED as u64);
}

#[test]
fn a_second_waiter_for_the_same_task_is_refused() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(gated(board)).start().unwrap();
    let id = engine.submit(b"x").unwrap();
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| match engine.wait(id, LONG) {
                    Err(Error::Invalid(text)) => {
                        assert!(text.contains(&id.to_string()), "{text}");
                        refused.fetch_add(1, SeqCst);
                        false
                    }
                    other => other.unwrap().to_vec() == b"x",
                })
            })
            .collect();
        until("two are refused", || refused.load(SeqCst) == 2);
        board.set(0, 1);
        let got = waiters
            .into_iter()
            .filter_map(|w| w.join().unwrap().then_some(()));
        assert_eq!(got.count(), 1);
    });
}

#[test]
fn what_a_wait_did_not_wait_for_is_polled() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(gated(board)).start().unwrap();
    let id = engine.submit(b"late").unwrap();
    for timeout in [0, 1, 30] {
        let wait = Some(Duration::from_millis(timeout));
        assert!(matches!(engine.wait(id, wait), Err(Error::Timeout)));
    }
    board.set(0, 1);
    let done = engine.poll(1, None).unwrap();
    assert_eq!((done[0].id(), done[0].to_vec()), (id, b"late".to_vec()));
    assert!(matches!(engine.wait(id, None), Err(Error::NotFound)));
}

#[test]
fn a_completion_that_arrives_while_a_wait_gives_up_is_not_lost() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    for number in 0..3000_u64 {
        let id = engine.submit(&number.to_le_bytes()).unwrap();
        // About as long as a round trip takes.
        match engine.wait(id, Some(Duration::from_micros(number % 100))) {
            Ok(completion) => assert_eq!(completion.id(), id),
            Err(Error::Timeout) => {
                let done = engine.poll(10, LONG).unwrap();
                assert_eq!(done.len(), 1);
                assert_eq!(done[0].id(), id);
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn poll_takes_no_more_than_it_is_asked_for_and_waits_no_longer() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(echo).start().unwrap();
    let start = Instant::now();
    assert!(
        engine
            .poll(1, Some(Duration::from_millis(30)))
            .unwrap()
            .is_empty()
    );
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(engine.poll(0, None).unwrap().is_empty());
    for _ in 0..10 {
        engine.submit(b"").unwrap();
    }
    until("all have ended", || engine.stats().unpolled == 10);
    for left in [3, 3, 3, 1, 0] {
        assert_eq!(engine.poll(3, NOW).unwrap().len(), left);
    }
}

#[test]
fn many_submitters_and_pollers_share_an_engine() {
    let _watchdog = watchdog(60);
    const EACH: usize = 2000;
    let engine = cpu_only(2, 2).handler(echo).max_tasks(500).start().unwrap();
    let left = AtomicUsize::new(6 * EACH);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for first in 0..6 {
            let engine = &engine;
            scope.spawn(move || {
                let options = SubmitOptions::new();
                for number in 0..EACH {
                    let payload = (first * EACH + number).to_le_bytes();
                    // It cannot know that other threads are about to poll.
                    while let Err(e) = engine.submit_wait(&payload, &options, LONG) {
                        assert!(matches!(e, Error::WouldBlock(Full::Unpolled)), "{e}");
                        std::thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..6 {
            scope.spawn(|| {
                while left.load(SeqCst) > 0 {
                    for c in engine.poll(20, Some(Duration::from_millis(20))).unwrap() {
                        let number = c.as_bytes().unwrap().try_into().unwrap();
                        sum.fetch_add(usize::from_le_bytes(number), SeqCst);
                        left.fetch_sub(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), (0..6 * EACH).sum::<usize>());
}

#[test]
fn the_iterator_ends_when_nothing_is_in_flight() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    assert_eq!(engine.completions().count(), 0);
    for _ in 0..1000 {
        engine.submit(b"x").unwrap();
    }
    assert_eq!(
        engine
            .completions()
            .filter(Completion::is_completed)
            .count(),
        1000
    );
}

// ---- room ----

#[test]
fn submit_wait_gets_room_when_a_completion_is_taken() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    // As many tasks end as word 0 of the board says.
    let handler = move |task: &mut Task<'_>| {
        let number = board.add(1);
        until("it may end", || board.get(0) > number);
        echo(task)
    };
    let engine = cpu_only(1, 1)
        .handler(handler)
        .max_tasks(4)
        .start()
        .unwrap();
    for _ in 0..4 {
        engine.submit(b"").unwrap();
    }
    let options = SubmitOptions::new();
    let full = engine.submit(b"");
    assert!(
        matches!(full, Err(Error::WouldBlock(Full::Tasks))),
        "{full:?}"
    );
    let timeout = engine.submit_wait(b"", &options, Some(Duration::from_millis(20)));
    assert!(matches!(timeout, Err(Error::Timeout)), "{timeout:?}");
    std::thread::scope(|scope| {
        let submitter = scope.spawn(|| engine.submit_wait(b"fifth", &options, LONG));
        let poller = scope.spawn(|| engine.poll(1, LONG).unwrap().len());
        board.set(0, 1);
        assert_eq!(poller.join().unwrap(), 1);
        submitter.join().unwrap().unwrap();
    });
    board.set(0, 5);
    let done = collect(&engine, 4);
    assert_eq!(done.iter().filter(|c| c.to_vec() == b"fifth").count(), 1);
    assert!(engine.stats().would_block >= 2);
}

#[test]
fn submit_wait_does_not_wait_for_room_that_only_polling_could_make() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(echo).max_tasks(4).start().unwrap();
    for _ in 0..4 {
        engine.submit(b"").unwrap();
    }
    until("all have ended", || engine.stats().unpolled == 4);
    let answer = engine.submit_wait(b"", &SubmitOptions::new(), None);
    assert!(
        matches!(answer, Err(Error::WouldBlock(Full::Unpolled))),
        "{answer:?}"
    );
    collect(&engine, 1);
    engine
        .submit_wait(b"", &SubmitOptions::new(), None)
        .unwrap();
}

#[test]
fn submit_wait_that_waits_for_running_tasks_says_when_polling_is_the_only_way() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(gated(board))
        .max_tasks(2)
        .start()
        .unwrap();
    engine.submit(b"").unwrap();
    engine.submit(b"").unwrap();
    std::thread::scope(|scope| {
        let submitter = scope.spawn(|| engine.submit_wait(b"", &SubmitOptions::new(), None));
        board.set(0, 1);
        let answer = submitter.join().unwrap();
        assert!(
            matches!(answer, Err(Error::WouldBlock(Full::Unpolled))),
            "{answer:?}"
        );
    });
}

#[test]
fn a_full_payload_arena_blocks_until_a_task_has_ended() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(gated(board))
        .max_payload(1 << 20)
        .payload_arena(4 << 20)
        .start()
        .unwrap();
    let payload = vec![3; 1 << 20];
    for _ in 0..4 {
        engine.submit(&payload).unwrap();
    }
    assert!(matches!(
        engine.submit(&payload),
        Err(Error::WouldBlock(Full::Payloads))
    ));
    assert!(matches!(
        engine.loan(1 << 20),
        Err(Error::WouldBlock(Full::Payloads))
    ));
    engine.submit(b"small ones need no room").unwrap();
    std::thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            let options = SubmitOptions::new();
            engine.submit_wait(&payload, &options, LONG).unwrap();
        });
        board.set(0, 1);
        submitter.join().unwrap();
    });
    collect(&engine, 6);
    assert_eq!(engine.stats().payload_bytes, 0);
}

#[test]
fn a_loan_that_is_dropped_makes_room() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(echo)
        .max_payload(1 << 20)
        .payload_arena(1 << 20)
        .start()
        .unwrap();
    let loan = engine.loan(1 << 20).unwrap();
    // Nothing is in flight that could end: waiting would be for ever.
    let answer = engine.submit_wait(&[0; 1000], &SubmitOptions::new(), None);
    assert!(
        matches!(answer, Err(Error::WouldBlock(Full::Payloads))),
        "{answer:?}"
    );
    drop(loan);
    let mut loan = engine.loan(1 << 20).unwrap();
    loan.fill(9);
    let id = loan.submit(&SubmitOptions::new()).unwrap();
    assert!(engine.wait(id, LONG).unwrap().to_vec() == vec![9; 1 << 20]);
    let empty = engine
        .loan(0)
        .unwrap()
        .submit(&SubmitOptions::new())
        .unwrap();
    assert!(engine.wait(empty, LONG).unwrap().is_empty());
}

// ---- the event fd ----

fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let span = Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    poll(
        &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
        Some(&span),
    )
    .unwrap()
        == 1
}

/// Polls until nothing comes and the descriptor is not readable. (A worker may signal once more for
/// what was found before it said so: then there is one more round.)
#[track_caller]
fn poll_dry(engine: &Engine) -> usize {
    let mut total = 0;
    for _ in 0..1000 {
        loop {
            let got = engine.poll(7, NOW).unwrap().len();
            total += got;
            if got == 0 {
                break;
            }
        }
        if !readable(engine.event_fd().unwrap(), Duration::ZERO) {
            return total;
        }
    }
    panic!("readable after every one of 1000 polls that found nothing");
}

#[test]
fn the_event_fd_is_readable_while_completions_wait() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1).handler(gated(board)).start().unwrap();
    let fd = engine.event_fd().unwrap();
    assert!(!readable(fd, Duration::ZERO));
    for _ in 0..2 {
        engine.submit(b"").unwrap();
    }
    until("both run", || board.get(1) == 2);
    assert_eq!(poll_dry(&engine), 0);
    assert!(
        !readable(fd, Duration::from_millis(20)),
        "nothing has ended"
    );
    for _ in 0..8 {
        engine.submit(b"").unwrap();
    }
    board.set(0, 1);
    let mut left = 10;
    while left > 0 {
        assert!(
            readable(fd, Duration::from_secs(10)),
            "{left} left: {:?}",
            engine.stats()
        );
        left -= poll_dry(&engine);
    }
    assert!(!readable(fd, Duration::from_millis(20)));
    // What the supervisor has drained and what a short poll has left counts as well.
    for _ in 0..10 {
        engine.submit(b"").unwrap();
    }
    until("all have ended", || engine.stats().unpolled == 10);
    assert!(readable(fd, Duration::from_secs(10)));
    assert_eq!(engine.poll(9, NOW).unwrap().len(), 9);
    assert!(readable(fd, Duration::ZERO), "one is left");
    assert_eq!(poll_dry(&engine), 1);
}

#[test]
fn a_loop_on_the_event_fd_misses_nothing() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 2).handler(echo).start().unwrap();
    let fd = engine.event_fd().unwrap();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // One at a time, in bursts and in between: sleeping hosts and workers take turns.
            for burst in 0..400_usize {
                for _ in 0..1 + burst % 7 * 5 {
                    engine.submit(&[0; 20]).unwrap();
                }
                until("the burst is over", || {
                    done.load(SeqCst) as u64 == engine.stats().submitted
                });
            }
        });
        let total: usize = (0..400_usize).map(|burst| 1 + burst % 7 * 5).sum();
        while done.load(SeqCst) < total {
            assert!(
                readable(fd, Duration::from_secs(10)),
                "{:?}",
                engine.stats()
            );
            loop {
                let got = engine.poll(16, NOW).unwrap().len();
                done.fetch_add(got, SeqCst);
                if got == 0 {
                    break;
                }
            }
        }
    });
}

#[test]
fn the_event_fd_announces_completions_that_the_engine_makes_itself() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(gated(board)).start().unwrap();
    let fd = engine.event_fd().unwrap();
    engine.submit(b"").unwrap();
    until("it runs", || board.get(1) == 1);
    let queued: Vec<TaskId> = (0..5).map(|_| engine.submit(b"").unwrap()).collect();
    assert_eq!(poll_dry(&engine), 0);
    engine.cancel(queued[4]).unwrap();
    assert!(readable(fd, Duration::from_secs(10)));
    let done = engine.poll(10, NOW).unwrap();
    assert_eq!(
        (done[0].id(), done[0].outcome()),
        (queued[4], Outcome::Cancelled)
    );
    common::kill(worker(&engine, 0).pid);
    assert!(readable(fd, Duration::from_secs(10)), "a crash");
    board.set(0, 1);
    let mut left = 5;
    while left > 0 {
        assert!(readable(fd, Duration::from_secs(10)));
        left -= poll_dry(&engine);
    }
}

#[test]
fn the_event_fd_watches_workers_that_came_later() {
    let _watchdog = watchdog(60);
    let engine = Engine::builder()
        .handler(echo)
        .workers_between(Class::CpuBound, 1, 3)
        .workers(Class::IoBound, 0)
        .start()
        .unwrap();
    let fd = engine.event_fd().unwrap();
    engine.resize(Class::CpuBound, 3).unwrap();
    until("three are ready", || engine.stats().workers == 3);
    common::kill(worker(&engine, 0).pid);
    until("it is replaced", || {
        engine.stats().spawned == 4 && engine.stats().workers == 3
    });
    for _ in 0..50 {
        poll_dry(&engine);
        for _ in 0..6 {
            engine.submit(b"").unwrap();
        }
        let mut left = 6;
        while left > 0 {
            assert!(readable(fd, Duration::from_secs(10)));
            left -= poll_dry(&engine);
        }
    }
}

// ---- large results ----

#[test]
fn large_results_are_read_in_place_and_given_back() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(sized)
        .max_result(8 << 20)
        .result_arena(16 << 20)
        .start()
        .unwrap();
    // Together far more than the arena: each has to be given back.
    for (round, len) in (0..20).zip([64 << 10, 8 << 20, (1 << 20) + 1, 3 << 20].iter().cycle()) {
        let id = submit_sized(&engine, round, *len);
        let completion = engine.wait(id, LONG).unwrap();
        assert!(completion.is_completed(), "{}", completion.text());
        assert_eq!((completion.len(), completion.as_bytes()), (*len, None));
        let expected = bytes(round, *len);
        assert!(completion.to_vec() == expected);
        let mut read = Vec::new();
        completion.reader().read_to_end(&mut read).unwrap();
        assert!(read == expected);
        let mut start = [0; 1000];
        assert_eq!(completion.copy_to(&mut start), 1000);
        assert_eq!(start, expected[..1000]);
        assert!(!completion.as_ptr().is_null());
    }
}

#[test]
fn results_of_every_size_arrive_whole() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(sized).start().unwrap();
    let edges = [48, 152, 4096, 16 << 10, 64 << 10, 256 << 10];
    let mut lens: Vec<usize> = edges.iter().flat_map(|&n| [n - 1, n, n + 1]).collect();
    lens.extend([0, 1, 7, 8, 9]);
    for (seed, &len) in (0..).zip(&lens) {
        submit_sized(&engine, seed, len);
    }
    for completion in collect(&engine, lens.len()) {
        let seed = completion.user_data();
        assert!(completion.is_completed(), "{}", completion.text());
        assert!(completion.to_vec() == bytes(seed, lens[seed as usize]));
        let in_host = completion.len() < 16 << 10;
        assert_eq!(completion.as_bytes().is_some(), in_host);
    }
}

#[test]
fn a_reply_fails_when_the_host_keeps_all_result_memory() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(sized)
        .max_result(1 << 20)
        .result_arena(2 << 20)
        .reply_wait(Duration::from_millis(100))
        .start()
        .unwrap();
    let hold = |seed| {
        let id = submit_sized(&engine, seed, 1 << 20);
        engine.wait(id, LONG).unwrap()
    };
    let mut held = vec![hold(0), hold(1)];
    assert!(held.iter().all(Completion::is_completed));
    let failed = hold(2);
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert!(failed.text().contains("out of memory"), "{}", failed.text());
    assert!(failed.ran() >= Duration::from_millis(100));
    assert!(
        held[1].to_vec() == bytes(1, 1 << 20),
        "what is held is untouched"
    );
    // Small results need no room, and one that is given back makes room.
    let small = submit_sized(&engine, 3, 100);
    assert!(engine.wait(small, LONG).unwrap().is_completed());
    held.pop();
    assert!(hold(4).is_completed());
}

#[test]
fn a_reply_waits_for_memory_that_is_given_back_in_time() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(sized)
        .max_result(1 << 20)
        .result_arena(1 << 20)
        .start()
        .unwrap();
    let first = submit_sized(&engine, 0, 1 << 20);
    let held = engine.wait(first, LONG).unwrap();
    let second = submit_sized(&engine, 1, 1 << 20);
    until("it runs", || {
        matches!(
            engine.task_state(second).unwrap(),
            TaskState::Running { .. }
        )
    });
    drop(held);
    let completion = engine.wait(second, LONG).unwrap();
    assert!(completion.is_completed(), "{}", completion.text());
    assert!(completion.to_vec() == bytes(1, 1 << 20));
}

#[test]
fn results_that_nobody_fetches_do_not_stop_their_worker() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(sized)
        .max_result(1 << 20)
        .result_arena(2 << 20)
        .start()
        .unwrap();
    for seed in 0..20 {
        submit_sized(&engine, seed, 1 << 20);
    }
    until("all have ended", || engine.stats().unpolled == 20);
    for completion in collect(&engine, 20) {
        assert!(completion.is_completed(), "{}", completion.text());
        assert!(completion.to_vec() == bytes(completion.user_data(), 1 << 20));
    }
}

#[test]
fn a_result_that_is_too_large_fails_its_task() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(sized)
        .max_result(1 << 20)
        .start()
        .unwrap();
    let id = submit_sized(&engine, 0, (1 << 20) + 1);
    let failed = engine.wait(id, LONG).unwrap();
    assert_eq!((failed.outcome(), failed.code()), (Outcome::Failed, 1));
    assert!(failed.text().contains("1048577"), "{}", failed.text());
}

// ---- cancel, progress, what a handler sees ----

#[test]
fn a_queued_task_that_is_cancelled_never_runs() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(gated(board)).start().unwrap();
    let running = engine.submit(b"runs").unwrap();
    until("it runs", || board.get(1) == 1);
    let queued: Vec<TaskId> = (0..20).map(|_| engine.submit(b"").unwrap()).collect();
    for &id in &queued {
        assert_eq!(engine.task_state(id).unwrap(), TaskState::Queued);
        engine.cancel(id).unwrap();
        engine.cancel(id).unwrap(); // once more changes nothing
    }
    board.set(0, 1);
    for id in queued {
        let completion = engine.wait(id, LONG).unwrap();
        assert_eq!(completion.outcome(), Outcome::Cancelled);
        assert!(matches!(engine.cancel(id), Err(Error::NotFound)));
    }
    assert!(engine.wait(running, LONG).unwrap().is_completed());
    assert_eq!(board.get(1), 1, "no other has run");
}

#[test]
fn a_running_task_is_told_that_it_is_cancelled() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(move |task| {
            assert!(!task.is_cancelled());
            board.set(0, 1);
            while !task.is_cancelled() {
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(miniflow::worker::Failure::new(77, "as you wish"))
        })
        .start()
        .unwrap();
    let id = engine.submit(b"").unwrap();
    until("it runs", || board.get(0) == 1);
    engine.cancel(id).unwrap();
    let completion = engine.wait(id, LONG).unwrap();
    assert_eq!(
        (completion.outcome(), completion.code()),
        (Outcome::Failed, 77)
    );
    assert_eq!(completion.text(), "as you wish");
}

#[test]
fn the_state_of_a_task_and_its_progress_can_be_seen() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(move |task| {
            task.progress(3, 10);
            board.set(1, 1);
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    let first = engine.submit(b"").unwrap();
    until("it runs", || board.get(1) == 1);
    let second = engine.submit(b"").unwrap();
    match engine.task_state(first).unwrap() {
        TaskState::Running {
            worker: 0,
            elapsed,
            progress,
        } => {
            assert!(elapsed < Duration::from_secs(60));
            assert_eq!(progress, (3, 10));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.task_state(second).unwrap(), TaskState::Queued);
    let row = worker(&engine, 0);
    assert_eq!(row.running, 1);
    board.set(0, 1);
    until("both have ended", || engine.stats().unpolled == 2);
    assert_eq!(engine.task_state(first).unwrap(), TaskState::Done);
    collect(&engine, 2);
    assert!(matches!(engine.task_state(first), Err(Error::NotFound)));
}

#[test]
fn a_handler_can_write_its_reply_while_it_reads_its_payload() {
    let _watchdog = watchdog(30);
    let engine = cpu_only(1, 1)
        .handler(|task: &mut miniflow::worker::Task<'_>| {
            let len = task.payload().len();
            let (payload, reply) = task.payload_and_reply_buf(len)?;
            for (to, from) in reply.iter_mut().zip(payload.iter().rev()) {
                *to = *from;
            }
            Ok(())
        })
        .start()
        .unwrap();
    for len in [0, 1, 40, 41, 152, 153, 100_000] {
        let payload: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
        let id = engine.submit(&payload).unwrap();
        let mut reply = engine.wait(id, None).unwrap().to_vec();
        reply.reverse();
        assert_eq!(reply, payload, "{len} bytes");
    }
}

#[test]
fn a_handler_sees_what_the_submitter_said() {
    let _watchdog = watchdog(60);
    let engine = Engine::builder()
        .handler(|task| {
            let text = format!(
                "{} {} {} {} {:?} {}",
                task.id(),
                task.user_data(),
                String::from_utf8_lossy(&task.label().0),
                task.attempt(),
                task.class(),
                task.worker()
            );
            Ok(task.reply(text.as_bytes())?)
        })
        .workers(Class::CpuBound, 0)
        .workers(Class::IoBound, 1)
        .start()
        .unwrap();
    let options = SubmitOptions::new()
        .class(Class::IoBound)
        .label(*b"sixteen letters!")
        .user_data(u64::MAX);
    let id = engine.submit_with(b"", &options).unwrap();
    let completion = engine.wait(id, LONG).unwrap();
    let expected = format!("{id} {} sixteen letters! 1 IoBound 0", u64::MAX);
    assert_eq!(completion.text(), expected);
    assert_eq!(completion.user_data(), u64::MAX);
    assert_eq!(&completion.label().0, b"sixteen letters!");
    assert_eq!((completion.attempt(), completion.worker()), (1, 0));
}

#[test]
fn what_a_handler_fails_with_arrives() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task| {
            match task.payload() {
                b"question mark" => drop(std::fs::File::open("/nonexistent")?),
                b"fail" => task.fail(-5, "by the task"),
                b"reply, then fail" => {
                    task.reply(&[1; 100_000])?;
                    return Err("after all not".into());
                }
                b"long" => return Err("x".repeat(100_000).as_str().into()),
                _ => {
                    task.reply(&[1; 100_000])?;
                    task.reply(b"second")?; // replaces the first
                }
            }
            Ok(())
        })
        .start()
        .unwrap();
    let run = |payload: &str| {
        let id = engine.submit(payload.as_bytes()).unwrap();
        engine.wait(id, LONG).unwrap()
    };
    let failed = run("question mark");
    assert_eq!((failed.outcome(), failed.code()), (Outcome::Failed, 1));
    assert!(failed.text().contains("No such file"), "{}", failed.text());
    let failed = run("fail");
    assert_eq!((failed.code(), failed.text().as_str()), (-5, "by the task"));
    assert_eq!(run("reply, then fail").text(), "after all not");
    assert_eq!(run("long").text(), "x".repeat(100_000));
    assert_eq!(run("").to_vec(), b"second");
}
