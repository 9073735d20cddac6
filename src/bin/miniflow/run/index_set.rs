//! Which tasks are done, at about a bit each.

use std::collections::BTreeMap;

/// Indices of a page.
const PAGE: u64 = 1 << 15;
const WORDS: usize = (PAGE / 64) as usize;

/// A set of task indices. Pages that are full take no memory of their own.
#[derive(Debug, Default)]
pub(crate) struct IndexSet {
    pages: BTreeMap<u64, Page>,
    last: Option<u64>,
}

#[derive(Debug)]
enum Page {
    Full,
    Partial { bits: Box<[u64; WORDS]>, len: u64 },
}

impl IndexSet {
    pub(crate) fn insert(&mut self, index: u64) {
        let page = self
            .pages
            .entry(index / PAGE)
            .or_insert_with(|| Page::Partial {
                bits: Box::new([0; WORDS]),
                len: 0,
            });
        let Page::Partial { bits, len } = page else {
            return;
        };
        let (word, bit) = place(index);
        if bits[word] & bit != 0 {
            return;
        }
        bits[word] |= bit;
        *len += 1;
        if *len == PAGE {
            *page = Page::Full;
        }
        self.last = self.last.max(Some(index));
    }

    pub(crate) fn contains(&self, index: u64) -> bool {
        match self.pages.get(&(index / PAGE)) {
            None => false,
            Some(Page::Full) => true,
            Some(Page::Partial { bits, .. }) => {
                let (word, bit) = place(index);
                bits[word] & bit != 0
            }
        }
    }

    /// The greatest.
    pub(crate) fn last(&self) -> Option<u64> {
        self.last
    }
}

/// Word and bit of an index in its page.
fn place(index: u64) -> (usize, u64) {
    let word = usize::try_from(index % PAGE / 64).unwrap_or(0); // below WORDS
    (word, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_contained_and_nothing_else() {
        let mut set = IndexSet::default();
        assert!(!set.contains(0));
        assert_eq!(set.last(), None);
        let indices = [0, 63, 64, PAGE - 1, PAGE, 5 * PAGE + 7, u64::MAX];
        for index in indices {
            set.insert(index);
            set.insert(index);
        }
        assert_eq!(set.last(), Some(u64::MAX));
        for index in indices {
            assert!(set.contains(index));
            let neighbour = index ^ 2;
            assert!(!set.contains(neighbour), "{neighbour}");
        }
    }

    #[test]
    fn a_full_page_is_given_back() {
        let mut set = IndexSet::default();
        for index in 0..PAGE {
            assert!(!set.contains(index));
            set.insert(index);
            assert!(set.contains(index));
        }
        set.insert(3);
        assert!(matches!(set.pages[&0], Page::Full));
        assert!(!set.contains(PAGE));
    }
}
