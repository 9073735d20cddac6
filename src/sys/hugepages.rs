//! Transparent huge pages behind shared memory.
//!
//! Not the reserved ones of hugetlbfs: those must be set aside by the administrator, come in one size
//! for a whole file, and are counted against nobody. With transparent ones a segment stays what it is,
//! a sealed memfd of small pages, and pages become huge where and when the kernel agrees.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use crate::sys::memfd::{Segment, SharedLayout};

/// Where the kernel tells what it would do.
pub(crate) const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";
/// Since Linux 6.1; libc has it for glibc only.
const MADV_COLLAPSE: libc::c_int = 25;

/// An engine's wish for huge pages, and what the kernel says to it.
#[derive(Debug)]
pub(crate) struct HugePages {
    /// Bytes of one.
    size: u64,
    /// The last error number that was not asked for yet; 0 = none. Relaxed throughout: it guards no
    /// data.
    refusal: AtomicI32,
}

impl HugePages {
    /// What the kernel's settings allow; or why there are no huge pages to be had.
    pub(crate) fn find(settings: &Path) -> Result<Self, String> {
        let read = |file: &str| fs::read_to_string(settings.join(file)).ok();
        let size = read("hpage_pmd_size").and_then(|text| text.trim().parse().ok());
        let Some(size) = size.filter(|&size: &u64| size.is_power_of_two()) else {
            return Err("the kernel has no transparent huge pages".into());
        };
        // Since Linux 6.10 there is a setting for each size too, which may leave it to the other.
        let own = read(&format!("hugepages-{}kB/shmem_enabled", size >> 10));
        let own = own
            .as_deref()
            .and_then(chosen)
            .filter(|&word| word != "inherit");
        let general = read("shmem_enabled");
        match own.or_else(|| chosen(general.as_deref()?)) {
            Some("never" | "deny") | None => Err(format!(
                "the kernel gives none to shared memory (write `advise` to {}/shmem_enabled)",
                settings.display()
            )),
            Some(_) => Ok(Self {
                size,
                refusal: AtomicI32::new(0),
            }),
        }
    }

    /// Has the kernel prefer huge pages behind a segment. What refuses that is a kernel without them.
    pub(crate) fn advise<T: SharedLayout>(&self, segment: &Segment<T>) {
        if let Some(all) = segment.range(0, segment.len()) {
            let len = usize::try_from(segment.len()).unwrap_or(0);
            // SAFETY: the whole of one mapping, which lives as long as the segment; the advice
            // changes no content.
            let answer = unsafe { libc::madvise(all.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
            self.note(answer);
        }
    }

    /// Puts what was allocated in `range` of a segment into huge pages, as far as it fills them: with
    /// shmem_enabled at `advise`, `fallocate` makes small ones. Everything before `range` is allocated.
    pub(crate) fn gather<T: SharedLayout>(&self, segment: &Segment<T>, range: &Range<u64>) {
        let mask = self.size - 1;
        let (start, end) = (range.start & !mask, range.end & !mask);
        if let Some(first) = segment.range(start, end.saturating_sub(start))
            && start < end
        {
            let len = usize::try_from(end - start).unwrap_or(0);
            // SAFETY: inside the mapping (checked by `range`), which lives as long as the segment;
            // contents stay, and whoever reads or writes meanwhile waits for the kernel.
            self.note(unsafe { libc::madvise(first.as_ptr().cast(), len, MADV_COLLAPSE) });
        }
    }

    fn note(&self, answer: libc::c_int) {
        if answer != 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            self.refusal.store(errno, Relaxed);
        }
    }

    /// What the kernel has refused since the last call, in words.
    pub(crate) fn refusal(&self) -> Option<String> {
        let error = match self.refusal.swap(0, Relaxed) {
            0 => return None,
            libc::EINVAL => "the kernel does it by itself, slowly (before Linux 6.1)".to_owned(),
            errno => format!("madvise: {}", io::Error::from_raw_os_error(errno)),
        };
        Some(format!(
            "not all payloads and results lie in huge pages: {error}"
        ))
    }
}

/// The word in brackets.
fn chosen(setting: &str) -> Option<&str> {
    let (_, rest) = setting.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    use super::*;
    use crate::sys::memfd::{self, Access};
    use crate::sys::sync::AtomicU64;

    /// A directory of settings, removed when dropped.
    struct Settings(PathBuf);

    impl Settings {
        fn new(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicI32 = AtomicI32::new(0);
            // Relaxed: a counter that guards no data.
            let name = format!(
                "miniflow-thp-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Relaxed)
            );
            let root = std::env::temp_dir().join(name);
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{text}\n")).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Settings {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn the_kernels_settings_decide_and_a_refusal_says_what_to_write_where() {
        const SIZE: (&str, &str) = ("hpage_pmd_size", "2097152");
        const OFF: (&str, &str) = (
            "shmem_enabled",
            "always within_size advise [never] deny force",
        );
        const ADVISE: (&str, &str) = (
            "shmem_enabled",
            "always within_size [advise] never deny force",
        );
        const OWN: &str = "hugepages-2048kB/shmem_enabled";
        let find = |files: &[(&str, &str)]| HugePages::find(&Settings::new(files).0);
        let why = |files: &[(&str, &str)]| find(files).unwrap_err();
        assert!(why(&[SIZE, OFF]).contains("/shmem_enabled)"));
        assert!(
            why(&[
                SIZE,
                OFF,
                (OWN, "always [inherit] within_size advise never")
            ])
            .contains("advise")
        );
        assert!(
            why(&[
                SIZE,
                ADVISE,
                (OWN, "always inherit within_size advise [never]")
            ])
            .contains("advise")
        );
        assert!(why(&[SIZE]).contains("advise"), "before Linux 4.8");
        assert!(why(&[ADVISE]).contains("has no"));
        assert!(why(&[("hpage_pmd_size", "0"), ADVISE]).contains("has no"));
        assert_eq!(find(&[SIZE, ADVISE]).unwrap().size, 2 << 20);
        assert!(
            find(&[
                SIZE,
                OFF,
                (OWN, "always inherit [within_size] advise never")
            ])
            .is_ok()
        );
        assert!(
            find(&[
                SIZE,
                ADVISE,
                (OWN, "always [inherit] within_size advise never")
            ])
            .is_ok()
        );
    }

    #[repr(C)]
    struct Word(AtomicU64);
    // SAFETY: one atomic.
    unsafe impl SharedLayout for Word {}

    #[test]
    fn contents_stay_whatever_the_kernel_says() {
        const LEN: u64 = 8 << 20;
        let size = 2 << 20;
        let pages = HugePages {
            size,
            refusal: AtomicI32::new(0),
        };
        let fd = memfd::create("test", LEN).unwrap();
        memfd::commit(fd.as_fd(), 0, LEN).unwrap();
        let segment = Segment::<Word>::map(fd, LEN, Access::Write).unwrap();
        segment.layout().0.store(7, Relaxed);
        pages.advise(&segment);
        for range in [0..size - 1, 0..size, size..LEN, 5..6, LEN..LEN] {
            pages.gather(&segment, &range);
        }
        assert_eq!(segment.layout().0.load(Relaxed), 7);
        let refused = pages.refusal();
        if HugePages::find(Path::new(SETTINGS)).is_ok() {
            assert_eq!(refused, None);
        }
        assert_eq!(pages.refusal(), None, "told once");
    }

    /// A file of a file system that gives huge pages to who asks, whatever the setting for memfds is:
    /// one of this thread's own. `None` if this process may not mount, or the kernel has no huge pages.
    fn file_of_huge_pages(len: u64) -> Option<std::os::fd::OwnedFd> {
        use std::ffi::CString;
        use std::os::unix::fs::OpenOptionsExt;
        use std::ptr::null;
        // SAFETY: takes a number only; this thread ends with the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return None;
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: a path; the others may be missing for a change of propagation.
        unsafe { libc::mount(null(), c"/".as_ptr(), null(), private, null()) };
        let place = Settings::new(&[("mount/x", "")]);
        let target = CString::new(place.0.join("mount").to_str().unwrap()).unwrap();
        let (kind, options) = (c"tmpfs".as_ptr(), c"huge=advise,size=64m".as_ptr());
        // SAFETY: C strings that outlive the call.
        if unsafe { libc::mount(kind, target.as_ptr(), kind, 0, options.cast()) } != 0 {
            return None;
        }
        let mut open = fs::OpenOptions::new();
        open.read(true).write(true).custom_flags(libc::O_TMPFILE);
        let file = open.open(place.0.join("mount")).unwrap();
        file.set_len(len).unwrap();
        // SAFETY: a C string; the open file keeps the file system until it is closed.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        Some(file.into())
    }

    /// KiB of a mapping of this process that lie in huge pages.
    fn mapped_hugely(start: usize) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines =
            (smaps.lines()).skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        let line = lines.find_map(|line| line.strip_prefix("ShmemPmdMapped:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    #[test]
    fn what_was_allocated_in_small_pages_comes_into_huge_ones() {
        const LEN: u64 = 16 << 20;
        let test = || {
            let Ok(size) = fs::read_to_string(Path::new(SETTINGS).join("hpage_pmd_size")) else {
                return println!("SKIP: no transparent huge pages");
            };
            let pages = HugePages {
                size: size.trim().parse().unwrap(),
                refusal: AtomicI32::new(0),
            };
            if pages.size > LEN / 4 {
                return println!("SKIP: huge pages of {} bytes", pages.size);
            }
            let Some(fd) = file_of_huge_pages(LEN) else {
                return println!("SKIP: a tmpfs with huge pages cannot be mounted here");
            };
            let reader = fd.try_clone().unwrap();
            let writer = Segment::<Word>::map(fd, LEN, Access::Write).unwrap();
            let reader = Segment::<Word>::map(reader, LEN, Access::Read).unwrap();
            pages.advise(&reader);
            // Not quite two pages, then the rest: as an arena grows.
            let first = 2 * pages.size - 4096;
            memfd::commit(writer.fd(), 0, LEN).unwrap();
            writer.layout().0.store(7, Relaxed);
            let start = reader.range(0, LEN).unwrap().as_ptr() as usize;
            pages.gather(&reader, &(0..first));
            assert_eq!(pages.refusal(), None);
            assert_eq!(mapped_hugely(start), pages.size >> 10);
            pages.gather(&reader, &(first..LEN));
            assert_eq!(mapped_hugely(start), LEN >> 10);
            assert_eq!(reader.layout().0.load(Relaxed), 7);
        };
        // On a thread of its own, whose mounts nobody else sees.
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn what_does_not_fill_a_huge_page_is_left_alone() {
        let pages = HugePages {
            size: 1 << 30,
            refusal: AtomicI32::new(0),
        };
        let fd = memfd::create("test", 4 << 20).unwrap();
        let segment = Segment::<Word>::map(fd, 4 << 20, Access::Write).unwrap();
        pages.gather(&segment, &(0..4 << 20));
        assert_eq!(pages.refusal(), None);
        pages.refusal.store(libc::ENOMEM, Relaxed);
        let text = pages.refusal().unwrap();
        assert!(
            text.contains("huge pages") && text.contains("memory"),
            "{text}"
        );
    }
}
