//! The keys, or the filter that is being typed.

use ratatui::text::{Line, Span};

use super::{Picture, row_of};

pub(super) fn line(picture: Picture<'_>, width: u16) -> Line<'static> {
    let Picture { ui, look, model } = picture;
    if ui.typing.is_some() {
        return Line::from(vec![
            Span::styled(" filter: ", look.faint()),
            Span::raw(ui.filter.clone()),
            Span::styled(" ", look.chosen()),
            Span::styled(
                "  class, state, slot; Enter keeps, Esc takes back",
                look.faint(),
            ),
        ]);
    }
    let mut groups = Vec::new();
    if model.is_gone() {
        groups.push(vec![Span::styled(
            "the engine is gone, this was last",
            look.bad(),
        )]);
    }
    if !ui.filter.is_empty() {
        let filter = format!("filter: {}", ui.filter);
        groups.push(vec![Span::styled(filter, look.warning())]);
    }
    let interval = format!("{} s", ui.interval.as_secs_f64());
    let keys = [
        ("q", "quit"),
        ("?", "help"),
        ("s", "sort"),
        ("/", "filter"),
        ("p", "pause"),
        ("+-", &*interval),
        ("tab", "pane"),
        ("r", "reverse"),
    ];
    groups.extend(keys.map(|(key, does)| {
        vec![
            Span::styled(key, look.strong()),
            Span::styled(format!(" {does}"), look.faint()),
        ]
    }));
    row_of(groups, 2, width)
}
