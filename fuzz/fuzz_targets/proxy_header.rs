//! A PROXY header of either version.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::proxy_protocol::fuzz_proxy_header(data));
