//! What a subcommand found, and whether that is well.

#![forbid(unsafe_code)]

/// A text to print, and what the exit status is to say.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    pub(crate) clean: bool,
}
