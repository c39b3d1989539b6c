//! The live view: waits for keys, reports and signals, and draws.

use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use libc::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use napa_api::host::HostReport;
use napa_host::client::Client;
use napa_sys::signal::{SignalFd, stop_until_continued};
use ratatui::crossterm::event::{self, Event, KeyEvent};
use rustix::event::{PollFd, PollFlags, poll};

use super::keys;
use super::model::{Effect, Link, Model};
use super::source;
use super::terminal::{Screen, is_foreground};
use super::view::{self, Palette};
use crate::error::Error;
use crate::output::Style;

/// The daemon looks at its host every second; one that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Time between two pictures when nothing happens: they say how long nothing has.
const PICTURE_PERIOD_MAX: Duration = Duration::from_secs(1);
/// Time until a daemon that is not there is looked for again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// What the view waits for.
enum Message {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The terminal gives no keys any more.
    Hung,
    Answer(Box<Result<HostReport, String>>),
    Signal(i32),
}

/// Shows reports until somebody ends it. `first` is the one to begin with.
pub fn live(client: Client, first: HostReport) -> Result<ExitCode, Error> {
    let signals = SignalFd::new(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])
        .map_err(|error| Error::failure(format!("cannot wait for signals: {error}")))?;
    let refused = |error: io::Error| Error::failure(format!("the terminal cannot be used: {error}"));
    let (sender, messages) = channel();
    let screen = Screen::take().map_err(refused)?;
    spawn(sender.clone(), move |sender| send_signals(&signals, sender));
    spawn(sender.clone(), send_keys);
    spawn(sender, move |sender| send_answers(&client, sender));
    let palette = Palette { has_colours: Style::for_output().has_colours() };
    let mut live = Live { model: Model::new(first), screen, palette, start: Instant::now() };
    live.run(&messages).map_err(refused)?;
    Ok(ExitCode::SUCCESS)
}

/// The view, and what it is drawn with.
struct Live {
    model: Model,
    screen: Screen,
    palette: Palette,
    start: Instant,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Live {
    fn run(&mut self, messages: &Receiver<Message>) -> io::Result<()> {
        loop {
            self.draw()?;
            let message = match messages.recv_timeout(PICTURE_PERIOD_MAX) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                // Those who send live as long as this process.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.listen();
            for message in message.into_iter().chain(messages.try_iter()) {
                if self.take(message)? == Next::End {
                    return Ok(());
                }
            }
        }
    }

    /// Notices when the daemon says nothing, though the connection is there.
    fn listen(&mut self) {
        if self.model.silence(self.start.elapsed()) > SILENCE_MAX && *self.model.link() == Link::Up {
            self.model.failed("the daemon says nothing; its log may tell why".into());
        }
    }

    fn take(&mut self, message: Message) -> io::Result<Next> {
        match message {
            Message::Key(key) => return self.press(key),
            Message::Resized => {}
            Message::Hung => return Ok(Next::End),
            Message::Answer(answer) => match *answer {
                Ok(report) => self.model.answered(report, self.start.elapsed()),
                Err(error) => self.model.failed(error),
            },
            Message::Signal(SIGTSTP) => self.suspend()?,
            Message::Signal(SIGCONT) => self.continued()?,
            Message::Signal(_) => return Ok(Next::End),
        }
        Ok(Next::GoOn)
    }

    fn press(&mut self, key: KeyEvent) -> io::Result<Next> {
        let effect = keys::action(key).map_or(Effect::Nothing, |action| self.model.act(action));
        match effect {
            Effect::Nothing => {}
            Effect::Quit => return Ok(Next::End),
            Effect::Suspend => self.suspend()?,
            Effect::Redraw => self.screen.forget()?,
        }
        Ok(Next::GoOn)
    }

    /// Gives the terminal to the shell, and waits until that lets this process go on.
    fn suspend(&mut self) -> io::Result<()> {
        self.screen.give_back();
        stop_until_continued()?;
        self.continued()
    }

    /// Somebody else may have had the terminal, and may have it still: then the next key or signal tells.
    fn continued(&mut self) -> io::Result<()> {
        self.screen.give_back();
        if is_foreground() { self.screen.take_again() } else { Ok(()) }
    }

    fn draw(&mut self) -> io::Result<()> {
        if !self.screen.is_taken() {
            return Ok(());
        }
        let (model, palette, now) = (&self.model, self.palette, self.start.elapsed());
        let mut rows = 0;
        self.screen.draw(|area, buffer| rows = view::draw(model, now, palette, area, buffer))?;
        self.model.drawn(rows);
        Ok(())
    }
}

fn spawn(sender: Sender<Message>, send: impl FnOnce(&Sender<Message>) + Send + 'static) {
    thread::spawn(move || send(&sender));
}

fn send_signals(signals: &SignalFd, sender: &Sender<Message>) {
    loop {
        // A wait that was cut short is followed by the next.
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        while let Some(signal) = signals.next() {
            if sender.send(Message::Signal(signal)).is_err() {
                return;
            }
        }
    }
}

fn send_keys(sender: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) => Message::Key(key),
            Ok(Event::Resize(..)) => Message::Resized,
            Ok(_) => continue,
            Err(_) => Message::Hung,
        };
        let is_last = matches!(message, Message::Hung);
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

fn send_answers(client: &Client, sender: &Sender<Message>) {
    let send = |answer| match sender.send(Message::Answer(Box::new(answer))) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    loop {
        let why = source::follow(client, send);
        if send(Err(why)).is_break() {
            return;
        }
        thread::sleep(RETRY_PERIOD);
    }
}
