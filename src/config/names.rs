//! Unknown names of options: which option was probably meant, and which variables are not the operator's.

use super::options::{ENVIRONMENT_PREFIX, OptionSpec, options};

/// How similar two names have to be for a hint, as clap measures it for flags; 1 is equal. Stricter than
/// clap's 0.7: a wrong hint is worse than none.
const SIMILARITY_MIN: f64 = 0.8;

/// What to do about an unknown key of the file.
pub(super) fn remedy_for_key(name: &str) -> String {
    match meant(name) {
        Some(spec) => format!("write {}", spec.name),
        None => String::from("correct or remove it; pointsman --help lists all options"),
    }
}

/// What to do about an unknown flag of the command line.
pub(super) fn remedy_for_flag(name: &str) -> String {
    match meant(name) {
        Some(spec) => format!("write --{}", spec.name),
        None => String::from("correct or remove it; pointsman --help lists all options"),
    }
}

/// What to do about an unknown variable.
pub(super) fn remedy_for_variable(name: &str) -> String {
    match meant(name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name)) {
        Some(spec) => format!("write {}, or unset it", spec.environment_name()),
        None => {
            String::from("correct the name or unset the variable; pointsman --help lists all names")
        }
    }
}

/// The option whose name is most similar to this one.
fn meant(name: &str) -> Option<&'static OptionSpec> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let shown = options().filter(|spec| !spec.hidden);
    shown
        .map(|spec| (strsim::jaro(spec.name, &name), spec))
        .filter(|(similarity, _)| *similarity > SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, spec)| spec)
}

/// Whether Kubernetes sets this variable. It does so in every pod, for each service in the namespace; the
/// variables of a service whose name begins with `pointsman` look like options. `POINTSMAN_VERSION`, which
/// images may set, counts as well. An option misspelt by the operator is not mistaken for one of these: no
/// option has such a name, and the values are addresses of services.
pub(super) fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
        return false;
    };
    // The service may be called `pointsman` or `pointsman-metrics`, and its port may have a name.
    let after = |word: &str| {
        let inner = rest.rfind(&format!("_{word}")).map(|at| &rest[at + 1..]);
        let inner = inner.or_else(|| rest.starts_with(word).then_some(rest));
        inner.map(|inner| &inner[word.len()..])
    };
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_link = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    if rest == "VERSION" || after("SERVICE_HOST") == Some("") {
        return true;
    }
    if let Some(port) = after("SERVICE_PORT") {
        return (port.is_empty() || port.starts_with('_')) && is_number(value);
    }
    let Some(link) = after("PORT") else {
        return false;
    };
    // `PORT` and `PORT_80_TCP`, and for the latter also `_PROTO`, `_PORT` and `_ADDR`.
    let of_link = |text: &str| {
        let mut parts = text.split('_').skip(1);
        let number = parts.next().is_some_and(is_number);
        number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    is_link && (link.is_empty() || of_link(link)) || is_part_of_link(rest)
}

/// Whether this is `…PORT_80_TCP_PROTO`, `…PORT_80_TCP_PORT` or `…PORT_80_TCP_ADDR`.
fn is_part_of_link(rest: &str) -> bool {
    let mut parts = rest.rsplit('_');
    matches!(parts.next(), Some("PROTO" | "PORT" | "ADDR"))
        && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
        && parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
        && parts.next() == Some("PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        for (key, remedy) in [
            ("drian", "write drain"),
            ("head_deadline", "write head-deadline"),
            ("pool-deadline", "write pool-idle-deadline"),
            ("Route", "write route"),
            ("redis-url", "write redis"),
            ("kernel-mas", "correct or remove it"),
            ("foobar", "correct or remove it"),
            ("", "correct or remove it"),
        ] {
            let got = remedy_for_key(key);
            assert!(got.starts_with(remedy), "{key:?}: {got}");
        }
        assert_eq!(
            remedy_for_variable("POINTSMAN_HEAD_DEADLIN"),
            "write POINTSMAN_HEAD_DEADLINE, or unset it"
        );
        assert!(remedy_for_variable("POINTSMAN_FOO").starts_with("correct the name"));
    }

    #[test]
    fn variables_of_services_are_told_from_mistakes() {
        for service in ["POINTSMAN", "POINTSMAN_METRICS", "POINTSMAN_HTTP_PORT"] {
            for (rest, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_HOST", "fd00::1"),
                ("SERVICE_PORT", "9090"),
                ("SERVICE_PORT_HTTP", "9090"),
                ("SERVICE_PORT_HTTP_ADMIN", "9090"),
                ("PORT", "tcp://10.0.0.1:9090"),
                ("PORT", "udp://10.0.0.1:9090"),
                ("PORT_9090_TCP", "tcp://[fd00::1]:9090"),
                ("PORT_9090_UDP", "udp://10.0.0.1:9090"),
                ("PORT_9090_SCTP", "sctp://10.0.0.1:9090"),
                ("PORT_9090_TCP_PROTO", "tcp"),
                ("PORT_9090_TCP_PORT", "9090"),
                ("PORT_9090_TCP_ADDR", "10.0.0.1"),
            ] {
                let name = format!("{service}_{rest}");
                assert!(is_of_kubernetes(&name, value), "{name}={value}");
            }
        }
        assert!(is_of_kubernetes("POINTSMAN_VERSION", "0.1.0"));
        for (name, value) in [
            ("POINTSMAN_PORT", "8080"),
            ("POINTSMAN_HTTP_PORT", ":80"),
            ("POINTSMAN_ADMIN_PORTS", "tcp://10.0.0.1:1"),
            ("POINTSMAN_PORT_HTTP", "tcp://10.0.0.1:1"),
            ("POINTSMAN_SERVICE", "x"),
            ("POINTSMAN_SERVICE_PORT", "http"),
            ("POINTSMAN_HTTPS_VERSION", "1"),
        ] {
            assert!(!is_of_kubernetes(name, value), "{name}={value}");
        }
        let options = options().map(|spec| spec.environment_name());
        for name in options {
            assert!(!is_of_kubernetes(&name, "tcp://10.0.0.1:1"), "{name}");
        }
    }
}
