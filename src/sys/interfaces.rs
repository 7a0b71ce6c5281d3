//! The addresses of this machine's network interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{io, ptr};

/// Every address that an interface has at this moment, each once (getifaddrs(3)).
pub(crate) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the call writes one pointer to a live local.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = list;
    // SAFETY: the list is the library's and unchanged until it is freed below; its end is null.
    while let Some(entry) = unsafe { at.as_ref() } {
        // SAFETY: an entry's address is null or points to a socket address that lives with the list.
        found.extend(unsafe { entry.ifa_addr.as_ref() }.and_then(|address| {
            let address: *const libc::sockaddr = address;
            // SAFETY: as above; the family says which of the larger forms it has.
            unsafe { ip_of(address) }
        }));
        at = entry.ifa_next;
    }
    // SAFETY: the list came from getifaddrs and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The IP address in a socket address; `None` for another family.
///
/// # Safety
/// `address` points to a socket address that is as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: every socket address has a family.
    let family = i32::from(unsafe { (*address).sa_family });
    match family {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let address = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let address = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_them() {
        let found = interface_addresses().unwrap();
        assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
    }
}
