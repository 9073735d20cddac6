//! The engines that can be seen from here.

#![forbid(unsafe_code)]

use miniflow::monitor::{self, Found, Monitor};

use crate::error::{Error, Result};

/// The engine of this name; without a name the only living one.
pub(crate) fn open(name: Option<&str>) -> Result<Monitor> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => {
            let living = all()?.into_iter().filter(|found| found.alive);
            only(living.map(|found| found.name).collect())?
        }
    };
    Monitor::open(&name).map_err(|error| match error {
        // It says which name, and that is all that there is to say.
        miniflow::Error::Invalid(text) | miniflow::Error::Unsupported(text) => Error::Unfit(text),
        error => Error::engine("cannot look at the engine")(error),
    })
}

/// All names of this user's engines, dead ones too.
pub(crate) fn all() -> Result<Vec<Found>> {
    monitor::list().map_err(Error::engine("cannot list the engines"))
}

/// The one name, if it is one.
fn only(mut living: Vec<String>) -> Result<String> {
    match living.len() {
        0 => Err(Error::Unfit(
            "no engine of this user is running here that can be watched (one that was started \
             without a name cannot)"
                .into(),
        )),
        1 => Ok(living.swap_remove(0)),
        count => Err(Error::Usage(format!(
            "there are {count} engines: name one of {}",
            living.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_there_has_to_be_one_engine() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        assert_eq!(only(names(&["a"])).unwrap(), "a");
        let none = only(names(&[])).unwrap_err();
        assert_eq!(none.status(), 1);
        let several = only(names(&["a", "b"])).unwrap_err();
        assert_eq!(several.status(), 2);
        assert!(several.to_string().contains("a, b"), "{several}");
    }

    #[test]
    fn a_name_that_nobody_has_is_named() {
        let name = format!("nobody-{}", std::process::id());
        let error = open(Some(&name)).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
        assert_eq!(error.status(), 1);
        let error = open(Some("no/name")).unwrap_err();
        assert!(error.to_string().contains("no/name"), "{error}");
    }
}
