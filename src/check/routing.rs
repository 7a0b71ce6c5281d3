//! Rules, routes and packet filters of this machine, as iproute2 and nftables print them in JSON.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;

/// The recipe's own numbers, for a machine that has none yet.
const MARK: u32 = 1;
const TABLE: &str = "100";
/// For servers of this machine.
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

/// Runs a command and gives back what it printed, or why it did not.
pub(super) type Run<'a> = dyn Fn(&[&str]) -> Result<String, String> + 'a;

/// The routing of this machine.
pub(super) struct Routing<'a> {
    run: &'a Run<'a>,
}

/// How packets to foreign addresses come to be taken for this machine's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnswerPath {
    /// Set on the packets by a filter; `None` when a rule picks them in another way, as by their
    /// interface.
    pub mark: Option<u32>,
    /// Whether it is for servers of this machine, which answer from the loopback addresses.
    is_local: bool,
    table: String,
    has_rule: bool,
    has_route: bool,
}

impl AnswerPath {
    /// Each line of shell, and whether what it does is done.
    pub fn lines(&self, family: Family) -> Vec<(String, bool)> {
        let (ip, all, loopback) = match family {
            Family::V4 => ("ip", "0.0.0.0/0", "127.0.0.0/8"),
            Family::V6 => ("ip -6", "::/0", "::1"),
        };
        let table = &self.table;
        let rule = match self.mark {
            _ if self.is_local => {
                format!("{ip} rule add from {loopback} iif lo lookup {table}")
            }
            Some(mark) => format!("{ip} rule add fwmark {mark} lookup {table}"),
            None => format!("{ip} rule … lookup {table}"),
        };
        let route = format!("{ip} route add local {all} dev lo table {table}");
        vec![(rule, self.has_rule), (route, self.has_route)]
    }
}

/// Whether packets to transparent sockets get a mark.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marking {
    There,
    Missing,
    /// There are rules in a form that nft does not show.
    ByOthers,
}

impl<'a> Routing<'a> {
    pub fn new(run: &'a Run<'a>) -> Routing<'a> {
        Routing { run }
    }

    /// How answers to foreign addresses are led to a table in which every address is local; when
    /// they are not, the recipe's way and what there is of it.
    pub fn answers(&self, family: Family) -> Result<AnswerPath, String> {
        let mut recipe = AnswerPath {
            mark: Some(MARK),
            is_local: false,
            table: TABLE.to_owned(),
            has_rule: false,
            has_route: self.is_all_local(family, TABLE),
        };
        for rule in self.list(&["ip", family.flag(), "-j", "rule"])? {
            let Some(table) = rule["table"].as_str() else {
                continue;
            };
            // Those for local senders or single sources do not see what backends send.
            let sees_answers =
                rule["src"] == "all" && rule["iif"] != "lo" && rule.get("not").is_none();
            if !sees_answers || ["local", "main", "default"].contains(&table) {
                continue;
            }
            let mark = rule["fwmark"].as_str().and_then(parse_mark);
            if self.is_all_local(family, table) {
                return Ok(AnswerPath {
                    mark,
                    is_local: false,
                    table: table.to_owned(),
                    has_rule: true,
                    has_route: true,
                });
            }
            recipe.has_rule |= mark == Some(MARK) && table == TABLE;
        }
        Ok(recipe)
    }

    /// How the answers of servers that listen on the loopback addresses of this machine stay on it.
    pub fn local_answers(&self, family: Family) -> Result<AnswerPath, String> {
        let loopback = match family {
            Family::V4 => "127.0.0.",
            Family::V6 => "::1",
        };
        let rules = self.list(&["ip", family.flag(), "-j", "rule"])?;
        let mut tables = rules.iter().filter_map(|rule| {
            let source = rule["src"].as_str()?;
            let sees_answers = source.starts_with(loopback) && rule["iif"] == "lo";
            rule["table"].as_str().filter(|_| sees_answers)
        });
        let table = tables.next();
        let name = table.unwrap_or(LOCAL_TABLE);
        Ok(AnswerPath {
            mark: None,
            is_local: true,
            table: name.to_owned(),
            has_rule: table.is_some(),
            has_route: self.is_all_local(family, name),
        })
    }

    fn is_all_local(&self, family: Family, table: &str) -> bool {
        // A table that does not exist is an error to ip.
        let routes = self.list(&["ip", family.flag(), "-j", "route", "show", "table", table]);
        routes.unwrap_or_default().iter().any(|route| {
            let all = ["default", "0.0.0.0/0", "::/0"];
            route["type"] == "local" && all.iter().any(|dst| route["dst"] == *dst)
        })
    }

    /// Whether a local route covers the whole of an IPv6 prefix.
    pub fn is_local(&self, prefix: &str) -> Result<bool, String> {
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
    pub fn marking(&self, mark: u32) -> Result<Marking, String> {
        let text = (self.run)(&["nft", "-j", "list", "ruleset"])?;
        let ruleset: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let objects = ruleset["nftables"].as_array();
        let mut by_others = false;
        for object in objects.into_iter().flatten() {
            let expressions = object["rule"]["expr"].as_array();
            let expressions = expressions.map(Vec::as_slice).unwrap_or_default();
            let any = |is: &dyn Fn(&Value) -> bool| expressions.iter().any(is);
            by_others |= any(&|one| one.get("xt").is_some());
            let is_for_sockets = any(&|one| {
                let matched = &one["match"];
                matched["left"]["socket"]["key"] == "transparent" && matched["right"] == 1
            });
            let marks = any(&|one| {
                let set = &one["mangle"];
                // A value that is computed, as `meta mark or 1`, is believed.
                set["key"]["meta"]["key"] == "mark"
                    && set["value"]
                        .as_u64()
                        .is_none_or(|value| value == u64::from(mark))
            });
            if is_for_sockets && marks {
                return Ok(Marking::There);
            }
        }
        Ok(if by_others {
            Marking::ByOthers
        } else {
            Marking::Missing
        })
    }

    /// The list that a command prints; nothing printed is an empty one.
    fn list(&self, command: &[&str]) -> Result<Vec<Value>, String> {
        let text = (self.run)(command)?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&text)
            .map_err(|error| format!("{} prints no JSON list: {error}", command.join(" ")))
    }
}

/// `0x1`, or `0x1/0xff` with a mask, of which the mark counts.
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
