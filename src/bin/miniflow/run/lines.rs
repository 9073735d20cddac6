//! Lines of any length out of a stream of any length, in bounded memory.

use std::io::{self, BufRead, BufReader, Read};

/// A line that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// With its newline.
    Whole,
    /// The last one, without a newline.
    Torn,
    /// Longer than allowed: so many bytes. Only its start was kept.
    TooLong(u64),
}

/// Reads line after line.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    /// Longest line that is kept, without its newline.
    longest: u64,
    number: u64,
    bytes: u64,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(source: R, longest: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(256 << 10, source),
            longest,
            number: 0,
            bytes: 0,
        }
    }

    /// Reads the next line into `line`, which does not get the newline; `None` at the end.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
        line.clear();
        let mut limited = (&mut self.reader).take(self.longest.saturating_add(1));
        let mut read = limited.read_until(b'\n', line)? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let kind = if line.last() == Some(&b'\n') {
            line.pop();
            Line::Whole
        } else if read > self.longest {
            read += self.reader.skip_until(b'\n')? as u64;
            Line::TooLong(read)
        } else {
            Line::Torn
        };
        self.bytes += read;
        Ok(Some(kind))
    }

    /// The number of the line that was read last; the first is 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of all lines so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Whether nothing is in a line.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], longest: u64) -> Vec<(Line, Vec<u8>)> {
        let mut lines = Lines::new(text, longest);
        let (mut found, mut line) = (Vec::new(), Vec::new());
        while let Some(kind) = lines.next(&mut line).unwrap() {
            found.push((kind, line.clone()));
        }
        assert_eq!(lines.number(), found.len() as u64);
        assert_eq!(lines.bytes(), text.len() as u64);
        found
    }

    #[test]
    fn every_line_comes_once_and_only_the_last_can_be_torn() {
        let whole = |text: &str| (Line::Whole, text.as_bytes().to_vec());
        assert_eq!(all(b"", 9), []);
        assert_eq!(all(b"a\n\nbc\n", 9), [whole("a"), whole(""), whole("bc")]);
        assert_eq!(all(b"a\nbc", 9), [whole("a"), (Line::Torn, b"bc".to_vec())]);
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_the_next_one_is_whole() {
        let found = all(b"abc\nabcd\nabc\nabcdef", 3);
        let kinds: Vec<_> = found.iter().map(|(kind, _)| *kind).collect();
        let expected = [Line::Whole, Line::TooLong(5), Line::Whole, Line::TooLong(6)];
        assert_eq!(kinds, expected);
        assert!(found.iter().all(|(_, line)| line.len() <= 4));
    }
}
