//! How much memory is left: of the machine, and of what the control groups (cgroup v2) around this
//! process may have; and how long others stood still for lack of it (PSI).
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::cgroup::{Groups, value_of};

/// More than this counts as no more, when it is judged how near the end is: the last hundredth of a
/// large machine's memory is more than most programs ever need.
const PLENTY: u64 = 64 << 30;

/// Reads what the kernel says about memory.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    root: PathBuf,
    groups: Groups,
}

/// Memory at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Memory {
    /// What is nearest to its end; `None` if nothing can be read.
    pub(crate) extent: Option<Extent>,
    /// The share of the last 10 s in which some task stood still for lack of memory, 0 to 1: of the
    /// machine's or the group's tasks; `None` if the kernel does not say.
    pub(crate) pressure: Option<f32>,
}

/// Memory that somebody may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The control group; `None` for the machine.
    pub(crate) group: Option<String>,
    /// Bytes, not 0.
    pub(crate) total: u64,
    /// Bytes of them that can still be had.
    pub(crate) left: u64,
}

impl Extent {
    /// The share in use, 0 to 1.
    pub(crate) fn share(&self) -> f32 {
        1.0 - self.left as f32 / self.total as f32
    }

    /// The same, of a machine that has no more than [`PLENTY`].
    pub(crate) fn nearness(&self) -> f32 {
        (1.0 - self.left as f32 / self.total.min(PLENTY) as f32).max(0.0)
    }
}

impl MemoryMeter {
    /// `root` is where `/proc` and `/sys` are: `/`, but for tests.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            groups: Groups::of_this_process(root),
        }
    }

    pub(crate) fn measure(&self) -> Memory {
        let read = |path: &str| fs::read_to_string(self.root.join(path)).ok();
        let machine = read("proc/meminfo").and_then(|text| machine(&text));
        let extents = machine.into_iter().chain(self.groups());
        let pressures = [
            read("proc/pressure/memory"),
            (self.groups.iter().next()).and_then(|own| own.read("memory.pressure")),
        ];
        Memory {
            extent: extents.max_by(|a, b| a.nearness().total_cmp(&b.nearness())),
            pressure: (pressures.into_iter().flatten())
                .filter_map(|text| some_avg10(&text))
                .reduce(f32::max),
        }
    }

    /// What the groups that are limited have.
    fn groups(&self) -> impl Iterator<Item = Extent> {
        self.groups.iter().filter_map(|group| {
            let limits = ["memory.max", "memory.high"].map(|file| group.number(file));
            let total = limits.into_iter().flatten().min().filter(|&n| n > 0)?;
            let current = group.number("memory.current")?;
            // Cached files are given up before anything is short; when that begins to hurt, because they are
            // in use, the pressure says so.
            let stat = group.read("memory.stat").unwrap_or_default();
            let cached = ["inactive_file", "active_file"].map(|key| value_of(&stat, key));
            let spare = cached.into_iter().flatten().sum();
            Some(Extent {
                group: Some(group.name().to_owned()),
                total,
                left: total.saturating_sub(current.saturating_sub(spare)),
            })
        })
    }
}

/// `/proc/meminfo`.
fn machine(text: &str) -> Option<Extent> {
    let bytes = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib << 10)
    };
    let total = bytes("MemTotal:").filter(|&n| n > 0)?;
    Some(Extent {
        group: None,
        total,
        left: bytes("MemAvailable:")?.min(total),
    })
}

/// `some avg10=1.23 avg60=...`, in percent.
fn some_avg10(text: &str) -> Option<f32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let field = line
        .split(' ')
        .find_map(|field| field.strip_prefix("avg10="))?;
    let percent: f32 = field.parse().ok()?;
    (percent >= 0.0).then(|| (percent / 100.0).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_kernels_lines_are_understood_and_others_refused() {
        let text = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    250 kB\n";
        let extent = machine(text).unwrap();
        assert_eq!((extent.total, extent.left), (1_024_000, 256_000));
        assert_eq!(machine("MemTotal: 1000 kB\n"), None);
        assert_eq!(machine("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
        let psi = "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0\n";
        assert_eq!(some_avg10(psi), Some(0.125));
        assert_eq!(some_avg10("full avg10=99.00\n"), None);
        assert_eq!(some_avg10("some avg10=x\n"), None);
    }

    #[test]
    fn what_is_left_of_a_large_machine_counts_not_its_share() {
        let extent = |total, left| Extent {
            group: None,
            total,
            left,
        };
        let small = extent(1000 * MIB, 20 * MIB);
        assert_eq!(small.share().to_bits(), small.nearness().to_bits());
        let large = extent(16 * PLENTY, PLENTY / 2);
        assert!(large.share() > 0.96 && large.nearness() <= 0.5);
        assert_eq!(extent(16 * PLENTY, 8 * PLENTY).nearness().to_bits(), 0);
        assert!(extent(16 * PLENTY, 0).nearness() >= 1.0);
    }

    #[test]
    fn the_group_that_is_nearest_to_its_end_counts_wherever_it_stands() {
        let root = tempdir();
        let write = |path: &str, text: &str| {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let meter = || MemoryMeter::new(&root.0).measure();
        assert_eq!(meter(), Memory::default());

        write(
            "proc/meminfo",
            "MemTotal: 1000000 kB\nMemAvailable: 500000 kB\n",
        );
        assert_eq!(meter().extent.unwrap().group, None);
        assert_eq!(meter().pressure, None);

        write("proc/self/cgroup", "0::/job/part\n");
        write(
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
        let group = "sys/fs/cgroup/job";
        write(&format!("{group}/part/memory.max"), "max\n");
        write(&format!("{group}/part/memory.current"), "100\n");
        assert_eq!(meter().extent.unwrap().group, None, "no limit is no end");

        write(&format!("{group}/memory.max"), "1000\n");
        write(&format!("{group}/memory.high"), "max\n");
        write(&format!("{group}/memory.current"), "900\n");
        write(
            &format!("{group}/memory.stat"),
            "anon 5\ninactive_file 70\nactive_file 30\n",
        );
        let extent = meter().extent.unwrap();
        assert_eq!(extent.group.as_deref(), Some("/job"));
        assert_eq!((extent.total, extent.left), (1000, 200));

        write(&format!("{group}/memory.high"), "850\n");
        assert_eq!(meter().extent.unwrap().left, 50);

        write("proc/pressure/memory", "some avg10=1.00 avg60=0\n");
        write(
            &format!("{group}/part/memory.pressure"),
            "some avg10=20.00\n",
        );
        assert_eq!(meter().pressure, Some(0.2));
    }

    #[test]
    fn this_machine_has_some_memory_left() {
        let extent = MemoryMeter::new(Path::new("/")).measure().extent.unwrap();
        assert!(extent.left > 0 && (0.0..1.0).contains(&extent.share()));
    }

    /// Removed when dropped.
    struct TempDir(PathBuf);

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn tempdir() -> TempDir {
        let name = format!("miniflow-memory-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }
}
