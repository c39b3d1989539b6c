//! Lines of the control socket: whatever a client writes is a request or is refused, and answers are lines.

use napa_api::control::{LINE_BYTES_MAX, LineTooLong, Lines, Request, Response};

type Cut = Vec<Result<Vec<u8>, LineTooLong>>;

/// The first byte says in what pieces the rest arrives.
pub fn control(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let lines = cut(bytes.chunks(usize::from(*size).max(1)));
    assert_eq!(lines, expected(bytes), "lines are what lies between line breaks");
    for line in lines {
        match line {
            Ok(line) => take(&line),
            Err(too_long) => check_answer(&too_long.into()),
        }
    }
}

fn cut<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Cut {
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    for piece in pieces {
        lines.feed(piece, |line| found.push(line.map(<[u8]>::to_vec)));
    }
    found
}

/// The lines by the plain rule: what ends with a line break and is not blank.
fn expected(bytes: &[u8]) -> Cut {
    let (ended, _) = bytes.split_at(bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0));
    let lines = ended.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| if line.len() > LINE_BYTES_MAX { Err(LineTooLong) } else { Ok(line.to_vec()) }).collect()
}

fn take(line: &[u8]) {
    assert!(line.len() <= LINE_BYTES_MAX);
    match Request::decode(line) {
        Ok(request) => {
            let encoded = request.encode();
            assert_is_line(&encoded);
            assert_eq!(Request::decode(&encoded), Ok(request), "a request survives its way");
        }
        Err(refusal) => refusal.iter().for_each(check_answer),
    }
    // The other end of a socket is no more to be trusted.
    if let Ok(response) = Response::decode(line) {
        check_answer(&response);
    }
}

fn check_answer(response: &Response) {
    let encoded = response.encode();
    assert_is_line(&encoded);
    let decoded = Response::decode(&encoded).expect("an answer can be read");
    assert_eq!(&decoded, response, "an answer survives its way");
}

fn assert_is_line(bytes: &[u8]) {
    assert!(bytes.ends_with(b"\n") && !bytes[..bytes.len() - 1].contains(&b'\n'));
}
