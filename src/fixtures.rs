//! What real programs sent, for the unit tests of the parsers. The files are in `tests/fixtures`; its
//! README says how each was captured.

use proptest::prelude::*;

/// What one program sent.
pub(crate) struct Fixture {
    pub file: &'static str,
    pub data: &'static [u8],
    /// What a parser has to find in it.
    pub verdict: &'static str,
    /// Of a hello, the ALPN protocols offered.
    pub alpn: &'static str,
}

macro_rules! fixtures {
    ($folder:literal: $($file:literal $verdict:literal $(alpn $alpn:literal)?)*) => {
        [$(Fixture {
            file: $file,
            data: include_bytes!(concat!("../tests/fixtures/", $folder, "/", $file)),
            verdict: $verdict,
            alpn: concat!($($alpn)?),
        }),*]
    };
}

/// By the name, `-` for none.
pub(crate) const HELLOS: &[Fixture] = &fixtures! { "hellos":
    "curl-tls.bin" "curl.fixture.example" alpn "h2,http/1.1"
    "java.bin" "java.fixture.example" alpn "h2,http/1.1"
    "node.bin" "node.fixture.example" alpn "h2,http/1.1"
    "openssl-address.bin" "192.0.2.7"
    "openssl-fragments.bin" "fragments.openssl.fixture.example"
    "openssl-no-name.bin" "-"
    "openssl-tls10.bin" "tls10.openssl.fixture.example"
    "openssl-tls11.bin" "tls11.openssl.fixture.example"
    "openssl-tls12.bin" "tls12.openssl.fixture.example"
    "openssl-tls13.bin" "tls13.openssl.fixture.example" alpn "h2,http/1.1"
    "openssl-trailing-dot.bin" "dot.openssl.fixture.example"
    "openssl-underscore.bin" "_under.score_.openssl.fixture.example"
    "openssl-upper-case.bin" "upper.openssl.fixture.example"
    "python-ssl.bin" "python.fixture.example" alpn "http/1.1"
    "rustls.bin" "rustls.fixture.example" alpn "h2,http/1.1"
    "rustls-fragments.bin" "rustls.fixture.example"
};

/// By the host, `-` for none, or the name of the refusal.
pub(crate) const REQUESTS: &[Fixture] = &fixtures! { "requests":
    "curl-http10.bin" "curl.fixture.example"
    "curl-http11.bin" "curl.fixture.example"
    "curl-http2-prior-knowledge.bin" "http2_preface"
    "curl-ipv6-literal.bin" "[2001:db8::1]"
    "curl-post-body.bin" "post.fixture.example"
    "curl-post-chunked.bin" "chunked.fixture.example"
    "curl-proxy-absolute.bin" "absolute.fixture.example"
    "curl-proxy-connect.bin" "connect_method"
    "curl-upgrade-h2c.bin" "h2c.fixture.example"
    "node-http.bin" "node.fixture.example"
    "python-http10-no-host.bin" "-"
    "python-urllib.bin" "urllib.fixture.example"
};

/// By the statuses.
pub(crate) const RESPONSES: &[Fixture] = &fixtures! { "responses":
    "apache-keep-alive.bin" "200"
    "apache-missing.bin" "404"
    "haproxy-503.bin" "503"
    "nginx.bin" "200"
    "nginx-chunked.bin" "200"
    "nginx-head.bin" "200"
    "nginx-http10.bin" "200"
    "nginx-not-modified.bin" "304"
    "nginx-redirect.bin" "302"
    "node.bin" "200"
    "node-early-hints.bin" "103 200"
    "node-trailers.bin" "200"
    "python-http10.bin" "200"
};

/// Beginnings of HTTP/2 without TLS, by the authority.
pub(crate) const H2C: &[Fixture] = &fixtures! { "h2c":
    "curl.bin" "h2c.fixture.example"
    "h2load.bin" "127.0.0.1"
    "nghttp.bin" "nghttp.fixture.example"
    "node.bin" "node.fixture.example"
};

/// PROXY headers and what follows them, by the client's address, `-` for none.
pub(crate) const PROXY_HEADERS: &[Fixture] = &fixtures! { "proxy":
    "curl-v1.bin" "127.0.0.1"
    "haproxy-v1.bin" "127.0.0.1"
    "haproxy-v1-check.bin" "127.0.0.1"
    "haproxy-v2.bin" "127.0.0.1"
    "haproxy-v2-check.bin" "-"
    "haproxy-v2-tlvs.bin" "127.0.0.1"
};

/// Calls a fuzz entry with every prefix of every fixture.
pub(crate) fn for_every_prefix(fixtures: &[Fixture], fuzz: fn(&[u8])) {
    for fixture in fixtures {
        (0..=fixture.data.len()).for_each(|end| fuzz(&fixture.data[..end]));
    }
}

/// The bytes of a fixture with a few of them replaced, flipped, inserted, removed or cut off.
pub(crate) fn mutated(fixtures: &'static [Fixture]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0u8..5, any::<u8>());
    let changes = prop::collection::vec(change, 1..8);
    (0..fixtures.len(), changes).prop_map(|(which, changes)| {
        let mut data = fixtures[which].data.to_vec();
        for (place, kind, byte) in changes {
            let at = place.index(data.len());
            match kind {
                0 => data[at] = byte,
                1 => data[at] ^= 1 << (byte & 7),
                2 => data.insert(at, byte),
                3 if data.len() > 1 => drop(data.remove(at)),
                _ => data.truncate(at + 1),
            }
        }
        data
    })
}
