//! What could not be done as the settings ask, in words, for the status.
#![forbid(unsafe_code)]

/// One text per subject; the newest holds.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    texts: Vec<(&'static str, String)>,
}

impl Notes {
    /// Says something about a subject, and logs it if that is new.
    pub(crate) fn set(&mut self, subject: &'static str, text: impl Into<String>) {
        let text = text.into();
        match self.texts.iter_mut().find(|(of, _)| *of == subject) {
            Some((_, before)) if *before == text => return,
            Some((_, before)) => before.clone_from(&text),
            None => self.texts.push((subject, text.clone())),
        }
        log::warn!("{text}");
    }

    /// There is nothing more to say about it.
    pub(crate) fn clear(&mut self, subject: &'static str) {
        self.texts.retain(|(of, _)| *of != subject);
    }

    /// All of them, in the order in which their subjects came up.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|(_, text)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Notes;

    #[test]
    fn the_newest_text_about_a_subject_holds_until_it_is_cleared() {
        let mut notes = Notes::default();
        notes.set("nice", "a");
        notes.set("memory", "b");
        notes.set("nice", "c");
        assert_eq!(notes.iter().collect::<Vec<_>>(), ["c", "b"]);
        notes.clear("nice");
        assert_eq!(notes.iter().collect::<Vec<_>>(), ["b"]);
    }
}
