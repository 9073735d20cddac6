//! What an engine leaves behind when it is gone: nothing.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getpid, set_child_subreaper};

use crate::error::{Error, Result};

/// How long the kernel may take to let go of what was closed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Things of this process that an engine makes, counted by name.
#[derive(Debug)]
pub(super) struct Things(BTreeMap<String, usize>);

impl Things {
    /// What there is now. From now on, orphans of this process's children become its own, so that
    /// they are found.
    pub(super) fn before() -> Result<Self> {
        set_child_subreaper(Some(getpid())).map_err(Error::system("prctl"))?;
        Ok(Self::now())
    }

    fn now() -> Self {
        let mut things = BTreeMap::new();
        let names = [
            descriptors(),
            mappings(),
            children(),
            threads(),
            shared_names(),
        ];
        for name in names.into_iter().flatten() {
            *things.entry(name).or_default() += 1;
        }
        Self(things)
    }

    /// What is there now and was not before.
    pub(super) fn left(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let left = self.added(&Self::now());
            if left.is_empty() || start.elapsed() > PATIENCE {
                return left;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn added(&self, now: &Self) -> Vec<String> {
        let more = now.0.iter().map(|(name, &count)| {
            let before = self.0.get(name).copied().unwrap_or_default();
            (name, count.saturating_sub(before))
        });
        more.filter(|&(_, more)| more > 0)
            .flat_map(|(name, more)| vec![name.clone(); more])
            .collect()
    }
}

fn entries(directory: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

/// Open descriptors by what they refer to; numbers of sockets and pipes do not count.
fn descriptors() -> Vec<String> {
    let links = entries("/proc/self/fd").filter_map(|fd| fs::read_link(fd.path()).ok());
    let names = links.map(|link| link.to_string_lossy().into_owned());
    names
        .filter(|name| !name.starts_with("/proc/")) // the directory that is being read
        .map(|name| {
            let kind = name.split(":[").next().unwrap_or_default();
            format!("descriptor of {kind}")
        })
        .collect()
}

/// Mapped memory files.
fn mappings() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let files = maps.lines().filter_map(|line| line.split_once("/memfd:"));
    files
        .map(|(_, name)| format!("mapping of {name}"))
        .collect()
}

/// Children of this process, dead ones too.
fn children() -> Vec<String> {
    let me = std::process::id().to_string();
    let stats =
        entries("/proc").filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            // PID (NAME) STATE PARENT ...: a name may hold anything, parentheses too.
            let (before, after) = stat.rsplit_once(')')?;
            (after.split_whitespace().nth(1)? == me).then(|| format!("process {before})"))
        })
        .collect()
}

fn threads() -> Vec<String> {
    let names = entries("/proc/self/task")
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names
        .map(|name| format!("thread {}", name.trim_end()))
        .collect()
}

/// Names of this user's engines that belong to this process.
fn shared_names() -> Vec<String> {
    let name = engine_name();
    let names = entries("/dev/shm").map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|file| file.starts_with("miniflow.") && file.contains(&name))
        .map(|file| format!("name /dev/shm/{file}"))
        .collect()
}

/// What the engine of this process is called.
pub(super) fn engine_name() -> String {
    format!("chaos-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_is_found_and_what_was_closed_is_not() {
        let count = |name: &str| descriptors().iter().filter(|d| d.contains(name)).count();
        let before = count("/dev/zero");
        let file = fs::File::open("/dev/zero").unwrap();
        assert_eq!(count("/dev/zero"), before + 1);
        drop(file);
        assert_eq!(count("/dev/zero"), before);
    }

    #[test]
    fn only_what_is_more_than_before_is_left() {
        let things = |list: &[(&str, usize)]| {
            Things(list.iter().map(|&(name, n)| (name.to_owned(), n)).collect())
        };
        let before = things(&[("a", 2), ("b", 1)]);
        assert_eq!(before.added(&things(&[("a", 2)])), [""; 0]);
        let now = things(&[("a", 3), ("b", 1), ("c", 2)]);
        assert_eq!(before.added(&now), ["a", "c", "c"]);
    }
}
