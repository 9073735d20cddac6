//! The loop: look at the engine, draw, listen.

use std::time::{Duration, Instant};

use miniflow::monitor::Monitor;

use super::keys::{Turn, Ui};
use super::look::Look;
use super::model::Model;
use super::screen::{Input, Screen};
use super::view::{self, Picture};
use crate::error::Result;

/// Why the watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The user wanted it.
    Quit,
    /// This signal came.
    Signal(i32),
}

/// Shows the engine until the user has seen enough.
pub(crate) fn watch(
    screen: &mut Screen,
    monitor: &Monitor,
    look: Look,
    interval: Duration,
) -> Result<End> {
    let mut ui = Ui::new(interval);
    let mut looked = Instant::now();
    let mut model = Model::new(monitor.status(), looked);
    loop {
        screen.draw(|area, buf| {
            let picture = Picture {
                model: &model,
                ui: &ui,
                look,
            };
            let most = view::draw(picture, area, buf);
            ui.settle(most);
        })?;
        let due = looked + ui.interval;
        // Nothing changes any more, or nothing is to change: only the user can.
        let still = ui.paused || model.is_gone();
        let patience = (!still).then(|| due.saturating_duration_since(Instant::now()));
        match screen.input(patience)? {
            None => {
                looked = Instant::now();
                model.update(monitor.status(), looked);
            }
            Some(Input::Redraw) => {}
            Some(Input::End(signal)) => return Ok(End::Signal(signal)),
            Some(Input::Key(key)) => match ui.key(key) {
                Turn::Draw => {}
                Turn::Quit => return Ok(End::Quit),
                Turn::Suspend => screen.suspend()?,
            },
        }
    }
}
