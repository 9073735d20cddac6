//! A row for each class of workers.

use miniflow::status::ClassStatus;
use ratatui::layout::HorizontalAlignment::{Left, Right};
use ratatui::text::{Line, Span};

use super::{Block, Picture};
use crate::top::figures::{count, rate, time};
use crate::top::model::ClassActivity;
use crate::top::table::{Column, Table};

pub(super) fn block(picture: Picture<'_>, width: u16) -> Block {
    let mut table = Table::new(columns(), None);
    let status = picture.model.status();
    for class in status.classes.iter().filter(|class| is_used(class)) {
        table.push(row(picture, class));
    }
    let (headings, rows) = table.lines(width.into(), picture.look);
    Block {
        title: "classes".into(),
        headings: Some(headings),
        rows,
    }
}

/// An engine has workers of one class only, more often than not.
fn is_used(class: &ClassStatus) -> bool {
    let workers = class.max.max(class.target).max(class.workers);
    workers > 0 || class.queued > 0 || class.run_time.count() > 0
}

fn columns() -> Vec<Column> {
    let column = |title, width, rank| Column {
        title,
        width,
        alignment: Right,
        rank,
    };
    vec![
        Column {
            alignment: Left,
            ..column("class", 5, 12)
        },
        column("ready", 5, 11),
        column("range", 5, 4),
        column("queued", 6, 10),
        column("oldest", 6, 9),
        column("rate", 5, 8),
        column("wait p50", 8, 3),
        column("p99", 5, 7),
        column("p99.9", 5, 5),
        column("run p50", 7, 2),
        column("p99", 5, 6),
        column("p99.9", 5, 1),
        Column {
            alignment: Left,
            ..column("placement", 0, 0)
        },
    ]
}

fn row(picture: Picture<'_>, class: &ClassStatus) -> Vec<Line<'static>> {
    let look = picture.look;
    let ClassActivity { rate: ended, times } = picture.model.class(class);
    let oldest = match class.queued {
        0 => None,
        _ => Some(std::time::Duration::from_nanos(class.oldest_ns)),
    };
    let ready = Span::styled(
        class.workers.to_string(),
        match class.workers == class.target {
            true => look.good(),
            false => look.warning(),
        },
    );
    let mut row = vec![
        Line::styled(class.class.name(), look.strong()),
        Line::from(vec![ready, Span::raw(format!("/{}", class.target))]),
        Line::raw(format!("{}..{}", class.min, class.max)),
        Line::raw(count(class.queued)),
        Line::raw(time(oldest)),
        Line::raw(rate(ended)),
    ];
    for histogram in [&times.queued, &times.run] {
        let quantiles = [0.5, 0.99, 0.999].map(|q| time(histogram.quantile(q)));
        row.extend(quantiles.map(Line::raw));
    }
    row.push(Line::styled(class.placement.clone(), look.faint()));
    row
}
