//! The first page of a swap area, version 1 (`union swap_header` in the kernel's include/linux/swap.h, and
//! mkswap(8)).
//!
//! | bytes | what |
//! |---|---|
//! | 0..1024 | left to boot loaders |
//! | 1024 | version, 1 |
//! | 1028 | number of the last page; the header's is 0 |
//! | 1032 | how many bad pages are listed, 0 |
//! | 1036..1052 | UUID |
//! | 1052..1068 | label, filled with zeros |
//! | 4086..4096 | `SWAPSPACE2`: version 1 in spite of its number |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use napa_units::{Bytes, PAGE_SIZE};

const PAGE: usize = PAGE_SIZE as usize;
const MAGIC: &[u8; 10] = b"SWAPSPACE2";
const VERSION: u32 = 1;
/// By which napa knows its own areas, also after it or the host was restarted.
const LABEL: &[u8; 16] = b"napa\0\0\0\0\0\0\0\0\0\0\0\0";
/// The number of the last page has 32 bits.
pub const SIZE_MAX: Bytes = Bytes((u32::MAX as u64 + 1) * PAGE_SIZE);
/// The kernel takes no area with less than one page besides the header; a few more make one worth having.
pub const SIZE_MIN: Bytes = Bytes::kib(64);

/// The header of an area of napa's. `size`: whole pages, from [`SIZE_MIN`] to [`SIZE_MAX`].
pub fn header(size: Bytes, uuid: [u8; 16]) -> [u8; PAGE] {
    assert!((SIZE_MIN..=SIZE_MAX).contains(&size), "the caller has checked it");
    let last_page = (size.0 / PAGE_SIZE - 1) as u32;
    let mut page = [0; PAGE];
    page[1024..1028].copy_from_slice(&VERSION.to_ne_bytes());
    page[1028..1032].copy_from_slice(&last_page.to_ne_bytes());
    page[1036..1052].copy_from_slice(&uuid);
    page[1052..1068].copy_from_slice(LABEL);
    page[PAGE - MAGIC.len()..].copy_from_slice(MAGIC);
    page
}

/// Whether a file or device begins like an area of napa's.
pub fn is_ours(file: &File) -> io::Result<bool> {
    let mut page = [0; PAGE];
    match file.read_exact_at(&mut page, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(&page[1052..1068] == LABEL && &page[PAGE - MAGIC.len()..] == MAGIC),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_known_again_and_nothing_else() {
        let file = tempfile::tempfile().unwrap();
        assert!(!is_ours(&file).unwrap());
        file.write_all_at(&[0; PAGE], 0).unwrap();
        assert!(!is_ours(&file).unwrap());
        let page = header(Bytes::mib(1), [7; 16]);
        file.write_all_at(&page, 0).unwrap();
        assert!(is_ours(&file).unwrap());
        file.write_all_at(b"other", 1052).unwrap();
        assert!(!is_ours(&file).unwrap());
    }

    #[test]
    fn fields_are_where_the_kernel_looks() {
        let page = header(Bytes::mib(1), [7; 16]);
        let word = |at: usize| u32::from_ne_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!([word(1024), word(1028), word(1032)], [1, 255, 0]);
        assert_eq!(&page[1036..1052], &[7; 16]);
        assert_eq!(&page[4086..], b"SWAPSPACE2");
    }
}
