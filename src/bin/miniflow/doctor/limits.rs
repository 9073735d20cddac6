//! Limits of this process and of the whole system.

use rustix::process::{Resource, Rlimit, getrlimit};

use super::check::Check;
use super::root::Root;
use crate::units::bytes;

/// Descriptors that a host needs for each worker: two segments, an eventfd, a socket and a pidfd.
const FDS_PER_WORKER: u64 = 5;
/// Descriptors that the host has for everything else.
const FDS_BESIDES: u64 = 64;
/// For so many workers there should be descriptors.
const WORKERS: u64 = 64;
/// Processes and threads of the user; a worker is at least three.
const TASKS: u64 = 1024;
/// An engine maps its arenas: 256 MiB, and 64 MiB a worker, by default.
const ADDRESSES: u64 = 16 << 30;
/// The kernel's own default.
const MAPPINGS: u64 = 65_530;

/// The limits that matter, as soft limits; `None` is none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    files: Option<u64>,
    tasks: Option<u64>,
    locked: Option<u64>,
    addresses: Option<u64>,
}

impl Limits {
    /// Those of this process.
    pub(super) fn get() -> Self {
        let soft = |resource| {
            let Rlimit { current, .. } = getrlimit(resource);
            current
        };
        Self {
            files: soft(Resource::Nofile),
            tasks: soft(Resource::Nproc),
            locked: soft(Resource::Memlock),
            addresses: soft(Resource::As),
        }
    }
}

pub(super) fn checks(root: &Root, limits: Limits) -> Vec<Check> {
    vec![
        files(limits.files),
        system_files(root),
        tasks(limits.tasks),
        addresses(limits.addresses),
        locked(limits.locked),
        mappings(root),
    ]
}

fn files(limit: Option<u64>) -> Check {
    const NAME: &str = "open files";
    let Some(limit) = limit else {
        return Check::ok(NAME, "no limit");
    };
    let workers = limit.saturating_sub(FDS_BESIDES) / FDS_PER_WORKER;
    let found = format!("{limit}: enough for some {workers} workers");
    if workers < WORKERS {
        let advice = "raise RLIMIT_NOFILE: ulimit -n 65536, LimitNOFILE= of systemd";
        return Check::warn(NAME, found, advice);
    }
    Check::ok(NAME, found)
}

/// `/proc/sys/fs/file-nr`: open, always 0, limit.
fn system_files(root: &Root) -> Check {
    const NAME: &str = "open files, system";
    let text = root.line("/proc/sys/fs/file-nr").unwrap_or_default();
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    let [used, _, limit] = numbers[..] else {
        return Check::skip(NAME, "/proc/sys/fs/file-nr cannot be read");
    };
    if limit > 1 << 50 {
        return Check::ok(NAME, format!("{used}, no limit"));
    }
    let found = format!("{used} of {limit}");
    if used > limit / 10 * 9 {
        return Check::warn(NAME, found, "raise fs.file-max (sysctl)");
    }
    Check::ok(NAME, found)
}

fn tasks(limit: Option<u64>) -> Check {
    const NAME: &str = "processes of the user";
    match limit {
        None => Check::ok(NAME, "no limit"),
        Some(limit) if limit < TASKS => Check::warn(
            NAME,
            format!("{limit}, threads included"),
            "raise RLIMIT_NPROC: ulimit -u; a worker is a process with two threads besides its own",
        ),
        Some(limit) => Check::ok(NAME, format!("{limit}, threads included")),
    }
}

fn addresses(limit: Option<u64>) -> Check {
    const NAME: &str = "address space";
    match limit {
        None => Check::ok(NAME, "no limit"),
        Some(limit) if limit < ADDRESSES => Check::warn(
            NAME,
            bytes(limit),
            "raise RLIMIT_AS (ulimit -v), or lower payload_arena and result_arena, which are mapped \
             whole",
        ),
        Some(limit) => Check::ok(NAME, bytes(limit)),
    }
}

fn locked(limit: Option<u64>) -> Check {
    let limit = limit.map_or("no limit".into(), bytes);
    Check::ok("locked memory", format!("{limit}; the engine locks none"))
}

fn mappings(root: &Root) -> Check {
    const NAME: &str = "mappings";
    match root.number("/proc/sys/vm/max_map_count") {
        None => Check::skip(NAME, "/proc/sys/vm/max_map_count cannot be read"),
        Some(limit) if limit < MAPPINGS => Check::warn(
            NAME,
            format!("{limit} a process"),
            format!(
                "raise vm.max_map_count (sysctl) to {MAPPINGS}: payloads that are kept are mapped one by one"
            ),
        ),
        Some(limit) => Check::ok(NAME, format!("{limit} a process")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::super::root::fake::Tree;
    use super::*;

    #[test]
    fn low_limits_are_warned_of_and_high_ones_are_not() {
        let states = |limits: Limits| {
            let checks = checks(&Tree::of(&[]), limits);
            checks.iter().map(|check| check.state).collect::<Vec<_>>()
        };
        use State::{Ok, Skip, Warn};
        let low = Limits {
            files: Some(256),
            tasks: Some(100),
            locked: Some(0),
            addresses: Some(1 << 30),
        };
        assert_eq!(states(low), [Warn, Skip, Warn, Warn, Ok, Skip]);
        let high = Limits {
            files: Some(1 << 20),
            tasks: Some(90_000),
            locked: Some(8 << 20),
            addresses: Some(1 << 40),
        };
        assert_eq!(states(high), [Ok, Skip, Ok, Ok, Ok, Skip]);
        assert_eq!(states(Limits::default()), [Ok, Skip, Ok, Ok, Ok, Skip]);
    }

    #[test]
    fn a_common_limit_of_files_suffices() {
        let check = files(Some(1024));
        assert_eq!(check.state, State::Ok);
        assert_eq!(check.found, "1024: enough for some 192 workers");
    }

    #[test]
    fn the_system_may_run_out_of_files() {
        let check = |text| system_files(&Tree::of(&[("/proc/sys/fs/file-nr", text)]));
        assert_eq!(check("1000\t0\t100000\n").state, State::Ok);
        assert_eq!(check("99000\t0\t100000\n").state, State::Warn);
        assert_eq!(
            check("1000\t0\t9223372036854775807\n").found,
            "1000, no limit"
        );
        assert_eq!(check("garbage\n").state, State::Skip);
    }

    #[test]
    fn few_mappings_are_warned_of() {
        let check = |text| mappings(&Tree::of(&[("/proc/sys/vm/max_map_count", text)]));
        assert_eq!(check("65530\n").state, State::Ok);
        assert_eq!(check("1000\n").state, State::Warn);
    }
}
