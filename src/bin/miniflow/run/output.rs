//! Where results go: whole lines only.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::bell::wait;
use super::index_set::IndexSet;
use super::resume;
use crate::error::{Error, Result};

/// Lines are handed to the kernel at the latest when there are so many bytes of them.
const ENOUGH: usize = 1 << 20;

/// An open results file, or a pipe.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// For messages.
    name: String,
    /// Length of a regular file up to the end of the last whole line; `None` if it is none.
    length: Option<u64>,
    pending: Vec<u8>,
    /// Lines that were written.
    lines: u64,
}

impl Output {
    /// The standard output, whatever becomes of its descriptor later.
    pub(crate) fn standard() -> Result<Self> {
        let file = io::stdout().as_fd().try_clone_to_owned();
        let file = file.map_err(Error::system("dup"))?.into();
        Ok(Self::new(file, "standard output".into(), None))
    }

    /// A file that results are appended to. With `resume`, what it has completed is returned, and the
    /// line that an interrupted run has left unfinished is taken away; otherwise it must be empty.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<(Self, IndexSet)> {
        let name = path.display().to_string();
        let refuse = |what: &str| Error::Usage(format!("cannot write results to {name}: {what}"));
        let file = OpenOptions::new()
            .read(resume)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| refuse(&e.to_string()))?;
        let metadata = file.metadata().map_err(|e| refuse(&e.to_string()))?;
        if !metadata.is_file() {
            if resume {
                return Err(refuse("only a regular file can be resumed"));
            }
            return Ok((Self::new(file, name, None), IndexSet::default()));
        }
        // Some file systems know no locks; then there is nothing to see to.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(refuse("another run is writing to it"));
        }
        let (done, length) = match resume {
            true => resume::read(&file, &name)?,
            false if metadata.len() == 0 => (IndexSet::default(), 0),
            false => {
                return Err(refuse(
                    "it is not empty; --resume goes on with the run that has written it",
                ));
            }
        };
        Ok((Self::new(file, name, Some(length)), done))
    }

    fn new(file: File, name: String, length: Option<u64>) -> Self {
        Self {
            file,
            name,
            length,
            pending: Vec::new(),
            lines: 0,
        }
    }

    /// Whether somebody sees the results as they come.
    pub(crate) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// Adds a line, which may wait for the next [`flush`](Self::flush).
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(line);
        match self.pending.len() >= ENOUGH {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Hands all lines to the kernel. After an error, a regular file ends with a whole line.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut rest = self.pending.as_slice();
        let outcome = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match self.file.write(rest) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Somebody else has made the terminal or pipe non-blocking.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    wait(&mut [PollFd::new(&self.file, PollFlags::OUT)], None);
                }
                Err(e) => break Err(e),
            }
        };
        let written = &self.pending[..self.pending.len() - rest.len()];
        let whole = written
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |end| end + 1);
        self.lines += written.iter().filter(|&&b| b == b'\n').count() as u64;
        if let Some(length) = &mut self.length {
            *length += whole as u64;
            if outcome.is_err() {
                // If that fails too, --resume finds a torn line and takes it away.
                let _ = self.file.set_len(*length);
            }
        }
        self.pending.clear();
        self.pending.shrink_to(ENOUGH);
        outcome.map_err(|e| self.describe(e))
    }

    /// Hands everything to the disk, which may say only now that it is full.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.flush()?;
        match self.length {
            Some(_) => self.file.sync_data().map_err(|e| self.describe(e)),
            None => Ok(()),
        }
    }

    fn describe(&self, source: io::Error) -> Error {
        if source.kind() == ErrorKind::BrokenPipe {
            return Error::ReaderGone;
        }
        Error::Output {
            name: self.name.clone(),
            lines: self.lines,
            source,
        }
    }
}
