//! A DNS server whose answers the test decides.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// A DNS server with one answer for all names: an A record with a TTL of one second, or SERVFAIL. Questions
/// for names that begin with `dead` are not answered.
pub struct Dns {
    pub address: SocketAddr,
    pub answer: Arc<Mutex<Option<IpAddr>>>,
}

impl Dns {
    pub fn start(answer: &str) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dns = Dns {
            address: socket.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(Some(answer.parse().unwrap()))),
        };
        let answer = Arc::clone(&dns.answer);
        std::thread::spawn(move || {
            let mut question = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if question[13..].starts_with(b"dead") {
                    continue;
                }
                let reply = dns_reply(&question[..length], *answer.lock().unwrap());
                socket.send_to(&reply, from).unwrap();
            }
        });
        dns
    }
}

/// RFC 1035 section 4: the header, the question as it came, and one A record for questions of type A.
fn dns_reply(question: &[u8], answer: Option<IpAddr>) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let asks_a = question[name_end..name_end + 2] == [0, 1];
    let (code, answers) = match answer {
        None => (2, 0),
        Some(_) => (0, u8::from(asks_a)),
    };
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend(&question[12..name_end + 4]);
    if let (Some(IpAddr::V4(address)), 1) = (answer, answers) {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(address.octets());
    }
    reply
}
