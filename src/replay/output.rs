//! The files a replay writes, all or none: they are written beside their folder and put in place at the end.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::input::RawRecord;
use crate::error::{Error, Result};
use crate::event::Reject;
use crate::kafka::dead_letter;
use crate::pipeline::emit;
use crate::pipeline::engine::Engine;
use crate::pipeline::outbox::{Channel, Outbox};
use crate::time::Ts;

/// The files of a replay.
pub const FILES: [&str; 7] = [
    "stage-changes.ndjson",
    "churn-scores.ndjson",
    "churn-alerts.ndjson",
    "churn-outcomes.ndjson",
    "erasures.ndjson",
    "dlq.ndjson",
    "features.ndjson",
];

/// The files of the channels come first, in their order.
const DLQ: usize = Channel::ALL.len();
const FEATURES: usize = DLQ + 1;

/// Where the outputs go.
pub struct Output {
    dir: PathBuf,
    staging: PathBuf,
    files: [Option<BufWriter<File>>; FILES.len()],
    /// Snapshots, kept apart so that one can be taken anew.
    snapshots: Vec<(Ts, PathBuf)>,
    finished: bool,
}

impl Output {
    /// Makes a staging folder beside `dir`. Refuses to replace anything but the outputs of an earlier replay.
    pub fn create(dir: &Path, force: bool, with_features: bool) -> Result<Output> {
        refuse_foreign(dir, force)?;
        let name = dir.file_name().map_or("out".into(), |n| n.to_string_lossy().into_owned());
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let staging = parent.join(format!(".{name}.{}.partial", std::process::id()));
        fs::create_dir_all(&staging).map_err(|e| Error::io("make the folder", &staging, &e))?;
        let mut output = Output {
            dir: dir.to_owned(),
            staging,
            files: Default::default(),
            snapshots: Vec::new(),
            finished: false,
        };
        for (place, name) in FILES.iter().enumerate() {
            if place != FEATURES || with_features {
                output.files[place] = Some(output.open(name)?);
            }
        }
        Ok(output)
    }

    fn open(&self, name: &str) -> Result<BufWriter<File>> {
        let path = self.staging.join(name);
        let file = File::create(&path).map_err(|e| Error::io("write", &path, &e))?;
        Ok(BufWriter::with_capacity(1 << 18, file))
    }

    /// An output that takes the place of the snapshot at `at`, and lets everything else pass away.
    pub fn replace_snapshot(&mut self, at: Ts) -> Output {
        self.snapshots.retain(|(known, _)| *known != at);
        Output {
            dir: self.dir.clone(),
            staging: self.staging.clone(),
            files: Default::default(),
            snapshots: Vec::new(),
            finished: true,
        }
    }

    /// Appends what the engine has decided. A file has no place for a tombstone.
    pub fn records(&mut self, outbox: &Outbox) -> Result<()> {
        for (record, _, value) in outbox.records().filter(|(record, ..)| !record.is_tombstone()) {
            self.line(record.channel as usize, value)?;
        }
        Ok(())
    }

    /// Appends a record that could not be used, as it came.
    pub fn dead_letter(&mut self, topic: &str, record: &RawRecord, reject: &Reject) -> Result<()> {
        let origin =
            dead_letter::Origin { topic, partition: 0, offset: record.number, timestamp: record.timestamp };
        let line = dead_letter::as_json(&origin, None, &record.bytes, reject);
        self.line(DLQ, line.as_bytes())
    }

    /// Writes the features of every customer at `at`, by customer id.
    pub fn features(&mut self, engine: &Engine, at: Ts) -> Result<()> {
        let path = self.staging.join(format!("features.{at}"));
        let file = File::create(&path).map_err(|e| Error::io("write", &path, &e))?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        let store = engine.store();
        let mut known: Vec<u32> = store.indices().collect();
        known.sort_unstable_by(|a, b| store.id(*a).cmp(store.id(*b)));
        let mut line = Vec::new();
        for index in known {
            line.clear();
            emit::snapshot(&mut line, engine.plan(), store.id(index), &engine.view(index, at), at);
            line.push(b'\n');
            file.write_all(&line).map_err(|e| Error::io("write", &path, &e))?;
        }
        file.flush().map_err(|e| Error::io("write", &path, &e))?;
        self.snapshots.push((at, path));
        Ok(())
    }

    fn line(&mut self, place: usize, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.files[place] else { return Ok(()) };
        let written = file.write_all(bytes).and_then(|()| file.write_all(b"\n"));
        written.map_err(|e| Error::io("write", &self.staging.join(FILES[place]), &e))
    }

    /// Puts everything in place.
    pub fn finish(mut self) -> Result<()> {
        self.join_snapshots()?;
        for (place, file) in self.files.iter_mut().enumerate() {
            if let Some(mut file) = file.take() {
                file.flush().map_err(|e| Error::io("write", &self.staging.join(FILES[place]), &e))?;
            }
        }
        let put = |e: std::io::Error| Error::io("put the outputs into", &self.dir, &e);
        fs::create_dir_all(&self.dir).map_err(put)?;
        for name in FILES {
            let (from, to) = (self.staging.join(name), self.dir.join(name));
            if from.exists() {
                fs::rename(&from, &to).map_err(put)?;
            } else if to.exists() {
                // Left by an earlier replay; it would not belong to these outputs.
                fs::remove_file(&to).map_err(put)?;
            }
        }
        Ok(())
    }

    fn join_snapshots(&mut self) -> Result<()> {
        let Some(mut features) = self.files[FEATURES].take() else { return Ok(()) };
        // The file of a snapshot that was taken anew has replaced the first one.
        let mut paths: Vec<(Ts, PathBuf)> = fs::read_dir(&self.staging)
            .map_err(|e| Error::io("read", &self.staging, &e))?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let at = path.file_name()?.to_str()?.strip_prefix("features.")?.parse().ok()?;
                Some((at, path))
            })
            .collect();
        paths.sort_unstable();
        for (_, path) in paths {
            let mut file = File::open(&path).map_err(|e| Error::io("read", &path, &e))?;
            std::io::copy(&mut file, &mut features).map_err(|e| Error::io("read", &path, &e))?;
        }
        features.flush().map_err(|e| Error::io("write", &self.staging.join(FILES[FEATURES]), &e))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever is left is of no use to anyone.
            let _ = fs::remove_dir_all(&self.staging);
        }
    }
}

fn refuse_foreign(dir: &Path, force: bool) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::user(format!("cannot write into {}: {error}", dir.display()))),
    };
    let mut foreign = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    match foreign.find(|name| !FILES.contains(&name.as_str())) {
        Some(name) if !force => {
            let what = format!("{} holds `{name}`, which is no output of a replay", dir.display());
            Err(Error::user(what).hint("name a folder of its own for the outputs, or add --force"))
        }
        _ => Ok(()),
    }
}
