#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| requestrocket_edge_fuzz::path::check(input));
