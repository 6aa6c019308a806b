//! The bytes of a checkpoint: frames, each with a checksum that goes on from the one before it. Knows files only as
//! something to read or write.
//!
//! ```text
//! "stagecast image\n"  version u32
//! length u32 | 'h' header, JSON                     | checksum u64
//! length u32 | 'r' records: key and value, each     | checksum u64      as often as it takes
//!            |     behind its length as a varint    |
//! length u32 | 't' trailer, JSON                    | checksum u64      and nothing behind it
//! ```
//!
//! Numbers are little-endian. A checksum is XXH3 over the frame with the checksum before it as the seed, so that no
//! frame can be missing, stand elsewhere, or come from another file.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::pipeline::varint::{get_u64, put_u64};
use crate::time::Ts;

const MAGIC: &[u8; 16] = b"stagecast image\n";
/// Raised whenever the meaning of the bytes changes.
pub const VERSION: u32 = 1;
/// A frame is handed over once it is so long; one record more makes it no longer than [`FRAME_BYTES_MOST`].
pub const FRAME_BYTES: usize = 256 * 1024;
const FRAME_BYTES_MOST: u32 = 64 << 20;

const HEADER: u8 = b'h';
const RECORDS: u8 = b'r';
const TRAILER: u8 = b't';

/// What a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The brokers' own id of their cluster.
    pub cluster: String,
    pub app: String,
    pub topic: String,
    pub partition: i32,
    /// See [`crate::kafka::marker::Marker::log`].
    pub log: String,
    /// Of the plan that the states were written under.
    pub layout: u32,
    /// What the file does not hold stands in the topic at this offset or behind it.
    pub from: i64,
    /// Before the first record at `from` or behind it was written.
    pub taken_at: Ts,
}

/// What a checkpoint ends in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    pub records: u64,
    /// The last transaction that anything in the file may be of.
    pub sequence: u64,
}

/// Why bytes are no checkpoint that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is no checkpoint")]
    Foreign,
    #[error("it has version {0}; this program reads version {VERSION}")]
    OtherVersion(u32),
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Records on their way into a frame.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    records: u64,
}

impl Frame {
    pub fn new() -> Frame {
        Frame { bytes: vec![RECORDS], records: 0 }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            put_u64(&mut self.bytes, part.len() as u64);
            self.bytes.extend_from_slice(part);
        }
        self.records += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }
}

impl Default for Frame {
    fn default() -> Self {
        Frame::new()
    }
}

/// A checkpoint while it is written.
pub struct Writer<W> {
    out: W,
    checksum: u64,
    records: u64,
}

impl<W: Write> Writer<W> {
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Writer { out, checksum: 0, records: 0 };
        writer.write(&json(HEADER, header)?)?;
        Ok(writer)
    }

    pub fn records(&mut self, frame: &Frame) -> io::Result<()> {
        self.records += frame.records;
        self.write(&frame.bytes)
    }

    /// Writes what makes it whole, and gives back what it was written to.
    pub fn finish(mut self, sequence: u64) -> io::Result<W> {
        self.write(&json(TRAILER, &Trailer { records: self.records, sequence })?)?;
        Ok(self.out)
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).ok().filter(|length| *length <= FRAME_BYTES_MOST);
        let length = length.ok_or_else(|| io::Error::other("a record is too long for a checkpoint"))?;
        self.checksum = xxh3_64_with_seed(frame, self.checksum);
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(frame)?;
        self.out.write_all(&self.checksum.to_le_bytes())
    }
}

fn json(kind: u8, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![kind];
    serde_json::to_writer(&mut frame, value)?;
    Ok(frame)
}

/// A checkpoint while it is read.
pub struct Reader<R> {
    input: R,
    checksum: u64,
    records: u64,
    frame: Vec<u8>,
}

impl<R: Read> Reader<R> {
    pub fn open(mut input: R) -> Result<(Header, Self), Bad> {
        let (mut magic, mut version) = ([0; MAGIC.len()], [0; 4]);
        read_all(&mut input, &mut magic)?;
        read_all(&mut input, &mut version)?;
        if magic != *MAGIC {
            return Err(Bad::Foreign);
        }
        match u32::from_le_bytes(version) {
            VERSION => {}
            other => return Err(Bad::OtherVersion(other)),
        }
        let mut reader = Reader { input, checksum: 0, records: 0, frame: Vec::new() };
        match reader.next_frame()? {
            HEADER => Ok((parse(&reader.frame)?, reader)),
            _ => Err(Bad::Damaged("it does not begin with a header")),
        }
    }

    /// Hands every record to `take`; what it makes of them counts only once this has ended well.
    pub fn read<E: From<Bad>>(
        mut self,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<Trailer, E> {
        loop {
            match self.next_frame()? {
                RECORDS => self.hand_over(&mut take)?,
                TRAILER => break,
                _ => return Err(Bad::Damaged("a frame is of no known kind").into()),
            }
        }
        let trailer: Trailer = parse(&self.frame)?;
        if trailer.records != self.records {
            return Err(Bad::Damaged("records are missing").into());
        }
        match self.input.read(&mut [0]).map_err(Bad::from)? {
            0 => Ok(trailer),
            _ => Err(Bad::Damaged("something stands behind its end").into()),
        }
    }

    fn hand_over<E: From<Bad>>(
        &mut self,
        take: &mut impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 1;
        while at < self.frame.len() {
            let key = part(&self.frame, &mut at)?;
            let value = part(&self.frame, &mut at)?;
            self.records += 1;
            take(key, value)?;
        }
        Ok(())
    }

    /// Reads a frame whose checksum is right, and tells its kind.
    fn next_frame(&mut self) -> Result<u8, Bad> {
        let mut word = [0; 4];
        read_all(&mut self.input, &mut word)?;
        let length = u32::from_le_bytes(word);
        if length > FRAME_BYTES_MOST {
            return Err(Bad::Damaged("a frame is too long"));
        }
        self.frame.clear();
        let read = self.input.by_ref().take(u64::from(length)).read_to_end(&mut self.frame)?;
        if read < length as usize {
            return Err(Bad::Damaged(TOO_SHORT));
        }
        let mut checksum = [0; 8];
        read_all(&mut self.input, &mut checksum)?;
        self.checksum = xxh3_64_with_seed(&self.frame, self.checksum);
        if self.checksum != u64::from_le_bytes(checksum) {
            return Err(Bad::Damaged("a checksum is wrong"));
        }
        self.frame.first().copied().ok_or(Bad::Damaged("a frame is empty"))
    }
}

const TOO_SHORT: &str = "it ends too early";

fn read_all(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), Bad> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Bad::Damaged(TOO_SHORT),
        _ => Bad::Unreadable(error),
    })
}

fn part<'a>(frame: &'a [u8], at: &mut usize) -> Result<&'a [u8], Bad> {
    let length = usize::try_from(get_u64(frame, at)).ok();
    let end = length.and_then(|length| at.checked_add(length)).filter(|end| *end <= frame.len());
    let end = end.ok_or(Bad::Damaged("a record is longer than its frame"))?;
    let part = &frame[*at..end];
    *at = end;
    Ok(part)
}

fn parse<T: DeserializeOwned>(frame: &[u8]) -> Result<T, Bad> {
    serde_json::from_slice(&frame[1..]).map_err(|_| Bad::Damaged("it says what this program does not know"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Records = Vec<(Vec<u8>, Vec<u8>)>;

    fn header() -> Header {
        Header {
            cluster: "c-1".into(),
            app: "app".into(),
            topic: "app-state".into(),
            partition: 3,
            log: "0123456789abcdef".into(),
            layout: 7,
            from: 4_711,
            taken_at: 1_767_225_600_000,
        }
    }

    fn records() -> Records {
        let many = (0..40u8).map(|n| (vec![b'k', n], vec![n; usize::from(n)]));
        [(b"\xffcommit".to_vec(), Vec::new()), (Vec::new(), b"v".to_vec())].into_iter().chain(many).collect()
    }

    /// Frames of 10 records.
    fn written() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
        for some in records().chunks(10) {
            let mut frame = Frame::new();
            some.iter().for_each(|(key, value)| frame.put(key, value));
            writer.records(&frame).unwrap();
        }
        writer.finish(99).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Header, Records, Trailer), Bad> {
        let (header, reader) = Reader::open(bytes)?;
        let mut records = Records::new();
        let trailer = reader.read(|key, value| {
            records.push((key.to_vec(), value.to_vec()));
            Ok::<(), Bad>(())
        })?;
        Ok((header, records, trailer))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (found, content, trailer) = read(&written()).unwrap();
        assert_eq!((found, content), (header(), records()));
        assert_eq!(trailer, Trailer { records: 42, sequence: 99 });
        let empty = Writer::begin(Vec::new(), &header()).unwrap().finish(0).unwrap();
        assert_eq!(read(&empty).unwrap().1, Records::new());
    }

    #[test]
    fn it_is_refused_when_it_ends_anywhere_but_at_its_end() {
        let whole = written();
        for end in 0..whole.len() {
            assert!(matches!(read(&whole[..end]), Err(Bad::Damaged(_))), "cut at {end} of {}", whole.len());
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(matches!(read(&longer), Err(Bad::Damaged(_))));
    }

    #[test]
    fn it_is_refused_when_any_bit_of_it_is_another() {
        let whole = written();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut other = whole.clone();
                other[at] ^= 1 << bit;
                assert!(read(&other).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn frames_that_are_whole_but_missing_or_elsewhere_are_refused() {
        let whole = written();
        let mut frames = Vec::new();
        let mut at = MAGIC.len() + 4;
        while at < whole.len() {
            let length = u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
            frames.push(&whole[at..at + 4 + length + 8]);
            at += 4 + length + 8;
        }
        assert!(frames.len() > 5);
        let with = |frames: &[&[u8]]| [&whole[..MAGIC.len() + 4], &frames.concat()].concat();
        assert!(read(&with(&frames)).is_ok());
        for left_out in 0..frames.len() {
            let others: Vec<&[u8]> =
                frames.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, f)| *f).collect();
            assert!(read(&with(&others)).is_err(), "without frame {left_out}");
        }
        frames.swap(2, 3);
        assert!(read(&with(&frames)).is_err());
    }

    #[test]
    fn a_version_and_a_file_that_are_not_ours_are_told() {
        let mut later = written();
        later[MAGIC.len()] = 2;
        assert!(matches!(read(&later), Err(Bad::OtherVersion(2))));
        assert!(matches!(read(&[b'x'; 100]), Err(Bad::Foreign)));
        assert!(matches!(read(b""), Err(Bad::Damaged(_))));
    }

    #[test]
    fn a_frame_that_says_it_is_huge_takes_no_memory() {
        let mut huge = written()[..MAGIC.len() + 4].to_vec();
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&huge), Err(Bad::Damaged("a frame is too long"))));
    }
}
