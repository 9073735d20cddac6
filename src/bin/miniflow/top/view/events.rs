//! What has happened: decisions about numbers of workers, deaths of workers, and what is amiss.

use miniflow::status::{Crash, DecisionRow, Status, signal_name};
use miniflow::{Action, Class};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Block, Picture, draw_block, paint, take};
use crate::top::figures::{age, between, count, percent, time};
use crate::top::keys::Pane;
use crate::top::look::Look;

/// All that is to be told, the newest first.
#[derive(Debug)]
pub(super) struct Events {
    /// What is amiss now.
    alerts: Vec<Line<'static>>,
    decisions: Vec<(i64, Line<'static>)>,
    crashes: Vec<(i64, Line<'static>)>,
}

impl Events {
    pub(super) fn of(picture: Picture<'_>) -> Self {
        let Picture { model, look, .. } = picture;
        let status = model.status();
        let decision = |row: &DecisionRow| (row.at_ms, decision(look, row, status.at_ms));
        let crash = |crash: &Crash| (crash.at_ms, death(look, crash, status.at_ms));
        Self {
            alerts: alerts(look, status),
            decisions: status.decisions.iter().rev().map(decision).collect(),
            crashes: status.crashes.iter().rev().map(crash).collect(),
        }
    }

    /// Lines that show all of it; `apart`: decisions and deaths side by side.
    pub(super) fn height(&self, apart: bool) -> usize {
        let (decisions, crashes) = (self.decisions.len(), self.crashes.len());
        let rows = match apart {
            true => decisions.max(crashes),
            false => decisions + crashes,
        };
        1 + self.alerts.len() + rows.max(1)
    }

    /// Draws it; returns how far it can be scrolled.
    pub(super) fn draw(
        self,
        picture: Picture<'_>,
        apart: bool,
        area: Rect,
        buf: &mut Buffer,
    ) -> usize {
        let look = picture.look;
        if !apart {
            let mut events: Vec<_> = self.decisions.into_iter().chain(self.crashes).collect();
            events.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
            let mut rows = self.alerts;
            rows.extend(events.into_iter().map(|(_, line)| line));
            let block = block("events", rows, look);
            return draw_block(picture, &block, Some(Pane::Events), area, buf);
        }
        let mut rest = area;
        let alerts = self.alerts.len().min(usize::from(area.height / 2));
        paint(look, &self.alerts, take(&mut rest, alerts), buf);
        let half = rest.width / 2;
        let left = Rect {
            width: half.saturating_sub(2),
            ..rest
        };
        let right = Rect {
            x: rest.x + half,
            width: rest.width - half,
            ..rest
        };
        let lines = |events: Vec<(i64, Line<'static>)>| -> Vec<Line<'static>> {
            events.into_iter().map(|(_, line)| line).collect()
        };
        let decisions = block("scaling", lines(self.decisions), look);
        let crashes = block("crashes", lines(self.crashes), look);
        let most = draw_block(picture, &decisions, Some(Pane::Events), left, buf);
        most.max(draw_block(
            picture,
            &crashes,
            Some(Pane::Events),
            right,
            buf,
        ))
    }
}

fn block(title: &str, mut rows: Vec<Line<'static>>, look: Look) -> Block {
    if rows.is_empty() {
        rows.push(Line::styled(" none", look.faint()));
    }
    Block {
        title: title.into(),
        headings: None,
        rows,
    }
}

fn alerts(look: Look, status: &Status) -> Vec<Line<'static>> {
    let mut alerts = Vec::new();
    let mut alert = |style: Style, text: String| {
        alerts.push(Line::from(vec![
            Span::styled(format!(" {} ", look.dot()), style),
            Span::raw(text),
        ]));
    };
    if status.degraded {
        let text = "the zygote is gone: no worker can be started";
        alert(look.bad(), text.into());
    }
    for class in &status.classes {
        if let Some(why) = &class.broken {
            let text = format!("{}: no worker can be started: {why}", class.class.name());
            alert(look.bad(), text);
        }
    }
    for note in &status.notes {
        alert(look.warning(), note.clone());
    }
    alerts
}

/// When, which class, and what in a word.
fn beginning(
    look: Look,
    (at_ms, now_ms): (i64, i64),
    class: Class,
    what: &str,
    style: Style,
) -> Vec<Span<'static>> {
    let age = age(between(at_ms, now_ms));
    vec![
        Span::styled(format!(" {age:>6}  "), look.faint()),
        Span::raw(format!("{:<4} ", class.name())),
        Span::styled(format!("{what:<7} "), style),
    ]
}

fn decision(look: Look, row: &DecisionRow, now_ms: i64) -> Line<'static> {
    let (what, style) = match row.action {
        Action::Grow => ("grow", look.good()),
        Action::Shrink => ("shrink", look.accent()),
        Action::Resize => ("resize", look.warning()),
        Action::Failure => ("failure", look.bad()),
        _ => ("?", look.warning()),
    };
    let mut spans = beginning(look, (row.at_ms, now_ms), row.class, what, style);
    let change = format!("{} {} {}", row.before, look.arrow(), row.after);
    spans.push(Span::raw(format!("{change:<8} {}", row.reason)));
    let mut inputs = format!("  queued {}", count(row.queued));
    if row.queued > 0 {
        let oldest = std::time::Duration::from_nanos(row.oldest_ns);
        inputs.push_str(&format!(" for {}", time(Some(oldest))));
    }
    inputs.push_str(&format!(", on workers {}", count(row.on_workers)));
    if let Some(cpu) = row.cpu {
        inputs.push_str(&format!(", cpu {} %", percent(Some(cpu.into()))));
    }
    spans.push(Span::styled(inputs, look.faint()));
    Line::from(spans)
}

fn death(look: Look, crash: &Crash, now_ms: i64) -> Line<'static> {
    let how = match (crash.signal, crash.exit_code) {
        (0, 0) => "ended".to_owned(),
        (0, code) => format!("exit {code}"),
        (signal, _) => signal_name(signal),
    };
    let times = (crash.at_ms, now_ms);
    let mut spans = beginning(look, times, crash.class, &how, look.trouble());
    spans.push(Span::raw(format!("Process {}", crash.worker)));
    if !crash.place.is_empty() {
        spans.push(Span::raw(format!(" in {}", crash.place)));
    }
    let up = age(std::time::Duration::from_millis(crash.uptime_ms));
    let mut rest = format!("  up {up}, {} started", crash.started);
    if crash.returned > 0 {
        rest.push_str(&format!(", {} went elsewhere", crash.returned));
    }
    if let Some(task) = &crash.task {
        rest.push_str(&format!(", task {task}"));
    }
    spans.push(Span::styled(rest, look.faint()));
    Line::from(spans)
}
