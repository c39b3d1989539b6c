//! How a group that napa made is known again: by an extended attribute, which goes with the group.

use std::path::Path;

use rustix::fs::XattrFlags;

/// Users may set it on groups of theirs (Linux 5.7).
const NAME: &str = "user.napa.made";

/// Marks a group that was just made. One that cannot be marked is taken for somebody else's by the next VM.
pub fn mark(folder: &Path) {
    let _older_kernel = rustix::fs::setxattr(folder, NAME, b"1", XattrFlags::empty());
}

/// Whether napa made the group.
pub fn is_marked(folder: &Path) -> bool {
    rustix::fs::getxattr(folder, NAME, &mut [0_u8; 1]).is_ok()
}
