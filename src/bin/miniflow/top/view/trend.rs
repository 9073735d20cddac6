//! How throughput and queue have been.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Picture, paint, take};
use crate::top::figures::{count, rate};
use crate::top::look::Look;
use crate::top::model::Trend;

/// Lines of a graph, and an empty one above.
pub(super) const HEIGHT: usize = GRAPH + 1;
const GRAPH: usize = 2;
/// Fewer values are no history.
const FEWEST: usize = 3;
/// Cells of the text beside a graph.
const LABEL: u16 = 11;

pub(super) fn draw(picture: Picture<'_>, area: Rect, buf: &mut Buffer) {
    let Picture { model, look, .. } = picture;
    let mut rest = area;
    take(&mut rest, HEIGHT - GRAPH);
    let half = rest.width / 2;
    let left = Rect {
        width: half,
        ..rest
    };
    let right = Rect {
        x: rest.x + half,
        width: rest.width - half,
        ..rest
    };
    let throughput = rate(model.throughput_now());
    graph(look, "tasks/s", &throughput, &model.throughput, left, buf);
    let queued = count(model.status().tasks.queued);
    graph(look, "queued", &queued, &model.queued, right, buf);
}

/// A number, and the way that it went.
fn graph(
    look: Look,
    label: &'static str,
    value: &str,
    trend: &Trend,
    area: Rect,
    buf: &mut Buffer,
) {
    let text = [
        Line::styled(format!(" {label}"), look.faint()),
        Line::styled(format!(" {value}"), look.strong()),
    ];
    let label = Rect {
        width: area.width.min(LABEL),
        ..area
    };
    paint(look, &text, label, buf);
    // One cell is left free to the right.
    let width = area.width.saturating_sub(LABEL + 1);
    let graph = Rect {
        x: area.x + label.width,
        width,
        ..area
    };
    let values: Vec<f64> = trend.last(width.into()).collect();
    if values.len() < FEWEST {
        return;
    }
    paint(look, &bars(look, &values, width.into()), graph, buf);
}

/// One column of cells for each value, the newest at the right edge. The greatest has full height.
fn bars(look: Look, values: &[f64], width: usize) -> Vec<Line<'static>> {
    let levels = look.levels();
    let steps = levels.len() - 1;
    let top = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let height = |value: f64| {
        let height = value / top * (GRAPH * steps) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to GRAPH * steps"
        )]
        let height = height.round() as usize;
        height.max(usize::from(value > 0.0)) // what is not nothing can be seen
    };
    let empty = width.saturating_sub(values.len());
    (0..GRAPH)
        .rev()
        .map(|row| {
            let cells = values.iter().map(|&value| {
                let level = height(value).saturating_sub(row * steps).min(steps);
                levels[level]
            });
            let text: String = std::iter::repeat_n(" ", empty).chain(cells).collect();
            Line::from(Span::styled(text, look.accent()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f64], width: usize) -> Vec<String> {
        let lines = bars(Look::new(false, true), values, width);
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_greatest_value_fills_the_graph_and_the_least_can_be_seen() {
        assert_eq!(rows(&[0.0, 0.01, 3.0, 6.0], 4), ["   |", " .||"]);
    }

    #[test]
    fn the_newest_value_is_at_the_right_edge() {
        assert_eq!(rows(&[6.0], 3), ["  |", "  |"]);
        assert_eq!(rows(&[], 3), ["   ", "   "]);
    }
}
