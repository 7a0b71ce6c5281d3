//! Parses the text of a value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::error::Fault;
use super::kernel_version::KernelVersion;
use super::settings::BackendCongestion;
use crate::quantity::whole_number;

/// A duration, with its unit.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Fault> {
    let remedy = format!(
        "write it like 500ms, 10s, 5m or 1h, from {} to {}",
        humantime::format_duration(*range.start()),
        humantime::format_duration(*range.end())
    );
    if text.parse::<f64>().is_ok() && text != "0" {
        return Err(Fault::new(format!("{text:?} has no unit"), remedy));
    }
    match humantime::parse_duration(text) {
        Ok(value) if range.contains(&value) => Ok(value),
        Ok(_) => Err(Fault::new(format!("{text:?} is out of bounds"), remedy)),
        Err(error) => Err(Fault::new(
            format!("{text:?} is no duration: {error}"),
            remedy,
        )),
    }
}

/// A number of bytes, plain or with KiB, MiB or GiB.
pub(super) fn bytes(text: &str, range: RangeInclusive<usize>) -> Result<usize, Fault> {
    const UNITS: [(&str, usize); 4] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("B", 1),
    ];
    let (digits, unit) = UNITS
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    let value = whole_number::<u64>(digits.trim_end())
        .and_then(|number| usize::try_from(number).ok()?.checked_mul(unit));
    let remedy = format!(
        "write a number of bytes like 65536, 64KiB or 1MiB, from {} to {}",
        range.start(),
        range.end()
    );
    match value {
        Some(value) if range.contains(&value) => Ok(value),
        Some(_) => Err(Fault::new(format!("{text:?} is out of bounds"), remedy)),
        None => Err(Fault::new(
            format!("{text:?} is no number of bytes"),
            remedy,
        )),
    }
}

/// A whole number.
pub(super) fn count(text: &str, range: RangeInclusive<u32>) -> Result<u32, Fault> {
    let remedy = format!(
        "write a whole number from {} to {}",
        range.start(),
        range.end()
    );
    match whole_number::<u64>(text) {
        Some(value) => match u32::try_from(value) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => Err(Fault::new(format!("{text:?} is out of bounds"), remedy)),
        },
        None => Err(Fault::new(format!("{text:?} is no whole number"), remedy)),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(Fault::new(
        format!("{text:?} is not known"),
        format!("write one of {}", known.join(", ")),
    ))
}

/// `auto`, `system` or the name of an algorithm. The start tries whether the kernel has it.
pub(super) fn congestion(text: &str) -> Result<BackendCongestion, Fault> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match text {
        "auto" => Ok(BackendCongestion::Auto),
        "system" => Ok(BackendCongestion::System),
        _ if !text.is_empty() && text.bytes().all(is_name) => {
            Ok(BackendCongestion::Named(text.into()))
        }
        _ => Err(Fault::new(
            format!("{text:?} is no congestion control"),
            "write auto, system, or a name from net.ipv4.tcp_available_congestion_control",
        )),
    }
}

/// `IP:PORT`, `[IPV6]:PORT` or `:PORT`, which has no address.
fn address(text: &str) -> Result<(Option<IpAddr>, u16), Fault> {
    let fault = |problem: &str| {
        Fault::new(
            format!("{text:?} {problem}"),
            "write IP:PORT like 127.0.0.1:8443, [IPV6]:PORT like [::1]:8443, or :PORT",
        )
    };
    if let Some(port) = text.strip_prefix(':') {
        return match whole_number::<u64>(port).map(u16::try_from) {
            Some(Ok(port)) => Ok((None, port)),
            _ => Err(fault("has no valid port")),
        };
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok((Some(address.ip()), address.port())),
        Err(_) if text.parse::<IpAddr>().is_ok() => Err(fault("has no port")),
        Err(_) => Err(fault("is no address")),
    }
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenAddress {
    pub address: SocketAddr,
    /// Whether the start fails without it.
    pub required: bool,
}

/// The addresses to listen on. `:PORT` is that port of both families, of which a machine may lack IPv6.
pub(super) fn listen_addresses(text: &str) -> Result<Vec<ListenAddress>, Fault> {
    let listen = |ip: IpAddr, port, required| ListenAddress {
        address: SocketAddr::new(ip, port),
        required,
    };
    Ok(match address(text)? {
        (Some(ip), port) => vec![listen(ip, port, true)],
        (None, port) => vec![
            listen(Ipv4Addr::UNSPECIFIED.into(), port, true),
            listen(Ipv6Addr::UNSPECIFIED.into(), port, false),
        ],
    })
}

/// The address of the admin endpoint; `:PORT` is on loopback.
pub(super) fn admin_address(text: &str) -> Result<SocketAddr, Fault> {
    let (ip, port) = address(text)?;
    Ok(SocketAddr::new(
        ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port,
    ))
}

/// A Host of the admin endpoint: a name or an address, without port.
pub(super) fn admin_host(text: &str) -> Result<Box<str>, Fault> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = inner.unwrap_or(text);
    let is_address = host.parse::<IpAddr>().is_ok();
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if is_address || (!host.is_empty() && host.bytes().all(of_name)) {
        return Ok(host.strip_suffix('.').unwrap_or(host).into());
    }
    Err(Fault::new(
        format!("{text:?} is no host"),
        "write a name or an address without a port, like metrics.example",
    ))
}

/// The address of a server to connect to.
pub(super) fn server_address(text: &str) -> Result<SocketAddr, Fault> {
    match address(text)? {
        (Some(ip), port) if port > 0 && !ip.is_unspecified() => Ok(SocketAddr::new(ip, port)),
        _ => Err(Fault::new(
            format!("{text:?} is no address of a server"),
            "write IP:PORT like 192.0.2.53:53",
        )),
    }
}

/// Numbers of processors: `all`, or numbers and ranges like `0-3,6`. Each has to be in `allowed`.
pub(super) fn cores(text: &str, allowed: &[usize]) -> Result<Vec<usize>, Fault> {
    if text == "all" {
        return Ok(allowed.to_vec());
    }
    let malformed = || {
        Fault::new(
            format!("{text:?} is no list of processors"),
            "write numbers and ranges like 0-3,6, or all",
        )
    };
    // Far above any machine. A range like 0-4294967295 is refused before it is collected.
    const PROCESSORS_MAX: usize = 8192;
    let number = |text: &str| {
        whole_number::<u64>(text.trim())
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number < PROCESSORS_MAX)
            .ok_or_else(malformed)
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(malformed());
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(Fault::new(
                    format!("processor {core} is named twice"),
                    "name each once",
                ));
            }
            if !allowed.contains(&core) {
                return Err(Fault::new(
                    format!("this process may not use processor {core}"),
                    format!("choose among {allowed:?}, or widen its affinity (taskset, cpuset)"),
                ));
            }
            cores.push(core);
        }
    }
    cores.sort_unstable();
    Ok(cores)
}

/// A network, `ADDRESS/BITS`, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    const REMEDY: &str =
        "write an address like 192.0.2.7 or a network like 10.1.0.0/16 or 2001:db8::/32";
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse() {
            Ok(address) => IpNet::from(IpAddr::to_canonical(&address)),
            Err(_) => {
                return Err(Fault::new(format!("{text:?} is no network"), REMEDY));
            }
        },
    };
    if network != network.trunc() {
        return Err(Fault::new(
            format!("{text:?} has bits behind its prefix"),
            format!("write {}", network.trunc()),
        ));
    }
    // IPv4 clients of IPv6 sockets are compared as IPv4, so this network would contain nobody.
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(Fault::new(
                format!("{text:?} is IPv4 in the form of IPv6"),
                "write the network as IPv4, like 10.1.0.0/16",
            ))
        }
        network => Ok(network),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new(
            "is no path",
            "name a path, or leave the option out",
        ));
    }
    Ok(PathBuf::from(text))
}

pub(super) fn kernel_version(text: &str) -> Result<KernelVersion, Fault> {
    KernelVersion::parse(text).ok_or_else(|| {
        Fault::new(
            format!("{text:?} is no kernel version"),
            "write it like 5.10",
        )
    })
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, Fault> {
    word(text, &[("yes", true), ("no", false)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_host_of_the_admin_endpoint_has_no_port() {
        for (text, host) in [
            ("metrics.example.", "metrics.example"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(&*admin_host(text).unwrap(), host);
        }
        for text in ["", "a.test:9000", "http://a.test", "[::1]:9", "*"] {
            let fault = admin_host(text).unwrap_err();
            assert!(fault.remedy.contains("without a port"), "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        let parse = |text| duration(text, Duration::from_millis(1)..=DAY);
        assert_eq!(parse("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(parse("1h 30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse("10").unwrap_err().problem, "\"10\" has no unit");
        assert_eq!(parse("1.5").unwrap_err().problem, "\"1.5\" has no unit");
        assert!(parse("2d").unwrap_err().problem.contains("out of bounds"));
        for wrong in ["", "s", "-1s", "10 parsecs", "0", "0s"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(duration("0", Duration::ZERO..=DAY).unwrap(), Duration::ZERO);
    }

    #[test]
    fn sizes_are_bytes_or_have_binary_units() {
        let parse = |text| bytes(text, 1024..=1 << 20);
        assert_eq!(parse("65536").unwrap(), 65536);
        assert_eq!(parse("64KiB").unwrap(), 65536);
        assert_eq!(parse("1 MiB").unwrap(), 1 << 20);
        assert_eq!(parse("2048B").unwrap(), 2048);
        for wrong in [
            "",
            "KiB",
            "64KB",
            "64k",
            "-1",
            "+2048",
            "1.5MiB",
            "1GiB",
            "1",
            "99999999999999999999GiB",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(count("3", 1..=16).unwrap(), 3);
        for wrong in ["", "0", "17", "three", "+3", "3.0", "4294967296"] {
            assert!(count(wrong, 1..=16).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn addresses_of_both_families() {
        let both = listen_addresses(":443").unwrap();
        let listen = |address: &str, required| ListenAddress {
            address: address.parse().unwrap(),
            required,
        };
        assert_eq!(
            both,
            [listen("0.0.0.0:443", true), listen("[::]:443", false)]
        );
        assert_eq!(
            listen_addresses("[::1]:0").unwrap(),
            [listen("[::1]:0", true)]
        );
        assert_eq!(
            admin_address(":9000").unwrap(),
            "127.0.0.1:9000".parse().unwrap()
        );
        for wrong in [
            "",
            "443",
            "127.0.0.1",
            "::1",
            "::1:443x",
            "localhost:443",
            ":65536",
            ":",
            "127.0.0.1:+1",
        ] {
            assert!(listen_addresses(wrong).is_err(), "{wrong:?}");
        }
        assert!(server_address("[::1]:53").is_ok());
        for wrong in [":53", "0.0.0.0:53", "127.0.0.1:0", "dns.test:53"] {
            assert!(server_address(wrong).is_err(), "{wrong:?}");
        }
        assert!(
            address("127.0.0.1")
                .unwrap_err()
                .problem
                .contains("no port")
        );
    }

    #[test]
    fn core_lists_are_checked_against_the_affinity() {
        let allowed = [0, 1, 2, 3, 6];
        assert_eq!(cores("all", &allowed).unwrap(), allowed);
        assert_eq!(cores("6,0-2", &allowed).unwrap(), [0, 1, 2, 6]);
        let fault = cores("0-4", &allowed).unwrap_err();
        assert!(fault.problem.contains("may not use processor 4"));
        assert!(
            cores("1,0-2", &allowed)
                .unwrap_err()
                .problem
                .contains("twice")
        );
        for wrong in ["", "a", "3-1", "0,", "-1", "0-4294967295"] {
            assert!(cores(wrong, &allowed).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_network_says_what_to_write() {
        for (text, problem) in [
            ("", "is no network"),
            ("10.1.0.0/33", "is no network"),
            ("proxy.test", "is no network"),
            ("10.1.0.1/16", "behind its prefix"),
            ("::ffff:10.0.0.0/104", "in the form of IPv6"),
        ] {
            let fault = network(text).unwrap_err();
            assert!(fault.problem.contains(problem), "{text}: {}", fault.problem);
        }
        assert_eq!(
            network("10.1.0.1/16").unwrap_err().remedy,
            "write 10.1.0.0/16"
        );
    }
}
