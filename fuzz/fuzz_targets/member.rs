//! A member of a route.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::route::fuzz_member(data));
