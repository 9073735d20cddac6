//! What can keep a run from being made. (What a run finds is no error: it is the report.)

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
    /// The engine refused something that it should grant.
    Engine {
        what: &'static str,
        source: miniflow::Error,
    },
    /// A condition of the run does not hold; the text names it.
    Unfit(String),
}

impl Error {
    /// For `map_err`: wraps the answer of the system call `call`.
    pub(super) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            call,
            source: source.into(),
        }
    }

    /// For `map_err`: wraps the engine's answer to an attempt at `what`.
    pub(super) fn engine(what: &'static str) -> impl FnOnce(miniflow::Error) -> Self {
        move |source| Self::Engine { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { call, source } => write!(f, "{call}: {source}"),
            Self::Engine { what, source } => write!(f, "{what}: {source}"),
            Self::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Engine { source, .. } => Some(source),
            Self::Unfit(_) => None,
        }
    }
}
