//! Where the params come from.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::bell::{Bell, wait_readable};
use crate::error::{Error, Result};

/// An open params file.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    /// For messages.
    pub(crate) name: String,
    /// Its length; `None` if it is a pipe, a terminal or the like.
    pub(crate) size: Option<u64>,
    /// Ends the stream, also while it waits for input.
    stop: Arc<Bell>,
}

impl Source {
    /// `-` is `stdin`.
    pub(crate) fn open(path: &Path, stop: Arc<Bell>) -> Result<Self> {
        let name = match path.as_os_str() == "-" {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let refuse = |error: &dyn std::fmt::Display| {
            Error::Usage(format!("cannot read the params from {name}: {error}"))
        };
        let file = match path.as_os_str() == "-" {
            // Not the descriptor itself: it becomes /dev/null, so that workers do not read from it.
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => File::open(path),
        };
        let file = file.map_err(|e| refuse(&e))?;
        let metadata = file.metadata().map_err(|e| refuse(&e))?;
        if metadata.is_dir() {
            return Err(refuse(&"it is a directory"));
        }
        Ok(Self {
            file,
            name,
            size: metadata.is_file().then_some(metadata.len()),
            stop,
        })
    }

    /// Another look at the same file, from its start; `None` if that is not possible.
    pub(crate) fn reopen(&self) -> Option<File> {
        self.size?;
        File::open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&self.file)
        ))
        .ok()
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.size.is_none() {
            wait_readable(&[self.file.as_fd(), self.stop.as_fd()], None);
        }
        if self.stop.rings() {
            return Ok(0);
        }
        self.file.read(buffer)
    }
}
