//! Which process has a TCP port, for the message of a start that finds its port taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fmt, fs};

/// A listening socket in the state column of `/proc/net/tcp` (TCP_LISTEN in the kernel's tcp_states.h).
const LISTENING: &str = "0A";

/// Who has a TCP port, as far as `/proc` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortOwner {
    Process {
        pid: u32,
        program: String,
    },
    /// The socket is seen and its process is not: it belongs to another user, or it was killed and the
    /// kernel is about to close its sockets.
    Hidden {
        user: u32,
    },
    /// There is neither a listener nor a connection: the port is bound only, or free by now.
    Unknown,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortOwner::Process { pid, program } => write!(f, "process {pid} ({program}) has it"),
            PortOwner::Hidden { user } => write!(
                f,
                "a process of user id {user} has it; which one cannot be seen, or it was just killed"
            ),
            PortOwner::Unknown => f.write_str("no process is seen that has it; look with ss -tanp"),
        }
    }
}

impl PortOwner {
    /// Who has `address` in this network namespace. Reads through all of `/proc`.
    pub(crate) fn of(address: SocketAddr) -> PortOwner {
        let mut found = Vec::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            found.extend(text.lines().filter_map(Row::parse));
        }
        found.retain(|row| row.conflicts_with(address));
        found.sort_by_key(|row| !row.listens);
        let Some(first) = found.first() else {
            return PortOwner::Unknown;
        };
        let process = found.iter().find_map(|row| process_with(row.inode));
        process.unwrap_or(PortOwner::Hidden { user: first.user })
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
    /// Columns: `sl local remote state queues timer retransmits uid timeout inode ...`. `None` for the
    /// line of titles.
    fn parse(line: &str) -> Option<Row> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(Row {
            local: address(words.get(1)?)?,
            listens: *words.get(3)? == LISTENING,
            user: words.get(7)?.parse().ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    }

    /// Whether this socket keeps `wanted` from being bound. An unspecified address (0.0.0.0, ::) overlaps
    /// with every other.
    fn conflicts_with(&self, wanted: SocketAddr) -> bool {
        let (ours, theirs) = (wanted.ip(), self.local.ip().to_canonical());
        let overlaps = ours == theirs || ours.is_unspecified() || theirs.is_unspecified();
        // A row without an inode is a connection that has ended, as in TIME_WAIT.
        self.local.port() == wanted.port() && overlaps && self.inode != 0
    }
}

/// `0100007F:1F90`: the address in words of 32 bits in the machine's byte order, then the port.
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

/// The process that has the socket with this inode among its descriptors, if this process may see it.
fn process_with(inode: u64) -> Option<PortOwner> {
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
            return Some(PortOwner::Process { pid, program });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn rows_of_both_tables_are_parsed() {
        let row = Row::parse(
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
             1000        0 4711 1 0 100 0 0 10 0",
        );
        let listening = Row {
            local: "127.0.0.1:8080".parse().unwrap(),
            listens: true,
            user: 1000,
            inode: 4711,
        };
        assert_eq!(row, Some(listening));
        let row = Row::parse(
            "   1: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 01 \
             00000000:00000000 00:00000000 00000000     0        0 12 1 0",
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
            let owner = PortOwner::of(SocketAddr::new(wanted.parse().unwrap(), port));
            let PortOwner::Process { pid, program } = owner else {
                panic!("{bound}: {owner}");
            };
            assert_eq!(pid, std::process::id());
            assert!(!program.is_empty());
        }
    }

    #[test]
    fn a_free_port_has_no_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(PortOwner::of(address), PortOwner::Unknown);
    }
}
