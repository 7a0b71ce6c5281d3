//! The hello of TLS.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::sniff::fuzz_hello(data));
