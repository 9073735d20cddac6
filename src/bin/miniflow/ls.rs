//! `miniflow ls`: the engines of this user on this machine.

#![forbid(unsafe_code)]

use std::time::Duration;

use miniflow::monitor::{Found, Monitor};
use miniflow::status::{EngineState, Status};
use serde::Serialize;

use crate::engines;
use crate::error::Result;
use crate::table::{Side, Table};
use crate::units::age;

/// List the engines of this user on this machine
///
/// All but those that were started without a name. Dead ones are those whose host process and zygote
/// were killed at once, so that nobody could take the name away; their figures are the last ones.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// All engines.
#[derive(Debug, Serialize)]
struct List {
    engines: Vec<Row>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    pid: u32,
    state: State,
    /// What there is to be read; `None` if that is not possible.
    #[serde(flatten)]
    figures: Option<Figures>,
    /// Why it is not possible.
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Figures {
    started_ms: i64,
    uptime_ms: u64,
    workers: u64,
    queued: u64,
    on_workers: u64,
    completed: u64,
    crashed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    Stopping,
    Stopped,
    Dead,
    /// Alive, but of another version of miniflow, or not ready yet.
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
    }
}

/// Finds them, and returns the list.
pub(crate) fn run(args: &Args) -> Result<String> {
    let found = engines::all()?;
    let engines = found
        .into_iter()
        .filter_map(|found| look(found).transpose());
    let list = List {
        engines: engines.collect::<Result<_>>()?,
    };
    Ok(match args.json {
        true => list.json(),
        false => list.text(),
    })
}

/// `None`: it has ended since it was found.
fn look(found: Found) -> Result<Option<Row>> {
    let error = match Monitor::open(&found.name) {
        Ok(monitor) => return Ok(Some(Row::of(found.name, &monitor.status()))),
        Err(error) => error,
    };
    if !engines::all()?.contains(&found) {
        return Ok(None);
    }
    let state = match (found.alive, found.pid) {
        // Without a pid it is not ready yet, or will never be.
        (true, _) | (_, 0) => State::Unknown,
        (false, _) => State::Dead,
    };
    Ok(Some(Row {
        name: found.name,
        pid: found.pid,
        state,
        figures: None,
        note: Some(error.to_string()),
    }))
}

impl Row {
    fn of(name: String, status: &Status) -> Self {
        let tasks = &status.tasks;
        Self {
            name,
            pid: status.pid,
            state: match status.state {
                EngineState::Running => State::Running,
                EngineState::Stopping => State::Stopping,
                EngineState::Stopped => State::Stopped,
                EngineState::Dead => State::Dead,
                _ => State::Unknown,
            },
            figures: Some(Figures {
                started_ms: status.started_ms,
                uptime_ms: u64::try_from(status.at_ms.saturating_sub(status.started_ms))
                    .unwrap_or_default(),
                workers: tasks.workers,
                queued: tasks.queued,
                on_workers: tasks.on_workers,
                completed: tasks.completed,
                crashed: tasks.crashed,
            }),
            note: None,
        }
    }
}

impl List {
    fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("numbers and strings only");
        text.push('\n');
        text
    }

    fn text(&self) -> String {
        use Side::{Left, Right};
        if self.engines.is_empty() {
            return "no engine of this user can be seen here\n".into();
        }
        let mut table = Table::new([
            ("NAME", Left),
            ("PID", Right),
            ("STATE", Left),
            ("UPTIME", Right),
            ("WORKERS", Right),
            ("QUEUED", Right),
            ("ON WORKERS", Right),
            ("COMPLETED", Right),
            ("CRASHED", Right),
        ]);
        for row in &self.engines {
            let figure = |of: fn(&Figures) -> u64| {
                row.figures
                    .as_ref()
                    .map_or("-".into(), |f| of(f).to_string())
            };
            table.push([
                row.name.clone(),
                row.pid.to_string(),
                row.state.name().to_owned(),
                (row.figures).map_or("-".into(), |f| age(Duration::from_millis(f.uptime_ms))),
                figure(|f| f.workers),
                figure(|f| f.queued),
                figure(|f| f.on_workers),
                figure(|f| f.completed),
                figure(|f| f.crashed),
            ]);
        }
        format!("{table}{}", self.remarks())
    }

    /// What there is to say about single engines.
    fn remarks(&self) -> String {
        let noted = self.engines.iter().filter(|row| row.state != State::Dead);
        let notes = noted.filter_map(|row| Some(format!("{}: {}\n", row.name, row.note.as_ref()?)));
        let mut text: String = notes.collect();
        let is_left = |row: &Row| row.state == State::Dead || row.pid == 0;
        if self.engines.iter().any(is_left) {
            text += "`miniflow clean` removes the names of dead engines\n";
        }
        match text.is_empty() {
            true => text,
            false => format!("\n{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, state: State) -> Row {
        Row {
            name: name.into(),
            pid: 4711,
            state,
            figures: Some(Figures {
                started_ms: 1_000,
                uptime_ms: 61_000,
                workers: 4,
                queued: 12,
                on_workers: 8,
                completed: 1_234_500,
                crashed: 2,
            }),
            note: None,
        }
    }

    fn blind(name: &str, state: State, note: &str) -> Row {
        Row {
            figures: None,
            note: Some(note.into()),
            ..row(name, state)
        }
    }

    fn list(engines: &[Row]) -> List {
        let engines = engines.to_vec();
        List { engines }
    }

    #[test]
    fn engines_are_a_line_each_and_dead_ones_are_explained() {
        let text = list(&[row("orders", State::Running), row("old", State::Dead)]).text();
        let expected = "\
NAME     PID  STATE       UPTIME  WORKERS  QUEUED  ON WORKERS  COMPLETED  CRASHED
orders  4711  running  1 min 1 s        4      12           8    1234500        2
old     4711  dead     1 min 1 s        4      12           8    1234500        2

`miniflow clean` removes the names of dead engines
";
        assert_eq!(text, expected);
        assert_eq!(
            list(&[]).text(),
            "no engine of this user can be seen here\n"
        );
        let living = list(&[row("orders", State::Running)]).text();
        assert!(!living.contains("clean"), "{living}");
    }

    #[test]
    fn what_cannot_be_read_is_listed_all_the_same() {
        let text = list(&[blind("new", State::Unknown, "layout version 9")]).text();
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            words,
            ["new", "4711", "unknown", "-", "-", "-", "-", "-", "-"]
        );
        assert_eq!(lines[3], "new: layout version 9");
    }

    #[test]
    fn programs_read_the_same_by_field() {
        let rows = [
            row("a", State::Running),
            blind("b", State::Dead, "cut short"),
        ];
        let json: serde_json::Value = serde_json::from_str(&list(&rows).json()).unwrap();
        let engines = json["engines"].as_array().unwrap();
        assert_eq!(engines[0]["name"], "a");
        assert_eq!(engines[0]["state"], "running");
        assert_eq!(engines[0]["on_workers"], 8);
        assert!(engines[0]["note"].is_null());
        assert_eq!(engines[1]["state"], "dead");
        assert_eq!(engines[1]["note"], "cut short");
        assert!(engines[1].get("workers").is_none());
    }
}
