//! Engines as Prometheus sees them: its text format, version 0.0.4.
//!
//! [`families`] has every metric: name, meaning, and where in a [`Status`] its values stand. Nothing is
//! counted here.
//!
//! The encoder speaks OpenMetrics, in which the family of a counter is called without `_total`, and which
//! `promtool` and older servers do not read. So the names in the table are whole (unit and `_total`
//! included), and the values of counters are written like those of gauges, which the encoder puts under
//! the name as it is: what comes out is the older format, which every server reads.
#![forbid(unsafe_code)]

mod families;

use std::fmt;
use std::iter;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::registry::Registry;

use self::families::FAMILIES;
use super::{Histogram, Status};

/// What [`prometheus`] makes, as an HTTP server calls it.
pub const PROMETHEUS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of some engines as one exposition, in the text format of Prometheus (0.0.4): each metric
/// once, with series for every engine, told apart by the label `engine`: its name, or its host process
/// if it has none, so of several in one process at most one may be without. `docs/metrics.md` describes
/// them.
#[must_use]
pub fn prometheus(engines: Vec<Status>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Engines(engines)));
    let mut text = String::new();
    // Only the writer could fail, and a string does not.
    let _ = encode_registry(&mut text, &registry);
    text
}

impl Status {
    /// The metrics of this engine in the text format of Prometheus; see [`prometheus`].
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        prometheus(vec![self.clone()])
    }
}

#[derive(Debug)]
struct Engines(Vec<Status>);

impl Collector for Engines {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in FAMILIES {
            let metric = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            let mut series = Series {
                metric,
                engine: String::new(),
                keys: family.labels,
            };
            for status in &self.0 {
                series.engine = match &status.name {
                    Some(name) => name.clone(),
                    None => status.pid.to_string(),
                };
                (family.read)(status, &mut series)?;
            }
        }
        Ok(())
    }
}

/// Where the values of a metric go, engine by engine.
#[derive(Debug)]
struct Series<'a> {
    metric: MetricEncoder<'a>,
    engine: String,
    keys: &'static [&'static str],
}

impl Series<'_> {
    /// The series with these values of the metric's labels.
    fn put(&mut self, labels: &[&str], value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        let labels = with_engine(&self.engine, self.keys, labels);
        self.metric.encode_family(&labels)?.encode_gauge(&value)
    }

    fn put_times(&mut self, labels: &[&str], times: &Histogram) -> fmt::Result {
        let labels = with_engine(&self.engine, self.keys, labels);
        let mut metric = self.metric.encode_family(&labels)?;
        let (sum, buckets) = (times.sum().as_secs_f64(), buckets(times));
        metric.encode_histogram::<NoLabelSet>(sum, times.count(), &buckets, None)
    }
}

fn with_engine<'a>(
    engine: &'a str,
    keys: &[&'static str],
    values: &[&'a str],
) -> Vec<(&'static str, &'a str)> {
    let own = keys.iter().copied().zip(values.iter().copied());
    iter::once(("engine", engine)).chain(own).collect()
}

/// Where buckets end, in powers of two of a nanosecond: from 1 us to 1 s each, to 69 s every other. The
/// histogram has an end at each, so the counts are exact.
const ENDS: [u32; 24] = [
    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 34, 36,
];

/// End in seconds, and count, of each bucket; the last has no end.
fn buckets(times: &Histogram) -> Vec<(f64, u64)> {
    let mut fine = times.buckets().peekable();
    let ends = ENDS.iter().map(|&power| Duration::from_nanos(1 << power));
    let mut buckets: Vec<_> = ends
        .map(|end| {
            let mut count = 0;
            while let Some((_, more)) = fine.next_if(|(fine, _)| fine.is_some_and(|f| f <= end)) {
                count += more;
            }
            (end.as_secs_f64(), count)
        })
        .collect();
    buckets.push((f64::INFINITY, fine.map(|(_, count)| count).sum()));
    buckets
}
