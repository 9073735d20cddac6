//! The control groups of this process, and what they limit.

use super::check::Check;
use super::root::Root;
use crate::units::bytes;

/// Below so much memory the default arenas are too large.
const LITTLE_MEMORY: u64 = 512 << 20;
/// So many processes and threads should be left.
const FEW_TASKS: u64 = 128;

/// Where the limits of this process are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchy {
    /// cgroup v2: the group's path below `/sys/fs/cgroup`.
    Unified(String),
    /// cgroup v1, possibly with an empty v2 beside it.
    Legacy,
    None,
}

pub(super) fn checks(root: &Root) -> Vec<Check> {
    let hierarchy = hierarchy(root);
    vec![
        version(root, &hierarchy),
        processors(root, &hierarchy),
        memory(root, &hierarchy),
        tasks(root, &hierarchy),
    ]
}

/// The processors' worth of time that the groups allow; `None` for no limit.
pub(super) fn quota(root: &Root) -> Option<f64> {
    quota_in(root, &hierarchy(root))
}

fn hierarchy(root: &Root) -> Hierarchy {
    let own = root.text("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    match path {
        Some(path) if root.exists("/sys/fs/cgroup/cgroup.controllers") => {
            Hierarchy::Unified(path.trim_end().to_owned())
        }
        // Beside v1, the unified hierarchy is mounted elsewhere and has no controllers.
        _ if own.lines().any(|line| !line.starts_with("0::")) => Hierarchy::Legacy,
        _ => Hierarchy::None,
    }
}

fn version(root: &Root, hierarchy: &Hierarchy) -> Check {
    const NAME: &str = "cgroup";
    let limited = || quota_in(root, hierarchy).is_some() || memory_limit(root, hierarchy).is_some();
    match hierarchy {
        Hierarchy::Unified(path) => Check::ok(NAME, format!("version 2, {path}")),
        Hierarchy::Legacy if limited() => Check::warn(
            NAME,
            "version 1, with limits",
            "scaling sees limits of version 2 only: boot with systemd.unified_cgroup_hierarchy=1",
        ),
        Hierarchy::Legacy => Check::ok(NAME, "version 1, without limits"),
        Hierarchy::None => Check::skip(NAME, "none"),
    }
}

/// The values of a file of version 2 in the process's group and in all groups above it, which limit it
/// too. In a container the root is the container's own group.
fn of_all_groups(root: &Root, path: &str, file: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut path = path.trim_end_matches('/');
    loop {
        values.extend(root.line(&format!("/sys/fs/cgroup{path}/{file}")));
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => return values,
        }
    }
}

/// The value of a file of version 1, where the controller's mount shows it: by the group's path, or,
/// in a container, at the top.
fn legacy(root: &Root, controller: &str, file: &str) -> Option<String> {
    let own = root.text("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })?;
    let path = path.trim_end_matches('/');
    root.line(&format!("/sys/fs/cgroup/{controller}{path}/{file}"))
        .or_else(|| root.line(&format!("/sys/fs/cgroup/{controller}/{file}")))
}

/// The smallest number among values of which some are `max`.
fn smallest(values: &[String]) -> Option<u64> {
    values.iter().filter_map(|value| value.parse().ok()).min()
}

fn quota_in(root: &Root, hierarchy: &Hierarchy) -> Option<f64> {
    let quotient = |quota: f64, period: f64| (quota > 0.0 && period > 0.0).then(|| quota / period);
    match hierarchy {
        Hierarchy::Unified(path) => (of_all_groups(root, path, "cpu.max").iter())
            .filter_map(|value| {
                let (quota, period) = value.split_once(' ')?;
                quotient(quota.parse().ok()?, period.parse().ok()?)
            })
            .reduce(f64::min),
        Hierarchy::Legacy => {
            // -1: no limit.
            let number = |file| legacy(root, "cpu", file)?.parse().ok();
            quotient(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        }
        Hierarchy::None => None,
    }
}

fn processors(root: &Root, hierarchy: &Hierarchy) -> Check {
    const NAME: &str = "cgroup processors";
    match quota_in(root, hierarchy) {
        Some(quota) if quota < 1.0 => Check::warn(
            NAME,
            format!("{quota:.2} processors' worth of time"),
            "the group stands still for the rest of each period: raise cpu.max, or expect pauses",
        ),
        Some(quota) => Check::ok(NAME, format!("{quota:.2} processors' worth of time")),
        None => Check::ok(NAME, "no limit"),
    }
}

fn memory_limit(root: &Root, hierarchy: &Hierarchy) -> Option<u64> {
    match hierarchy {
        Hierarchy::Unified(path) => smallest(&of_all_groups(root, path, "memory.max")),
        Hierarchy::Legacy => (legacy(root, "memory", "memory.limit_in_bytes"))
            .and_then(|value| value.parse().ok())
            // No limit is written as the largest number of pages.
            .filter(|&limit: &u64| limit < 1 << 60),
        Hierarchy::None => None,
    }
}

fn memory(root: &Root, hierarchy: &Hierarchy) -> Check {
    const NAME: &str = "cgroup memory";
    let limit = memory_limit(root, hierarchy);
    let Some(limit) = limit else {
        return Check::ok(NAME, "no limit");
    };
    let found = format!("at most {}", bytes(limit));
    if limit < LITTLE_MEMORY {
        return Check::warn(
            NAME,
            found,
            "lower payload_arena (256 MiB by default) and result_arena (64 MiB a worker), or raise \
             memory.max: what exceeds it is killed",
        );
    }
    Check::ok(NAME, found)
}

/// Processes and threads.
fn tasks(root: &Root, hierarchy: &Hierarchy) -> Check {
    const NAME: &str = "cgroup tasks";
    let (limit, used) = match hierarchy {
        Hierarchy::Unified(path) => (
            smallest(&of_all_groups(root, path, "pids.max")),
            root.number(&format!("/sys/fs/cgroup{path}/pids.current")),
        ),
        Hierarchy::Legacy => {
            let number = |file| legacy(root, "pids", file)?.parse().ok();
            (number("pids.max"), number("pids.current"))
        }
        Hierarchy::None => (None, None),
    };
    let Some(limit) = limit else {
        return Check::ok(NAME, "no limit");
    };
    let found = format!(
        "{} of {limit} processes and threads",
        used.unwrap_or_default()
    );
    if limit.saturating_sub(used.unwrap_or_default()) < FEW_TASKS {
        return Check::warn(
            NAME,
            found,
            "raise pids.max (--pids-limit, TasksMax=): a worker is a process with two threads \
             besides its own",
        );
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::super::root::fake::Tree;
    use super::*;

    const OWN: &str = "/proc/self/cgroup";
    const V2: (&str, &str) = ("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");

    fn find<'c>(checks: &'c [Check], name: &str) -> &'c Check {
        checks.iter().find(|check| check.name == name).unwrap()
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let tree = Tree::of(&[
            V2,
            (OWN, "0::/a/b\n"),
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/a/memory.max", "104857600\n"),
            ("/sys/fs/cgroup/a/b/pids.max", "max\n"),
            ("/sys/fs/cgroup/a/pids.max", "200\n"),
            ("/sys/fs/cgroup/a/b/pids.current", "150\n"),
        ]);
        let checks = checks(&tree);
        assert_eq!(quota(&tree), Some(2.5));
        assert_eq!(find(&checks, "cgroup").found, "version 2, /a/b");
        assert_eq!(find(&checks, "cgroup processors").state, State::Ok);
        let memory = find(&checks, "cgroup memory");
        assert_eq!(
            (memory.state, memory.found.as_str()),
            (State::Warn, "at most 100 MiB")
        );
        let tasks = find(&checks, "cgroup tasks");
        assert_eq!(tasks.state, State::Warn);
        assert_eq!(tasks.found, "150 of 200 processes and threads");
    }

    #[test]
    fn a_container_is_the_root_of_its_groups() {
        let tree = Tree::of(&[
            V2,
            (OWN, "0::/\n"),
            ("/sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
        ]);
        let checks = checks(&tree);
        assert_eq!(find(&checks, "cgroup processors").state, State::Warn);
        assert_eq!(find(&checks, "cgroup memory").found, "no limit");
        assert_eq!(find(&checks, "cgroup tasks").found, "no limit");
    }

    #[test]
    fn version_1_is_read_and_advised_against() {
        let tree = Tree::of(&[
            (OWN, "5:memory:/x\n4:cpu,cpuacct:/x\n3:pids:/x\n0::/\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            (
                "/sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("/sys/fs/cgroup/pids/x/pids.max", "1000\n"),
            ("/sys/fs/cgroup/pids/x/pids.current", "10\n"),
        ]);
        let checks = checks(&tree);
        assert_eq!(quota(&tree), Some(1.5));
        assert_eq!(find(&checks, "cgroup").state, State::Warn);
        assert_eq!(find(&checks, "cgroup memory").found, "no limit");
        assert_eq!(find(&checks, "cgroup tasks").state, State::Ok);
        let unlimited = Tree::of(&[
            (OWN, "4:cpu:/\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(&unlimited), None);
        assert_eq!(super::checks(&unlimited)[0].state, State::Ok);
    }

    #[test]
    fn without_groups_nothing_is_limited() {
        let checks = checks(&Tree::of(&[]));
        assert_eq!(find(&checks, "cgroup").state, State::Skip);
        assert!(checks.iter().all(|check| check.state != State::Fail));
    }
}
