//! What is served, by path.

use miniflow::status::{PROMETHEUS_CONTENT_TYPE, prometheus};

use super::engines::Engines;
use super::request::Request;
use super::response::{Response, Status};

const JSON: &str = "application/json";

pub(super) fn answer(request: &Request<'_>, engines: &Engines) -> Response {
    match request.path {
        "/" => Response::ok("text/html; charset=utf-8", include_str!("page/index.html")),
        "/app.js" => Response::ok(
            "text/javascript; charset=utf-8",
            include_str!("page/app.js"),
        ),
        "/app.css" => Response::ok("text/css; charset=utf-8", include_str!("page/app.css")),
        "/icon.svg" => Response::ok("image/svg+xml", include_str!("page/icon.svg")),
        "/metrics" => metrics(engines),
        "/status.json" => status(request, engines),
        "/engines.json" => names(engines),
        "/healthz" => Response::ok("text/plain; charset=utf-8", "ok\n"),
        _ => Status::NotFound.into(),
    }
}

fn metrics(engines: &Engines) -> Response {
    match engines.statuses() {
        Ok(statuses) => Response::ok(PROMETHEUS_CONTENT_TYPE, prometheus(statuses)),
        Err(reason) => Response::plain(Status::ServiceUnavailable, reason),
    }
}

/// The status of the engine that the query names, or of the only one that there is.
fn status(request: &Request<'_>, engines: &Engines) -> Response {
    let named = request.parameter("engine").or(engines.name());
    let name = match named {
        Some(name) => name.to_owned(),
        None => match engines.living() {
            Ok(mut names) if names.len() == 1 => names.remove(0),
            Ok(names) if names.is_empty() => {
                return Response::plain(Status::ServiceUnavailable, "no engine of this user lives");
            }
            Ok(_) => {
                let reason = "there are several engines: say which, as in /status.json?engine=NAME";
                return Response::plain(Status::BadRequest, reason);
            }
            Err(error) => return Response::plain(Status::ServiceUnavailable, error.to_string()),
        },
    };
    match engines.status(&name) {
        Ok(status) => Response::ok(JSON, status.to_json()),
        Err(reason) => Response::plain(Status::ServiceUnavailable, reason),
    }
}

fn names(engines: &Engines) -> Response {
    match engines.living() {
        Ok(names) => Response::ok(JSON, serde_json::Value::from(names).to_string()),
        Err(error) => Response::plain(Status::ServiceUnavailable, error.to_string()),
    }
}
