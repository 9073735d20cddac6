//! A row for each worker process.

use std::cmp::Ordering;
use std::time::Duration;

use miniflow::status::{WorkerRow, WorkerState};
use ratatui::layout::HorizontalAlignment::{Left, Right};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Block, Picture};
use crate::top::figures::{age, between, bytes, count, percent, rate, time};
use crate::top::keys::SortBy;
use crate::top::model::Activity;
use crate::top::table::{Column, Table};

const BAR: usize = 10;

/// A worker with what it does at present.
#[derive(Debug, Clone, Copy)]
struct Worker<'a> {
    row: &'a WorkerRow,
    now: Activity,
}

pub(super) fn block(picture: Picture<'_>, width: u16) -> Block {
    let Picture { model, ui, look } = picture;
    let all = &model.status().workers;
    let mut workers: Vec<Worker<'_>> = (all.iter())
        .filter(|row| passes(row, &ui.filter))
        .map(|row| Worker {
            row,
            now: model.worker(row),
        })
        .collect();
    workers.sort_by(|a, b| {
        let order = compare(ui.sort, a, b);
        let order = if ui.descending {
            order.reverse()
        } else {
            order
        };
        order.then(a.row.slot.cmp(&b.row.slot))
    });
    let columns = columns();
    let sorted = columns.iter().position(|(by, _)| *by == Some(ui.sort));
    let mut table = Table::new(
        columns.into_iter().map(|(_, column)| column).collect(),
        sorted.map(|column| (column, ui.descending)),
    );
    let process = widest(&workers, |worker| worker.row.slot.to_string().len());
    let threads = widest(&workers, |worker| worker.row.threads.to_string().len());
    for worker in &workers {
        table.push(cells(picture, worker, process, threads));
    }
    let (headings, mut rows) = table.lines(width.into(), look);
    if rows.is_empty() {
        let why = match all.is_empty() {
            true => " none",
            false => " none that the filter lets pass",
        };
        rows.push(Line::styled(why, look.faint()));
    }
    let title = match ui.filter.is_empty() {
        true => format!("workers {}", all.len()),
        false => format!("workers {} of {}", workers.len(), all.len()),
    };
    Block {
        title,
        headings: Some(headings),
        rows,
    }
}

fn widest(workers: &[Worker<'_>], width: impl Fn(&Worker<'_>) -> usize) -> usize {
    workers.iter().map(width).max().unwrap_or(1)
}

/// Whether the worker's slot, class and state have all words of the filter.
fn passes(row: &WorkerRow, filter: &str) -> bool {
    let (short, long) = state_names(row.state);
    let text = format!("process {}: {} {short} {long}", row.slot, row.class.name());
    let filter = filter.to_lowercase();
    filter.split_whitespace().all(|word| text.contains(word))
}

fn state_names(state: WorkerState) -> (&'static str, &'static str) {
    match state {
        WorkerState::Starting => ("start", "starting"),
        WorkerState::Ready => ("ready", "ready"),
        WorkerState::Draining => ("drain", "draining"),
        WorkerState::Leaving => ("leave", "leaving"),
        _ => ("?", "?"),
    }
}

fn compare(by: SortBy, a: &Worker<'_>, b: &Worker<'_>) -> Ordering {
    let load = |worker: &Worker<'_>| worker.now.busy / f64::from(worker.row.threads.max(1));
    let rate = |worker: &Worker<'_>| worker.now.rate.unwrap_or_default();
    let by_value = |value: &dyn Fn(&Worker<'_>) -> u64| value(a).cmp(&value(b));
    match by {
        SortBy::Slot => a.row.slot.cmp(&b.row.slot),
        SortBy::Load => load(a).total_cmp(&load(b)),
        SortBy::Class => a.row.class.name().cmp(b.row.class.name()),
        SortBy::State => state_names(a.row.state).cmp(&state_names(b.row.state)),
        SortBy::Queue => a.row.queued.cmp(&b.row.queued),
        SortBy::Rate => rate(a).total_cmp(&rate(b)),
        SortBy::Service => by_value(&|worker| worker.row.service_ns),
        SortBy::Done => by_value(&|worker| worker.row.completed),
        SortBy::Failed => by_value(&|worker| worker.row.failed),
        SortBy::Cpu => a.row.cpu_permille.cmp(&b.row.cpu_permille),
        SortBy::Memory => by_value(&|worker| worker.row.rss_bytes),
        SortBy::Crashed => by_value(&|worker| worker.row.crashed),
    }
}

fn columns() -> Vec<(Option<SortBy>, Column)> {
    let left = |title, width, rank| Column {
        title,
        width,
        alignment: Left,
        rank,
    };
    let right = |title, width, rank| Column {
        alignment: Right,
        ..left(title, width, rank)
    };
    vec![
        (Some(SortBy::Slot), left("process", 10, 13)),
        (Some(SortBy::Load), left("load", 20, 12)),
        (Some(SortBy::Class), left("class", 5, 10)),
        (Some(SortBy::State), left("state", 5, 11)),
        (Some(SortBy::Queue), right("queue", 5, 9)),
        (Some(SortBy::Rate), right("rate", 5, 8)),
        (Some(SortBy::Service), right("mean", 5, 7)),
        (Some(SortBy::Done), right("done", 5, 6)),
        (Some(SortBy::Failed), right("fail", 4, 5)),
        (Some(SortBy::Cpu), right("cpu%", 4, 4)),
        (Some(SortBy::Memory), right("rss", 5, 3)),
        (Some(SortBy::Crashed), right("crash", 5, 2)),
        (None, right("pid", 7, 1)),
        (None, right("up", 6, 0)),
    ]
}

/// `process` and `threads`: digits of the greatest slot and number of threads.
fn cells(
    picture: Picture<'_>,
    worker: &Worker<'_>,
    process: usize,
    threads: usize,
) -> Vec<Line<'static>> {
    let look = picture.look;
    let Worker { row, now } = *worker;
    let name = format!("Process {:>process$}:", row.slot);
    let (state, _) = state_names(row.state);
    let state_style = match row.state {
        WorkerState::Ready => look.good(),
        _ => look.warning(),
    };
    let trouble = |number: u64| match number {
        0 => Line::styled("0", look.faint()),
        _ => Line::styled(count(number), look.trouble()),
    };
    let known = |value: u64, text: fn(u64) -> String| match value {
        0 => Line::styled("-", look.faint()),
        _ => Line::raw(text(value)),
    };
    let cpu = (row.cpu_ns > 0).then(|| f64::from(row.cpu_permille) / 1e3); // once it was measured
    let at_ms = picture.model.status().at_ms;
    vec![
        Line::raw(name),
        load(picture, row.threads, now.busy, threads),
        Line::raw(row.class.name()),
        Line::styled(state, state_style),
        Line::raw(count(row.queued.into())),
        Line::raw(rate(now.rate)),
        known(row.service_ns, |ns| time(Some(Duration::from_nanos(ns)))),
        Line::raw(count(row.completed)),
        trouble(row.failed),
        Line::raw(percent(cpu)),
        known(row.rss_bytes, bytes),
        trouble(row.crashed),
        known(row.pid.into(), |pid| pid.to_string()),
        match row.started_ms {
            0 => Line::styled("-", look.faint()),
            started => Line::raw(age(between(started, at_ms))),
        },
    ]
}

/// The busy threads: as a bar among all of them, and as a number.
fn load(picture: Picture<'_>, threads: u32, busy: f64, digits: usize) -> Line<'static> {
    let look = picture.look;
    let (on, off) = look.bar(busy / f64::from(threads.max(1)), BAR);
    let number = busy.round().max(f64::from(u8::from(busy >= 0.05)));
    let unit = if number == 1.0 { "thread" } else { "threads" };
    let style = if number == 0.0 {
        look.faint()
    } else {
        Style::new()
    };
    Line::from(vec![
        Span::styled(on, look.accent()),
        Span::styled(off, look.faint()),
        Span::styled(format!(" {number:>digits$} {unit}"), style),
    ])
}
