//! How processors share cores, caches and memory, as sysfs tells it.
//!
//! Nothing here fails: what a file does not say, because the kernel is old, a container hides it or
//! a virtual machine has no such thing, is taken to be as plain as can be.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::sys::cpuset::Cpus;

/// Where the kernel tells it.
pub(crate) const SYSFS: &str = "/sys/devices/system";

/// One logical processor. Numbers of shared things say only what is the same and what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) number: u32,
    /// The socket.
    pub(crate) package: u32,
    /// The NUMA node, by the kernel's number; 0 if there are none.
    pub(crate) node: u32,
    /// The processors with the same number have their last-level cache (L3) in common; without one,
    /// the socket.
    pub(crate) l3: u32,
    /// Those with the same number are threads of one core.
    pub(crate) core: u32,
    /// Which of the core's threads this is, counting only those that were asked about.
    pub(crate) smt: u32,
}

/// What sysfs below `root` says about some processors, in ascending order of their numbers.
///
/// They are given, and not looked for: what this process may use, the scheduler knows better than a
/// sysfs that shows the whole machine, or, in some containers, none of it.
pub(crate) fn read(root: &Path, cpus: &Cpus) -> Vec<Cpu> {
    let nodes = nodes(&root.join("node"));
    let mut threads = BTreeMap::new();
    cpus.iter()
        .map(|number| {
            let of_cpu = root.join(format!("cpu/cpu{number}"));
            let topology = of_cpu.join("topology");
            let package = (text(&topology.join("physical_package_id")))
                .and_then(|id| id.parse().ok()) // -1: not known
                .unwrap_or(0);
            let siblings = first_of(&topology.join("core_cpus_list"))
                .or_else(|| first_of(&topology.join("thread_siblings_list"))); // before Linux 5.3
            let core = siblings.unwrap_or(number);
            let smt = threads.entry(core).or_insert(0);
            let node = nodes.iter().find(|(_, members)| members.contains(number));
            let cpu = Cpu {
                number,
                package,
                node: node.map_or(0, |(node, _)| *node),
                l3: l3(&of_cpu.join("cache")).unwrap_or(NO_CACHE + package),
                core,
                smt: *smt,
            };
            *smt += 1;
            cpu
        })
        .collect()
}

/// Beyond the number of any processor, by which caches are named.
const NO_CACHE: u32 = 1 << 16;

/// The first of the processors that share a level-3 cache.
fn l3(caches: &Path) -> Option<u32> {
    // From the last: the larger, the later.
    let indices = (0..8)
        .rev()
        .map(|index| caches.join(format!("index{index}")));
    let mut level3 = indices.filter(|cache| text(&cache.join("level")).as_deref() == Some("3"));
    first_of(&level3.next()?.join("shared_cpu_list"))
}

/// The nodes and their processors; a node may have none (memory only).
fn nodes(root: &Path) -> Vec<(u32, Cpus)> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut nodes: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry
                .file_name()
                .to_str()?
                .strip_prefix("node")?
                .parse()
                .ok()?;
            let list = text(&entry.path().join("cpulist"))?;
            Some((number, Cpus::parse(&list)))
        })
        .collect();
    nodes.sort_unstable_by_key(|(number, _)| *number);
    nodes
}

/// The lowest number in a list.
fn first_of(list: &Path) -> Option<u32> {
    Cpus::parse(&text(list)?).iter().next()
}

fn text(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned())
}

/// A machine made of files, for tests.
#[cfg(test)]
pub(crate) mod fake {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    /// A directory like [`SYSFS`], removed when dropped.
    pub(crate) struct Machine(PathBuf);

    impl Machine {
        /// One of which nothing is known.
        pub(crate) fn bare() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            // Relaxed: a counter that guards no data.
            let name = format!(
                "miniflow-sysfs-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Relaxed)
            );
            let root = std::env::temp_dir().join(name);
            fs::create_dir(&root).unwrap();
            Self(root)
        }

        /// A machine with this many nodes (a socket each), L3 caches per node, cores per cache and
        /// threads per core. Numbered as usual: the first threads of all cores, then the second ones.
        pub(crate) fn new(nodes: u32, caches: u32, cores: u32, threads: u32) -> Self {
            let machine = Self::bare();
            let all = nodes * caches * cores;
            let list = |cores: std::ops::Range<u32>| {
                let cpus: Cpus = (0..threads)
                    .flat_map(|t| cores.clone().map(move |c| t * all + c))
                    .collect();
                cpus.to_string()
            };
            for core in 0..all {
                let (cache, node) = (core / cores, core / (cores * caches));
                for thread in 0..threads {
                    let cpu = format!("cpu/cpu{}", thread * all + core);
                    machine.put(
                        &format!("{cpu}/topology/physical_package_id"),
                        &node.to_string(),
                    );
                    machine.put(
                        &format!("{cpu}/topology/core_cpus_list"),
                        &list(core..core + 1),
                    );
                    for (index, level) in [(0, 1), (2, 2)] {
                        machine.put(
                            &format!("{cpu}/cache/index{index}/level"),
                            &format!("{level}"),
                        );
                        machine.put(
                            &format!("{cpu}/cache/index{index}/shared_cpu_list"),
                            &list(core..core + 1),
                        );
                    }
                    machine.put(&format!("{cpu}/cache/index3/level"), "3");
                    let sharing = list(cache * cores..(cache + 1) * cores);
                    machine.put(&format!("{cpu}/cache/index3/shared_cpu_list"), &sharing);
                }
            }
            for node in 0..nodes {
                let of_node = list(node * caches * cores..(node + 1) * caches * cores);
                machine.put(&format!("node/node{node}/cpulist"), &of_node);
            }
            machine
        }

        pub(crate) fn put(&self, file: &str, text: &str) {
            let file = self.0.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{text}\n")).unwrap();
        }

        pub(crate) fn remove(&self, entry: &str) {
            fs::remove_dir_all(self.0.join(entry)).unwrap();
        }

        pub(crate) fn read(&self, cpus: &str) -> Vec<Cpu> {
            super::read(&self.0, &Cpus::parse(cpus))
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Machine;
    use super::*;

    /// Package, node, cache, core and thread of each.
    fn rows(cpus: &[Cpu]) -> Vec<[u32; 6]> {
        let row = |c: &Cpu| [c.number, c.package, c.node, c.l3, c.core, c.smt];
        cpus.iter().map(row).collect()
    }

    #[test]
    fn one_socket_with_two_threads_per_core() {
        let cpus = Machine::new(1, 1, 2, 2).read("0-3");
        let expected = [
            [0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [2, 0, 0, 0, 0, 1],
            [3, 0, 0, 0, 1, 1],
        ];
        assert_eq!(rows(&cpus), expected);
    }

    #[test]
    fn two_nodes_with_two_caches_each() {
        let cpus = Machine::new(2, 2, 1, 1).read("0-3");
        let expected = [
            [0, 0, 0, 0, 0, 0],
            [1, 0, 0, 1, 1, 0],
            [2, 1, 1, 2, 2, 0],
            [3, 1, 1, 3, 3, 0],
        ];
        assert_eq!(rows(&cpus), expected);
    }

    #[test]
    fn in_a_restricted_cpuset_the_second_thread_of_a_core_may_be_the_only_one() {
        let cpus = Machine::new(1, 1, 4, 2).read("2-3,5,7");
        let smt = |number| cpus.iter().find(|c| c.number == number).unwrap().smt;
        assert_eq!([smt(2), smt(3), smt(5), smt(7)], [0, 0, 0, 1]);
    }

    #[test]
    fn a_processor_that_went_offline_is_as_plain_as_can_be() {
        let machine = Machine::new(1, 1, 2, 1);
        machine.remove("cpu/cpu1"); // no topology and no caches are left of it
        machine.put("node/node0/cpulist", "0");
        machine.put("cpu/cpu0/cache/index3/shared_cpu_list", "0");
        let cpus = machine.read("0-1");
        assert_eq!(rows(&cpus), [[0, 0, 0, 0, 0, 0], [1, 0, 0, NO_CACHE, 1, 0]]);
    }

    #[test]
    fn without_sysfs_every_processor_is_a_core_of_one_socket() {
        let cpus = Machine::bare().read("1,3");
        assert_eq!(
            rows(&cpus),
            [[1, 0, 0, NO_CACHE, 1, 0], [3, 0, 0, NO_CACHE, 3, 0]]
        );
    }

    #[test]
    fn without_a_third_level_the_socket_stands_for_the_cache() {
        let machine = Machine::new(2, 1, 2, 1);
        for cpu in 0..4 {
            machine.remove(&format!("cpu/cpu{cpu}/cache/index3"));
        }
        let caches: Vec<u32> = machine.read("0-3").iter().map(|c| c.l3).collect();
        assert_eq!(caches, [NO_CACHE, NO_CACHE, NO_CACHE + 1, NO_CACHE + 1]);
    }

    #[test]
    fn kernels_before_5_3_name_a_cores_threads_otherwise() {
        let machine = Machine::new(1, 1, 1, 2);
        for cpu in 0..2 {
            machine.remove(&format!("cpu/cpu{cpu}/topology"));
            machine.put(
                &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                "0-1",
            );
            machine.put(&format!("cpu/cpu{cpu}/topology/physical_package_id"), "-1");
        }
        assert_eq!(
            rows(&machine.read("0-1")),
            [[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1]]
        );
    }

    #[test]
    fn this_machine_has_the_processors_that_this_thread_may_use() {
        let allowed = Cpus::allowed(None).unwrap();
        let cpus = read(Path::new(SYSFS), &allowed);
        assert!(cpus.iter().map(|cpu| cpu.number).eq(allowed.iter()));
    }
}
