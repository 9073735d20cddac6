//! What the workers do: next to nothing, or read every byte.

#![forbid(unsafe_code)]

use miniflow::worker::{Task, TaskResult};

/// First word of a payload: do nothing more than read this.
pub(super) const NOTHING: u64 = 0;
/// First word of a payload: reply with [`sum`].
pub(super) const ADD_UP: u64 = 1;

/// The handler of every engine of the bench.
pub(super) fn run(task: &mut Task<'_>) -> TaskResult {
    let payload = task.payload();
    if first_word(payload) == ADD_UP {
        let sum = sum(payload);
        task.reply(&sum.to_le_bytes())?;
    }
    Ok(())
}

fn first_word(payload: &[u8]) -> u64 {
    match payload.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => NOTHING,
    }
}

/// The sum of all words, so that each of them has to be read.
pub(super) fn sum(payload: &[u8]) -> u64 {
    let (words, _) = payload.as_chunks();
    words.iter().fold(0, |sum: u64, word| {
        sum.wrapping_add(u64::from_le_bytes(*word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_counts() {
        let mut payload = [0; 64];
        payload[0] = 1;
        payload[63] = 1;
        assert_eq!(sum(&payload), 1 + (1 << 56));
        assert_eq!(first_word(&payload), ADD_UP);
        assert_eq!(first_word(&[1, 0, 0]), NOTHING);
    }
}
