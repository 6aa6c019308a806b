//! A partition's state in a local file, so that a restart reads only the tail of the state topic.
//!
//! A checkpoint holds the records that a reader of the state topic would have at an offset, one per key, and what
//! stands in the topic from that offset on is read after it: every key of the tail has its last value there, every
//! other key is as it was. So the file may be taken while the service works on ([`sweep`]), as long as nothing
//! uncommitted gets into it and its offset is from before its first record was looked at.
//!
//! It is an aid and never the truth. What is not known to fit is passed over and the topic is read from its
//! beginning:
//!
//! | what could be wrong | how it is seen |
//! |---|---|
//! | the file is torn, damaged, of another version | checksums over every byte ([`format`]); it appears whole or not at all |
//! | it is of another cluster, application, topic, partition or configuration | its header |
//! | it is of another topic of the same name | the marker names its log; the tail must hold a marker of that log, no older than the file |
//! | the tail lacks tombstones that compaction has removed | it is older than half of `delete.retention.ms` |
//! | the tail begins where records were deleted | its offset is below the topic's first |
//!
//! [`saving`] decides when a worker writes one, and [`anchors`] knows from where on the topic goes on. This file owns
//! where they are, which of them may be used, and their end.

pub mod format;
pub mod sweep;
pub mod anchors;
pub mod saving;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer;

use self::format::{Bad, Header, Reader, Writer};
use super::admin::Admin;
use super::clients::{BrokerKind, ClientSettings};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::setup;
use crate::time::{MINUTE_MS, Tick, Ts, format_span, sleep, wall_now};

/// How far the clocks of two machines that share a folder may be apart.
const CLOCK_SKEW_MS: i64 = MINUTE_MS;
/// Kafka's own default of `delete.retention.ms`.
const TOMBSTONES_KEPT_MS: i64 = 24 * 60 * MINUTE_MS;
/// How long the brokers may take to name their cluster.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const WHOLE: &str = "checkpoint";
const UNFINISHED: &str = "unfinished";

/// Where checkpoints of this application are, and what they must be of.
#[derive(Debug)]
pub struct Checkpoints {
    /// Of this application's state topic.
    folder: PathBuf,
    /// From one checkpoint of a partition to its next.
    pub every: Duration,
    cluster: String,
    app: String,
    topic: String,
    instance: String,
    /// A checkpoint that is older is not used and is deleted.
    age_most_ms: i64,
    written: AtomicU64,
}

/// From where on the state topic holds what memory holds: before the first record of a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub from: i64,
    /// Before anything from there on was written, and when this process was known to own the partition.
    pub taken_at: Ts,
}

/// A checkpoint that may be used, to be read.
pub type Opened = (Header, Reader<BufReader<File>>);

impl Checkpoints {
    /// Asks the cluster what it must know and makes the folder; `None` where the configuration names none.
    pub fn prepare(config: &Config, clients: &ClientSettings) -> Result<Option<Checkpoints>> {
        let Some(root) = &config.state.checkpoint_dir else { return Ok(None) };
        if clients.broker == BrokerKind::Embedded {
            return Ok(None);
        }
        let topic = config.topics.state.clone();
        let checkpoints = Checkpoints {
            folder: root.join(&config.app.id).join(&topic),
            every: config.state.checkpoint_every,
            cluster: cluster_of(clients)?,
            app: config.app.id.clone(),
            topic,
            instance: config.app.instance.clone(),
            age_most_ms: trusted_for_ms(config, clients)?,
            written: AtomicU64::new(0),
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&checkpoints.folder);
        made.map_err(|e| {
            Error::user(format!("cannot make the folder {}: {e}", checkpoints.folder.display()))
                .hint("`state.checkpoint_dir` must name a folder that this user may write to")
        })?;
        checkpoints.clean();
        Ok(Some(checkpoints))
    }

    /// What a checkpoint of this partition says of itself.
    pub fn header(&self, partition: i32, log: &str, layout: u32, anchor: Anchor) -> Header {
        Header {
            cluster: self.cluster.clone(),
            app: self.app.clone(),
            topic: self.topic.clone(),
            partition,
            log: log.to_owned(),
            layout,
            from: anchor.from,
            taken_at: anchor.taken_at,
        }
    }

    /// The partition's checkpoint, when there is one and its header says that it may be used: a topic that holds
    /// the offsets from `low` up to `end`, and a plan of this layout, at this instant. The error says why not.
    pub fn open(
        &self,
        partition: i32,
        layout: u32,
        (low, end): (i64, i64),
        now: Ts,
    ) -> std::result::Result<Option<Opened>, String> {
        let file = match File::open(self.path(partition)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Bad::from(error).to_string()),
        };
        let (header, reader) =
            Reader::open(BufReader::with_capacity(1 << 20, file)).map_err(|e| e.to_string())?;
        self.check(&header, partition, layout, (low, end), now)?;
        Ok(Some((header, reader)))
    }

    fn check(
        &self,
        header: &Header,
        partition: i32,
        layout: u32,
        (low, end): (i64, i64),
        now: Ts,
    ) -> std::result::Result<(), String> {
        let Header { cluster, app, topic, from, taken_at, .. } = header;
        if (cluster, app, topic, header.partition) != (&self.cluster, &self.app, &self.topic, partition) {
            return Err(format!(
                "it is of {topic} [{}] of application `{app}` on cluster {cluster}",
                header.partition
            ));
        }
        if header.layout != layout {
            return Err("it was written under another configuration".to_owned());
        }
        if *from < low || *from > end {
            return Err(format!(
                "it goes on at offset {from}, and the topic holds {low} to {end}: it was re-created or truncated"
            ));
        }
        let age = now.saturating_sub(*taken_at);
        if age < -CLOCK_SKEW_MS {
            return Err("it is from the future: a clock was set back".to_owned());
        }
        if age > self.age_most_ms {
            return Err(format!(
                "it is {} old: of customers erased since, the topic keeps tombstones for only {} (delete.retention.ms), \
                 of which half is trusted",
                format_span(age / 1_000 * 1_000),
                format_span(self.age_most_ms * 2)
            ));
        }
        Ok(())
    }

    /// Begins a file that nobody sees until [`Unfinished::finish`].
    pub fn begin(&self, header: &Header) -> io::Result<Unfinished> {
        let n = self.written.fetch_add(1, Ordering::AcqRel);
        let path = self.folder.join(format!("{}.{}-{n}.{UNFINISHED}", header.partition, self.instance));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let guard = Unlinked(path);
        let writer = Writer::begin(BufWriter::with_capacity(1 << 20, file), header)?;
        Ok(Unfinished { guard, whole: self.path(header.partition), writer })
    }

    /// Deletes what cannot be used any more: customers may have been erased since. Files of others that share the
    /// folder are theirs while they are young.
    pub fn clean(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let modified = entry.metadata().and_then(|m| m.modified()).ok();
            let old = modified.is_none_or(|at| wall_now().saturating_sub(millis(at)) > self.age_most_ms);
            let left = self.written.load(Ordering::Acquire) == 0 && self.is_own_unfinished(&name);
            if left || (old && [WHOLE, UNFINISHED].contains(&kind)) {
                let gone = fs::remove_file(&path);
                tracing::debug!(file = %path.display(), ?gone, "a checkpoint that is of no use any more");
            }
        }
    }

    /// Whether an unfinished file has a name that this instance gives.
    fn is_own_unfinished(&self, name: &str) -> bool {
        let stem = name.strip_suffix(UNFINISHED).and_then(|name| name.strip_suffix('.'));
        let instance = stem.and_then(|stem| stem.split_once('.')?.1.rsplit_once('-')).map(|(name, _)| name);
        instance == Some(&*self.instance)
    }

    /// Where the partition's checkpoint is.
    pub fn path(&self, partition: i32) -> PathBuf {
        self.folder.join(format!("{partition}.{WHOLE}"))
    }
}

/// For how long what was read of the state topic may be trusted without reading on: half of what the topic keeps
/// tombstones for.
pub fn trusted_for_ms(config: &Config, clients: &ClientSettings) -> Result<i64> {
    let found = Admin::connect(clients)?.look(&setup::topics(config))?;
    let kept = found.topics.get(&config.topics.state).and_then(|facts| facts.number("delete.retention.ms"));
    Ok(kept.unwrap_or(TOMBSTONES_KEPT_MS) / 2)
}

fn millis(at: std::time::SystemTime) -> Ts {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn cluster_of(clients: &ClientSettings) -> Result<String> {
    let asked =
        clients.end_offsets(0).map_err(|e| Error::user(format!("cannot make a Kafka client: {e}")))?;
    let began = Tick::now();
    while began.elapsed() < ANSWER_MAX {
        // Just after the first answer of a broker librdkafka may say that there is none.
        if let Some(cluster) = asked.client().fetch_cluster_id(ANSWER_MAX) {
            return Ok(cluster);
        }
        sleep(Duration::from_millis(20));
    }
    Err(Error::world("the brokers do not tell the id of their cluster").hint(
        "without it a checkpoint cannot be known to be of this cluster: leave `state.checkpoint_dir` out",
    ))
}

/// A name for a log that no other has.
pub fn new_log() -> String {
    use std::hash::{BuildHasher, Hasher};
    // Its keys come from the operating system's source of randomness.
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), wall_now())
}

/// A file that goes when it is not finished.
#[derive(Debug)]
struct Unlinked(PathBuf);

impl Drop for Unlinked {
    fn drop(&mut self) {
        // It is gone already where it was finished.
        let _ = fs::remove_file(&self.0);
    }
}

/// A checkpoint while it is written.
pub struct Unfinished {
    guard: Unlinked,
    whole: PathBuf,
    writer: Writer<BufWriter<File>>,
}

impl Unfinished {
    pub fn records(&mut self, frame: &format::Frame) -> io::Result<()> {
        self.writer.records(frame)
    }

    /// Puts it in the place of the one before, once all of it is on the disk. Returns its length in bytes.
    pub fn finish(self, sequence: u64) -> io::Result<u64> {
        let Unfinished { guard, whole, writer } = self;
        let file = writer.finish(sequence)?.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
        fs::rename(&guard.0, &whole)?;
        File::open(whole.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests;
