//! What a run has found, for people and for programs.

#![forbid(unsafe_code)]

use std::fmt;

use miniflow::Stats;
use serde::Serialize;

use super::ledger::{Counts, Violation};
use super::respawn::Times;
use super::rules::Wrong;

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    accepted: u64,
    completions: u64,
    lost: u64,
    duplicated: u64,
    corrupted: u64,
    started_twice: u64,
    /// Violations of any other kind.
    unexplained: u64,
    kills: u64,
    kills_by: KillsBy,
    /// Workers started beyond the first ones.
    respawns: u64,
    leftovers: u64,
    /// With a quiet engine.
    respawn_ms: Option<Times>,
    /// In the run itself.
    respawn_under_load_ms: Option<Times>,
    outcomes: Outcomes,
    retried: u64,
    crashed_unseen: u64,
    engine: Stats,
    seconds: f64,
    seed: u64,
    violations: Vec<String>,
}

/// Deaths by who caused them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct KillsBy {
    pub(super) sigkill: u64,
    pub(super) sigsegv: u64,
    pub(super) sigstop: u64,
    pub(super) sigterm: u64,
    /// By a task, in its handler.
    pub(super) handler: u64,
}

impl KillsBy {
    pub(super) fn total(self) -> u64 {
        self.sigkill + self.sigsegv + self.sigstop + self.sigterm + self.handler
    }
}

/// Completions by outcome.
#[derive(Debug, Clone, Copy, Serialize)]
struct Outcomes {
    completed: u64,
    failed: u64,
    crashed: u64,
    timed_out: u64,
    cancelled: u64,
}

/// What a report is made of.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) seed: u64,
    pub(super) seconds: f64,
    pub(super) counts: Counts,
    pub(super) violations: Vec<Violation>,
    pub(super) kills: KillsBy,
    pub(super) first_workers: u64,
    pub(super) stats: Stats,
    pub(super) leftovers: Vec<String>,
    pub(super) respawn: Option<Times>,
    pub(super) respawn_under_load: Option<Times>,
}

impl Report {
    pub(super) fn new(findings: &Findings) -> Self {
        let counts = findings.counts;
        let wrong = |kind: Wrong| counts.wrong[kind as usize];
        let [completed, failed, crashed, timed_out, cancelled] = counts.outcomes;
        let named = |v: &Violation| format!("{:?}: {}", v.wrong, v.text);
        let left = findings
            .leftovers
            .iter()
            .map(|what| format!("Left over: {what}"));
        Self {
            accepted: counts.accepted,
            completions: counts.completions,
            lost: wrong(Wrong::Lost),
            duplicated: wrong(Wrong::Duplicated),
            corrupted: wrong(Wrong::Corrupted),
            started_twice: wrong(Wrong::StartedTwice),
            unexplained: wrong(Wrong::Unexplained),
            kills: findings.kills.total(),
            kills_by: findings.kills,
            respawns: findings
                .stats
                .spawned
                .saturating_sub(findings.first_workers),
            leftovers: findings.leftovers.len() as u64,
            respawn_ms: findings.respawn,
            respawn_under_load_ms: findings.respawn_under_load,
            outcomes: Outcomes {
                completed,
                failed,
                crashed,
                timed_out,
                cancelled,
            },
            retried: counts.retried,
            crashed_unseen: counts.crashed_unseen,
            engine: findings.stats,
            seconds: (findings.seconds * 10.0).round() / 10.0,
            seed: findings.seed,
            violations: findings.violations.iter().map(named).chain(left).collect(),
        }
    }

    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        let wrong = [
            self.lost,
            self.duplicated,
            self.corrupted,
            self.started_twice,
            self.unexplained,
            self.leftovers,
        ];
        wrong == [0; 6]
    }

    /// One line.
    pub(super) fn json(&self) -> String {
        match serde_json::to_string(self) {
            Ok(text) => text + "\n",
            Err(error) => format!("{{\"error\":\"{error}\"}}\n"), // there is no map with odd keys
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: u64| {
            writeln!(f, "{name:<34}{value:>12}")
        };
        row(f, "tasks accepted", self.accepted)?;
        row(f, "completions", self.completions)?;
        row(f, "  completed", self.outcomes.completed)?;
        row(f, "  failed", self.outcomes.failed)?;
        row(f, "  crashed", self.outcomes.crashed)?;
        row(f, "  timed out", self.outcomes.timed_out)?;
        row(f, "  cancelled", self.outcomes.cancelled)?;
        row(f, "workers killed", self.kills)?;
        row(f, "  by SIGKILL", self.kills_by.sigkill)?;
        row(f, "  by SIGSEGV", self.kills_by.sigsegv)?;
        row(f, "  stopped (SIGSTOP)", self.kills_by.sigstop)?;
        row(f, "  by SIGTERM", self.kills_by.sigterm)?;
        row(f, "  by a task, in its handler", self.kills_by.handler)?;
        row(f, "workers started again", self.respawns)?;
        row(f, "lost", self.lost)?;
        row(f, "duplicated", self.duplicated)?;
        row(f, "corrupted", self.corrupted)?;
        row(f, "started twice", self.started_twice)?;
        row(f, "otherwise unexplained", self.unexplained)?;
        row(f, "left over", self.leftovers)?;
        let time = |f: &mut fmt::Formatter<'_>, name: &str, times: Option<Times>| match times {
            Some(t) => writeln!(f, "{name:<34}{:>12.2}  p99 {:.2}", t.p50, t.p99),
            None => writeln!(f, "{name:<34}{:>12}", "-"),
        };
        time(f, "respawn, ms, p50", self.respawn_ms)?;
        time(f, "respawn under load, ms, p50", self.respawn_under_load_ms)?;
        writeln!(f, "{:<34}{:>12.1}", "seconds", self.seconds)?;
        writeln!(f, "{:<34}{:>12}", "seed", self.seed)?;
        if self.is_clean() {
            return writeln!(f, "ok");
        }
        writeln!(f, "\nNOT ok; the seed is {}", self.seed)?;
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        Ok(())
    }
}
