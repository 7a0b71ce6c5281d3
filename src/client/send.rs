//! Sends bytes to their end, however often the socket is full meanwhile. The caller sets the deadline.

use std::io;

use crate::state::Local;
use crate::sys::Socket;

/// Sends all of `bytes`.
///
/// # Errors
/// The socket's.
pub(crate) async fn send_all(local: &Local, to: &Socket, bytes: &[u8]) -> io::Result<()> {
    send_counting(local, to, bytes, &mut 0).await
}

/// As [`send_all`]; `sent_bytes` says how much the socket has taken, also after an error and when the
/// future is dropped.
///
/// # Errors
/// The socket's.
pub(crate) async fn send_counting(
    local: &Local,
    to: &Socket,
    bytes: &[u8],
    sent_bytes: &mut usize,
) -> io::Result<()> {
    while *sent_bytes < bytes.len() {
        match to.send(&bytes[*sent_bytes..]) {
            Ok(sent) => {
                *sent_bytes += sent;
                if *sent_bytes < bytes.len() {
                    to.set_nodelay();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The next send says what is wrong with the socket, if anything is.
                let _ = local.ring.writable(to).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
