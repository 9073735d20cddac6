//! `miniflow doctor`: whether this machine is fit for an engine, and what would make it fitter.

#![deny(unsafe_code)] // but for one word in `features`

mod cgroup;
mod check;
mod cpu;
#[allow(unsafe_code, reason = "looks at a page that it has mapped")]
mod features;
mod kernel;
mod limits;
mod live;
mod memory;
mod root;
mod system;

use self::check::{Check, Group, Report};
use self::limits::Limits;
use self::root::Root;
use crate::verdict::Verdict;

/// Check whether this machine is fit for engines, and say what to change
///
/// Looks at the kernel, at limits, shared memory, control groups and processors; then starts a small
/// engine, runs 1000 tasks on it, kills one of its workers and stops it. Every check is `ok`, `warn`
/// (works, but something costs speed or may run out), `FAIL` or `skip` (cannot be found out here).
/// It changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of a list
    #[arg(long)]
    json: bool,

    /// Look only: do not start an engine
    #[arg(long)]
    no_engine: bool,
}

/// Looks at everything.
pub(crate) fn run(args: &Args) -> Verdict {
    let root = Root::new("/");
    let mut groups = look(&root);
    if !args.no_engine {
        groups.push(group("engine", live::checks()));
    }
    let report = Report::new(groups);
    Verdict {
        text: match args.json {
            true => report.json(),
            false => report.to_string(),
        },
        clean: report.is_ok(),
    }
}

fn look(root: &Root) -> Vec<Group> {
    let mut kernel = kernel::checks(root);
    kernel.extend(features::checks());
    vec![
        group("kernel", kernel),
        group("limits", limits::checks(root, Limits::get())),
        group("control groups", cgroup::checks(root)),
        group("memory", memory::checks(root)),
        group("processors", cpu::checks(root, &cpu::allowed())),
        group("system", system::checks(root)),
    ]
}

fn group(name: &'static str, checks: Vec<Check>) -> Group {
    Group { name, checks }
}

#[cfg(test)]
mod tests {
    use super::root::fake::Tree;
    use super::*;

    #[test]
    fn on_an_empty_machine_every_question_has_an_answer() {
        let groups = look(&Tree::of(&[]));
        let names: Vec<&str> = groups.iter().map(|group| group.name).collect();
        let expected = [
            "kernel",
            "limits",
            "control groups",
            "memory",
            "processors",
            "system",
        ];
        assert_eq!(names, expected);
        let mut seen = std::collections::HashSet::new();
        for check in groups.iter().flat_map(|group| &group.checks) {
            assert!(seen.insert(check.name), "{} is asked twice", check.name);
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }
}
