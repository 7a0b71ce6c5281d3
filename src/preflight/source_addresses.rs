//! What this machine needs so that backends see a client's own address (source=client) or one that
//! stands for it (source=nat46): the permission to use a foreign source address, and routing that brings
//! the replies back. Each item is a shell command whose effect is there or missing, so that a missing one
//! can be run as it stands.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::machine::Proc;
use super::report::Item;
use super::routing::{Family, Marking, Replies, ReplyRoute, Routing};
use crate::protocol::Protocol;
use crate::route::{Member, MemberAddress, Nat46Prefix, Source};

const NAME: &str = "source=client";
const NAME_NAT46: &str = "source=nat46";
const REMEDY: &str = "run it, now and at every boot";

/// Whether a family of addresses is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    #[default]
    No,
    /// Perhaps: a DNS name may have addresses of this family.
    Maybe,
    Yes,
}

/// The source addresses that members ask for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct SourceAddresses {
    /// The servers with source=client.
    servers: BTreeSet<(IpAddr, u16)>,
    /// Whether there are servers with source=client and a DNS name.
    has_names: bool,
    /// The prefixes of source=nat46.
    prefixes: Vec<Nat46Prefix>,
}

impl SourceAddresses {
    pub(super) fn add(&mut self, member: &Member) {
        match (member.delivery.source, &member.address) {
            (Source::Own, _) | (Source::Client, MemberAddress::Unix(_)) => {}
            (Source::Nat46(prefix), _) if self.prefixes.contains(&prefix) => {}
            (Source::Nat46(prefix), _) => self.prefixes.push(prefix),
            (Source::Client, MemberAddress::Name(..)) => self.has_names = true,
            (Source::Client, MemberAddress::Ip(ip, port)) => {
                let port = port.unwrap_or(Protocol::Tls.default_port());
                self.servers.insert((*ip, port));
            }
        }
    }

    pub(super) fn extend(&mut self, other: SourceAddresses) {
        self.servers.extend(other.servers);
        self.has_names |= other.has_names;
        for prefix in other.prefixes {
            if !self.prefixes.contains(&prefix) {
                self.prefixes.push(prefix);
            }
        }
    }

    /// The items of the report; none when no member asks for a source address.
    pub(super) fn items(&self, machine: &Proc, routing: &Routing<'_>) -> Vec<Item> {
        let mut items = Vec::new();
        if self.has_names || !self.servers.is_empty() {
            items.push(permission(machine));
        }
        let mut marks = Vec::new();
        for family in [Family::V4, Family::V6] {
            let of_family = |(ip, _): &&(IpAddr, u16)| ip.is_ipv4() == (family == Family::V4);
            let servers = self.servers.iter().filter(of_family);
            let own = routing.own_addresses(family);
            let (here, elsewhere): (Vec<&(IpAddr, u16)>, Vec<_>) =
                servers.partition(|(ip, _)| ip.is_loopback() || own.contains(ip));
            let need = match (elsewhere.is_empty(), self.has_names) {
                (false, _) => Need::Yes,
                (true, true) => Need::Maybe,
                (true, false) => Need::No,
            };
            if need > Need::No {
                items.extend(self.items_elsewhere(family, need, machine, routing, &mut marks));
            }
            // One rule for all loopback addresses, and one for each other server.
            let mut selectors: Vec<Replies> = Vec::new();
            for (ip, port) in here {
                let replies = Replies::of_server(*ip, *port);
                if !selectors.contains(&replies) {
                    selectors.push(replies);
                }
            }
            for replies in selectors {
                items.extend(match routing.replies_from_here(family, &replies) {
                    Ok(path) => path.items(Need::Yes),
                    Err(error) => vec![unreadable(NAME, &error)],
                });
            }
        }
        for prefix in &self.prefixes {
            let line = format!("ip -6 route add local {prefix} dev lo");
            items.push(match routing.is_local(&prefix.to_string()) {
                Ok(is_there) => item(NAME_NAT46, &line, is_there, Need::Yes),
                Err(error) => unreadable(NAME_NAT46, &error),
            });
        }
        items
    }

    /// The items for servers on other machines. `marks` holds the marks that have an item already.
    fn items_elsewhere(
        &self,
        family: Family,
        need: Need,
        machine: &Proc,
        routing: &Routing<'_>,
        marks: &mut Vec<u32>,
    ) -> Vec<Item> {
        let path = match routing.replies_from_elsewhere(family) {
            Ok(path) => path,
            Err(error) => return vec![unreadable(NAME, &error)],
        };
        let mut items = path.items(need);
        let Some(mark) = path.mark else { return items };
        if !marks.contains(&mark) {
            items.push(marking(routing, mark, need));
            marks.push(mark);
        }
        if family == Family::V4 {
            items.extend(reverse_path(machine));
        }
        items
    }
}

impl ReplyRoute {
    fn items(&self, need: Need) -> Vec<Item> {
        let lines = [(&self.rule, self.has_rule), (&self.route, self.has_route)];
        lines
            .map(|(line, is_there)| item(NAME, line, is_there, need))
            .into()
    }
}

fn permission(machine: &Proc) -> Item {
    if machine.may_use_any_source() {
        return Item::ok(NAME, "this user may use any source address");
    }
    Item::fail(
        NAME,
        "this user may use the machine's own addresses only",
        "grant CAP_NET_ADMIN (AmbientCapabilities= in systemd, setcap on the binary)",
    )
}

fn item(name: &'static str, line: &str, is_there: bool, need: Need) -> Item {
    match (is_there, need) {
        (true, _) => Item::ok(name, format!("there: {line}")),
        (false, Need::Yes) => Item::fail(name, format!("missing: {line}"), REMEDY),
        (false, _) => Item::warn(
            name,
            format!("missing, needed if a name has addresses of this family: {line}"),
            REMEDY,
        ),
    }
}

fn marking(routing: &Routing<'_>, mark: u32, need: Need) -> Item {
    let line = format!(
        "nft 'add table inet pointsman; add chain inet pointsman replies {{ type filter hook \
         prerouting priority mangle; }}; add rule inet pointsman replies meta l4proto tcp socket \
         transparent 1 meta mark set {mark}'"
    );
    match routing.marking(mark) {
        Ok(Marking::There) => item(NAME, &line, true, need),
        Ok(Marking::Missing) => item(NAME, &line, false, need),
        Ok(Marking::Unknown) => Item::warn(
            NAME,
            format!(
                "not found, but there may be such a rule of iptables, which nft does not show: {line}"
            ),
            "nothing to do when iptables sets the mark (-m socket --transparent -j MARK); otherwise run it",
        ),
        Err(error) => unreadable(NAME, &error),
    }
}

/// With src_valid_mark the kernel's reverse path filter uses the mark as well. It then finds the route that
/// makes every address local, and drops the replies as martians.
fn reverse_path(machine: &Proc) -> Option<Item> {
    let interface = machine.interface_with_src_valid_mark()?;
    let sysctl = format!("net.ipv4.conf.{interface}.src_valid_mark");
    Some(Item::fail(
        NAME,
        format!("{sysctl} is 1, with which the kernel drops the replies of backends"),
        format!("sysctl -w {sysctl}=0"),
    ))
}

fn unreadable(name: &'static str, error: &str) -> Item {
    Item::warn(
        name,
        format!("the routing cannot be read: {error}"),
        "install iproute2 and nftables, and run pointsman check as root",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::report::Verdict;

    const RULES: &str = r#"[{"priority":0,"src":"all","table":"local"},
        {"priority":1,"src":"127.0.0.0","srclen":8,"iif":"lo","table":"123"},
        {"priority":2,"not":null,"src":"all","fwmark":"0x9","table":"9"},
        {"priority":32765,"src":"all","fwmark":"0x2a","table":"77"},
        {"priority":32766,"src":"all","table":"main"}]"#;
    const LOCAL: &str =
        r#"[{"type":"local","dst":"default","dev":"lo","scope":"host","flags":[]}]"#;
    const RULESET: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"rule": {"expr": [
        {"match": {"op": "==", "left": {"socket": {"key": "transparent"}}, "right": 1}},
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 42}}]}}]}"#;
    const PREFIX: &str = r#"[{"type":"local","dst":"2001:db8:46::/64","dev":"lo"},
        {"type":"local","dst":"::1","dev":"lo"}]"#;

    const OWN: &str = r#"[{"type":"local","dst":"10.0.0.5","dev":"eth0","scope":"host"}]"#;

    fn wanted(members: &[&str]) -> SourceAddresses {
        let mut wanted = SourceAddresses::default();
        for member in members {
            wanted.add(&Member::parse(member).unwrap());
        }
        wanted
    }

    /// The machine `proc` says, with these answers to the commands that begin so.
    fn report(wanted: &SourceAddresses, answers: &[(&str, &str)]) -> Vec<(Verdict, String)> {
        let root = tempfile::tempdir().unwrap();
        let run = |command: &[&str]| {
            let command = command.join(" ");
            let answer = answers.iter().find(|(start, _)| command.starts_with(start));
            answer.map(|(_, said)| (*said).to_owned()).ok_or(command)
        };
        let items = wanted.items(&Proc::new(root.path()), &Routing::new(&run));
        items
            .into_iter()
            .map(|item| (item.verdict, item.to_string()))
            .collect()
    }

    #[test]
    fn without_such_members_there_is_nothing_to_say() {
        assert_eq!(report(&wanted(&["10.0.0.1 proxy=v2", "a.test"]), &[]), []);
    }

    #[test]
    fn lines_that_are_there_are_found_with_other_numbers_too() {
        let answers = [
            ("ip -4 -j rule", RULES),
            ("ip -4 -j route show table 77", LOCAL),
            ("ip -4 -j route show table", "[]"),
            ("nft -j list ruleset", RULESET),
        ];
        let report = report(&wanted(&["10.0.0.1 source=client"]), &answers);
        let verdicts: Vec<Verdict> = report.iter().map(|(verdict, _)| *verdict).collect();
        // The machine of the test has no /proc, and with it no capability.
        let (fail, ok) = (Verdict::Fail, Verdict::Ok);
        assert_eq!(verdicts, [fail, ok, ok, ok], "{report:?}");
        assert!(
            report[1]
                .1
                .ends_with("there: ip rule add fwmark 42 lookup 77")
        );
        assert!(report[2].1.contains("dev lo table 77"));
    }

    #[test]
    fn lines_that_are_missing_can_be_run_as_they_stand() {
        let answers = [
            ("ip -6 -j rule", "[{\"src\":\"all\",\"table\":\"main\"}]"),
            ("nft -j list ruleset", "{\"nftables\": []}"),
            ("ip -6 -j route show table all type local", "[]"),
        ];
        let members = [
            "[2001:db8::1] source=client",
            "[2001:db8::1] source=nat46:2001:db8:46::/96",
        ];
        let missing: Vec<String> = report(&wanted(&members), &answers)
            .into_iter()
            .filter(|(verdict, _)| *verdict == Verdict::Fail)
            .filter_map(|(_, text)| Some(text.split_once("missing: ")?.1.to_owned()))
            .collect();
        assert_eq!(missing.len(), 4, "{missing:?}");
        assert!(missing[0].starts_with("ip -6 rule add fwmark 1 lookup 100; run it"));
        assert!(missing[1].starts_with("ip -6 route add local ::/0 dev lo table 100; run it"));
        assert!(missing[2].contains("meta mark set 1'; run it"));
        assert!(missing[3].starts_with("ip -6 route add local 2001:db8:46::/96 dev lo; run it"));
    }

    #[test]
    fn a_server_of_this_machine_needs_other_lines() {
        let answers = [
            ("ip -4 -j rule", RULES),
            ("ip -4 -j route show table 123", LOCAL),
            ("ip -6 -j rule", "[]"),
        ];
        let wanted = wanted(&["127.0.0.1:443 source=client", "[::1]:443 source=client"]);
        let report = report(&wanted, &answers);
        let lines: Vec<&str> = report.iter().map(|(_, text)| text.as_str()).collect();
        assert!(lines[1].ends_with("there: ip rule add from 127.0.0.0/8 iif lo lookup 123"));
        assert!(lines[2].ends_with("there: ip route add local 0.0.0.0/0 dev lo table 123"));
        assert!(lines[3].contains("missing: ip -6 rule add from ::1 iif lo lookup 123; run it"));
        assert!(lines[4].contains("missing: ip -6 route add local ::/0 dev lo table 123; run it"));
        assert_eq!(lines.len(), 5, "{lines:?}");

        let answers = [
            ("ip -4 -j rule", RULES),
            ("ip -4 -j route show table local", OWN),
        ];
        let wanted = self::wanted(&["10.0.0.5:8443 source=client"]);
        let report = self::report(&wanted, &answers);
        let rule = "missing: ip rule add from 10.0.0.5 ipproto tcp sport 8443 iif lo lookup 123; ";
        assert!(report[1].1.contains(rule), "{report:?}");
        assert_eq!(report.len(), 3, "{report:?}");
    }

    #[test]
    fn a_prefix_may_be_part_of_a_larger_local_one() {
        let answers = [("ip -6 -j route show table all type local", PREFIX)];
        let verdict = |member: &str| report(&wanted(&[member]), &answers)[0].0;
        let inside = "a.test source=nat46:2001:db8:46::/96";
        assert_eq!(verdict(inside), Verdict::Ok);
        let outside = "a.test source=nat46:2001:db8:47::/96";
        assert_eq!(verdict(outside), Verdict::Fail);
    }

    #[test]
    fn what_cannot_be_known_is_a_warning() {
        // A name may have addresses of either family or not, and no program answers.
        let report = report(&wanted(&["a.test source=client"]), &[]);
        let warned = report
            .iter()
            .filter(|(verdict, _)| *verdict == Verdict::Warn);
        assert_eq!(warned.count(), 2, "{report:?}");
        let answers = [
            ("ip -4 -j rule", RULES),
            ("ip -4 -j route show table 77", LOCAL),
            (
                "nft -j list ruleset",
                r#"{"nftables": [{"rule": {"expr": [{"xt": null}]}}]}"#,
            ),
        ];
        let report = self::report(&wanted(&["10.0.0.1 source=client"]), &answers);
        assert_eq!(report[3].0, Verdict::Warn, "{report:?}");
    }
}
