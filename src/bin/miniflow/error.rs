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
    /// The command line asks for something that cannot be; the text says what.
    Usage(String),
    /// A file cannot be used.
    File {
        what: &'static str,
        path: String,
        source: io::Error,
    },
    /// Results cannot be written.
    Output {
        name: String,
        /// Those that were.
        lines: u64,
        source: io::Error,
    },
    /// Nobody reads what is written (`| head`).
    ReaderGone,
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

impl Error {
    /// The exit status that tells this error.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
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
            Self::Unfit(why) | Self::Usage(why) => f.write_str(why),
            Self::File { what, path, source } => write!(f, "{what} {path}: {source}"),
            Self::Output {
                name,
                lines,
                source,
            } => write!(
                f,
                "cannot write results to {name}: {source}; {lines} were written, the others are \
                 lost (--out FILE --resume runs only what is missing)"
            ),
            Self::ReaderGone => f.write_str("nobody reads the results any more"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::File { source, .. } | Self::Output { source, .. } => Some(source),
            Self::Engine { source, .. } => Some(source),
            _ => None,
        }
    }
}
