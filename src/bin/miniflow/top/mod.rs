//! `miniflow top`: an engine at work, seen from outside.
//!
//! [`model`] is what is known of the engine, [`keys`] what the user has chosen to see, [`view`] draws
//! both without a terminal, [`screen`] is the terminal, [`watch`] the loop.
#![forbid(unsafe_code)]

mod figures;
mod keys;
mod look;
mod model;
mod picker;
#[cfg(test)]
mod sample;
mod screen;
mod table;
mod view;
mod watch;

use std::env;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use miniflow::monitor::Monitor;
use signal_hook::low_level::emulate_default_handler;

use self::keys::Ui;
use self::look::Look;
use self::model::Model;
use self::screen::Screen;
use self::view::Picture;
use self::watch::{End, watch};
use crate::engines;
use crate::error::{Error, Result};

/// Cells of a line of text where nobody says how many.
const WIDTH: u16 = 80;
/// The narrowest text that can be asked for, and the widest.
const WIDTHS: std::ops::RangeInclusive<u16> = 20..=500;

/// Watch an engine at work
///
/// Shows workers, classes, rates and times, scaling decisions and crashes of an engine that has a
/// name, from outside: the engine neither knows nor waits. Press ? for the keys. Where standard
/// output is no terminal, or one that cannot move its cursor (TERM=dumb), one picture is printed as
/// text. NO_COLOR in the environment takes the colours away.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The engine's name; not needed if there is one engine only
    name: Option<String>,

    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = interval)]
    interval: Duration,

    /// Print one picture as text, COLUMNS or 80 characters wide, and end
    #[arg(long)]
    once: bool,

    /// Show no colours
    #[arg(long)]
    no_color: bool,

    /// Show nothing but ASCII; by itself where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    match seconds {
        0.1..=3_600.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("0.1 to 3600".into()),
    }
}

/// Watches; returns what is to be printed.
pub(crate) fn run(args: &Args) -> Result<String> {
    let look = Look::from_env(args.no_color, args.ascii);
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    if args.once || dumb || !io::stdout().is_terminal() {
        return once(&engines::open(args.name.as_deref())?, look, args.interval);
    }
    // Asked before the terminal is taken: an error is a line of text.
    let monitor = match (&args.name, picker::living()?.len()) {
        (None, 2..) => None,
        _ => Some(engines::open(args.name.as_deref())?),
    };
    let mut screen = Screen::take()?;
    let end = attend(&mut screen, monitor, look, args.interval);
    drop(screen);
    if let End::Signal(signal) = end? {
        // As if it had not been caught: whoever waits for this process learns why it ended.
        emulate_default_handler(signal).map_err(Error::system("raise"))?;
    }
    Ok(String::new())
}

/// With the terminal taken: shows the engine, or lets the user choose one first.
fn attend(
    screen: &mut Screen,
    monitor: Option<Monitor>,
    look: Look,
    interval: Duration,
) -> Result<End> {
    let monitor = match monitor {
        Some(monitor) => monitor,
        None => match picker::pick(screen, look)? {
            Ok(name) => engines::open(Some(&name))?,
            Err(end) => return Ok(end),
        },
    };
    watch(screen, &monitor, look, interval)
}

/// One picture, with the rates of `interval`.
fn once(monitor: &Monitor, look: Look, interval: Duration) -> Result<String> {
    let mut model = Model::new(monitor.status(), Instant::now());
    if !model.is_gone() {
        thread::sleep(interval);
        model.update(monitor.status(), Instant::now());
    }
    let columns = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let width = columns
        .unwrap_or(WIDTH)
        .clamp(*WIDTHS.start(), *WIDTHS.end());
    let picture = Picture {
        model: &model,
        ui: &Ui::new(interval),
        look,
    };
    Ok(view::text(picture, width))
}
