//! The policies under load that comes and goes, with a clock that is only counted.
//!
//! Workers of one thread, tasks that all run for the same time, a central queue: what the engine is to
//! a policy. A started worker is ready at the next look.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

const TICK: Duration = Duration::from_millis(10);

struct World {
    settings: Scaling,
    policy: Box<dyn ScalingPolicy>,
    now: Duration,
    next_look: Duration,
    limits: (u32, u32),
    target: u32,
    ready: u32,
    service: Duration,
    cpu: f32,
    memory: MemoryState,
    /// When each task arrived.
    queue: VecDeque<Duration>,
    /// When each running task ends.
    running: Vec<Duration>,
    ended: u64,
    owed: f64,
    /// When the target changed, and to what.
    actions: Vec<(Duration, u32)>,
    longest_wait: Duration,
}

impl World {
    fn new(settings: Scaling, limits: (u32, u32), service: Duration) -> Self {
        Self {
            policy: settings.built_in().expect("a built-in policy"),
            settings,
            now: Duration::ZERO,
            next_look: Duration::ZERO,
            limits,
            target: limits.0,
            ready: limits.0,
            service,
            cpu: 0.0,
            memory: MemoryState::Ample,
            queue: VecDeque::new(),
            running: Vec::new(),
            ended: 0,
            owed: 0.0,
            actions: Vec::new(),
            longest_wait: Duration::ZERO,
        }
    }

    fn submit(&mut self, count: usize) {
        self.queue.extend(std::iter::repeat_n(self.now, count));
    }

    /// Lets time pass in which tasks arrive evenly, so many in each second.
    fn run(&mut self, span: Duration, rate: f64) {
        let end = self.now + span;
        while self.now < end {
            self.now += TICK;
            self.owed += rate * TICK.as_secs_f64();
            while self.owed >= 1.0 {
                self.owed -= 1.0;
                self.submit(1);
            }
            let before = self.running.len();
            self.running.retain(|&end| end > self.now);
            self.ended += (before - self.running.len()) as u64;
            while self.running.len() < self.ready as usize
                && let Some(arrived) = self.queue.pop_front()
            {
                self.longest_wait = self.longest_wait.max(self.now - arrived);
                self.running.push(self.now + self.service);
            }
            if self.now >= self.next_look {
                self.next_look = self.now + self.settings.interval;
                self.look();
            }
        }
    }

    /// Lets time pass without tasks and without looks.
    fn rest(&mut self, span: Duration) {
        self.now += span;
        self.next_look = self.now;
    }

    fn look(&mut self) {
        let starting = self.target.saturating_sub(self.ready);
        let snapshot = Snapshot {
            class: Class::CpuBound,
            now: self.now,
            min: self.limits.0,
            max: self.limits.1,
            target: self.target,
            ready: self.ready,
            starting,
            threads: 1,
            queued: self.queue.len() as u64,
            on_workers: self.running.len() as u64,
            peak: u32::from(!self.running.is_empty()),
            oldest: self
                .queue
                .front()
                .map_or(Duration::ZERO, |&at| self.now - at),
            service: if self.ended > 0 {
                self.service
            } else {
                Duration::ZERO
            },
            ended: self.ended,
            cpu: Some(self.cpu),
            memory: None,
            memory_pressure: None,
            memory_state: self.memory,
            stats: Stats::default(),
        };
        self.ready = self.target;
        if let Some(proposal) = self.policy.decide(&snapshot) {
            let workers = proposal.workers.clamp(self.limits.0, self.limits.1);
            if workers != self.target {
                assert!(!proposal.reason.is_empty());
                self.actions.push((self.now, workers));
                self.target = workers;
                self.ready = self.ready.min(workers);
            }
        }
    }

    fn actions_after(&self, time: Duration) -> usize {
        self.actions.iter().filter(|(at, _)| *at > time).count()
    }
}

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn policies() -> [Scaling; 3] {
    [
        Scaling::by_load(),
        Scaling::compatible(),
        Scaling::adaptive(),
    ]
}

#[test]
fn a_burst_is_answered_in_few_steps_and_the_minimum_comes_back() {
    for settings in policies() {
        let mut world = World::new(settings.clone(), (1, 8), 50 * MS);
        world.submit(200);
        world.run(S, 0.0);
        assert_eq!(world.target, 8, "{settings:?}: {:?}", world.actions);
        assert!(world.actions.len() <= 4, "{:?}", world.actions);
        world.run(S * 3 / 2, 0.0);
        assert_eq!(
            world.ended, 200,
            "four times as fast as one worker: {settings:?}"
        );
        world.run(60 * S, 0.0);
        assert_eq!(world.target, 1, "{settings:?}: {:?}", world.actions);
    }
}

#[test]
fn adaptive_goes_to_the_right_size_in_two_steps_and_stays_there() {
    // 100 tasks per second of 50 ms: 5 threads are busy, and 6.25 have some rest.
    let mut world = World::new(Scaling::adaptive(), (1, 64), 50 * MS);
    world.run(60 * S, 100.0);
    let growth = world.actions.iter().filter(|(at, _)| *at < 5 * S).count();
    assert!(growth <= 3, "{:?}", world.actions);
    assert!((6..=12).contains(&world.target), "{:?}", world.actions);
    assert!(world.actions_after(20 * S) == 0, "{:?}", world.actions);
}

#[test]
fn a_load_that_ends_a_rest_is_answered_in_few_steps() {
    for (service, rate, right) in [(5 * MS, 1000.0, 5), (50 * MS, 100.0, 5), (S, 5.0, 5)] {
        let mut world = World::new(Scaling::adaptive(), (1, 64), service);
        world.run(20 * S, 0.2 / service.as_secs_f64());
        assert_eq!(world.target, 1, "{:?}", world.actions);
        world.rest(3600 * S);
        let grown = world.now + 2 * S;
        world.run(20 * S, rate);
        let steps = world.actions.iter().filter(|(at, _)| *at < grown);
        assert!(steps.count() <= 2, "{service:?}: {:?}", world.actions);
        assert!(world.target >= right, "{service:?}: {:?}", world.actions);
    }
}

#[test]
fn a_load_that_alternates_every_five_seconds_does_not_make_workers_come_and_go() {
    for settings in policies() {
        for service in [5 * MS, 50 * MS, 500 * MS] {
            let rate = 6.0 / service.as_secs_f64(); // six threads busy
            let mut world = World::new(settings.clone(), (1, 8), service);
            for half in 0..36 {
                world.run(5 * S, if half % 2 == 0 { rate } else { 0.0 });
            }
            let actions = world.actions_after(60 * S);
            assert!(
                actions <= 8,
                "{settings:?}, {service:?}: {:?}",
                world.actions
            );
        }
    }
}

#[test]
fn a_load_between_two_sizes_does_not_flap() {
    for settings in policies() {
        for tenths in 5..60 {
            let mut world = World::new(settings.clone(), (1, 8), 50 * MS);
            world.run(180 * S, f64::from(tenths) / 10.0 / 0.05);
            let actions = world.actions_after(60 * S);
            assert!(actions <= 8, "{settings:?}, {tenths}: {:?}", world.actions);
        }
    }
}

#[test]
fn nothing_grows_while_the_processors_are_busy_and_the_limit_can_be_lifted() {
    for settings in policies() {
        for (limit, grown) in [(0.9, false), (1.0, true)] {
            let mut world = World::new(settings.clone().cpu(limit), (1, 8), 50 * MS);
            world.cpu = 0.95;
            world.submit(1000);
            world.run(2 * S, 0.0);
            assert_eq!(world.target > 1, grown, "{settings:?}");
        }
    }
}

#[test]
fn nothing_grows_while_memory_is_short() {
    for settings in policies() {
        let mut world = World::new(settings.clone(), (1, 8), 50 * MS);
        world.memory = MemoryState::NoGrowth;
        world.submit(1000);
        world.run(2 * S, 0.0);
        assert_eq!(world.target, 1, "{settings:?}");
        world.memory = MemoryState::Ample;
        world.run(2 * S, 0.0);
        assert!(world.target > 1, "{settings:?}");
    }
}

#[test]
fn steps_double_and_begin_anew_after_a_quiet_look() {
    let mut world = World::new(Scaling::by_load(), (1, 100), S);
    world.submit(1000);
    world.run(1100 * MS, 0.0);
    let targets: Vec<u32> = world.actions.iter().map(|&(_, target)| target).collect();
    assert!(targets.starts_with(&[2, 4, 8, 16, 32]), "{targets:?}");
    let gaps = world.actions.windows(2).map(|w| w[1].0 - w[0].0);
    assert!(
        gaps.min() >= Some(200 * MS),
        "cool-down: {:?}",
        world.actions
    );
    world.queue.clear();
    world.run(2 * S, 0.0);
    world.submit(1000);
    let before = world.target;
    world.run(110 * MS, 0.0);
    assert_eq!(world.target, before + 1);
}

#[test]
fn shrinking_takes_three_idle_looks_and_one_worker_at_a_time() {
    let mut world = World::new(Scaling::by_load(), (1, 8), 50 * MS);
    world.submit(200);
    world.run(S, 0.0);
    let grown = world.actions.len();
    world.run(40 * S, 0.0);
    let shrinks = &world.actions[grown..];
    let targets: Vec<u32> = shrinks.iter().map(|&(_, target)| target).collect();
    assert_eq!(targets, [7, 6, 5, 4, 3, 2, 1]);
    let gaps = shrinks.windows(2).map(|w| w[1].0 - w[0].0);
    assert!(gaps.min() >= Some(3 * S), "{shrinks:?}");
}

#[test]
fn no_history_makes_a_policy_panic_or_leave_its_limits() {
    let mut seed = 7_u64;
    for settings in policies() {
        let mut policy = settings.built_in().expect("a built-in policy");
        for _ in 0..20_000 {
            let mut next = |limit: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) % limit
            };
            let small = next(1025) as u32;
            let snapshot = Snapshot {
                class: Class::IoBound,
                now: Duration::from_millis(next(100_000)), // also backwards
                min: 1,
                max: 1024,
                target: (next(1024) + 1) as u32,
                ready: small,
                starting: (next(2) * next(100)) as u32,
                threads: next(257) as u32,
                queued: next(1 << 20),
                on_workers: next(1 << 20),
                peak: next(512) as u32,
                oldest: Duration::from_nanos(next(1 << 31) * 1000),
                service: Duration::from_nanos(next(1 << 31)),
                ended: next(1 << 30),
                cpu: [None, Some(0.5), Some(f32::NAN)][next(3) as usize],
                memory: None,
                memory_pressure: None,
                memory_state: [MemoryState::Ample, MemoryState::Shedding][next(2) as usize],
                stats: Stats::default(),
            };
            if let Some(proposal) = policy.decide(&snapshot) {
                assert!(proposal.workers <= 1024);
            }
        }
    }
}
