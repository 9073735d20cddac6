//! The corpus, programs at random, and a worker that writes while the host reads.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use super::double::*;
use super::*;

/// A small generator; the seed is printed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }
}

/// `MINIFLOW_SEED`, or the clock's.
fn seed(what: &str) -> u64 {
    let given = std::env::var("MINIFLOW_SEED")
        .ok()
        .map(|s| s.parse().unwrap());
    let seed = given.unwrap_or_else(|| Clock::calibrate().now() | 1);
    println!("{what}: MINIFLOW_SEED={seed}");
    seed
}

fn long() -> bool {
    std::env::var_os("MINIFLOW_LONG").is_some_and(|v| v != "0")
}

/// How often each operation comes up, so that programs get somewhere before they are found out.
const WEIGHTS: [(u8, u8); OPS as usize] = [
    (op::SUBMIT, 24),
    (op::DRAIN, 16),
    (op::THOROUGH, 6),
    (op::EARLY, 14),
    (op::CANCEL, 3),
    (op::AWAIT, 4),
    (op::FETCH, 6),
    (op::LOOK, 1),
    (op::DROP, 8),
    (op::BURY, 1),
    (op::RECALL, 2),
    (op::TO_HEAP, 1),
    (op::GROW, 1),
    (op::WORK, 8),
    (op::PLAY, 16),
    (op::SIGNALS, 1),
    (op::WORD, 10),
    (op::BURST, 1),
    (op::TICKET, 14),
    (op::DONE, 10),
    (op::KIND, 14),
    (op::OFFSET, 14),
    (op::TIMES, 14),
    (op::FLIP, 6),
    (op::FLIPS, 1),
    (op::HEAD, 4),
    (op::EPOCH, 10),
    (op::FORGE, 30),
    (op::TWICE, 8),
    (op::RETURN, 2),
];

/// A program of so many instructions. `gentle` ones do without what is found out at once.
fn program(random: &mut Random, instructions: usize, gentle: bool) -> Vec<u8> {
    let crude = [op::SIGNALS, op::WORD, op::BURST, op::FLIPS, op::HEAD];
    let weight = |code: u8, weight: u8| match gentle && crude.contains(&code) {
        true => 0,
        false => usize::from(weight),
    };
    let total: usize = WEIGHTS.iter().map(|&(c, w)| weight(c, w)).sum();
    let mut data = vec![random.next() as u8];
    for _ in 0..instructions {
        let mut left = random.below(total);
        let code = WEIGHTS.iter().find(|&&(c, w)| {
            let here = left < weight(c, w);
            left = left.saturating_sub(weight(c, w));
            here
        });
        data.push(code.unwrap().0);
        data.extend_from_slice(&random.next().to_le_bytes()[..INSTRUCTION - 1]);
    }
    data
}

#[test]
fn the_words_of_a_slot_are_where_the_harness_writes_them() {
    let mut world = World::new(0);
    let double = world.doubles[1].take().unwrap();
    let words = double.lane.words();
    let up = double.lane.up();
    up.slots[7].start(11, 12, 1);
    let mut ending = Ending::new(Kind::Failed);
    (ending.len, ending.code, ending.start, ending.end) = (13, 14, 15, 16);
    up.slots[7].finish(17, &ending, &[18; RESULT_WORDS]);
    let word = |word| words[slot_word(7, word)].load(Relaxed);
    assert_eq!((word(W_TICKET), word(W_START), word(W_DONE)), (11, 12, 17));
    assert_eq!((word(W_KIND), word(W_CODE)), (1 | 13 << 32, 14));
    assert_eq!(
        (word(W_TIMES), word(W_TIMES + 1), word(W_RESULT)),
        (15, 16, 18)
    );
    double.xor(BITMAP, 1 << 7);
    let mut collector = crate::shm::slot::Collector::new();
    let scan = collector.scan(&up.bitmap, &up.slots, 9, |_, _, _| ());
    assert_eq!(scan, crate::shm::slot::Scan::Violation);
    double.store(EPOCH, 3);
    assert_eq!(up.sleep_epoch.0.load(Relaxed), 3);
}

// ---- single lies ----

const OUT: u8 = 0; // the first slot that is out

fn run_each(instructions: &[[u8; INSTRUCTION]]) -> Report {
    let mut data = vec![0];
    data.extend(instructions.iter().flatten());
    run(&data)
}

/// Tasks are out on the hostile lane and taken by its worker.
const GIVEN: [[u8; INSTRUCTION]; 2] = [[op::SUBMIT, 0, 5, 3, 7, 0], [op::PLAY, 0, 0, 7, 0, 0]];
const DRAIN: [u8; INSTRUCTION] = [op::DRAIN, 0, 255, 0, 0, 0];
const LOOK: [u8; INSTRUCTION] = [op::LOOK, 0, 0, 0, 0, 0];

/// An instruction about the first hostile lane.
const fn i(code: u8, [a, b, c, d]: [u8; 4]) -> [u8; INSTRUCTION] {
    [code, 0, a, b, c, d]
}

#[test]
fn each_lie_that_can_be_seen_is() {
    let lies = [
        ("a flip without a done word", i(op::FLIP, [OUT, 0, 0, 0])),
        ("the flip of a free slot", i(op::FLIP, [250, 0, 0, 0])),
        ("an unknown kind", i(op::FORGE, [OUT, 240, 0, 0])),
        (
            "an inline result too long",
            i(op::FORGE, [OUT, 0, 5 << 1, 0]),
        ),
        ("a result too long", i(op::FORGE, [OUT, 0, 11 << 1 | 1, 0])),
        ("the longest result", i(op::FORGE, [OUT, 0, 12 << 1 | 1, 0])),
        (
            "a result half outside",
            i(op::FORGE, [OUT, 0, 1 | 31 << 1, 2 << 1]),
        ),
        ("a result outside", i(op::FORGE, [OUT, 0, 1, 12 << 1])),
        (
            "a result outside the mapping",
            i(op::FORGE, [OUT, 0, 3, 9 << 1]),
        ),
        (
            "a sum that wraps around",
            i(op::FORGE, [OUT, 0, 31 << 1 | 1, 11 << 1]),
        ),
        (
            "a misaligned result",
            i(op::FORGE, [OUT, 0, 31 << 1 | 1, 6 << 1]),
        ),
        ("started and handed back", i(op::FORGE, [OUT, 210, 0, 0])),
        ("a head in the future", i(op::HEAD, [1, 0, 0, 0])),
        ("a head in the past", i(op::HEAD, [3, 200, 0, 0])),
        ("a head at the end of numbers", i(op::HEAD, [4, 0, 0, 0])),
        ("signals for nothing", i(op::SIGNALS, [2, 200, 0, 0])),
        ("signals without end", i(op::SIGNALS, [3, 0, 0, 0])),
    ];
    for (what, lie) in lies {
        let report = run_each(&[&GIVEN[..], &[lie, DRAIN, LOOK]].concat());
        assert_eq!(report.violations, 1, "{what}: {report:?}");
    }
    let honest = [&GIVEN[..], &[i(op::PLAY, [3, 7, 0, 0]), DRAIN, LOOK]].concat();
    let report = run_each(&honest);
    assert_eq!((report.violations, report.mutations), (0, 0), "{report:?}");
    assert!(report.completed_by_hostile > 0, "{report:?}");
}

#[test]
fn what_an_honest_worker_might_say_is_believed() {
    let odd = [
        ("any time", i(op::FORGE, [OUT, 0, 0, 6])),
        (
            "the largest result",
            i(op::FORGE, [OUT, 0, 10 << 1 | 1, 4 << 1]),
        ),
        (
            "to the last byte",
            i(op::FORGE, [OUT, 0, 31 << 1 | 1, 5 << 1]),
        ),
        ("nothing at the end", i(op::FORGE, [OUT, 0, 1, 7 << 1])),
        ("a failure", i(op::FORGE, [OUT, 170, 31 << 1, 0])),
        ("a cancellation", i(op::FORGE, [OUT, 200, 0, 0])),
        ("any epoch", i(op::EPOCH, [255, 255, 255, 255])),
        ("any code", i(op::FORGE, [OUT, 0, 0, 254])),
    ];
    for (what, odd) in odd {
        let report = run_each(&[&GIVEN[..], &[odd, DRAIN, LOOK]].concat());
        assert_eq!(report.violations, 0, "{what}: {report:?}");
    }
}

#[test]
fn completions_that_are_never_announced_are_noticed() {
    let mut world = World::new(0);
    let mut unannounced = 0;
    while unannounced <= 16 * 3 {
        world.step(i(op::SUBMIT, [0, 3, 0, 0]));
        world.step(i(op::WORK, [15, 0, 0, 0]));
        if world.core.lanes[1].as_ref().unwrap().load() > 0 {
            world.step(i(op::PLAY, [0, 0, 0, 0]));
            world.step(i(op::FORGE, [OUT, 0, 0, 1])); // done, but no flip
            unannounced += 1;
        }
        world.look();
        assert_eq!(world.core.totals.violations, 0, "after {unannounced}");
        world.step(i(op::THOROUGH, [255, 0, 0, 0]));
    }
    world.look();
    assert_eq!(world.core.totals.violations, 1);
    world.finish();
}

#[test]
fn tasks_that_are_claimed_and_never_started_are_noticed() {
    let mut world = World::new(0);
    for _ in 0..20 {
        // Short tasks: the lane becomes deep.
        world.step(i(op::SUBMIT, [0, 3, 7, 0]));
        world.step(i(op::PLAY, [3, 7, 0, 0]));
        world.step(i(op::WORK, [15, 0, 0, 0]));
        world.step(DRAIN);
    }
    while world.core.lanes[1].as_ref().unwrap().load() < 5 {
        world.step(i(op::SUBMIT, [0, 3, 0, 0]));
    }
    world.look();
    assert_eq!(world.core.totals.violations, 0);
    world.step(i(op::HEAD, [2, 0, 0, 0])); // to the last that was published
    world.look();
    assert_eq!(world.core.totals.violations, 1);
    world.finish();
}

#[test]
fn more_blocks_in_place_than_a_worker_can_have_are_refused() {
    let world = World::new(0);
    let lane = world.core.lanes[1].as_ref().unwrap();
    let place = |offset| crate::engine::completion::Data::in_place(&lane.shared, 1, offset, 64);
    let all: Vec<_> = (0..crate::shm::layout::RELEASES as u64)
        .map(|i| place(i % 512 * 64).unwrap())
        .collect();
    assert!(place(0).is_none());
    drop(all);
    assert!(place(0).is_some());
}

// ---- the corpus ----

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/hostile_lane")
}

/// One program for each kind of lie, from which the fuzzer starts.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let end: &[[u8; INSTRUCTION]] = &[
        [op::DRAIN, 0, 0, 0, 0, 0],
        [op::THOROUGH, 0, 255, 0, 0, 0],
        LOOK,
        [op::BURY, 0, 0, 0, 0, 0],
        [op::SUBMIT, 0, 7, 3, 7, 0],
        [op::WORK, 0, 15, 0, 0, 0],
        DRAIN,
    ];
    let seed = |shape: u8, body: &[[u8; INSTRUCTION]]| {
        let mut data = vec![shape];
        data.extend([&GIVEN[..], body, end].concat().iter().flatten());
        data
    };
    let sweep = |code: u8, arg: usize, values: &[u8]| -> Vec<[u8; INSTRUCTION]> {
        let mut body = Vec::new();
        for &value in values {
            let mut instruction = [code, 0, OUT, 0, 0, 0];
            instruction[2 + arg] = value;
            body.extend_from_slice(&[
                GIVEN[0],
                GIVEN[1],
                instruction,
                [op::THOROUGH, 0, 255, 0, 0, 0],
            ]);
        }
        body
    };
    let all: Vec<u8> = (0..16).collect();
    let lengths: Vec<u8> = (0..32).collect();
    let kinds: Vec<u8> = (0..16).map(|k| k * 16).collect();
    vec![
        ("honest", seed(0, &[[op::PLAY, 0, 3, 7, 0, 0], DRAIN])),
        (
            "two-hostile-four-threads",
            seed(3, &[[op::PLAY, 1, 3, 7, 0, 0], DRAIN]),
        ),
        (
            "round-robin-large-in-place",
            seed(12, &[[op::PLAY, 0, 3, 7, 0, 0]]),
        ),
        ("kinds", seed(0, &sweep(op::FORGE, 1, &kinds))),
        ("lengths", seed(0, &sweep(op::FORGE, 2, &lengths))),
        ("offsets", seed(4, &sweep(op::OFFSET, 2, &all))),
        (
            "times",
            seed(0, &sweep(op::FORGE, 3, &[1, 3, 5, 7, 9, 11, 13, 15])),
        ),
        ("tickets", seed(0, &sweep(op::DONE, 1, &kinds))),
        ("starts", seed(0, &sweep(op::TICKET, 1, &kinds))),
        ("flips", seed(0, &sweep(op::FLIP, 1, &[0, 1, 2]))),
        (
            "early-then-flipped",
            seed(
                0,
                &[
                    [op::EARLY, 0, 0, 9, 0, 0],
                    [op::FORGE, 0, OUT, 0, 0, 1],
                    [op::EARLY, 0, 0, 9, 0, 0],
                    [op::FLIP, 0, 190, 0, 0, 0],
                    DRAIN,
                    [op::FLIP, 0, 190, 0, 0, 0],
                    DRAIN,
                ],
            ),
        ),
        ("heads", seed(0, &sweep(op::HEAD, 0, &[0, 1, 2, 3, 4, 5]))),
        ("epochs", seed(2, &sweep(op::EPOCH, 0, &[0, 1, 255]))),
        (
            "one-block-twice",
            seed(0, &sweep(op::TWICE, 2, &[0, 1, 128, 255])),
        ),
        ("returned-unasked", seed(0, &sweep(op::RETURN, 0, &[0, 1]))),
        (
            "recalled",
            seed(
                1,
                &[
                    [op::RECALL, 0, 0, 0, 0, 0],
                    [op::RECALL, 1, 0, 0, 0, 0],
                    DRAIN,
                ],
            ),
        ),
        (
            "awaited-and-buried",
            seed(
                0,
                &[
                    [op::AWAIT, 0, 0, 0, 0, 0],
                    [op::AWAIT, 0, 1, 0, 0, 0],
                    [op::BURY, 0, 0, 0, 0, 0],
                    [op::FETCH, 0, 0, 0, 0, 0],
                    [op::FETCH, 0, 1, 1, 0, 0],
                ],
            ),
        ),
        (
            "cancelled-and-forged",
            seed(
                0,
                &[
                    [op::CANCEL, 0, 0, 0, 0, 0],
                    [op::CANCEL, 0, 3, 0, 0, 0],
                    [op::FORGE, 0, OUT, 130, 0, 0],
                ],
            ),
        ),
        ("bursts", seed(1, &sweep(op::BURST, 3, &all))),
        ("signals", seed(0, &sweep(op::SIGNALS, 0, &[0, 1, 2, 3]))),
    ]
}

/// With `MINIFLOW_WRITE_CORPUS=1` writes the seeds first.
#[test]
fn every_program_of_the_corpus_ends_well() {
    let write = std::env::var_os("MINIFLOW_WRITE_CORPUS").is_some();
    for (name, data) in seeds() {
        let path = corpus().join(name);
        if write {
            fs::create_dir_all(corpus()).unwrap();
            fs::write(&path, &data).unwrap();
        }
        assert_eq!(
            fs::read(&path).ok(),
            Some(data),
            "{name}: see MINIFLOW_WRITE_CORPUS"
        );
    }
    for entry in fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(path).unwrap());
    }
}

// ---- at random ----

/// CI: 3 seconds. `MINIFLOW_LONG=1`: until 10 million mutations.
#[test]
fn no_program_at_random_does_harm() {
    let first = seed("programs at random");
    let mut random = Random(first);
    let began = Instant::now();
    let (mut sum, mut programs) = (Report::default(), 0_u64);
    let go_on = |mutations: u64| match long() {
        true => mutations < 10_000_000,
        false => began.elapsed() < Duration::from_secs(3),
    };
    while go_on(sum.mutations) {
        let this = random.0;
        let (len, gentle) = (1 + random.below(1000), random.below(4) != 0);
        let data = program(&mut random, len, gentle);
        let report = std::panic::catch_unwind(|| run(&data)).unwrap_or_else(|panic| {
            let path = std::env::temp_dir().join(format!("hostile-{this}"));
            fs::write(&path, &data).ok();
            println!("the program is in {}", path.display());
            std::panic::resume_unwind(panic)
        });
        programs += 1;
        sum.mutations += report.mutations;
        sum.tasks += report.tasks;
        sum.completed_by_hostile += report.completed_by_hostile;
        sum.violations += report.violations;
    }
    println!("{programs} programs in {:?}: {sum:?}", began.elapsed());
    assert!(sum.violations > 0 && sum.completed_by_hostile > 0);
}

// ---- racing ----

/// What the host and the thread that plays its hostile worker share.
struct Ground {
    current: Mutex<(u64, Arc<WorkerLane>)>,
    stop: AtomicBool,
    mutations: AtomicU64,
}

/// A worker that does its work and writes over it while the host reads.
fn scribble(ground: &Ground, clock: Clock, mut random: Random) {
    let mut double: Option<(u64, Double)> = None;
    let mut recent = [0_usize; 16];
    while !ground.stop.load(Relaxed) {
        let (incarnation, lane) = ground.current.lock().unwrap().clone();
        if double.as_ref().is_none_or(|d| d.0 != incarnation) {
            let control = Socket::pair().unwrap().0;
            double = Some((incarnation, Double::new(lane, control, clock)));
        }
        let (_, double) = double.as_mut().unwrap();
        // Some lives are quiet, so that the host reads completions that change under it and not
        // only violations.
        let rough = incarnation % 2 == 0;
        for _ in 0..64 {
            match random.below(if rough { 12 } else { 10 }) {
                0..3 => {
                    if double.take() {
                        let message = double.in_hand.last().unwrap();
                        recent[random.below(16)] = message.meta.slot();
                    }
                    continue;
                }
                3 => double.finish(random.below(8)),
                4 => double.flush(),
                5 | 6 => {
                    // Between what is right and what is not, as fast as can be.
                    let slot = recent[random.below(16)];
                    let kind = [random.next() as u8 & 0x60, random.next() as u8];
                    let honest = [0, (random.next() & 6) as u8];
                    for _ in 0..8 {
                        double.store(slot_word(slot, W_KIND), World::kind(honest));
                        double.store(slot_word(slot, W_RESULT), random.next() & 0x3ff8);
                        double.store(slot_word(slot, W_KIND), 700 << 32 | 1 << 8);
                        if rough {
                            double.store(slot_word(slot, W_KIND), World::kind(kind));
                            double.store(slot_word(slot, W_RESULT), random.next());
                        }
                    }
                }
                7 => {
                    let slot = recent[random.below(16)];
                    double.store(slot_word(slot, W_TIMES), random.next());
                    double.store(slot_word(slot, W_TIMES + 1), random.next());
                    double.store(slot_word(slot, W_START), random.next());
                }
                8 => {
                    double.store(EPOCH, random.next());
                    double.store(slot_word(random.below(CREDITS), W_TICKET), random.next());
                }
                9 => {
                    // The results themselves.
                    let word = RESULTS_OFFSET as usize / 8 + random.below(8192);
                    double.store(word, random.next());
                    double.store(
                        slot_word(recent[0], W_RESULT + 1 + random.below(18)),
                        word as u64,
                    );
                }
                10 => double.store(random.below(SLOTS + 32 * CREDITS), random.next()),
                _ => double.xor(BITMAP + random.below(8), 1 << random.below(64)),
            }
            ground.mutations.fetch_add(1, Relaxed);
        }
    }
}

/// The host's half of the race: everything that it does, while the worker writes.
#[test]
fn a_worker_that_writes_while_the_host_reads_does_no_harm() {
    let first = seed("racing");
    let began = Instant::now();
    let time = Duration::from_secs(if long() { 60 } else { 3 });
    let mut mutations = 0;
    let mut sum = Report::default();
    let mut random = Random(first);
    while began.elapsed() < time {
        let mut world = World::new(random.next() as u8 & !1);
        let lane_of = |world: &World| {
            let double = world.doubles[1].as_ref().unwrap();
            (world.incarnations, Arc::clone(&double.lane))
        };
        let ground = Ground {
            current: Mutex::new(lane_of(&world)),
            stop: AtomicBool::new(false),
            mutations: AtomicU64::new(0),
        };
        let (clock, theirs) = (world.clock, Random(random.next() | 1));
        thread::scope(|scope| {
            let scribbler = scope.spawn(|| scribble(&ground, clock, theirs));
            let host = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..20_000 {
                    let code = match random.below(16) {
                        0..4 => op::SUBMIT,
                        4..8 => op::DRAIN,
                        8 => op::THOROUGH,
                        9..12 => op::EARLY,
                        12 => op::WORK,
                        13 => op::DROP,
                        14 => [op::AWAIT, op::FETCH, op::CANCEL][random.below(3)],
                        _ => [op::LOOK, op::TO_HEAP, op::GROW][random.below(3)],
                    };
                    let mut instruction = random.next().to_le_bytes();
                    instruction[0] = code;
                    world.step(instruction[..INSTRUCTION].try_into().unwrap());
                    world.check();
                    let violated = world.core.lanes[1].as_ref().unwrap().violated;
                    if violated && random.below(8) == 0 || random.below(1000) == 0 {
                        world.bury(1, true);
                        *ground.current.lock().unwrap() = lane_of(&world);
                    }
                }
                world.finish()
            }));
            ground.stop.store(true, Relaxed);
            scribbler.join().unwrap();
            let report = host.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            mutations += ground.mutations.load(Relaxed);
            sum.tasks += report.tasks;
            sum.completed_by_hostile += report.completed_by_hostile;
            sum.violations += report.violations;
        });
    }
    println!(
        "{mutations} mutations beside the reader in {:?}: {sum:?}",
        began.elapsed()
    );
    assert!(sum.completed_by_hostile > 0);
}
