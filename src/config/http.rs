//! How HTTP requests are passed on and what clients are told, checked.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::check::Checker;
use super::error::{ConfigError, Fault};
use super::value;
use crate::http::Forwarding;
use crate::route::ClientFinished;

/// Largest page of one's own in bytes: it is sent at once, from memory.
const PAGE_BYTES_MAX: u64 = 256 * 1024;
/// The statuses that the proxy answers with itself.
const PAGE_STATUSES: [u16; 12] = [308, 400, 404, 405, 408, 421, 429, 431, 502, 503, 504, 505];

/// What the HTTP port obeys besides limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpSettings {
    /// What backends are told about the client.
    pub forwarding: Forwarding,
    /// Clients that are believed about those before them.
    pub trusted_from: Vec<IpNet>,
    /// Whether HTTP/2 with prior knowledge is carried, routed by its first request.
    pub h2c: bool,
    /// Whether answers of the proxy itself leave the outcome's name out.
    pub hides_outcome: bool,
    /// HTML instead of the usual sentence, by status.
    pub pages: Vec<(u16, Arc<[u8]>)>,
    /// What becomes of a request whose client finishes first, where the host does not say.
    pub client_finished: ClientFinished,
    /// Whether an unknown host is told 404 instead of 421.
    pub unknown_is_404: bool,
}

impl HttpSettings {
    /// Whether what this client says of those before it is believed.
    pub(crate) fn trusts(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted_from.iter().any(|net| net.contains(&client))
    }
}

impl Checker<'_> {
    pub(super) fn http_settings(&self) -> Result<HttpSettings, ConfigError> {
        let yes_no = |name| {
            self.value(name, |text| {
                value::word(text, &[("yes", true), ("no", false)])
            })
        };
        Ok(HttpSettings {
            forwarding: self.optional("forwarded", forwarding)?.unwrap_or_default(),
            trusted_from: self.all("trusted-from", network)?,
            h2c: yes_no("h2c")?,
            hides_outcome: !yes_no("outcome-header")?,
            pages: self.all("error-page", page)?,
            client_finished: self.value("client-finished", |text| {
                value::word(text, &ClientFinished::WORDS)
            })?,
            unknown_is_404: self.value("unknown-host", |text| {
                value::word(text, &[("421", false), ("404", true)])
            })?,
        })
    }
}

fn forwarding(text: &str) -> Result<Forwarding, Fault> {
    let mut forwarding = Forwarding::default();
    for word in text.split(',').map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => forwarding.address = true,
            "x-forwarded-proto" => forwarding.protocol = true,
            "x-forwarded-port" => forwarding.port = true,
            "x-real-ip" => forwarding.real_ip = true,
            "forwarded" => forwarding.standard = true,
            _ => {
                return Err(Fault::new(
                    format!("{word:?} is no field that can be added"),
                    "write some of x-forwarded-for, x-forwarded-proto, x-forwarded-port, x-real-ip and forwarded, with commas between",
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

fn page(text: &str) -> Result<(u16, Arc<[u8]>), Fault> {
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
    let bytes = std::fs::metadata(path)
        .and_then(|file| match file.len() {
            ..=PAGE_BYTES_MAX => std::fs::read(path),
            _ => Err(std::io::ErrorKind::FileTooLarge.into()),
        })
        .map_err(|error| fault(format!("{path} cannot be read: {error}")))?;
    Ok((status, bytes.into()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A value of each option of HTTP that is not its default.
    pub(in crate::config) const HTTP_VALUES: [(&str, &str); 15] = [
        ("keep-alive-deadline", "61s"),
        ("body-deadline", "31s"),
        ("response-deadline", "62s"),
        ("response-head-bytes-max", "16KiB"),
        ("requests-per-connection-max", "9"),
        ("pool-per-backend", "8"),
        ("pool-per-core", "9"),
        ("client-finished", "abort"),
        ("pool-idle-deadline", "29s"),
        ("forwarded", "x-real-ip,forwarded"),
        ("trusted-from", "10.0.0.0/8"),
        ("h2c", "yes"),
        ("outcome-header", "no"),
        (
            "error-page",
            concat!("502=", env!("CARGO_MANIFEST_DIR"), "/LICENSE"),
        ),
        ("unknown-host", "404"),
    ];

    #[test]
    fn fields_are_listed_by_name() {
        let some = forwarding("X-Forwarded-For, forwarded").unwrap();
        assert!(some.address && some.standard && !some.real_ip && !some.is_off());
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

    #[test]
    fn pages_are_read_at_the_start() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "<p>away</p>").unwrap();
        let text = format!("502={}", file.path().display());
        assert_eq!(page(&text).unwrap(), (502, (*b"<p>away</p>").into()));
        let other_status = text.replace("502=", "200=");
        let no_file = format!("{text}.missing");
        for wrong in ["502", &other_status, &no_file, "x=y"] {
            assert!(page(wrong).is_err(), "{wrong:?}");
        }
    }
}
