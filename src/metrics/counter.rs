//! What is counted besides outcomes. One table holds each counter with its metric, so that none of its
//! words can be missing.

/// Counters that are one metric, told apart by a label.
#[derive(Debug)]
pub(crate) struct Family {
    /// Of the metric, without `pointsman_` and `_total`.
    pub name: &'static str,
    /// One sentence for the help line of the metric.
    pub help: &'static str,
    /// What tells the counters of the metric apart; empty where there is one alone.
    pub label: &'static str,
    pub counters: &'static [Counter],
}

macro_rules! counters {
    ($($name:literal $help:literal ($label:literal) {
        $($(#[$doc:meta])* $variant:ident $value:literal)*
    })*) => {
        /// What is counted besides outcomes. Every one only ever grows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Counter {
            $($($(#[$doc])* $variant,)*)*
        }

        impl Counter {
            /// In the order of [`Counter::index`].
            pub(crate) const ALL: [Counter; [$($($value,)*)*].len()] = [$($(Counter::$variant,)*)*];

            /// The metrics, in the order of the page.
            pub(crate) const FAMILIES: &[Family] = &[$(Family {
                name: $name,
                help: $help,
                label: $label,
                counters: &[$(Counter::$variant,)*],
            },)*];

            /// What its label says; empty where it is a metric of its own.
            pub(crate) fn label_value(self) -> &'static str {
                match self {
                    $($(Counter::$variant => $value,)*)*
                }
            }

            /// The words in tables: the metric, and what its label says.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $($(Counter::$variant => concat!($name, " ", $value).trim_ascii_end(),)*)*
                }
            }
        }
    };
}

counters! {
    "accepted_connections" "Connections accepted." ("") {
        /// Connections accepted.
        Accepted ""
    }
    "accept_pauses" "Episodes in which accepting paused for want of descriptors or memory." ("") {
        /// Episodes in which accepting paused because the machine was out of descriptors or memory.
        AcceptPauses ""
    }
    "accept_errors" "Failures of accept." ("") {
        /// accept(2) failures of any kind, those that ended one connection only included.
        AcceptErrors ""
    }
    "received_bytes" "Bytes relayed, by the side that they came from." ("side") {
        /// Bytes moved from clients to backends, heads included.
        BytesFromClients "client"
        /// Bytes moved from backends to clients.
        BytesFromBackends "backend"
    }
    "relayed_bytes" "Bytes relayed, by how they were moved: through a pipe, or a core's buffer." ("method") {
        /// Bytes of both directions that went through a pipe.
        SplicedBytes "splice"
        /// Bytes of both directions that went through the core's buffer.
        CopiedBytes "copy"
    }
    "pipe_shortages" "Times a bulk direction found no pipe and went on copying." ("") {
        /// Times a bulk direction went on copying because no pipe could be had.
        PipeShortages ""
    }
    "requests" "HTTP requests whose head was complete and valid." ("") {
        /// HTTP requests whose head was complete and valid.
        Requests ""
    }
    "responses" "Responses of backends, by the class of their status; 1xx: interim and 101." ("class") {
        /// Interim and 101 responses passed on.
        Responses1xx "1xx"
        /// Responses of backends with status 200 to 299.
        Responses2xx "2xx"
        /// Responses of backends with status 300 to 399.
        Responses3xx "3xx"
        /// Responses of backends with status 400 to 499.
        Responses4xx "4xx"
        /// Responses of backends with status 500 to 599.
        Responses5xx "5xx"
    }
    "redirects" "Requests redirected to https by an option of their host." ("") {
        /// Requests that were redirected to https.
        Redirects ""
    }
    "upstream_connect_attempts" "Connects to backends begun." ("") {
        /// Connects to backends begun.
        ConnectAttempts ""
    }
    "upstream_connect_failures" "Connects to backends refused, reset, unreachable or too slow." ("") {
        /// Connects to backends that were refused, reset, unreachable or too slow.
        ConnectFailures ""
    }
    "upstream_connections_reused" "Requests sent on a backend connection that had carried one before." ("") {
        /// Requests sent on a backend connection that had carried one before.
        ConnectionsReused ""
    }
    "upstream_retries" "Retries by reason: what a backend was sent went to another one, or again on a fresh \
        connection." ("reason") {
        /// To another backend, because the first took what it was sent and closed or kept silent.
        RetriesUnanswered "unanswered"
        /// To another backend, because the first was removed from the host.
        RetriesRemoved "backend_removed"
        /// On a fresh connection, because a reused one turned out closed.
        RetriesStaleConnection "stale_connection"
    }
    "upstream_queued" "Clients that waited because every backend had as many connections as it may." ("") {
        /// Clients that had to wait for a backend to have room.
        Queued ""
    }
    "outlier_ejections" "Times a backend was ejected after failures, further times of the same one \
        included." ("") {
        /// Ejections of backends after failures, further ones of the same backend included.
        OutlierEjections ""
    }
    "outlier_unejections" "Times an ejected backend was back, as a half-open probe has shown." ("") {
        /// Ejected backends that were back, as a half-open probe has shown.
        OutlierUnejections ""
    }
    "panic_mode_picks" "Picks among backends none of which was up, so that all were used." ("") {
        /// Connections and requests whose route had no backend that is up, so that all were used.
        PanicModePicks ""
    }
    "nat46_own_source_connects" "Connects for IPv6 clients to source=nat46 backends, from the proxy's own \
        address." ("") {
        /// Connects for IPv6 clients to source=nat46 backends, which go out from the proxy's own address.
        Nat46OwnSource ""
    }
    "lookup_evictions" "Connections that a look-up does not know of, because its table was full." ("") {
        /// Connections that a look-up does not know of because the table was full.
        LookupEvictions ""
    }
    "limits_untracked" "Clients and hosts admitted uncounted, because the table of limits was full." ("") {
        /// Clients and hosts let in uncounted because their line of the table of limits was full.
        LimitsUntracked ""
    }
}

impl Counter {
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Position in [`Counter::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The counter of a response's class; `status` is from 100 to 599.
    pub(crate) fn of_response(status: u16) -> Counter {
        match status {
            ..200 => Counter::Responses1xx,
            200..300 => Counter::Responses2xx,
            300..400 => Counter::Responses3xx,
            400..500 => Counter::Responses4xx,
            500.. => Counter::Responses5xx,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter.index(), position);
        }
    }

    #[test]
    fn each_counter_is_one_series_of_one_metric() {
        let names: HashSet<&str> = Counter::ALL.into_iter().map(Counter::name).collect();
        assert_eq!(names.len(), Counter::COUNT);
        let families: HashSet<&str> = Counter::FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(families.len(), Counter::FAMILIES.len());
        for family in Counter::FAMILIES {
            let alone = family.counters.len() == 1;
            assert_eq!(family.label.is_empty(), alone, "{}", family.name);
            for counter in family.counters {
                assert_eq!(counter.label_value().is_empty(), alone, "{counter:?}");
            }
        }
    }
}
