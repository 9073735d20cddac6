//! Times in buckets of a fixed layout.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Four buckets an octave from 256 ns to 137 s, one below and one above.
pub(crate) const BUCKETS: usize = 2 + OCTAVES * PER_OCTAVE;
const PER_OCTAVE: usize = 4;
const FIRST: u32 = 8;
const LAST: u32 = 37;
const OCTAVES: usize = (LAST - FIRST) as usize;

/// The bucket that a time belongs to: a few shifts, for the fast path.
#[inline]
fn bucket_of(ns: u64) -> usize {
    let octave = 63 - (ns | 1).leading_zeros();
    if octave < FIRST {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "two bits are left")]
    let within = ((ns >> (octave - 2)) & (PER_OCTAVE as u64 - 1)) as usize;
    (1 + (octave - FIRST) as usize * PER_OCTAVE + within).min(BUCKETS - 1)
}

/// The first time in ns that is above bucket `bucket`; `None` for the last, which has no end.
fn end_of(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let (octave, within) = (bucket / PER_OCTAVE, bucket % PER_OCTAVE);
    Some((PER_OCTAVE as u64 + within as u64) << (octave + FIRST as usize - 2))
}

/// A histogram that is being counted.
#[derive(Debug)]
pub(crate) struct Counts {
    counts: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum_ns: 0,
        }
    }
}

impl Counts {
    /// Counts one time more.
    #[inline]
    pub(crate) fn note(&mut self, ns: u64) {
        self.counts[bucket_of(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

impl From<&Counts> for Histogram {
    fn from(counts: &Counts) -> Self {
        Self::from_counts(&counts.counts, counts.sum_ns)
    }
}

/// How long something took, over many times: counts in buckets at most 25 % wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    pub(super) counts: Box<[u64; BUCKETS]>,
    pub(super) sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::from_counts(&[0; BUCKETS], 0)
    }
}

impl Histogram {
    /// Whoever says what the counts are may be wrong: what no engine ever counts is brought down to
    /// what can be added up.
    pub(crate) fn from_counts(counts: &[u64; BUCKETS], sum_ns: u64) -> Self {
        Self {
            counts: Box::new(counts.map(|count| count.min(u64::MAX / BUCKETS as u64))),
            sum_ns,
        }
    }

    /// How many times there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// Their mean; `None` if there are none.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.sum_ns.checked_div(self.count())?;
        Some(Duration::from_nanos(mean))
    }

    /// A time that the share `q` (0 to 1) of them does not exceed: the end of its bucket, at most
    /// 25 % too much; `None` if there are none. Beyond 137 s it is 137 s.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the cast saturates; a rank need not be exact beyond 2^53"
        )]
        let rank = (q.clamp(0.0, 1.0) * count as f64).ceil() as u64;
        let rank = rank.min(count).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        let last = 1 << LAST;
        Some(Duration::from_nanos(end_of(bucket).unwrap_or(last)))
    }

    /// Those that came after `earlier`, which is an older state of this histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts.clone();
        for (count, before) in counts.iter_mut().zip(earlier.counts.iter()) {
            *count = count.saturating_sub(*before);
        }
        Self {
            counts,
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
        }
    }

    /// The buckets in order: where each ends (exclusively; `None` for the last), and how many times it
    /// has.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let ends = (0..BUCKETS).map(|bucket| end_of(bucket).map(Duration::from_nanos));
        ends.zip(self.counts.iter().copied())
    }
}

/// The form in which it is written. A bucket is its end in ns (0 for the last, which has none) and its
/// count; empty ones are left out.
#[derive(Serialize, Deserialize)]
struct Written {
    count: u64,
    sum_ns: u64,
    p50_ns: Option<u64>,
    p90_ns: Option<u64>,
    p99_ns: Option<u64>,
    p999_ns: Option<u64>,
    buckets: Vec<(u64, u64)>,
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let quantile = |q| {
            let time = self.quantile(q)?;
            u64::try_from(time.as_nanos()).ok()
        };
        let counts = self.counts.iter().enumerate();
        Written {
            count: self.count(),
            sum_ns: self.sum_ns,
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            buckets: counts
                .filter(|&(_, &count)| count > 0)
                .map(|(bucket, &count)| (end_of(bucket).unwrap_or(0), count))
                .collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let mut counts = [0; BUCKETS];
        for (end, count) in written.buckets {
            // Of another layout a bucket may lie across ours: it counts where it ends.
            let bucket = end.checked_sub(1).map_or(BUCKETS - 1, bucket_of);
            counts[bucket] = u64::saturating_add(counts[bucket], count);
        }
        Ok(Self::from_counts(&counts, written.sum_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: &[u64]) -> Histogram {
        let mut counts = [0; BUCKETS];
        for &ns in times {
            counts[bucket_of(ns)] += 1;
        }
        Histogram::from_counts(&counts, times.iter().sum())
    }

    #[test]
    fn every_time_lies_between_the_ends_of_its_bucket_and_the_one_before() {
        let edges = (0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + power / 4, power + power / 2 - 1]
        });
        for ns in edges {
            let bucket = bucket_of(ns);
            assert!(end_of(bucket).is_none_or(|end| ns < end), "{ns}");
            let begin = bucket.checked_sub(1).and_then(end_of).unwrap_or(0);
            assert!(ns >= begin, "{ns} in {bucket} from {begin}");
        }
    }

    #[test]
    fn buckets_grow_and_are_at_most_a_quarter_wide() {
        for bucket in 1..BUCKETS - 1 {
            let (begin, end) = (end_of(bucket - 1).unwrap(), end_of(bucket).unwrap());
            assert!(begin < end && (end - begin) * 4 <= begin, "{bucket}");
        }
        assert_eq!(end_of(0), Some(256));
        assert_eq!(end_of(BUCKETS - 2), Some(1 << 37));
        assert_eq!(end_of(BUCKETS - 1), None);
    }

    #[test]
    fn a_quantile_is_the_end_of_the_bucket_that_reaches_it() {
        let histogram = of(&[1000, 1000, 1000, 1_000_000]);
        let ns = |q| histogram.quantile(q).unwrap().as_nanos();
        assert!((1000..=1250).contains(&ns(0.0)));
        assert!((1000..=1250).contains(&ns(0.75)));
        assert!((1_000_000..=1_250_000).contains(&ns(0.76)));
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(of(&[u64::MAX >> 8]).quantile(0.5).unwrap().as_secs(), 137);
    }

    #[test]
    fn the_difference_to_an_earlier_state_is_what_came_since() {
        let (earlier, later) = (of(&[10, 5000]), of(&[10, 5000, 5000, 70]));
        assert_eq!(later.since(&earlier), of(&[5000, 70]));
        assert_eq!(later.since(&later), Histogram::default());
    }

    #[test]
    fn counts_that_are_not_true_can_be_added_up() {
        let histogram = Histogram::from_counts(&[u64::MAX; BUCKETS], u64::MAX);
        assert!(histogram.count() > 1 << 63);
        assert!(histogram.quantile(1.0) > histogram.quantile(0.0));
        assert!(histogram.mean().unwrap() < Duration::from_nanos(3));
        let json = format!(
            r#"{{"count":1,"sum_ns":0,"buckets":[[1,{0}],[2,{0}]]}}"#,
            u64::MAX
        );
        assert!(serde_json::from_str::<Histogram>(&json).unwrap().count() > 0);
    }

    #[test]
    fn as_json_it_has_its_quantiles_and_comes_back_whole() {
        let histogram = of(&[300, 1, 5_000_000, u64::MAX >> 8]);
        let json = serde_json::to_value(&histogram).unwrap();
        assert_eq!(json["count"], 4);
        assert_eq!(json["p50_ns"], 320);
        assert_eq!(
            serde_json::from_value::<Histogram>(json).unwrap(),
            histogram
        );
        let empty = serde_json::to_value(Histogram::default()).unwrap();
        assert!(empty["p50_ns"].is_null());
        assert_eq!(empty["buckets"], serde_json::json!([]));
    }
}
