//! Processors: how many, how they are put together, how fast they say what time it is.

use std::collections::BTreeSet;

use rustix::thread::{CpuSet, sched_getaffinity};

use super::cgroup;
use super::check::Check;
use super::root::Root;
use crate::cpu_list;
use crate::units::plural;

const CPUS: &str = "/sys/devices/system/cpu";
/// Time that the host of a virtual machine takes away, in percent, which is worth a word.
const STOLEN: f64 = 5.0;

/// The processors that this process may run on.
pub(super) fn allowed() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .filter_map(|cpu| u16::try_from(cpu).ok())
        .collect()
}

pub(super) fn checks(root: &Root, allowed: &[u16]) -> Vec<Check> {
    vec![
        count(root, allowed),
        topology(root, allowed),
        clock(root),
        frequency(root, allowed),
        virtual_machine(root),
    ]
}

fn count(root: &Root, allowed: &[u16]) -> Check {
    const NAME: &str = "processors";
    let online = cpu_list::parse(&root.line(&format!("{CPUS}/online")).unwrap_or_default()).len();
    let online = online.max(allowed.len());
    if allowed.is_empty() {
        return Check::skip(NAME, "sched_getaffinity says nothing");
    }
    let found = format!("{} of {online} may be used", allowed.len());
    let quota = cgroup::quota(root).unwrap_or(f64::INFINITY);
    if allowed.len() == 1 || quota < 2.0 {
        return Check::warn(
            NAME,
            found,
            "host and workers take turns: switch spinning off (Builder::spin(Duration::ZERO), \
             mf_config.spin_ns = 0), which the engine otherwise gives up only after some failures",
        );
    }
    Check::ok(NAME, found)
}

/// Cores, hardware threads, caches and memory that the allowed processors share.
fn topology(root: &Root, allowed: &[u16]) -> Check {
    const NAME: &str = "topology";
    // A group is known by its first processor.
    let groups = |file: &str| -> BTreeSet<u16> {
        let lists = allowed.iter().filter_map(|cpu| {
            let list = root.line(&format!("{CPUS}/cpu{cpu}/{file}"))?;
            cpu_list::parse(&list).first().copied()
        });
        lists.collect()
    };
    let cores = groups("topology/thread_siblings_list").len();
    if cores == 0 {
        return Check::skip(NAME, "the kernel does not tell");
    }
    let mut parts = vec![plural(cores as u64, "core")];
    if cores < allowed.len() {
        parts.push("hardware threads share cores".into());
    }
    let caches = groups("cache/index3/shared_cpu_list").len();
    if caches > 0 {
        parts.push(plural(caches as u64, "L3 cache"));
    }
    let nodes = nodes(root, allowed);
    if nodes > 0 {
        parts.push(plural(nodes as u64, "memory node"));
    }
    let check = Check::ok(NAME, parts.join(", "));
    if caches > 1 || nodes > 1 {
        return check.advise(
            "neighbours are faster than strangers: Affinity::Spread keeps the threads of a worker \
             together, Affinity::Node or taskset all workers",
        );
    }
    check
}

/// Memory nodes that have one of these processors.
fn nodes(root: &Root, allowed: &[u16]) -> usize {
    let names = root.names("/sys/devices/system/node").into_iter();
    let nodes = names.filter(|name| {
        name.strip_prefix("node")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    let used = nodes.filter(|node| {
        let list = root.line(&format!("/sys/devices/system/node/{node}/cpulist"));
        let cpus = cpu_list::parse(&list.unwrap_or_default());
        cpus.iter().any(|cpu| allowed.contains(cpu))
    });
    used.count()
}

/// Every task is stamped twice.
fn clock(root: &Root) -> Check {
    const NAME: &str = "clock";
    const FILE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Some(source) = root.line(FILE) else {
        return Check::skip(NAME, format!("there is no {FILE}"));
    };
    if !cfg!(target_arch = "x86_64") {
        return Check::ok(NAME, source);
    }
    let flags = root.field("/proc/cpuinfo", "flags").unwrap_or_default();
    let has = |flag: &str| flags.split(' ').any(|word| word == flag);
    match source.as_str() {
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page"
            if has("constant_tsc") && has("nonstop_tsc") =>
        {
            Check::ok(
                NAME,
                format!("{source}; time stamps by the processor's counter"),
            )
        }
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" => Check::ok(
            NAME,
            format!("{source}; time stamps by CLOCK_MONOTONIC (the counter is not invariant)"),
        ),
        _ => Check::warn(
            NAME,
            format!("{source}: reading it is a system call"),
            "each task costs two of them: boot with tsc=reliable if the machine is known to keep \
             its counters in step",
        ),
    }
}

fn frequency(root: &Root, allowed: &[u16]) -> Check {
    const NAME: &str = "frequency";
    let files = |file: &str| -> BTreeSet<String> {
        let lines = allowed
            .iter()
            .filter_map(|cpu| root.line(&format!("{CPUS}/cpu{cpu}/cpufreq/{file}")));
        lines.collect()
    };
    let governors = files("scaling_governor");
    if governors.is_empty() {
        return Check::skip(NAME, "not ours to control");
    }
    let drivers: Vec<String> = files("scaling_driver").into_iter().collect();
    let names: Vec<&str> = governors.iter().map(String::as_str).collect();
    let found = format!("governor {} ({})", names.join(", "), drivers.join(", "));
    // The drivers that choose by themselves call their adaptive mode `powersave`.
    let adaptive = drivers
        .iter()
        .any(|d| d == "intel_pstate" || d == "amd-pstate-epp");
    if governors.contains("powersave") && !adaptive {
        let advice =
            "the processors stay at their lowest frequency: cpupower frequency-set -g schedutil";
        return Check::warn(NAME, found, advice);
    }
    let check = Check::ok(NAME, found);
    if governors.iter().all(|name| name == "performance") {
        return check;
    }
    check.advise("for even latencies: cpupower frequency-set -g performance")
}

fn virtual_machine(root: &Root) -> Check {
    const NAME: &str = "virtual machine";
    let flags = root.field("/proc/cpuinfo", "flags").unwrap_or_default();
    let virtual_cpu = flags.split(' ').any(|word| word == "hypervisor");
    let stolen = root.text("/proc/stat").as_deref().and_then(stolen);
    match stolen {
        Some(share) if share >= STOLEN => Check::warn(
            NAME,
            format!("yes; its host took {share:.1} % of the time since it was started"),
            "the machine is overbooked: tasks and wake-ups wait for it; another one, or dedicated processors",
        ),
        _ if virtual_cpu => Check::ok(
            NAME,
            "yes: waking a sleeper on another processor may cost tens of us, spinning does not",
        ),
        _ => Check::ok(NAME, "no"),
    }
}

/// The share of all processors' time that was stolen, in percent, by the first line of `/proc/stat`.
fn stolen(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let (all, stolen) = (times.iter().take(8).sum::<u64>(), *times.get(7)?);
    (all > 0).then(|| 100.0 * stolen as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::super::root::fake::Tree;
    use super::*;

    fn of_cpu(cpu: u16, file: &str) -> String {
        format!("{CPUS}/cpu{cpu}/{file}")
    }

    /// Four processors: two cores of two threads, an L3 cache and a node each.
    fn two_sockets() -> Tree {
        let mut files = vec![
            (
                "/sys/devices/system/cpu/online".to_owned(),
                "0-3\n".to_owned(),
            ),
            (
                "/sys/devices/system/node/node0/cpulist".to_owned(),
                "0-1\n".to_owned(),
            ),
            (
                "/sys/devices/system/node/node1/cpulist".to_owned(),
                "2-3\n".to_owned(),
            ),
            (
                "/sys/devices/system/node/online".to_owned(),
                "0-1\n".to_owned(),
            ),
        ];
        for cpu in 0..4 {
            let pair = if cpu < 2 { "0-1\n" } else { "2-3\n" };
            files.push((
                of_cpu(cpu, "topology/thread_siblings_list"),
                pair.to_owned(),
            ));
            files.push((of_cpu(cpu, "cache/index3/shared_cpu_list"), pair.to_owned()));
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        Tree::of(&files)
    }

    #[test]
    fn what_the_allowed_processors_share_is_counted_once() {
        let tree = two_sockets();
        let all = topology(&tree, &[0, 1, 2, 3]);
        let found = "2 cores, hardware threads share cores, 2 L3 caches, 2 memory nodes";
        assert_eq!(all.found, found);
        assert!(all.advice.is_some());
        let one = topology(&tree, &[0]);
        assert_eq!(one.found, "1 core, 1 L3 cache, 1 memory node");
        assert_eq!(one.advice, None);
        assert_eq!(topology(&Tree::of(&[]), &[0]).state, State::Skip);
    }

    #[test]
    fn one_processor_is_told_not_to_spin() {
        let tree = two_sockets();
        assert_eq!(count(&tree, &[0, 1]).found, "2 of 4 may be used");
        assert_eq!(count(&tree, &[0, 1]).state, State::Ok);
        let alone = count(&tree, &[2]);
        assert_eq!(alone.state, State::Warn);
        assert!(alone.advice.unwrap().contains("spin"));
        assert_eq!(count(&tree, &[]).state, State::Skip);
        let limited = Tree::of(&[
            ("/sys/fs/cgroup/cgroup.controllers", "cpu\n"),
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(count(&limited, &[0, 1, 2]).state, State::Warn);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn slow_clocks_are_warned_of() {
        let check = |source, flags| {
            clock(&Tree::of(&[
                (
                    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
                    source,
                ),
                ("/proc/cpuinfo", flags),
            ]))
        };
        let invariant = "flags\t\t: fpu constant_tsc nonstop_tsc\n";
        assert!(check("tsc\n", invariant).found.contains("counter"));
        assert!(
            check("tsc\n", "flags : fpu\n")
                .found
                .contains("CLOCK_MONOTONIC")
        );
        assert_eq!(check("hpet\n", invariant).state, State::Warn);
        assert_eq!(clock(&Tree::of(&[])).state, State::Skip);
    }

    #[test]
    fn the_slow_governor_is_warned_of_unless_the_driver_means_another() {
        let check = |governor, driver| {
            let paths = (
                of_cpu(0, "cpufreq/scaling_governor"),
                of_cpu(0, "cpufreq/scaling_driver"),
            );
            frequency(&Tree::of(&[(&paths.0, governor), (&paths.1, driver)]), &[0])
        };
        assert_eq!(check("powersave\n", "acpi-cpufreq\n").state, State::Warn);
        let adaptive = check("powersave\n", "intel_pstate\n");
        assert_eq!(
            (adaptive.state, adaptive.advice.is_some()),
            (State::Ok, true)
        );
        assert_eq!(check("performance\n", "acpi-cpufreq\n").advice, None);
        assert_eq!(frequency(&Tree::of(&[]), &[0]).state, State::Skip);
    }

    #[test]
    fn stolen_time_is_warned_of() {
        let check = |stat| virtual_machine(&Tree::of(&[("/proc/stat", stat)]));
        let busy = check("cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1 2 3\n");
        assert_eq!(busy.state, State::Warn);
        assert!(busy.found.contains("10.0 %"), "{busy:?}");
        assert_eq!(check("cpu  100 0 100 800 0 0 0 0 0 0\n").found, "no");
        assert_eq!(check("nonsense").found, "no");
        let guest = Tree::of(&[("/proc/cpuinfo", "flags : fpu hypervisor sse\n")]);
        assert!(virtual_machine(&guest).found.starts_with("yes"));
    }
}
