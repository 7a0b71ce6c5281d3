//! The options of a host, a line each, as a hash in Redis has them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::route::fuzz_host_options(data));
