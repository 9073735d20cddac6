//! The terminal: taken over, drawn on, and given back whatever happens.

use std::io::{self, BufWriter, Stdout, Write};
use std::panic;
use std::sync::Once;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::layout::{Position, Rect};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::error::{Error, Result};

/// What the user or the system asks for.
#[derive(Debug)]
pub(crate) enum Input {
    Key(KeyEvent),
    /// The size has changed, or somebody else has written on the screen.
    Redraw,
    /// A signal that ends programs.
    End(i32),
}

/// What the two threads that wait for the user and for signals have to say.
#[derive(Debug)]
enum Notice {
    Event(Event),
    Signal(i32),
    /// There is nothing more to be read from the terminal.
    Deaf(io::Error),
}

/// The terminal, while it is ours.
#[derive(Debug)]
pub(crate) struct Screen {
    /// A whole picture is one write.
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    notices: Receiver<Notice>,
}

impl Screen {
    /// Takes the terminal over until this is dropped, or until a panic.
    pub(crate) fn take() -> Result<Self> {
        give_back_on_panic();
        log::set_max_level(log::LevelFilter::Off); // it would write across the picture
        // Before the first change that a signal would have to undo.
        let notices = listen()?;
        take_over().map_err(Error::system("setting the terminal up"))?;
        let writer = BufWriter::with_capacity(1 << 16, io::stdout());
        match Terminal::new(CrosstermBackend::new(writer)) {
            Ok(terminal) => Ok(Self { terminal, notices }),
            Err(error) => {
                give_back();
                Err(Error::system("asking for the terminal's size")(error))
            }
        }
    }

    pub(crate) fn draw(&mut self, picture: impl FnOnce(Rect, &mut Buffer)) -> Result<()> {
        let drawn = (self.terminal).draw(|frame| picture(frame.area(), frame.buffer_mut()));
        drawn.map_err(Error::system("writing to the terminal"))?;
        Ok(())
    }

    /// Waits for an input; `None` if there is none within `patience`, which may be for ever.
    pub(crate) fn input(&mut self, patience: Option<Duration>) -> Result<Option<Input>> {
        let notice = match patience {
            Some(patience) => self.notices.recv_timeout(patience),
            None => (self.notices.recv()).map_err(|_| RecvTimeoutError::Disconnected),
        };
        match notice {
            Ok(Notice::Event(Event::Key(key))) => Ok(Some(Input::Key(key))),
            Ok(Notice::Event(_)) => Ok(Some(Input::Redraw)),
            Ok(Notice::Signal(SIGTSTP)) => {
                self.suspend()?;
                Ok(Some(Input::Redraw))
            }
            Ok(Notice::Signal(SIGCONT)) => {
                self.resume()?;
                Ok(Some(Input::Redraw))
            }
            Ok(Notice::Signal(signal)) => Ok(Some(Input::End(signal))),
            Ok(Notice::Deaf(error)) => Err(Error::system("reading from the terminal")(error)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::Unfit("nothing more comes from the terminal".into()))
            }
        }
    }

    /// Stops this process, as a shell's job is stopped, with the terminal as it was before.
    pub(crate) fn suspend(&mut self) -> Result<()> {
        give_back();
        emulate_default_handler(SIGTSTP).map_err(Error::system("raise(SIGSTOP)"))?;
        self.resume()
    }

    fn resume(&mut self) -> Result<()> {
        take_over().map_err(Error::system("setting the terminal up"))?;
        // Forgets what it believes to be on the screen. `clear` would ask the terminal where its
        // cursor is, while another thread reads the answers.
        (self.terminal.size())
            .and_then(|size| self.terminal.resize(Rect::from((Position::ORIGIN, size))))
            .map_err(Error::system("writing to the terminal"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Starts the threads that wait for the user and for signals. They end with the process.
fn listen() -> Result<Receiver<Notice>> {
    let (sender, notices) = mpsc::channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGCONT])
        .map_err(Error::system("sigaction"))?;
    let to = sender.clone();
    spawn("mf-signals", move || {
        for signal in &mut signals {
            if to.send(Notice::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    spawn("mf-keys", move || {
        loop {
            let (notice, last) = match event::read() {
                Ok(event) => (Notice::Event(event), false),
                Err(error) => (Notice::Deaf(error), true),
            };
            if sender.send(notice).is_err() || last {
                return;
            }
        }
    })?;
    Ok(notices)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(Error::system("pthread_create"))
}

fn take_over() -> io::Result<()> {
    terminal::enable_raw_mode()?;
    let shown = execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide);
    if shown.is_err() {
        give_back();
    }
    shown
}

/// As it was. There is nobody to tell if that fails.
fn give_back() {
    let _ = terminal::disable_raw_mode();
    let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
    let _ = io::stdout().flush();
}

/// A panic's message would be lost on the alternate screen.
fn give_back_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            next(info);
        }));
    });
}
