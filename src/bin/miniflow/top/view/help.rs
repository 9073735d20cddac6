//! What the keys and the columns mean, over the picture.

use ratatui::buffer::Buffer;
use ratatui::layout::{Margin, Rect};
use ratatui::text::{Line, Span};

use super::paint;
use crate::top::look::Look;

const TEXT: [(&str, &str); 18] = [
    ("q Esc", "quit"),
    ("s r", "sort by the next column; the other way round"),
    (
        "/",
        "show only workers with these words (class, state, slot)",
    ),
    ("tab", "choose the part that arrows and page keys scroll"),
    ("p", "pause"),
    ("+ -", "look less often, more often"),
    ("", ""),
    ("load", "threads that run tasks, on average over 2 s"),
    ("queue", "tasks that the worker has and has not started"),
    ("rate", "tasks ended per second, over 2 s"),
    ("mean", "time that a task takes"),
    ("cpu%", "processor time in use, of one processor"),
    (
        "crash",
        "tasks that crashed in the slot, on processes before",
    ),
    ("ready", "workers that take tasks / workers wanted"),
    ("oldest", "how long the first task in the queue has waited"),
    ("wait", "from submit to start, tasks of the last 10 s"),
    ("run", "from start to end, tasks of the last 10 s"),
    ("refused", "submits that found no room"),
];

pub(super) fn draw(look: Look, area: Rect, buf: &mut Buffer) {
    let width = 70.min(area.width);
    let height = u16::try_from(TEXT.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let popup = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    for position in popup.positions() {
        if let Some(cell) = buf.cell_mut(position) {
            cell.reset();
            cell.set_style(look.chosen());
        }
    }
    let lines: Vec<Line<'static>> = (TEXT.iter())
        .map(|&(name, meaning)| {
            Line::from(vec![
                Span::styled(format!("{name:>8}   "), look.strong()),
                Span::raw(meaning),
            ])
        })
        .collect();
    paint(look, &lines, popup.inner(Margin::new(1, 1)), buf);
}
