//! `napa_fuzz::kernel_image` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| napa_fuzz::kernel_image(input));
