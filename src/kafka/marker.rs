//! The commit marker: one record per partition of the state topic that says how far its state goes.
//!
//! It is written in the same transaction as the states it speaks for. Comparing it with the states and with
//! the group's committed offsets shows a torn transaction, lost offsets, a re-created topic or a changed
//! number of partitions before any of them can do harm. Pure: facts in, decision out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::merge::Position;
use crate::time::Ts;

/// The key of the marker. It is no UTF-8, so that no customer can have it.
pub const KEY: &[u8] = b"\xffcommit";
/// What the key of a layout's description begins with; its id follows in hexadecimal digits.
const LAYOUT: &[u8] = b"\xfflayout-";

/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 2;
/// Also read: offsets that are done stand one by one in it.
const WITHOUT_RUNS: u32 = 1;

/// What a partition's state includes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    version: u32,
    /// Counts the partition's transactions, from 1.
    pub sequence: u64,
    /// States that the last transaction wrote.
    pub states: u64,
    /// Partitions of every input topic. Were it to change, keys would move.
    pub partitions: i32,
    /// By topic, which offsets are done.
    pub inputs: BTreeMap<String, Done>,
    /// The instant up to which every customer's silence was lived through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lived_to: Option<Ts>,
    /// The name of the log that the partition is: given once and carried on from marker to marker, so that a topic
    /// that was re-created is not taken for the one before it. Only checkpoints ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Which offsets of an input partition are done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub next: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "runs")]
    pub ahead: Vec<i64>,
    /// Nobody reads the topic at present: this is how far it was read when somebody did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_off: bool,
}

/// Ascending offsets as they are written: `[7, [9, 300]]` is 7 and 9 to 300. Behind a record that waits for long nearly
/// all are done.
mod runs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// What one marker may name, so that no bytes read as more than memory holds.
    const OFFSETS_MOST: i64 = 1 << 21;

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Run {
        One(i64),
        Many(i64, i64),
    }

    pub fn serialize<S: Serializer>(offsets: &[i64], to: S) -> Result<S::Ok, S::Error> {
        let runs = offsets.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [one] => Run::One(*one),
            run => Run::Many(run[0], run[run.len() - 1]),
        });
        to.collect_seq(runs)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i64>, D::Error> {
        let mut offsets = Vec::new();
        for run in Vec::<Run>::deserialize(from)? {
            let (first, last) = match run {
                Run::One(one) => (one, one),
                Run::Many(first, last) => (first, last),
            };
            if last.checked_sub(first).is_none_or(|more| more > OFFSETS_MOST - offsets.len() as i64) {
                return Err(serde::de::Error::custom("more offsets than a marker names"));
            }
            offsets.extend(first..=last);
        }
        Ok(offsets)
    }
}

impl From<Position> for Done {
    fn from(position: Position) -> Self {
        Done { next: position.next, ahead: position.ahead, is_off: false }
    }
}

impl From<Done> for Position {
    fn from(done: Done) -> Self {
        Position { next: done.next, ahead: done.ahead }
    }
}

impl Marker {
    pub fn new(sequence: u64, states: u64, partitions: i32, inputs: BTreeMap<String, Done>) -> Self {
        Marker { version: VERSION, sequence, states, partitions, inputs, lived_to: None, log: None }
    }

    pub fn with_lived_to(self, lived_to: Option<Ts>) -> Self {
        Marker { lived_to, ..self }
    }

    pub fn with_log(self, log: Option<String>) -> Self {
        Marker { log, ..self }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Result<Marker, String> {
        let marker: Marker =
            serde_json::from_slice(bytes).map_err(|e| format!("the commit marker cannot be read: {e}"))?;
        match marker.version {
            VERSION => Ok(marker),
            WITHOUT_RUNS => Ok(Marker { version: VERSION, ..marker }),
            other => {
                Err(format!("the commit marker has version {other}; this program reads up to {VERSION}"))
            }
        }
    }
}

/// The key under which the description of a layout stands.
pub fn layout_key(id: u32) -> Vec<u8> {
    [LAYOUT, format!("{id:08x}").as_bytes()].concat()
}

/// The layout whose description stands under this key; `None` when it is another kind of key.
pub fn layout_of_key(key: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(key.strip_prefix(LAYOUT)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// What was found in a partition of the state topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub marker: Option<Marker>,
    pub states: u64,
    /// The highest transaction any state says it is from, and how many say so.
    pub newest_sequence: u64,
    pub of_newest: u64,
    /// Where the first record of the marker's transaction stands that was read.
    pub last_from: Option<i64>,
}

/// What is known of one input partition from outside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFacts {
    pub topic: String,
    /// The group's committed offset.
    pub committed: Option<i64>,
    pub low: i64,
    pub high: i64,
}

/// Where to go on, and what a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    pub sequence: u64,
    /// In the order of the inputs.
    pub starts: Vec<Position>,
    /// Of topics that are no inputs at present.
    pub off: BTreeMap<String, Done>,
    pub warnings: Vec<String>,
    /// See [`Marker::lived_to`].
    pub lived_to: Option<Ts>,
}

/// Decides where a partition goes on, or why it must not.
pub fn resume(
    partition: i32,
    partitions: i32,
    found: &Found,
    inputs: &[InputFacts],
) -> Result<Resume, String> {
    check_whole(partition, partitions, found)?;
    let sequence = found.marker.as_ref().map_or(0, |m| m.sequence);
    let lived_to = found.marker.as_ref().and_then(|m| m.lived_to);
    let mut known = found.marker.as_ref().map_or_else(BTreeMap::new, |m| m.inputs.clone());
    let is_group_known = inputs.iter().any(|input| input.committed.is_some());
    let (mut starts, mut warnings) = (Vec::new(), Vec::new());
    for input in inputs {
        let done = known.remove(&input.topic);
        starts.push(resume_input(partition, input, done, is_group_known, &mut warnings)?);
    }
    let off = known.into_iter().map(|(topic, done)| (topic, Done { is_off: true, ..done })).collect();
    Ok(Resume { sequence, starts, off, warnings, lived_to })
}

/// Where the group's offsets alone say to go on, as if the state had no say; for a test that shows what the say
/// is good for.
pub(super) fn unchecked(found: &Found, inputs: &[InputFacts]) -> Resume {
    let marker = found.marker.as_ref();
    let start = |input: &InputFacts| {
        let done = marker.and_then(|m| m.inputs.get(&input.topic));
        let next = input.committed.unwrap_or(input.low);
        let ahead =
            done.map_or(Vec::new(), |done| done.ahead.iter().copied().filter(|o| *o > next).collect());
        Position { next, ahead }
    };
    Resume {
        sequence: marker.map_or(0, |m| m.sequence),
        starts: inputs.iter().map(start).collect(),
        off: BTreeMap::new(),
        warnings: Vec::new(),
        lived_to: marker.and_then(|m| m.lived_to),
    }
}

/// The state itself: complete, and of this number of partitions.
fn check_whole(partition: i32, partitions: i32, found: &Found) -> Result<(), String> {
    let Some(marker) = &found.marker else {
        return match found.states {
            0 => Ok(()),
            n => Err(format!(
                "partition {partition} of the state topic holds {n} states but no commit marker: part of it is lost"
            )),
        };
    };
    if marker.partitions != partitions {
        return Err(format!(
            "the state of partition {partition} was built over {} partitions, the input topics now have {partitions}: \
             keys have moved to other partitions",
            marker.partitions
        ));
    }
    if found.newest_sequence > marker.sequence {
        return Err(format!(
            "partition {partition} of the state topic holds states of transaction {} but its commit marker is of {}: \
             the transaction is torn",
            found.newest_sequence, marker.sequence
        ));
    }
    let of_last = if found.newest_sequence == marker.sequence { found.of_newest } else { 0 };
    if of_last != marker.states {
        return Err(format!(
            "transaction {} of partition {partition} wrote {} states, of which {of_last} are there: it is torn",
            marker.sequence, marker.states
        ));
    }
    Ok(())
}

fn resume_input(
    partition: i32,
    input: &InputFacts,
    done: Option<Done>,
    is_group_known: bool,
    warnings: &mut Vec<String>,
) -> Result<Position, String> {
    let InputFacts { topic, committed, low, high } = input;
    let position: Position = match (done, *committed) {
        (Some(done), Some(committed)) if done.next != committed => {
            return Err(format!(
                "the state of {topic} [{partition}] goes to offset {}, the group's committed offset is {committed}: \
                 a transaction is torn or somebody has moved the group's offsets",
                done.next
            ));
        }
        (Some(done), Some(_)) => done.into(),
        // Brokers forget a topic's offsets with the topic; offsets that expire do so together, unless nobody asked for one.
        (Some(done), None) if is_group_known && !done.is_off => {
            return Err(format!(
                "the group has no offset of {topic} [{partition}], though it has those of other topics, and the state goes \
                 to {}: the topic was deleted and created anew",
                done.next
            ));
        }
        (Some(done), None) => {
            warnings
                .push(format!("the group has no offset for {topic} [{partition}]; the state's own is taken"));
            done.into()
        }
        (None, Some(committed)) => {
            return Err(format!(
                "the group's committed offset of {topic} [{partition}] is {committed}, but the state topic knows \
                 nothing of it: the state is lost"
            ));
        }
        (None, None) => Position { next: *low, ahead: Vec::new() },
    };
    if position.next > *high {
        return Err(format!(
            "{topic} [{partition}] ends at offset {high}, but its state goes to {}: the topic was re-created or truncated",
            position.next
        ));
    }
    if position.next < *low {
        warnings.push(format!(
            "{topic} [{partition}] begins at offset {low}: {} records were deleted before they were read",
            low - position.next
        ));
        let ahead = position.ahead.into_iter().filter(|offset| offset >= low).collect();
        return Ok(Position { next: *low, ahead });
    }
    Ok(position)
}

/// What to do about a refusal.
pub const WAY_OUT: &str = "to start over, stop every instance, delete the state topic and the group \
    (kafka-consumer-groups.sh --delete --group …), run `stagecast topics create`, and start again: the inputs are read anew";

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(sequence: u64, states: u64, next: i64) -> Marker {
        let done = Done { next, ahead: vec![next + 3], is_off: false };
        Marker::new(sequence, states, 4, [("in".to_owned(), done)].into())
    }

    fn input(committed: Option<i64>) -> InputFacts {
        InputFacts { topic: "in".into(), committed, low: 0, high: 100 }
    }

    fn found(marker: Option<Marker>, newest_sequence: u64, of_newest: u64) -> Found {
        Found { marker, states: 5, newest_sequence, of_newest, last_from: None }
    }

    #[test]
    fn a_whole_state_goes_on_where_it_stopped() {
        let whole = found(Some(marker(7, 2, 40)), 7, 2);
        let resumed = resume(0, 4, &whole, &[input(Some(40))]).unwrap();
        assert_eq!((resumed.sequence, &resumed.starts[0].ahead[..]), (7, &[43][..]));
        let expired = resume(0, 4, &whole, &[input(None)]).unwrap();
        assert_eq!(expired.warnings.len(), 1);
        let fresh = resume(0, 4, &Found::default(), &[InputFacts { low: 3, ..input(None) }]).unwrap();
        assert_eq!((fresh.sequence, fresh.starts[0].next), (0, 3));
    }

    #[test]
    fn what_would_lose_or_repeat_data_is_refused() {
        let whole = || found(Some(marker(7, 2, 40)), 7, 2);
        for (found, partitions, input, word) in [
            (found(None, 3, 1), 4, input(None), "no commit marker"),
            (found(Some(marker(7, 2, 40)), 8, 1), 4, input(Some(40)), "torn"),
            (found(Some(marker(7, 2, 40)), 7, 1), 4, input(Some(40)), "torn"),
            (whole(), 4, input(Some(41)), "torn"),
            (whole(), 6, input(Some(40)), "keys have moved"),
            (whole(), 4, InputFacts { high: 39, ..input(Some(40)) }, "re-created"),
            (Found::default(), 4, input(Some(9)), "the state is lost"),
        ] {
            let refused = resume(0, partitions, &found, &[input]).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn a_topic_that_was_created_anew_is_told_from_offsets_that_expired() {
        let done = |next| Done { next, ..Done::default() };
        let told = Marker::new(7, 2, 4, [("in".to_owned(), done(40)), ("other".to_owned(), done(9))].into());
        let resumed = |marker: &Marker, committed: [Option<i64>; 2]| {
            let [one, two] = committed;
            let inputs = [input(one), InputFacts { topic: "other".into(), ..input(two) }];
            resume(0, 4, &found(Some(marker.clone()), 7, 2), &inputs)
        };
        assert!(resumed(&told, [None, Some(9)]).unwrap_err().contains("created anew"));
        assert_eq!(resumed(&told, [None, None]).unwrap().warnings.len(), 2, "both expired");
        // Without the topic for a while.
        let without = resume(0, 4, &found(Some(told.clone()), 7, 2), &[input(Some(40))]).unwrap();
        assert_eq!(without.off, [("other".to_owned(), Done { is_off: true, ..done(9) })].into());
        let mut later = told;
        later.inputs.extend(without.off);
        let back = resumed(&later, [Some(40), Some(9)]).unwrap();
        assert_eq!((back.starts[1].next, back.warnings.len(), back.off.len()), (9, 0, 0));
        assert_eq!(
            resumed(&later, [Some(40), None]).unwrap().starts[1].next,
            9,
            "its offset expired meanwhile"
        );
    }

    #[test]
    fn markers_of_versions_that_did_not_tell_the_instant_are_read() {
        let told = Marker { lived_to: Some(5), ..marker(7, 2, 40) };
        assert_eq!(Marker::decode(&told.encode()), Ok(told));
        let silent = marker(7, 2, 40);
        assert!(!String::from_utf8(silent.encode()).unwrap().contains("lived_to"));
        assert_eq!(Marker::decode(&silent.encode()), Ok(silent));
    }

    #[test]
    fn offsets_that_follow_each_other_take_no_room() {
        let done = |ahead: &[i64]| Done { next: 5, ahead: ahead.to_vec(), is_off: false };
        let told = |done: Done| Marker::new(1, 0, 4, [("in".to_owned(), done)].into());
        for (ahead, written) in [
            (vec![7], "[7]"),
            (vec![7, 8], "[[7,8]]"),
            (vec![7, 9, 10, 11, 20], "[7,[9,11],20]"),
            ((7..90_000).collect(), "[[7,89999]]"),
        ] {
            let bytes = told(done(&ahead)).encode();
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(&format!("\"ahead\":{written}")), "{text}");
            assert_eq!(Marker::decode(&bytes), Ok(told(done(&ahead))));
        }
        let before = r#"{"version":1,"sequence":1,"states":0,"partitions":4,"inputs":{"in":{"next":5,"ahead":[7,8]}}}"#;
        assert_eq!(Marker::decode(before.as_bytes()), Ok(told(done(&[7, 8]))));
        let endless = r#"{"version":2,"sequence":1,"states":0,"partitions":4,"inputs":{"in":{"next":5,"ahead":[[7,9000000000000000000]]}}}"#;
        assert!(Marker::decode(endless.as_bytes()).is_err());
    }

    #[test]
    fn the_key_of_a_layout_is_no_other_key() {
        assert_eq!(layout_of_key(&layout_key(0x00ab_cdef)), Some(0x00ab_cdef));
        for other in [KEY, b"customer", b"\xfflayout-", b"layout-00abcdef", b"\xfflayout-xyz"] {
            assert_eq!(layout_of_key(other), None);
        }
    }

    #[test]
    fn records_deleted_unread_are_told_of() {
        let resumed =
            resume(0, 4, &found(Some(marker(7, 2, 40)), 7, 2), &[InputFacts { low: 60, ..input(Some(40)) }]);
        let resumed = resumed.unwrap();
        assert_eq!((resumed.starts[0].next, resumed.warnings.len()), (60, 1));
    }
}
