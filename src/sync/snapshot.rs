//! The snapshot: the routes of Redis in a file, for a start while Redis does not answer. It is written to
//! a temporary file and renamed, so that a reader finds the old snapshot or the new one, never a part.
//!
//! A file of a million hosts is read route by route: its JSON as a whole would take 400 MB.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::rejected_entries::RejectedEntries;
use crate::route::{Key, Layer, Seen, Table};

const FORMAT: &str = "pointsman-snapshot-1";

/// For the owner alone: the file names internal addresses, and whoever may write it decides about routes.
const MODE: u32 = 0o600;

/// A snapshot that is understood as a whole.
pub(super) struct Snapshot {
    file: File,
    written: SystemTime,
    hosts: Seen,
}

impl Snapshot {
    /// Reads the file once, to see that all of it is understood and which hosts it has. An error names
    /// the file.
    pub(super) fn open(path: &Path) -> Result<Snapshot, String> {
        let file = File::open(path).map_err(|error| fault(path, &error))?;
        let mut hosts = Seen::default();
        let header = read(&file, |name, _: IgnoredAny| {
            if let Ok(key) = Key::parse(name) {
                hosts.insert(&key);
            }
        });
        let header = header.map_err(|error| fault(path, &error))?;
        if header.format != FORMAT {
            let format = format!("format {:?} instead of {FORMAT:?}", header.format);
            return Err(fault(path, &format));
        }
        let of_header = header
            .written
            .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let of_file = file.metadata().and_then(|metadata| metadata.modified());
        Ok(Snapshot {
            written: of_header.or(of_file.ok()).unwrap_or(UNIX_EPOCH),
            file,
            hosts,
        })
    }

    /// Its hosts, wildcards and defaults.
    pub(super) fn hosts(&self) -> &Seen {
        &self.hosts
    }

    pub(super) fn written(&self) -> SystemTime {
        self.written
    }

    pub(super) fn age(&self) -> Duration {
        self.written.elapsed().unwrap_or_default()
    }

    /// Gives every route to `each`, with the key and the entries. A route that is not understood, as one
    /// that a later version wrote may be, is skipped and named in what comes back.
    pub(super) fn read_routes(
        &self,
        mut each: impl FnMut(Key, &[&str], &mut RejectedEntries),
    ) -> io::Result<RejectedEntries> {
        let mut rejected = RejectedEntries::default();
        (&self.file).rewind()?;
        read(&self.file, |name, entries: Value| {
            let key = match Key::parse(name) {
                Ok(key) => key,
                Err(error) => return rejected.add(|| format!("{name:?}: {error}")),
            };
            let Value::Array(entries) = entries else {
                return rejected.add(|| format!("{name:?}: not a list of members"));
            };
            let mut texts = Vec::with_capacity(entries.len());
            for entry in &entries {
                match entry {
                    Value::String(text) => texts.push(text.as_str()),
                    other => rejected.add(|| format!("{name:?}: {other} is not a member")),
                }
            }
            each(key, &texts, &mut rejected);
        })?;
        Ok(rejected)
    }
}

fn fault(path: &Path, error: &dyn fmt::Display) -> String {
    format!(
        "{}: {error}; the snapshot is ignored, and written again when Redis answers",
        path.display()
    )
}

#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    /// Seconds since 1970. It is in the file because copying and restoring change the time of the file.
    written: u64,
    #[serde(serialize_with = "routes")]
    routes: &'a Table,
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

/// What stands in the file beside the routes.
#[derive(Default)]
struct Header {
    format: String,
    written: Option<u64>,
}

/// Reads the whole file and gives every name with its entries to `each`.
fn read<V>(file: &File, each: impl FnMut(&str, V)) -> serde_json::Result<Header>
where
    V: for<'de> Deserialize<'de>,
{
    let mut input = serde_json::Deserializer::from_reader(BufReader::new(file));
    let header = input.deserialize_map(FileVisitor(Routes(each, PhantomData)))?;
    input.end()?;
    Ok(header)
}

struct FileVisitor<F, V>(Routes<F, V>);

impl<'de, F, V> Visitor<'de> for FileVisitor<F, V>
where
    F: FnMut(&str, V),
    V: Deserialize<'de>,
{
    type Value = Header;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a snapshot")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut has_routes = false;
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "format" => header.format = map.next_value()?,
                "written" => header.written = map.next_value()?,
                "routes" => {
                    map.next_value_seed(&mut self.0)?;
                    has_routes = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if has_routes {
            Ok(header)
        } else {
            Err(A::Error::missing_field("routes"))
        }
    }
}

/// Calls the function with the name and the entries of every route.
struct Routes<F, V>(F, PhantomData<V>);

impl<'de, F, V> DeserializeSeed<'de> for &mut Routes<F, V>
where
    F: FnMut(&str, V),
    V: Deserialize<'de>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de, F, V> Visitor<'de> for &mut Routes<F, V>
where
    F: FnMut(&str, V),
    V: Deserialize<'de>,
{
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("routes by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, entries)) = map.next_entry::<String, V>()? {
            (self.0)(&name, entries);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Master, Member, Registry};

    /// All routes, by name, and what is not understood.
    fn read_all(path: &Path) -> (Vec<(Key, Vec<String>)>, RejectedEntries) {
        let mut routes = Vec::new();
        let snapshot = Snapshot::open(path).unwrap();
        let rejected = snapshot.read_routes(|key, entries, _| {
            let entries = entries.iter().map(|entry| String::from(*entry));
            routes.push((key, entries.collect()));
        });
        routes.sort_by_key(|(key, _)| key.to_string());
        (routes, rejected.unwrap())
    }

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
        let (routes, rejected) = read_all(&path);
        assert!(Snapshot::open(&path).unwrap().age() < Duration::from_secs(60));
        assert_eq!(rejected.count(), 0);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let keys: Vec<String> = routes.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(keys, ["*.a.test", "a.test", "default:https"]);
        assert_eq!(routes[1].1, ["10.0.0.1:443", "b.test"]);

        let whole = fs::read(&path).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(
                Snapshot::open(&path)
                    .err()
                    .unwrap()
                    .contains("snapshot.json"),
                "{cut}"
            );
        }
        // Without a time, as earlier versions wrote it, and with entries that only a later version knows.
        let odd = r#"{"format":"pointsman-snapshot-1","later":1,"routes":{
            "a b":["10.0.0.1"],"no.test":7,"a.test":["10.0.0.1",7,"x:0","@later=1"]}}"#;
        fs::write(&path, odd).unwrap();
        let snapshot = Snapshot::open(&path).unwrap();
        assert!(snapshot.age() < Duration::from_secs(60));
        assert_eq!(snapshot.hosts().len(), 2);
        assert!(snapshot.hosts().contains(&Key::parse("a.test").unwrap()));
        let (routes, rejected) = read_all(&path);
        let entries = ["10.0.0.1", "x:0", "@later=1"].map(String::from);
        let expected = (Key::parse("a.test").unwrap(), entries.to_vec());
        assert_eq!(routes, [expected]);
        let said = rejected.into_reasons().join("; ");
        assert!(
            ["\"a b\"", "\"no.test\"", "7 is not"]
                .iter()
                .all(|part| said.contains(part)),
            "{said}"
        );
        fs::write(&path, odd.replace("snapshot-1", "snapshot-9")).unwrap();
        assert!(Snapshot::open(&path).err().unwrap().contains("snapshot-9"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
