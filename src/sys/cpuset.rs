//! Sets of processors, by the numbers that the kernel gives them.
#![forbid(unsafe_code)]

use std::fmt;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Words of a set.
pub(crate) const WORDS: usize = CpuSet::MAX_CPU / 64;
/// Processors from this number on are in no set: the system calls are given no room for them.
#[expect(clippy::cast_possible_truncation, reason = "1024")]
const MAX: u32 = CpuSet::MAX_CPU as u32;

/// A set of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cpus([u64; WORDS]);

impl Cpus {
    /// Those that a thread may run on now; `None` is the calling one.
    pub(crate) fn allowed(thread: Option<Pid>) -> Result<Self, Errno> {
        let set = sched_getaffinity(thread)?;
        Ok((0..MAX).filter(|&cpu| set.is_set(cpu as usize)).collect())
    }

    /// Lets a thread run on these only; `None` is the calling one.
    pub(crate) fn confine(&self, thread: Option<Pid>) -> Result<(), Errno> {
        let mut set = CpuSet::new();
        for cpu in self.iter() {
            set.set(cpu as usize);
        }
        sched_setaffinity(thread, &set)
    }

    /// The kernel's way of writing a set, such as `0-3,8`; what is no number is passed over.
    pub(crate) fn parse(list: &str) -> Self {
        let mut set = Self::default();
        for part in list.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse(), last.parse::<u32>()) {
                set.extend(first..=last.min(MAX - 1));
            }
        }
        set
    }

    pub(crate) fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    pub(crate) fn contains(&self, cpu: u32) -> bool {
        (self.0.get(cpu as usize / 64)).is_some_and(|word| word & 1 << (cpu % 64) != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Its members, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..MAX).filter(|&cpu| self.contains(cpu))
    }
}

impl Extend<u32> for Cpus {
    fn extend<T: IntoIterator<Item = u32>>(&mut self, cpus: T) {
        for cpu in cpus {
            if let Some(word) = self.0.get_mut(cpu as usize / 64) {
                *word |= 1 << (cpu % 64);
            }
        }
    }
}

impl FromIterator<u32> for Cpus {
    fn from_iter<T: IntoIterator<Item = u32>>(cpus: T) -> Self {
        let mut set = Self::default();
        set.extend(cpus);
        set
    }
}

/// As the kernel writes it.
impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for first in self.iter() {
            if first > 0 && self.contains(first - 1) {
                continue; // inside a range
            }
            let mut last = first;
            while self.contains(last + 1) {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read_and_written() {
        for list in ["", "0", "0-3", "0-1,4,63-64,1022-1023"] {
            assert_eq!(Cpus::parse(list).to_string(), list);
        }
        let set = Cpus::parse("8,0-2\n");
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert!(set.contains(2) && !set.contains(3));
        assert_eq!(Cpus::from_words(*set.words()), set);
    }

    #[test]
    fn nonsense_and_numbers_without_room_are_passed_over() {
        for list in ["x", "-", "3-1", "1024", "4294967295", "5000-6000", "(null)"] {
            assert!(Cpus::parse(list).is_empty(), "{list}");
        }
        assert_eq!(Cpus::parse("x,1,2-").to_string(), "1");
        assert_eq!(Cpus::parse("1022-4294967295").to_string(), "1022-1023");
        assert!(!Cpus::parse("0-1023").contains(u32::MAX));
    }

    #[test]
    fn a_thread_runs_where_it_is_confined_to() {
        let before = Cpus::allowed(None).unwrap();
        let one: Cpus = before.iter().take(1).collect();
        let seen = std::thread::spawn(move || {
            one.confine(None).unwrap();
            Cpus::allowed(None).unwrap()
        });
        assert_eq!(seen.join().unwrap(), one);
        assert_eq!(Cpus::allowed(None).unwrap(), before, "other threads too");
    }
}
