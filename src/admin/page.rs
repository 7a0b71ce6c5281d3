//! One page of the admin endpoint, apart from HTTP.

/// A response: status, type and body.
pub(super) struct Page {
    pub status: &'static str,
    pub content_type: &'static str,
    pub body: String,
}

impl Page {
    pub(super) fn text(status: &'static str, body: impl Into<String>) -> Page {
        Page {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}
