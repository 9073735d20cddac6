//! Which engine, if there are several.

use std::time::Duration;

use miniflow::monitor::Found;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::look::Look;
use super::screen::{Input, Screen};
use super::watch::End;
use crate::engines;
use crate::error::Result;

/// How often the list is made anew.
const REFRESH: Duration = Duration::from_secs(1);

/// The engines that live.
pub(crate) fn living() -> Result<Vec<Found>> {
    let mut engines = engines::all()?;
    engines.retain(|engine| engine.alive);
    engines.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(engines)
}

/// Lets the user choose; `Err` in the answer: why there is no choice.
pub(crate) fn pick(screen: &mut Screen, look: Look) -> Result<Result<String, End>> {
    let mut list = List::new(living()?);
    loop {
        screen.draw(|area, buf| list.draw(look, area, buf))?;
        match screen.input(Some(REFRESH))? {
            None => list.renew(living()?),
            Some(Input::Redraw) => {}
            Some(Input::End(signal)) => return Ok(Err(End::Signal(signal))),
            Some(Input::Key(key)) => match list.key(key) {
                Choice::None => {}
                Choice::Quit => return Ok(Err(End::Quit)),
                Choice::Suspend => screen.suspend()?,
                Choice::Engine(name) => return Ok(Ok(name)),
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    None,
    Quit,
    Suspend,
    Engine(String),
}

#[derive(Debug)]
struct List {
    engines: Vec<Found>,
    chosen: usize,
}

impl List {
    fn new(engines: Vec<Found>) -> Self {
        Self { engines, chosen: 0 }
    }

    /// What was chosen stays so, if it is still there.
    fn renew(&mut self, engines: Vec<Found>) {
        let name = (self.engines.get(self.chosen)).map(|engine| engine.name.clone());
        let same = engines
            .iter()
            .position(|engine| Some(&engine.name) == name.as_ref());
        let last = engines.len().saturating_sub(1);
        self.chosen = same.unwrap_or(self.chosen.min(last));
        self.engines = engines;
    }

    fn key(&mut self, key: KeyEvent) -> Choice {
        if key.kind == KeyEventKind::Release {
            return Choice::None;
        }
        let last = self.engines.len().saturating_sub(1);
        match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
            (KeyCode::Char('c'), true) => return Choice::Quit,
            (KeyCode::Char('z'), true) => return Choice::Suspend,
            (KeyCode::Char('q') | KeyCode::Esc, _) => return Choice::Quit,
            (KeyCode::Up | KeyCode::Char('k'), _) => self.chosen = self.chosen.saturating_sub(1),
            (KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab, _) => {
                self.chosen = last.min(self.chosen + 1);
            }
            (KeyCode::Enter, _) => {
                let engine = self.engines.get(self.chosen);
                return engine.map_or(Choice::None, |engine| Choice::Engine(engine.name.clone()));
            }
            _ => {}
        }
        Choice::None
    }

    fn draw(&self, look: Look, area: Rect, buf: &mut Buffer) {
        let mut lines = vec![
            Line::styled(" Which engine?", look.strong()),
            Line::default(),
        ];
        // The chosen one stays in sight.
        let room = usize::from(area.height).saturating_sub(4).max(1);
        let above = (self.chosen + 1).saturating_sub(room);
        let seen = self.engines.iter().enumerate().skip(above).take(room);
        lines.extend(seen.map(|(index, engine)| {
            let name = format!(" {:<30} ", engine.name);
            let style = match index == self.chosen {
                true => look.chosen(),
                false => look.accent(),
            };
            Line::from(vec![
                Span::raw(" "),
                Span::styled(name, style),
                Span::styled(format!(" pid {}", engine.pid), look.faint()),
            ])
        }));
        if self.engines.is_empty() {
            lines.push(Line::styled(" none is left", look.warning()));
        }
        lines.push(Line::default());
        lines.push(Line::styled(" arrows, Enter; q quit", look.faint()));
        for (y, line) in (area.top()..area.bottom()).zip(&lines) {
            buf.set_line(area.x, y, line, area.width);
        }
    }
}
