//! The control groups (cgroup v2) whose limits this process is under.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// The group of this process, and those around it, as far as they can be seen.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    levels: Vec<Group>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Group {
    directory: PathBuf,
    /// Its path below the mount, as `/proc/self/cgroup` has it.
    name: String,
}

impl Groups {
    /// `root` is where `/proc` and `/sys` are: `/`, but for tests. None if there is no cgroup v2.
    pub(crate) fn of_this_process(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
        let Some((mount, below)) = locate(&groups, &mounts) else {
            return Self::default();
        };
        let top = root.join(mount.trim_start_matches('/'));
        let own = top.join(&below);
        let levels = own
            .ancestors()
            .take_while(|directory| directory.starts_with(&top))
            .map(|directory| {
                let below = directory.strip_prefix(&top).unwrap_or(Path::new(""));
                Group {
                    name: Path::new("/").join(below).display().to_string(),
                    directory: directory.to_owned(),
                }
            });
        Self {
            levels: levels.collect(),
        }
    }

    /// From its own up.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.levels.iter()
    }
}

impl Group {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What a file of the group says.
    pub(crate) fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.directory.join(file)).ok()
    }

    /// A file that has one number; `None` also for `max`.
    pub(crate) fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }
}

/// The number behind a word, in a file of one pair a line.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value?.trim().parse().ok()
}

/// Where the cgroup v2 hierarchy is mounted, and where in it this process is.
fn locate<'m>(groups: &str, mounts: &'m str) -> Option<(&'m str, PathBuf)> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // ... root mount-point options ... - type source options
    let (root, mount) = mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        what.starts_with("cgroup2 ").then_some(())?;
        let mut fields = place.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    })?;
    // In a container, a part of the hierarchy may be mounted; and a process that was moved out of its
    // namespace has a path that begins with `/..`.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let is_inside = below.components().all(|c| c.as_os_str() != "..");
    let below = if is_inside { below } else { Path::new("") };
    Some((mount, below.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_group_is_found_below_its_mount() {
        let found = |groups, mounts| {
            locate(groups, mounts).map(|(mount, below)| (mount, below.display().to_string()))
        };
        let at = |below: &str| Some(("/sys/fs/cgroup", below.to_owned()));
        assert_eq!(found("1:cpu:/x\n0::/a/b\n", MOUNTS), at("a/b"));
        assert_eq!(found("0::/\n", MOUNTS), at(""));
        assert_eq!(found("0::/../other\n", MOUNTS), at(""));
        assert_eq!(found("1:cpu:/x\n", MOUNTS), None);
        assert_eq!(
            found("0::/a\n", "22 1 0:21 / /proc rw - proc proc rw\n"),
            None
        );
        let part = "30 23 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(found("0::/docker/1/job\n", part), at("job"));
        assert_eq!(found("0::/elsewhere\n", part), at(""));
    }

    #[test]
    fn values_are_found_by_their_whole_word() {
        let text = "anon 1\ninactive_file 4711\ninactive_file_x 2\n";
        assert_eq!(value_of(text, "inactive_file"), Some(4711));
        assert_eq!(value_of(text, "inactive"), None);
    }
}
