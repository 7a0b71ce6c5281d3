//! The routes file.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::sync::fuzz_routes_file(data));
