//! `miniflow metrics`: what engines do, for Prometheus and for a browser.
//!
//! [`server`] hears requests ([`request`]) and sends answers ([`response`]), [`routes`] makes them from
//! what [`engines`] finds.

mod engines;
mod request;
mod response;
mod routes;
mod server;

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use miniflow::status::prometheus;

use self::engines::Engines;
use crate::error::{Error, Result};
use crate::run::signals::Signals;

/// Print the metrics of an engine for Prometheus, or serve them over HTTP with a live page
///
/// Without a name: of all engines of this user. With --listen, until interrupted:
///   /             a live page for a browser
///   /metrics      the metrics; 503 while the engine does not live
///   /status.json  everything that is known, as JSON (?engine=NAME if there are several)
///   /engines.json the names of the engines
///   /healthz      whether this server lives
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The engine's name
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Serve at this address, or port of the loopback address; port 0: any that is free. There is no
    /// authentication: on other addresses than loopback ones everybody who reaches it can read
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "9184",
        value_parser = parse_address
    )]
    listen: Option<Address>,
}

/// An address to listen at, as it was given and as it resolved.
#[derive(Debug, Clone)]
struct Address {
    given: String,
    resolved: Vec<SocketAddr>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

fn parse_address(text: &str) -> Result<Address, String> {
    let resolved = match text.parse::<u16>() {
        Ok(port) => vec![SocketAddr::from(([127, 0, 0, 1], port))],
        Err(_) => {
            let help = "expected an address and a port, such as 127.0.0.1:9184, or a port alone; \
                        an engine's name goes before --listen";
            let resolved = text.to_socket_addrs();
            resolved
                .map_err(|error| format!("{error}: {help}"))?
                .collect()
        }
    };
    Ok(Address {
        given: text.to_owned(),
        resolved,
    })
}

/// Returns what is to be printed.
pub(crate) fn run(args: &Args) -> Result<String> {
    let engines = Engines::new(args.name.clone());
    match &args.listen {
        Some(address) => listen(address, engines).map(|()| String::new()),
        None => {
            let statuses = engines.statuses().map_err(Error::Unfit)?;
            if statuses.is_empty() {
                return Err(Error::Unfit("no engine of this user lives".into()));
            }
            Ok(prometheus(statuses))
        }
    }
}

/// Serves until a signal comes.
fn listen(address: &Address, engines: Engines) -> Result<()> {
    let signals = Signals::block()?; // before there are threads
    let listener = TcpListener::bind(&*address.resolved)
        .map_err(|error| Error::Unfit(format!("cannot listen at {address}: {error}")))?;
    let bound = listener
        .local_addr()
        .map_err(Error::system("getsockname"))?;
    announce(bound, &engines)?;
    let answer: Arc<server::Answer> =
        Arc::new(move |request: &request::Request<'_>| routes::answer(request, &engines));
    thread::Builder::new()
        .name("mf-listen".into())
        .spawn(move || server::serve(&listener, bound, &answer))
        .map_err(Error::system("pthread_create"))?;
    signals.wait();
    Ok(())
}

/// Says where, and what may surprise.
fn announce(bound: SocketAddr, engines: &Engines) -> Result<()> {
    let mut stderr = io::stderr();
    if !bound.ip().is_loopback() {
        // Nobody may be reading; that is no reason not to serve.
        let _ = writeln!(
            stderr,
            "miniflow metrics: warning: {bound} is no loopback address, and there is no \
             authentication: whoever reaches it can read what the engines do"
        );
    }
    if let Some(name) = engines.name()
        && let Err(reason) = engines.status(name)
    {
        let _ = writeln!(
            stderr,
            "miniflow metrics: {reason}; answering 503 until engine {name} is there"
        );
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{bound}/")
        .and_then(|()| stdout.flush())
        .or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()), // the address was asked for, so it is known
            _ => Err(error),
        })
        .map_err(Error::system("write"))
}
