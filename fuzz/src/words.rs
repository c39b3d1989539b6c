//! Numbers as a driver would choose them, good and bad, from a fuzzer's bytes.

use arbitrary::{Result, Unstructured};

use crate::ram::{HIGH_END, HIGH_START, LOW_END};

/// A guest-physical address: mostly RAM, at times the edge of it, seldom anything.
pub fn address(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.int_in_range(0..=15_u8)? {
        0..=8 => u64::from(input.int_in_range(0..=(LOW_END / 16 - 1) as u16)?) * 16,
        9..=11 => input.int_in_range(0..=LOW_END)?,
        12 => input.int_in_range(HIGH_START..=HIGH_END)?,
        13 => *input.choose(&[LOW_END, HIGH_START, HIGH_END])? - u64::from(input.int_in_range(0..=16_u8)?),
        14 => u64::MAX - u64::from(input.arbitrary::<u16>()?),
        _ => input.arbitrary()?,
    })
}

/// A length in bytes: mostly small, seldom anything.
pub fn length(input: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match input.int_in_range(0..=15_u8)? {
        0..=3 => 16,
        4..=5 => 1,
        6..=9 => u32::from(input.int_in_range(0..=8_u8)?) * 512,
        10..=13 => u32::from(input.int_in_range(0..=600_u16)?),
        14 => u32::from(input.arbitrary::<u16>()?),
        _ => input.arbitrary()?,
    })
}

/// One of the widths that a register is accessed with.
pub fn width(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(1 << input.int_in_range(0..=3_u8)?)
}
