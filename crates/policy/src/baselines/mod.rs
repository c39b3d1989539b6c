//! Other ways to manage a host's memory, behind the same trait: what napa is measured against.

mod fixed;

pub use fixed::Static;
