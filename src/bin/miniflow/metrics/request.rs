//! What an HTTP client asks for, or why that is no request.

use std::net::{IpAddr, SocketAddr};

use super::response::Status;

/// Longest request line and header fields together.
pub(super) const LONGEST_HEAD: usize = 4096;
/// Longest target (path and query); everything here has a short one.
const LONGEST_TARGET: usize = 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// Only the head of the answer is wanted.
    pub(super) head_only: bool,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) host: Option<&'a str>,
}

/// What is known of a head of which this much has come.
pub(super) enum Progress<'a> {
    /// All of it is there: without the empty line.
    Whole(&'a [u8]),
    More,
}

/// Looks for the end of the head; refuses early what cannot become one.
pub(super) fn progress(received: &[u8]) -> Result<Progress<'_>, Status> {
    // A method comes first. Somebody who speaks TLS should not have to wait for the time-out.
    if received.first().is_some_and(|b| !b.is_ascii_alphabetic()) {
        return Err(Status::BadRequest);
    }
    let end = received.windows(4).position(|four| four == b"\r\n\r\n");
    match end {
        Some(end) => Ok(Progress::Whole(&received[..end])),
        None if received.len() < LONGEST_HEAD => Ok(Progress::More),
        None if received.windows(2).any(|two| two == b"\r\n") => {
            Err(Status::RequestHeaderFieldsTooLarge)
        }
        None => Err(Status::UriTooLong),
    }
}

impl<'a> Request<'a> {
    /// Reads a head: the request line and the header fields.
    pub(super) fn parse(head: &'a [u8]) -> Result<Self, Status> {
        let head = std::str::from_utf8(head).map_err(|_| Status::BadRequest)?;
        // A lone CR or LF, with which parsers may be led astray, or any other control character.
        let mut lines = head.split("\r\n");
        if lines
            .clone()
            .any(|line| line.contains(|c: char| c.is_control() && c != '\t'))
        {
            return Err(Status::BadRequest);
        }
        let line = lines.next().unwrap_or_default();
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Status::BadRequest);
        };
        if !is_token(method) {
            return Err(Status::BadRequest);
        }
        match version {
            "HTTP/1.1" | "HTTP/1.0" => {}
            _ if version.starts_with("HTTP/") => return Err(Status::HttpVersionNotSupported),
            _ => return Err(Status::BadRequest),
        }
        let host = host(lines, version)?;
        if target.len() > LONGEST_TARGET {
            return Err(Status::UriTooLong);
        }
        if !target.starts_with('/') {
            return Err(Status::BadRequest); // a proxy's form
        }
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err(Status::MethodNotAllowed),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self {
            head_only,
            path,
            query,
            host,
        })
    }

    /// The value of a parameter of the query. What is asked for here has no character that would be
    /// escaped.
    pub(super) fn parameter(&self, key: &str) -> Option<&'a str> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Whether the client means this server. A page of somebody else's can have its own name resolve
    /// to a loopback address (DNS rebinding), and would then be allowed by the browser to read the
    /// answers: but it cannot choose what its name is. On other addresses the server may go by any
    /// name, and everybody can read it without a browser's help.
    pub(super) fn is_for(&self, listening: SocketAddr) -> bool {
        let Some(host) = self.host else {
            return true; // a browser always says it
        };
        if !listening.ip().is_loopback() {
            return true;
        }
        // Any port: a tunnel (ssh -L) may have another one at its other end.
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        let address = bare.unwrap_or(name).parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
    }
}

/// Checks the header fields, of which only the host matters here.
fn host<'a>(
    fields: impl Iterator<Item = &'a str>,
    version: &str,
) -> Result<Option<&'a str>, Status> {
    let mut host = None;
    for field in fields {
        let (name, value) = field.split_once(':').ok_or(Status::BadRequest)?;
        if !is_token(name) {
            return Err(Status::BadRequest); // also a line that continues another
        }
        if name.eq_ignore_ascii_case("host") && host.replace(value.trim()).is_some() {
            return Err(Status::BadRequest); // which of the two?
        }
    }
    if host.is_none() && version == "HTTP/1.1" {
        return Err(Status::BadRequest);
    }
    Ok(host)
}

fn is_token(word: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !word.is_empty() && word.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request<'_>, Status> {
        Request::parse(head.as_bytes())
    }

    #[test]
    fn a_request_has_a_path_a_query_and_a_host() {
        let request =
            parse("GET /status.json?engine=a.b-c&x=1 HTTP/1.1\r\nhost: localhost:1\r\nA: b")
                .unwrap();
        assert_eq!(request.path, "/status.json");
        assert_eq!(request.parameter("engine"), Some("a.b-c"));
        assert_eq!(request.parameter("y"), None);
        assert_eq!(request.host, Some("localhost:1"));
        assert!(!request.head_only);
        assert!(parse("HEAD / HTTP/1.0").unwrap().head_only);
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_status_that_says_why() {
        use Status::*;
        for (head, status) in [
            ("", BadRequest),
            ("GET", BadRequest),
            ("GET /", BadRequest),
            ("GET  / HTTP/1.1\r\nHost: a", BadRequest),
            ("GET / HTTP/1.1 x\r\nHost: a", BadRequest),
            ("GET / FTP/1.1\r\nHost: a", BadRequest),
            ("G(T / HTTP/1.1\r\nHost: a", BadRequest),
            ("GET http://a/ HTTP/1.1\r\nHost: a", BadRequest),
            ("GET * HTTP/1.1\r\nHost: a", BadRequest),
            ("GET / HTTP/1.1", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon", BadRequest),
            ("GET / HTTP/1.1\r\nHost : a", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded: b", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\nX: b", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\rX: b", BadRequest),
            ("GET /\0 HTTP/1.1\r\nHost: a", BadRequest),
            ("GET / HTTP/2.0\r\nHost: a", HttpVersionNotSupported),
            ("POST / HTTP/1.1\r\nHost: a", MethodNotAllowed),
            ("OPTIONS / HTTP/1.1\r\nHost: a", MethodNotAllowed),
        ] {
            assert_eq!(parse(head), Err(status), "{head:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: a", "x".repeat(LONGEST_TARGET));
        assert_eq!(parse(&long), Err(UriTooLong));
        assert_eq!(Request::parse(b"GET /\xff HTTP/1.0"), Err(BadRequest));
    }

    #[test]
    fn on_a_loopback_address_only_names_of_this_machine_are_served() {
        let is_served = |listening: &str, host: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}");
            parse(&head).unwrap().is_for(listening.parse().unwrap())
        };
        let loopback = "127.0.0.1:9184";
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9184",
            "[::1]:9184",
            "[::1]",
            "127.0.0.2",
        ] {
            assert!(is_served(loopback, host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9184",
            "10.0.0.1",
            "[::2]",
            "localhost:x",
        ] {
            assert!(!is_served(loopback, host), "{host}");
        }
        assert!(is_served("0.0.0.0:9184", "build-host.example"));
    }

    #[test]
    fn a_head_ends_with_an_empty_line_and_is_not_too_long() {
        let done = |text: &[u8]| progress(text).map(|p| matches!(p, Progress::Whole(_)));
        assert_eq!(done(b""), Ok(false));
        assert_eq!(done(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(false));
        assert_eq!(done(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), Ok(true));
        assert_eq!(done(b"\x16\x03\x01"), Err(Status::BadRequest));
        assert_eq!(done(&[b'x'; LONGEST_HEAD]), Err(Status::UriTooLong));
        let fields = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(LONGEST_HEAD));
        assert_eq!(
            done(fields.as_bytes()),
            Err(Status::RequestHeaderFieldsTooLarge)
        );
    }
}
