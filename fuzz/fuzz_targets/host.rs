//! The name of a host, of a client and of an operator.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pointsman::internals::host::fuzz_host(data));
