//! What the user sees meanwhile, on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle as BarStyle};

use super::args::ProgressStyle;
use super::tally::per_second;

/// How often the figures are brought up to date.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// How often a plain line is written.
const PLAIN: Duration = Duration::from_secs(1);

/// The bar, once it is known how much there is to do.
const BOUNDED: &str =
    "[{bar:30}] {human_pos}/{human_len} {percent}%  {rate}  {elapsed}<{eta}  {msg}";

/// What there is to show, without what was done before this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) ended: u64,
    pub(crate) failed: u64,
    /// As far as one can tell.
    pub(crate) total: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum Progress {
    Bar {
        bar: ProgressBar,
        /// Whether it shows how much there is to do.
        bounded: bool,
    },
    Plain {
        started: Instant,
        next: Instant,
        shown: Option<Figures>,
    },
    None,
}

impl Progress {
    /// There is no bar by itself where results are `shown`: they would write over one another.
    pub(crate) fn new(style: ProgressStyle, shown: bool) -> Self {
        match style {
            ProgressStyle::Auto if io::stderr().is_terminal() && !shown => Self::bar(),
            ProgressStyle::Auto | ProgressStyle::None => Self::None,
            ProgressStyle::Plain => {
                let started = Instant::now();
                Self::Plain {
                    started,
                    next: started + PLAIN,
                    shown: None,
                }
            }
        }
    }

    fn bar() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(
            "{spinner} {human_pos} done  {rate}  {elapsed}  {msg}",
        ));
        Self::Bar {
            bar,
            bounded: false,
        }
    }

    /// Brings the figures up to date, now and then.
    pub(crate) fn show(&mut self, figures: Figures) {
        match self {
            Self::Bar { bar, bounded } => {
                if let Some(total) = figures.total {
                    bar.set_length(total.max(figures.ended));
                    if !*bounded {
                        *bounded = true;
                        bar.set_style(style(BOUNDED));
                    }
                }
                bar.set_position(figures.ended);
                if figures.failed > 0 {
                    bar.set_message(format!("{} failed", figures.failed));
                }
            }
            Self::Plain {
                started,
                next,
                shown,
            } => {
                let now = Instant::now();
                if now >= *next && *shown != Some(figures) {
                    *next = now + PLAIN;
                    *shown = Some(figures);
                    say(&plain(figures, now - *started));
                }
            }
            Self::None => {}
        }
    }

    /// Shows the last figures, and leaves the terminal to others.
    pub(crate) fn finish(&mut self, figures: Figures) {
        if let Self::Plain { next, .. } = self {
            *next = Instant::now();
        }
        self.show(figures);
        if let Self::Bar { bar, .. } = self {
            bar.abandon(); // as it is: not every run ends complete
        }
    }

    /// Says something between two pictures.
    pub(crate) fn note(&self, text: &str) {
        match self {
            Self::Bar { bar, .. } => bar.suspend(|| say(text)),
            _ => say(text),
        }
    }
}

fn style(template: &str) -> BarStyle {
    BarStyle::with_template(template)
        .unwrap_or_else(|_| BarStyle::default_bar())
        .progress_chars("=> ")
        .tick_chars("|/-\\ ")
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let rate = state.per_sec();
            let digits = usize::from(rate < 100.0);
            let _ = write!(out, "{rate:.digits$}/s"); // a string takes everything
        })
}

fn plain(figures: Figures, elapsed: Duration) -> String {
    let Figures {
        ended,
        failed,
        total,
    } = figures;
    let rate = per_second(ended, elapsed.as_secs_f64());
    let mut text = format!("miniflow run: {ended}");
    if let Some(total) = total {
        text.push_str(&format!("/{total}"));
    }
    text.push_str(&format!(" done, {failed} failed, {rate:.0}/s"));
    if let Some(total) = total
        && rate > 0.0
    {
        let left = total.saturating_sub(ended) as f64 / rate;
        text.push_str(&format!(", about {left:.0} s left"));
    }
    text
}

/// Writes a line to standard error; if that fails there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
