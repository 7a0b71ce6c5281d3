//! The JA4 fingerprint of a ClientHello (FoxIO's technical_details/JA4.md of 2025): what kind of
//! client it is, the same for whichever name it asks for. In `t13d1516h2_8daaf6152771_e5627efa2ab1`
//! stand transport, version, SNI or none, the counts of cipher suites and extensions and the first
//! ALPN protocol; then a hash of the suites, and one of extensions and signature algorithms.

use std::fmt::Write;

use ring::digest::{SHA256, digest};

use super::hello::{EXTENSION_ALPN, EXTENSION_SERVER_NAME, RANDOM_BYTES, Reader};
use super::records::RecordWalk;

const EXTENSION_SIGNATURE_ALGORITHMS: u16 = 13;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;

/// How many bytes of a SHA-256 are used; twice as many characters.
const HASH_BYTES: usize = 6;
/// The hash of an empty list.
const HASH_OF_NOTHING: &str = "000000000000";
/// Counts have two digits.
const COUNT_MAX: usize = 99;

/// A fingerprint, 36 characters of ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ja4(Box<str>);

impl Ja4 {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fingerprint of the hello that `received` begins with; `None` when there is none, or not all
/// of it.
pub fn ja4(received: &[u8]) -> Option<Ja4> {
    let body = RecordWalk::default().advance(received, u32::MAX);
    Traits::read(&body.ok()??).map(|traits| traits.fingerprint())
}

/// The parts of a hello that go into its fingerprint, without GREASE (RFC 8701).
#[derive(Default)]
struct Traits {
    version: u16,
    has_name: bool,
    alpn: Vec<u8>,
    suites: Vec<u16>,
    extensions: Vec<u16>,
    signature_algorithms: Vec<u16>,
}

impl Traits {
    /// `None` for a body that is not well-formed.
    fn read(body: &[u8]) -> Option<Traits> {
        let mut reader = Reader(body);
        let mut traits = Traits {
            version: reader.u16()?,
            ..Traits::default()
        };
        reader.bytes(RANDOM_BYTES)?;
        reader.vector8()?;
        traits.suites = numbers(reader.vector16()?);
        reader.vector8()?;
        let mut extensions = Reader(reader.vector16().unwrap_or_default());
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.vector16()?;
            if is_grease(kind) {
                continue;
            }
            traits.extensions.push(kind);
            traits.read_extension(kind, Reader(data));
        }
        Some(traits)
    }

    fn read_extension(&mut self, kind: u16, mut data: Reader<'_>) {
        match kind {
            EXTENSION_SERVER_NAME => self.has_name = true,
            EXTENSION_ALPN => {
                let mut names = Reader(data.vector16().unwrap_or_default());
                self.alpn = names.vector8().unwrap_or_default().to_vec();
            }
            EXTENSION_SIGNATURE_ALGORITHMS => {
                self.signature_algorithms = numbers(data.vector16().unwrap_or_default());
            }
            EXTENSION_SUPPORTED_VERSIONS => {
                let versions = numbers(data.vector8().unwrap_or_default());
                self.version = versions.into_iter().max().unwrap_or(self.version);
            }
            _ => {}
        }
    }

    fn fingerprint(mut self) -> Ja4 {
        let version = match self.version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let name = if self.has_name { 'd' } else { 'i' };
        let [first, last] = ends(&self.alpn);
        let suites = self.suites.len().min(COUNT_MAX);
        let extensions = self.extensions.len().min(COUNT_MAX);
        self.suites.sort_unstable();
        // These two are in the first part of the fingerprint and left out of its hash.
        self.extensions
            .retain(|kind| !matches!(*kind, EXTENSION_SERVER_NAME | EXTENSION_ALPN));
        self.extensions.sort_unstable();
        let mut extensions_text = list(&self.extensions);
        if !extensions_text.is_empty() && !self.signature_algorithms.is_empty() {
            extensions_text.push('_');
            extensions_text.push_str(&list(&self.signature_algorithms));
        }
        let (suites_hash, extensions_hash) = (hash(&list(&self.suites)), hash(&extensions_text));
        Ja4(format!(
            "t{version}{name}{suites:02}{extensions:02}{first}{last}_{suites_hash}_{extensions_hash}"
        )
        .into())
    }
}

/// Values that clients send at random so that servers stay tolerant of unknown ones: 0x0a0a, 0x1a1a and
/// so on to 0xfafa.
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// The values in a list, two bytes each; an odd byte at the end is ignored.
fn numbers(bytes: &[u8]) -> Vec<u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let numbers = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    numbers.filter(|number| !is_grease(*number)).collect()
}

/// The first and the last character of a protocol's name, or of its hexadecimal form where one of
/// its ends is neither letter nor digit.
fn ends(alpn: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (alpn.first(), alpn.last()) else {
        return ['0', '0'];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first.into(), last.into()];
    }
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("four bits");
    [digit(first >> 4), digit(last & 0xf)]
}

/// In hexadecimal, four digits each, with commas between.
fn list(numbers: &[u16]) -> String {
    let mut text = String::with_capacity(5 * numbers.len());
    for number in numbers {
        if !text.is_empty() {
            text.push(',');
        }
        write!(text, "{number:04x}").expect("writing to a String never fails");
    }
    text
}

fn hash(text: &str) -> String {
    if text.is_empty() {
        return HASH_OF_NOTHING.to_owned();
    }
    let digest = digest(&SHA256, text.as_bytes());
    let mut hash = String::with_capacity(2 * HASH_BYTES);
    for byte in &digest.as_ref()[..HASH_BYTES] {
        write!(hash, "{byte:02x}").expect("writing to a String never fails");
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers_of(text: &str) -> Vec<u16> {
        let number = |word| u16::from_str_radix(word, 16).unwrap();
        text.split(',').map(number).collect()
    }

    /// The example that the specification works through, suites and extensions in the order of
    /// its client.
    fn published() -> Traits {
        Traits {
            version: 0x0304,
            has_name: true,
            alpn: b"h2".to_vec(),
            suites: numbers_of(
                "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
            ),
            extensions: numbers_of(
                "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015",
            ),
            signature_algorithms: numbers_of("0403,0804,0401,0503,0805,0501,0806,0601"),
        }
    }

    #[test]
    fn the_published_example() {
        let fingerprint = published().fingerprint();
        assert_eq!(fingerprint.as_str(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        let without = Traits {
            signature_algorithms: Vec::new(),
            ..published()
        };
        let fingerprint = without.fingerprint();
        assert_eq!(fingerprint.as_str(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    #[test]
    fn the_published_ends_of_protocols() {
        for (alpn, want) in [
            (&b"h2"[..], "h2"),
            (b"http/1.1", "h1"),
            (b"", "00"),
            (b"x", "xx"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"\x30\xab", "3b"),
            (b"\x30\x31\xab\xcd", "3d"),
            (b"\x30\xab\xcd\x31", "01"),
        ] {
            assert_eq!(String::from_iter(ends(alpn)), want);
        }
    }

    #[test]
    fn nothing_is_said_by_zeros_and_too_much_by_99() {
        let nothing = Traits::default().fingerprint();
        assert_eq!(nothing.as_str(), "t00i000000_000000000000_000000000000");
        let much = Traits {
            suites: (1..=100).collect(),
            ..Traits::default()
        };
        assert!(much.fingerprint().as_str().starts_with("t00i990000_"));
    }

    #[test]
    fn grease_is_no_value() {
        assert_eq!(
            numbers(b"\x0a\x0a\x13\x01\xfa\xfa\x1a\x0a\x00"),
            [0x1301, 0x1a0a]
        );
    }
}
