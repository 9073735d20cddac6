//! The name of an engine, and with it its control segment.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use crate::config::{Config, Naming};
use crate::error::Result;
use crate::shm::control::ControlSegment;

/// So many characters of a program's name are enough: the pid must have room behind them.
const PROGRAM_CHARS: usize = 40;

/// The control segment of a new engine, and what is to be said about it. `entrust` is told the name
/// before it is made, so that somebody removes it whatever happens.
pub(crate) fn segment(
    config: &Config,
    entrust: impl FnMut(&CStr) -> Result<()>,
) -> Result<(ControlSegment, Option<String>)> {
    let workers = config.max_workers();
    match &config.name {
        Naming::Given(name) => Ok((ControlSegment::create(name, workers, entrust)?, None)),
        Naming::None => Ok((ControlSegment::private(workers)?, None)),
        Naming::Automatic => {
            match ControlSegment::create_for(&program(), workers, entrust) {
                Ok(segment) => Ok((segment, None)),
                // Nobody has asked for it.
                Err(e) => {
                    let note = format!("the engine has no name, nobody can watch it: {e}");
                    Ok((ControlSegment::private(workers)?, Some(note)))
                }
            }
        }
    }
}

/// What this program is called, as far as a name may hold that.
fn program() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    let file = std::path::Path::new(&first).file_name().unwrap_or_default();
    sanitised(&file.to_string_lossy())
}

fn sanitised(program: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let chars = program.trim_start_matches('-').chars().take(PROGRAM_CHARS);
    let name: String = chars.map(|c| if allowed(c) { c } else { '_' }).collect();
    if name.is_empty() {
        return "engine".to_owned();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_programs_name_becomes_one_that_an_engine_may_have() {
        assert_eq!(sanitised("my-server_1.2"), "my-server_1.2");
        assert_eq!(sanitised("-bash"), "bash");
        assert_eq!(sanitised("gr\u{fc}n (x)"), "gr_n__x_");
        assert_eq!(sanitised("--"), "engine");
        assert_eq!(sanitised(&"\u{fc}".repeat(100)).len(), PROGRAM_CHARS);
        assert!(!program().is_empty());
    }
}
