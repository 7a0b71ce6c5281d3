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
    /// Set on the packets by a filter; `None` when a rule picks them in another way.
    pub mark: Option<u32>,
    /// The line of shell that picks the packets, and whether what it does is done.
    pub rule: String,
    pub has_rule: bool,
    /// The line that makes every address local to them.
    pub route: String,
    pub has_route: bool,
}

impl AnswerPath {
    fn new(family: Family, mark: Option<u32>, selector: &str, table: &str) -> AnswerPath {
        let (ip, all) = match family {
            Family::V4 => ("ip", "0.0.0.0/0"),
            Family::V6 => ("ip -6", "::/0"),
        };
        AnswerPath {
            mark,
            rule: format!("{ip} rule add {selector} lookup {table}"),
            has_rule: false,
            route: format!("{ip} route add local {all} dev lo table {table}"),
            has_route: false,
        }
    }
}

/// What servers of this machine answer, told from all else that it sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// From the loopback addresses nothing else goes to foreign ones.
    FromLoopback,
    /// From any other address it is what comes from the server's port. Clients that connect to it
    /// past the proxy get no answer then.
    From(IpAddr, u16),
}

impl Answers {
    pub(super) fn of(ip: IpAddr, port: u16) -> Answers {
        if ip.is_loopback() {
            Answers::FromLoopback
        } else {
            Answers::From(ip, port)
        }
    }

    fn selector(&self, family: Family) -> String {
        match (self, family) {
            (Answers::FromLoopback, Family::V4) => String::from("from 127.0.0.0/8 iif lo"),
            (Answers::FromLoopback, Family::V6) => String::from("from ::1 iif lo"),
            (Answers::From(ip, port), _) => {
                format!("from {ip} ipproto tcp sport {port} iif lo")
            }
        }
    }

    fn are_picked_by(&self, rule: &Value) -> bool {
        let source = rule["src"].as_str().unwrap_or_default();
        let is_source = match self {
            Answers::FromLoopback => source.starts_with("127.0.0.") || source == "::1",
            Answers::From(ip, _) => source.parse() == Ok(*ip),
        };
        let is_port = match (self, rule.get("sport")) {
            (Answers::FromLoopback, found) => found.is_none(),
            (Answers::From(_, port), found) => found == Some(&Value::from(*port)),
        };
        is_source && is_port && rule["iif"] == "lo"
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
    pub(super) fn new(run: &'a Run<'a>) -> Routing<'a> {
        Routing { run }
    }

    /// How answers to foreign addresses are led to a table in which every address is local; when
    /// they are not, the recipe's way and what there is of it.
    pub(super) fn answers(&self, family: Family) -> Result<AnswerPath, String> {
        let mut recipe = AnswerPath::new(family, Some(MARK), &format!("fwmark {MARK}"), TABLE);
        recipe.has_route = self.is_all_local(family, TABLE);
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
                let selector = mark.map_or(String::from("…"), |mark| format!("fwmark {mark}"));
                return Ok(AnswerPath {
                    has_rule: true,
                    has_route: true,
                    ..AnswerPath::new(family, mark, &selector, table)
                });
            }
            recipe.has_rule |= mark == Some(MARK) && table == TABLE;
        }
        Ok(recipe)
    }

    /// How what servers of this machine answer stays on it.
    pub(super) fn local_answers(
        &self,
        family: Family,
        answers: &Answers,
    ) -> Result<AnswerPath, String> {
        let rules = self.list(&["ip", family.flag(), "-j", "rule"])?;
        let rule = rules.iter().find(|rule| answers.are_picked_by(rule));
        let table = rule.and_then(|rule| rule["table"].as_str());
        let name = table.unwrap_or(LOCAL_TABLE);
        Ok(AnswerPath {
            has_rule: table.is_some(),
            has_route: self.is_all_local(family, name),
            ..AnswerPath::new(family, None, &answers.selector(family), name)
        })
    }

    /// The addresses of this machine's interfaces; none when they cannot be asked for.
    pub(super) fn own_addresses(&self, family: Family) -> Vec<IpAddr> {
        let command = ["ip", family.flag(), "-j", "route", "show", "table", "local"];
        let routes = self.list(&command).unwrap_or_default();
        let local = routes.iter().filter(|route| route["type"] == "local");
        local
            .filter_map(|route| route["dst"].as_str()?.parse().ok())
            .collect()
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
