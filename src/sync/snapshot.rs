//! The Redis part of the table on disk, so that a start without Redis can serve. Written whole to
//! a temporary file and renamed: whoever reads finds the old one or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::route::{Key, Layer, Table, check_entry};

const FORMAT: &str = "pointsman-snapshot-1";

#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    #[serde(serialize_with = "routes")]
    routes: &'a Table,
}

#[derive(Deserialize)]
struct Read {
    format: String,
    routes: BTreeMap<String, Vec<String>>,
}

fn routes<S: Serializer>(table: &Table, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(None)?;
    for (key, route) in table.routes(Layer::Redis) {
        map.serialize_entry(&key.to_string(), &route.entries())?;
    }
    map.end()
}

/// Replaces the snapshot by the Redis part of `table`.
pub(super) fn write(path: &Path, table: &Table) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let written = (|| {
        let mut out = BufWriter::new(File::create(&temporary)?);
        let content = Written {
            format: FORMAT,
            routes: table,
        };
        serde_json::to_writer(&mut out, &content)?;
        out.write_all(b"\n")?;
        out.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // The write has failed already; that its rest cannot be removed adds nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// What the snapshot holds, checked whole.
pub(super) fn read(path: &Path) -> Result<Vec<(Key, Vec<String>)>, String> {
    let fault = |error: &dyn std::fmt::Display| {
        format!(
            "{}: {error}; the snapshot is ignored and written anew once Redis answers",
            path.display()
        )
    };
    let file = File::open(path).map_err(|error| fault(&error))?;
    let read: Read =
        serde_json::from_reader(BufReader::new(file)).map_err(|error| fault(&error))?;
    if read.format != FORMAT {
        return Err(fault(&format!(
            "format {:?} instead of {FORMAT:?}",
            read.format
        )));
    }
    let mut routes = Vec::with_capacity(read.routes.len());
    for (name, members) in read.routes {
        let key = Key::parse(&name).map_err(|error| fault(&format!("{name:?}: {error}")))?;
        for member in &members {
            check_entry(member)
                .map_err(|error| fault(&format!("{name:?}: {member:?}: {error}")))?;
        }
        routes.push((key, members));
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Master, Registry};

    #[test]
    fn what_is_written_is_read_and_damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.json");
        let mut registry = Registry::new();
        let mut master = Master::new(1);
        for (key, layer) in [
            ("a.test", Layer::Redis),
            ("*.a.test", Layer::Redis),
            ("default:https", Layer::Redis),
            ("static.test", Layer::Static),
        ] {
            let backends = ["10.0.0.1:443", "b.test"].map(|text| registry.intern(text).unwrap());
            let route = registry.route(backends);
            master.set(&Key::parse(key).unwrap(), layer, Some(route));
        }
        write(&path, master.table()).unwrap();
        let mut routes = read(&path).unwrap();
        routes.sort_by_key(|(key, _)| key.to_string());
        let keys: Vec<String> = routes.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(keys, ["*.a.test", "a.test", "default:https"]);
        assert_eq!(routes[1].1, ["10.0.0.1:443", "b.test"]);

        let whole = fs::read(&path).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).unwrap_err().contains("snapshot.json"), "{cut}");
        }
        fs::write(
            &path,
            r#"{"format":"pointsman-snapshot-1","routes":{"a.test":["x:0"]}}"#,
        )
        .unwrap();
        assert!(read(&path).unwrap_err().contains("x:0"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
