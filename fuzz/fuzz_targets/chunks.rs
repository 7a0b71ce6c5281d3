//! A body in chunks.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::http::fuzz_chunks(data));
