//! The files in which the kernel tells about itself, below a directory that tests can make up.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of a file system. What is missing or unreadable is `None`: kernels, containers and their
/// rules differ, and nothing here is worth failing for.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `path` is absolute, as it is written everywhere.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A whole file.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file of one line, without white space around it.
    pub(super) fn line(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.trim().to_owned())
    }

    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// The value of `key` in a file of lines such as `key: value` or `key value`.
    pub(super) fn field(&self, path: &str, key: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().find_map(|line| {
            let rest = line.strip_prefix(key)?;
            let value = rest.trim_start().strip_prefix(':');
            match value {
                Some(value) => Some(value.trim().to_owned()),
                None => rest.strip_prefix(' ').map(|value| value.trim().to_owned()),
            }
        })
    }

    /// A field of `/proc/meminfo`, in bytes.
    pub(super) fn memory(&self, key: &str) -> Option<u64> {
        let value = self.field("/proc/meminfo", key)?;
        let kib = value.strip_suffix("kB")?.trim();
        kib.parse::<u64>().ok()?.checked_mul(1024)
    }

    /// The names in a directory, in order; none if there is no such directory.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }
}

impl AsRef<Path> for Root {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// Trees that tests make up.
#[cfg(test)]
pub(super) mod fake {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    /// A directory of the test's own, removed when dropped.
    #[derive(Debug)]
    pub(crate) struct Tree(pub(crate) Root);

    impl Tree {
        /// A tree with these files.
        pub(crate) fn of(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Relaxed); // Relaxed: a number is all that it is
            let name = format!("miniflow-doctor-{}-{number}", std::process::id());
            let tree = Self(Root::new(std::env::temp_dir().join(name)));
            fs::create_dir_all(&tree.0).unwrap();
            for (path, text) in files {
                let path = tree.0.path(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }
    }

    impl std::ops::Deref for Tree {
        type Target = Root;

        fn deref(&self) -> &Root {
            &self.0
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Tree;

    #[test]
    fn fields_are_found_with_and_without_a_colon() {
        let tree = Tree::of(&[
            (
                "/proc/meminfo",
                "MemTotal:  2048 kB\nMemTotalX: 9 kB\nHugePages_Total:  7\n",
            ),
            ("/stat", "usage_usec 12\nuser_usec 3\n"),
        ]);
        assert_eq!(tree.memory("MemTotal"), Some(2 << 20));
        assert_eq!(tree.memory("HugePages_Total"), None);
        assert_eq!(tree.field("/proc/meminfo", "HugePages_Total").unwrap(), "7");
        assert_eq!(tree.field("/stat", "user_usec").unwrap(), "3");
        assert_eq!(tree.field("/stat", "us"), None);
    }

    #[test]
    fn what_is_missing_is_none() {
        let tree = Tree::of(&[("/number", "x\n")]);
        assert_eq!(tree.text("/nothing"), None);
        assert_eq!(tree.number("/number"), None);
        assert_eq!(tree.names("/nothing"), [""; 0]);
        assert!(!tree.exists("/nothing"));
    }
}
