//! Who has a port: for the message of a start that does not get it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fmt, fs};

/// The state of a listening socket in `/proc/net/tcp` (TCP_LISTEN of the kernel's tcp_states.h).
const LISTENING: &str = "0A";

/// Whoever has a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    Process {
        pid: u32,
        program: String,
    },
    /// Its process is another user's and cannot be looked into, or none any more: the kernel is about
    /// to close the sockets of a process that was killed.
    Hidden {
        user: u32,
    },
    /// No connection and no listener: bound only, or gone by now.
    Unseen,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, program } => write!(f, "process {pid} ({program}) has it"),
            Holder::Hidden { user } => write!(
                f,
                "a process of user id {user} has it that cannot be seen from here, or one that was just killed"
            ),
            Holder::Unseen => f.write_str("nobody is seen to have it; look with ss -tanp"),
        }
    }
}

impl Holder {
    /// Who has `address`, of its network namespace. Looks through all of `/proc`.
    pub(crate) fn of(address: SocketAddr) -> Holder {
        let mut found = Vec::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            found.extend(text.lines().filter_map(Row::parse));
        }
        found.retain(|row| row.is_in_the_way_of(address));
        found.sort_by_key(|row| !row.listens);
        let Some(first) = found.first() else {
            return Holder::Unseen;
        };
        let process = found.iter().find_map(|row| process_with(row.inode));
        process.unwrap_or(Holder::Hidden { user: first.user })
    }
}

/// One socket of `/proc/net/tcp` or `tcp6`.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    listens: bool,
    user: u32,
    inode: u64,
}

impl Row {
    /// `sl local remote state queues timer retransmits uid timeout inode ...`; `None` for the title.
    fn parse(line: &str) -> Option<Row> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(Row {
            local: address(words.get(1)?)?,
            listens: *words.get(3)? == LISTENING,
            user: words.get(7)?.parse().ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    }

    /// Whether both cannot be bound; an address of no interface stands for all.
    fn is_in_the_way_of(&self, wanted: SocketAddr) -> bool {
        let (mine, theirs) = (wanted.ip(), self.local.ip().to_canonical());
        let overlaps = mine == theirs || mine.is_unspecified() || theirs.is_unspecified();
        // Without an inode it is what is left of a connection that has ended.
        self.local.port() == wanted.port() && overlaps && self.inode != 0
    }
}

/// `0100007F:1F90`: words of 32 bits in the machine's order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

/// The process that has the socket among its descriptors, as far as this one may look.
fn process_with(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let (Some(pid), Ok(descriptors)) = (pid, fs::read_dir(entry.path().join("fd"))) else {
            continue;
        };
        let mut links = descriptors.flatten().map(|one| fs::read_link(one.path()));
        if links.any(|link| link.is_ok_and(|link| link.as_os_str() == wanted.as_str())) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let program = name.trim_end().to_owned();
            return Some(Holder::Process { pid, program });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn rows_of_both_tables_are_understood() {
        let row = Row::parse(
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0",
        );
        let listening = Row {
            local: "127.0.0.1:8080".parse().unwrap(),
            listens: true,
            user: 1000,
            inode: 4711,
        };
        assert_eq!(row, Some(listening));
        let row = Row::parse(
            "   1: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0",
        );
        let row = row.unwrap();
        assert_eq!(
            (row.local, row.listens),
            ("[::1]:443".parse().unwrap(), false)
        );
        assert_eq!(Row::parse("  sl  local_address rem_address   st"), None);
        assert_eq!(Row::parse(""), None);
    }

    #[test]
    fn a_listener_is_named_by_its_process() {
        for (bound, wanted) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::]:0", "127.0.0.1"),
            ("127.0.0.1:0", "0.0.0.0"),
        ] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            let holder = Holder::of(SocketAddr::new(wanted.parse().unwrap(), port));
            let Holder::Process { pid, program } = holder else {
                panic!("{bound}: {holder}");
            };
            assert_eq!(pid, std::process::id());
            assert!(!program.is_empty());
        }
    }

    #[test]
    fn who_has_nothing_is_not_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(Holder::of(address), Holder::Unseen);
    }
}
