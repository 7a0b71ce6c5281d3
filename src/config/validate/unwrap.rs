//! The options of `pointsman unwrap`: it takes the PROXY header off each connection and relays the rest to
//! one server.

use super::validator::Validator;
use crate::config::error::Fault;
use crate::config::sync_settings::StaticRoute;
use crate::protocol::Protocol;
use crate::route::{Key, Member, MemberAddress};

/// Options without a meaning for unwrap, which reads no name and has no routes.
const OF_ROUTING: [&str; 8] = [
    "https",
    "http",
    "redis",
    "route",
    "routes",
    "snapshot",
    "proxy-in",
    "proxy-ja4",
];

/// Options of unwrap alone.
const OF_UNWRAP: [&str; 2] = ["listen", "to"];

impl Validator<'_> {
    pub(super) fn validate_unwrap(&self) {
        for name in OF_ROUTING.iter().filter(|name| self.is_set(name)) {
            let fault = Fault::new(
                "unwrap reads a PROXY header that has to be there, but no name, and it has no routes",
                "leave it out; unwrap takes --listen, --proxy-from and --to",
            );
            self.note(name, fault);
        }
        let fault = Fault::new(
            "there is no server to connect to",
            "add --to ADDR, like --to 127.0.0.1:443",
        );
        self.require_one_of(&["to"], fault);
        let fault = Fault::new(
            "no sender of PROXY headers is trusted",
            "name the proxies in front, like --proxy-from 10.0.0.5",
        );
        self.require_one_of(&["proxy-from"], fault);
    }

    pub(super) fn refuse_those_of_unwrap(&self) {
        for name in OF_UNWRAP.iter().filter(|name| self.is_set(name)) {
            let fault = Fault::new(
                "is an option of pointsman unwrap",
                "write `pointsman unwrap`, or leave it out",
            );
            self.note(name, fault);
        }
    }
}

/// A value of `--to`, as a member of the one route of unwrap.
pub(super) fn route(text: &str) -> Result<StaticRoute, Fault> {
    const REMEDY: &str = "write IP:PORT or [IPV6]:PORT, like 127.0.0.1:443";
    let fault = |problem: String| Fault::new(format!("{text:?} {problem}"), REMEDY);
    let member = Member::parse(text).map_err(|error| fault(format!("is no server: {error}")))?;
    match member.address {
        MemberAddress::Ip(_, Some(_)) if member.delivery == Default::default() => Ok(StaticRoute {
            key: Key::Default(Protocol::Tcp),
            entry: format!("{member} source=client"),
        }),
        MemberAddress::Ip(_, Some(_)) => Err(fault(String::from("has options"))),
        MemberAddress::Ip(_, None) => Err(fault(String::from("has no port"))),
        MemberAddress::Name(..) | MemberAddress::Unix(_) => Err(fault(String::from(
            "is no address to which a client's address can be the source",
        ))),
    }
}
