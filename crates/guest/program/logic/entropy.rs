//! Whether what a random number generator gives could be random. Each fault below comes from a working generator less
//! than once in 2^40 runs of a gigabyte.

/// What is wrong with the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing but zeros.
    Zero,
    /// The same 16 bytes follow each other.
    Repeats,
    /// A piece begins as the one before.
    SamePiece,
    /// More than 55 % of all bits are equal.
    Biased,
}

/// Looks at the pieces of an output, one after the other.
#[derive(Debug, Default)]
pub struct Check {
    last_start: Option<[u8; 16]>,
    bits: u64,
    ones: u64,
}

/// Bits from which on a bias is judged.
const BITS_MIN: u64 = 1 << 15;

impl Check {
    /// Looks at the next piece. Pieces below 16 bytes only count for the bias.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.bits += 8 * piece.len() as u64;
        self.ones += piece.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        let Some(start) = piece.first_chunk::<16>() else { return Ok(()) };
        if piece.iter().all(|&byte| byte == 0) {
            return Err(Fault::Zero);
        }
        if self.last_start.replace(*start) == Some(*start) {
            return Err(Fault::SamePiece);
        }
        let words = || piece.chunks_exact(16);
        if words().zip(words().skip(1)).any(|(one, next)| one == next) {
            return Err(Fault::Repeats);
        }
        Ok(())
    }

    /// Judges all of it.
    pub fn finish(&self) -> Result<(), Fault> {
        let even = self.bits / 2;
        if self.bits >= BITS_MIN && self.ones.abs_diff(even) > self.bits / 20 {
            Err(Fault::Biased)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn check(pieces: &[Vec<u8>]) -> Result<(), Fault> {
        let mut check = Check::default();
        pieces.iter().try_for_each(|piece| check.add(piece))?;
        check.finish()
    }

    fn random(bytes: usize, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        (0..bytes).map(|_| random.next_u64() as u8).collect()
    }

    #[test]
    fn random_pieces_pass_and_others_do_not() {
        let mut repeating = random(64, 1);
        repeating.copy_within(0..16, 16);
        let biased = random(8192, 2).iter().map(|byte| byte | 1).collect();
        for (pieces, expected) in [
            (vec![random(4096, 3), random(4096, 4)], Ok(())),
            (vec![random(3, 5), vec![], random(3, 5)], Ok(())),
            (vec![vec![0; 16]], Err(Fault::Zero)),
            (vec![random(32, 6), random(32, 6)], Err(Fault::SamePiece)),
            (vec![repeating], Err(Fault::Repeats)),
            (vec![biased], Err(Fault::Biased)),
        ] {
            assert_eq!(check(&pieces), expected);
        }
    }
}
