//! The Python package that workers run, as a zip archive that the interpreter imports from.
//!
//! The files are part of this executable, so that it works wherever it is called from, with nothing
//! installed. An archive of stored (not compressed) files needs no library to be written.

macro_rules! package {
    ($($path:literal),* $(,)?) => {
        &[$((
            $path,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/python/src/", $path)),
        )),*]
    };
}

/// Every file of the package but its benchmarks, by the path that it is imported from.
const FILES: &[(&str, &[u8])] = package![
    "miniflow/__init__.py",
    "miniflow/_abi.py",
    "miniflow/_admission.py",
    "miniflow/_aio.py",
    "miniflow/_bulk.py",
    "miniflow/_calls.py",
    "miniflow/_core.py",
    "miniflow/_flows.py",
    "miniflow/_future.py",
    "miniflow/_library.py",
    "miniflow/_log.py",
    "miniflow/_outcome.py",
    "miniflow/_placement.py",
    "miniflow/_policy.py",
    "miniflow/_record.py",
    "miniflow/_settings.py",
    "miniflow/_watcher.py",
    "miniflow/_wire.py",
    "miniflow/_worker/__init__.py",
    "miniflow/_worker/context.py",
    "miniflow/_worker/errors.py",
    "miniflow/_worker/failure.py",
    "miniflow/_worker/output.py",
    "miniflow/_worker/packages.py",
    "miniflow/_worker/pool.py",
    "miniflow/_worker/portable.py",
    "miniflow/_worker/scripts.py",
    "miniflow/_worker/source.py",
    "miniflow/_worker/tasks.py",
    "miniflow/_worker/zygote.py",
    "miniflow/config.py",
    "miniflow/engine.py",
    "miniflow/errors.py",
    "miniflow/executor.py",
    "miniflow/manager.py",
    "miniflow/parallelism_engine/__init__.py",
    "miniflow/parallelism_engine/engine.py",
    "miniflow/parallelism_engine/manager.py",
    "miniflow/parallelism_engine/queue_module.py",
    "miniflow/process_pool.py",
    "miniflow/progress.py",
    "miniflow/queues.py",
    "miniflow/scaling.py",
    "miniflow/status.py",
    "miniflow/tasks.py",
    "miniflow/workflow.py",
];

/// What zip calls 1980-01-01: the files have no other date.
const NO_DATE: u16 = 1 << 5 | 1;
/// Version 2.0 of the format: stored files, directories.
const VERSION: u16 = 20;

/// The archive of the package.
pub(super) fn package() -> Vec<u8> {
    stored(FILES)
}

/// An archive of files, stored. Their names are ASCII.
fn stored(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in files {
        let offset = number(archive.len());
        let entry = entry(name, content);
        archive.extend_from_slice(&0x0403_4b50_u32.to_le_bytes());
        archive.extend_from_slice(&entry);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(content);

        directory.extend_from_slice(&0x0201_4b50_u32.to_le_bytes());
        directory.extend_from_slice(&VERSION.to_le_bytes()); // made by
        directory.extend_from_slice(&entry);
        directory.extend_from_slice(&[0; 10]); // no comment, first disk, no attributes
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (start, size) = (number(archive.len()), number(directory.len()));
    let count = short(files.len());
    archive.append(&mut directory);
    archive.extend_from_slice(&0x0605_4b50_u32.to_le_bytes());
    archive.extend_from_slice(&[0; 4]); // one disk
    archive.extend_from_slice(&count.to_le_bytes());
    archive.extend_from_slice(&count.to_le_bytes());
    archive.extend_from_slice(&size.to_le_bytes());
    archive.extend_from_slice(&start.to_le_bytes());
    archive.extend_from_slice(&[0; 2]); // no comment
    archive
}

/// What the two headers of a file have in common.
fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let size = number(content.len()).to_le_bytes();
    [
        &VERSION.to_le_bytes()[..], // needed
        &[0; 2],                    // no flags
        &[0; 2],                    // stored
        &[0; 2],                    // midnight
        &NO_DATE.to_le_bytes(),
        &crc32(content).to_le_bytes(),
        &size, // stored
        &size, // as it is
        &short(name.len()).to_le_bytes(),
        &[0; 2], // nothing extra
    ]
    .concat()
}

/// A length or offset of the package, which is far below 4 GiB.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn short(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// The checksum of zip (reflected, polynomial 0x04c11db7).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_u32;
        while byte < 256 {
            let mut remainder = byte;
            let mut bit = 0;
            while bit < 8 {
                remainder = (remainder >> 1) ^ (0xedb8_8320 * (remainder & 1));
                bit += 1;
            }
            table[byte as usize] = remainder;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn every_module_of_the_package_is_in_the_list() {
        fn walk(root: &Path, directory: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                if path.is_dir() && name != "miniflow/bench" {
                    walk(root, &path, found);
                } else if path.extension().is_some_and(|e| e == "py") {
                    found.insert(name.to_owned());
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/src");
        let mut found = BTreeSet::new();
        walk(&root, &root.join("miniflow"), &mut found);
        let listed = FILES.iter().map(|&(name, _)| name.to_owned()).collect();
        assert_eq!(found, listed, "left: there; right: in the list FILES");
    }

    #[test]
    fn python_finds_nothing_wrong_with_the_archive() {
        let check = "import io, sys, zipfile\n\
            archive = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))\n\
            assert archive.testzip() is None\n\
            print(len(archive.namelist()), archive.read('miniflow/__init__.py').count(b'import'))";
        let mut python = Command::new("python3")
            .args(["-c", check])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(&package()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        let init = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/python/src/miniflow/__init__.py"
        ));
        let expected = format!("{} {}\n", FILES.len(), init.matches("import").count());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}
