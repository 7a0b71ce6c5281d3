//! What the tests, the fuzz targets and the benchmark of this repository look into. No interface for
//! anybody else: it changes with the code.

pub mod config {
    pub use crate::config::{KernelVersion, RedisSettings, SyncSettings};
}

pub mod host {
    pub use crate::host::{Host, fuzz_host};
}

pub mod http {
    pub use crate::http::{
        FieldStorage, Framing, Length, Reading, RequestHead, RequestReader, fuzz_chunks, fuzz_h2c,
        fuzz_request, fuzz_response,
    };
}

pub mod protocol {
    pub use crate::protocol::Protocol;
}

pub mod proxy_protocol {
    pub use crate::proxy_protocol::{
        Addresses, Endpoints, Header, OutgoingTlvs, Reading, TlvKind, fuzz_proxy_header, read,
        write,
    };
}

pub mod refusal {
    pub use crate::refusal::Refusal;
}

pub mod route {
    pub use crate::route::{ProxyVersion, Route, Table, fuzz_host_options, fuzz_member};
}

pub mod sniff {
    pub use crate::sniff::{Head, Sniff, Sniffer, fuzz_hello, ja4};
}

pub mod sync {
    pub use crate::sync::{
        ChangeDetection, RedisState, SyncHandle, fuzz_routes_file, start, try_redis,
    };
}

pub mod sys {
    pub use crate::sys::Socket;
}
