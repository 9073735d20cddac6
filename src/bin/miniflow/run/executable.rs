//! Finds a program before anything is started for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The path of the program that a shell would run under this name. The text of an error names it and
/// says why there is none.
pub(super) fn find(name: &OsStr) -> Result<PathBuf, String> {
    let shown = name.display();
    if name.as_bytes().contains(&b'/') {
        let path = Path::new(name);
        return match access(path, Access::EXEC_OK) {
            Ok(()) if path.is_file() => Ok(path.to_owned()),
            Ok(()) => Err(format!("{shown}: it is not a file")),
            Err(error) => Err(format!("{shown}: {error}")),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
        .ok_or_else(|| {
            format!("{shown}: there is none in PATH (one of this directory is ./{shown})")
        })
}
