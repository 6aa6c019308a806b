//! The files of a replay: records with their bytes, one line each, plain or gzip.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::decoder::Decoder;
use crate::event::money::Money;
use crate::event::native::Envelope;
use crate::event::{Event, Origin, ProfileChange, Reject, Source};
use crate::pipeline::outbox::hash_customer;
use crate::setup;
use crate::time::Ts;

use super::merged::Lanes;

/// Some programs on Windows begin a file with it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A line longer than this is not read into memory: it would be no record of any broker either.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// The four files, each optional.
pub struct Inputs {
    lanes: Vec<Option<Lane>>,
}

struct Lane {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    number: i64,
}

/// A record as it came: its bytes and the number of its line, from 0 (or its offset).
#[derive(Clone, Debug)]
pub struct RawRecord {
    pub number: i64,
    /// The customer id and the event time where the bytes tell none; a line of a file has neither.
    pub key: Option<Box<[u8]>>,
    pub timestamp: Option<Ts>,
    pub bytes: Box<[u8]>,
}

/// A record that has been read and waits for its turn.
#[derive(Debug)]
pub struct Line {
    pub number: i64,
    /// See [`crate::merge::Next::early`].
    pub early: bool,
    event: Event<'static>,
}

impl Inputs {
    /// Opens the files that are there; at least one must be.
    pub fn open(dir: &Path, config: &Config) -> Result<Inputs> {
        let mut lanes = Vec::new();
        for source in Source::ALL {
            // A profile file is there because it is meant to be read, although no topic is consumed by default.
            let wanted = source == Source::Profile || setup::source(config, source).enabled;
            lanes.push(if wanted { Lane::open(dir, source)? } else { None });
        }
        if lanes.iter().all(Option::is_none) {
            if !dir.is_dir() {
                let what = format!("there is no folder {}", dir.display());
                return Err(Error::user(what).hint("name the folder that holds the events, as --input DIR"));
            }
            let names: Vec<_> = Source::ALL.map(|s| format!("{}.ndjson", s.name())).to_vec();
            let what = format!("{} has none of {}", dir.display(), names.join(", "));
            return Err(
                Error::user(what).hint("name the folder that holds the events, one JSON object a line")
            );
        }
        Ok(Inputs { lanes })
    }
}

/// The file of this name, plain or gzip. Both at once are an error: one of them would be passed over.
pub fn find(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    let [plain, packed] = ["ndjson", "ndjson.gz"].map(|ending| dir.join(format!("{name}.{ending}")));
    let is_there = |path: &Path| path.try_exists().map_err(|e| Error::io("look for", path, &e));
    match (is_there(&plain)?, is_there(&packed)?) {
        (true, true) => {
            let what = format!("{} and {} are both there", plain.display(), packed.display());
            Err(Error::user(what).hint("put them into one file, or one of them elsewhere"))
        }
        (true, false) => Ok(Some(plain)),
        (false, true) => Ok(Some(packed)),
        (false, false) => Ok(None),
    }
}

/// The lines of a file, plain or gzip by its name.
pub fn reader(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
    Ok(match path.extension().is_some_and(|ending| ending == "gz") {
        true => Box::new(BufReader::with_capacity(1 << 18, flate2::read::MultiGzDecoder::new(file))),
        false => Box::new(BufReader::with_capacity(1 << 18, file)),
    })
}

impl Lanes for Inputs {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn source(&self, lane: usize) -> Source {
        Source::ALL[lane]
    }

    /// Blank lines are passed over.
    fn next(&mut self, lane: usize) -> Result<Option<RawRecord>> {
        match &mut self.lanes[lane] {
            Some(lane) => lane.next(),
            None => Ok(None),
        }
    }
}

impl Lane {
    fn open(dir: &Path, source: Source) -> Result<Option<Lane>> {
        let Some(path) = find(dir, source.name())? else { return Ok(None) };
        let reader = reader(&path)?;
        Ok(Some(Lane { path, reader, number: -1 }))
    }

    fn next(&mut self) -> Result<Option<RawRecord>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let mut limited = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1);
            let read =
                limited.read_until(b'\n', &mut bytes).map_err(|e| Error::io("read", &self.path, &e))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if read > MAX_LINE_BYTES {
                let line = self.number + 1;
                let what =
                    format!("{}:{line}: the line is longer than {MAX_LINE_BYTES} bytes", self.path.display());
                return Err(Error::user(what).hint("write one JSON object a line"));
            }
            while bytes.last().is_some_and(|b| *b == b'\n' || *b == b'\r') {
                bytes.pop();
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(RawRecord {
                    number: self.number,
                    key: None,
                    timestamp: None,
                    bytes: bytes.into(),
                }));
            }
        }
    }
}

impl RawRecord {
    pub fn decode(
        &self,
        source: Source,
        decoder: &Decoder,
        latest: Option<Ts>,
        money: &Money,
    ) -> Result<Line, Reject> {
        let envelope = Envelope { source, key: self.key.as_deref(), timestamp: self.timestamp, latest };
        let mut event = decoder.decode(&self.bytes, &envelope, &(), money)?.into_owned();
        if let Some(ProfileChange::Merged(merge)) = event.profile.as_deref_mut() {
            // A file has no topic; the kind of its events leads back to it.
            merge.origin = Some(Box::new(Origin {
                topic: source.name().to_owned(),
                offset: self.number,
                value: self.bytes.to_vec(),
                timestamp: self.timestamp,
                ..Origin::default()
            }));
        }
        Ok(Line { number: self.number, early: false, event })
    }
}

impl Line {
    pub fn event(&self) -> &Event<'static> {
        &self.event
    }

    pub fn ts(&self) -> Ts {
        self.event.ts
    }

    pub fn customer_hash(&self) -> u64 {
        hash_customer(&self.event.customer_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_plain_or_gzip_but_not_both() {
        let dir = tempfile::tempdir().unwrap();
        let found = || find(dir.path(), "purchase").map_err(|error| error.what);
        assert_eq!(found(), Ok(None));
        let packed = dir.path().join("purchase.ndjson.gz");
        std::fs::write(&packed, "").unwrap();
        assert_eq!(found(), Ok(Some(packed)));
        std::fs::write(dir.path().join("purchase.ndjson"), "").unwrap();
        assert!(found().unwrap_err().ends_with("are both there"));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_record() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("support.ndjson"), "\u{feff}{\"a\":1}\r\n{\"b\":2}").unwrap();
        let mut lane = Lane::open(dir.path(), Source::Support).unwrap().unwrap();
        let mut next = || lane.next().unwrap().map(|record| record.bytes.to_vec());
        assert_eq!(next().unwrap(), b"{\"a\":1}");
        assert_eq!(next().unwrap(), b"{\"b\":2}");
        assert_eq!(next(), None);
    }
}
