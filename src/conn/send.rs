//! Sending what is in hand, to its end.

use crate::local::Local;
use crate::sys::Socket;
use std::io;

/// Sends all of it, however long that takes.
///
/// # Errors
/// The socket's.
pub async fn send_all(local: &Local, to: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.send(bytes) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                if !bytes.is_empty() {
                    to.send_at_once();
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
