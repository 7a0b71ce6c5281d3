//! Which fields of a request reach a backend, in whatever spelling, and from whom.

use super::{BYTES_MAX, downstream, rewritten, sent};
use crate::http::{FieldStorage, Forwarding, Reading, RequestReader, rewrite};

/// Of several Upgrade fields each is one that a backend may obey.
#[test]
fn an_upgrade_to_http_does_not_hide_behind_another() {
    let ways = [
        "h2c",
        "H2C",
        "h2",
        "http/2.0",
        "HTTP/3",
        "websocket, h2c",
        "h2c\r\nUpgrade: websocket",
        "websocket\r\nupgrade: h2c",
        "websocket\r\nUpgrade: foo, h2c/1\r\nUpgrade: bar",
    ];
    for way in ways {
        let head =
            format!("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: {way}\r\nConnection: Upgrade\r\n\r\n");
        let want = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(sent(&head).as_deref(), Ok(want), "{way}");
    }
    let several = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nUpgrade: foo/1\r\n\
     Connection: upgrade\r\n\r\n";
    assert_eq!(sent(several).as_deref(), Ok(several));
}

/// Every spelling of every field that the proxy acts upon or writes.
#[test]
fn no_spelling_of_a_field_that_matters_passes() {
    let names = [
        "Content-Length",
        "Transfer-Encoding",
        "Keep-Alive",
        "Proxy-Connection",
        "Max-Forwards",
        "X-Real-IP",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Host",
        "X-Forwarded-Server",
        "X-Forwarded",
    ];
    for name in names {
        let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
        for (other, which) in ["_", ".", "~", "!"].into_iter().zip(1..).cycle().take(24) {
            // Each dash or none, but one at least.
            let which = 1 + which % ((1 << dashes.len()) - 1);
            let mut spelled = name.to_owned();
            for (bit, at) in dashes.iter().enumerate() {
                if which >> bit & 1 == 1 {
                    spelled.replace_range(*at..at + 1, other);
                }
            }
            for spelled in [spelled.to_ascii_lowercase(), spelled] {
                // Behind the boundary of the family a name may be anything.
                let in_family = spelled.to_ascii_lowercase().starts_with("x-forwarded-");
                let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{spelled}: evil\r\n\r\n");
                for trusted in [false, true] {
                    let got =
                        rewritten(head.as_bytes(), &Forwarding::ALL, &downstream(trusted)).unwrap();
                    assert!(!got.contains("evil") || in_family && trusted, "{got}");
                }
                assert!(
                    !sent(&head).unwrap().contains("evil") || in_family,
                    "{spelled}"
                );
            }
        }
    }
    for passes in [
        "X-Forward",
        "X-Forwardedness",
        "X_Original_URL",
        "X-Original-URL",
        "Proxy-Status",
        "Real-IP",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{passes}: b\r\n\r\n");
        let got = rewritten(head.as_bytes(), &Forwarding::ALL, &downstream(false)).unwrap();
        assert!(got.contains(&format!("{passes}: b\r\n")), "{got}");
    }
    let httpoxy = "GET / HTTP/1.1\r\nHost: a\r\nproxy: http://evil\r\n\r\n";
    assert_eq!(
        sent(httpoxy).as_deref(),
        Ok("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    );
}

/// Where one field is written, what the others say of the client is not believed either.
#[test]
fn what_speaks_for_a_client_passes_only_from_whom_is_trusted() {
    let fields = "X-Forwarded-Host: h\r\nX-Forwarded-Server: s\r\nX-Forwarded-For: f\r\nX-Real-IP: r\r\n\
     Forwarded: for=f\r\nX-Original-URL: u\r\n";
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let protocol = Forwarding {
        x_forwarded_proto: true,
        ..Forwarding::default()
    };
    let written = "X-Forwarded-Proto: http\r\n\r\n";
    let got = |trusted| rewritten(head.as_bytes(), &protocol, &downstream(trusted)).unwrap();
    assert_eq!(
        got(true),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}{written}")
    );
    assert_eq!(
        got(false),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Original-URL: u\r\n{written}")
    );
    assert_eq!(sent(&head).as_ref(), Ok(&head));
}

#[test]
fn a_request_that_came_far_enough_is_answered() {
    for (head, goes_on, want) in [
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
            true,
            "HTTP/1.1 200 OK\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n\
             Content-Length: 0\r\n\r\n",
        ),
        (
            "TRACE http://b/c?d HTTP/1.1\r\nHost: a\r\nCookie: s\r\nauthorization: s\r\n\
             Proxy-Authorization: s\r\nMax-Forwards: 0\r\nX: y\r\n\r\n",
            false,
            "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: 55\r\n\
             Connection: close\r\n\r\nTRACE /c?d HTTP/1.1\r\nHost: b\r\nMax-Forwards: 0\r\nX: y\r\n\r\n",
        ),
    ] {
        let mut storage = FieldStorage::new();
        let reading = RequestReader::new(BYTES_MAX).advance(head.as_bytes(), &mut storage);
        let Reading::Found(parsed) = reading else {
            panic!("{head} is sound");
        };
        assert_eq!(parsed.max_forwards, Some(0));
        let answer = rewrite::final_recipient_response(&parsed, goes_on);
        assert_eq!(String::from_utf8(answer).unwrap(), want);
    }
}
