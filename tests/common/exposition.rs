//! A strict reader of the text format of Prometheus: it fails the test over anything that a server would
//! refuse or read wrongly.

use std::collections::BTreeMap;

/// Labels, sorted.
type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct Exposition {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    kind: String,
    /// By the sample's name, which is longer than the family's in a histogram, and labels.
    samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "no end of the last line: {text:?}");
        let mut families = BTreeMap::new();
        let mut current: Option<(String, Family)> = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                keep(current.take(), &mut families);
                let (name, help) = help.split_once(' ').unwrap();
                assert!(is_name(name) && help.len() > 5, "{line}");
                let kind = lines.next().and_then(|l| l.strip_prefix("# TYPE "));
                let kind = kind.and_then(|k| k.strip_prefix(name)?.strip_prefix(' '));
                let kind = kind.unwrap_or_else(|| panic!("no type: {line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
                let family = Family {
                    kind: kind.to_owned(),
                    samples: BTreeMap::new(),
                };
                current = Some((name.to_owned(), family));
            } else {
                let (name, family) = current.as_mut().expect("a sample after its HELP and TYPE");
                family.add(name, line);
            }
        }
        keep(current, &mut families);
        Self { families }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.families.keys().map(String::as_str).collect()
    }

    /// The value of the only series with this name and these labels, others being as they may.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values = self.values(name, labels);
        assert_eq!(values.len(), 1, "{name} {labels:?}: {values:?}");
        values[0]
    }

    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let samples = self.families.values().flat_map(|f| &f.samples);
        let wanted = samples.filter(|((of, having), _)| {
            of == name
                && labels
                    .iter()
                    .all(|(k, v)| having.get(*k).is_some_and(|h| h == v))
        });
        wanted.map(|(_, value)| *value).collect()
    }

    /// The label's values in all series of this name.
    pub(crate) fn label(&self, name: &str, label: &str) -> Vec<&str> {
        let samples = self.families.values().flat_map(|f| f.samples.keys());
        let wanted = samples.filter(|(of, _)| of == name);
        wanted
            .filter_map(|(_, labels)| labels.get(label).map(String::as_str))
            .collect()
    }

    /// That no counter has gone back since `earlier`, and none is gone.
    #[track_caller]
    pub(crate) fn assert_follows(&self, earlier: &Self) {
        for (name, before) in &earlier.families {
            let now = &self.families[name];
            assert_eq!(now.kind, before.kind, "{name}");
            if now.kind == "gauge" {
                continue;
            }
            for (series, value) in &before.samples {
                let now = now.samples.get(series);
                assert!(
                    now.is_some_and(|now| now >= value),
                    "{series:?}: {value} -> {now:?}"
                );
            }
        }
    }
}

fn keep(family: Option<(String, Family)>, families: &mut BTreeMap<String, Family>) {
    if let Some((name, family)) = family {
        family.check(&name);
        assert!(
            families.insert(name.clone(), family).is_none(),
            "{name} twice"
        );
    }
}

impl Family {
    fn add(&mut self, family: &str, line: &str) {
        let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
        let (name, rest) = line.split_at(name_end);
        let suffix = name
            .strip_prefix(family)
            .unwrap_or_else(|| panic!("{line} in {family}"));
        match self.kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        let (labels, value) = read_labels(rest);
        let value: f64 = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value.is_finite(), "{line}");
        let before = self.samples.insert((name.to_owned(), labels), value);
        assert_eq!(before, None, "the same series twice: {line}");
    }

    fn check(&self, name: &str) {
        assert_eq!(self.kind == "counter", name.ends_with("_total"), "{name}");
        if self.kind == "histogram" {
            self.check_histogram(name);
        } else if self.kind == "counter" {
            assert!(self.samples.values().all(|&v| v >= 0.0), "{name} below 0");
        }
    }

    fn check_histogram(&self, name: &str) {
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for ((of, labels), &count) in &self.samples {
            if of.ends_with("_bucket") {
                let mut labels = labels.clone();
                let end = labels
                    .remove("le")
                    .unwrap_or_else(|| panic!("{name}: no le"));
                let end = end.parse().unwrap();
                buckets.entry(labels).or_default().push((end, count));
            }
        }
        for (labels, mut buckets) in buckets {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(
                buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                "{buckets:?}"
            );
            let &(end, all) = buckets.last().unwrap();
            assert_eq!(end, f64::INFINITY, "{name} {labels:?}");
            let part = |suffix: &str| self.samples[&(format!("{name}{suffix}"), labels.clone())];
            assert_eq!(part("_count"), all, "{name} {labels:?}");
            assert!(
                part("_sum") >= 0.0 && (all > 0.0 || part("_sum") == 0.0),
                "{name}"
            );
        }
    }
}

/// `{a="b",...} value`, or ` value`.
fn read_labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{rest}"));
            assert!(is_name(key), "{key}");
            let (value, after) = read_quoted(quoted);
            assert_eq!(labels.insert(key.to_owned(), value), None, "{key} twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    (
        labels,
        rest.strip_prefix(' ').unwrap_or_else(|| panic!("{rest}")),
    )
}

/// Up to the closing quote, and what is behind it.
fn read_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                other => panic!("\\{other} in {text}"),
            }),
            _ => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}
