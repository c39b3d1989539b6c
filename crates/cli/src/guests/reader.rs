//! Lines out of a pipe that never makes its reader wait.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

/// A longer line is cut: the guest decides how long its lines are.
const LINE_BYTES_MAX: usize = 1024;
/// Bytes taken from the pipe at a time; a fuller pipe is readable again at once.
const READ_BYTES: usize = 16 << 10;

/// The reading end of a pipe.
pub struct LineReader<R> {
    pipe: Option<R>,
    line: Vec<u8>,
    complete: VecDeque<String>,
}

impl<R: Read + AsFd> LineReader<R> {
    /// Reads from `pipe`, which is made non-blocking.
    ///
    /// # Errors
    /// The pipe refused that.
    pub fn new(pipe: R) -> rustix::io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: Some(pipe), line: Vec::new(), complete: VecDeque::new() })
    }

    /// The pipe, until its other end is closed.
    pub fn pipe(&self) -> Option<&R> {
        self.pipe.as_ref()
    }
}

impl<R: Read> LineReader<R> {
    /// Takes what is in the pipe. At the end of the pipe, what is left counts as a line.
    pub fn fill(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; READ_BYTES];
        match pipe.read(&mut buffer) {
            Ok(0) => self.end(),
            Ok(count) => self.feed(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.end(),
        }
    }

    /// The next complete line, without its end; control characters are replaced.
    pub fn next_line(&mut self) -> Option<String> {
        self.complete.pop_front()
    }

    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.complete();
            }
        }
    }

    fn end(&mut self) {
        self.pipe = None;
        if !self.line.is_empty() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        self.complete.push_back(line.trim_end_matches('\r').chars().map(visible).collect());
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut reader =
            LineReader { pipe: Some(std::io::empty()), line: Vec::new(), complete: VecDeque::new() };
        pieces.iter().for_each(|piece| reader.feed(piece));
        reader.fill();
        assert!(reader.pipe.is_none());
        std::iter::from_fn(|| reader.next_line()).collect()
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        assert_eq!(lines(&[b"a\r\nb", b"c\r", b"\n", b"\n", b"end"]), ["a", "bc", "", "end"]);
        assert_eq!(lines(&[]), [""; 0]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_replaced() {
        assert_eq!(lines(&[b"\x1b[2J\xff\n"]), ["\u{fffd}[2J\u{fffd}"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = vec![b'x'; 3 * LINE_BYTES_MAX];
        assert_eq!(lines(&[&long, b"y\nz\n"]), ["x".repeat(LINE_BYTES_MAX), "z".to_owned()]);
    }
}
