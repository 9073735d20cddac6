//! From which NUMA node memory comes: a preference, never a condition, so that a full node costs
//! speed and not a task.

use std::io;

use rustix::io::Errno;

/// A set of nodes as the kernel takes it.
#[derive(Debug)]
struct Nodes([u64; 16]);

impl Nodes {
    /// The kernel counts one less than it is told.
    const BITS: libc::c_ulong = 1024 + 1;

    /// `EINVAL` for a number that is beyond every kernel's.
    fn one(node: u32) -> Result<Self, Errno> {
        let mut words = [0; 16];
        *words.get_mut(node as usize / 64).ok_or(Errno::INVAL)? = 1 << (node % 64);
        Ok(Self(words))
    }
}

/// Has this thread, and those that it starts, prefer the memory of a node.
pub(crate) fn prefer(node: u32) -> Result<(), Errno> {
    let nodes = Nodes::one(node)?;
    let mode = libc::MPOL_PREFERRED;
    // SAFETY: the call reads as many bits as are told, of a set that outlives it.
    let answer =
        unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.0.as_ptr(), Nodes::BITS) };
    checked(answer)
}

/// Has the memory behind a shared mapping, as far as it is not there yet, come from a node, whoever
/// needs it.
pub(crate) fn prefer_for(map: *const u8, len: u64, node: u32) -> Result<(), Errno> {
    const FLAGS: libc::c_uint = 0; // what is there stays where it is
    let nodes = Nodes::one(node)?;
    let mode = libc::MPOL_PREFERRED;
    // SAFETY: as above; nothing is read or written through `map`, and what was never mapped is an
    // error of the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            map,
            len,
            mode,
            nodes.0.as_ptr(),
            Nodes::BITS,
            FLAGS,
        )
    };
    checked(answer)
}

/// The outcome of a raw system call that answers nothing but that.
pub(super) fn checked(answer: libc::c_long) -> Result<(), Errno> {
    match answer {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_there_is_not_is_refused() {
        for node in [1023, 1024, u32::MAX] {
            // On its own thread: a policy that is accepted stays.
            let refused = std::thread::spawn(move || prefer(node)).join().unwrap();
            assert!(refused.is_err(), "{node}");
        }
    }
}
