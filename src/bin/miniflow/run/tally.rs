//! Counts what becomes of the tasks, and the summary at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use miniflow::Stats;

use super::args::Crew;
use super::row::{Ended, Status, worker_id};

/// Failures that the summary quotes.
const QUOTED: usize = 5;
/// Characters of a quoted failure.
const QUOTE: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    by_status: [u64; Status::ALL.len()],
    workers: BTreeMap<u32, Share>,
    quotes: Vec<String>,
}

/// What one worker has done.
#[derive(Debug, Default)]
struct Share {
    tasks: u64,
    failed: u64,
    busy: Duration,
}

impl Tally {
    pub(crate) fn count(&mut self, ended: &Ended) {
        self.by_status[ended.status as usize] += 1;
        let failed = ended.status != Status::Completed;
        if let Some(slot) = ended.worker {
            let share = self.workers.entry(slot).or_default();
            share.tasks += 1;
            share.failed += u64::from(failed);
            share.busy += ended.ran;
        }
        if failed && self.quotes.len() < QUOTED {
            let error = ended.error.as_deref().unwrap_or_default();
            let short: String = error.chars().take(QUOTE).collect();
            let dots = if short.len() < error.len() { "..." } else { "" };
            self.quotes
                .push(format!("    index {}: {short}{dots}", ended.index));
        }
    }

    pub(crate) fn tasks(&self) -> u64 {
        self.by_status.iter().sum()
    }

    /// Tasks that did not complete.
    pub(crate) fn failed(&self) -> u64 {
        self.tasks() - self.by_status[Status::Completed as usize]
    }

    /// What the user reads when all is over.
    pub(crate) fn summary(
        &self,
        crew: &Crew,
        elapsed: Duration,
        skipped: u64,
        stats: &Stats,
    ) -> String {
        let seconds = elapsed.as_secs_f64();
        let tasks = self.tasks();
        let mut text = format!(
            "miniflow run: {tasks} {} in {seconds:.2} s ({:.0}/s)",
            if tasks == 1 { "task" } else { "tasks" },
            per_second(tasks, seconds)
        );
        let counts: Vec<String> = (Status::ALL.iter())
            .zip(self.by_status)
            .filter(|&(&status, count)| count > 0 || status == Status::Completed)
            .map(|(status, count)| format!("{count} {}", status.name()))
            .collect();
        let _ = write!(text, ": {}", counts.join(", "));
        if skipped > 0 {
            let _ = write!(text, "; {skipped} were done before");
        }
        text.push('\n');
        self.write_workers(&mut text, crew, seconds);
        let lost = stats.died + stats.killed;
        if lost > 0 {
            let _ = writeln!(
                text,
                "  worker processes that ended and were replaced: {lost}"
            );
        }
        if !self.quotes.is_empty() {
            let _ = writeln!(text, "  first failures:\n{}", self.quotes.join("\n"));
        }
        text
    }

    fn write_workers(&self, text: &mut String, crew: &Crew, seconds: f64) {
        if self.workers.is_empty() {
            return;
        }
        let tasks: u64 = self.workers.values().map(|share| share.tasks).sum();
        let _ = writeln!(text, "  worker       tasks   share    busy   failed");
        for (&slot, share) in &self.workers {
            let capacity = seconds * f64::from(crew.threads);
            let _ = writeln!(
                text,
                "  {:<8} {:>9}  {:>4.0} %  {:>4.0} %  {:>7}",
                worker_id(crew.class, slot),
                share.tasks,
                percent(share.tasks as f64, tasks as f64),
                percent(share.busy.as_secs_f64(), capacity).min(100.0),
                share.failed
            );
        }
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        100.0 * part / whole
    } else {
        0.0
    }
}

pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}
