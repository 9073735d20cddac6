//! What the user has chosen to see, and the keys that change it.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the keys + and - choose between.
const INTERVALS: [u64; 8] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000];
/// Rows that a page key moves by.
const PAGE: usize = 10;

/// What workers are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SortBy {
    #[default]
    Slot,
    Load,
    Class,
    State,
    Queue,
    Rate,
    Service,
    Done,
    Failed,
    Cpu,
    Memory,
    Crashed,
}

impl SortBy {
    const ALL: [Self; 12] = [
        Self::Slot,
        Self::Load,
        Self::Class,
        Self::State,
        Self::Queue,
        Self::Rate,
        Self::Service,
        Self::Done,
        Self::Failed,
        Self::Cpu,
        Self::Memory,
        Self::Crashed,
    ];

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|&by| by == self);
        let next = place.map_or(0, |place| (place + 1) % Self::ALL.len());
        Self::ALL[next]
    }

    /// Of numbers the greatest first, of names the least.
    fn descends(self) -> bool {
        !matches!(self, Self::Slot | Self::Class | Self::State)
    }
}

/// A part of the picture that can be scrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pane {
    #[default]
    Workers,
    Events,
}

/// What the loop has to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Draw,
    Quit,
    /// Stop like any job of a shell.
    Suspend,
}

#[derive(Debug, Clone)]
pub(crate) struct Ui {
    pub(crate) sort: SortBy,
    pub(crate) descending: bool,
    /// Words that a worker must have.
    pub(crate) filter: String,
    /// The filter is being typed; it was this before.
    pub(crate) typing: Option<String>,
    pub(crate) focus: Pane,
    /// Rows above the first that is shown, by [`Pane`].
    pub(crate) scroll: [usize; 2],
    pub(crate) paused: bool,
    pub(crate) help: bool,
    pub(crate) interval: Duration,
}

impl Ui {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            sort: SortBy::default(),
            descending: false,
            filter: String::new(),
            typing: None,
            focus: Pane::default(),
            scroll: [0; 2],
            paused: false,
            help: false,
            interval,
        }
    }

    pub(crate) fn scroll(&self, pane: Pane) -> usize {
        self.scroll[pane as usize]
    }

    pub(crate) fn key(&mut self, key: KeyEvent) -> Turn {
        if key.kind == KeyEventKind::Release {
            return Turn::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Turn::Quit,
                KeyCode::Char('z') => Turn::Suspend,
                _ => Turn::Draw,
            };
        }
        if let Some(before) = self.typing.take() {
            self.type_filter(key.code, before);
            return Turn::Draw;
        }
        if self.help {
            self.help = false; // whatever the key
            return Turn::Draw;
        }
        self.command(key.code)
    }

    fn type_filter(&mut self, code: KeyCode, before: String) {
        match code {
            KeyCode::Enter => return,
            KeyCode::Esc => {
                self.filter = before;
                return;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.scroll[Pane::Workers as usize] = 0;
        self.typing = Some(before);
    }

    fn command(&mut self, code: KeyCode) -> Turn {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Turn::Quit,
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.descending = self.sort.descends();
            }
            KeyCode::Char('r') => self.descending = !self.descending,
            KeyCode::Char('/') => self.typing = Some(self.filter.clone()),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('+' | '=') => self.step_interval(INTERVALS.iter().copied()),
            KeyCode::Char('-') => self.step_interval(INTERVALS.iter().rev().copied()),
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = match self.focus {
                    Pane::Workers => Pane::Events,
                    Pane::Events => Pane::Workers,
                };
            }
            KeyCode::Up | KeyCode::Char('k') => self.scroll_up(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_down(1),
            KeyCode::PageUp => self.scroll_up(PAGE),
            KeyCode::PageDown => self.scroll_down(PAGE),
            KeyCode::Home => self.scroll_up(usize::MAX),
            KeyCode::End => self.scroll_down(usize::MAX),
            _ => {}
        }
        Turn::Draw
    }

    /// To the first of `intervals` that lies beyond the present one in their direction.
    fn step_interval(&mut self, intervals: impl Iterator<Item = u64> + Clone) {
        let now = self.interval;
        let ascending = intervals.clone().is_sorted();
        let next = intervals
            .map(Duration::from_millis)
            .find(|&next| if ascending { next > now } else { next < now });
        self.interval = next.unwrap_or(now);
    }

    fn scroll_up(&mut self, rows: usize) {
        let scroll = &mut self.scroll[self.focus as usize];
        *scroll = scroll.saturating_sub(rows);
    }

    /// As far as one likes: who draws stops at the end, by [`settle`](Self::settle).
    fn scroll_down(&mut self, rows: usize) {
        let scroll = &mut self.scroll[self.focus as usize];
        *scroll = scroll.saturating_add(rows);
    }

    /// After a picture: nothing is scrolled further than it could be.
    pub(crate) fn settle(&mut self, most: [usize; 2]) {
        for (scroll, most) in self.scroll.iter_mut().zip(most) {
            *scroll = (*scroll).min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ui() -> Ui {
        Ui::new(Duration::from_millis(500))
    }

    fn press(ui: &mut Ui, keys: &str) -> Turn {
        let mut turn = Turn::Draw;
        for letter in keys.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                '\t' => KeyCode::Tab,
                letter => KeyCode::Char(letter),
            };
            turn = ui.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        turn
    }

    #[test]
    fn q_escape_and_ctrl_c_quit() {
        assert_eq!(press(&mut ui(), "q"), Turn::Quit);
        assert_eq!(press(&mut ui(), "\x1b"), Turn::Quit);
        let ctrl = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(ui().key(ctrl('c')), Turn::Quit);
        assert_eq!(ui().key(ctrl('z')), Turn::Suspend);
    }

    #[test]
    fn while_a_filter_is_typed_keys_are_letters_but_ctrl_c() {
        let mut ui = ui();
        assert_eq!(press(&mut ui, "/qs"), Turn::Draw);
        assert_eq!((ui.filter.as_str(), ui.typing.is_some()), ("qs", true));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(ui.key(ctrl_c), Turn::Quit);
    }

    #[test]
    fn enter_keeps_a_filter_and_escape_the_one_before() {
        let mut ui = ui();
        press(&mut ui, "/iox\x08\n");
        assert_eq!((ui.filter.as_str(), ui.typing.is_some()), ("io", false));
        assert_eq!(press(&mut ui, "/zzz\x1b"), Turn::Draw);
        assert_eq!((ui.filter.as_str(), ui.typing.is_some()), ("io", false));
    }

    #[test]
    fn sorting_goes_round_all_columns_and_turns_round() {
        let mut ui = ui();
        let mut seen = vec![ui.sort];
        for _ in 1..SortBy::ALL.len() {
            press(&mut ui, "s");
            assert!(!seen.contains(&ui.sort));
            seen.push(ui.sort);
        }
        press(&mut ui, "s");
        assert_eq!((ui.sort, ui.descending), (SortBy::Slot, false));
        press(&mut ui, "r");
        assert!(ui.descending);
    }

    #[test]
    fn the_interval_moves_in_steps_and_stays_in_bounds() {
        let mut ui = Ui::new(Duration::from_millis(700));
        press(&mut ui, "+");
        assert_eq!(ui.interval, Duration::from_secs(1));
        press(&mut ui, "--");
        assert_eq!(ui.interval, Duration::from_millis(200));
        press(&mut ui, "-----");
        assert_eq!(ui.interval, Duration::from_millis(100));
        press(&mut ui, "+++++++++++");
        assert_eq!(ui.interval, Duration::from_secs(60));
    }

    #[test]
    fn arrows_scroll_the_pane_that_tab_has_chosen_and_no_further_than_there_is() {
        let mut ui = ui();
        press(&mut ui, "jjj\tj");
        assert_eq!(ui.scroll, [3, 1]);
        ui.key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        ui.settle([2, 7]);
        assert_eq!(ui.scroll, [2, 7]);
        press(&mut ui, "k\tkkkk");
        assert_eq!(ui.scroll, [0, 6]);
    }

    #[test]
    fn any_key_ends_the_help() {
        let mut ui = ui();
        press(&mut ui, "?");
        assert!(ui.help);
        assert_eq!(press(&mut ui, "q"), Turn::Draw);
        assert!(!ui.help);
    }
}
