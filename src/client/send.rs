//! Sending what is in hand, to its end.

use std::io;

use crate::state::Local;
use crate::sys::Socket;

/// Sends all of it, however long that takes.
///
/// # Errors
/// The socket's.
pub(crate) async fn send_all(local: &Local, to: &Socket, bytes: &[u8]) -> io::Result<()> {
    send_counting(local, to, bytes, &mut 0).await
}

/// As [`send_all`]; how much of it the socket has taken is in `sent_bytes` however it ends.
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
                // What is wrong with it, sending again will say.
                let _ = local.ring.writable(to).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
