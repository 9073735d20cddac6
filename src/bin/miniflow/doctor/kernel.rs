//! The kernel: its version, and what it offers by its files.

use super::check::Check;
use super::root::Root;

/// The first kernel with all that the engine cannot do without: it waits for processes by pidfd.
const OLDEST: (u32, u32) = (5, 4);
/// A share of the time in which some task waits for memory, in percent, that is worth a word.
const PRESSURE: f64 = 10.0;

pub(super) fn checks(root: &Root) -> Vec<Check> {
    vec![version(root), proc(root), seccomp(root), pressure(root)]
}

fn version(root: &Root) -> Check {
    const NAME: &str = "version";
    let Some(release) = root.line("/proc/sys/kernel/osrelease") else {
        return Check::skip(NAME, "/proc/sys/kernel/osrelease cannot be read");
    };
    let found = format!("Linux {release} ({})", std::env::consts::ARCH);
    match numbers(&release) {
        Some(version) if version < OLDEST => {
            let (major, minor) = OLDEST;
            Check::fail(
                NAME,
                found,
                format!("Linux {major}.{minor} or newer is needed"),
            )
        }
        Some(_) => Check::ok(NAME, found),
        None => Check::skip(NAME, format!("`{release}` is no version")),
    }
}

/// Major and minor of a release such as `6.1.0-13-amd64` or `6.18-rc3`.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Without `/proc` an engine runs, but with less certainty.
fn proc(root: &Root) -> Check {
    const NAME: &str = "/proc";
    if root.exists("/proc/self/stat") {
        return Check::ok(NAME, "mounted");
    }
    Check::warn(
        NAME,
        "not mounted",
        "mount it: stopped workers, their memory and the identity of dead engines are read there",
    )
}

/// What the sandbox's filter needs.
fn seccomp(root: &Root) -> Check {
    const NAME: &str = "seccomp";
    const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";
    let needed = ["errno", "allow"];
    match root.line(ACTIONS) {
        Some(actions) if needed.iter().all(|n| actions.split(' ').any(|a| a == *n)) => {
            let own = match root.field("/proc/self/status", "Seccomp").as_deref() {
                Some("2") => "; this process runs under a filter",
                _ => "",
            };
            Check::ok(NAME, format!("filters can be used{own}"))
        }
        Some(actions) => Check::warn(
            NAME,
            format!("only these actions: {actions}"),
            "workers cannot have the sandbox's filter (Sandbox::seccomp)",
        ),
        None => Check::warn(
            NAME,
            format!("there is no {ACTIONS}"),
            "workers cannot have the sandbox's filter (Sandbox::seccomp): CONFIG_SECCOMP_FILTER",
        ),
    }
}

/// Pressure stall information, by which the engine sees that memory gets short.
fn pressure(root: &Root) -> Check {
    const NAME: &str = "memory pressure";
    let Some(text) = root.text("/proc/pressure/memory") else {
        return Check::warn(
            NAME,
            "the kernel does not tell (no /proc/pressure/memory)",
            "scaling goes by the memory in use alone; boot with psi=1 (CONFIG_PSI)",
        );
    };
    match stalled(&text) {
        Some(share) if share >= PRESSURE => Check::warn(
            NAME,
            format!("tasks waited for memory in {share:.0} % of the last 10 s"),
            "free memory, or give the engine less: fewer workers, smaller arenas",
        ),
        Some(share) => Check::ok(NAME, format!("known (PSI); {share:.0} % of the last 10 s")),
        // The file is there but cannot be read to the end: psi=0 on some kernels.
        None => Check::warn(NAME, "switched off", "boot with psi=1"),
    }
}

/// `some avg10=1.23 avg60=...`
fn stalled(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::super::root::fake::Tree;
    use super::*;

    const RELEASE: &str = "/proc/sys/kernel/osrelease";

    #[test]
    fn old_kernels_fail_and_strange_ones_are_skipped() {
        let state = |release: &str| version(&Tree::of(&[(RELEASE, release)])).state;
        assert_eq!(state("5.3.18\n"), State::Fail);
        assert_eq!(state("4.19.0-13-amd64\n"), State::Fail);
        assert_eq!(state("5.4.0\n"), State::Ok);
        assert_eq!(state("6.18-rc3\n"), State::Ok);
        assert_eq!(state("10.0\n"), State::Ok);
        assert_eq!(state("gVisor\n"), State::Skip);
        assert_eq!(version(&Tree::of(&[])).state, State::Skip);
    }

    #[test]
    fn a_filter_needs_its_actions() {
        let path = "/proc/sys/kernel/seccomp/actions_avail";
        let check = |actions: &str| seccomp(&Tree::of(&[(path, actions)]));
        assert_eq!(check("kill_process trap errno allow\n").state, State::Ok);
        assert_eq!(check("kill allow\n").state, State::Warn);
        assert_eq!(seccomp(&Tree::of(&[])).state, State::Warn);
        let tree = Tree::of(&[
            (path, "errno allow\n"),
            (
                "/proc/self/status",
                "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
            ),
        ]);
        assert!(seccomp(&tree).found.ends_with("runs under a filter"));
    }

    #[test]
    fn pressure_is_known_high_switched_off_or_unknown() {
        let check = |text: &str| pressure(&Tree::of(&[("/proc/pressure/memory", text)]));
        let quiet = check("some avg10=0.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n");
        assert_eq!(quiet.state, State::Ok);
        let high = check("some avg10=42.10 avg60=0.00 avg300=0.00 total=1\n");
        assert_eq!(high.state, State::Warn);
        assert!(high.found.contains("42 %"), "{high:?}");
        assert_eq!(check("").found, "switched off");
        assert_eq!(pressure(&Tree::of(&[])).state, State::Warn);
    }

    #[test]
    fn no_file_at_all_is_no_failure() {
        let checks = checks(&Tree::of(&[]));
        assert!(checks.iter().all(|check| check.state != State::Fail));
    }
}
