//! The options of `pointsman unwrap`, the receiving end: one route, whatever the bytes are.

use super::validator::Validator;
use crate::config::error::Fault;
use crate::config::sync_settings::StaticRoute;
use crate::protocol::Protocol;
use crate::route::{Key, Member, MemberAddress};

/// What has no meaning for a receiving end, which looks for no name.
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

/// What has a meaning for a receiving end only.
const OF_UNWRAP: [&str; 2] = ["listen", "to"];

impl Validator<'_> {
    pub(super) fn validate_unwrap(&self) {
        for name in OF_ROUTING.iter().filter(|name| self.is_set(name)) {
            let fault = Fault::new(
                "unwrap takes off a header that has to be there, looks for no name and has no routes",
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
            "nobody may say whose connection it is",
            "name the proxies in front, like --proxy-from 10.0.0.5",
        );
        self.require_one_of(&["proxy-from"], fault);
    }

    pub(super) fn refuse_those_of_unwrap(&self) {
        for name in OF_UNWRAP.iter().filter(|name| self.is_set(name)) {
            let fault = Fault::new(
                "belongs to the receiving end",
                "write `pointsman unwrap`, or leave it out",
            );
            self.note(name, fault);
        }
    }
}

/// `--to` as the one route that a receiving end has.
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
            "is no address that a client can be the source for",
        ))),
    }
}
