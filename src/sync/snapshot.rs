//! The snapshot: the routes of Redis in a file, for a start while Redis does not answer. It is written to
//! a temporary file and renamed, so that a reader finds the old snapshot or the new one, never a part.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rejected_entries::RejectedEntries;
use crate::route::{Key, Layer, Table};

const FORMAT: &str = "pointsman-snapshot-1";

/// For the owner alone: the file names internal addresses, and whoever may write it decides about routes.
const MODE: u32 = 0o600;

/// What a snapshot holds.
pub(super) struct Snapshot {
    pub(super) routes: Vec<(Key, Vec<String>)>,
    pub(super) written: SystemTime,
    /// What is not a route. Members and options are checked when they are filed.
    pub(super) rejected: RejectedEntries,
}

impl Snapshot {
    pub(super) fn age(&self) -> Duration {
        self.written.elapsed().unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    /// Seconds since 1970. It is in the file because copying and restoring change the time of the file.
    written: u64,
    #[serde(serialize_with = "routes")]
    routes: &'a Table,
}

#[derive(Deserialize)]
struct Read {
    format: String,
    written: Option<u64>,
    routes: BTreeMap<String, Value>,
}

fn routes<S: Serializer>(table: &Table, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(None)?;
    for (key, route) in table.routes(Layer::Redis) {
        map.serialize_entry(&key.to_string(), &route.entries())?;
    }
    map.end()
}

/// Replaces the snapshot by the routes of Redis in `table`.
pub(super) fn write(path: &Path, table: &Table) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE);
        let file = options.open(&temporary)?;
        // A file that an earlier process with the same number left behind keeps its own mode.
        file.set_permissions(Permissions::from_mode(MODE))?;
        let mut out = BufWriter::new(file);
        let content = Written {
            format: FORMAT,
            written: UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            routes: table,
        };
        serde_json::to_writer(&mut out, &content)?;
        out.write_all(b"\n")?;
        out.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // The error to report is that of the write.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads the snapshot. A host that is not understood, as one that a later version wrote may be, is
/// skipped and named; a file that is not understood as a whole is an error.
pub(super) fn read(path: &Path) -> Result<Snapshot, String> {
    let fault = |error: &dyn std::fmt::Display| {
        format!(
            "{}: {error}; the snapshot is ignored, and written again when Redis answers",
            path.display()
        )
    };
    let file = File::open(path).map_err(|error| fault(&error))?;
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let read: Read =
        serde_json::from_reader(BufReader::new(file)).map_err(|error| fault(&error))?;
    if read.format != FORMAT {
        return Err(fault(&format!(
            "format {:?} instead of {FORMAT:?}",
            read.format
        )));
    }
    let written = read
        .written
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let mut snapshot = Snapshot {
        routes: Vec::with_capacity(read.routes.len()),
        written: written.or(modified.ok()).unwrap_or(UNIX_EPOCH),
        rejected: RejectedEntries::default(),
    };
    for (name, entries) in read.routes {
        let key = match Key::parse(&name) {
            Ok(key) => key,
            Err(error) => {
                snapshot.rejected.add(|| format!("{name:?}: {error}"));
                continue;
            }
        };
        let Value::Array(entries) = entries else {
            snapshot
                .rejected
                .add(|| format!("{name:?}: not a list of members"));
            continue;
        };
        let texts = entries.into_iter().filter_map(|entry| match entry {
            Value::String(text) => Some(text),
            other => {
                snapshot
                    .rejected
                    .add(|| format!("{name:?}: {other} is not a member"));
                None
            }
        });
        let texts = texts.collect();
        snapshot.routes.push((key, texts));
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Master, Member, Registry};

    #[test]
    fn what_is_written_is_read_and_damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.json");
        let mut registry = Registry::default();
        let mut master = Master::new(1);
        for (key, layer) in [
            ("a.test", Layer::Redis),
            ("*.a.test", Layer::Redis),
            ("default:https", Layer::Redis),
            ("static.test", Layer::Static),
        ] {
            let backends = ["10.0.0.1:443", "b.test"]
                .map(|text| registry.endpoint(Member::parse(text).unwrap()).backend);
            let route = registry.route(backends);
            master.set(&Key::parse(key).unwrap(), layer, Some(route));
        }
        write(&path, master.table()).unwrap();
        let snapshot = read(&path).unwrap();
        assert!(snapshot.age() < Duration::from_secs(60) && snapshot.rejected.count() == 0);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let mut routes = snapshot.routes;
        routes.sort_by_key(|(key, _)| key.to_string());
        let keys: Vec<String> = routes.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(keys, ["*.a.test", "a.test", "default:https"]);
        assert_eq!(routes[1].1, ["10.0.0.1:443", "b.test"]);

        let whole = fs::read(&path).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(
                read(&path).err().unwrap().contains("snapshot.json"),
                "{cut}"
            );
        }
        // Without a time, as earlier versions wrote it, and with entries that only a later version knows.
        let odd = r#"{"format":"pointsman-snapshot-1","later":1,"routes":{
            "a b":["10.0.0.1"],"no.test":7,"a.test":["10.0.0.1",7,"x:0","@later=1"]}}"#;
        fs::write(&path, odd).unwrap();
        let snapshot = read(&path).unwrap();
        assert!(snapshot.age() < Duration::from_secs(60));
        let entries = ["10.0.0.1", "x:0", "@later=1"].map(String::from);
        assert_eq!(
            snapshot.routes,
            [(Key::parse("a.test").unwrap(), entries.to_vec())]
        );
        let said = snapshot.rejected.into_reasons().join("; ");
        assert!(
            ["\"a b\"", "\"no.test\"", "7 is not"]
                .iter()
                .all(|part| said.contains(part)),
            "{said}"
        );
        fs::write(&path, odd.replace("snapshot-1", "snapshot-9")).unwrap();
        assert!(read(&path).err().unwrap().contains("snapshot-9"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
