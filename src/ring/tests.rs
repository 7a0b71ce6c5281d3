//! The ring against the real kernel, with every feature and with all of them masked.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::completed::Completed;
use super::*;
use crate::config::KernelVersion;
use crate::sys::{Listener, Socket, SocketAddress, wake_pair};

/// Runs a future to its end, taking turns while it waits.
fn block_on<F: Future>(ring: &Ring, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        ring.turn().unwrap();
    }
}

/// Takes turns until the kernel has nothing left, for at most two seconds.
fn settle(ring: &Ring) {
    let end = Instant::now() + Duration::from_secs(2);
    let guard = ring.deadline();
    while ring.operations() > 0 {
        assert!(
            Instant::now() < end,
            "{} operations leaked",
            ring.operations()
        );
        guard.set(Instant::now() + Duration::from_millis(10));
        ring.turn().unwrap();
    }
}

fn on_every_kernel(test: impl Fn(&Ring)) {
    for mask in [
        None,
        Some(KernelVersion::new(5, 19)),
        Some(KernelVersion::new(5, 8)),
    ] {
        let ring = Ring::new(probe(mask).unwrap(), 64, 16).unwrap();
        test(&ring);
        settle(&ring);
        assert_eq!(ring.operations(), 0);
    }
}

fn listen() -> (Rc<OwnedFd>, SocketAddr) {
    let listener = Listener::bind_group("127.0.0.1:0".parse().unwrap(), 1)
        .unwrap()
        .remove(0);
    let address = listener.address();
    (
        listener.listen(64, Duration::from_secs(60)).unwrap(),
        address,
    )
}

#[test]
fn accepts_connections_and_says_when_they_can_be_read() {
    on_every_kernel(|ring| {
        let (listener, address) = listen();
        let mut accepts = ring.accepts(listener);
        for round in 0..3 {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(&[round]).unwrap();
            let socket = Socket::from_accepted(block_on(ring, accepts.next()).unwrap());
            block_on(ring, ring.readable(&socket));
            let mut byte = [0];
            assert_eq!(socket.recv(&mut byte).unwrap(), 1);
            assert_eq!(byte[0], round);
            assert_eq!(
                socket.recv(&mut byte).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
    });
}

#[test]
fn connects_and_reports_a_refusal() {
    on_every_kernel(|ring| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SocketAddress::from(listener.local_addr().unwrap());
        let socket = Socket::to_connect(&address, None, false).unwrap();
        block_on(ring, ring.connect(&socket, address.clone())).unwrap();
        assert_eq!(socket.send(b"hello").unwrap(), 5);
        let mut received = [0; 5];
        listener
            .accept()
            .unwrap()
            .0
            .read_exact(&mut received)
            .unwrap();
        drop(listener);
        let socket = Socket::to_connect(&address, None, false).unwrap();
        let refused = block_on(ring, ring.connect(&socket, address)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_dropped_operation_is_cancelled_and_keeps_its_descriptor_until_then() {
    on_every_kernel(|ring| {
        let (listener, address) = listen();
        let mut accepts = ring.accepts(listener);
        let client = TcpStream::connect(address).unwrap();
        client.set_nodelay(true).unwrap();
        (&client).write_all(b"x").unwrap();
        let socket = Socket::from_accepted(block_on(ring, accepts.next()).unwrap());
        let descriptor = Rc::downgrade(socket.descriptor());
        let mut byte = [0];
        assert_eq!(socket.recv(&mut byte).unwrap(), 1);
        // Dropped before it was ever submitted, and dropped while the kernel has it.
        drop(ring.readable(&socket));
        let waiting = ring.readable(&socket);
        let soon = ring.deadline();
        soon.set(Instant::now() + Duration::from_millis(20));
        assert!(block_on(ring, soon.bound(waiting)).is_none());
        drop(socket);
        assert!(descriptor.upgrade().is_some(), "the ring still owns it");
        drop(accepts);
        settle(ring);
        assert!(
            descriptor.upgrade().is_none(),
            "closed with the last completion"
        );
    });
}

#[test]
fn a_connection_accepted_for_nobody_is_closed() {
    on_every_kernel(|ring| {
        let (listener, address) = listen();
        let mut accepts = ring.accepts(listener);
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            pin!(accepts.next())
                .as_mut()
                .poll(&mut context)
                .is_pending()
        );
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        ring.turn().unwrap();
        drop(accepts);
        settle(ring);
        client
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let mut byte = [0];
        assert!(!matches!(client.read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock));
    });
}

#[test]
fn deadlines_pass_in_order_and_never_early() {
    on_every_kernel(|ring| {
        let started = Instant::now();
        let late = ring.deadline();
        late.set(started + Duration::from_millis(60));
        let early = ring.deadline();
        early.set(started + Duration::from_millis(20));
        block_on(ring, early.passed());
        let after = started.elapsed();
        assert!(
            after >= Duration::from_millis(20) && after < Duration::from_millis(55),
            "{after:?}"
        );
        block_on(ring, late.passed());
        assert!(started.elapsed() >= Duration::from_millis(60));
        late.set(Instant::now() + Duration::from_secs(3600));
        drop((late, early));
        assert_eq!(ring.deadlines(), 0);
    });
}

#[test]
fn another_thread_wakes_the_ring() {
    on_every_kernel(|ring| {
        let (waker, reader) = wake_pair().unwrap();
        let descriptor = reader.into_descriptor();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        block_on(ring, ring.descriptor_readable(&descriptor));
        crate::sys::WakeReader::clear(&descriptor);
        thread.join().unwrap();
    });
}

#[test]
fn more_operations_than_the_queue_holds_all_complete() {
    on_every_kernel(|ring| {
        let (waker, reader) = wake_pair().unwrap();
        let descriptor = reader.into_descriptor();
        let operations: Vec<Operation> = (0..1000)
            .map(|_| ring.descriptor_readable(&descriptor))
            .collect();
        waker.wake();
        for operation in operations {
            block_on(ring, operation);
        }
    });
}

/// Before 5.19 the kernel takes nothing while completions overflow: EBUSY, until they are reaped.
#[test]
fn what_completes_while_the_queue_is_full_is_reaped() {
    on_every_kernel(|ring| {
        let (waker, reader) = wake_pair().unwrap();
        let descriptor = reader.into_descriptor();
        waker.wake();
        let mut operations = Vec::new();
        for n in 0..1000 {
            ring.0.overflows.set(n == 500);
            operations.push(ring.descriptor_readable(&descriptor));
        }
        for operation in operations {
            block_on(ring, operation);
        }
    });
}

/// A connection of which the far end is a plain one.
fn connection(ring: &Ring) -> (Socket, TcpStream) {
    let (listener, address) = listen();
    let mut accepts = ring.accepts(listener);
    let client = TcpStream::connect(address).unwrap();
    // It is accepted once its first byte is there.
    (&client).write_all(b"x").unwrap();
    let socket = Socket::from_accepted(block_on(ring, accepts.next()).unwrap());
    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 1);
    (socket, client)
}

/// Whether the wait is not over within 50 ms, and the turns that took: few, for nobody was told.
fn stays_quiet<T>(ring: &Ring, wait: &mut Operation<T>) -> bool
where
    T: Completed,
{
    let soon = ring.deadline();
    soon.set(Instant::now() + Duration::from_millis(50));
    let mut context = Context::from_waker(Waker::noop());
    let mut turns = 0;
    while soon.poll_passed(&context).is_pending() {
        if Pin::new(&mut *wait).poll(&mut context).is_ready() {
            return false;
        }
        ring.turn().unwrap();
        turns += 1;
    }
    turns < 20
}

fn fill(socket: &Socket) -> usize {
    let piece = [0; 65536];
    std::iter::from_fn(|| socket.send(&piece).ok()).sum()
}

#[test]
fn a_half_closed_peer_that_does_not_read_is_waited_for_in_peace() {
    on_every_kernel(|ring| {
        let (socket, mut client) = connection(ring);
        client.shutdown(Shutdown::Write).unwrap();
        assert!(block_on(ring, ring.readable(&socket)).peer_finished());
        let mut unread = fill(&socket);
        let mut room = ring.writable(&socket);
        let mut failure = ring.failed(&socket);
        assert!(stays_quiet(ring, &mut room) && stays_quiet(ring, &mut failure));
        // One that is given up leaves the other as it is.
        drop(ring.writable(&socket));
        while unread > 0 {
            unread -= client.read(&mut [0; 65536]).unwrap();
        }
        assert!(!block_on(ring, &mut room).has_ended());
        drop(room);
        assert!(socket.send(b"x").is_ok());
        assert!(stays_quiet(ring, &mut failure));
        reset(client);
        assert!(block_on(ring, failure).has_failed());
    });
}

#[test]
fn a_failure_is_told_after_both_sides_have_finished() {
    on_every_kernel(|ring| {
        let (socket, client) = connection(ring);
        // Neither what came nor the end behind it is read.
        (&client).write_all(b"unread").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // Its own end is behind more than the client takes.
        fill(&socket);
        socket.shutdown_write();
        let mut failure = ring.failed(&socket);
        assert!(stays_quiet(ring, &mut failure));
        reset(client);
        assert!(block_on(ring, failure).has_failed());
    });
}

#[test]
fn bytes_are_no_end() {
    on_every_kernel(|ring| {
        let (socket, client) = connection(ring);
        let mut end = ring.finished(&socket);
        (&client).write_all(b"unread").unwrap();
        assert!(stays_quiet(ring, &mut end));
        client.shutdown(Shutdown::Write).unwrap();
        let events = block_on(ring, &mut end);
        assert!(events.peer_finished() && !events.has_ended());
    });
}

fn reset(client: TcpStream) {
    let now = Some(Duration::ZERO);
    socket2::SockRef::from(&client).set_linger(now).unwrap();
}

#[test]
fn a_stream_of_events_tells_each_change_and_leaves_nothing_behind() {
    let ring = Ring::new(probe(None).unwrap(), 64, 16).unwrap();
    if !probe(None).unwrap().multishot_poll {
        return;
    }
    let (listener, address) = listen();
    let mut accepts = ring.accepts(listener);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"a").unwrap();
    let socket = Socket::from_accepted(block_on(&ring, accepts.next()).unwrap());
    let mut stream = ring.readiness(&socket).unwrap();
    let mut buffer = [0; 16];
    for byte in b"abc" {
        let mut next = std::future::poll_fn(|context| stream.poll_events(context));
        let events = block_on(&ring, &mut next).unwrap();
        assert!(events.is_only_bytes());
        assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], *byte);
        client.write_all(&[byte + 1]).unwrap();
    }
    // The end of the stream is an event of its own, behind the last byte.
    drop(client);
    let mut next = std::future::poll_fn(|context| stream.poll_events(context));
    let events = block_on(&ring, &mut next).unwrap();
    assert!(events.peer_finished());
    drop(next);
    drop(stream);
    drop(accepts);
    settle(&ring);
    assert_eq!(ring.operations(), 0);
}

#[test]
fn who_stands_in_line_is_called_one_by_one() {
    on_every_kernel(|ring| {
        let mut context = Context::from_waker(Waker::noop());
        let mut places: Vec<Operation<BulkTurn>> =
            (0..4).map(|_| ring.yield_to_queue(false)).collect();
        let mut called = |places: &mut Vec<Operation<BulkTurn>>| {
            places.retain_mut(|place| Pin::new(place).poll(&mut context).is_pending());
            places.len()
        };
        // Nothing has completed, and yet a turn comes back.
        ring.turn().unwrap();
        assert_eq!(called(&mut places), 4);
        assert!(ring.serve_queue());
        assert_eq!(called(&mut places), 3);
        // Who leaves is passed over.
        drop(places.remove(0));
        assert!(ring.serve_queue());
        assert_eq!(called(&mut places), 2);
        assert!(ring.serve_queue() && ring.serve_queue() && !ring.serve_queue());
        assert_eq!(called(&mut places), 0);
        assert_eq!(ring.operations(), 0);
    });
}

#[test]
fn who_is_called_is_told_whether_anybody_else_wants_the_core() {
    on_every_kernel(|ring| {
        let called = |mut place: Operation<BulkTurn>| {
            assert!(ring.serve_queue());
            block_on(ring, &mut place)
        };
        // What a descriptor that can be read at once is told.
        let event = || {
            let (end, mut other) = UnixStream::pair().unwrap();
            other.write_all(b"x").unwrap();
            let mut readable = ring.descriptor_readable(&Rc::new(end.into()));
            block_on(ring, &mut readable);
        };
        assert_eq!(called(ring.yield_to_queue(false)), BulkTurn::Uncontended);
        // The event for which it came here.
        event();
        assert_eq!(called(ring.yield_to_queue(false)), BulkTurn::Uncontended);
        let second = {
            let first = ring.yield_to_queue(false);
            let second = ring.yield_to_queue(false);
            assert_eq!(called(first), BulkTurn::Contended);
            second
        };
        assert_eq!(called(second), BulkTurn::Uncontended);
        event();
        event();
        assert_eq!(called(ring.yield_to_queue(false)), BulkTurn::Contended);
        assert_eq!(called(ring.yield_to_queue(false)), BulkTurn::Uncontended);
    });
}
