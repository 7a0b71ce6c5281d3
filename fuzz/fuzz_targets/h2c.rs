//! The first request of HTTP/2 without TLS. The seeds are whole connections, from the preface on.

#![no_main]

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let frames = data.strip_prefix(PREFACE).unwrap_or(data);
    pointsman::internals::http::fuzz_h2c(frames);
});
