//! Heads held against the rules, against each other and against noise.

use proptest::prelude::*;

use super::response::{RequestSummary, ResponseFault, ResponseHead};
use super::rewrite::{self, Persistence};
use super::*;
use crate::refusal::Refusal;

mod fixtures;
mod heads;
mod passing;
mod responses;

const BYTES_MAX: usize = 32_768;

fn downstream(trusted: bool) -> Downstream {
    Downstream {
        client: Some("2001:db8::7".parse().unwrap()),
        port: 80,
        trusted,
    }
}

/// A reading as one word: the name, `-` for no name, `...` for more, or the refusal's name.
fn word_of(reading: &Reading<'_, '_>) -> String {
    match reading {
        Reading::Found(head) => {
            let host = head.host.as_ref();
            host.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        Reading::More => "...".to_owned(),
        Reading::Refused(refusal) => refusal.name().to_owned(),
    }
}

fn word(data: &[u8]) -> String {
    let mut storage = FieldStorage::new();
    word_of(&RequestReader::new(BYTES_MAX).advance(data, &mut storage))
}

/// As [`word`], when `data` is handed over byte by byte, each time with all that came before.
fn word_byte_by_byte(data: &[u8]) -> String {
    let mut reader = RequestReader::new(BYTES_MAX);
    for end in 1..=data.len() {
        let mut storage = FieldStorage::new();
        match reader.advance(&data[..end], &mut storage) {
            Reading::More => {}
            decided => return word_of(&decided),
        }
    }
    "...".to_owned()
}

/// What a backend is sent, or the refusal.
fn rewritten(
    bytes: &[u8],
    forwarding: &Forwarding,
    downstream: &Downstream,
) -> Result<String, Refusal> {
    let mut storage = FieldStorage::new();
    match RequestReader::new(BYTES_MAX).advance(bytes, &mut storage) {
        Reading::Found(head) => {
            let mut out = Vec::new();
            rewrite::request(&head, forwarding, downstream, &mut out);
            Ok(String::from_utf8_lossy(&out).into_owned())
        }
        Reading::Refused(refusal) => Err(refusal),
        Reading::More => panic!("{} is no whole head", bytes.escape_ascii()),
    }
}

fn sent(head: &str) -> Result<String, Refusal> {
    rewritten(
        head.as_bytes(),
        &Forwarding::default(),
        &Downstream::default(),
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_backend_gets_what_was_understood() {
    for (head, want) in [
        (
            "\r\nGET /a HTTP/1.1\nhost:\t A.test:80 \nX:y\n\n",
            "GET /a HTTP/1.1\r\nHost: A.test:80\r\nX: y\r\n\r\n",
        ),
        (
            "GET http://b.test:81/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET /x?y HTTP/1.1\r\nHost: b.test:81\r\n\r\n",
        ),
        (
            "GET http://b.test?y HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET /?y HTTP/1.1\r\nHost: b.test\r\n\r\n",
        ),
        (
            "OPTIONS http://b.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: b.test\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "GET / HTTP/1.5\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\ncontent-length: 7\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X, close\r\nx: 1\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: z\r\nconnection: host, y\r\nY: 1\r\nZ: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nZ: 1\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: te\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\
             Connection: Upgrade, HTTP2-Settings\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Content-Length: 9\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 9\r\n\
             Connection: upgrade\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\
             Content-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\
             Connection: upgrade\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\
             Connection: upgrade\r\n\r\n",
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 007\r\nX: y\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\nX: y\r\nMax-Forwards: 6\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 9, 2\r\nmax-forwards: 3\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 99999999999\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 4294967294\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: +1\r\nMax.Forwards: 1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n",
        ),
    ] {
        assert_eq!(sent(head).as_deref(), Ok(want), "{head}");
    }
}

#[test]
fn requests_whose_end_is_ambiguous_are_refused() {
    for (fields, want) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            Refusal::LengthAndEncoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            Refusal::LengthAndEncoding,
        ),
        (
            "Content-Length: 5\r\nContent-Length: 6",
            Refusal::ContentLengthsDiffer,
        ),
        ("Content-Length: 5, 5", Refusal::ContentLength),
        ("Content-Length: +5", Refusal::ContentLength),
        ("Content-Length: -1", Refusal::ContentLength),
        ("Content-Length: 0x5", Refusal::ContentLength),
        ("Content-Length: 5 5", Refusal::ContentLength),
        ("Content-Length:", Refusal::ContentLength),
        (
            "Content-Length: 18446744073709551616",
            Refusal::ContentLength,
        ),
        ("Content-Length: \u{661}", Refusal::ContentLength),
        (
            "Transfer-Encoding: chunked, chunked",
            Refusal::TransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refusal::TransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Refusal::TransferEncoding,
        ),
        (
            "Transfer-Encoding: gzip, chunked",
            Refusal::TransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked, identity",
            Refusal::TransferEncoding,
        ),
        ("Transfer-Encoding: xchunked", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked;q=1", Refusal::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", Refusal::TransferEncoding),
        ("Transfer-Encoding:", Refusal::TransferEncoding),
        ("Transfer-Encoding: \x0bchunked", Refusal::HeaderValue),
        ("Transfer-Encoding : chunked", Refusal::SpaceBeforeColon),
        ("Transfer-Encoding:\r\n chunked", Refusal::FoldedHeader),
        ("X: y\rTransfer-Encoding: chunked", Refusal::BareCr),
        ("Content-Length: 5\0", Refusal::NulByte),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        assert_eq!(sent(&head), Err(want), "{fields}");
    }
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(sent(old), Err(Refusal::TransferEncodingVersion));
}

#[test]
fn heads_with_many_fields_are_read_and_too_many_refused() {
    for (count, is_read) in [
        (10, true),
        (47, true),
        (48, true),
        (255, true),
        (256, false),
    ] {
        let fields = "X: y\r\n".repeat(count);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        match sent(&request) {
            Ok(text) => assert!(is_read && text.matches("X: y\r\n").count() == count),
            Err(refusal) => assert!(!is_read && refusal == Refusal::TooManyHeaders),
        }
        let response = format!("HTTP/1.1 204 N\r\nHost: a\r\n{fields}\r\n");
        match answered(&response, GET) {
            // As many as the limit of the head has room for.
            Ok((_, _, text)) => assert_eq!(text.matches("X: y\r\n").count(), count),
            Err(fault) => panic!("{fault:?}"),
        }
    }
}

#[test]
fn persistence_is_what_version_and_connection_say() {
    for (version, connection, want) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        (
            "1.0",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        let mut storage = FieldStorage::new();
        match RequestReader::new(BYTES_MAX).advance(head.as_bytes(), &mut storage) {
            Reading::Found(head) => assert_eq!(head.persistent, want, "{version} {connection}"),
            other => panic!("{other:?}"),
        }
    }
}

const SPOOFED: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.9.9.9\r\n\
 x-forwarded-for: 10.8.8.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\
 X-Real-IP: 10.9.9.9\r\nForwarded: for=10.9.9.9\r\nX_Forwarded_For: 10.7.7.7\r\n\r\n";

#[test]
fn what_an_untrusted_client_says_of_itself_is_replaced() {
    assert_eq!(
        rewritten(SPOOFED.as_bytes(), &Forwarding::ALL, &downstream(false)).unwrap(),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 2001:db8::7\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Port: 80\r\nX-Real-IP: 2001:db8::7\r\n\
         Forwarded: for=\"[2001:db8::7]\";host=\"a.test\";proto=http\r\n\r\n"
    );
}

#[test]
fn what_a_trusted_client_says_is_kept_and_added_to() {
    assert_eq!(
        rewritten(SPOOFED.as_bytes(), &Forwarding::ALL, &downstream(true)).unwrap(),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.9.9.9, 10.8.8.8, 2001:db8::7\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 10.9.9.9\r\n\
         Forwarded: for=10.9.9.9, for=\"[2001:db8::7]\";host=\"a.test\";proto=http\r\n\r\n"
    );
}

#[test]
fn a_client_cannot_have_the_fields_dropped_by_naming_them_in_connection() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for, x-real-ip, content-length\r\n\
     Content-Length: 3\r\n\r\n";
    let only = Forwarding {
        x_forwarded_for: true,
        ..Forwarding::default()
    };
    assert_eq!(
        rewritten(head.as_bytes(), &only, &downstream(false)).unwrap(),
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-Forwarded-For: 2001:db8::7\r\n\r\n"
    );
}

fn answered(head: &str, request: RequestSummary) -> Result<(Length, bool, String), ResponseFault> {
    let mut storage = FieldStorage::new();
    let parsed = ResponseHead::parse(head.as_bytes(), BYTES_MAX, request, &mut storage)?;
    let parsed = parsed.expect("a whole head");
    let mut out = Vec::new();
    rewrite::response(&parsed, Persistence::Default, &mut out);
    let out = String::from_utf8(out).unwrap();
    Ok((parsed.body, parsed.persistent, out))
}

const GET: RequestSummary = RequestSummary {
    is_head: false,
    minor_version: 1,
};
const HEAD: RequestSummary = RequestSummary {
    is_head: true,
    minor_version: 1,
};
const OLD: RequestSummary = RequestSummary {
    is_head: false,
    minor_version: 0,
};

#[test]
fn responses_end_where_the_rfc_says() {
    for (head, request, body, persistent) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            GET,
            Length::Bytes(5),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            HEAD,
            Length::None,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            OLD,
            Length::Bytes(5),
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            OLD,
            Length::Bytes(5),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            GET,
            Length::Chunked,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            GET,
            Length::Chunked,
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", GET, Length::UntilClose, false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            GET,
            Length::Bytes(5),
            false,
        ),
        (
            "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
            GET,
            Length::None,
            true,
        ),
        (
            "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n",
            GET,
            Length::None,
            true,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", GET, Length::None, true),
    ] {
        let (got, keeps, _) = answered(head, request).unwrap();
        assert_eq!((got, keeps), (body, persistent), "{head} {request:?}");
    }
}

#[test]
fn a_client_gets_what_was_understood() {
    for (head, request, want) in [
        (
            "HTTP/1.0 200 Fine\r\nServer: s\r\nconnection: x\r\nX: 1\r\nKeep-Alive: 9\r\n\
             Content-Length: 05\r\nContent-Length: 5\r\n\r\n",
            GET,
            "HTTP/1.1 200 Fine\r\nServer: s\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n",
            GET,
            "HTTP/1.1 204 \r\n\r\n",
        ),
        (
            "HTTP/1.1 426 U\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
            GET,
            "HTTP/1.1 426 U\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        assert_eq!(answered(head, request).unwrap().2, want, "{head}");
    }
}

proptest! {
    #[test]
    fn nearly_requests(
        line in r"(GET|POST|OPTIONS|TRACE) (/|\*|http://[a-b.:]{0,6}/?) HTTP/1\.[012]",
        fields in prop::collection::vec(
            concat!(
                "(Host|Content[-_.]Length|Transfer-Encoding|Connection|Upgrade|TE|Keep-Alive|X|",
                "X[-_]Real[-_]IP|X-Forwarded[-_]Host|Proxy|Max-Forwards|Expect): ?",
                "(chunked|close|keep-alive|upgrade|[0-9]{1,3}|a|te, x|trailers|100-continue|",
                "websocket|h2c)",
            ),
            0..7,
        ),
        end in "\r?\n",
    ) {
        let head = format!("{line}{end}{}{end}{end}", fields.join(&end));
        fuzz_request(head.as_bytes());
        for cut in 0..head.len() {
            let mut storage = FieldStorage::new();
            let reading = RequestReader::new(BYTES_MAX).advance(&head.as_bytes()[..cut], &mut storage);
            prop_assert!(!matches!(reading, Reading::Found(_)) || fields.is_empty());
        }
    }

    #[test]
    fn any_request(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_request(&data);
    }

    #[test]
    fn nearly_responses(
        line in r"HTTP/1\.[01] (200|204|304|100|101|999)( [ -~]{0,5})?",
        fields in prop::collection::vec(
            concat!(
                "(Content[-_]Length|Transfer-Encoding|Connection|Upgrade|Keep-Alive|X|Set-Cookie|",
                "WWW-Authenticate): ?(chunked|identity|close|keep-alive|timeout=5|",
                "[0-9]{1,3}(, ?[0-9]{1,3})?|a|NTLM|a\r?\n b|)",
            ),
            0..7,
        ),
        end in "\r?\n",
    ) {
        fuzz_response(format!("{line}{end}{}{end}{end}", fields.join(&end)).as_bytes());
    }

    #[test]
    fn any_response(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_response(&data);
        fuzz_response(&[b"HTTP/1.1 ", &data[..]].concat());
    }
}
