//! The files of a latency dump: `pointsman-PID-SEQUENCE.hlog` for the HdrHistogram tools, the same with
//! `.txt` for people, and copies of the newest as `latest.hlog` and `latest.txt`. Each file is renamed
//! into place once it is complete. Nothing removes old files but the operator.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::metrics::{Dump, write_interval_log, write_table};

/// A directory that this process may write into.
#[derive(Debug, Clone)]
pub(crate) struct LatencyDir {
    path: PathBuf,
}

impl LatencyDir {
    /// Makes the directory if it is missing, and tries to write into it, so that a wrong setting shows
    /// at the start and not at the first dump.
    ///
    /// # Errors
    /// With the path and the remedy in the text.
    pub(crate) fn open(path: &Path) -> io::Result<LatencyDir> {
        let trial = path.join(format!(".pointsman-{}.trial", std::process::id()));
        fs::create_dir_all(path)
            .and_then(|()| File::create(&trial))
            .and_then(|_| fs::remove_file(&trial))
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "latency-dir {} cannot be written into: {error}; name another directory or \
                         let this user write there",
                        path.display()
                    ),
                )
            })?;
        Ok(LatencyDir {
            path: path.to_owned(),
        })
    }

    /// Writes all four files. Returns the path of the one for people.
    ///
    /// # Errors
    /// That of the file system. Files that were there before are untouched.
    pub(crate) fn write(&self, dump: &Dump<'_>) -> io::Result<PathBuf> {
        let stem = format!("pointsman-{}-{}", std::process::id(), dump.sequence);
        let mut page = PathBuf::new();
        for (suffix, write) in [
            (
                "hlog",
                write_interval_log as fn(&mut BufWriter<File>, &Dump<'_>) -> io::Result<()>,
            ),
            ("txt", write_table),
        ] {
            page = self.path.join(format!("{stem}.{suffix}"));
            let partial = self.path.join(format!(".{stem}.{suffix}.partial"));
            let latest = self.path.join(format!("latest.{suffix}"));
            let written = write_whole(&partial, &page, |file| write(file, dump)).and_then(|()| {
                fs::copy(&page, &partial)?;
                fs::rename(&partial, &latest)
            });
            if written.is_err() {
                let _ = fs::remove_file(&partial);
            }
            written?;
        }
        Ok(page)
    }
}

fn write_whole(
    partial: &Path,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(partial)?);
    write(&mut file)?;
    file.flush()?;
    fs::rename(partial, path)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::metrics::CoreMetrics;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn dump(metrics: &CoreMetrics, sequence: u64) -> Dump<'_> {
        Dump {
            sequence,
            started: UNIX_EPOCH,
            since_start: Duration::from_secs(2),
            since_last: Duration::from_secs(1),
            total: metrics,
            interval: metrics,
            cores: 1,
            missing: &[],
        }
    }

    #[test]
    fn each_dump_has_its_files_and_latest_is_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("made/by/open");
        let latency_dir = LatencyDir::open(&inner).unwrap();
        assert_eq!(names(&inner), [""; 0]);
        let metrics = CoreMetrics::new();
        latency_dir.write(&dump(&metrics, 1)).unwrap();
        let page = latency_dir.write(&dump(&metrics, 2)).unwrap();
        let pid = std::process::id();
        let mut expected = vec!["latest.hlog".to_owned(), "latest.txt".to_owned()];
        for sequence in [1, 2] {
            expected.push(format!("pointsman-{pid}-{sequence}.hlog"));
            expected.push(format!("pointsman-{pid}-{sequence}.txt"));
        }
        assert_eq!(names(&inner), expected);
        let latest = fs::read_to_string(inner.join("latest.txt")).unwrap();
        assert!(latest.starts_with("pointsman dump 2,"));
        assert_eq!(fs::read_to_string(page).unwrap(), latest);
    }

    #[test]
    fn a_directory_that_cannot_be_is_refused_with_the_remedy() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = LatencyDir::open(&file.path().join("below")).unwrap_err();
        assert!(
            error.to_string().contains("name another directory"),
            "{error}"
        );
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let latency_dir = LatencyDir::open(path).unwrap();
        // A directory in the place of the file makes the rename fail, for root too.
        let taken = path.join(format!("pointsman-{}-1.hlog", std::process::id()));
        fs::create_dir_all(taken.join("x")).unwrap();
        latency_dir
            .write(&dump(&CoreMetrics::new(), 1))
            .unwrap_err();
        assert_eq!(names(path).len(), 1);
    }
}
