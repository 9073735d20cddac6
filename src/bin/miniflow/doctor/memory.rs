//! Shared memory and what it is made of.

use miniflow::monitor::Found;
use rustix::fs::{Access, StatVfs, access, statvfs};

use super::check::Check;
use super::root::Root;
use crate::units::bytes;

const SHM: &str = "/dev/shm";
/// A control segment takes 28 KiB, and 260 B for each worker that there may be.
const ENOUGH: u64 = 1 << 20;
/// Less memory than this should be left.
const LITTLE: u64 = 512 << 20;

pub(super) fn checks(root: &Root) -> Vec<Check> {
    vec![
        shm(root),
        leftovers(miniflow::monitor::list()),
        available(root),
        overcommit(root),
        huge_pool(root),
        transparent(root),
    ]
}

fn shm(root: &Root) -> Check {
    const NAME: &str = SHM;
    const WITHOUT: &str = "engines run, but cannot have names and be watched";
    let path = root.path(SHM);
    let Ok(size) = statvfs(&path) else {
        let advice = format!("mount a tmpfs there; until then {WITHOUT}");
        return Check::warn(NAME, "there is none", advice);
    };
    let found = space(&size);
    if let Err(errno) = access(&path, Access::WRITE_OK | Access::EXEC_OK) {
        let advice = format!("chmod 1777, mount -o remount,rw; until then {WITHOUT}");
        return Check::warn(NAME, format!("{found}, not writable: {errno}"), advice);
    }
    let mounts = root.text("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(SHM));
    if !mounts.is_empty() && !mounted {
        return Check::warn(
            NAME,
            format!("{found}, no file system of its own"),
            "mount a tmpfs there: names would be left after a restart",
        );
    }
    room(NAME, found, free(&size))
}

fn room(name: &'static str, found: String, free: u64) -> Check {
    if free < ENOUGH {
        return Check::warn(
            name,
            found,
            "enlarge it: mount -o remount,size=64m /dev/shm, --shm-size of a container; only names are \
             kept there, no payloads",
        );
    }
    Check::ok(name, found)
}

fn free(size: &StatVfs) -> u64 {
    size.f_bavail.saturating_mul(size.f_frsize)
}

fn space(size: &StatVfs) -> String {
    let whole = size.f_blocks.saturating_mul(size.f_frsize);
    format!("{}, {} free", bytes(whole), bytes(free(size)))
}

fn leftovers(names: miniflow::Result<Vec<Found>>) -> Check {
    const NAME: &str = "names";
    let names = match names {
        Ok(names) => names,
        Err(error) => return Check::skip(NAME, error.to_string()),
    };
    let dead: Vec<&str> = (names.iter())
        .filter(|found| !found.alive)
        .map(|found| found.name.as_str())
        .collect();
    let found = format!("{} of living engines", names.len() - dead.len());
    if dead.is_empty() {
        return Check::ok(NAME, found);
    }
    Check::warn(
        NAME,
        format!("{found}, {} of dead ones: {}", dead.len(), dead.join(", ")),
        "`miniflow clean` removes them; so does the next engine of the same name",
    )
}

fn available(root: &Root) -> Check {
    const NAME: &str = "memory";
    let (Some(total), Some(left)) = (root.memory("MemTotal"), root.memory("MemAvailable")) else {
        return Check::skip(NAME, "/proc/meminfo cannot be read");
    };
    let found = format!("{} of {} available", bytes(left), bytes(total));
    if left < LITTLE {
        return Check::warn(
            NAME,
            found,
            "free some, or lower payload_arena and result_arena",
        );
    }
    Check::ok(NAME, found)
}

fn overcommit(root: &Root) -> Check {
    const NAME: &str = "overcommit";
    match root.number("/proc/sys/vm/overcommit_memory") {
        None => Check::skip(NAME, "/proc/sys/vm/overcommit_memory cannot be read"),
        Some(2) => {
            let size = |key| root.memory(key).map_or("?".into(), bytes);
            let (used, limit) = (size("Committed_AS"), size("CommitLimit"));
            Check::warn(
                NAME,
                format!("strict: {used} of {limit} promised"),
                "each worker is a fork and counts as much as the host does at its start: \
                 vm.overcommit_memory=0, or a higher vm.overcommit_ratio",
            )
        }
        Some(1) => Check::ok(NAME, "always"),
        Some(_) => Check::ok(NAME, "heuristic"),
    }
}

/// Huge pages that are set aside.
fn huge_pool(root: &Root) -> Check {
    const NAME: &str = "huge page pool";
    let count = |key| root.field("/proc/meminfo", key)?.parse::<u64>().ok();
    let (Some(total), Some(free)) = (count("HugePages_Total"), count("HugePages_Free")) else {
        return Check::skip(NAME, "the kernel has none (CONFIG_HUGETLBFS)");
    };
    let size = root.memory("Hugepagesize").map_or("?".into(), bytes);
    if total == 0 {
        return Check::ok(NAME, format!("none set aside (of {size})"));
    }
    Check::ok(NAME, format!("{free} of {total} free, {size} each"))
        .advise("the engine uses transparent ones only: these are memory that it cannot have")
}

/// Huge pages that the kernel puts together by itself, in memory files.
fn transparent(root: &Root) -> Check {
    const NAME: &str = "transparent huge pages";
    let Some(modes) = root.line("/sys/kernel/mm/transparent_hugepage/shmem_enabled") else {
        return Check::skip(NAME, "the kernel has none (CONFIG_TRANSPARENT_HUGEPAGE)");
    };
    let chosen = modes.split(' ').find_map(|word| {
        let word = word.strip_prefix('[')?;
        word.strip_suffix(']')
    });
    let Some(chosen) = chosen else {
        return Check::skip(NAME, format!("shmem_enabled says `{modes}`"));
    };
    let check = Check::ok(NAME, format!("shared memory: {chosen}"));
    match chosen {
        "never" | "deny" => check.advise(
            "an engine that asks for them (HugePages::Advise) gets none: \
             echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        ),
        _ => check,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::super::root::fake::Tree;
    use super::*;

    const MEMINFO: &str = "/proc/meminfo";

    #[test]
    fn a_directory_is_not_taken_for_a_tmpfs() {
        let tree = Tree::of(&[
            ("/dev/shm/x", ""),
            ("/proc/self/mounts", "proc /proc proc rw 0 0\n"),
        ]);
        let check = shm(&tree);
        assert_eq!(check.state, State::Warn);
        assert!(
            check.found.ends_with("no file system of its own"),
            "{check:?}"
        );
        assert_eq!(shm(&Tree::of(&[])).found, "there is none");
    }

    #[test]
    fn a_full_one_is_warned_of() {
        assert_eq!(
            room(SHM, "64.0 MiB, 4.00 KiB free".into(), 4096).state,
            State::Warn
        );
        assert_eq!(
            room(SHM, "64.0 MiB, 64.0 MiB free".into(), 64 << 20).state,
            State::Ok
        );
    }

    #[test]
    fn names_that_cannot_be_listed_are_skipped() {
        let error = miniflow::Error::Unsupported("x".into());
        assert_eq!(leftovers(Err(error)).state, State::Skip);
        assert_eq!(leftovers(Ok(Vec::new())).found, "0 of living engines");
    }

    #[test]
    fn little_memory_is_warned_of() {
        let check = |kib: u64| {
            let text = format!("MemTotal: 8388608 kB\nMemAvailable: {kib} kB\n");
            available(&Tree::of(&[(MEMINFO, &text)]))
        };
        assert_eq!(check(1 << 22).found, "4.00 GiB of 8.00 GiB available");
        assert_eq!(check(1 << 10).state, State::Warn);
        assert_eq!(available(&Tree::of(&[])).state, State::Skip);
    }

    #[test]
    fn strict_overcommit_is_warned_of() {
        let check = |mode| {
            overcommit(&Tree::of(&[
                ("/proc/sys/vm/overcommit_memory", mode),
                (
                    MEMINFO,
                    "CommitLimit: 1048576 kB\nCommitted_AS: 524288 kB\n",
                ),
            ]))
        };
        assert_eq!(check("0\n").found, "heuristic");
        assert_eq!(check("1\n").found, "always");
        assert_eq!(check("2\n").found, "strict: 512 MiB of 1.00 GiB promised");
        assert_eq!(check("2\n").state, State::Warn);
    }

    #[test]
    fn huge_pages_are_counted() {
        let check = |text| huge_pool(&Tree::of(&[(MEMINFO, text)]));
        let none = "HugePages_Total: 0\nHugePages_Free: 0\nHugepagesize: 2048 kB\n";
        assert_eq!(check(none).found, "none set aside (of 2.00 MiB)");
        let some = "HugePages_Total: 8\nHugePages_Free: 5\nHugepagesize: 2048 kB\n";
        assert_eq!(check(some).found, "5 of 8 free, 2.00 MiB each");
        assert_eq!(check("").state, State::Skip);
    }

    #[test]
    fn the_mode_in_brackets_is_the_one_in_force() {
        let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
        let check = |modes| transparent(&Tree::of(&[(path, modes)]));
        let advised = check("always within_size [advise] never deny force\n");
        assert_eq!(advised.found, "shared memory: advise");
        assert_eq!(advised.advice, None);
        assert!(check("always [never] deny\n").advice.is_some());
        assert_eq!(check("nonsense\n").state, State::Skip);
    }
}
