//! A simulation as files: the four inputs of `replay` and `train`, and the truth beside them.
//!
//! Everything is written under temporary names and renamed at the end, so that a folder holds a whole
//! simulation or none.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{FaultCounts, Settings, Simulation};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::time::Ts;

const TRUTH: &str = "truth.ndjson";
const BUFFER_BYTES: usize = 256 * 1024;
/// Events between two reports of progress.
const PROGRESS_EVERY: u64 = 16_384;

/// How far a simulation has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    pub events: u64,
    /// From 0 to 1, in event time.
    pub share: f64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Events by [`Source::index`].
    pub events: [u64; Source::ALL.len()],
    pub customers: u64,
    pub end: Ts,
    pub faults: FaultCounts,
}

/// Simulates into a folder, which is made if need be. Files of an earlier simulation are replaced only with
/// `force`; files that are not a simulation's are never touched.
pub fn write_files(
    settings: &Settings,
    dir: &Path,
    force: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    write_simulation(Simulation::new(settings)?, settings, dir, force, progress)
}

/// The same of a simulation that was begun with these settings, and perhaps given a campaign.
pub fn write_simulation(
    mut simulation: Simulation,
    settings: &Settings,
    dir: &Path,
    force: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, &e))?;
    check_folder(dir, force)?;
    let mut output = Output::create(dir)?;
    let mut events = [0; Source::ALL.len()];
    let span = (settings.end() - settings.start) as f64;
    for record in simulation.by_ref() {
        output.write(record.source.index(), &record.json)?;
        events[record.source.index()] += 1;
        let total: u64 = events.iter().sum();
        if total.is_multiple_of(PROGRESS_EVERY) {
            progress(Progress {
                events: total,
                share: ((record.ts - settings.start) as f64 / span).min(1.0),
            });
        }
    }
    for truth in simulation.truths() {
        let json = serde_json::to_string(truth).map_err(|e| {
            Error::world(format!("the truth of {} cannot be written: {e}", truth.customer_id))
        })?;
        output.write(Source::ALL.len(), &json)?;
    }
    output.finish()?;
    progress(Progress { events: events.iter().sum(), share: 1.0 });
    Ok(Summary { events, customers: settings.customers, end: settings.end(), faults: simulation.faults() })
}

fn file_names() -> Vec<String> {
    let inputs = Source::ALL.iter().map(|source| format!("{}.ndjson", source.name()));
    inputs.chain([TRUTH.to_owned()]).collect()
}

fn partial(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.partial"))
}

/// Refuses to write over anything but an earlier simulation, and over that without `force`.
fn check_folder(dir: &Path, force: bool) -> Result<()> {
    let ours = file_names();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, &e))? {
        let entry = entry.map_err(|e| Error::io("read", dir, &e))?;
        found.push(entry.file_name().to_string_lossy().into_owned());
    }
    found.retain(|name| !ours.iter().any(|our| *name == format!(".{our}.partial")));
    found.sort();
    let shown = dir.display();
    if let Some(foreign) = found.iter().find(|name| !ours.contains(name)) {
        return Err(Error::user(format!("{shown} holds `{foreign}`, which no simulation wrote"))
            .hint("give --out a folder of its own"));
    }
    if !found.is_empty() && !found.iter().any(|name| name == TRUTH) {
        let what = format!("{shown} holds events but no {TRUTH}, so they may be real ones");
        return Err(Error::user(what).hint("give --out a folder of its own"));
    }
    if !found.is_empty() && !force {
        return Err(Error::user(format!("{shown} already holds a simulation"))
            .hint("replace it with --force, or give --out another folder"));
    }
    Ok(())
}

/// Five files under temporary names. Dropped unfinished, it leaves nothing behind.
struct Output {
    dir: PathBuf,
    names: Vec<String>,
    files: Vec<BufWriter<File>>,
}

impl Output {
    fn create(dir: &Path) -> Result<Output> {
        let mut output = Output { dir: dir.to_owned(), names: file_names(), files: Vec::new() };
        for name in &output.names {
            let path = partial(dir, name);
            let file = File::create(&path).map_err(|e| Error::io("create", &path, &e))?;
            output.files.push(BufWriter::with_capacity(BUFFER_BYTES, file));
        }
        Ok(output)
    }

    fn write(&mut self, file: usize, line: &str) -> Result<()> {
        let out = &mut self.files[file];
        let written = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n"));
        written.map_err(|e| Error::io("write", &self.dir.join(&self.names[file]), &e))
    }

    /// Brings every byte to the disk, then takes away what was there before, then renames.
    fn finish(mut self) -> Result<()> {
        for (file, name) in self.files.iter_mut().zip(&self.names) {
            let flushed = file.flush().and_then(|()| file.get_ref().sync_all());
            flushed.map_err(|e| Error::io("write", &self.dir.join(name), &e))?;
        }
        for name in &self.names {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("replace", &path, &e));
                }
                _ => {}
            }
        }
        // The truth goes last and comes first, so that what an interruption leaves can be told for a simulation.
        for name in self.names.iter().rev() {
            let path = self.dir.join(name);
            fs::rename(partial(&self.dir, name), &path).map_err(|e| Error::io("write", &path, &e))?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.files.clear();
        for name in &self.names {
            // After a finish there is nothing under these names.
            let _ = fs::remove_file(partial(&self.dir, name));
        }
    }
}
