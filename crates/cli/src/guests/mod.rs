//! Embedded guests as processes of their own: started, listened to, and measured from outside.
//!
//! A guest is a `napa run` of this very binary. What it says comes through pipes, what it costs from `/proc`.
//! Nothing here knows why guests are started or what is made of their words.

mod child;
mod line;
mod reader;
mod usage;

pub use child::{Gone, GuestProcess, GuestWords, SELF, end_with_parent, require_kvm};
pub use line::{Line, Part, Report};
pub use reader::LineReader;
pub use usage::{Footprint, cpu_time, guest_ram};
