//! `miniflow metrics --listen` and a client that also says what no client should.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::run::set_signal;
use super::until;

/// For an answer. The server's own patience is 2 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// `miniflow metrics` with these arguments, which make it listen somewhere.
    #[track_caller]
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_miniflow"));
        command.arg("metrics").args(args).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Whoever runs the tests in the background may have SIGINT ignored.
        set_signal(&mut command, libc::SIGINT, libc::SIG_DFL);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let said = line.strip_prefix("listening on http://");
        let address = said.and_then(|a| a.strip_suffix("/\n")?.parse().ok());
        let Some(address) = address else {
            let mut why = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut why)
                .unwrap();
            panic!("{args:?} printed {line:?} and said {why}");
        };
        Self { child, address }
    }

    /// For the engine with this name, at a free loopback port.
    #[track_caller]
    pub(crate) fn of(engine: &str) -> Self {
        Self::start(&[engine, "--listen", "127.0.0.1:0"])
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let to = (std::net::Ipv4Addr::LOCALHOST, self.address.port());
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Sends these bytes and reads what comes back.
    #[track_caller]
    pub(crate) fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).unwrap();
        Answer::read(&mut stream)
    }

    /// Sends these bytes and the end of everything; `None`: the connection was closed without a word.
    pub(crate) fn throw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // It may have heard enough before all of it is sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut text = Vec::new();
        match stream.read_to_end(&mut text) {
            Ok(0) => None,
            Ok(_) => Some(Answer::parse(&text)),
            Err(error) => panic!("{error} after {bytes:?}"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// What it writes to standard error.
    pub(crate) fn stderr(&mut self) -> BufReader<ChildStderr> {
        BufReader::new(self.child.stderr.take().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By name in lower case.
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        Self::parse(&text)
    }

    #[track_caller]
    fn parse(text: &[u8]) -> Self {
        let text = std::str::from_utf8(text).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|l| l.strip_prefix("HTTP/1.1 ")?.get(..3));
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            status: status.unwrap_or_else(|| panic!("{head}")).parse().unwrap(),
            fields: fields.collect(),
            body: body.to_owned(),
        }
    }
}
