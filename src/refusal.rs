//! The named reasons for which bytes of a client or a sender are refused. One table holds a refusal's
//! name, what the client is told and what the operator is told, so that none of the three can be
//! forgotten.

/// What the client is told about a refusal, as an alert of TLS or a response of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// TLS alert decode_error; HTTP 400.
    Malformed,
    /// TLS alert decode_error; HTTP 431.
    TooLarge,
    /// HTTP 405; never about TLS.
    MethodNotAllowed,
    /// TLS alert protocol_version; never about HTTP.
    ProtocolVersion,
    /// TLS alert unexpected_message; never about HTTP.
    UnexpectedMessage,
    /// TLS alert record_overflow; never about HTTP.
    RecordOverflow,
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    ProxyHeader,
    ClientHello,
    Request,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident $name:literal $answer:ident $explanation:literal)*) => {
        /// Why bytes are refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $variant,)*
        }

        impl Refusal {
            const ALL: [Refusal; [$($name),*].len()] = [$(Refusal::$variant),*];

            /// The name in log, metrics and docs.
            pub fn name(self) -> &'static str {
                match self {
                    $(Refusal::$variant => $name,)*
                }
            }

            /// What the client is told.
            pub fn answer(self) -> Answer {
                match self {
                    $(Refusal::$variant => Answer::$answer,)*
                }
            }

            /// One sentence for the operator: the cause, and after a semicolon the remedy.
            pub fn explain(self) -> &'static str {
                match self {
                    $(Refusal::$variant => $explanation,)*
                }
            }
        }
    };
}

refusals! {
    /// A PROXY header from an address that is not trusted to send one.
    ProxyUntrusted "proxy_untrusted" Malformed
        "a PROXY header (with unwrap: any connection) came from an address that proxy-from does not list; \
         list the sender if it is a proxy of yours, otherwise somebody forges client addresses"
    /// No PROXY header from an address that has to send one.
    ProxyMissing "proxy_missing" Malformed
        "a sender listed in proxy-from sent no PROXY header; \
         let it send one, or set proxy-in to optional if clients connect from that address too"
    /// A line of version 1 that breaks the grammar of section 2.1.
    ProxyV1Malformed "proxy_v1_malformed" Malformed
        "a PROXY header of version 1 is malformed; the sender is broken"
    /// No line end within the 107 bytes that version 1 may have.
    ProxyV1TooLong "proxy_v1_too_long" Malformed
        "a PROXY header of version 1 does not end within 107 bytes; the sender is broken"
    /// Another version than 2 behind the signature of version 2, or another command than LOCAL and PROXY.
    ProxyV2Version "proxy_v2_version" Malformed
        "a binary PROXY header is not of version 2 or has no known command; the sender is broken or too new"
    /// More content than the limit.
    ProxyV2TooLong "proxy_v2_too_long" Malformed
        "a PROXY header of version 2 has more than 4,096 bytes of content; let the sender send fewer TLVs"
    /// A family or transport that no TCP connection has.
    ProxyV2Family "proxy_v2_family" Malformed
        "a PROXY header of version 2 names neither TCP over IPv4 or IPv6 nor a unix stream; \
         correct it at the sender"
    /// The content ends within the addresses.
    ProxyV2Length "proxy_v2_length" Malformed
        "a PROXY header of version 2 is too short for its addresses; the sender is broken"
    /// A TLV that is longer than the rest of the header, has a wrong length for its type, or is there twice.
    ProxyV2Tlv "proxy_v2_tlv" Malformed
        "a TLV in a PROXY header does not fit into it or has a wrong length; the sender is broken"
    /// The CRC32C in the header does not match the header.
    ProxyV2Checksum "proxy_v2_checksum" Malformed
        "the checksum of a PROXY header is wrong; the sender is broken or the bytes were changed on the way"

    /// The first byte does not begin a TLS record.
    NotTls "not_tls" Malformed
        "the first byte on the TLS port does not begin a TLS record; \
         point that client at the port of its protocol"
    /// The first bytes are an HTTP request line.
    HttpOnTlsPort "http_on_tls_port" Malformed
        "an HTTP request came in on the TLS port; use https:// or the HTTP port"
    /// An SSL 2.0 CLIENT-HELLO, or a later hello in its framing (RFC 6176 forbids both).
    SslV2Hello "sslv2_hello" ProtocolVersion
        "the client uses the framing of SSL 2.0, which has no place for a name; let it use TLS 1.2 or later"
    /// The major version of a record is not 3.
    RecordVersion "record_version" ProtocolVersion
        "a record's major version is not 3; the client is broken or does not speak TLS"
    /// A handshake record without content (RFC 8446 section 5.1).
    RecordEmpty "record_empty" UnexpectedMessage
        "a handshake record is empty, which TLS forbids; the client is broken or hostile"
    /// A record of more than 16,384 bytes of plaintext (RFC 8446 section 5.1).
    RecordTooLong "record_too_long" RecordOverflow
        "a record is longer than the 16,384 bytes TLS allows; the client is broken or hostile"
    /// An alert, a ChangeCipherSpec or data before the hello is complete (RFC 8446 section 5.1).
    RecordNotHandshake "record_not_handshake" UnexpectedMessage
        "a record of another type than handshake came before the end of the hello; \
         the client gave up or is broken"
    /// The first handshake message is not a ClientHello.
    NotClientHello "not_client_hello" UnexpectedMessage
        "the first handshake message is not a ClientHello; the client is broken"
    /// The hello does not end within the limit.
    HelloTooLarge "hello_too_large" TooLarge
        "the ClientHello is larger than the limit; raise hello-bytes-max if such clients are yours"
    /// The version in the hello is lower than that of SSL 3.0 (RFC 5246 appendix E.1).
    HelloVersion "hello_version" ProtocolVersion
        "the hello's version is lower than that of SSL 3.0; let the client speak TLS 1.2 or later"
    /// A length in the hello points behind the end of what holds it.
    HelloLength "hello_length" Malformed
        "a length inside the hello does not match its bytes; the client is broken or hostile"
    /// Bytes behind the ClientHello in its handshake message.
    HelloTrailingData "hello_trailing_data" Malformed
        "the handshake message is longer than the hello in it; the client is broken or hostile"
    /// A session id of more than 32 bytes (RFC 8446 section 4.1.2).
    SessionIdTooLong "session_id_too_long" Malformed
        "the hello's session id is longer than 32 bytes; the client is broken or hostile"
    /// A list of cipher suites that is empty or of an odd length.
    CipherSuites "cipher_suites" Malformed
        "the hello's list of cipher suites is empty or of an odd length; the client is broken or hostile"
    /// An empty list of compression methods.
    CompressionMethods "compression_methods" Malformed
        "the hello's list of compression methods is empty; the client is broken or hostile"
    /// Two extensions of one type other than server_name (RFC 8446 section 4.2).
    ExtensionRepeated "extension_repeated" Malformed
        "the hello repeats an extension, which TLS forbids; the client is broken or hostile"
    /// An ALPN extension that is not a list of names (RFC 7301 section 3.1).
    AlpnMalformed "alpn_malformed" Malformed
        "the ALPN extension is not a list of protocol names; the client is broken or hostile"
    /// Two server_name extensions.
    SniRepeated "sni_repeated" Malformed
        "the hello has two server_name extensions, so its name is ambiguous; \
         the client is broken or hostile"
    /// Two names in one server_name extension (RFC 6066 section 3).
    SniSeveralNames "sni_several_names" Malformed
        "the server_name extension holds two names, so its name is ambiguous; \
         the client is broken or hostile"
    /// A server_name entry whose type is not host_name.
    SniNameType "sni_name_type" Malformed
        "the server_name extension holds an entry of another type than host name, and there is none; \
         the client is broken"
    /// A wrong length in the server_name extension, or an empty list.
    SniLength "sni_length" Malformed
        "a length in the server_name extension does not match its bytes, or its list is empty; \
         the client is broken or hostile"
    /// The host_name is empty.
    SniEmpty "sni_empty" Malformed
        "the name in the SNI is empty; let the client send a name or no server_name extension at all"
    /// The host_name is longer than a DNS name.
    SniTooLong "sni_too_long" Malformed
        "the name in the SNI is longer than 253 bytes; DNS allows no longer one, correct it at the client"
    /// The host_name holds a byte that host names cannot have.
    SniBadByte "sni_bad_byte" Malformed
        "the name in the SNI holds a byte that host names cannot have; \
         correct it at the client, Unicode names in xn-- form"
    /// The host_name has a label that is empty or too long, or looks like an IP address and is none.
    SniBadName "sni_bad_name" Malformed
        "the name in the SNI has a label that is empty or too long, or is a broken IP address; \
         correct it at the client"

    /// The first bytes cannot begin a request line.
    NotHttp "not_http" Malformed
        "the first bytes on the HTTP port do not begin an HTTP request; \
         point that client at the port of its protocol"
    /// A TLS record on the HTTP port.
    TlsOnHttpPort "tls_on_http_port" Malformed
        "a TLS hello came in on the HTTP port; use http:// or the TLS port"
    /// The HTTP/2 connection preface (RFC 9113 section 3.4).
    Http2Preface "http2_preface" Malformed
        "the client speaks HTTP/2 without TLS, whose requests cannot be routed one by one; \
         let it use HTTP/1.1 or TLS, or allow such connections with h2c"
    /// What follows the preface is not SETTINGS and a valid first request.
    H2cMalformed "h2c_malformed" Malformed
        "an HTTP/2 connection does not begin with SETTINGS and a valid request; \
         the client is broken or waits for the server to speak first"
    /// The first line is not method, target and version with one space between.
    RequestLine "request_line" Malformed
        "the first line is not an HTTP/1 request line; the client is broken or speaks HTTP/0.9"
    /// A version other than HTTP/1.
    HttpVersion "http_version" Malformed
        "the request is in a version other than HTTP/1; let the client use HTTP/1.1"
    /// A target that is neither a path, nor a URL, nor `*` for OPTIONS (RFC 9112 section 3.2).
    TargetInvalid "target_invalid" Malformed
        "the request target is neither a path nor an http URL; the client is broken or hostile"
    /// A fragment in the target (RFC 9110 section 4.2.5, RFC 9112 section 3.2).
    TargetFragment "target_fragment" Malformed
        "the request target has a fragment, which clients must not send and servers read differently; \
         the client is broken or hostile"
    /// An absolute target whose scheme is not http or https.
    TargetScheme "target_scheme" Malformed
        "the request target is a URL whose scheme is not http or https; \
         this is not a forward proxy, correct the proxy settings of the client"
    /// User information in the authority (RFC 9110 section 4.2.4).
    TargetUserinfo "target_userinfo" Malformed
        "the request target carries a user name, which hides the real host; \
         leave it out at the client"
    /// CONNECT, which asks a forward proxy for a tunnel.
    ConnectMethod "connect_method" MethodNotAllowed
        "the client asks for a tunnel with CONNECT; \
         this is not a forward proxy, correct the proxy settings of the client"
    /// HTTP/1.1 without a Host field (RFC 9112 section 3.2).
    HostMissing "host_missing" Malformed
        "the HTTP/1.1 request has no Host field; the client is broken or a scanner"
    /// Two Host fields, equal or not (RFC 9112 section 3.2).
    HostRepeated "host_repeated" Malformed
        "the request has two Host fields, so its name is ambiguous; \
         the client or a proxy before it is broken"
    /// A comma in the Host field: two joined into one.
    HostList "host_list" Malformed
        "the Host field is a list, so its name is ambiguous; \
         the client or a proxy before it is broken"
    /// The name in the Host field or the target is empty.
    HostEmpty "host_empty" Malformed
        "the Host field or the target's host is empty; let the client send the name it wants"
    /// The port behind the name is not a number up to 65535.
    HostPort "host_port" Malformed
        "the port in the Host field or the target is not a number up to 65535; \
         correct it at the client"
    /// The name is longer than a DNS name.
    HostTooLong "host_too_long" Malformed
        "the name in the Host field or the target is longer than 253 bytes; \
         DNS allows no longer one, correct it at the client"
    /// The name holds a byte that host names cannot have.
    HostBadByte "host_bad_byte" Malformed
        "the Host field or the target's host holds a byte that host names cannot have; \
         correct it at the client, Unicode names in xn-- form"
    /// The name has a label that is empty or too long, or looks like an IP address and is none.
    HostBadName "host_bad_name" Malformed
        "the name in the Host field or the target has a label that is empty or too long, \
         or is a broken IP address; \
         correct it at the client"
    /// Whitespace between a field name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon "space_before_colon" Malformed
        "a header has whitespace before its colon, which servers read differently; \
         the client is broken or hostile"
    /// A header line that begins with whitespace (RFC 9112 sections 2.2 and 5.2).
    FoldedHeader "folded_header" Malformed
        "a header line begins with whitespace, which servers read differently; \
         the client is too old or hostile"
    /// A carriage return without a line feed behind it (RFC 9112 section 2.2).
    BareCr "bare_cr" Malformed
        "a carriage return is in the middle of a line, which servers read differently; \
         the client is broken or hostile"
    /// A NUL byte in the head.
    NulByte "nul_byte" Malformed
        "the head holds a NUL byte; the client is broken or hostile"
    /// A header line without a colon, or with a name that is not a token.
    HeaderName "header_name" Malformed
        "a header has no name, or a name with bytes that names cannot have; \
         the client is broken or hostile"
    /// A control character in a header's value (RFC 9110 section 5.5).
    HeaderValue "header_value" Malformed
        "a header's value holds a control character; the client is broken or hostile"
    /// More header lines than the limit.
    TooManyHeaders "too_many_headers" TooLarge
        "the request has more than 256 headers; the client is broken or hostile"
    /// The head does not end within the limit.
    RequestHeadTooLarge "request_head_too_large" TooLarge
        "the request head is larger than the limit; \
         raise request-head-bytes-max if such clients are yours"
    /// A Content-Length that is not a number of at most 64 bits (RFC 9110 section 8.6).
    ContentLength "content_length" Malformed
        "the Content-Length is not a plain number, which servers read differently; \
         the client is broken or hostile"
    /// Two Content-Lengths with different values (RFC 9112 section 6.3).
    ContentLengthsDiffer "content_lengths_differ" Malformed
        "the request has two different Content-Lengths, so where it ends is ambiguous; \
         the client or a proxy before it is broken or hostile"
    /// Content-Length beside Transfer-Encoding (RFC 9112 section 6.1).
    LengthAndEncoding "length_and_encoding" Malformed
        "the request has a Content-Length and a Transfer-Encoding, so where it ends is ambiguous; \
         the client or a proxy before it is broken or hostile"
    /// A Transfer-Encoding that is not exactly `chunked`, once (RFC 9112 section 6.1).
    TransferEncoding "transfer_encoding" Malformed
        "the Transfer-Encoding is not exactly chunked, so where the request ends is ambiguous; \
         the client is broken or hostile"
    /// Transfer-Encoding in HTTP/1.0, which does not have it (RFC 9112 section 6.1).
    TransferEncodingVersion "transfer_encoding_version" Malformed
        "an HTTP/1.0 request has a Transfer-Encoding, which that version does not know; \
         the client or a proxy before it is broken or hostile"
    /// An Expect that is not exactly `100-continue`, once (RFC 9110 section 10.1.1).
    Expect "expect" Malformed
        "the Expect is not exactly 100-continue, so whether the body waits is ambiguous; \
         the client is broken or hostile"
    /// A chunk size that is not a hexadecimal number, or a wrong byte behind it (RFC 9112 section 7.1).
    ChunkSize "chunk_size" Malformed
        "a chunk's size is not a plain hexadecimal number on a line of its own; \
         the client is broken or hostile"
    /// A chunk size beyond 64 bits.
    ChunkOverflow "chunk_overflow" Malformed
        "a chunk's size has more than 16 digits; the client is broken or hostile"
    /// A chunk extension that is empty, too long, or not of printable ASCII.
    ChunkExtension "chunk_extension" Malformed
        "a chunk's extension is empty, longer than 1,024 bytes or holds bytes beyond printable ASCII; \
         the client is broken or hostile"
    /// A chunk whose data is not followed by a line end.
    ChunkEnd "chunk_end" Malformed
        "a chunk's data is longer than its size; the client is broken or hostile"
    /// A trailer line that is not a field, or a field that must not be a trailer (RFC 9110
    /// section 6.5.1).
    Trailer "trailer" Malformed
        "a trailer is malformed, or is a field that is only allowed in a head; \
         the client is broken or hostile"
    /// More trailers than the limit.
    TrailersTooLarge "trailers_too_large" TooLarge
        "the trailers are larger than 8 KiB; the client is broken or hostile"
}

impl Refusal {
    /// How many refusals there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every refusal, in the order of [`Refusal::index`].
    pub fn all() -> impl Iterator<Item = Refusal> {
        Self::ALL.into_iter()
    }

    /// What it is about; the table is in this order.
    pub fn subject(self) -> Subject {
        if self.index() < Refusal::NotTls.index() {
            Subject::ProxyHeader
        } else if self.index() < Refusal::NotHttp.index() {
            Subject::ClientHello
        } else {
            Subject::Request
        }
    }

    /// Position in [`Refusal::all`], below [`Refusal::COUNT`].
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, refusal) in Refusal::all().enumerate() {
            assert_eq!(refusal.index(), position);
        }
        assert_eq!(Refusal::all().count(), Refusal::COUNT);
    }

    #[test]
    fn names_are_words_for_metrics_and_explanations_have_a_remedy() {
        for refusal in Refusal::all() {
            let name = refusal.name();
            assert!(
                name.bytes()
                    .all(|byte| byte == b'_' || byte.is_ascii_digit() || byte.is_ascii_lowercase())
            );
            let (cause, remedy) = refusal.explain().split_once("; ").expect(name);
            assert!(!cause.is_empty() && !remedy.is_empty(), "{name}");
        }
    }

    #[test]
    fn only_oversize_is_answered_as_oversize() {
        let oversize: Vec<Refusal> = Refusal::all()
            .filter(|refusal| refusal.answer() == Answer::TooLarge)
            .collect();
        let want = [
            Refusal::HelloTooLarge,
            Refusal::TooManyHeaders,
            Refusal::RequestHeadTooLarge,
            Refusal::TrailersTooLarge,
        ];
        assert_eq!(oversize, want);
    }
}
