//! What a page holds: 512 words that depend on the seed, the page's number and its generation.
//!
//! Each word differs from its neighbours, so a page that came back shifted, torn, stale or from another page shows.

use crate::random::mix;

/// Words of a 4 KiB page.
pub const PAGE_WORDS: usize = 512;

/// The contents of a page.
pub type Page = [u64; PAGE_WORDS];

const STEP: u64 = 0xd134_2543_de82_ef95;

/// A word that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Its index in the page, 0 to 511.
    pub word: usize,
    /// What was written there.
    pub expected: u64,
    /// What was found.
    pub found: u64,
}

/// The first word of page `page` in generation `generation`; the others follow from it.
#[must_use]
pub fn first_word(seed: u64, page: u64, generation: u32) -> u64 {
    mix(mix(seed ^ page.rotate_left(24)) ^ u64::from(generation).wrapping_mul(STEP))
}

/// Writes the whole page.
pub fn fill(page: &mut Page, first_word: u64) {
    let mut word = first_word;
    for slot in page {
        *slot = word;
        word = word.wrapping_add(STEP);
    }
}

/// Compares the whole page; the first word that differs is the error.
pub fn check(page: &Page, first_word: u64) -> Result<(), Mismatch> {
    let mut difference = 0;
    let mut word = first_word;
    for &found in page {
        difference |= found ^ word;
        word = word.wrapping_add(STEP);
    }
    if difference == 0 { Ok(()) } else { Err(first_mismatch(page, first_word)) }
}

/// Writes the whole page into `bytes`, which are 4096.
pub fn fill_bytes(bytes: &mut [u8], first_word: u64) {
    assert_eq!(bytes.len(), 8 * PAGE_WORDS, "a page has 4096 bytes");
    for (index, slot) in bytes.chunks_exact_mut(8).enumerate() {
        slot.copy_from_slice(&word(first_word, index).to_le_bytes());
    }
}

/// Compares `bytes`, which are 4096, with the whole page; the first word that differs is the error.
pub fn check_bytes(bytes: &[u8], first_word: u64) -> Result<(), Mismatch> {
    assert_eq!(bytes.len(), 8 * PAGE_WORDS, "a page has 4096 bytes");
    for (index, slot) in bytes.chunks_exact(8).enumerate() {
        let found = u64::from_le_bytes(slot.try_into().expect("chunks have eight bytes"));
        let expected = word(first_word, index);
        if found != expected {
            return Err(Mismatch { word: index, expected, found });
        }
    }
    Ok(())
}

/// Looks whether the whole page is zero; the first word that is not is the error.
pub fn check_zero(page: &Page) -> Result<(), Mismatch> {
    // All words together first: that is what a page without a fault costs.
    if page.iter().fold(0, |all, &word| all | word) == 0 {
        return Ok(());
    }
    let word = page.iter().position(|&word| word != 0).unwrap_or(0);
    Err(Mismatch { word, expected: 0, found: page[word] })
}

fn word(first_word: u64, index: usize) -> u64 {
    first_word.wrapping_add(STEP.wrapping_mul(index as u64))
}

#[cold]
fn first_mismatch(page: &Page, first_word: u64) -> Mismatch {
    let index = (0..PAGE_WORDS).find(|&index| page[index] != word(first_word, index)).unwrap_or(0);
    Mismatch { word: index, expected: word(first_word, index), found: page[index] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(seed: u64, number: u64, generation: u32) -> Page {
        let mut page = [0; PAGE_WORDS];
        fill(&mut page, first_word(seed, number, generation));
        page
    }

    #[test]
    fn a_page_checks_against_itself_alone() {
        let one = page(0, 5, 1);
        assert_eq!(check(&one, first_word(0, 5, 1)), Ok(()));
        for other in [first_word(0, 5, 2), first_word(0, 6, 1), first_word(1, 5, 1)] {
            assert!(check(&one, other).is_err());
        }
        assert!(check(&[0; PAGE_WORDS], first_word(0, 5, 1)).is_err(), "a page lost to zero must show");
    }

    #[test]
    fn bytes_and_words_are_the_same_page() {
        let mut bytes = [0; 8 * PAGE_WORDS];
        fill_bytes(&mut bytes, first_word(0, 5, 1));
        let words: Vec<u64> =
            bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, page(0, 5, 1));
        assert_eq!(check_bytes(&bytes, first_word(0, 5, 1)), Ok(()));
        bytes[4095] ^= 0x80;
        assert_eq!(check_bytes(&bytes, first_word(0, 5, 1)).unwrap_err().word, 511);
    }

    #[test]
    fn a_zero_page_is_zero_everywhere() {
        let mut page = [0; PAGE_WORDS];
        assert_eq!(check_zero(&page), Ok(()));
        page[511] = 1 << 63;
        assert_eq!(check_zero(&page), Err(Mismatch { word: 511, expected: 0, found: 1 << 63 }));
    }

    #[test]
    fn neighbouring_pages_and_generations_share_no_first_word() {
        let mut words: Vec<u64> = (0..256).flat_map(|p| (0..64).map(move |g| first_word(9, p, g))).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 256 * 64);
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found_where_it_is(
            number in any::<u64>(), generation in any::<u32>(), word in 0..PAGE_WORDS, bit in 0..64_u32,
        ) {
            let mut damaged = page(3, number, generation);
            let expected = damaged[word];
            damaged[word] ^= 1 << bit;
            let found = damaged[word];
            prop_assert_eq!(
                check(&damaged, first_word(3, number, generation)),
                Err(Mismatch { word, expected, found })
            );
        }
    }
}
