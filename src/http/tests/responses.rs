//! Responses that break a rule: what is clear all the same, and what is not.

use super::{BYTES_MAX, GET, HEAD, OLD, answered};
use crate::http::response::{ResponseFault, ResponseHead};
use crate::http::{FieldStorage, Length};

#[test]
fn responses_that_could_be_read_differently_are_refused() {
    use ResponseFault::{
        ContentLength, ContentLengthsDiffer, FieldName, FieldValue, FoldedLength, Status,
        StatusLine, TransferEncoding,
    };
    for (fields, fault) in [
        (
            "Content-Length: 5\r\nContent-Length: 6",
            ContentLengthsDiffer,
        ),
        ("Content-Length: 5, 6", ContentLengthsDiffer),
        ("Content-Length: 5,", ContentLength),
        ("Content-Length: 5;6", ContentLength),
        ("Content-Length: -5", ContentLength),
        ("Content-Length: 5\r\n , 5", FoldedLength),
        ("Transfer-Encoding: gzip, chunked", TransferEncoding),
        ("Transfer-Encoding: chunked, identity", TransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            TransferEncoding,
        ),
        ("Transfer-Encoding: xchunked", TransferEncoding),
        ("X : y", FieldName),
        ("X: \0", FieldValue),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert_eq!(answered(&head, GET).unwrap_err(), fault, "{head}");
    }
    for (line, fault) in [
        ("HTTP/1.1 099 OK", Status),
        ("HTTP/2.0 200 OK", StatusLine),
        ("220 smtp.test ESMTP", StatusLine),
        ("HTTP/1.1 20 OK", StatusLine),
    ] {
        let head = format!("{line}\r\n\r\n");
        assert_eq!(answered(&head, GET).unwrap_err(), fault, "{head}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(BYTES_MAX));
    assert_eq!(answered(&long, GET).unwrap_err(), ResponseFault::TooLarge);
}

/// What real servers send: clear, so that it is written anew, and the last on its connection.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn responses_that_break_a_rule_and_are_clear_are_written_anew() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let five = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let odd = [
        (
            "1 200 OK",
            "Transfer-Encoding: chunked\r\nContent-Length: 7",
            GET,
            Length::Chunked,
            chunked,
        ),
        (
            "1 200 OK",
            "Content-Length: 7\r\nTransfer-Encoding: chunked",
            HEAD,
            Length::None,
            chunked,
        ),
        (
            "0 200 OK",
            "Transfer-Encoding: chunked",
            GET,
            Length::Chunked,
            chunked,
        ),
        (
            "1 200 OK",
            "Transfer-Encoding: Identity\r\nContent-Length: 5",
            GET,
            Length::Bytes(5),
            five,
        ),
        (
            "1 200 OK",
            "Content-Length: 5, 5 ,5",
            GET,
            Length::Bytes(5),
            five,
        ),
        (
            "1 200 OK",
            "X-A: a\r\n b\r\n\t \r\n   c\r\nContent-Length: 5",
            GET,
            Length::Bytes(5),
            "HTTP/1.1 200 OK\r\nX-A: a b c\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "1 200 OK",
            "Transfer-Encoding:\r\n chunked",
            GET,
            Length::Chunked,
            chunked,
        ),
        (
            "1 200 OK",
            "Transfer-Encoding: identity",
            GET,
            Length::UntilClose,
            "HTTP/1.1 200 OK\r\n\r\n",
        ),
        (
            "1 200 OK",
            "Transfer-Encoding: chunked",
            OLD,
            Length::Chunked,
            "HTTP/1.1 200 OK\r\n\r\n",
        ),
    ];
    for (line, fields, request, body, want) in odd {
        let head = format!("HTTP/1.{line}\r\n{fields}\r\n\r\n");
        let (got, keeps, out) = answered(&head, request).unwrap();
        assert_eq!((got, keeps, &*out), (body, false, want), "{head}");
        for cut in 0..head.len() {
            let mut storage = FieldStorage::new();
            let part =
                ResponseHead::parse(&head.as_bytes()[..cut], BYTES_MAX, request, &mut storage);
            assert!(matches!(part, Ok(None)), "{head} up to {cut}: {part:?}");
        }
    }
    for status in [100, 600, 999] {
        let head = format!("HTTP/1.1 {status} Odd\r\n\r\n");
        assert_eq!(answered(&head, GET).unwrap().2, head);
    }
}
