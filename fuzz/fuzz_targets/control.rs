//! `napa_fuzz::control` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| napa_fuzz::control(input));
