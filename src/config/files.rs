//! The one place where the configuration reads files.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

/// Largest page of `error-page` in bytes. It is sent at once, from memory.
const PAGE_BYTES_MAX: u64 = 256 * 1024;

/// The text of the configuration file.
pub(super) fn text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// The content of a page.
pub(super) fn page(path: &Path) -> io::Result<Arc<[u8]>> {
    if fs::metadata(path)?.len() > PAGE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(fs::read(path)?.into())
}
