//! Reports in a stream of events, as it comes piece by piece (HTML Living Standard §9.2, server-sent events).

use napa_api::host::HostReport;

/// No event is longer: a row takes less than 1 KiB, and a host has fewer than 10,000 VMs.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// What has come of an event so far.
#[derive(Default)]
pub struct Events {
    /// The line that has begun.
    line: Vec<u8>,
    is_report: bool,
    data: Vec<u8>,
}

impl Events {
    /// Takes the next piece; gives the reports that end in it, or why one cannot be read.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Result<HostReport, String>> {
        let mut reports = Vec::new();
        let mut lines = piece.split(|byte| *byte == b'\n');
        self.line.extend_from_slice(lines.next().unwrap_or_default());
        for start in lines {
            let line = std::mem::replace(&mut self.line, start.to_vec());
            reports.extend(self.take(line.strip_suffix(b"\r").unwrap_or(&line)));
        }
        if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
            *self = Self::default();
            reports.push(Err("an event has no end".into()));
        }
        reports
    }

    /// Takes a whole line. An empty one ends an event; one that begins with a colon is there to be sent.
    fn take(&mut self, line: &[u8]) -> Option<Result<HostReport, String>> {
        if line.is_empty() {
            let event = std::mem::take(self);
            let report = || serde_json::from_slice(&event.data).map_err(|error| error.to_string());
            // The line that begins next was taken with the event.
            self.line = event.line;
            return event.is_report.then(report);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => self.is_report = value == b"report",
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture;

    /// The number of VMs in the reports of a stream that comes in pieces of this size.
    fn reports(stream: &str, piece: usize) -> Vec<Result<usize, String>> {
        let mut events = Events::default();
        let pieces = stream.as_bytes().chunks(piece);
        let reports = pieces.flat_map(|piece| events.push(piece));
        reports.map(|report| report.map(|report| report.vms.len())).collect()
    }

    #[test]
    fn reports_are_found_wherever_the_stream_is_cut() {
        let json = |vms| serde_json::to_string(&fixture::report(vms)).unwrap();
        let stream = format!(
            ": a line to be sent\n\nevent: report\ndata: {}\n\nevent: vm\ndata: {{}}\n\ndata:{}\r\nevent:report\r\n\r\n\
             event: report\ndata: {{}}\n\nevent: report\ndata: {}\n",
            json(2),
            json(3),
            json(4)
        );
        for piece in [1, 2, 7, 100, stream.len()] {
            let found = reports(&stream, piece);
            assert_eq!(found[..2], [Ok(2), Ok(3)], "{piece}");
            assert!(found[2].as_ref().is_err_and(|error| error.contains("missing field")), "{piece}");
            assert_eq!(found.len(), 3, "the last event has not ended");
        }
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2 + 1];
        assert!(events.push(&piece).is_empty());
        assert_eq!(events.push(&piece), [Err("an event has no end".to_owned())]);
        assert!(events.push(b"\n\n").is_empty());
    }
}
