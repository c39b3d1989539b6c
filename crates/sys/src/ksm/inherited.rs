//! What a process has inherited about merging.
#![allow(unsafe_code)] // No safe wrapper knows this request.

use std::io;

/// `linux/prctl.h`; since Linux 6.4.
const PR_SET_MEMORY_MERGE: i32 = 67;

/// Takes back that the kernel may merge all memory of this process, whatever it holds later: a parent may have said
/// so (`PR_SET_MEMORY_MERGE`; systemd: `MemoryKSM=yes`), and it is inherited. To be called before there is memory that
/// must not be merged.
///
/// # Errors
/// There is no memory for copies of what was merged already.
pub fn forget_inherited_merging() -> io::Result<()> {
    let unused: libc::c_ulong = 0;
    // SAFETY: the request takes numbers alone, and changes what pages share with others, not what they hold.
    if unsafe { libc::prctl(PR_SET_MEMORY_MERGE, unused, unused, unused, unused) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A kernel that does not know the request has nothing to inherit.
        error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        error => Err(error),
    }
}
