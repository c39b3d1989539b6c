//! Bytes from a socket, cut into lines.

/// The longest line of a control socket, in bytes without its end. A status with every device napa can hold
/// takes a tenth of it.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// A line had more than [`LINE_BYTES_MAX`] bytes; it was dropped whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the line is too long: a message has at most {LINE_BYTES_MAX} bytes")]
pub struct LineTooLong;

/// Cuts a stream of bytes into lines. Holds at most [`LINE_BYTES_MAX`] bytes, whatever arrives.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line so far, without its end.
    pending: Vec<u8>,
    /// The line so far was too long: the rest of it is dropped too.
    overlong: bool,
}

impl Lines {
    /// Takes the next bytes and calls `each` for every line that they complete. Blank lines are passed over.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Result<&[u8], LineTooLong>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if std::mem::take(&mut self.overlong) {
                each(Err(LineTooLong));
            } else if !self.pending.trim_ascii().is_empty() {
                each(Ok(&self.pending));
            }
            self.pending.clear();
        }
        self.keep(bytes);
    }

    fn keep(&mut self, part: &[u8]) {
        if self.overlong || self.pending.len() + part.len() > LINE_BYTES_MAX {
            self.overlong = true;
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Result<Vec<u8>, LineTooLong>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |line| found.push(line.map(<[u8]>::to_vec)));
            assert!(lines.pending.len() <= LINE_BYTES_MAX);
        }
        found
    }

    #[test]
    fn a_line_may_arrive_in_pieces() {
        assert_eq!(cut(&[b"a", b"b\nc\n", b"\r\n \n", b"d"]), [Ok(b"ab".to_vec()), Ok(b"c".to_vec())]);
    }

    #[test]
    fn an_overlong_line_is_dropped_and_the_next_one_is_read() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(cut(&[&long, b"\n"]), [Ok(long.clone())]);
        assert_eq!(cut(&[&long, b"y", &long, b"\nz\n"]), [Err(LineTooLong), Ok(b"z".to_vec())]);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            size in 1_usize..50,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(cut(&pieces), cut(&[&bytes]));
        }
    }
}
