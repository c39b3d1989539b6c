//! Guest-physical addresses, frame numbers and page counts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// Size of a guest page frame, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// A guest-physical address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestAddress(pub u64);

impl GuestAddress {
    /// The frame that holds this address.
    pub const fn gfn(self) -> Gfn {
        Gfn(self.0 / PAGE_SIZE)
    }

    /// The address `offset` bytes further, or `None` past the end of the address space.
    pub const fn checked_add(self, offset: u64) -> Option<Self> {
        match self.0.checked_add(offset) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }
}

impl fmt::Debug for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestAddress({:#x})", self.0)
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A guest frame number: a guest-physical address divided by [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

impl Gfn {
    /// The first address of the frame, or `None` if the frame lies past the end of the address space.
    pub const fn address(self) -> Option<GuestAddress> {
        match self.0.checked_mul(PAGE_SIZE) {
            Some(address) => Some(GuestAddress(address)),
            None => None,
        }
    }
}

/// A count of pages of [`PAGE_SIZE`]. It travels as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pages(pub u64);

impl Pages {
    /// The pages that `bytes` occupy, the last one counted whole.
    pub const fn covering(bytes: Bytes) -> Self {
        Self(bytes.0.div_ceil(PAGE_SIZE))
    }

    /// The size of these pages; saturates at the largest size there is.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(PAGE_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_its_addresses() {
        assert_eq!(GuestAddress(0x1fff).gfn(), Gfn(1));
        assert_eq!(Gfn(1).address(), Some(GuestAddress(0x1000)));
        assert_eq!(Gfn(u64::MAX).address(), None);
        assert_eq!(GuestAddress(u64::MAX).checked_add(1), None);
    }

    #[test]
    fn a_part_of_a_page_counts_whole() {
        assert_eq!(Pages::covering(Bytes(1)), Pages(1));
        assert_eq!(Pages::covering(Bytes(4096)), Pages(1));
        assert_eq!(Pages::covering(Bytes(4097)), Pages(2));
        assert_eq!(Pages(2).bytes(), Bytes(8192));
    }
}
