//! The engine as a whole, in three lines.

use miniflow::status::{EngineState, MemoryState};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Picture, labelled, row_of};
use crate::top::figures::{age, between, count, percent};

const BAR: usize = 10;

pub(super) fn lines(picture: Picture<'_>, width: u16) -> Vec<Line<'static>> {
    vec![
        engine(picture, width),
        machine(picture, width),
        tasks(picture, width),
    ]
}

/// Which engine, and whether it lives.
fn engine(picture: Picture<'_>, width: u16) -> Line<'static> {
    let Picture { model, ui, look } = picture;
    let status = model.status();
    let name = status.name.clone().unwrap_or_else(|| "(no name)".into());
    let (state, style) = state(picture);
    let mut groups = vec![
        vec![Span::styled(name, look.strong().patch(look.accent()))],
        vec![Span::styled(format!("{} {state}", look.dot()), style)],
    ];
    if ui.paused {
        groups.push(vec![Span::styled(" PAUSED ", look.chosen())]);
    }
    if status.degraded {
        groups.push(vec![Span::styled("DEGRADED", look.bad())]);
    }
    let up = age(between(status.started_ms, status.at_ms));
    groups.extend([
        labelled(look, "up", up.into()),
        labelled(look, "pid", status.pid.to_string().into()),
        labelled(look, "policy", words(&status.policy)),
        labelled(look, "scaling", words(&status.scaling)),
    ]);
    row_of(groups, 3, width)
}

fn state(picture: Picture<'_>) -> (&'static str, Style) {
    let look = picture.look;
    match picture.model.status().state {
        EngineState::Stopped => ("stopped", look.bad()),
        EngineState::Dead => ("gone", look.bad()),
        EngineState::Running => ("running", look.good()),
        EngineState::Stopping => ("stopping", look.warning()),
        _ => ("?", look.warning()),
    }
}

/// `least_loaded` as one says it.
fn words(name: &str) -> Span<'static> {
    Span::raw(name.replace('_', " "))
}

/// Processors and memory.
fn machine(picture: Picture<'_>, width: u16) -> Line<'static> {
    let look = picture.look;
    let machine = &picture.model.status().machine;
    let gauge = |label, share: Option<f32>, of: String| {
        let share = share.map(f64::from);
        let (on, off) = look.bar(share.unwrap_or_default(), BAR);
        vec![
            Span::styled(label, look.faint()),
            Span::raw(" "),
            Span::styled(on, look.accent()),
            Span::styled(off, look.faint()),
            Span::raw(format!(" {:>3} %", percent(share))),
            Span::styled(of, look.faint()),
        ]
    };
    let processors = match machine.cpus {
        1 => " of 1 processor".to_owned(),
        cpus => format!(" of {cpus} processors"),
    };
    let mut groups = vec![
        gauge("cpu", machine.cpu, processors),
        gauge("memory", machine.memory, String::new()),
    ];
    if let Some(pressure) = machine.memory_pressure {
        let value = format!("{} %", percent(Some(pressure.into())));
        groups.push(labelled(look, "pressure", value.into()));
    }
    let measure = match machine.memory_state {
        MemoryState::NoGrowth => "no more workers: memory",
        MemoryState::Shedding => "fewer workers: memory",
        MemoryState::Refusing => "submits refused: memory",
        _ => "",
    };
    if !measure.is_empty() {
        // Before all that may be left out.
        groups.insert(0, vec![Span::styled(measure, look.bad())]);
    }
    row_of(groups, 3, width)
}

/// What has become of the tasks.
fn tasks(picture: Picture<'_>, width: u16) -> Line<'static> {
    let look = picture.look;
    let tasks = &picture.model.status().tasks;
    let number = |value: u64| Span::raw(count(value));
    let trouble = |label, value: u64| {
        let style = if value == 0 { Style::new() } else { look.bad() };
        labelled(look, label, Span::styled(count(value), style))
    };
    let groups = vec![
        labelled(look, "done", number(tasks.completed)),
        trouble("failed", tasks.failed),
        trouble("crashed", tasks.crashed),
        trouble("late", tasks.timed_out),
        labelled(look, "cancelled", number(tasks.cancelled)),
        labelled(look, "on workers", number(tasks.on_workers)),
        labelled(look, "unread", number(tasks.unpolled)),
        labelled(look, "refused", number(tasks.would_block)),
        labelled(look, "retried", number(tasks.retried)),
        labelled(look, "recalled", number(tasks.recalled)),
        labelled(look, "workers died", number(tasks.died)),
        labelled(look, "killed", number(tasks.killed)),
    ];
    row_of(groups, 3, width)
}
