//! The terminal while the live view has it. It is given back whatever happens.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Rect};

/// Whether the terminal is taken. In one place, so that a panic's hook finds it.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// The terminal. It is given back when this is dropped.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Whether standard output is a terminal that a picture can be drawn on.
    pub fn is_possible() -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        !dumb && stdout().is_terminal()
    }

    /// Takes the terminal.
    ///
    /// # Errors
    /// It refused its new settings.
    pub fn take() -> io::Result<Self> {
        PANIC_HOOK.call_once(leave_on_panic);
        let mut screen = Self { terminal: Terminal::new(CrosstermBackend::new(stdout()))? };
        screen.take_again()?;
        Ok(screen)
    }

    /// Gives the terminal back for a while.
    pub fn give_back(&mut self) {
        leave();
    }

    /// Takes the terminal again, and forgets what was drawn.
    ///
    /// # Errors
    /// It refused its settings.
    pub fn take_again(&mut self) -> io::Result<()> {
        IS_TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        self.forget()
    }

    /// Whether it is taken.
    pub fn is_taken(&self) -> bool {
        IS_TAKEN.load(Ordering::SeqCst)
    }

    /// Draws everything anew next time.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn forget(&mut self) -> io::Result<()> {
        // A resize clears without asking the terminal where its cursor is, which not every terminal answers.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Draws a picture: what has changed since the last one is written.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, picture: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        self.terminal.draw(|frame| picture(frame.area(), frame.buffer_mut())).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Whether the terminal listens to this process. One in the background would be stopped if it touched the settings.
pub fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(stdout()).is_ok_and(|foreground| foreground == rustix::process::getpgrp())
}

fn leave() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that was hung up needs neither.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

fn leave_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        leave();
        next(panic);
    }));
}
