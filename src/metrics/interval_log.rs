//! A dump as an HdrHistogram interval log with V2 compressed histograms, readable by
//! HistogramLogProcessor, HistogramLogAnalyzer and this crate's own reader.
//!
//! Each stage of each protocol has two tags: `tls.connect` since the last dump and
//! `tls.connect.total` since the start. Tools add up lines of one tag, so the `.total` lines must
//! not share it. Values are nanoseconds; the maximum in clear is in milliseconds, as the Java
//! tools write it.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use super::dump::Dump;
use super::stage::Stage;
use crate::protocol::Protocol;

/// The header that the Java writer opens a log with.
const FORMAT_VERSION: &str = "[Histogram log format version 1.3]";

const NS_PER_MS: f64 = 1_000_000.0;

/// Writes the whole log. Timestamps are seconds since the start of the process, which the header
/// gives as both StartTime and BaseTime.
pub(crate) fn write_interval_log(out: &mut impl Write, dump: &Dump<'_>) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(FORMAT_VERSION)
        .add_comment(&format!(
            "pointsman dump {}, nanoseconds, {}",
            dump.sequence,
            dump.coverage()
        ))
        .with_start_time(dump.started)
        .with_base_time(dump.started)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(out, &mut serializer)?;
    let last = dump.since_start.saturating_sub(dump.since_last);
    // Readers expect lines in the order of their start.
    for (metrics, suffix, start, span) in [
        (dump.total, ".total", Duration::ZERO, dump.since_start),
        (dump.interval, "", last, dump.since_last),
    ] {
        for protocol in Protocol::ALL {
            for stage in Stage::ALL {
                let tag = format!("{}.{}{suffix}", protocol.name(), stage.name());
                log.write_histogram(
                    metrics.histogram(protocol, stage),
                    start,
                    span,
                    Some(Tag::new(&tag).expect("names hold no blank and no comma")),
                )
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                })?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use base64::Engine as _;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::metrics::CoreMetrics;

    #[test]
    fn the_reader_gets_back_what_was_recorded() {
        let mut total = CoreMetrics::new();
        let mut interval = CoreMetrics::new();
        for ms in 1..=1000 {
            total.record(Protocol::Tls, Stage::Connect, Duration::from_millis(ms));
        }
        interval.record(Protocol::Tls, Stage::Connect, Duration::from_millis(7));
        let mut bytes = Vec::new();
        let dump = Dump {
            sequence: 2,
            started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            since_start: Duration::from_secs(90),
            since_last: Duration::from_secs(30),
            total: &total,
            interval: &interval,
            cores: 2,
            missing: &[],
        };
        write_interval_log(&mut bytes, &dump).unwrap();

        let text = str::from_utf8(&bytes).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"));
        assert!(text.contains("#[StartTime: 1700000000.000 (seconds since epoch)]\n"));
        let mut read = BTreeMap::new();
        for entry in IntervalLogIterator::new(&bytes) {
            let LogEntry::Interval(line) = entry.unwrap() else {
                continue;
            };
            let encoded = base64::engine::general_purpose::STANDARD
                .decode(line.encoded_histogram())
                .unwrap();
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut encoded.as_slice())
                .unwrap();
            let tag = line.tag().unwrap().as_str().to_owned();
            read.insert(tag, (line.start_timestamp(), line.duration(), histogram));
        }
        assert_eq!(read.len(), 2 * Protocol::ALL.len() * Stage::COUNT);

        let (start, span, histogram) = &read["tls.connect.total"];
        assert_eq!((*start, *span), (Duration::ZERO, dump.since_start));
        assert_eq!(histogram, total.histogram(Protocol::Tls, Stage::Connect));
        let median = histogram.value_at_quantile(0.5) as f64;
        assert!((median / 500e6 - 1.0).abs() < 0.01, "{median}");

        let (start, span, histogram) = &read["tls.connect"];
        assert_eq!((*start, *span), (Duration::from_secs(60), dump.since_last));
        assert_eq!(histogram.len(), 1);
        assert!(read["http.lifetime"].2.is_empty());
    }
}
