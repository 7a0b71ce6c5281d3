//! The options that say how HTTP requests are passed on.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::validator::Validator;
use crate::config::error::Fault;
use crate::config::http_settings::HttpSettings;
use crate::config::typed::Typed;
use crate::config::value::{self, yes_or_no};
use crate::http::Forwarding;
use crate::route::ClientFinished;

/// The statuses that the proxy answers with itself.
const PAGE_STATUSES: [u16; 12] = [308, 400, 404, 405, 408, 421, 429, 431, 502, 503, 504, 505];

impl Validator<'_> {
    pub(super) fn http_settings(&self) -> HttpSettings {
        HttpSettings {
            forwarding: self.optional("forwarded", forwarding).unwrap_or_default(),
            trusted_from: self.all("trusted-from", network),
            h2c: self.value("h2c", yes_or_no),
            hides_outcome: !self.value("outcome-header", yes_or_no),
            pages: self.all("error-page", |text| page(text, self.typed)),
            client_finished: self.value("client-finished", |text| {
                value::word(text, &ClientFinished::ALL.map(|one| (one.name(), one)))
            }),
            unknown_is_404: self.value("unknown-host", |text| {
                value::word(text, &[("421", false), ("404", true)])
            }),
        }
    }
}

fn forwarding(text: &str) -> Result<Forwarding, Fault> {
    let mut forwarding = Forwarding::default();
    for word in text.split(',').map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => forwarding.x_forwarded_for = true,
            "x-forwarded-proto" => forwarding.x_forwarded_proto = true,
            "x-forwarded-port" => forwarding.x_forwarded_port = true,
            "x-real-ip" => forwarding.x_real_ip = true,
            "forwarded" => forwarding.forwarded = true,
            _ => {
                return Err(Fault::new(
                    format!("{word:?} is no field that can be added"),
                    "write some of x-forwarded-for, x-forwarded-proto, x-forwarded-port, x-real-ip and \
                     forwarded, with commas between",
                ));
            }
        }
    }
    Ok(forwarding)
}

fn network(text: &str) -> Result<IpNet, Fault> {
    let net = text.parse::<IpNet>().ok();
    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.ok_or_else(|| {
        Fault::new(
            format!("{text:?} is no network"),
            "write an address or a network, like 10.0.0.0/8 or 2001:db8::/32",
        )
    })
}

fn page(text: &str, typed: &Typed) -> Result<(u16, Arc<[u8]>), Fault> {
    let fault = |problem: String| {
        Fault::new(
            problem,
            "write STATUS=FILE, like 502=/etc/pointsman/502.html, with an HTML file of at most 256 KiB",
        )
    };
    let (status, path) = text
        .split_once('=')
        .ok_or_else(|| fault(format!("{text:?} has no equals sign")))?;
    let status = status
        .trim()
        .parse()
        .ok()
        .filter(|status| PAGE_STATUSES.contains(status))
        .ok_or_else(|| fault(format!("the proxy never answers {status:?} by itself")))?;
    let path = path.trim();
    let page = typed
        .pages
        .get(path)
        .expect("the first stage reads every page");
    let bytes = page
        .clone()
        .map_err(|error| fault(format!("{path} cannot be read: {error}")))?;
    Ok((status, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_listed_by_name() {
        let some = forwarding("X-Forwarded-For, forwarded").unwrap();
        assert!(some.x_forwarded_for && some.forwarded && !some.x_real_ip && !some.is_off());
        for wrong in ["", "x-forwarded-for,", "via"] {
            assert!(forwarding(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn trusted_networks_cover_mapped_addresses() {
        let settings = HttpSettings {
            trusted_from: vec![network("10.0.0.0/8").unwrap(), network("::1").unwrap()],
            ..HttpSettings::default()
        };
        for (client, trusted) in [
            ("10.9.9.9", true),
            ("::ffff:10.9.9.9", true),
            ("::1", true),
            ("11.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(
                settings.trusts(client.parse().unwrap()),
                trusted,
                "{client}"
            );
        }
        assert!(network("10.0.0.0/33").is_err() && network("a.test").is_err());
    }
}
