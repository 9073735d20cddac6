//! What an HTTP client is told.

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    UriTooLong,
    MisdirectedRequest,
    RequestHeaderFieldsTooLarge,
    ServiceUnavailable,
    HttpVersionNotSupported,
}

impl Status {
    /// As it stands in the status line.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::UriTooLong => "414 URI Too Long",
            Self::MisdirectedRequest => "421 Misdirected Request",
            Self::RequestHeaderFieldsTooLarge => "431 Request Header Fields Too Large",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::HttpVersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// The page may load what comes from here and nothing else, be put into no frame, and send nothing away;
/// nobody else's page may use what is served here. Numbers of a second ago are not to be kept.
const FIELDS: &str = "Connection: close\r\n\
    Cache-Control: no-store\r\n\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Referrer-Policy: no-referrer\r\n\
    X-Content-Type-Options: nosniff\r\n";

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: Status,
    content_type: &'static str,
    body: Cow<'static, str>,
}

impl Response {
    pub(super) fn ok(content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: Status::Ok,
            content_type,
            body: body.into(),
        }
    }

    /// A refusal or failure, with its reason for whoever reads it.
    pub(super) fn plain(status: Status, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut body = reason.into().into_owned();
        body.push('\n');
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// As it goes over the wire; without the body for a HEAD request.
    pub(super) fn to_bytes(&self, head_only: bool) -> Vec<u8> {
        let allow = match self.status {
            Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let body = if head_only { "" } else { &self.body };
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}{FIELDS}\r\n{body}",
            self.status.line(),
            self.content_type,
            self.body.len(),
        )
        .into_bytes()
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self::plain(status, status.line())
    }
}
