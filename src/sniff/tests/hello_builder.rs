//! Builds ClientHellos to order, sound and broken, and spreads them over records.

use proptest::prelude::*;

pub(super) const SERVER_NAME: u16 = 0;
pub(super) const ALPN: u16 = 16;
pub(super) const KEY_SHARE: u16 = 51;
pub(super) const ECH: u16 = 0xfe0d;
pub(super) const GREASE: u16 = 0x2a2a;

#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) session_id: Vec<u8>,
    pub(super) suites: Vec<u8>,
    pub(super) compressions: Vec<u8>,
    /// `None` leaves the block out, as a hello before TLS 1.2 may.
    pub(super) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    pub(super) fn new(extensions: Vec<(u16, Vec<u8>)>) -> Hello {
        Hello {
            version: 0x0303,
            session_id: vec![7; 32],
            suites: vec![0x13, 0x01, 0x13, 0x02],
            compressions: vec![0],
            extensions: Some(extensions),
        }
    }

    /// A hello with an SNI and `padding` bytes of key share before it.
    pub(super) fn named(name: &str, padding: usize) -> Hello {
        Hello::new(vec![
            (GREASE, vec![]),
            (KEY_SHARE, vec![0; padding]),
            (SERVER_NAME, server_name(&[name.as_bytes()])),
            (ALPN, alpn(&[b"h2", b"http/1.1"])),
        ])
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend_from_slice(&[9; 32]);
        body.extend(vector8(&self.session_id));
        body.extend(vector16(&self.suites));
        body.extend(vector8(&self.compressions));
        if let Some(extensions) = &self.extensions {
            let mut block = Vec::new();
            for (kind, data) in extensions {
                block.extend(kind.to_be_bytes());
                block.extend(vector16(data));
            }
            body.extend(vector16(&block));
        }
        body
    }

    /// The handshake message.
    pub(super) fn message(&self) -> Vec<u8> {
        message(&self.body())
    }

    /// The hello in records as long as they may be.
    pub(super) fn records(&self) -> Vec<u8> {
        records(&self.message(), 16_384)
    }
}

pub(super) fn message(body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    message[0] = 1;
    message.extend_from_slice(body);
    message
}

pub(super) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 1];
    record.extend(vector16(content));
    record
}

/// Spreads a handshake stream over records of `length` bytes.
pub(super) fn records(stream: &[u8], length: usize) -> Vec<u8> {
    stream
        .chunks(length)
        .flat_map(|chunk| record(22, chunk))
        .collect()
}

pub(super) fn vector8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).unwrap()], data].concat()
}

pub(super) fn vector16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
}

/// The content of a server_name extension with these host names.
pub(super) fn server_name(names: &[&[u8]]) -> Vec<u8> {
    let entries = names
        .iter()
        .flat_map(|name| [vec![0], vector16(name)].concat());
    vector16(&entries.collect::<Vec<u8>>())
}

/// The content of an ALPN extension.
pub(super) fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let entries = names.iter().flat_map(|name| vector8(name));
    vector16(&entries.collect::<Vec<u8>>())
}

/// Sound hellos of all shapes, the name in them, and how they are cut into records.
pub(super) fn any_hello() -> impl Strategy<Value = (Hello, Option<String>, Vec<usize>)> {
    let name = prop::option::of("[a-z0-9_-]{1,63}(\\.[a-z][a-z0-9-]{0,20}){0,3}");
    let others = prop::collection::btree_map(
        (1u16..=u16::MAX).prop_filter("has rules of its own", |kind| *kind != ALPN),
        prop::collection::vec(any::<u8>(), 0..200),
        0..12,
    );
    let shape = (
        0x0300u16..=0x0304,
        prop::collection::vec(any::<u8>(), 0..=32),
        prop::collection::vec(any::<[u8; 2]>(), 1..40),
        prop::collection::vec(any::<u8>(), 1..4),
    );
    let cuts = prop::collection::vec(1usize..600, 0..8);
    (name, others, shape, cuts, any::<prop::sample::Index>()).prop_map(
        |(name, others, (version, session_id, suites, compressions), cuts, place)| {
            let mut extensions: Vec<(u16, Vec<u8>)> = others.into_iter().collect();
            if let Some(name) = &name {
                let place = place.index(extensions.len() + 1);
                extensions.insert(place, (SERVER_NAME, server_name(&[name.as_bytes()])));
            }
            let hello = Hello {
                version,
                session_id,
                suites: suites.concat(),
                compressions,
                extensions: Some(extensions),
            };
            (hello, name, cuts)
        },
    )
}
