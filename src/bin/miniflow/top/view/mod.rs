//! The picture: a pure function of what is known and what the user has chosen to see.

mod classes;
mod events;
mod footer;
mod header;
mod help;
mod trend;
mod workers;

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::keys::{Pane, Ui};
use super::look::Look;
use super::model::Model;

/// What is to be drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) model: &'a Model,
    pub(crate) ui: &'a Ui,
    pub(crate) look: Look,
}

/// Under a heading, rows of which some may be out of sight.
#[derive(Debug)]
struct Block {
    title: String,
    headings: Option<Line<'static>>,
    rows: Vec<Line<'static>>,
}

impl Block {
    /// Lines that show all of it.
    fn height(&self) -> usize {
        1 + usize::from(self.headings.is_some()) + self.rows.len()
    }
}

/// Side by side there is room for two lists of events from this width on.
const WIDE: u16 = 150;

/// Draws it; returns how far each pane can be scrolled.
pub(crate) fn draw(picture: Picture<'_>, area: Rect, buf: &mut Buffer) -> [usize; 2] {
    let footer = u16::from(area.height >= 4);
    let body = Rect {
        height: area.height - footer,
        ..area
    };
    let most = draw_body(picture, body, buf);
    if footer == 1 {
        let row = Rect {
            y: area.bottom() - 1,
            height: 1,
            ..area
        };
        paint(picture.look, &[footer::line(picture, row.width)], row, buf);
    }
    if picture.ui.help {
        help::draw(picture.look, area, buf);
    }
    if picture.look.is_ascii() {
        to_ascii(buf, area);
    }
    most
}

/// All of it as plain text, `width` cells wide, without the keys.
pub(crate) fn text(picture: Picture<'_>, width: u16) -> String {
    let picture = Picture {
        look: picture.look.plain(),
        ..picture
    };
    let status = picture.model.status();
    // Generous: what is left over is cut off.
    let rows = status.workers.len() + status.crashes.len() + status.decisions.len();
    let rows = rows + status.notes.len() + status.classes.len() * 2 + 24;
    let height = u16::try_from(rows).unwrap_or(u16::MAX);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw_body(picture, area, &mut buffer);
    if picture.look.is_ascii() {
        to_ascii(&mut buffer, area);
    }
    let mut text = String::new();
    for y in 0..height {
        let cells = (0..width).filter_map(|x| buffer.cell((x, y)));
        let line: String = cells.map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn draw_body(picture: Picture<'_>, area: Rect, buf: &mut Buffer) -> [usize; 2] {
    let look = picture.look;
    let mut rest = area;
    let header = header::lines(picture, area.width);
    let shown = if area.height < 9 { 1 } else { header.len() };
    paint(look, &header[..shown], take(&mut rest, shown), buf);
    if area.height >= 20 {
        trend::draw(picture, take(&mut rest, trend::HEIGHT), buf);
    }
    if area.height >= 11 {
        let classes = classes::block(picture, area.width);
        let lines = take(&mut rest, classes.height());
        draw_block(picture, &classes, None, lines, buf);
    }
    let workers = workers::block(picture, area.width);
    let events = events::Events::of(picture);
    let wide = area.width >= WIDE;
    let (of_workers, of_events) = split(rest.height, workers.height(), events.height(wide));
    let upper = take(&mut rest, of_workers);
    let workers_most = draw_block(picture, &workers, Some(Pane::Workers), upper, buf);
    let lower = take(&mut rest, of_events);
    let events_most = events.draw(picture, wide, lower, buf);
    [workers_most, events_most]
}

/// The upper `height` rows of `rest`, or as many as there are; `rest` is what is left below.
fn take(rest: &mut Rect, height: usize) -> Rect {
    let height = u16::try_from(height).unwrap_or(u16::MAX).min(rest.height);
    let taken = Rect { height, ..*rest };
    rest.y += height;
    rest.height -= height;
    taken
}

/// How many of `height` rows the workers get, and how many the events.
fn split(height: u16, workers: usize, events: usize) -> (usize, usize) {
    let height = usize::from(height);
    if workers + events <= height {
        return (workers, events);
    }
    let least = if height < 8 { 0 } else { height / 3 };
    let of_events = events.min(least.max(height.saturating_sub(workers)));
    (height - of_events, of_events)
}

/// Draws a block, and returns how far it can be scrolled.
fn draw_block(
    picture: Picture<'_>,
    block: &Block,
    pane: Option<Pane>,
    area: Rect,
    buf: &mut Buffer,
) -> usize {
    let Picture { ui, look, .. } = picture;
    let mut rest = area;
    let rule = take(&mut rest, 1);
    let headings = take(&mut rest, usize::from(block.headings.is_some()));
    let room = usize::from(rest.height);
    let most = block.rows.len().saturating_sub(room);
    let above = pane.map_or(0, |pane| ui.scroll(pane).min(most));
    let below = block.rows.len().min(above + room);
    let note = match most {
        0 => String::new(),
        _ => format!("{} to {} of {}", above + 1, below, block.rows.len()),
    };
    let focused = pane == Some(ui.focus);
    let title = title(look, &block.title, &note, focused, rule.width);
    paint(look, &[title], rule, buf);
    paint(look, block.headings.as_slice(), headings, buf);
    paint(look, &block.rows[above..below], rest, buf);
    most
}

/// A line that begins a block.
fn title(look: Look, title: &str, note: &str, focused: bool, width: u16) -> Line<'static> {
    let style = if focused {
        look.accent().patch(look.strong())
    } else {
        look.strong()
    };
    let begin = look.rule().repeat(2);
    let mut used = 4 + title.chars().count() + 1;
    let mut spans = vec![
        Span::styled(format!("{begin} "), look.faint()),
        Span::styled(format!("{title} "), style),
    ];
    let end = if note.is_empty() {
        String::new()
    } else {
        format!(" {note} {begin}")
    };
    used += end.chars().count();
    let fill = usize::from(width).saturating_sub(used - 1);
    let rest = format!("{}{end}", look.rule().repeat(fill));
    spans.push(Span::styled(rest, look.faint()));
    Line::from(spans)
}

/// Writes lines below one another, as many as there is room for; what is cut off to the right ends
/// with a mark.
fn paint(look: Look, lines: &[Line<'static>], area: Rect, buf: &mut Buffer) {
    for (y, line) in (area.top()..area.bottom()).zip(lines) {
        buf.set_line(area.x, y, line, area.width);
        if line.width() > usize::from(area.width)
            && let Some(cell) = (area.right().checked_sub(1)).and_then(|x| buf.cell_mut((x, y)))
        {
            cell.set_symbol(look.cut());
        }
    }
}

/// Names of functions and the reasons of others' policies may have any characters.
fn to_ascii(buf: &mut Buffer, area: Rect) {
    for position in area.positions() {
        if let Some(cell) = buf.cell_mut(position)
            && !cell.symbol().is_ascii()
        {
            cell.set_symbol("?");
        }
    }
}

/// A label and its value.
fn labelled(look: Look, label: &'static str, value: Span<'static>) -> Vec<Span<'static>> {
    vec![Span::styled(label, look.faint()), Span::raw(" "), value]
}

/// As many groups of spans as there is room for, from the left.
fn row_of(groups: Vec<Vec<Span<'static>>>, gap: usize, width: u16) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    let mut used = 1;
    for (place, group) in groups.into_iter().enumerate() {
        let gap = if place == 0 { 0 } else { gap };
        let wanted = gap + group.iter().map(Span::width).sum::<usize>();
        if place > 0 && used + wanted > usize::from(width) {
            break;
        }
        spans.push(Span::raw(" ".repeat(gap)));
        spans.extend(group);
        used += wanted;
    }
    Line::from(spans)
}
