//! What can keep a subcommand from its work.

use std::fmt;
use std::io;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub(crate) enum Error {
    /// A system call failed.
    System {
        call: &'static str,
        source: io::Error,
    },
    /// The engine refused something.
    Engine {
        what: &'static str,
        source: miniflow::Error,
    },
    /// Nothing came back for as long as [`WATCHDOG`](crate::bench::clock::WATCHDOG).
    Silent(&'static str),
    /// Something came back that was not asked for.
    Garbled(&'static str),
    /// A condition of the work does not hold; the text names it.
    Unfit(String),
}

impl Error {
    /// For `map_err`: wraps the answer of the system call `call`.
    pub(crate) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            call,
            source: source.into(),
        }
    }

    /// For `map_err`: wraps the engine's answer to an attempt at `what`.
    pub(crate) fn engine(what: &'static str) -> impl FnOnce(miniflow::Error) -> Self {
        move |source| Self::Engine { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { call, source } => write!(f, "{call}: {source}"),
            Self::Engine { what, source } => write!(f, "{what}: {source}"),
            Self::Silent(what) => write!(
                f,
                "{what}: no answer from the other process within {} s",
                crate::bench::clock::WATCHDOG.as_secs()
            ),
            Self::Garbled(what) => write!(f, "{what}: a wrong answer from the other process"),
            Self::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Engine { source, .. } => Some(source),
            _ => None,
        }
    }
}
