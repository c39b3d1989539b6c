//! What a driver asks for (VIRTIO 1.3 §5.15.6), decided on the state of the blocks alone.

use std::ops::Range;

use napa_units::{Bytes, GuestAddress};

/// Bytes of a request.
pub const REQUEST_BYTES: usize = 24;
/// Bytes of a response.
pub const RESPONSE_BYTES: usize = 10;

/// A request, as the driver wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Give these blocks memory.
    Plug(Span),
    /// Take the memory of these blocks.
    Unplug(Span),
    /// Take the memory of all blocks.
    UnplugAll,
    /// Say whether these blocks have memory.
    State(Span),
    /// There is no such request.
    Unknown,
}

/// So many blocks from an address on. Nothing about it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub address: u64,
    pub blocks: u16,
}

impl Request {
    /// Reads `struct virtio_mem_req`.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let address = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        let span = Span { address, blocks: word(16) };
        match word(0) {
            0 => Self::Plug(span),
            1 => Self::Unplug(span),
            2 => Self::UnplugAll,
            3 => Self::State(span),
            _ => Self::Unknown,
        }
    }
}

/// What the driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is done.
    Done,
    /// It is done, and the blocks are like this.
    State(State),
    /// It would be more than was requested of the driver.
    Denied,
    /// The host cannot now; ask again later.
    Busy,
    /// The request makes no sense.
    Error,
}

/// How some blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Plugged = 0,
    Unplugged = 1,
    Mixed = 2,
}

impl Response {
    /// `struct virtio_mem_resp`.
    pub fn encode(self) -> [u8; RESPONSE_BYTES] {
        let (kind, state) = match self {
            Self::Done => (0_u16, 0),
            Self::State(state) => (0, state as u16),
            Self::Denied => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
        };
        let mut bytes = [0; RESPONSE_BYTES];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&state.to_le_bytes());
        bytes
    }
}

/// The region that the blocks are in. All of it is usable at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: GuestAddress,
    pub block: Bytes,
    pub blocks: u64,
}

impl Region {
    /// The numbers of the blocks that a span names; `None` if it is not made of whole blocks of the region.
    fn blocks_of(&self, span: Span) -> Option<Range<u64>> {
        let offset = span.address.checked_sub(self.start.0)?;
        let first = (offset.is_multiple_of(self.block.0)).then_some(offset / self.block.0)?;
        let end = first.checked_add(span.blocks.into())?;
        (span.blocks != 0 && end <= self.blocks).then_some(first..end)
    }
}

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer this; nothing changes.
    Answer(Response),
    /// Plug these blocks, none of which is.
    Plug(Range<u64>),
    /// Unplug these blocks; some of them may be unplugged already.
    Unplug(Range<u64>),
}

/// Decides about a request of a driver that was asked to have `requested` plugged in all and has `plugged`.
pub fn decide(
    request: Request,
    region: &Region,
    requested: Bytes,
    plugged: Bytes,
    is_plugged: impl Fn(u64) -> bool,
) -> Decision {
    let state_of = |blocks: Range<u64>| {
        let count = blocks.clone().filter(|block| is_plugged(*block)).count() as u64;
        match count {
            0 => State::Unplugged,
            _ if count == blocks.end - blocks.start => State::Plugged,
            _ => State::Mixed,
        }
    };
    let error = Decision::Answer(Response::Error);
    let span = match request {
        Request::Plug(span) | Request::Unplug(span) | Request::State(span) => span,
        Request::UnplugAll => return Decision::Unplug(0..region.blocks),
        Request::Unknown => return error,
    };
    let Some(blocks) = region.blocks_of(span) else { return error };
    let size = Bytes((blocks.end - blocks.start) * region.block.0);
    match (request, state_of(blocks.clone())) {
        (Request::State(_), state) => Decision::Answer(Response::State(state)),
        (Request::Plug(_), _) if plugged.0 + size.0 > requested.0 => Decision::Answer(Response::Denied),
        (Request::Plug(_), State::Unplugged) => Decision::Plug(blocks),
        (Request::Unplug(_), State::Plugged) => Decision::Unplug(blocks),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 2 << 20;
    const REGION: Region = Region { start: GuestAddress(6 << 30), block: Bytes(BLOCK), blocks: 16 };

    fn span(first: u64, blocks: u16) -> Span {
        Span { address: REGION.start.0 + first * BLOCK, blocks }
    }

    fn bytes(kind: u16, span: Span) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0xff; REQUEST_BYTES];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&span.address.to_le_bytes());
        bytes[16..18].copy_from_slice(&span.blocks.to_le_bytes());
        bytes
    }

    #[test]
    fn requests_are_read_and_responses_written() {
        let span = span(1, 3);
        let check = |kind, expected| assert_eq!(Request::decode(&bytes(kind, span)), expected);
        check(0, Request::Plug(span));
        check(1, Request::Unplug(span));
        check(2, Request::UnplugAll);
        check(3, Request::State(span));
        check(4, Request::Unknown);
        assert_eq!(Response::Done.encode(), [0; 10]);
        assert_eq!(Response::State(State::Mixed).encode(), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(
            [Response::Denied, Response::Busy, Response::Error].map(|response| response.encode()[0]),
            [1, 2, 3]
        );
    }

    #[test]
    fn a_request_is_decided_by_the_state_of_its_blocks() {
        // Blocks 0 to 3 are plugged, and eight blocks were requested.
        let decide =
            |request| super::decide(request, &REGION, Bytes(8 * BLOCK), Bytes(4 * BLOCK), |block| block < 4);
        let answer = |request, response| assert_eq!(decide(request), Decision::Answer(response));
        assert_eq!(decide(Request::Plug(span(4, 4))), Decision::Plug(4..8));
        assert_eq!(decide(Request::Unplug(span(1, 3))), Decision::Unplug(1..4));
        assert_eq!(decide(Request::UnplugAll), Decision::Unplug(0..16));
        answer(Request::Plug(span(4, 5)), Response::Denied);
        answer(Request::Plug(span(3, 2)), Response::Error);
        answer(Request::Unplug(span(3, 2)), Response::Error);
        answer(Request::State(span(0, 4)), Response::State(State::Plugged));
        answer(Request::State(span(3, 2)), Response::State(State::Mixed));
        answer(Request::State(span(4, 12)), Response::State(State::Unplugged));
        answer(Request::Unknown, Response::Error);
    }

    #[test]
    fn what_is_not_whole_blocks_of_the_region_is_an_error() {
        for wrong in [
            span(0, 0),
            span(16, 1),
            span(15, 2),
            span(0, u16::MAX),
            Span { address: REGION.start.0 + 1, blocks: 1 },
            Span { address: REGION.start.0 - BLOCK, blocks: 1 },
            Span { address: 0, blocks: 1 },
            Span { address: !(BLOCK - 1), blocks: u16::MAX },
        ] {
            for request in [Request::Plug(wrong), Request::Unplug(wrong), Request::State(wrong)] {
                let decision = decide(request, &REGION, Bytes(u64::MAX), Bytes(0), |_| false);
                assert_eq!(decision, Decision::Answer(Response::Error), "{request:?}");
            }
        }
    }

    fn any_span() -> impl Strategy<Value = Span> {
        prop_oneof![
            8 => (0..18_u64, 0..18_u16).prop_map(|(first, blocks)| span(first, blocks)),
            1 => (any::<u64>(), any::<u16>()).prop_map(|(address, blocks)| Span { address, blocks }),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_plugs_more_than_requested_or_outside(
            steps in proptest::collection::vec((0..5_u16, any_span(), 0..20_u64), 0..60)
        ) {
            let mut plugged = [false; 16];
            for (kind, span, requested) in steps {
                let size = |plugged: &[bool]| plugged.iter().filter(|is| **is).count() as u64 * BLOCK;
                let (before, requested) = (size(&plugged), requested * BLOCK);
                let request = Request::decode(&bytes(kind, span));
                match decide(request, &REGION, Bytes(requested), Bytes(before), |block| plugged[block as usize]) {
                    Decision::Plug(blocks) => {
                        for block in blocks {
                            prop_assert!(!std::mem::replace(&mut plugged[block as usize], true));
                        }
                        prop_assert!(size(&plugged) <= requested && kind == 0);
                    }
                    Decision::Unplug(blocks) => {
                        for block in blocks {
                            prop_assert!(std::mem::replace(&mut plugged[block as usize], false) || kind == 2);
                        }
                        prop_assert!(kind == 1 || (kind == 2 && size(&plugged) == 0));
                    }
                    Decision::Answer(Response::State(state)) => {
                        let first = ((span.address - REGION.start.0) / BLOCK) as usize;
                        let blocks = &plugged[first..first + usize::from(span.blocks)];
                        let expected = match (blocks.contains(&true), blocks.contains(&false)) {
                            (true, true) => State::Mixed,
                            (true, false) => State::Plugged,
                            _ => State::Unplugged,
                        };
                        prop_assert_eq!((state, kind), (expected, 3));
                    }
                    Decision::Answer(response) => prop_assert!(matches!(response, Response::Denied | Response::Error)),
                }
            }
        }
    }
}
