//! A prepared ClientHello of a given size. With it the load needs no cryptography, and a proxy that does not
//! decrypt TLS sees no difference.

/// A typical hello of a browser before post-quantum key shares (RFC 7685 pads it to this size).
pub const CLASSIC_BYTES: usize = 517;
/// A hello with an ML-KEM-768 key share; it does not fit one Ethernet segment.
pub const POST_QUANTUM_BYTES: usize = 1_800;

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const PADDING: u16 = 21;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
/// Hybrid X25519MLKEM768 and its client share's length (draft-ietf-tls-ecdhe-mlkem).
const X25519_MLKEM768: u16 = 0x11ec;
const X25519_MLKEM768_BYTES: usize = 1_216;
const X25519: u16 = 0x001d;

/// One TLS record of exactly `size` bytes (its 5-byte header included) that holds a ClientHello
/// asking for `name`; from 1,600 bytes on with a post-quantum key share.
///
/// # Panics
/// When `size` is too small for the name, or larger than one record of a small hello may be.
pub fn client_hello(name: &str, size: usize) -> Vec<u8> {
    let share = if size >= 1_600 {
        (X25519_MLKEM768, X25519_MLKEM768_BYTES)
    } else {
        (X25519, 32)
    };
    let mut extensions = Vec::new();
    extension(&mut extensions, SERVER_NAME, &server_name(name));
    extension(
        &mut extensions,
        SUPPORTED_GROUPS,
        &vector(&[X25519_MLKEM768.to_be_bytes(), X25519.to_be_bytes()].concat()),
    );
    extension(
        &mut extensions,
        SIGNATURE_ALGORITHMS,
        &vector(&[0x04, 0x03, 0x08, 0x04, 0x04, 0x01]),
    );
    extension(&mut extensions, SUPPORTED_VERSIONS, &[2, 0x03, 0x04]);
    let mut entry = share.0.to_be_bytes().to_vec();
    entry.extend(vector(&vec![0x5a; share.1]));
    extension(&mut extensions, KEY_SHARE, &vector(&entry));

    let mut body = vec![0x03, 0x03];
    body.extend([0x42; 32]); // random
    body.push(32);
    body.extend([0x17; 32]); // session id, as TLS 1.3 clients send it (RFC 8446 appendix D.4)
    body.extend(vector(&[0x13, 0x01, 0x13, 0x02, 0x13, 0x03]));
    body.extend([1, 0]); // null compression

    // Record header 5, handshake header 4, length of the extensions 2, padding's own header 4.
    let without_padding = 5 + 4 + body.len() + 2 + extensions.len() + 4;
    let padding = size
        .checked_sub(without_padding)
        .expect("the hello's size must leave room for its fields");
    extension(&mut extensions, PADDING, &vec![0; padding]);
    body.extend(vector(&extensions));

    let mut handshake = vec![1, 0];
    handshake.extend(vector(&body));
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(vector(&handshake));
    record
}

fn server_name(name: &str) -> Vec<u8> {
    let mut entry = vec![0]; // host_name
    entry.extend(vector(name.as_bytes()));
    vector(&entry)
}

fn extension(to: &mut Vec<u8>, kind: u16, content: &[u8]) {
    to.extend(kind.to_be_bytes());
    to.extend(vector(content));
}

/// `content` behind its length in two bytes.
fn vector(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a field of a hello is below 64 KiB");
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend(content);
    whole
}

#[cfg(test)]
mod tests {
    use pointsman::internals::sniff::{Sniff, Sniffer};

    use super::*;

    #[test]
    fn hellos_have_their_size_and_are_accepted() {
        for size in [CLASSIC_BYTES, POST_QUANTUM_BYTES] {
            let hello = client_hello("small.bench.test", size);
            assert_eq!(hello.len(), size);
            let mut sniffer = Sniffer::new(65_536);
            assert_eq!(sniffer.advance(&hello[..size - 1]), Sniff::More);
            let Sniff::Found(head) = sniffer.advance(&hello) else {
                panic!("a hello of {size} bytes is refused");
            };
            assert_eq!(head.name.expect("a name").as_str(), "small.bench.test");
        }
    }
}
