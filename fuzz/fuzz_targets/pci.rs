//! `napa_fuzz::pci` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| napa_fuzz::pci(input));
