//! The bytes of one customer in the state topic: compact, versioned, checked.
//!
//! Totals, cursors, truths and timers are not written: they follow from the rest. Instants are written as
//! distances from the last evaluated one. What stands where is identified by the layout id, a hash of its
//! [`Description`], so that a state of another catalogue is never misread: it is mapped by names
//! ([`super::migrate`]) where its description is known.

use thin_vec::ThinVec;

use super::channels;
use super::described::{Description, Kind};
use super::engine::Engine;
use super::facts::{TraitValue, Traits};
use super::layout::{KeptSlot, NEVER};
use super::lifecycle::StageState;
use super::migrate::{LayoutMap, Layouts, LifecycleMap};
use super::outcomes;
use super::panes;
use super::plan::{Plan, StageSlots};
use super::reconcile::Due;
use super::sessions;
use super::store::{OrderDays, Seen};
use super::unsettled::Unsettled;
use super::varint::{get_i64, get_u64, put_i64, put_u64};
use super::windows;
use crate::time::{MAX_TS, MIN_TS, Ts};

/// Raised whenever the meaning of the bytes changes.
pub const VERSION: u8 = 1;

/// Why bytes are no state of this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the record is too short or its checksum is wrong")]
    Corrupt,
    #[error("the record has version {0}; this program reads version {VERSION}")]
    OtherVersion(u8),
    #[error(
        "the record was written with another feature catalogue, other lifecycle stages or other alert policies, \
         and nothing tells what stands where in it"
    )]
    OtherLayout(u32),
    #[error("the record's {0} is impossible")]
    Impossible(&'static str),
}

/// The id that versions before descriptions gave to a plan's layout: a hash of the names of everything that is
/// kept, in order.
pub fn undescribed_id(plan: &Plan) -> u32 {
    let mut text = String::new();
    let mut name = |kind: &str, name: &str| {
        text.push_str(kind);
        text.push_str(name);
        text.push('\n');
    };
    plan.layout.kept.iter().for_each(|kept| name("kept ", &kept.name));
    plan.layout.panes.iter().for_each(|pane| name("pane ", &pane.name));
    for (lifecycle, _) in &plan.lifecycles {
        name("lifecycle ", &lifecycle.name);
        lifecycle.stages().iter().for_each(|stage| name("stage ", &stage.name));
    }
    plan.settings.policies.iter().for_each(|policy| name("policy ", &policy.name));
    if plan.keeps_channels {
        name("kept ", "channels");
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32
}

impl Engine {
    /// Appends the state of a customer as of its last evaluated instant.
    pub fn encode(&self, index: u32, out: &mut Vec<u8>) {
        let start = out.len();
        let (plan, look) = (self.plan(), self.store().look(index));
        let (row, customer) = (&*look.row, &*look.customer);
        let head = plan.head;
        let now = head.now.get(row);
        out.push(VERSION);
        out.extend_from_slice(&plan.layout_id.to_le_bytes());
        put_i64(out, now);
        put_instant(out, now, head.newest.get(row));
        out.extend_from_slice(&head.p.get(row).to_le_bytes());
        out.extend_from_slice(&head.emitted_p.get(row).to_le_bytes());
        put_u64(out, u64::from(head.sequence.get(row)));
        put_u64(out, u64::from(head.emitted.get(row)));
        for kept in &plan.layout.kept {
            match kept.slot {
                KeptSlot::Count(slot) => put_u64(out, u64::from(slot.get(row))),
                KeptSlot::Number(slot) => put_i64(out, slot.get(row)),
                KeptSlot::Instant(slot) => put_instant(out, now, slot.get(row)),
                KeptSlot::Float(slot) => out.extend_from_slice(&slot.get(row).to_le_bytes()),
            }
        }
        for (_, slots) in &plan.lifecycles {
            out.push(slots.stage.get(row) as u8);
            put_instant(out, now, slots.entered_at.get(row));
            slots.visits.iter().for_each(|pair| put_u64(out, u64::from(pair.get(row))));
            put_u64(out, u64::from(slots.silent_moves.get(row)));
        }
        for slots in &plan.policies {
            out.push(slots.disarmed.get(row) as u8);
            put_instant(out, now, slots.fired_at.get(row));
        }
        // As of this instant, so that equal pasts are equal bytes whenever room was made in the packed lists.
        put_with_length(out, |out| windows::put_folded(&plan.layout, &customer.log, now, out));
        put_with_length(out, |out| {
            if let Some(slots) = &plan.layout.sessions {
                sessions::put_current(slots, &customer.sessions, now, out);
            }
        });
        put_order_days(out, &customer.order_days);
        put_seen(out, &customer.seen, head.newest.get(row), plan.settings.dedupe_ms);
        put_traits(out, customer.traits.as_deref());
        if plan.keeps_channels {
            put_bytes(out, &customer.channels);
        }
        outcomes::put(&head.outcomes, row, &customer.kept, now, out);
        let checksum = xxhash_rust::xxh3::xxh3_64(&out[start..]) as u32;
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    /// Takes in the state of a customer and tells its number. Call [`Engine::finish_restore`] once all are in.
    pub fn restore(&mut self, id: &str, bytes: &[u8]) -> Result<u32, CodecError> {
        let decoded = decode(&self.plan, &mut self.layouts, bytes)?;
        let plan_head = self.plan().head;
        let index = self.adopt(id, |row, customer| {
            row.copy_from_slice(&decoded.row);
            plan_head.due.set(row, Ts::MAX);
            customer.log = decoded.log;
            customer.sessions = decoded.sessions;
            customer.seen = decoded.seen;
            customer.traits = decoded.traits;
            customer.order_days = decoded.order_days;
            customer.channels = decoded.channels;
            customer.kept = decoded.kept;
        });
        self.reconciling.note(index, decoded.due);
        self.unsettled.insert(index);
        self.store.rest_at_times();
        Ok(index)
    }

    /// Takes in the description of a layout that states of the same log may have.
    pub fn learn_layout(&mut self, id: u32, description: Description) {
        self.layouts.learn(id, &self.plan, description);
    }

    /// The layouts that states of the log have, or are about to have, whose descriptions are not in it.
    pub fn undescribed_layouts(&self) -> Vec<(u32, Vec<u8>)> {
        self.layouts.missing(self.plan.layout_id)
    }

    /// The descriptions of layouts that stand in the log, once [`Engine::undescribed_layouts`] do as well.
    pub fn described_layouts(&self) -> impl Iterator<Item = (u32, Vec<u8>)> + '_ {
        self.layouts.described(self.plan.layout_id)
    }

    /// Takes in the description of a layout that a state of another log has.
    pub(super) fn meet_layout(&mut self, id: u32, description: &Description) {
        self.layouts.meet(id, &self.plan, description);
    }

    /// Whether bytes from elsewhere are a state.
    pub(super) fn check_state(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.decode(bytes).map(drop)
    }

    /// Reads a state without taking it in.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<Box<Decoded>, CodecError> {
        decode(&self.plan, &mut self.layouts, bytes).map(Box::new)
    }

    /// What changed between the layouts of the restored states and this one, in sentences.
    pub fn layout_news(&self) -> Vec<String> {
        self.layouts.news(&self.plan)
    }

    /// Forgets a customer whose state was tombstoned, while restoring.
    pub fn restore_tombstone(&mut self, id: &str) {
        if let Some(index) = self.store().find(id) {
            self.reconciling.note(index, None);
            self.unsettled.remove(index);
            self.forget(index);
        }
    }

    /// Lets restored customers settle in while more states are awaited, so many at most and all but `few`. Returns
    /// whether there are more.
    pub fn settle_some(&mut self, most: usize, few: usize) -> bool {
        for _ in 0..most {
            if self.unsettled.len() <= few {
                break;
            }
            self.settle_next();
        }
        self.unsettled.len() > few
    }

    fn settle_next(&mut self) -> bool {
        let next = self.unsettled.take();
        if let Some(index) = next {
            self.settle_in(index);
            self.store.rest_at_times();
        }
        next.is_some()
    }

    /// Makes restored customers live: windows, truths and timers.
    pub fn finish_restore(&mut self) {
        while self.settle_next() {}
        self.unsettled = Unsettled::default();
        self.reconciling.begin();
        self.commit();
    }
}

/// A state, read.
pub(super) struct Decoded {
    pub row: Vec<u32>,
    pub log: ThinVec<u8>,
    pub sessions: ThinVec<u8>,
    pub seen: ThinVec<Seen>,
    pub traits: Option<Box<Traits>>,
    pub order_days: OrderDays,
    pub channels: ThinVec<u8>,
    /// What must be done once all customers are there.
    due: Option<Due>,
    pub kept: ThinVec<u8>,
}

fn decode(plan: &Plan, layouts: &mut Layouts, bytes: &[u8]) -> Result<Decoded, CodecError> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CodecError::Corrupt)?;
    if xxhash_rust::xxh3::xxh3_64(body) as u32 != u32::from_le_bytes(*checksum) {
        return Err(CodecError::Corrupt);
    }
    let mut reader = Reader { bytes: body, at: 0 };
    match reader.byte()? {
        VERSION => {}
        other => return Err(CodecError::OtherVersion(other)),
    }
    let layout_id = u32::from_le_bytes(reader.array()?);
    let map = &*layouts.of_state(layout_id).ok_or(CodecError::OtherLayout(layout_id))?;
    let mut row = plan.new_row.to_vec();
    let now = reader.i64()?;
    if !(MIN_TS..=MAX_TS).contains(&now) {
        return Err(CodecError::Impossible("instant"));
    }
    let head = plan.head;
    head.now.set(&mut row, now);
    head.newest.set(&mut row, reader.past_instant(now)?);
    head.p.set(&mut row, f64::from_le_bytes(reader.array()?));
    head.emitted_p.set(&mut row, f64::from_le_bytes(reader.array()?));
    head.sequence.set(&mut row, reader.u32()?);
    head.emitted.set(&mut row, reader.u32()?);
    for (kind, to) in &map.kept {
        reader.kept(*kind, *to, &mut row, now)?;
    }
    map.complete_orders(&plan.layout, &mut row);
    check_instants(plan, &row)?;
    let due = reader.lifecycles(plan, map, &mut row, now)?;
    for to in &map.policies {
        let (disarmed, fired_at) = (u32::from(reader.byte()?), reader.instant(now)?);
        if let Some(slots) = to.map(|to| &plan.policies[to]) {
            slots.disarmed.set(&mut row, disarmed);
            slots.fired_at.set(&mut row, fired_at);
        }
    }
    let log = reader.bytes()?;
    if !panes::is_valid(log, map.pane_count()) {
        return Err(CodecError::Impossible("pane log"));
    }
    let log = map.log(log, &plan.layout);
    let mut packed = reader.bytes()?;
    match &plan.layout.sessions {
        Some(slots) => {
            let packed_end = sessions::packed_end(packed, slots.start.get(&row));
            slots.packed_end.set(&mut row, packed_end.ok_or(CodecError::Impossible("session list"))?);
        }
        None => packed = &[],
    }
    let order_days = map.order_days(reader.order_days(map.order_count())?);
    let seen = reader.seen(head.newest.get(&row))?;
    let traits = reader.traits()?;
    let mut channels = if map.channels { reader.bytes()? } else { &[] };
    if !channels::is_valid(channels) {
        return Err(CodecError::Impossible("list of channels"));
    }
    if !plan.keeps_channels {
        channels = &[];
    }
    // States written before outcomes were kept end here.
    let kept = match body.get(reader.at..) {
        None => return Err(CodecError::Impossible("length")),
        Some([]) => ThinVec::new(),
        Some(rest) => outcomes::get(&head.outcomes, &mut row, rest, now)
            .ok_or(CodecError::Impossible("list of kept scores"))?,
    };
    let (sessions, channels) = (ThinVec::from(packed), ThinVec::from(channels));
    Ok(Decoded { row, log, sessions, seen, traits, order_days, channels, kept, due })
}

/// Puts a customer into the plan's stage of the same name, or into `initial`; then returns the stage's name.
fn stand(plan: &Plan, to: usize, one: &LifecycleMap, state: StageState, row: &mut [u32]) -> Option<Box<str>> {
    let (lifecycle, slots): &(_, StageSlots) = &plan.lifecycles[to];
    let mut mapped = StageState { visits: vec![0; lifecycle.stages().len()].into(), ..state };
    for (stage, visits) in one.stages.iter().zip(&state.visits) {
        if let Ok(stage) = stage {
            mapped.visits[usize::from(*stage)] = *visits;
        }
    }
    let stage = &one.stages[usize::from(state.stage)];
    mapped.stage = *stage.as_ref().unwrap_or(&lifecycle.initial);
    slots.store(row, &mapped);
    stage.as_ref().err().cloned()
}

/// Whether the first and last of everything that has both make sense together.
fn check_instants(plan: &Plan, row: &[u32]) -> Result<(), CodecError> {
    let is_span = |first: Ts, last: Ts| first <= last && (first == NEVER) == (last == NEVER);
    for orders in &plan.layout.orders {
        let (first, last) = (orders.first.get(row), orders.last.get(row));
        // Orders may be counted whose instants another catalogue did not keep.
        if !is_span(first, last) || (first != NEVER && orders.count.get(row) == 0) {
            return Err(CodecError::Impossible("first and last order"));
        }
    }
    match plan.layout.sessions {
        Some(slots) if !is_span(slots.start.get(row), slots.end.get(row)) => {
            Err(CodecError::Impossible("session"))
        }
        _ => Ok(()),
    }
}

/// 0 for never, else 1 and the distance from `now`.
fn put_instant(out: &mut Vec<u8>, now: Ts, ts: Ts) {
    if ts == NEVER {
        return out.push(0);
    }
    let distance = now - ts;
    // Zigzag first, so that the few instants after `now` stay short too.
    put_u64(out, (((distance << 1) ^ (distance >> 63)) as u64).saturating_add(1));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// As [`put_bytes`], for bytes that are written only now.
fn put_with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let end = out.len();
    put_u64(out, (end - start) as u64);
    let length_bytes = out.len() - end;
    out[start..].rotate_right(length_bytes);
}

fn put_seen(out: &mut Vec<u8>, seen: &[Seen], newest: Ts, horizon: i64) {
    let inside = || seen.iter().filter(|s| newest - s.ts <= horizon);
    put_u64(out, inside().count() as u64);
    for seen in inside() {
        out.extend_from_slice(&seen.id.to_le_bytes());
        put_instant(out, newest, seen.ts);
    }
}

/// The number of days, then the distance of each from the one before.
fn put_order_days(out: &mut Vec<u8>, days: &OrderDays) {
    put_u64(out, days.0.len() as u64);
    let mut previous = 0;
    for day in &days.0 {
        put_u64(out, u64::from(day - previous));
        previous = *day;
    }
}

fn put_traits(out: &mut Vec<u8>, traits: Option<&Traits>) {
    put_u64(out, traits.map_or(0, |t| t.len() as u64));
    for (name, value) in traits.into_iter().flatten() {
        put_bytes(out, name.as_bytes());
        match value {
            TraitValue::Flag(flag) => out.push(u8::from(*flag)),
            TraitValue::Number(number) => {
                out.push(2);
                out.extend_from_slice(&number.to_le_bytes());
            }
            TraitValue::Text(text) => {
                out.push(3);
                put_bytes(out, text.as_bytes());
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Fails once more was read than there is.
    fn checked<T>(&self, value: T) -> Result<T, CodecError> {
        if self.at <= self.bytes.len() { Ok(value) } else { Err(CodecError::Impossible("length")) }
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[b]| b)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let array = rest.first_chunk::<N>().copied().ok_or(CodecError::Impossible("length"))?;
        self.at += N;
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        let n = get_u64(self.bytes, &mut self.at);
        self.checked(n)
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.u64()?).map_err(|_| CodecError::Impossible("count"))
    }

    fn i64(&mut self) -> Result<i64, CodecError> {
        let n = get_i64(self.bytes, &mut self.at);
        self.checked(n)
    }

    fn instant(&mut self, now: Ts) -> Result<Ts, CodecError> {
        let Some(zigzag) = self.u64()?.checked_sub(1) else { return Ok(NEVER) };
        let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let ts = now.checked_sub(distance).filter(|ts| (MIN_TS..=MAX_TS).contains(ts));
        ts.ok_or(CodecError::Impossible("instant"))
    }

    /// An instant that must have been.
    fn past_instant(&mut self, now: Ts) -> Result<Ts, CodecError> {
        match self.instant(now)? {
            NEVER => Err(CodecError::Impossible("instant")),
            ts => Ok(ts),
        }
    }

    /// A kept value; one that the plan does not know is passed over.
    fn kept(&mut self, kind: Kind, to: Option<KeptSlot>, row: &mut [u32], now: Ts) -> Result<(), CodecError> {
        match (kind, to) {
            (Kind::Count, Some(KeptSlot::Count(slot))) => slot.set(row, self.u32()?),
            (Kind::Number, Some(KeptSlot::Number(slot))) => slot.set(row, self.i64()?),
            (Kind::Instant, Some(KeptSlot::Instant(slot))) => slot.set(row, self.instant(now)?),
            (Kind::Float, Some(KeptSlot::Float(slot))) => slot.set(row, f64::from_le_bytes(self.array()?)),
            (Kind::Count, _) => drop(self.u32()?),
            (Kind::Number, _) => drop(self.i64()?),
            (Kind::Instant, _) => drop(self.instant(now)?),
            (Kind::Float, _) => drop(self.array::<8>()?),
        }
        Ok(())
    }

    /// Where the customer stands in every lifecycle, and what must be done about those that have changed.
    fn lifecycles(
        &mut self,
        plan: &Plan,
        map: &LayoutMap,
        row: &mut [u32],
        now: Ts,
    ) -> Result<Option<Due>, CodecError> {
        let mut due = Due { fresh: map.fresh, gone: Vec::new() };
        for one in &map.lifecycles {
            let state = self.stage_state(one, now)?;
            if let Some(to) = one.to
                && let Some(gone) = self::stand(plan, to, one, state, row)
            {
                due.gone.push((to as u8, gone));
            }
        }
        for (k, (lifecycle, slots)) in plan.lifecycles.iter().enumerate() {
            if map.fresh >> k & 1 == 1 {
                slots.store(row, &lifecycle.start(now));
            }
        }
        Ok((map.fresh | map.changed != 0).then_some(due))
    }

    /// A customer in a lifecycle, by the stages of the layout it was written under.
    fn stage_state(&mut self, one: &LifecycleMap, now: Ts) -> Result<StageState, CodecError> {
        let stage = self.byte()?;
        if usize::from(stage) >= one.stages.len() {
            return Err(CodecError::Impossible("stage"));
        }
        let entered_at = self.past_instant(now)?;
        let mut visits = vec![0u16; one.stages.len()].into_boxed_slice();
        for pair in visits.chunks_mut(2) {
            let word = self.u32()?;
            pair[0] = word as u16;
            if let Some(second) = pair.get_mut(1) {
                *second = (word >> 16) as u16;
            }
        }
        let silent_moves = self.u32()?.min(u32::from(u16::MAX)) as u16;
        Ok(StageState { stage, entered_at, truths: 0, visits, silent_moves })
    }

    fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.u64()? as usize;
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(CodecError::Impossible("length"))?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Impossible("text"))
    }

    fn seen(&mut self, newest: Ts) -> Result<ThinVec<Seen>, CodecError> {
        let mut all = ThinVec::new();
        for _ in 0..self.u64()? {
            let id = u64::from_le_bytes(self.array()?);
            all.push(Seen { id, ts: self.past_instant(newest)? });
        }
        Ok(all)
    }

    fn order_days(&mut self, orders: usize) -> Result<OrderDays, CodecError> {
        let impossible = CodecError::Impossible("order days");
        let (mut days, mut previous) = (OrderDays::default(), 0u32);
        for i in 0..self.u64()? {
            let distance = self.u32()?;
            let day = previous.checked_add(distance).filter(|_| i == 0 || distance > 0);
            previous = day.filter(|day| OrderDays::orders_of(*day) < orders).ok_or(impossible.clone())?;
            days.0.push(previous);
        }
        Ok(days)
    }

    fn traits(&mut self) -> Result<Option<Box<Traits>>, CodecError> {
        let mut traits = Traits::new();
        for _ in 0..self.u64()? {
            let name = self.text()?;
            let value = match self.byte()? {
                flag @ 0..=1 => TraitValue::Flag(flag == 1),
                2 => TraitValue::Number(f64::from_le_bytes(self.array()?)),
                3 => TraitValue::Text(self.text()?.into()),
                _ => return Err(CodecError::Impossible("trait")),
            };
            traits.insert(name.into(), value);
        }
        Ok((!traits.is_empty()).then(|| Box::new(traits)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{Event, Field, Numbers, ProfileChange, Source};
    use crate::model::Model;
    use crate::model::artifact::definition_hash;
    use crate::pipeline::catalogue::Catalogue;
    use crate::pipeline::plan::Settings;
    use crate::time::{DAY_MS, HOUR_MS};
    use std::sync::Arc;

    const NOW: Ts = 1_767_225_600_000;

    fn plan(lifecycles: &[&str], catalogue: &str) -> Arc<Plan> {
        let files: Vec<_> = lifecycles.iter().map(|text| ("l.toml".to_owned(), (*text).to_owned())).collect();
        let catalogue = Catalogue::load("features.toml", catalogue).unwrap();
        let plan =
            Plan::new(&catalogue, &files, &Model::of_one_term("clicks_7d", &catalogue), Settings::default());
        Arc::new(plan.unwrap())
    }

    fn lifecycle(stage: &str) -> String {
        format!("name = \"l\"\ninitial = \"{stage}\"\n[[stage]]\nname = \"{stage}\"\nenter = \"true\"\n")
    }

    pub(in crate::pipeline) fn event(
        source: Source,
        name: &'static str,
        ts: Ts,
        id: Option<&'static str>,
    ) -> Event<'static> {
        let mut numbers = Numbers::default();
        numbers.set(Field::Amount, 12.5);
        let customer_id = "c".into();
        Event {
            source,
            customer_id,
            name: name.into(),
            ts,
            event_id: id.map(Into::into),
            numbers,
            profile: None,
            channel: None,
        }
    }

    /// A customer with something in every part of its state.
    fn lived_in(plan: &Arc<Plan>) -> Engine {
        let mut engine = Engine::new(Arc::clone(plan), false);
        for day in 0..5 {
            let ts = NOW + day * DAY_MS;
            engine.step(&event(Source::Purchase, "order_completed", ts, Some("a")));
            engine.step(&event(Source::Clickstream, "page_viewed", ts + HOUR_MS, None));
        }
        let trait_of = |name: &str, value| (Box::from(name), Some(value));
        let changes = vec![
            trait_of("flag", TraitValue::Flag(true)),
            trait_of("number", TraitValue::Number(-0.5)),
            trait_of("text", TraitValue::Text("Zürich".into())),
        ];
        let profile = Some(Box::new(ProfileChange::Traits(changes)));
        engine.step(&Event { profile, ..event(Source::Profile, "traits_updated", NOW + 9 * DAY_MS, None) });
        engine
    }

    pub(in crate::pipeline) fn encoded(engine: &Engine) -> Vec<u8> {
        let mut bytes = Vec::new();
        engine.encode(engine.store().find("c").unwrap(), &mut bytes);
        bytes
    }

    /// The bytes with a byte changed and the checksum right again.
    fn with_byte(bytes: &[u8], at: usize, byte: u8) -> Vec<u8> {
        let mut body = bytes[..bytes.len() - 4].to_vec();
        body[at] = byte;
        let checksum = xxhash_rust::xxh3::xxh3_64(&body) as u32;
        body.extend_from_slice(&checksum.to_le_bytes());
        body
    }

    #[test]
    fn what_is_restored_is_encoded_to_the_same_bytes() {
        let plan = plan(&[&lifecycle("a")], "");
        let bytes = encoded(&lived_in(&plan));
        let mut other = Engine::new(Arc::clone(&plan), true);
        other.restore("c", &bytes).unwrap();
        other.finish_restore();
        assert_eq!(encoded(&other), bytes);
        assert_eq!(other.population(), [vec![1]]);
        other.restore("c", &bytes).unwrap();
        assert_eq!(other.population(), [vec![1]], "a newer record replaces the older");
        other.restore_tombstone("c");
        assert_eq!((other.store().len(), other.population()), (0, &[vec![0]][..]));
    }

    #[test]
    fn damage_a_later_version_and_another_layout_are_told_apart() {
        let plan_a = plan(&[&lifecycle("a")], "");
        let bytes = encoded(&lived_in(&plan_a));
        let restore =
            |plan: &Arc<Plan>, bytes: &[u8]| Engine::new(Arc::clone(plan), false).restore("c", bytes);
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        assert_eq!(restore(&plan_a, &damaged), Err(CodecError::Corrupt));
        assert_eq!(restore(&plan_a, &bytes[..3]), Err(CodecError::Corrupt));
        let later = with_byte(&bytes, 0, VERSION + 1);
        assert_eq!(restore(&plan_a, &later), Err(CodecError::OtherVersion(VERSION + 1)));
        let other_stages = plan(&[&lifecycle("b")], "");
        let undescribed = restore(&other_stages, &bytes);
        assert_eq!(undescribed, Err(CodecError::OtherLayout(plan_a.layout_id)), "nothing describes it");
        let longer = with_byte(&[&bytes[..bytes.len() - 4], &[0; 5]].concat(), 0, VERSION);
        assert_eq!(restore(&plan_a, &longer), Err(CodecError::Impossible("list of kept scores")));
    }

    #[test]
    fn the_layout_id_follows_what_is_kept_and_the_definitions_and_nothing_else() {
        let stage = lifecycle("a");
        let plan_a = plan(&[&stage], "");
        let other_rule = plan(&[&stage.replace("\"true\"", "\"orders_90d > 1\"")], "");
        assert_ne!(plan_a.layout_id, other_rule.layout_id, "customers are evaluated anew");
        assert_eq!(undescribed_id(&plan_a), undescribed_id(&other_rule));
        assert_eq!(plan_a.layout_id, plan(&[&format!("# why\n{stage}")], "").layout_id, "a comment");
        let catalogue = Catalogue::shipped();
        let model = Model::of_one_term("orders_90d", &catalogue);
        let files = [("l.toml".to_owned(), stage.clone())];
        let other_model = Plan::new(&catalogue, &files, &model, Settings::default()).unwrap();
        assert_eq!(plan_a.layout_id, other_model.layout_id, "another model");
        let nps = "[[feature]]\nname = \"nps\"\nsource = \"support\"\nagg = \"mean\"\nfield = \"nps\"\nwindows = [\"90d\"]\n";
        assert_ne!(plan_a.layout_id, plan(&[&stage], nps).layout_id, "another measure");
        assert_ne!(plan_a.layout_id, plan(&[], "").layout_id, "another lifecycle");
    }

    impl Model {
        /// The least model there is.
        pub(crate) fn of_one_term(feature: &str, catalogue: &Catalogue) -> Model {
            let layout = crate::pipeline::layout::Layout::new(catalogue, &mut Default::default()).unwrap();
            let hash = definition_hash(&crate::model::Definitions::definition(&layout, feature).unwrap());
            let report = serde_json::json!({
                "examples": 1, "churned": 1, "base_rate": 1.0, "mean_p": 0.5, "pr_auc": 0.5, "log_loss": 0.5,
                "roc_auc": { "value": 0.5, "low": 0.5, "high": 0.5 },
                "brier": 0.5, "ece": 0.5, "lift_10": 0.5, "capture_10": 0.5,
            });
            let then = "2026-01-01T00:00:00Z";
            let json = serde_json::json!({
                "schema": 1, "name": "least", "version": "1", "created": then, "label": "no_order",
                "horizon": "30d", "lead": "0", "active_within": "90d", "direction": "churn", "intercept": 0.0,
                "terms": [{ "feature": feature, "transform": "identity", "mean": 0.0, "deviation": 1.0, "weight": 1.0 }],
                "training": {
                    "examples": 1, "customers": 1, "base_rate": 0.5, "first_cut": then, "last_cut": then,
                    "held_back_from": then, "design": "none", "alpha": 1.0, "held_back": report,
                },
                "catalogue": { feature: hash },
                "golden": [{ "features": { feature: 0.0 }, "p_churn": 0.5 }],
            });
            Model::from_json(&json.to_string(), "least").unwrap()
        }
    }
}
