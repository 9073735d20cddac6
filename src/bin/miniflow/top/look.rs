//! What the terminal can show: colours, and characters beyond ASCII.

use std::env;
use std::ffi::OsStr;

use ratatui::style::{Color, Modifier, Style};

/// What is to be shown with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    color: bool,
    ascii: bool,
}

impl Look {
    #[cfg(test)]
    pub(crate) fn new(color: bool, ascii: bool) -> Self {
        Self { color, ascii }
    }

    /// As the environment asks for it, unless the command line asked for less.
    pub(crate) fn from_env(no_color: bool, ascii: bool) -> Self {
        // https://no-color.org: any text counts but the empty one.
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            color: !no_color && !refused,
            ascii: ascii || !locale_is_utf8(|name| env::var_os(name)),
        }
    }

    /// The same without colours.
    pub(crate) fn plain(self) -> Self {
        Self {
            color: false,
            ..self
        }
    }

    pub(crate) fn is_ascii(self) -> bool {
        self.ascii
    }

    fn colored(self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    /// Labels and what is only there to lead the eye.
    pub(crate) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(crate) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Bars and graphs.
    pub(crate) fn accent(self) -> Style {
        self.colored(Color::Cyan)
    }

    pub(crate) fn good(self) -> Style {
        self.colored(Color::Green)
    }

    pub(crate) fn warning(self) -> Style {
        self.colored(Color::Yellow)
    }

    /// What has gone wrong; bold where there are no colours.
    pub(crate) fn trouble(self) -> Style {
        match self.color {
            true => Style::new().fg(Color::Red),
            false => self.strong(),
        }
    }

    /// What must not be overlooked.
    pub(crate) fn bad(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What the keys act on.
    pub(crate) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A bar of `width` cells of which the share `filled` is filled; whatever is not nothing can be
    /// seen.
    pub(crate) fn bar(self, filled: f64, width: usize) -> (String, String) {
        let (on, off) = if self.ascii {
            ("#", ".")
        } else {
            ("\u{2588}", "\u{2591}")
        };
        let cells = filled.clamp(0.0, 1.0) * width as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to `width`"
        )]
        let cells = match cells {
            ..0.05 => 0,
            ..1.0 => 1,
            _ => cells.round() as usize,
        };
        (on.repeat(cells), off.repeat(width - cells))
    }

    /// Characters that fill more and more of a cell from below, the first one nothing.
    pub(crate) fn levels(self) -> &'static [&'static str] {
        if self.ascii {
            &[" ", ".", ":", "|"]
        } else {
            &[
                " ", "\u{2581}", "\u{2582}", "\u{2583}", "\u{2584}", "\u{2585}", "\u{2586}",
                "\u{2587}", "\u{2588}",
            ]
        }
    }

    /// Lines between parts.
    pub(crate) fn rule(self) -> &'static str {
        if self.ascii { "-" } else { "\u{2500}" }
    }

    /// At the end of a line that is longer than there is room.
    pub(crate) fn cut(self) -> &'static str {
        if self.ascii { ">" } else { "\u{2026}" }
    }

    /// In front of a state.
    pub(crate) fn dot(self) -> &'static str {
        if self.ascii { "*" } else { "\u{25cf}" }
    }

    /// From one number to another.
    pub(crate) fn arrow(self) -> &'static str {
        if self.ascii { "->" } else { "\u{2192}" }
    }

    /// Beside the heading of the column that rows are sorted by.
    pub(crate) fn order(self, descending: bool) -> &'static str {
        match (self.ascii, descending) {
            (true, true) => "v",
            (true, false) => "^",
            (false, true) => "\u{25be}",
            (false, false) => "\u{25b4}",
        }
    }
}

/// Whether the first of the variables that decide is set to a locale with UTF-8: locale(7).
fn locale_is_utf8<S: AsRef<OsStr>>(variable: impl Fn(&str) -> Option<S>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.as_ref().is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.as_ref().to_string_lossy().to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_decides_about_the_locale() {
        let of = |set: &[(&str, &str)]| {
            locale_is_utf8(|name| {
                let found = set.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[("LANG", "de_DE.UTF-8")]));
        assert!(of(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!of(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!of(&[]));
    }

    #[test]
    fn a_bar_has_its_width_and_shows_the_least_load() {
        let look = Look::new(false, true);
        assert_eq!(look.bar(0.7, 10), ("#######".into(), "...".into()));
        assert_eq!(look.bar(0.01, 10), ("#".into(), ".........".into()));
        assert_eq!(look.bar(0.0, 10), (String::new(), "..........".into()));
        assert_eq!(look.bar(7.0, 3), ("###".into(), String::new()));
        assert_eq!(look.bar(f64::NAN, 3), (String::new(), "...".into()));
    }
}
