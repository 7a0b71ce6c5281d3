//! Fuzz entry for headers of both versions.

use super::header::{Endpoints, Header};
use super::read::{HEADER_BYTES_MAX, Reading, Signature, read};
use super::tlv::OutgoingTlvs;
use super::v2::WRITTEN_BYTES_MAX;
use super::write::write;
use crate::route::ProxyVersion;

/// Asserts that the answer stays once it is not [`Reading::More`], that a header ends within the bytes,
/// and that it says the same when it is written and read again.
#[doc(hidden)]
pub fn fuzz_proxy_header(data: &[u8]) {
    let whole = read(data);
    let signature = Signature::of(data);
    match &whole {
        Reading::Absent => assert_eq!(signature, Signature::Absent),
        Reading::More => assert_ne!(signature, Signature::Absent),
        Reading::Found { .. } | Reading::Refused(_) => assert_eq!(signature, Signature::Present),
    }
    let mut answer = Reading::More;
    for end in 0..=data.len().min(HEADER_BYTES_MAX + 1) {
        let next = read(&data[..end]);
        assert!(
            answer == Reading::More || answer == next,
            "the answer changed from {answer:?} to {next:?} at {end} bytes"
        );
        answer = next;
    }
    assert_eq!(answer, whole, "cut into bytes");
    match whole {
        Reading::More => assert!(data.len() < HEADER_BYTES_MAX),
        Reading::Found { header, bytes } => {
            assert!(bytes <= data.len() && bytes <= HEADER_BYTES_MAX);
            check_written(&header);
        }
        Reading::Absent | Reading::Refused(_) => {}
    }
}

fn check_written(header: &Header) {
    let Endpoints::Tcp(addresses) = header.endpoints else {
        return;
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let tlvs = OutgoingTlvs {
            received: Some(&header.tlvs),
            ..OutgoingTlvs::default()
        };
        let mut written = Vec::new();
        write(&mut written, version, Some(&addresses), &tlvs);
        assert!(written.len() <= WRITTEN_BYTES_MAX);
        match read(&written) {
            Reading::Found {
                header: again,
                bytes,
            } => {
                assert_eq!((again.endpoints, bytes), (header.endpoints, written.len()));
            }
            other => panic!("what was written reads as {other:?}"),
        }
    }
}
