//! The rules of the house: who may trace whom, what becomes of a crash, in what we are contained.

use super::check::Check;
use super::root::Root;

pub(super) fn checks(root: &Root) -> Vec<Check> {
    vec![container(root), tracing(root), core_pattern(root)]
}

fn container(root: &Root) -> Check {
    const NAME: &str = "container";
    let cgroup = root.text("/proc/1/cgroup").unwrap_or_default();
    let marks = [
        (
            "docker",
            root.exists("/.dockerenv") || cgroup.contains("/docker"),
        ),
        ("podman", root.exists("/run/.containerenv")),
        ("kubernetes", cgroup.contains("kubepods")),
        ("lxc", cgroup.contains("/lxc")),
    ];
    // The best known name first: systemd's own account of it.
    let told = root
        .line("/run/systemd/container")
        .filter(|name| !name.is_empty());
    let name = told.or_else(|| {
        let mark = marks.into_iter().find(|&(_, is_so)| is_so);
        mark.map(|(name, _)| name.to_owned())
    });
    match name {
        Some(name) => Check::ok(NAME, name),
        None => Check::ok(NAME, "none that shows"),
    }
}

/// Whether one process of a user may read and write the memory of another.
fn tracing(root: &Root) -> Check {
    const NAME: &str = "tracing";
    const ADVICE: &str = "hostile code in a worker could: the sandbox (Sandbox::strict) stops that";
    match root.number("/proc/sys/kernel/yama/ptrace_scope") {
        None => Check::ok(
            NAME,
            "no Yama: any process of this user may trace any other",
        )
        .advise(ADVICE),
        Some(0) => Check::ok(
            NAME,
            "any process of this user may trace any other (Yama 0)",
        )
        .advise(ADVICE),
        Some(1) => Check::ok(NAME, "only descendants may be traced (Yama 1)"),
        Some(2) => Check::ok(NAME, "by the administrator only (Yama 2)"),
        Some(_) => Check::ok(NAME, "nobody may (Yama 3): debuggers do not work either"),
    }
}

/// What the kernel does with the memory of a worker that crashed.
fn core_pattern(root: &Root) -> Check {
    const NAME: &str = "core files";
    let Some(pattern) = root.line("/proc/sys/kernel/core_pattern") else {
        return Check::skip(NAME, "/proc/sys/kernel/core_pattern cannot be read");
    };
    if let Some(program) = pattern.strip_prefix('|') {
        let program = program.split(' ').next().unwrap_or_default();
        return Check::ok(NAME, format!("every crash is handed to {program}"))
            .advise("a worker is gone, and replaced, only when that has read its memory");
    }
    let size = root
        .field("/proc/self/limits", "Max core file size")
        .unwrap_or_default();
    match size.split_whitespace().next() {
        Some("0") => Check::ok(NAME, "none"),
        Some(limit) => Check::ok(NAME, format!("`{pattern}`, limit {limit}"))
            .advise("crashes that are expected need none: Sandbox::limit_core(0), ulimit -c 0"),
        None => Check::ok(NAME, format!("`{pattern}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::super::root::fake::Tree;
    use super::*;

    #[test]
    fn containers_are_told_by_their_marks() {
        let name = |files: &[(&str, &str)]| container(&Tree::of(files)).found;
        assert_eq!(name(&[("/.dockerenv", "")]), "docker");
        assert_eq!(name(&[("/run/.containerenv", "")]), "podman");
        assert_eq!(
            name(&[("/proc/1/cgroup", "0::/kubepods/pod1\n")]),
            "kubernetes"
        );
        assert_eq!(
            name(&[("/run/systemd/container", "systemd-nspawn\n")]),
            "systemd-nspawn"
        );
        assert_eq!(name(&[]), "none that shows");
    }

    #[test]
    fn tracing_rules_are_told() {
        let check = |scope| tracing(&Tree::of(&[("/proc/sys/kernel/yama/ptrace_scope", scope)]));
        assert!(check("0\n").advice.is_some());
        assert!(check("1\n").found.contains("descendants"));
        assert_eq!(check("1\n").advice, None);
        assert!(tracing(&Tree::of(&[])).found.starts_with("no Yama"));
    }

    #[test]
    fn core_files_are_none_files_or_a_program() {
        let check = |pattern, size: &str| {
            let limits = format!(
                "Limit  Soft Limit  Hard\nMax core file size   {size}   unlimited   bytes\n"
            );
            core_pattern(&Tree::of(&[
                ("/proc/sys/kernel/core_pattern", pattern),
                ("/proc/self/limits", &limits),
            ]))
        };
        assert_eq!(check("core\n", "0").found, "none");
        assert_eq!(
            check("core.%p\n", "unlimited").found,
            "`core.%p`, limit unlimited"
        );
        let piped = check("|/usr/lib/systemd/systemd-coredump %P %u\n", "0");
        assert!(
            piped.found.ends_with("/usr/lib/systemd/systemd-coredump"),
            "{piped:?}"
        );
        assert!(piped.advice.is_some());
        assert_eq!(core_pattern(&Tree::of(&[])).state, State::Skip);
    }
}
