//! Policy routing and packet filters of this machine, as the JSON of iproute2 and nftables has them.
//!
//! A backend that is given the client's address as source sends its replies to that address. This
//! machine has to take those packets for its own: a rule picks them, and in the table that the rule names
//! every address is local. See docs/client-address.md.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;

/// The mark and the table of the lines that the report proposes, for replies from other machines.
const MARK: u32 = 1;
const TABLE: &str = "100";
/// The table for replies from servers on this machine.
const LOCAL_TABLE: &str = "123";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn flag(self) -> &'static str {
        match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        }
    }
}

/// Runs a command. Returns what it printed, or why it failed.
pub(super) type Run<'a> = dyn Fn(&[&str]) -> Result<String, String> + 'a;

/// The routing of this machine, read by commands.
pub(super) struct Routing<'a> {
    run: &'a Run<'a>,
}

/// How replies to foreign addresses are taken for this machine's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReplyRoute {
    /// The mark by which the rule picks the packets, which a filter sets; `None` when the rule picks them
    /// in another way.
    pub mark: Option<u32>,
    /// The shell command that adds the rule, and whether the rule is there.
    pub rule: String,
    pub has_rule: bool,
    /// The shell command that makes every address local in the rule's table, and whether it is.
    pub route: String,
    pub has_route: bool,
}

impl ReplyRoute {
    fn new(family: Family, mark: Option<u32>, selector: &str, table: &str) -> ReplyRoute {
        let (ip, all) = match family {
            Family::V4 => ("ip", "0.0.0.0/0"),
            Family::V6 => ("ip -6", "::/0"),
        };
        ReplyRoute {
            mark,
            rule: format!("{ip} rule add {selector} lookup {table}"),
            has_rule: false,
            route: format!("{ip} route add local {all} dev lo table {table}"),
            has_route: false,
        }
    }
}

/// The replies of servers on this machine, as a rule can pick them from all else that it sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// Of all servers on loopback addresses. No other packets go from there to foreign addresses.
    OfLoopback,
    /// Of the server with this address and port. Clients that connect to it directly and not through
    /// the proxy get no replies then.
    Of(IpAddr, u16),
}

impl Replies {
    pub(super) fn of_server(ip: IpAddr, port: u16) -> Replies {
        if ip.is_loopback() {
            Replies::OfLoopback
        } else {
            Replies::Of(ip, port)
        }
    }

    fn selector(&self, family: Family) -> String {
        match (self, family) {
            (Replies::OfLoopback, Family::V4) => String::from("from 127.0.0.0/8 iif lo"),
            (Replies::OfLoopback, Family::V6) => String::from("from ::1 iif lo"),
            (Replies::Of(ip, port), _) => {
                format!("from {ip} ipproto tcp sport {port} iif lo")
            }
        }
    }

    fn are_picked_by(&self, rule: &Value) -> bool {
        let source = rule["src"].as_str().unwrap_or_default();
        let is_source = match self {
            Replies::OfLoopback => source.starts_with("127.0.0.") || source == "::1",
            Replies::Of(ip, _) => source.parse() == Ok(*ip),
        };
        let is_port = match (self, rule.get("sport")) {
            (Replies::OfLoopback, found) => found.is_none(),
            (Replies::Of(_, port), found) => found == Some(&Value::from(*port)),
        };
        is_source && is_port && rule["iif"] == "lo"
    }
}

/// Whether a packet filter marks packets for transparent sockets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marking {
    There,
    Missing,
    /// There are rules of iptables, which nft does not show.
    Unknown,
}

impl<'a> Routing<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Routing<'a> {
        Routing { run }
    }

    /// How replies from other machines are routed; when they are not, the lines to add and which of them
    /// are there.
    pub(super) fn replies_from_elsewhere(&self, family: Family) -> Result<ReplyRoute, String> {
        let mut recipe = ReplyRoute::new(family, Some(MARK), &format!("fwmark {MARK}"), TABLE);
        recipe.has_route = self.is_all_local(family, TABLE);
        for rule in self.list(&["ip", family.flag(), "-j", "rule"])? {
            let Some(table) = rule["table"].as_str() else {
                continue;
            };
            // A rule for local senders, or for single sources, does not apply to what backends send.
            let sees_replies =
                rule["src"] == "all" && rule["iif"] != "lo" && rule.get("not").is_none();
            if !sees_replies || ["local", "main", "default"].contains(&table) {
                continue;
            }
            let mark = rule["fwmark"].as_str().and_then(parse_mark);
            if self.is_all_local(family, table) {
                let selector = mark.map_or(String::from("…"), |mark| format!("fwmark {mark}"));
                return Ok(ReplyRoute {
                    has_rule: true,
                    has_route: true,
                    ..ReplyRoute::new(family, mark, &selector, table)
                });
            }
            recipe.has_rule |= mark == Some(MARK) && table == TABLE;
        }
        Ok(recipe)
    }

    /// How replies of servers on this machine are routed; as [`Routing::replies_from_elsewhere`].
    pub(super) fn replies_from_here(
        &self,
        family: Family,
        replies: &Replies,
    ) -> Result<ReplyRoute, String> {
        let rules = self.list(&["ip", family.flag(), "-j", "rule"])?;
        let rule = rules.iter().find(|rule| replies.are_picked_by(rule));
        let table = rule.and_then(|rule| rule["table"].as_str());
        let name = table.unwrap_or(LOCAL_TABLE);
        Ok(ReplyRoute {
            has_rule: table.is_some(),
            has_route: self.is_all_local(family, name),
            ..ReplyRoute::new(family, None, &replies.selector(family), name)
        })
    }

    /// The addresses of this machine's interfaces; none when `ip` fails.
    pub(super) fn own_addresses(&self, family: Family) -> Vec<IpAddr> {
        let command = ["ip", family.flag(), "-j", "route", "show", "table", "local"];
        let routes = self.list(&command).unwrap_or_default();
        let local = routes.iter().filter(|route| route["type"] == "local");
        local
            .filter_map(|route| route["dst"].as_str()?.parse().ok())
            .collect()
    }

    fn is_all_local(&self, family: Family, table: &str) -> bool {
        // `ip` fails for a table that does not exist.
        let routes = self.list(&["ip", family.flag(), "-j", "route", "show", "table", table]);
        routes.unwrap_or_default().iter().any(|route| {
            let all = ["default", "0.0.0.0/0", "::/0"];
            route["type"] == "local" && all.iter().any(|dst| route["dst"] == *dst)
        })
    }

    /// Whether a local route covers the whole of an IPv6 prefix.
    pub(super) fn is_local(&self, prefix: &str) -> Result<bool, String> {
        let wanted = parse_prefix(prefix).ok_or("no prefix")?;
        let all_local = [
            "ip", "-6", "-j", "route", "show", "table", "all", "type", "local",
        ];
        let routes = self.list(&all_local)?;
        let mut prefixes = routes.iter().filter_map(|route| {
            let dst = route["dst"].as_str()?;
            (route["type"] == "local").then(|| parse_prefix(dst))?
        });
        Ok(prefixes.any(|(address, length)| {
            let shift = 128 - u32::from(length);
            let start = |address: Ipv6Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
            length <= wanted.1 && start(address) == start(wanted.0)
        }))
    }

    /// Whether a packet filter marks what comes for transparent sockets.
    pub(super) fn marking(&self, mark: u32) -> Result<Marking, String> {
        let text = (self.run)(&["nft", "-j", "list", "ruleset"])?;
        let ruleset: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let objects = ruleset["nftables"].as_array();
        let mut has_foreign_rules = false;
        for object in objects.into_iter().flatten() {
            let expressions = object["rule"]["expr"].as_array();
            let expressions = expressions.map(Vec::as_slice).unwrap_or_default();
            let any = |is: &dyn Fn(&Value) -> bool| expressions.iter().any(is);
            has_foreign_rules |= any(&|one| one.get("xt").is_some());
            let is_for_sockets = any(&|one| {
                let matched = &one["match"];
                matched["left"]["socket"]["key"] == "transparent" && matched["right"] == 1
            });
            let marks = any(&|one| {
                let set = &one["mangle"];
                // A value that is an expression, such as `meta mark or 1`, counts as this mark.
                set["key"]["meta"]["key"] == "mark"
                    && set["value"]
                        .as_u64()
                        .is_none_or(|value| value == u64::from(mark))
            });
            if is_for_sockets && marks {
                return Ok(Marking::There);
            }
        }
        Ok(if has_foreign_rules {
            Marking::Unknown
        } else {
            Marking::Missing
        })
    }

    /// The JSON list that a command prints. No output is an empty list.
    fn list(&self, command: &[&str]) -> Result<Vec<Value>, String> {
        let text = (self.run)(command)?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&text)
            .map_err(|error| format!("{} prints no JSON list: {error}", command.join(" ")))
    }
}

/// The mark in `0x1`, or in `0x1/0xff` with a mask.
fn parse_mark(text: &str) -> Option<u32> {
    let text = text.split('/').next()?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_prefix(text: &str) -> Option<(Ipv6Addr, u8)> {
    let (address, length) = match text {
        "default" => ("::", "0"),
        other => other.split_once('/').unwrap_or((other, "128")),
    };
    let IpAddr::V6(address) = address.parse().ok()? else {
        return None;
    };
    Some((
        address,
        length.parse().ok().filter(|length| *length <= 128)?,
    ))
}
