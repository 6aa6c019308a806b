//! What becomes of scores: kept until their horizon ends, then judged by what the customer did.
//!
//! A score claims something of the time after it: of a model that foretells no order in 30 days, that no order
//! comes in `(scored_at + lead, scored_at + lead + horizon]`. The claim is decided at the last instant of that
//! span, when every event up to it has been applied; so the newest instant of each kind of event is all that
//! has to be known. An event that comes later than that changes no outcome that is out.
//!
//! Of the scores emitted for a customer, one is kept when the last one kept is `every` old or older (and, where
//! `sample` is below 1, when the customer is in the sample). They are packed as the state topic has them, about
//! 7 bytes each, with what the claim is and in which stage the customer was in front of the first that shares
//! it. The list needs nothing else to be read: neither the model of that time nor its lifecycles.
//!
//! Where a challenger scores in the shadow, its score of the same instant stands beside, two bytes more. It claims the
//! same, and is judged by the same outcome; only the champion's goes out.

use thin_vec::ThinVec;

use super::alert;
use super::layout::NEVER;
use super::plan::{Plan, PolicyOn, Settings};
use super::varint::{Packed, get_i64, get_u64, put_i64, put_u64};
use super::words::{RowBuilder, Slot};
use crate::event::{Event, Source};
use crate::model::Model;
use crate::model::artifact::Label;
use crate::time::{DAY_MS, MAX_TS, MIN_TS, Ts};

/// A customer's kept scores take no more than this; the next are not kept until some are judged.
const KEPT_BYTES_MOST: usize = 8 << 10;
/// The highest packed probability.
const P_MOST: u16 = u16::MAX;

const CLAIM: u64 = 0;
const STAGE: u64 = 1;
/// Tags from here on are scores: the distance from the one before, plus this.
const SCORE: u64 = 2;

const GROUPS: u8 = 0b11;
const EXAMPLE: u8 = 0b100;
const FLAGS: u8 = GROUPS | EXAMPLE;
/// The challenger's score follows.
const SHADOWED: u8 = 0b1000;

/// Which of the emitted scores are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keeping {
    /// Share of customers, by a hash of their id.
    pub sample: f64,
    pub every_ms: i64,
}

impl Default for Keeping {
    fn default() -> Self {
        Keeping { sample: 1.0, every_ms: DAY_MS }
    }
}

impl Keeping {
    /// No score is kept.
    pub const NONE: Keeping = Keeping { sample: 0.0, every_ms: DAY_MS };

    fn samples(&self, customer_id: &str) -> bool {
        const SEED: u64 = 0x6f75_7463_6f6d_6573;
        let fraction = || {
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(customer_id.as_bytes(), SEED);
            ((hash >> 11) as f64) / ((1u64 << 53) as f64)
        };
        self.sample >= 1.0 || (self.sample > 0.0 && fraction() < self.sample)
    }
}

/// What a model's scores claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    pub model: &'a str,
    pub version: &'a str,
    pub label: Label,
    pub horizon_ms: i64,
    pub lead_ms: i64,
    /// The model, and its version, that claimed the same in the shadow.
    pub challenger: Option<(&'a str, &'a str)>,
}

impl<'a> Claim<'a> {
    fn put(&self, out: &mut impl Packed) {
        for text in [self.model, self.version] {
            put_u64(out, text.len() as u64);
            out.put(text.as_bytes());
        }
        out.put(&[match self.label {
            Label::NoOrder => 0,
            Label::NoEvent => 1,
            Label::Cancelled => 2,
        }]);
        put_u64(out, self.horizon_ms.max(0) as u64);
        put_u64(out, self.lead_ms.max(0) as u64);
        for text in self.challenger.iter().flat_map(|(model, version)| [model, version]) {
            put_u64(out, text.len() as u64);
            out.put(text.as_bytes());
        }
    }

    fn get(bytes: &'a [u8]) -> Option<Claim<'a>> {
        let mut at = 0;
        let model = get_text(bytes, &mut at)?;
        let version = get_text(bytes, &mut at)?;
        let label = match bytes.get(at)? {
            0 => Label::NoOrder,
            1 => Label::NoEvent,
            2 => Label::Cancelled,
            _ => return None,
        };
        at += 1;
        let mut span = || i64::try_from(get_u64(bytes, &mut at)).ok().filter(|ms| *ms <= MAX_TS);
        let (horizon_ms, lead_ms) = (span()?, span()?);
        let challenger = match at == bytes.len() {
            true => None,
            false => Some((get_text(bytes, &mut at)?, get_text(bytes, &mut at)?)),
        };
        let claim = Claim { model, version, label, horizon_ms, lead_ms, challenger };
        (at == bytes.len()).then_some(claim)
    }

    /// The last instant of the span that a score made at `at` is about.
    fn matures(&self, at: Ts) -> Ts {
        at.saturating_add(self.lead_ms).saturating_add(self.horizon_ms)
    }
}

fn get_bytes<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let len = usize::try_from(get_u64(bytes, at)).ok()?;
    let end = at.checked_add(len)?;
    let found = bytes.get(*at..end)?;
    *at = end;
    Some(found)
}

fn get_text<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a str> {
    std::str::from_utf8(get_bytes(bytes, at)?).ok()
}

/// The part of a plan that is about outcomes.
#[derive(Clone, Debug, Default)]
pub struct Judging {
    /// The packed claim of the plan's model; empty: nothing is kept.
    claim: Box<[u8]>,
    /// A hash of it, never 0.
    claim_id: u32,
    span_ms: i64,
    active_within_ms: i64,
    label: Option<Label>,
    /// The policy whose groups outcomes name: the first about a score.
    policy: Option<usize>,
}

impl Judging {
    /// `challenger` claims the same as `model`, in its shadow.
    pub fn new(model: &Model, challenger: Option<&Model>, settings: &Settings) -> Judging {
        let claim = Claim {
            model: &model.name,
            version: &model.version,
            label: model.label,
            horizon_ms: model.horizon,
            lead_ms: model.lead,
            challenger: challenger.map(|model| (&*model.name, &*model.version)),
        };
        let mut packed = Vec::new();
        claim.put(&mut packed);
        Judging {
            claim_id: id_of(&packed),
            claim: packed.into(),
            span_ms: model.lead.saturating_add(model.horizon),
            active_within_ms: model.active_within,
            label: Some(model.label),
            policy: settings.policies.iter().position(|p| matches!(p.on, PolicyOn::Score { .. })),
        }
    }
}

/// Tells claims, and stages, of one list apart.
fn id_of(bytes: &[u8]) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(bytes) as u32).max(1)
}

/// What a customer's row holds for outcomes.
#[derive(Clone, Copy, Debug)]
pub struct OutcomeSlots {
    /// The newest `order_completed`, event of any kind but profile, `subscription_cancelled` and
    /// `subscription_started`.
    newest: [Slot<i64>; 4],
    /// When the newest kept score was made.
    kept_at: Slot<i64>,
    /// When the next kept score is decided.
    pub matures: Slot<i64>,
    /// The claim and the stage that the list ends in; 0 for an empty list.
    claim: Slot<u32>,
    stage: Slot<u32>,
}

const ORDER: usize = 0;
const ACTIVITY: usize = 1;
const CANCELLED: usize = 2;
const STARTED: usize = 3;

impl OutcomeSlots {
    pub fn new(row: &mut RowBuilder) -> Self {
        OutcomeSlots {
            newest: std::array::from_fn(|_| row.slot(NEVER)),
            kept_at: row.slot(NEVER),
            matures: row.slot(Ts::MAX),
            claim: row.slot(0u32),
            stage: row.slot(0u32),
        }
    }

    /// Remembers what a label may be about.
    #[inline]
    pub fn note(&self, row: &mut [u32], event: &Event<'_>) {
        let mut newest = |kind: usize| {
            let slot = self.newest[kind];
            slot.set(row, slot.get(row).max(event.ts));
        };
        match event.source {
            Source::Profile => {}
            Source::Purchase => {
                newest(ACTIVITY);
                match &*event.name {
                    "order_completed" => newest(ORDER),
                    "subscription_cancelled" => newest(CANCELLED),
                    "subscription_started" => newest(STARTED),
                    _ => {}
                }
            }
            _ => newest(ACTIVITY),
        }
    }

    /// Whether training would take this customer for an example now: active of late, and not gone already.
    pub(super) fn is_example(&self, row: &[u32], judging: &Judging, now: Ts) -> bool {
        let newest = |kind: usize| self.newest[kind].get(row);
        let gone = || newest(CANCELLED) != NEVER && newest(CANCELLED) >= newest(STARTED);
        newest(ACTIVITY) >= now.saturating_sub(judging.active_within_ms)
            && !(judging.label == Some(Label::Cancelled) && gone())
    }

    fn has_churned(&self, row: &[u32], label: Label, from: Ts) -> bool {
        let came = |kind: usize| self.newest[kind].get(row) > from;
        match label {
            Label::NoOrder => !came(ORDER),
            Label::NoEvent => !came(ACTIVITY),
            Label::Cancelled => came(CANCELLED),
        }
    }
}

/// Which half of the experiment a customer was in when scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Treatment,
    Control,
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Treatment => "treatment",
            Group::Control => "control",
        }
    }

    fn bits(group: Option<Group>) -> u8 {
        match group {
            None => 0,
            Some(Group::Treatment) => 1,
            Some(Group::Control) => 2,
        }
    }

    fn of_bits(bits: u8) -> Option<Option<Group>> {
        match bits & GROUPS {
            0 => Some(None),
            1 => Some(Some(Group::Treatment)),
            2 => Some(Some(Group::Control)),
            _ => None,
        }
    }
}

/// A kept score.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept<'a> {
    pub scored_at: Ts,
    /// The probability in 65 535ths.
    pub packed_p: u16,
    /// The challenger's, of the same instant.
    pub challenger_p: Option<u16>,
    pub claim: Claim<'a>,
    /// In the first lifecycle; `None` where there is none.
    pub stage: Option<&'a str>,
    pub group: Option<Group>,
    /// Whether training would have taken the customer for an example then.
    pub example: bool,
    flags: u8,
    claim_bytes: &'a [u8],
    stage_bytes: &'a [u8],
}

impl Kept<'_> {
    /// The probability to 5 decimals, which tell all packed ones apart.
    pub fn p_churn(&self) -> f64 {
        let millionths = (u64::from(self.packed_p) * 100_000 + u64::from(P_MOST) / 2) / u64::from(P_MOST);
        millionths as f64 / 1e5
    }

    fn packed(&self) -> PackedScore {
        PackedScore { p: self.packed_p, challenger_p: self.challenger_p, flags: self.flags }
    }
}

/// A kept score whose time has come.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    pub kept: Kept<'a>,
    pub churned: bool,
}

/// Reads a packed list; ends at the first thing that no list has.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    time: Ts,
    claim: Option<(Claim<'a>, &'a [u8])>,
    stage: &'a [u8],
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut at = 0;
        let time = if bytes.is_empty() { 0 } else { get_i64(bytes, &mut at) };
        Scan { bytes, at, time, claim: None, stage: b"" }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Kept<'a>;

    fn next(&mut self) -> Option<Kept<'a>> {
        while self.at < self.bytes.len() {
            match get_u64(self.bytes, &mut self.at) {
                CLAIM => {
                    let bytes = get_bytes(self.bytes, &mut self.at)?;
                    self.claim = Some((Claim::get(bytes)?, bytes));
                }
                STAGE => {
                    self.stage = get_bytes(self.bytes, &mut self.at)?;
                    std::str::from_utf8(self.stage).ok()?;
                }
                score => {
                    let distance = i64::try_from(score - SCORE).ok()?;
                    let time = self.time.checked_add(distance);
                    self.time = time.filter(|ts| (MIN_TS..=MAX_TS).contains(ts))?;
                    let [low, high, flags] = *self.bytes.get(self.at..)?.first_chunk::<3>()?;
                    self.at += 3;
                    let mut challenger_p = None;
                    if flags & SHADOWED != 0 {
                        challenger_p = Some(u16::from_le_bytes(*self.bytes.get(self.at..)?.first_chunk()?));
                        self.at += 2;
                    }
                    let (claim, claim_bytes) = self.claim.clone()?;
                    let stage = std::str::from_utf8(self.stage).ok()?;
                    return Some(Kept {
                        scored_at: self.time,
                        packed_p: u16::from_le_bytes([low, high]),
                        challenger_p,
                        claim,
                        stage: (!stage.is_empty()).then_some(stage),
                        group: Group::of_bits(flags)?,
                        example: flags & EXAMPLE != 0,
                        flags: flags & FLAGS,
                        claim_bytes,
                        stage_bytes: self.stage,
                    });
                }
            }
        }
        None
    }
}

/// Whether a byte in front of a piece of a packed list says that a text follows: its length and its bytes.
pub(super) fn is_text(tag: u8) -> bool {
    matches!(u64::from(tag), CLAIM | STAGE)
}

/// Where the score ends that begins at `at` of a packed list.
pub(super) fn end_of_score(list: &[u8], mut at: usize) -> Option<usize> {
    get_u64(list, &mut at);
    let flags = *list.get(at + 2)?;
    Some(at + if flags & SHADOWED != 0 { 5 } else { 3 })
}

/// What is packed of one kept score.
#[derive(Clone, Copy)]
struct PackedScore {
    p: u16,
    challenger_p: Option<u16>,
    flags: u8,
}

/// The probability in 65 535ths.
fn pack(p: f64) -> u16 {
    (p.clamp(0.0, 1.0) * f64::from(P_MOST)).round() as u16
}

/// Appends to a packed list; knows what it ends in.
struct Tail<'a> {
    list: &'a mut ThinVec<u8>,
    time: Ts,
    claim_id: u32,
    stage_id: u32,
}

impl Tail<'_> {
    fn push(&mut self, at: Ts, claim: (&[u8], u32), stage: &[u8], packed: PackedScore) {
        if self.list.is_empty() {
            put_i64(self.list, at);
            self.time = at;
        }
        if self.claim_id != claim.1 {
            self.claim_id = claim.1;
            put_header(self.list, CLAIM, claim.0);
        }
        let stage_id = id_of(stage);
        if self.stage_id != stage_id {
            self.stage_id = stage_id;
            put_header(self.list, STAGE, stage);
        }
        put_u64(self.list, SCORE + (at - self.time).max(0) as u64);
        let [low, high] = packed.p.to_le_bytes();
        match packed.challenger_p.map(u16::to_le_bytes) {
            None => self.list.extend([low, high, packed.flags]),
            Some([a, b]) => self.list.extend([low, high, packed.flags | SHADOWED, a, b]),
        }
        self.time = at;
    }
}

fn put_header(list: &mut ThinVec<u8>, tag: u64, bytes: &[u8]) {
    put_u64(list, tag);
    put_u64(list, bytes.len() as u64);
    list.extend_from_slice(bytes);
}

/// Keeps a score that was emitted now, if it is one of those to be kept; `scores` are the champion's and the
/// challenger's.
pub fn keep(
    plan: &Plan,
    row: &mut [u32],
    list: &mut ThinVec<u8>,
    customer_id: &str,
    now: Ts,
    scores: (f64, Option<f64>),
) {
    let (slots, judging, keeping) = (plan.head.outcomes, &plan.judging, &plan.settings.outcomes);
    let kept_at = slots.kept_at.get(row);
    let is_due = kept_at == NEVER || now >= kept_at.saturating_add(keeping.every_ms.max(1));
    if judging.claim.is_empty() || !is_due || list.len() > KEPT_BYTES_MOST || !keeping.samples(customer_id) {
        return;
    }
    let control = judging.policy.map(|k| alert::is_control(&plan.settings.policies[k], customer_id));
    let group = control.map(|control| if control { Group::Control } else { Group::Treatment });
    let example = if slots.is_example(row, judging, now) { EXAMPLE } else { 0 };
    let stage = plan.lifecycles.first().and_then(|(lifecycle, of)| {
        lifecycle.stages().get(of.stage.get(row) as usize).map(|stage| stage.name.as_bytes())
    });
    let (p, challenger_p) = (pack(scores.0), scores.1.map(pack));
    let mut tail =
        Tail { time: kept_at, claim_id: slots.claim.get(row), stage_id: slots.stage.get(row), list };
    let claim = (&*judging.claim, judging.claim_id);
    tail.push(
        now,
        claim,
        stage.unwrap_or(b""),
        PackedScore { p, challenger_p, flags: Group::bits(group) | example },
    );
    let (claim_id, stage_id) = (tail.claim_id, tail.stage_id);
    slots.claim.set(row, claim_id);
    slots.stage.set(row, stage_id);
    slots.kept_at.set(row, now);
    slots.matures.set(row, slots.matures.get(row).min(now.saturating_add(judging.span_ms)));
}

/// Takes the scores whose time has come by `now` out of the list and tells of each, the oldest first.
pub fn mature(
    slots: &OutcomeSlots,
    row: &mut [u32],
    list: &mut ThinVec<u8>,
    now: Ts,
    mut tell: impl FnMut(&mut [u32], &Outcome<'_>),
) {
    let before = std::mem::take(list);
    let mut tail = Tail { time: NEVER, claim_id: 0, stage_id: 0, list };
    let mut next = Ts::MAX;
    for kept in Scan::new(&before) {
        let at = kept.claim.matures(kept.scored_at);
        if at <= now {
            let from = kept.scored_at.saturating_add(kept.claim.lead_ms);
            let churned = slots.has_churned(row, kept.claim.label, from);
            tell(row, &Outcome { kept, churned });
        } else {
            next = next.min(at);
            let claim = (kept.claim_bytes, id_of(kept.claim_bytes));
            tail.push(kept.scored_at, claim, kept.stage_bytes, kept.packed());
        }
    }
    let (claim_id, stage_id) = (tail.claim_id, tail.stage_id);
    slots.claim.set(row, claim_id);
    slots.stage.set(row, stage_id);
    slots.matures.set(row, next);
}

/// Takes in what is kept of somebody who is the same customer. What there is no room for is not judged.
pub(super) fn join(slots: &OutcomeSlots, row: &mut [u32], list: &mut ThinVec<u8>, other: (&[u32], &[u8])) {
    for slot in slots.newest.iter().chain([&slots.kept_at]) {
        slot.set(row, slot.get(row).max(slot.get(other.0)));
    }
    let before = std::mem::take(list);
    let mut all: Vec<Kept<'_>> = Scan::new(&before).chain(Scan::new(other.1)).collect();
    all.sort_by_key(|kept| kept.scored_at);
    let mut tail = Tail { time: NEVER, claim_id: 0, stage_id: 0, list };
    let mut next = Ts::MAX;
    for kept in all {
        if tail.list.len() > KEPT_BYTES_MOST {
            break;
        }
        next = next.min(kept.claim.matures(kept.scored_at));
        let claim = (kept.claim_bytes, id_of(kept.claim_bytes));
        tail.push(kept.scored_at, claim, kept.stage_bytes, kept.packed());
    }
    let (claim_id, stage_id) = (tail.claim_id, tail.stage_id);
    slots.claim.set(row, claim_id);
    slots.stage.set(row, stage_id);
    slots.matures.set(row, next);
}

/// Appends what the state topic keeps for outcomes.
pub(super) fn put(slots: &OutcomeSlots, row: &[u32], list: &[u8], now: Ts, out: &mut Vec<u8>) {
    for slot in slots.newest.iter().chain([&slots.kept_at]) {
        let ts = slot.get(row);
        put_u64(out, if ts == NEVER { 0 } else { now.saturating_sub(ts).unsigned_abs() + 1 });
    }
    put_u64(out, list.len() as u64);
    out.extend_from_slice(list);
}

/// Reads what [`put`] appended, and nothing more; `None` when it cannot be.
pub(super) fn get(slots: &OutcomeSlots, row: &mut [u32], bytes: &[u8], now: Ts) -> Option<ThinVec<u8>> {
    let mut at = 0;
    for slot in slots.newest.iter().chain([&slots.kept_at]) {
        let Some(distance) = get_u64(bytes, &mut at).checked_sub(1) else { continue };
        let ts = i64::try_from(distance).ok().and_then(|distance| now.checked_sub(distance));
        slot.set(row, ts.filter(|ts| (MIN_TS..=MAX_TS).contains(ts))?);
    }
    let list = get_bytes(bytes, &mut at)?;
    if at != bytes.len() || list.len() > KEPT_BYTES_MOST + (2 << 10) {
        return None;
    }
    let mut scan = Scan::new(list);
    let (mut next, mut last, mut end) = (Ts::MAX, NEVER, (0, 0));
    for kept in &mut scan {
        next = next.min(kept.claim.matures(kept.scored_at));
        last = kept.scored_at;
        end = (id_of(kept.claim_bytes), id_of(kept.stage_bytes));
    }
    if !scan.is_at_end() || last > slots.kept_at.get(row) {
        return None;
    }
    slots.matures.set(row, next);
    slots.claim.set(row, end.0);
    slots.stage.set(row, end.1);
    Some(ThinVec::from(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(version: &'static str, days: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let horizon_ms = days * DAY_MS;
        let challenger = (version == "2").then_some(("m", "3"));
        Claim { model: "m", version, label: Label::NoOrder, horizon_ms, lead_ms: 5, challenger }
            .put(&mut bytes);
        bytes
    }

    fn slots() -> (OutcomeSlots, Vec<u32>) {
        let mut row = RowBuilder::default();
        let slots = OutcomeSlots::new(&mut row);
        (slots, row.finish().to_vec())
    }

    fn fill(entries: &[(i64, u16, bool, &'static str)]) -> ThinVec<u8> {
        let mut list = ThinVec::new();
        let mut tail = Tail { list: &mut list, time: NEVER, claim_id: 0, stage_id: 0 };
        let (old, new) = (claim("1", 30), claim("2", 10));
        let mut at = 1_767_225_600_000;
        for (distance, p, newer, stage) in entries {
            at += distance;
            let bytes = if *newer { &new } else { &old };
            let packed = PackedScore { p: *p, challenger_p: newer.then_some(!*p), flags: EXAMPLE | 1 };
            tail.push(at, (bytes, id_of(bytes)), stage.as_bytes(), packed);
        }
        list
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_and_what_matures_leaves_the_rest_as_if_it_had_never_been(
            entries in prop::collection::vec(
                (0..3 * DAY_MS, any::<u16>(), any::<bool>(), prop::sample::select(vec!["", "reach", "loyalty"])), 1..40),
            after in 0..40 * DAY_MS,
        ) {
            let list = fill(&entries);
            let kept: Vec<Kept<'_>> = Scan::new(&list).collect();
            prop_assert_eq!(kept.len(), entries.len());
            for (kept, entry) in kept.iter().zip(&entries) {
                prop_assert_eq!(kept.packed_p, entry.1);
                prop_assert_eq!(kept.stage.unwrap_or(""), entry.3);
                prop_assert_eq!(kept.claim.version, if entry.2 { "2" } else { "1" });
                prop_assert_eq!(kept.challenger_p, entry.2.then_some(!entry.1));
                prop_assert_eq!(kept.claim.challenger, entry.2.then_some(("m", "3")));
                prop_assert!(kept.example && kept.group == Some(Group::Treatment));
                prop_assert!((kept.p_churn() - f64::from(entry.1) / 65_535.0).abs() <= 5.1e-6);
            }
            let now = kept[0].scored_at + after;
            let (slots, mut row) = slots();
            let mut left = list.clone();
            let mut told = Vec::new();
            mature(&slots, &mut row, &mut left, now, |_, outcome| {
                assert!(outcome.churned, "nothing ever came");
                told.push(outcome.kept.scored_at);
            });
            let is_ripe = |kept: &&Kept<'_>| kept.claim.matures(kept.scored_at) <= now;
            let ripe: Vec<Ts> = kept.iter().filter(is_ripe).map(|kept| kept.scored_at).collect();
            prop_assert_eq!(told, ripe);
            let rest: Vec<&Kept<'_>> = kept.iter().filter(|kept| !is_ripe(kept)).collect();
            let still: Vec<Kept<'_>> = Scan::new(&left).collect();
            prop_assert_eq!(still.iter().collect::<Vec<_>>(), rest);
            let next = still.iter().map(|kept| kept.claim.matures(kept.scored_at)).min();
            prop_assert_eq!(slots.matures.get(&row), next.unwrap_or(Ts::MAX));
            // The row tells the same after a way through the state topic.
            slots.kept_at.set(&mut row, now.max(kept[kept.len() - 1].scored_at));
            let mut bytes = Vec::new();
            put(&slots, &row, &left, now + 200 * DAY_MS, &mut bytes);
            let (_, mut restored) = super::tests::slots();
            prop_assert_eq!(get(&slots, &mut restored, &bytes, now + 200 * DAY_MS), Some(left));
            prop_assert_eq!(restored, row);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let (slots, mut row) = slots();
            let _ = get(&slots, &mut row, &bytes, 1_767_225_600_000);
            Scan::new(&bytes).for_each(drop);
        }
    }

    #[test]
    fn a_daily_score_takes_seven_bytes() {
        let entries: Vec<_> = (0..30).map(|i| (DAY_MS, i * 2_000, false, "retention")).collect();
        assert_eq!(fill(&entries).len(), 30 + 4 + 29 * 7);
    }

    #[test]
    fn a_label_is_about_what_came_after_the_lead() {
        let (slots, mut row) = slots();
        let set = |row: &mut [u32], kind: usize, ts| slots.newest[kind].set(row, ts);
        for (label, kind, when_it_came) in [
            (Label::NoOrder, ORDER, false),
            (Label::NoEvent, ACTIVITY, false),
            (Label::Cancelled, CANCELLED, true),
        ] {
            assert_eq!(slots.has_churned(&row, label, 100), !when_it_came);
            set(&mut row, kind, 100);
            assert_eq!(slots.has_churned(&row, label, 100), !when_it_came, "the bound itself is outside");
            set(&mut row, kind, 101);
            assert_eq!(slots.has_churned(&row, label, 100), when_it_came);
        }
    }

    #[test]
    fn a_sample_has_its_share_of_customers() {
        let keeping = Keeping { sample: 0.25, every_ms: DAY_MS };
        let kept = (0..20_000).filter(|i| keeping.samples(&format!("c{i}"))).count();
        assert!((4_700..5_300).contains(&kept), "{kept}");
        assert!(!Keeping::NONE.samples("c") && Keeping::default().samples("c"));
    }
}
