//! The engines that are watched: one by its name, or all of this user.

use miniflow::monitor::{self, Monitor};
use miniflow::status::{EngineState, Status};

#[derive(Debug)]
pub(super) struct Engines {
    /// `None`: all.
    name: Option<String>,
}

impl Engines {
    pub(super) fn new(name: Option<String>) -> Self {
        Self { name }
    }

    /// The one that is watched; `None`: all are.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The names of those that live.
    pub(super) fn living(&self) -> miniflow::Result<Vec<String>> {
        let mut names: Vec<_> = (monitor::list()?.into_iter())
            .filter(|found| found.alive && self.is_watched(&found.name))
            .map(|found| found.name)
            .collect();
        names.sort();
        Ok(names)
    }

    /// What the engine with this name does; an error if it does not live, or is none of those
    /// that are watched.
    ///
    /// It is found anew every time: what was attached to may be dead, and another engine have its
    /// name.
    pub(super) fn status(&self, name: &str) -> Result<Status, String> {
        if !self.is_watched(name) {
            return Err(format!("engine {name} is not watched here"));
        }
        let monitor = Monitor::open(name).map_err(|error| error.to_string())?;
        let status = monitor.status();
        if status.state == EngineState::Dead {
            return Err(format!(
                "engine {name} is dead: its host process {} is gone",
                status.pid
            ));
        }
        Ok(status)
    }

    /// What all of them do that live. One that is watched by its name and does not is an error.
    pub(super) fn statuses(&self) -> Result<Vec<Status>, String> {
        if let Some(name) = &self.name {
            return Ok(vec![self.status(name)?]);
        }
        let names = self.living().map_err(|error| error.to_string())?;
        // One that has just ended is no error.
        Ok(names
            .iter()
            .filter_map(|name| self.status(name).ok())
            .collect())
    }

    fn is_watched(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|watched| watched == name)
    }
}
