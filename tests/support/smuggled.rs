//! Requests on whose end or host two parsers could disagree, each with the name of the refusal: request
//! smuggling after RFC 9112 section 11.2 and the published families of attacks.

/// Stands behind every case and must never be taken for a request.
pub const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// The refusal, the fields of a POST, and what stands behind its head.
const CASES: &[(&str, &str, &str)] = &[
    // CL.TE and TE.CL.
    (
        "length_and_encoding",
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "0\r\n\r\nG",
    ),
    (
        "length_and_encoding",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "5c\r\n",
    ),
    (
        "length_and_encoding",
        "transfer-encoding:chunked\r\ncontent-length:0",
        "0\r\n\r\n",
    ),
    (
        "length_and_encoding",
        "Content-Length: 6\nTransfer-Encoding: chunked",
        "0\r\n\r\nG",
    ),
    (
        "length_and_encoding",
        "Connection: close\r\nContent-Length: 6\r\nTransfer-Encoding:\tCHUNKED",
        "0\r\n\r\n",
    ),
    (
        "length_and_encoding",
        "Connection: content-length\r\nContent-Length: 6\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    // 0.CL and CL.0: lengths that one parser does not take for lengths.
    ("content_length", "Content-Length: +0", ""),
    ("content_length", "Content-Length: -0", ""),
    ("content_length", "Content-Length: ,0", ""),
    ("content_length", "Content-Length: 0,44", ""),
    ("content_length", "Content-Length: 44, 44", ""),
    ("content_length", "Content-Length: \"44\"", ""),
    ("content_length", "Content-Length: 4 4", ""),
    ("content_length", "Content-Length: 4_4", ""),
    ("content_length", "Content-Length: 0x2c", ""),
    ("content_length", "Content-Length: 0o54", ""),
    ("content_length", "Content-Length: 44.0", ""),
    ("content_length", "Content-Length: 44;a", ""),
    ("content_length", "Content-Length: 44\u{a0}", ""),
    ("content_length", "Content-Length: \u{664}\u{664}", ""),
    (
        "content_length",
        "Content-Length: 44\r\nContent-Length:",
        "",
    ),
    (
        "content_length",
        "Content-Length: 99999999999999999999999",
        "",
    ),
    (
        "content_lengths_differ",
        "Content-Length: 0\r\nContent-Length: 44",
        "",
    ),
    (
        "content_lengths_differ",
        "Content-Length: 44\r\ncontent-length: 0",
        "",
    ),
    ("space_before_colon", "Content-Length : 44", ""),
    ("folded_header", "Content-Length:\r\n 44", ""),
    ("folded_header", "X: y\r\n\tContent-Length: 44", ""),
    ("folded_header", "Content-Length: 4\n 4", ""),
    ("nul_byte", "Content-Length: 44\0", ""),
    ("nul_byte", "Content-\0Length: 44", ""),
    ("header_name", "\u{b}Content-Length: 44", ""),
    ("header_name", "Content-Length\u{a0}: 44", ""),
    ("header_name", "Content-Length 44", ""),
    ("header_name", ": 44", ""),
    ("header_value", "Content-Length: \u{b}44", ""),
    ("header_value", "X: y\u{8}Content-Length: 44", ""),
    // TE.TE: encodings that one parser does not take for chunked.
    (
        "transfer_encoding",
        "Transfer-Encoding: xchunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunke",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: identity",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: identity",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked, identity",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: identity, chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: gzip, chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked, chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: ,chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked,",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: 'chunked'",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: \"chunked\"",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunked;a=b",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: chunk\u{e9}d",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: \u{feff}chunked",
        "0\r\n\r\n",
    ),
    (
        "transfer_encoding",
        "Transfer-Encoding: :chunked",
        "0\r\n\r\n",
    ),
    ("transfer_encoding", "Transfer-Encoding:", "0\r\n\r\n"),
    (
        "space_before_colon",
        "Transfer-Encoding\t: chunked",
        "0\r\n\r\n",
    ),
    (
        "folded_header",
        "X: y\r\n Transfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    (
        "folded_header",
        "Transfer-Encoding:\r\n chunked",
        "0\r\n\r\n",
    ),
    (
        "folded_header",
        "Transfer-Encoding: chunked\r\n , identity",
        "0\r\n\r\n",
    ),
    (
        "folded_header",
        "Transfer-Encoding:\n\tchunked",
        "0\r\n\r\n",
    ),
    ("bare_cr", "X: y\rTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("bare_cr", "Transfer-Encoding: chunked\r", "0\r\n\r\n"),
    ("nul_byte", "Transfer-Encoding: chunked\0", "0\r\n\r\n"),
    (
        "header_value",
        "Transfer-Encoding: \u{c}chunked",
        "0\r\n\r\n",
    ),
    (
        "header_value",
        "Transfer-Encoding: chunked\u{b}",
        "0\r\n\r\n",
    ),
    // An expectation that only one parser sees: one side waits for a 100 that the other never sends.
    ("expect", "Expect: y 100-continue\r\nContent-Length: 44", ""),
    (
        "expect",
        "Expect: 100-continue, x\r\nContent-Length: 44",
        "",
    ),
    (
        "expect",
        "Expect: \"100-continue\"\r\nContent-Length: 44",
        "",
    ),
    (
        "expect",
        "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 44",
        "",
    ),
    ("expect", "Expect: 100_continue\r\nContent-Length: 44", ""),
    (
        "expect",
        "Expect: 100-continue;q=1\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    ("expect", "Expect:\r\nContent-Length: 44", ""),
    (
        "space_before_colon",
        "Expect : 100-continue\r\nContent-Length: 44",
        "",
    ),
    (
        "folded_header",
        "Expect:\r\n 100-continue\r\nContent-Length: 44",
        "",
    ),
    // Hosts.
    ("host_repeated", "Host: b.test", ""),
    ("host_repeated", "host:a.test", ""),
    ("space_before_colon", "Host : b.test", ""),
];

/// Bodies behind `Transfer-Encoding: chunked`.
const CHUNKS: &[(&str, &str)] = &[
    ("chunk_size", "0x0\r\n\r\n"),
    ("chunk_size", " 0\r\n\r\n"),
    ("chunk_size", "\t0\r\n\r\n"),
    ("chunk_size", "0 \r\n\r\n"),
    ("chunk_size", "0\t\r\n\r\n"),
    ("chunk_size", "0 ;a\r\n\r\n"),
    ("chunk_size", "0\u{b}\r\n\r\n"),
    ("chunk_size", "0\n\r\n"),
    ("chunk_size", "0\r\r\n\r\n"),
    ("chunk_size", "5\rhello\r\n0\r\n\r\n"),
    ("chunk_size", "-1\r\n\r\n"),
    ("chunk_size", "+0\r\n\r\n"),
    ("chunk_size", "0_0\r\n\r\n"),
    ("chunk_size", "0h\r\n\r\n"),
    ("chunk_size", "\u{ff10}\r\n\r\n"),
    ("chunk_size", ";a\r\n\r\n"),
    ("chunk_size", "\r\n0\r\n\r\n"),
    ("chunk_overflow", "10000000000000000\r\n"),
    ("chunk_overflow", "fffffffffffffffff\r\n"),
    ("chunk_overflow", "00000000000000000\r\n\r\n"),
    // TERM.EXT and EXT.TERM: bytes that one parser takes for a line end and the other for a part of the
    // extension.
    ("chunk_extension", "0;\n\r\n\r\n"),
    ("chunk_extension", "2;\nxx\r\n4c\r\n0\r\n\r\n"),
    ("chunk_extension", "2;a\nxx\r\n4c\r\n0\r\n\r\n"),
    ("chunk_size", "2;a\rxx\r\n4c\r\n0\r\n\r\n"),
    ("chunk_extension", "0;\r\n\r\n"),
    ("chunk_extension", "0;a\0\r\n\r\n"),
    ("chunk_extension", "0;a=\u{e9}\r\n\r\n"),
    // TERM.SPILL and SPILL.TERM: the same between the data of a chunk and the next size.
    ("chunk_end", "2\r\nabc\r\n0\r\n\r\n"),
    ("chunk_end", "2\r\nab\n0\r\n\r\n"),
    ("chunk_end", "2\r\nab\r0\r\n\r\n"),
    ("chunk_end", "2\r\nabXX0\r\n\r\n"),
    ("chunk_end", "2\r\nab0\r\n\r\n"),
    ("trailer", "0\r\nContent-Length: 44\r\n\r\n"),
    ("trailer", "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("trailer", "0\r\nX: y\r\ntransfer-encoding:x\r\n\r\n"),
    ("trailer", "0\r\nHost: b.test\r\n\r\n"),
    ("trailer", "0\r\nConnection: upgrade\r\n\r\n"),
    ("trailer", "0\r\nX : y\r\n\r\n"),
    ("trailer", "0\r\nX: y\r\n z\r\n\r\n"),
    ("trailer", "0\r\nX: y\n\r\n"),
    ("trailer", "0\r\nX: y\rZ: 1\r\n\r\n"),
    ("trailer", "0\r\n\n"),
    ("trailer", "0\r\n\r\u{0}"),
    ("trailer", "0\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
];

/// The refusal, and everything up to the end of the head.
const HEADS: &[(&str, &str)] = &[
    (
        "transfer_encoding_version",
        "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "transfer_encoding_version",
        "POST / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: \
         chunked\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "space_before_colon",
        "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
    ),
    ("folded_header", "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n"),
    ("request_line", "GET /  HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("request_line", "GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n"),
    ("request_line", "GET \t/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("request_line", "GET / HTTP/1.1 x\r\nHost: a.test\r\n\r\n"),
    ("request_line", "GET /\r\nHost: a.test\r\n\r\n"),
    (
        "request_line",
        "GET / HTTP/1.1\u{b}\r\nHost: a.test\r\n\r\n",
    ),
    ("request_line", "GET / http/1.1\r\nHost: a.test\r\n\r\n"),
    ("http_version", "GET / HTTP/1.10\r\nHost: a.test\r\n\r\n"),
    ("http_version", "GET / HTTP/01.1\r\nHost: a.test\r\n\r\n"),
    ("nul_byte", "GET /\0 HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("bare_cr", "GET / HTTP/1.1\rHost: a.test\r\n\r\n"),
    (
        "target_userinfo",
        "GET http://a.test@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    (
        "target_invalid",
        "GET a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    ("target_invalid", "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (
        "target_fragment",
        "GET http://a.test#b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    (
        "target_fragment",
        "GET /a#/../b HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    ("host_missing", "GET / HTTP/1.1\r\n\r\n"),
    (
        "host_list",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
    ),
    (
        "host_bad_byte",
        "GET / HTTP/1.1\r\nHost: a.test/b.test\r\n\r\n",
    ),
    (
        "host_port",
        "GET / HTTP/1.1\r\nHost: a.test:80@b.test\r\n\r\n",
    ),
];

/// Every case: the outcome that refuses it, and its bytes.
pub fn cases() -> Vec<(&'static str, String)> {
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n{body}{BEHIND}")
    };
    let long = format!("0;{}\r\n\r\n", "x".repeat(1100));
    let long = ("chunk_extension", post("Transfer-Encoding: chunked", &long));
    let fields = CASES
        .iter()
        .map(|(name, fields, body)| (*name, post(fields, body)));
    let chunks = CHUNKS
        .iter()
        .map(|(name, body)| (*name, post("Transfer-Encoding: chunked", body)));
    let heads = HEADS
        .iter()
        .map(|(name, head)| (*name, format!("{head}{BEHIND}")));
    fields.chain(chunks).chain(heads).chain([long]).collect()
}
