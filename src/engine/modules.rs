//! Which files a process has its code from, and where in a file an address lies.
//!
//! Read by the host from the kernel's own table, never told by a worker: the host is going to open
//! these files.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::process::Process;

/// A piece of a file that is mapped to be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    start: u64,
    end: u64,
    offset: u64,
    path: PathBuf,
}

/// The executable file mappings of a process at some time, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Modules(Vec<Module>);

impl Modules {
    /// Those of this process.
    pub(crate) fn of_this_process() -> Self {
        Self::parse(&std::fs::read("/proc/self/maps").unwrap_or_default())
    }

    /// Those of another process; empty if they cannot be read.
    pub(crate) fn of_process(process: &Process) -> Self {
        let maps = std::fs::read(format!("/proc/{}/maps", process.pid_number()));
        // If it lives, it has lived all the time, and the number was its own.
        if process.wait_end(Duration::ZERO) {
            return Self::default();
        }
        Self::parse(&maps.unwrap_or_default())
    }

    fn parse(maps: &[u8]) -> Self {
        Self(maps.split(|&b| b == b'\n').filter_map(parse_line).collect())
    }

    /// The file that an address belongs to, and the address's place in it.
    pub(crate) fn find(&self, address: u64) -> Option<(&Path, u64)> {
        let after = self.0.partition_point(|module| module.end <= address);
        let module = self.0.get(after).filter(|m| m.start <= address)?;
        let place = (address - module.start).checked_add(module.offset)?;
        Some((&module.path, place))
    }
}

/// `start-end perms offset device inode   path`
fn parse_line(line: &[u8]) -> Option<Module> {
    let mut rest = line;
    let mut field = || {
        let len = rest.iter().position(|&b| b == b' ')?;
        let (field, tail) = rest.split_at(len);
        rest = &tail[1..];
        std::str::from_utf8(field).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?;
    let offset = field()?;
    let (_device, _inode) = (field()?, field()?);
    let path = rest.trim_ascii_start();
    if !permissions.contains('x') || !path.starts_with(b"/") || path.ends_with(b" (deleted)") {
        return None;
    }
    Some(Module {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        offset: u64::from_str_radix(offset, 16).ok()?,
        path: OsStr::from_bytes(path).into(),
    })
}

/// The segments of an ELF file that are loaded: where in the file, how long, at what address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Segments(Vec<[u64; 3]>);

impl Segments {
    /// Most program headers that are looked at.
    const MOST: u16 = 256;

    /// Reads them; empty for anything but a 64-bit ELF file of this machine's byte order.
    pub(crate) fn read(file: &File) -> Self {
        Self::try_read(file).unwrap_or_default()
    }

    fn try_read(file: &File) -> Option<Self> {
        const LOAD: u32 = 1;
        const CLASS_64: u8 = 2;
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        let head: [u8; 64] = read_at(file, 0)?;
        if head[..6] != [0x7f, b'E', b'L', b'F', CLASS_64, order] {
            return None;
        }
        let table = word(&head, 32)?;
        let short = |at: usize| Some(u16::from_ne_bytes(head[at..at + 2].try_into().ok()?));
        let (size, count) = (short(54)?, short(56)?);
        let mut segments = Vec::new();
        for index in 0..count.min(Self::MOST) {
            let offset = table.checked_add(u64::from(index) * u64::from(size))?;
            let header: [u8; 40] = read_at(file, offset)?;
            if u32::from_ne_bytes(header[..4].try_into().ok()?) == LOAD {
                segments.push([word(&header, 8)?, word(&header, 32)?, word(&header, 16)?]);
            }
        }
        Some(Self(segments))
    }

    /// The address at which the file itself thinks that a place in it is loaded.
    pub(crate) fn address_of(&self, place: u64) -> Option<u64> {
        let [offset, _, address] = self
            .0
            .iter()
            .find(|[offset, len, _]| place >= *offset && place - offset < *len)?;
        (place - offset).checked_add(*address)
    }
}

fn read_at<const N: usize>(file: &File, offset: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_executed_count() {
        let maps = b"\
            1000-2000 r--p 00000000 08:01 11                         /bin/a program\n\
            2000-3000 r-xp 00001000 08:01 11                         /bin/a program\n\
            3000-4000 r-xp 00000000 00:00 0\n\
            4000-5000 rwxp 00000000 00:00 0                          [heap]\n\
            5000-6000 r-xp 00000000 08:01 12                         /lib/old.so (deleted)\n\
            6000-7000 r-xp 00002000 08:01 13                         /lib/new.so\n\
            nonsense\n\
            7000-8000 r-xp zz 08:01 13 /lib/bad.so\n";
        let modules = Modules::parse(maps);
        let program = Path::new("/bin/a program");
        assert_eq!(modules.find(0x1fff), None);
        assert_eq!(modules.find(0x2000), Some((program, 0x1000)));
        assert_eq!(modules.find(0x2fff), Some((program, 0x1fff)));
        for nowhere in [0, 0x3000, 0x4000, 0x5000, 0x7000, u64::MAX] {
            assert_eq!(modules.find(nowhere), None);
        }
        let library = Path::new("/lib/new.so");
        assert_eq!(modules.find(0x6001), Some((library, 0x2001)));
    }

    #[test]
    fn the_place_of_this_very_function_is_in_this_very_program() {
        let here = read_at::<4> as fn(&File, u64) -> Option<[u8; 4]>;
        let modules = Modules::of_this_process();
        let (path, place) = modules.find(here as usize as u64).unwrap();
        assert_eq!(path, std::env::current_exe().unwrap());
        let segments = Segments::read(&File::open(path).unwrap());
        assert!(segments.address_of(place).is_some());
        assert_eq!(segments.address_of(u64::MAX), None);
        let other = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        assert_eq!(Segments::read(&other.unwrap()), Segments::default());
    }
}
