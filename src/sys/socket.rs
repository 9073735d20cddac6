//! Socketpairs that carry small messages and file descriptors (`SCM_RIGHTS`).
//!
//! `SOCK_SEQPACKET`: a message arrives whole or not at all, and the death of the peer is an end of
//! file.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::error::{Error, Result};

/// Most file descriptors in one message.
pub(crate) const MAX_FDS: usize = 8;
/// Most bytes in one message.
pub(crate) const MAX_MESSAGE: usize = 1024;

/// One end of a socketpair.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// What [`Socket::receive`] found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message of so many bytes, with the descriptors that came along.
    Message(usize, Vec<OwnedFd>),
    /// Nothing now (only on a call that does not wait).
    Nothing,
    /// The other end is closed.
    Closed,
}

impl Socket {
    /// Two connected ends, both close-on-exec.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map(|(a, b)| (Self(a), Self(b)))
        .map_err(|e| Error::system("socketpair", "cannot create a control socket", e))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Another descriptor of the same end.
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends one message. With `wait` false a full socket is an error (`EAGAIN`), so that a peer
    /// that does not read cannot hold us up.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        wait: bool,
    ) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::MSGSIZE);
        }
        let mut flags = SendFlags::NOSIGNAL;
        if !wait {
            flags |= SendFlags::DONTWAIT;
        }
        retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags))?;
        Ok(())
    }

    /// Receives one message into `bytes`.
    pub(crate) fn receive(&self, bytes: &mut [u8], wait: bool) -> Result<Received, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        if !wait {
            flags |= RecvFlags::DONTWAIT;
        }
        let mut receive = || {
            retry_on_intr(|| recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut control, flags))
        };
        let answer = match receive() {
            // The peer has ended with messages of ours unread. The kernel says so once, and before
            // the last words of the peer.
            Err(Errno::CONNRESET) => receive(),
            answer => answer,
        };
        let len = match answer {
            Ok(answer) => answer.bytes,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(e) => return Err(e),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if len == 0 {
            return Ok(Received::Closed); // we never send an empty message
        }
        Ok(Received::Message(len, fds))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_bytes_and_descriptors() {
        let (a, b) = Socket::pair().unwrap();
        let (c, d) = Socket::pair().unwrap();
        a.send(b"take this", &[c.as_fd()], true).unwrap();
        let mut bytes = [0; MAX_MESSAGE];
        let Received::Message(len, mut fds) = b.receive(&mut bytes, true).unwrap() else {
            panic!("no message");
        };
        assert_eq!(&bytes[..len], b"take this");
        Socket::from_fd(fds.pop().unwrap())
            .send(b"through", &[], true)
            .unwrap();
        assert!(matches!(
            d.receive(&mut bytes, true),
            Ok(Received::Message(7, _))
        ));
        assert!(matches!(
            b.receive(&mut bytes, false),
            Ok(Received::Nothing)
        ));
        drop(a);
        assert!(matches!(b.receive(&mut bytes, true), Ok(Received::Closed)));
    }
    #[test]
    fn the_last_words_of_a_peer_that_did_not_listen_are_heard() {
        let (a, b) = Socket::pair().unwrap();
        a.send(b"last words", &[], true).unwrap();
        b.send(b"unheard", &[], true).unwrap();
        drop(a);
        let mut bytes = [0; MAX_MESSAGE];
        let heard = b.receive(&mut bytes, true);
        assert!(matches!(heard, Ok(Received::Message(10, _))), "{heard:?}");
        assert!(matches!(b.receive(&mut bytes, true), Ok(Received::Closed)));
    }
}
