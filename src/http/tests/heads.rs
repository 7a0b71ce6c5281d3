//! Request heads built to order: the awkward that have to be routed, the broken that have to be
//! refused.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn verdict(data: &[u8]) -> String {
    let whole = word(data);
    assert_eq!(word_byte_by_byte(data), whole);
    whole
}

/// Input that trips other proxies.
#[test]
fn awkward_heads_are_routed() {
    let far = format!(
        "GET / HTTP/1.1\r\nX: {}\r\nHost: a.test\r\n\r\n",
        "x".repeat(20_000)
    );
    for (head, want) in [
        ("GET / HTTP/1.1\r\nhost:a.test\r\n\r\n", "a.test"),
        ("GET / HTTP/1.1\r\nHOST:\t A.TEST:8080 \t\r\n\r\n", "a.test"),
        ("GET / HTTP/1.1\r\nHost: a.test.\r\n\r\n", "a.test"),
        ("GET / HTTP/1.1\r\nHost: a.test:\r\n\r\n", "a.test"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]"),
        (
            "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "b.test",
        ),
        ("GET / HTTP/1.1\nHost: a.test\n\n", "a.test"),
        ("GET / HTTP/1.1\r\nHost: a.test\n\r\n", "a.test"),
        ("\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "a.test"),
        ("\r\n\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "a.test"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "a.test"),
        ("GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", "a.test"),
        ("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", "a.test"),
        ("GET / HTTP/1.0\r\n\r\n", "-"),
        ("GET http://b.test/ HTTP/1.0\r\n\r\n", "b.test"),
        (
            "GET /\u{e9} HTTP/1.1\r\nHost: a.test\r\nX: \u{e9}\r\nY:\r\n\r\n",
            "a.test",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n",
            "a.test",
        ),
        (far.as_str(), "a.test"),
    ] {
        assert_eq!(verdict(head.as_bytes()), want, "{head:.80}");
    }
}

#[test]
fn heads_that_are_ambiguous_or_broken_are_refused() {
    for (head, want) in [
        ("GET / HTTP/1.1\r\n\r\n", "host_missing"),
        ("GET http://b.test/ HTTP/1.1\r\n\r\n", "host_missing"),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            "host_repeated",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\nhOST: a.test\r\n\r\n",
            "host_repeated",
        ),
        (
            "GET / HTTP/1.0\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            "host_repeated",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
            "host_list",
        ),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "host_empty"),
        ("GET / HTTP/1.1\r\nHost: a@b.test\r\n\r\n", "host_bad_byte"),
        (
            "GET http://b.test/ HTTP/1.1\r\nHost: a test\r\n\r\n",
            "host_bad_byte",
        ),
        ("GET / HTTP/1.1\r\nHost: *.test\r\n\r\n", "host_bad_byte"),
        ("GET / HTTP/1.1\r\nHost: a..test\r\n\r\n", "host_bad_name"),
        ("GET / HTTP/1.1\r\nHost: a.test:-1\r\n\r\n", "host_port"),
        (
            "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
            "space_before_colon",
        ),
        (
            "GET / HTTP/1.1\r\nX\t: y\r\nHost: a.test\r\n\r\n",
            "space_before_colon",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\n b.test\r\n\r\n",
            "folded_header",
        ),
        ("GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", "folded_header"),
        ("GET / HTTP/1.1\r\nHost: a\r.test\r\n\r\n", "bare_cr"),
        ("GET /\rX HTTP/1.1\r\nHost: a.test\r\n\r\n", "bare_cr"),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\n\rX: y\r\n\r\n",
            "bare_cr",
        ),
        ("GET / HTTP/1.1\r\nHost: a\0.test\r\n\r\n", "nul_byte"),
        ("GET /\0 HTTP/1.1\r\nHost: a.test\r\n\r\n", "nul_byte"),
        ("GET / HTTP/1.1\r\nHost a.test\r\n\r\n", "header_name"),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\n: y\r\n\r\n",
            "header_name",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nX(: y\r\n\r\n",
            "header_name",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nX: \x01\r\n\r\n",
            "header_value",
        ),
    ] {
        assert_eq!(verdict(head.as_bytes()), want, "{head}");
    }
}

#[test]
fn noise_is_refused_before_the_head_is_complete() {
    for (head, want) in [
        ("\u{16}", "tls_on_http_port"),
        ("\r\n\u{16}", "tls_on_http_port"),
        ("\0", "not_http"),
        (" ", "not_http"),
        ("\rG", "not_http"),
        ("GET\r", "not_http"),
        ("SSH-2.0-x\r", "not_http"),
        ("{", "not_http"),
        ("GET /\t", "request_line"),
        ("GET /\r\n", "request_line"),
        ("GET / HTTP/1.1 \r\n", "request_line"),
        ("GET / HTTP/2.0\n", "http_version"),
        ("PRI * HTTP/2.0\r\n", "http2_preface"),
        ("CONNECT a.test:443 HTTP/1.1\r\n", "connect_method"),
    ] {
        assert_eq!(verdict(head.as_bytes()), want, "{head:?}");
        let one_less = &head.as_bytes()[..head.len() - 1];
        assert_eq!(verdict(one_less), "...", "{head:?}");
    }
}

#[test]
fn the_limit_holds_to_the_byte() {
    let head = b"\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for (limit, want) in [
        (head.len(), "a.test"),
        (head.len() - 1, "request_head_too_large"),
    ] {
        let mut storage = FieldStorage::new();
        let reading = RequestReader::new(limit).advance(head, &mut storage);
        assert_eq!(word_of(&reading), want);
    }
    assert_eq!(verdict(&b"\r\n".repeat(20_000)), "request_head_too_large");
}

#[test]
fn headers_are_counted() {
    for (others, want) in [(255, "a.test"), (256, "too_many_headers")] {
        let others = "X: y\r\n".repeat(others);
        let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{others}\r\n");
        assert_eq!(verdict(head.as_bytes()), want);
    }
}

/// A walk that began anew with each byte would take some 2^29 steps for each of these.
#[test]
fn a_head_byte_by_byte_costs_its_length_only() {
    let start = Instant::now();
    for filling in ["\n".repeat(32_767), format!("GET /{}", "a".repeat(32_762))] {
        assert_eq!(word_byte_by_byte(filling.as_bytes()), "...");
    }
    let lines = format!("GET / HTTP/1.0\r\n{}", "a:\n".repeat(10_900));
    assert_eq!(word_byte_by_byte(lines.as_bytes()), "...");
    assert!(start.elapsed() < Duration::from_secs(5));
}

proptest! {
    #[test]
    fn sound_heads_are_routed(
        empty in 0usize..3,
        host in "[a-z0-9_-]{1,20}(\\.[a-z][a-z0-9-]{0,20}){0,3}",
        port in prop::option::of(any::<u16>()),
        others in prop::collection::vec("[A-Za-z-]{1,9}:[ -~]{0,20}", 0..20),
        place in any::<prop::sample::Index>(),
        body in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut lines: Vec<String> =
            others.into_iter().filter(|line| !line.to_lowercase().starts_with("host:")).collect();
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        lines.insert(place.index(lines.len() + 1), format!("Host: {host}{port}"));
        let head = format!("{}GET / HTTP/1.1\r\n{}\r\n\r\n", "\r\n".repeat(empty), lines.join("\r\n"));
        for end in 0..head.len() {
            prop_assert_eq!(word(&head.as_bytes()[..end]), "...");
        }
        let data = [head.as_bytes(), &body].concat();
        prop_assert_eq!(word(&data), host);
        fuzz_request(&data);
    }

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_request(&data);
    }

    #[test]
    fn nearly_heads(
        line in r"(GET|OPTIONS|CONNECT|P) (/|\*|http://[a.:@\[\]]{0,6}/?) HTTP/[01]\.[019]",
        fields in prop::collection::vec("[Host X]{0,4}: ?[a.,:\\[\\]\r\n\t]{0,6}", 0..4),
        end in "\r?\n",
    ) {
        let fields = fields.join(&end);
        fuzz_request(format!("{line}{end}{fields}{end}{end}").as_bytes());
    }
}
