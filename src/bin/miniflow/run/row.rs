//! One line of the results.

use std::borrow::Cow;
use std::time::Duration;

use miniflow::{Class, Completion, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::feed::Form;
use super::program;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Completed,
    Failed,
    Crashed,
    TimedOut,
    Cancelled,
}

impl Status {
    pub(crate) const ALL: [Self; 5] = [
        Self::Completed,
        Self::Failed,
        Self::Crashed,
        Self::TimedOut,
        Self::Cancelled,
    ];

    /// As in a result line.
    pub(crate) const COMPLETED: &'static str = "completed";

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => Self::COMPLETED,
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A result line. The field names are an interface: README.md and docs/run.md tell them.
#[derive(Debug, Serialize)]
struct Row<'a> {
    task_id: Option<String>,
    index: u64,
    status: Status,
    data: Option<&'a RawValue>,
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<&'a str>,
    worker_id: Option<String>,
    attempt: u32,
    queued_ms: f64,
    run_ms: f64,
}

/// How every result line starts: what tells a torn one from somebody else's text.
pub(crate) const START: &[u8] = b"{\"task_id\":";

/// A result, as far as the run itself needs to know it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) index: u64,
    pub(crate) status: Status,
    /// The worker's slot; `None` if none ran the task.
    pub(crate) worker: Option<u32>,
    pub(crate) ran: Duration,
    /// The first line of the error, with its type.
    pub(crate) error: Option<String>,
    /// The result line, with its newline.
    pub(crate) line: Vec<u8>,
}

/// What a worker's reply says, as JSON.
#[derive(Debug, Default)]
struct Said {
    data: Option<Box<RawValue>>,
    error: Option<String>,
    error_type: Option<String>,
    traceback: Option<String>,
}

impl Said {
    fn failed(text: impl Into<String>) -> Self {
        Self {
            error: Some(text.into()),
            ..Self::default()
        }
    }
}

/// The row of a task that was not submitted.
pub(crate) fn of_rejected(index: u64, why: &str) -> Ended {
    let said = Said::failed(why);
    ended(index, Status::Failed, &said, None)
}

/// The row of a task that ran, or could have.
pub(crate) fn of_completion(completion: &Completion, class: Class, form: &Form) -> Ended {
    let (status, said) = match form {
        Form::Line => of_program(completion),
        Form::Script { .. } => of_script(completion),
    };
    let index = completion.user_data();
    ended(index, status, &said, Some((completion, class)))
}

fn status_of(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Completed => Status::Completed,
        Outcome::Failed => Status::Failed,
        Outcome::Crashed => Status::Crashed,
        Outcome::TimedOut => Status::TimedOut,
        Outcome::Cancelled => Status::Cancelled,
    }
}

/// What a program wrote is JSON if it parses, and a string otherwise.
fn of_program(completion: &Completion) -> (Status, Said) {
    let status = status_of(completion.outcome());
    match status {
        Status::Completed => {
            let answer = completion.to_vec();
            let text = String::from_utf8_lossy(&answer);
            let data = match serde_json::from_str(&text) {
                Ok(data) => Ok(data),
                Err(_) => serde_json::value::to_raw_value(&text),
            };
            match data {
                Ok(data) => {
                    let said = Said {
                        data: Some(data),
                        ..Said::default()
                    };
                    (status, said)
                }
                Err(error) => (Status::Failed, Said::failed(error.to_string())),
            }
        }
        // Such a failure names itself: the worker lives on.
        Status::Failed => {
            let status = program::status_of(completion.code());
            (status, Said::failed(completion.text()))
        }
        _ => (status, Said::failed(completion.text())),
    }
}

/// What the Python worker runtime replies, after the byte that says what follows.
fn of_script(completion: &Completion) -> (Status, Said) {
    #[derive(Deserialize)]
    struct Value {
        data: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct Exception {
        error: String,
        #[serde(rename = "type")]
        kind: String,
        traceback: String,
    }
    let status = status_of(completion.outcome());
    let bytes = completion.to_vec();
    let unexpected = |error: &serde_json::Error| {
        let said = Said::failed(format!("the worker's reply makes no sense: {error}"));
        (Status::Failed, said)
    };
    match (status, bytes.split_first()) {
        (Status::Completed, Some((b'j', json))) => match serde_json::from_slice::<Value>(json) {
            Ok(value) => {
                let said = Said {
                    data: Some(value.data),
                    ..Said::default()
                };
                (status, said)
            }
            Err(error) => unexpected(&error),
        },
        (Status::Failed, Some((b'e', json))) if completion.failed_with_data() => {
            match serde_json::from_slice::<Exception>(json) {
                Ok(exception) => {
                    let said = Said {
                        error: Some(exception.error),
                        error_type: Some(exception.kind),
                        traceback: Some(exception.traceback),
                        data: None,
                    };
                    (status, said)
                }
                Err(error) => unexpected(&error),
            }
        }
        (Status::Completed, _) => (
            Status::Failed,
            Said::failed("the worker's reply is of a kind that is not known here"),
        ),
        _ => (status, Said::failed(completion.text())),
    }
}

fn ended(index: u64, status: Status, said: &Said, by: Option<(&Completion, Class)>) -> Ended {
    let worker = by.map(|(c, _)| c.worker()).filter(|&w| w != u32::MAX);
    let row = Row {
        task_id: by.map(|(c, _)| c.id().to_string()),
        index,
        status,
        data: said.data.as_deref(),
        error: said.error.as_deref(),
        error_type: said.error_type.as_deref(),
        traceback: said.traceback.as_deref(),
        worker_id: by
            .zip(worker)
            .map(|((_, class), slot)| worker_id(class, slot)),
        attempt: by.map_or(0, |(c, _)| c.attempt()),
        queued_ms: by.map_or(0.0, |(c, _)| milliseconds(c.queued())),
        run_ms: by.map_or(0.0, |(c, _)| milliseconds(c.ran())),
    };
    Ended {
        index,
        status,
        worker,
        ran: by.map_or(Duration::ZERO, |(c, _)| c.ran()),
        error: said.error.as_ref().map(|text| {
            let kind = said.error_type.as_ref().map(|kind| format!("{kind}: "));
            let first = text.lines().next().unwrap_or_default();
            format!("{}{first}", kind.unwrap_or_default())
        }),
        line: line_of(&row),
    }
}

/// The name of a worker, as scripts see it in their context.
pub(crate) fn worker_id(class: Class, slot: u32) -> String {
    format!("{}-{slot}", class.name())
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn line_of(row: &Row<'_>) -> Vec<u8> {
    let mut line = serde_json::to_vec(row).unwrap_or_default(); // strings and numbers: cannot fail
    if line.contains(&b'\n') {
        // White space between the values of what the worker replied; in strings it is escaped.
        line.retain(|&byte| byte != b'\n' && byte != b'\r');
    }
    line.push(b'\n');
    line
}

/// What a later run needs to know of a line.
#[derive(Debug, Deserialize)]
pub(crate) struct Past<'a> {
    pub(crate) index: u64,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

impl Past<'_> {
    pub(crate) fn is_completed(&self) -> bool {
        self.status == Status::COMPLETED
    }
}
