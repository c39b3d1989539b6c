//! What keys ask for.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::column::Column;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    /// Go back to the shell for a while.
    Suspend,
    /// Draw everything anew: another program wrote over it.
    Redraw,
    /// Out of what is open; from the table, the end.
    Back,
    /// Show one VM.
    Open,
    Help,
    Choose(Step),
    SortBy(Column),
    /// Sort by the next column to the right.
    SortRight,
    SortLeft,
    Reverse,
    /// Show more time.
    ZoomOut,
    ZoomIn,
    /// Keep the picture as it is, or go on.
    Hold,
}

/// How far the choice moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// What a key asks for, if it means anything.
pub fn action(key: KeyEvent) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char(letter) if key.modifiers.contains(KeyModifiers::CONTROL) => control(letter),
        KeyCode::Char(letter) => plain(letter),
        KeyCode::Esc | KeyCode::Backspace => Some(Action::Back),
        KeyCode::Enter => Some(Action::Open),
        KeyCode::F(1) => Some(Action::Help),
        KeyCode::Up => Some(Action::Choose(Step::Up)),
        KeyCode::Down => Some(Action::Choose(Step::Down)),
        KeyCode::PageUp => Some(Action::Choose(Step::PageUp)),
        KeyCode::PageDown => Some(Action::Choose(Step::PageDown)),
        KeyCode::Home => Some(Action::Choose(Step::First)),
        KeyCode::End => Some(Action::Choose(Step::Last)),
        KeyCode::Right => Some(Action::SortRight),
        KeyCode::Left => Some(Action::SortLeft),
        _ => None,
    }
}

/// Raw terminals send these as keys, not as signals.
const fn control(letter: char) -> Option<Action> {
    match letter {
        'c' | 'd' => Some(Action::Quit),
        'z' => Some(Action::Suspend),
        'l' => Some(Action::Redraw),
        _ => None,
    }
}

fn plain(letter: char) -> Option<Action> {
    match letter {
        'q' | 'Q' => Some(Action::Quit),
        '?' => Some(Action::Help),
        'k' => Some(Action::Choose(Step::Up)),
        'j' => Some(Action::Choose(Step::Down)),
        'r' => Some(Action::Reverse),
        '>' => Some(Action::SortRight),
        '<' => Some(Action::SortLeft),
        '+' | '=' => Some(Action::ZoomIn),
        '-' => Some(Action::ZoomOut),
        ' ' => Some(Action::Hold),
        letter => Column::of_key(letter).map(Action::SortBy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let press = |code| action(KeyEvent::new(code, KeyModifiers::NONE));
        let control = |letter| action(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL));
        assert_eq!(control('c'), Some(Action::Quit));
        assert_eq!(control('z'), Some(Action::Suspend));
        assert_eq!(control('q'), None);
        assert_eq!(press(KeyCode::Esc), Some(Action::Back));
        assert_eq!(press(KeyCode::Char('?')), Some(Action::Help));
        assert_eq!(press(KeyCode::F(2)), None);
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(action(released), None);
        for column in Column::ALL {
            assert_eq!(press(KeyCode::Char(column.key())), Some(Action::SortBy(column)), "{column:?}");
        }
    }
}
