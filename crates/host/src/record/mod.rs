//! What was seen and decided, in files, so that it can be decided again.
//!
//! A record is a file of JSON lines. The first says its version and holds the policy with its state as the file begins;
//! each other is one tick: what was seen and what was decided. So any file of a record can be replayed alone, however
//! many before it are gone.
//!
//! ```text
//!   {"version":1,"policy":{"napa":{…}}}
//!   {"time":1795820708266,"observation":{…},"decision":{…}}
//! ```
//!
//! The file that is written is `ticks.jsonl`. When it has its share of the bound it becomes `ticks.1.jsonl`, that one
//! `ticks.2.jsonl`, and the last goes.

mod line;
mod reader;
mod replay;
mod writer;

pub use self::line::{Head, Moment, VERSION};
pub use self::reader::{ReadError, Reader};
pub use self::replay::{Difference, Replay, replay};
pub use self::writer::{RecordError, Recorder};
