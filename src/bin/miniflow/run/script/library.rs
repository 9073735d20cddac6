//! Finds the shared library, which the Python workers load.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Names the library, before all other places.
const VARIABLE: &str = "MINIFLOW_LIBRARY";
const NAME: &str = "libminiflow.so";

/// Prints where the library of an installed Python package is, if there is one.
const ASK: &str = "
import glob, importlib.util, os
spec = importlib.util.find_spec('miniflow')
places = spec.submodule_search_locations or [] if spec else []
found = sorted(path for place in places for path in glob.glob(os.path.join(place, '_native*.so')))
print(found[0] if found else '')
";

/// The library: what the variable names, or beside this executable, or in the `lib` beside its
/// directory, or that of the interpreter's own `miniflow` package.
pub(super) fn find(python: &Path) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        let path = PathBuf::from(named);
        return match path.is_file() {
            true => absolute(&path),
            false => Err(Error::Usage(format!(
                "{VARIABLE} names {}, which is not a file",
                path.display()
            ))),
        };
    }
    let executable = std::env::current_exe().map_err(Error::system("readlink(/proc/self/exe)"))?;
    let directory = executable.parent().unwrap_or(Path::new("/"));
    let places = [directory.join(NAME), directory.join("../lib").join(NAME)];
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return absolute(found);
    }
    if let Some(installed) = installed(python) {
        return Ok(installed);
    }
    Err(Error::Usage(format!(
        "there is no {NAME}, which Python workers need, at {} or {}, and no `miniflow` package of {} \
         has one: run `cargo build --release`, which makes it beside the executable, or set {VARIABLE}",
        places[0].display(),
        places[1].display(),
        python.display()
    )))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|source| Error::File {
        what: "cannot use the library",
        path: path.display().to_string(),
        source,
    })
}

fn installed(python: &Path) -> Option<PathBuf> {
    let output = Command::new(python)
        .args([OsStr::new("-c"), OsStr::new(ASK)])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    path.is_file().then_some(path)
}
