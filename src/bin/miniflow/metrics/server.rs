//! A small HTTP server: one request a connection, everything bounded.
//!
//! Each connection has a thread, for at most [`PATIENCE`] to hear the request and as long to have the
//! answer taken, so that slow clients hold up nobody; there are at most [`MOST`] of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::request::{LONGEST_HEAD, Progress, Request, progress};
use super::response::{Response, Status};

/// Connections at a time.
const MOST: usize = 64;
/// For the request to come, and for the answer to go.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a client may send beyond its request without losing the answer.
const REST: u64 = 64 << 10;
/// They need little: a status is on the heap.
const STACK: usize = 256 << 10;

/// Answers a request for what this server is for.
pub(super) type Answer = dyn Fn(&Request<'_>) -> Response + Send + Sync;

/// Serves for ever.
pub(super) fn serve(listener: &TcpListener, address: SocketAddr, answer: &Arc<Answer>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // A client that has left again, or no descriptor to be had, which may take a while.
                if error.kind() != ErrorKind::ConnectionAborted {
                    thread::sleep(Duration::from_millis(50));
                }
                continue;
            }
        };
        let slot = Slot::take(&open);
        if open.load(Relaxed) > MOST {
            turn_away(stream);
            continue;
        }
        let answer = Arc::clone(answer);
        // Without a thread the connection is closed: there is nothing left to say it with.
        let _ = thread::Builder::new()
            .name("mf-http".into())
            .stack_size(STACK)
            .spawn(move || {
                let _slot = slot;
                // A client that is gone or does not listen has only itself to blame.
                let _ = converse(stream, address, &*answer);
            });
    }
}

/// One of the connections. A count that guards no data: every access is Relaxed.
#[derive(Debug)]
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Says that there are too many, without waiting for anything.
fn turn_away(mut stream: TcpStream) {
    let answer = Response::plain(Status::ServiceUnavailable, "too many connections");
    if stream.set_nonblocking(true).is_ok() {
        let _ = stream.write(&answer.to_bytes(false)); // a new connection has room for it
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; LONGEST_HEAD]); // what is unread makes the kernel reset it
    }
}

fn converse(mut stream: TcpStream, address: SocketAddr, answer: &Answer) -> std::io::Result<()> {
    let mut head = [0; LONGEST_HEAD];
    let mut head_only = false;
    let response = match read_head(&mut stream, &mut head)? {
        None => return Ok(()), // a connection and nothing more, as probes make
        Some(Err(status)) => status.into(),
        Some(Ok(head)) => match Request::parse(head) {
            Err(status) => status.into(),
            Ok(request) => {
                head_only = request.head_only;
                if request.is_for(address) {
                    answer(&request)
                } else {
                    Status::MisdirectedRequest.into()
                }
            }
        },
    };
    write(&mut stream, &response.to_bytes(head_only))?;
    stream.shutdown(Shutdown::Write)?;
    // Closing with something unread would reset the connection, and the answer could be lost with it.
    drain(&mut stream)
}

/// The head of a request, or the status that refuses it; `None` if the client says nothing at all.
fn read_head<'a>(
    stream: &mut TcpStream,
    head: &'a mut [u8; LONGEST_HEAD],
) -> std::io::Result<Option<Result<&'a [u8], Status>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut len = 0;
    let end = loop {
        let count = match read(stream, &mut head[len..], deadline) {
            Ok(0) if len == 0 => return Ok(None),
            Ok(0) => return Ok(Some(Err(Status::BadRequest))),
            Ok(count) => count,
            Err(error) if is_late(&error) => return Ok(Some(Err(Status::RequestTimeout))),
            Err(error) => return Err(error),
        };
        len += count;
        match progress(&head[..len]) {
            Ok(Progress::More) => {}
            Ok(Progress::Whole(head)) => break head.len(),
            Err(status) => return Ok(Some(Err(status))),
        }
    };
    Ok(Some(Ok(&head[..end])))
}

fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; LONGEST_HEAD];
    let mut rest = REST;
    while rest > 0 {
        match read(stream, &mut buffer, deadline)? {
            0 => break,
            count => rest = rest.saturating_sub(count as u64),
        }
    }
    Ok(())
}

fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> std::io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time until then, which is not over yet.
fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // Below a microsecond it would be rounded to 0, which means no time-out.
    if left < Duration::from_millis(1) {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
