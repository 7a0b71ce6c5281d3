//! What the kernel does with sockets, as far as the code relies on it and no other test shows it. Each
//! test belongs to an entry of `kernel-notes.md`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use super::*;

fn accepted_from_group() -> (Socket, TcpStream) {
    let listener = Listener::bind_group("127.0.0.1:0".parse().unwrap(), 1)
        .unwrap()
        .remove(0);
    let address = listener.address();
    let listening = listener.listen(16, Duration::from_secs(60)).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"speaks").unwrap();
    let standard = TcpListener::from(listening.try_clone().unwrap());
    standard.set_nonblocking(false).unwrap();
    let (accepted, _) = standard.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    (Socket::from_accepted(accepted.into()), client)
}

fn events(socket: &Socket) -> i16 {
    let mut poll = libc::pollfd {
        fd: socket.raw(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, live for the call.
    unsafe { libc::poll(&raw mut poll, 1, 500) };
    poll.revents
}

#[test]
fn an_accepted_socket_inherits_what_was_set_on_its_listener() {
    let (socket, _client) = accepted_from_group();
    let socket = socket2::SockRef::from(&socket);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(
        socket.tcp_keepalive_time().unwrap(),
        Duration::from_secs(60)
    );
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
}

#[test]
fn a_deferred_connection_is_accepted_with_its_first_bytes_there() {
    let (socket, _client) = accepted_from_group();
    let mut bytes = [0; 16];
    assert_eq!(socket.recv(&mut bytes).unwrap(), 6);
}

#[test]
fn what_came_before_a_reset_can_be_read_after_it() {
    let (socket, mut client) = accepted_from_group();
    client.write_all(b" then dies").unwrap();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_ne!(events(&socket) & libc::POLLERR, 0);
    let mut bytes = [0; 64];
    assert_eq!(socket.recv(&mut bytes).unwrap(), 16);
    assert_eq!(
        socket.recv(&mut bytes).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_write_that_meets_a_reset_takes_the_error_from_the_next_read() {
    let (socket, client) = accepted_from_group();
    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 6);
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_ne!(events(&socket) & libc::POLLERR, 0);
    let error = socket.send(b"too late").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_connection_whose_directions_both_ended_hangs_up_without_an_error() {
    let (socket, client) = accepted_from_group();
    client.shutdown(Shutdown::Write).unwrap();
    socket.shutdown_write();
    std::thread::sleep(Duration::from_millis(50));
    let events = events(&socket);
    assert_ne!(events & libc::POLLHUP, 0);
    assert_eq!(events & libc::POLLERR, 0);
}

#[test]
fn a_reset_behind_the_end_of_stream_reads_as_the_end_and_writes_as_epipe() {
    let (socket, client) = accepted_from_group();
    drop(client);
    let mut bytes = [0; 64];
    assert_eq!(socket.recv(&mut bytes).unwrap(), 6);
    assert_eq!(socket.recv(&mut bytes).unwrap(), 0);
    assert_eq!(socket.send(b"too late").unwrap(), 8);
    std::thread::sleep(Duration::from_millis(50));
    let error = socket.send(b"again").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    assert_eq!(socket.recv(&mut bytes).unwrap(), 0);
}

#[test]
fn closing_with_unread_bytes_resets_the_connection() {
    let (socket, client) = accepted_from_group();
    socket.send(b"answer").unwrap();
    drop(socket);
    let mut answer = Vec::new();
    let read = (&client).read_to_end(&mut answer);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_socket_that_takes_nothing_reports_what_is_unacknowledged() {
    let (socket, client) = accepted_from_group();
    let piece = [0; 65536];
    while socket.send(&piece).is_ok() {}
    assert!(socket.unacknowledged_bytes() > 0);
    drop(client);
}

#[test]
fn an_ended_connection_has_forgotten_its_peer_but_not_itself() {
    let (reset, client) = accepted_from_group();
    let own = reset.local_addr();
    assert_eq!(reset.peer_addr(), client.local_addr().ok());
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_ne!(events(&reset) & libc::POLLERR, 0);
    assert_eq!((reset.peer_addr(), reset.local_addr()), (None, own));
    let (ended, client) = accepted_from_group();
    assert_eq!(ended.recv(&mut [0; 16]).unwrap(), 6);
    ended.shutdown_write();
    drop(client);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ended.peer_addr(), None);
}
