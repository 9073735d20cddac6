//! What the picture is made of: the last status, and how its counters have moved.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use miniflow::status::{ClassStatus, EngineState, Histogram, Status, WorkerRow};
use miniflow::{Class, Stats};

use super::figures::between;

/// What rates are averaged over.
const RATES: Duration = Duration::from_secs(2);
/// What the quantiles of times are about.
pub(crate) const QUANTILES: Duration = Duration::from_secs(10);
/// How far the engine's clock and ours may be apart between two looks: it publishes every 100 ms.
const APART: Duration = Duration::from_millis(500);
/// Points of a history: more than a screen is wide.
const HISTORY: usize = 512;

/// An engine as it is, and as it has been.
#[derive(Debug)]
pub(crate) struct Model {
    status: Status,
    /// What counters were, oldest first: one sample is at least [`QUANTILES`] old if there is one.
    samples: VecDeque<Sample>,
    pub(crate) throughput: Trend,
    pub(crate) queued: Trend,
}

/// The counters of one status.
#[derive(Debug)]
struct Sample {
    /// When it was taken.
    at: Instant,
    /// When the engine published it, in milliseconds since 1970.
    at_ms: i64,
    ended: u64,
    times: Vec<(Class, Times)>,
    workers: HashMap<Worker, Counters>,
}

/// Times of tasks of one class.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    /// From submit to start.
    pub(crate) queued: Histogram,
    /// From start to end.
    pub(crate) run: Histogram,
}

/// A slot and its incarnation: one process.
type Worker = (u32, u64);

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    completed: u64,
    busy_ns: u64,
}

/// What a worker does at present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Activity {
    /// Threads that run handlers.
    pub(crate) busy: f64,
    /// Tasks ended per second; `None` = not known yet.
    pub(crate) rate: Option<f64>,
}

/// What is known of one class beyond its status.
#[derive(Debug, Clone)]
pub(crate) struct ClassActivity {
    /// Tasks ended per second.
    pub(crate) rate: Option<f64>,
    /// Those of the last [`QUANTILES`].
    pub(crate) times: Times,
}

impl Model {
    pub(crate) fn new(status: Status, at: Instant) -> Self {
        let mut model = Self {
            samples: VecDeque::new(),
            throughput: Trend::default(),
            queued: Trend::default(),
            status,
        };
        model.queued.push(model.status.tasks.queued as f64);
        model.samples.push_back(Sample::of(&model.status, at));
        model
    }

    /// Takes in a later status.
    pub(crate) fn update(&mut self, status: Status, at: Instant) {
        self.status = status;
        self.samples.push_back(Sample::of(&self.status, at));
        while self.samples.get(1).is_some_and(|second| {
            let age = at.saturating_duration_since(second.at);
            age >= QUANTILES
        }) {
            self.samples.pop_front();
        }
        if let Some(rate) = self.throughput_now() {
            self.throughput.push(rate);
        }
        self.queued.push(self.status.tasks.queued as f64);
    }

    /// The engine has ended: what is known of it is the last that will be known.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.status.state, EngineState::Stopped | EngineState::Dead)
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Tasks ended per second.
    pub(crate) fn throughput_now(&self) -> Option<f64> {
        let (base, now) = self.since(RATES)?;
        per_second(base.ended, now.ended, now.after(base))
    }

    pub(crate) fn worker(&self, row: &WorkerRow) -> Activity {
        let running = f64::from(row.running);
        let unknown = Activity {
            busy: running,
            rate: None,
        };
        let Some((base, now)) = self.since(RATES) else {
            return unknown;
        };
        let key = (row.slot, row.incarnation);
        let time = now.after(base);
        let new = now.workers.get(&key).copied().unwrap_or_default();
        // A process that was not there then had done nothing then.
        let old = base.workers.get(&key).copied().unwrap_or_default();
        let moved = |of: fn(&Counters) -> u64| per_second(of(&old), of(&new), time);
        let average = moved(|counters| counters.busy_ns).map(|ns| ns / 1e9);
        // Short tasks come and go between two looks, so the average tells more; a task counts in it
        // when it ends, so of long ones what runs just now tells more.
        let short = Duration::from_nanos(row.service_ns) < RATES / 4;
        Activity {
            busy: average
                .filter(|&busy| short && busy > 0.0)
                .unwrap_or(running)
                .min(f64::from(row.threads)),
            rate: moved(|counters| counters.completed),
        }
    }

    pub(crate) fn class(&self, class: &ClassStatus) -> ClassActivity {
        let times = |sample: &Sample| {
            let found = sample.times.iter().find(|(of, _)| *of == class.class);
            found.map(|(_, times)| times.clone()).unwrap_or_default()
        };
        let unknown = ClassActivity {
            rate: None,
            times: Times::default(),
        };
        let (Some((recent, now)), Some((base, _))) = (self.since(RATES), self.since(QUANTILES))
        else {
            return unknown;
        };
        let (new, old) = (times(now), times(base));
        ClassActivity {
            rate: per_second(
                times(recent).run.count(),
                new.run.count(),
                now.after(recent),
            ),
            times: Times {
                queued: new.queued.since(&old.queued),
                run: new.run.since(&old.run),
            },
        }
    }

    /// The last sample, and the youngest that is `span` older, or else the oldest.
    fn since(&self, span: Duration) -> Option<(&Sample, &Sample)> {
        let now = self.samples.back()?;
        let earlier = self.samples.iter().rev().skip(1);
        let base = (earlier.clone().find(|sample| now.at - sample.at >= span))
            .or_else(|| earlier.last())?;
        Some((base, now))
    }
}

/// Tasks that have ended, one way or another.
fn ended(tasks: &Stats) -> u64 {
    tasks.completed + tasks.failed + tasks.crashed + tasks.timed_out + tasks.cancelled
}

fn per_second(before: u64, after: u64, time: Duration) -> Option<f64> {
    let more = after.saturating_sub(before) as f64;
    (!time.is_zero()).then(|| more / time.as_secs_f64())
}

impl Sample {
    /// How much later than `earlier` it is: by the engine's clock, unless somebody has set that, or
    /// the engine was kept from publishing.
    fn after(&self, earlier: &Self) -> Duration {
        let ours = self.at - earlier.at;
        let published = between(earlier.at_ms, self.at_ms);
        match ours.abs_diff(published) < APART {
            true => published,
            false => ours,
        }
    }

    fn of(status: &Status, at: Instant) -> Self {
        let times = |class: &ClassStatus| Times {
            queued: class.queue_time.clone(),
            run: class.run_time.clone(),
        };
        let counters = |row: &WorkerRow| Counters {
            completed: row.completed,
            busy_ns: row.busy_ns,
        };
        Self {
            at,
            at_ms: status.at_ms,
            ended: ended(&status.tasks),
            times: (status.classes.iter())
                .map(|class| (class.class, times(class)))
                .collect(),
            workers: (status.workers.iter())
                .map(|row| ((row.slot, row.incarnation), counters(row)))
                .collect(),
        }
    }
}

/// How a number has been, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Trend(VecDeque<f64>);

impl Trend {
    fn push(&mut self, value: f64) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last `count` of its values, oldest first.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = f64> + '_ {
        self.0
            .iter()
            .skip(self.0.len().saturating_sub(count))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::top::sample::{NOW_MS, busy, seen, seen_twice, status, times};

    #[test]
    fn rates_are_what_came_between_two_looks() {
        let before = busy(1);
        let mut after = before.clone();
        after["tasks"]["completed"] = json!(123_456 + 100);
        after["tasks"]["failed"] = json!(20);
        after["workers"][0]["completed"] = json!(1_001 + 50);
        let model = seen_twice(&before, &after);
        assert_eq!(model.throughput_now(), Some(60.0));
        let now = model.worker(&model.status().workers[0]);
        assert_eq!(now.rate, Some(25.0));
    }

    #[test]
    fn what_the_engine_published_a_bit_earlier_counts_with_its_time() {
        let mut before = busy(1);
        let mut after = before.clone();
        before["at_ms"] = json!(NOW_MS - 1_600); // looked at 2 s ago
        after["tasks"]["completed"] = json!(123_456 + 80);
        let model = seen_twice(&before, &after);
        assert_eq!(model.throughput_now(), Some(50.0));
    }

    #[test]
    fn after_one_look_no_rate_is_known() {
        let model = Model::new(status(&busy(1)), Instant::now());
        assert_eq!(model.throughput_now(), None);
        let now = model.worker(&model.status().workers[0]);
        assert_eq!((now.rate, now.busy), (None, 7.0));
        assert_eq!(model.class(&model.status().classes[0]).rate, None);
    }

    #[test]
    fn of_long_tasks_those_that_run_now_are_the_load_and_of_short_ones_the_average() {
        let before = busy(1);
        let mut after = before.clone();
        after["workers"][0]["busy_ns"] = json!(5_000_000_000_u64); // 2.5 threads for 2 s
        let busy = |engine: &serde_json::Value| {
            let model = seen_twice(&before, engine);
            model.worker(&model.status().workers[0]).busy
        };
        assert_eq!(busy(&after), 7.0);
        after["workers"][0]["service_ns"] = json!(1_000_000);
        assert_eq!(busy(&after), 2.5);
    }

    #[test]
    fn another_process_in_a_slot_starts_from_nothing() {
        let before = busy(1);
        let mut after = before.clone();
        after["workers"][0]["incarnation"] = json!(2);
        after["workers"][0]["completed"] = json!(10);
        let model = seen_twice(&before, &after);
        let now = model.worker(&model.status().workers[0]);
        assert_eq!(now.rate, Some(5.0));
    }

    #[test]
    fn quantiles_are_of_the_last_ten_seconds() {
        let mut engine = busy(1);
        let start = Instant::now();
        engine["classes"][0]["run_time"] = times(&[(1_280, 1_000)]);
        let mut model = Model::new(status(&engine), start);
        engine["classes"][0]["run_time"] = times(&[(1_280, 1_000), (5_120, 10)]);
        for second in [5, 11, 15] {
            model.update(status(&engine), start + Duration::from_secs(second));
            let run = model.class(&model.status().classes[0]).times.run;
            // At 15 s the look at 5 s, which had the ten already, is the base.
            assert_eq!(run.count(), if second == 15 { 0 } else { 10 }, "{second}");
        }
        assert!(model.samples.len() <= 4);
    }

    #[test]
    fn an_engine_that_stopped_is_gone() {
        let mut engine = busy(1);
        assert!(!seen(&engine).is_gone());
        for state in ["stopped", "dead"] {
            engine["state"] = json!(state);
            assert!(seen(&engine).is_gone());
        }
    }
}
