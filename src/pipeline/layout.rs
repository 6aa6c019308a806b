//! What the catalogue means in memory: which slots exist, which of them an event touches, and how a feature is
//! read from them.
//!
//! Declarations that need the same measure (the number of orders, say) share it. One event touches only the
//! slots of its own source and type, found by one look-up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::active_days::ActiveDays;
use super::catalogue::{Agg, Catalogue, DAY_HOP_FROM_MS, Declaration, Matcher, Span};
use super::facts::{FeatureId, FeatureNames, Motion};
use super::panes::Hour;
use super::words::{RowBuilder, Slot};
use crate::error::Error;
use crate::event::{Field, Source};
use crate::model::value::Valuer;
use crate::time::{DAY_MS, HOUR_MS, Ts};

/// An instant that never was.
pub const NEVER: Ts = i64::MIN;
/// Measures kept in panes; a pane says by one bit each which it holds.
pub const MAX_PANE_SLOTS: usize = 128;
/// The hop of long windows.
pub const DAY_HOP_HOURS: u32 = 24;

/// A window by the sawtooth rule: `hops` whole hops and the open one at the head.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub ms: i64,
    /// 1 or 24.
    pub hop_hours: u32,
    pub hops: u32,
    /// Byte offset of the oldest pane inside the window, and the hour that pane starts at.
    pub cursor: Slot<u32>,
    pub cursor_hour: Slot<u32>,
}

/// How two values of one measure become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    Add,
    Min,
    Max,
}

/// The value of a measure over one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Total {
    Count(Slot<u32>),
    Sum(Slot<i64>),
    /// `i64::MAX` when the window is empty.
    Min(Slot<i64>),
    /// `i64::MIN` when the window is empty.
    Max(Slot<i64>),
}

/// A measure kept in panes.
#[derive(Clone, Debug)]
pub struct PaneSlot {
    pub name: String,
    pub combine: Combine,
    pub totals: Vec<(u8, Total)>,
    /// Distinct days on which the measure is present, per window.
    pub days: Vec<(u8, Slot<u32>)>,
    /// The newest day on which the measure is present (days since year 0, 0 for none).
    pub last_day: Option<Slot<u32>>,
}

/// What one event does to its customer's slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Touch {
    /// Before all others: it compares with the first and last order so far.
    Order(u8),
    /// Before all others: it compares with the last instant so far.
    ActiveDay(ActiveDays),
    Pane(u8),
    PaneField(u8, Field),
    PanePresence(u8, Field),
    Count(Slot<u32>),
    CountPresence(Slot<u32>, Field),
    Sum(Slot<i64>, Field),
    Min(Slot<i64>, Field),
    Max(Slot<i64>, Field),
    First(Slot<i64>),
    Last(Slot<i64>),
    LastValue(LastValue, Field),
    Net(Slot<i64>, i8),
    Session,
}

/// The value of the newest event that carried a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastValue {
    pub ts: Slot<i64>,
    pub micros: Slot<i64>,
}

/// What the statistics of recency, frequency and monetary value need (Fader, Hardie, Lee 2005).
#[derive(Clone, Debug)]
pub struct Orders {
    pub first: Slot<i64>,
    pub last: Slot<i64>,
    pub count: Slot<u32>,
    pub revenue: Slot<i64>,
    /// Distinct UTC days with an order.
    pub days: Slot<u32>,
    /// Revenue of the first of these days.
    pub first_day: Slot<i64>,
}

/// Sessions of the clickstream: the newest one in the row, older ones packed beside it.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    pub start: Slot<i64>,
    pub end: Slot<i64>,
    /// End of the newest packed session; follows from the list.
    pub packed_end: Slot<i64>,
    pub pane: Option<u8>,
    pub lifetime: Option<Slot<u32>>,
    /// The longest window that counts sessions, in milliseconds.
    pub longest_ms: i64,
}

/// How a feature is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read {
    Count(Slot<u32>),
    Sum(Slot<i64>),
    Mean {
        sum: Slot<i64>,
        count: Slot<u32>,
    },
    /// `i64::MAX` or `i64::MIN` stand for none.
    Extreme(Slot<i64>),
    LastValue(LastValue),
    /// The newest value, when it lies inside the window of this index.
    LastInWindow(LastValue, u8),
    DaysSince(Slot<i64>),
    Net(Slot<i64>),
    Tenure(Slot<i64>),
    OrderGap(u8),
    OverdueRatio(u8),
    /// By active days, of which so many days up to the last one are looked at.
    Overdue(ActiveDays, u32),
    Trend {
        last: Slot<u32>,
        both: Slot<u32>,
    },
    RfmFrequency(u8),
    RfmRecency(u8),
    RfmAge(u8),
    RfmMonetary(u8),
    Clv {
        revenue: Slot<i64>,
        refunded: Slot<i64>,
    },
    /// Of [`Layout::valuer`]: +inf where it has nothing to tell of a customer.
    PNoOrder,
    /// Of [`Layout::valuer`]: 0 where it has nothing to tell of a customer.
    Clv365d,
}

/// One feature, spelled out.
#[derive(Clone, Debug)]
pub struct Feature {
    pub name: String,
    pub definition: String,
    /// What was declared: the aggregation and its field.
    pub kind: (Agg, Option<Field>),
    pub read: Read,
    pub motion: Motion,
    /// The windows whose advance can change it.
    pub windows: Vec<u8>,
    /// The pane measures it reads, as bits.
    pub panes: u128,
}

/// A persistent slot, by a name that stays the same when the catalogue around it changes.
#[derive(Clone, Debug)]
pub struct Kept {
    pub name: String,
    pub slot: KeptSlot,
}

#[derive(Clone, Copy, Debug)]
pub enum KeptSlot {
    Count(Slot<u32>),
    Number(Slot<i64>),
    Instant(Slot<i64>),
    Float(Slot<f64>),
}

/// The touches of one source's events, by type.
#[derive(Clone, Debug, Default)]
struct Route {
    by_type: HashMap<Box<str>, Box<[Touch]>, foldhash::fast::FixedState>,
    /// For types that no declaration names.
    other: Box<[Touch]>,
}

/// The memory layout that belongs to one catalogue.
#[derive(Clone, Debug)]
pub struct Layout {
    pub windows: Vec<Window>,
    pub panes: Vec<PaneSlot>,
    pub features: Vec<Feature>,
    pub orders: Vec<Orders>,
    pub sessions: Option<Sessions>,
    /// Byte offset of the newest pane in the log, and the hour it starts at.
    pub tail: Slot<u32>,
    pub tail_hour: Slot<u32>,
    /// The first hour in which a pane leaves a window.
    pub leaving_hour: Slot<u32>,
    pub kept: Vec<Kept>,
    /// What the model foretells of a customer's orders; set once there is a model that does.
    pub valuer: Option<Valuer>,
    /// Every way in which an event touches a slot, once.
    pub touches: Vec<Touch>,
    routes: [Route; 4],
    ids: HashMap<String, FeatureId, foldhash::fast::FixedState>,
}

impl Layout {
    /// Lays the catalogue out into `row`, behind whatever the row already holds.
    pub fn new(catalogue: &Catalogue, row: &mut RowBuilder) -> Result<Layout, Error> {
        let mut builder = Builder::new(catalogue, row);
        for declaration in &catalogue.declarations {
            builder.declare(declaration);
        }
        builder.finish()
    }

    /// What an event of this source and type touches.
    pub fn touches(&self, source: Source, name: &str) -> &[Touch] {
        let route = &self.routes[source.index()];
        route.by_type.get(name).unwrap_or(&route.other)
    }

    /// The spelled-out feature.
    pub fn feature(&self, id: FeatureId) -> &Feature {
        &self.features[id.index()]
    }
}

impl FeatureNames for Layout {
    fn id(&self, name: &str) -> Option<FeatureId> {
        self.ids.get(name).copied()
    }

    fn names(&self) -> Vec<&str> {
        self.features.iter().map(|f| f.name.as_str()).collect()
    }

    fn motion(&self, id: FeatureId) -> Motion {
        self.features[id.index()].motion
    }
}

/// What an event does to a pane measure, given the measure and its field.
type MakeTouch = fn(u8, Field) -> Touch;

/// Builds a layout; every `fn` that names a measure returns the one that is there already, if one is.
struct Builder<'a> {
    row: &'a mut RowBuilder,
    windows: Vec<Window>,
    panes: Vec<PaneSlot>,
    features: Vec<Feature>,
    orders: Vec<(Matcher, Orders)>,
    sessions: Option<Sessions>,
    tail: Slot<u32>,
    tail_hour: Slot<u32>,
    leaving_hour: Slot<u32>,
    kept: Vec<Kept>,
    known: BTreeMap<String, KeptSlot>,
    totals: BTreeMap<(u8, i64), Total>,
    touches: Vec<(Matcher, Touch)>,
}

impl<'a> Builder<'a> {
    fn new(catalogue: &Catalogue, row: &'a mut RowBuilder) -> Self {
        let lengths: BTreeSet<i64> =
            catalogue.declarations.iter().flat_map(Declaration::window_lengths).collect();
        let windows = lengths
            .into_iter()
            .map(|ms| {
                let hop_hours = if ms >= DAY_HOP_FROM_MS { DAY_HOP_HOURS } else { 1 };
                let hops = (ms / HOUR_MS) as u32 / hop_hours;
                Window { ms, hop_hours, hops, cursor: row.slot(0u32), cursor_hour: row.slot(0u32) }
            })
            .collect();
        let (tail, tail_hour, leaving_hour) = (row.slot(0u32), row.slot(0u32), row.slot(Hour::MAX));
        Builder {
            row,
            windows,
            panes: Vec::new(),
            features: Vec::new(),
            orders: Vec::new(),
            sessions: None,
            tail,
            tail_hour,
            leaving_hour,
            kept: Vec::new(),
            known: BTreeMap::new(),
            totals: BTreeMap::new(),
            touches: Vec::new(),
        }
    }

    fn declare(&mut self, declaration: &Declaration) {
        for (name, span) in declaration.features() {
            let (read, panes) = self.read(declaration, span);
            let (motion, windows) = self.motion(declaration.agg, span);
            let definition = declaration.definition(span);
            let kind = (declaration.agg, declaration.field);
            self.features.push(Feature { name, definition, kind, read, motion, windows, panes });
        }
    }

    fn motion(&self, agg: Agg, span: Span) -> (Motion, Vec<u8>) {
        match (agg, span) {
            (Agg::DaysSince | Agg::Tenure | Agg::OverdueRatio | Agg::Overdue | Agg::RfmAge, _) => {
                (Motion::Linear, Vec::new())
            }
            (Agg::Trend, Span::Last(ms)) => (Motion::Windowed, vec![self.window(ms), self.window(2 * ms)]),
            (_, Span::Last(ms)) => (Motion::Windowed, vec![self.window(ms)]),
            (_, Span::Lifetime) => (Motion::Still, Vec::new()),
        }
    }

    /// How the feature is read, and the pane measures it reads.
    fn read(&mut self, d: &Declaration, span: Span) -> (Read, u128) {
        let matcher = &d.matcher;
        let field = d.field.unwrap_or(Field::Amount);
        match (d.agg, span) {
            (Agg::Count, Span::Last(ms)) => {
                let pane = self.pane_count(matcher);
                (self.read_total(pane, ms), 1 << pane)
            }
            (Agg::Count, Span::Lifetime) => (Read::Count(self.count(matcher)), 0),
            (Agg::Sum, Span::Last(ms)) => {
                let pane = self.pane_field(matcher, field, Combine::Add);
                (self.read_total(pane, ms), 1 << pane)
            }
            (Agg::Sum, Span::Lifetime) => (Read::Sum(self.sum(matcher, field)), 0),
            (Agg::Mean, Span::Last(ms)) => self.mean_in_window(matcher, field, ms),
            (Agg::Mean, Span::Lifetime) => {
                let (sum, count) = (self.sum(matcher, field), self.presence(matcher, field));
                (Read::Mean { sum, count }, 0)
            }
            (Agg::Min, Span::Last(ms)) => {
                let pane = self.pane_field(matcher, field, Combine::Min);
                (self.read_total(pane, ms), 1 << pane)
            }
            (Agg::Max, Span::Last(ms)) => {
                let pane = self.pane_field(matcher, field, Combine::Max);
                (self.read_total(pane, ms), 1 << pane)
            }
            (Agg::Min, Span::Lifetime) => {
                let slot = self.number(&format!("min {} of {}", field.name(), key(matcher)), i64::MAX);
                self.touch(matcher, Touch::Min(slot, field));
                (Read::Extreme(slot), 0)
            }
            (Agg::Max, Span::Lifetime) => {
                let slot = self.number(&format!("max {} of {}", field.name(), key(matcher)), i64::MIN);
                self.touch(matcher, Touch::Max(slot, field));
                (Read::Extreme(slot), 0)
            }
            (Agg::Last, Span::Last(ms)) => {
                (Read::LastInWindow(self.last_value(matcher, field), self.window(ms)), 0)
            }
            (Agg::Last, Span::Lifetime) => (Read::LastValue(self.last_value(matcher, field)), 0),
            (Agg::DistinctDays, Span::Last(ms)) => {
                let pane = self.pane_count(matcher);
                (Read::Count(self.days(pane, ms)), 1 << pane)
            }
            (Agg::Overdue, Span::Last(ms)) => {
                (Read::Overdue(self.active_days(matcher), (ms / DAY_MS) as u32), 0)
            }
            (Agg::Sessions, span) => self.read_sessions(span),
            (Agg::Trend, Span::Last(ms)) => {
                let pane = self.pane_count(matcher);
                let (last, both) = (self.total_count(pane, ms), self.total_count(pane, 2 * ms));
                (Read::Trend { last, both }, 1 << pane)
            }
            (Agg::DaysSince, _) => (Read::DaysSince(self.last(matcher)), 0),
            (Agg::Tenure, _) => (Read::Tenure(self.first(matcher)), 0),
            (Agg::Open, _) => (Read::Net(self.net()), 0),
            (Agg::OrderGap, _) => (Read::OrderGap(self.orders(matcher)), 0),
            (Agg::OverdueRatio, _) => (Read::OverdueRatio(self.orders(matcher)), 0),
            (Agg::RfmFrequency, _) => (Read::RfmFrequency(self.orders(matcher)), 0),
            (Agg::RfmRecency, _) => (Read::RfmRecency(self.orders(matcher)), 0),
            (Agg::RfmAge, _) => (Read::RfmAge(self.orders(matcher)), 0),
            (Agg::RfmMonetary, _) => (Read::RfmMonetary(self.orders(matcher)), 0),
            (Agg::ClvToDate, _) => {
                let revenue = self.sum(&of_type(Source::Purchase, "order_completed"), Field::Amount);
                let refunded = self.sum(&of_type(Source::Purchase, "order_refunded"), Field::Amount);
                (Read::Clv { revenue, refunded }, 0)
            }
            (Agg::PNoOrder, _) => (Read::PNoOrder, 0),
            (Agg::Clv365d, _) => (Read::Clv365d, 0),
            // The catalogue allows no lifetime window for these.
            (Agg::DistinctDays | Agg::Overdue | Agg::Trend, Span::Lifetime) => {
                (Read::Count(self.count(matcher)), 0)
            }
        }
    }

    fn mean_in_window(&mut self, matcher: &Matcher, field: Field, ms: i64) -> (Read, u128) {
        let sum = self.pane_field(matcher, field, Combine::Add);
        let count = self.pane_presence(matcher, field);
        let panes = 1 << sum | 1 << count;
        match (self.total(sum, ms), self.total_count(count, ms)) {
            (Total::Sum(sum), count) => (Read::Mean { sum, count }, panes),
            (_, count) => (Read::Count(count), panes),
        }
    }

    fn read_sessions(&mut self, span: Span) -> (Read, u128) {
        let matcher = Matcher { sources: vec![Source::Clickstream], types: None };
        if self.sessions.is_none() {
            let start = self.instant("session start");
            let end = self.instant("session end");
            let packed_end = self.row.slot(NEVER);
            self.sessions =
                Some(Sessions { start, end, packed_end, pane: None, lifetime: None, longest_ms: 0 });
            self.touch(&matcher, Touch::Session);
        }
        match span {
            Span::Last(ms) => {
                let pane = self.pane("sessions".into(), Combine::Add, None);
                if let Some(sessions) = &mut self.sessions {
                    sessions.pane = Some(pane);
                    sessions.longest_ms = sessions.longest_ms.max(ms);
                }
                (self.read_total(pane, ms), 1 << pane)
            }
            Span::Lifetime => {
                let slot = self.kept_count("sessions");
                if let Some(sessions) = &mut self.sessions {
                    sessions.lifetime = Some(slot);
                }
                (Read::Count(slot), 0)
            }
        }
    }

    fn read_total(&mut self, pane: u8, ms: i64) -> Read {
        match self.total(pane, ms) {
            Total::Count(slot) => Read::Count(slot),
            Total::Sum(slot) => Read::Sum(slot),
            Total::Min(slot) | Total::Max(slot) => Read::Extreme(slot),
        }
    }

    fn window(&self, ms: i64) -> u8 {
        self.windows.iter().position(|w| w.ms == ms).unwrap_or(0) as u8
    }

    fn touch(&mut self, matcher: &Matcher, touch: Touch) {
        if !self.touches.iter().any(|(m, t)| m == matcher && *t == touch) {
            self.touches.push((matcher.clone(), touch));
        }
    }

    fn pane(&mut self, name: String, combine: Combine, touch: Option<(&Matcher, MakeTouch, Field)>) -> u8 {
        if let Some(known) = self.panes.iter().position(|p| p.name == name) {
            return known as u8;
        }
        let pane = self.panes.len().min(255) as u8;
        self.panes.push(PaneSlot { name, combine, totals: Vec::new(), days: Vec::new(), last_day: None });
        if let Some((matcher, make, field)) = touch {
            self.touch(matcher, make(pane, field));
        }
        pane
    }

    fn pane_count(&mut self, matcher: &Matcher) -> u8 {
        let touch = (matcher, (|pane, _| Touch::Pane(pane)) as MakeTouch, Field::Amount);
        self.pane(format!("count of {}", key(matcher)), Combine::Add, Some(touch))
    }

    fn pane_presence(&mut self, matcher: &Matcher, field: Field) -> u8 {
        let name = format!("count {} of {}", field.name(), key(matcher));
        self.pane(name, Combine::Add, Some((matcher, Touch::PanePresence, field)))
    }

    fn pane_field(&mut self, matcher: &Matcher, field: Field, combine: Combine) -> u8 {
        let word = match combine {
            Combine::Add => "sum",
            Combine::Min => "min",
            Combine::Max => "max",
        };
        let name = format!("{word} {} of {}", field.name(), key(matcher));
        self.pane(name, combine, Some((matcher, Touch::PaneField, field)))
    }

    fn total(&mut self, pane: u8, ms: i64) -> Total {
        if let Some(total) = self.totals.get(&(pane, ms)) {
            return *total;
        }
        let slot = &self.panes[usize::from(pane)];
        let total = match slot.combine {
            Combine::Add if slot.name.starts_with("sum ") => Total::Sum(self.row.slot(0i64)),
            Combine::Add => Total::Count(self.row.slot(0u32)),
            Combine::Min => Total::Min(self.row.slot(i64::MAX)),
            Combine::Max => Total::Max(self.row.slot(i64::MIN)),
        };
        let window = self.window(ms);
        self.panes[usize::from(pane)].totals.push((window, total));
        self.totals.insert((pane, ms), total);
        total
    }

    fn total_count(&mut self, pane: u8, ms: i64) -> Slot<u32> {
        match self.total(pane, ms) {
            Total::Count(slot) => slot,
            Total::Sum(_) | Total::Min(_) | Total::Max(_) => self.row.slot(0u32),
        }
    }

    fn days(&mut self, pane: u8, ms: i64) -> Slot<u32> {
        let window = self.window(ms);
        let index = usize::from(pane);
        if let Some((_, slot)) = self.panes[index].days.iter().find(|(w, _)| *w == window) {
            return *slot;
        }
        let slot = self.row.slot(0u32);
        if self.panes[index].last_day.is_none() {
            self.panes[index].last_day = Some(self.row.slot(0u32));
        }
        self.panes[index].days.push((window, slot));
        slot
    }

    fn kept_count(&mut self, name: &str) -> Slot<u32> {
        if let Some(KeptSlot::Count(slot)) = self.known.get(name) {
            return *slot;
        }
        let slot = self.row.slot(0u32);
        self.keep(name, KeptSlot::Count(slot));
        slot
    }

    fn number(&mut self, name: &str, initial: i64) -> Slot<i64> {
        if let Some(KeptSlot::Number(slot)) = self.known.get(name) {
            return *slot;
        }
        let slot = self.row.slot(initial);
        self.keep(name, KeptSlot::Number(slot));
        slot
    }

    fn instant(&mut self, name: &str) -> Slot<i64> {
        if let Some(KeptSlot::Instant(slot)) = self.known.get(name) {
            return *slot;
        }
        let slot = self.row.slot(NEVER);
        self.keep(name, KeptSlot::Instant(slot));
        slot
    }

    fn keep(&mut self, name: &str, slot: KeptSlot) {
        self.known.insert(name.to_owned(), slot);
        self.kept.push(Kept { name: name.to_owned(), slot });
    }

    fn count(&mut self, matcher: &Matcher) -> Slot<u32> {
        let slot = self.kept_count(&format!("count of {}", key(matcher)));
        self.touch(matcher, Touch::Count(slot));
        slot
    }

    fn presence(&mut self, matcher: &Matcher, field: Field) -> Slot<u32> {
        let slot = self.kept_count(&format!("count {} of {}", field.name(), key(matcher)));
        self.touch(matcher, Touch::CountPresence(slot, field));
        slot
    }

    fn sum(&mut self, matcher: &Matcher, field: Field) -> Slot<i64> {
        let slot = self.number(&format!("sum {} of {}", field.name(), key(matcher)), 0);
        self.touch(matcher, Touch::Sum(slot, field));
        slot
    }

    fn first(&mut self, matcher: &Matcher) -> Slot<i64> {
        let slot = self.instant(&format!("first of {}", key(matcher)));
        self.touch(matcher, Touch::First(slot));
        slot
    }

    fn last(&mut self, matcher: &Matcher) -> Slot<i64> {
        let slot = self.instant(&format!("last of {}", key(matcher)));
        self.touch(matcher, Touch::Last(slot));
        slot
    }

    fn active_days(&mut self, matcher: &Matcher) -> ActiveDays {
        let bits = self.number(&format!("active days of {}", key(matcher)), 0);
        let active = ActiveDays { bits, last: self.last(matcher) };
        self.touch(matcher, Touch::ActiveDay(active));
        active
    }

    fn last_value(&mut self, matcher: &Matcher, field: Field) -> LastValue {
        let name = format!("last {} of {}", field.name(), key(matcher));
        let value = LastValue { ts: self.instant(&format!("{name} at")), micros: self.number(&name, 0) };
        self.touch(matcher, Touch::LastValue(value, field));
        value
    }

    fn net(&mut self) -> Slot<i64> {
        let slot = self.number("open tickets", 0);
        for (name, delta) in [("ticket_opened", 1), ("ticket_reopened", 1), ("ticket_solved", -1)] {
            self.touch(&of_type(Source::Support, name), Touch::Net(slot, delta));
        }
        slot
    }

    fn orders(&mut self, matcher: &Matcher) -> u8 {
        if let Some(known) = self.orders.iter().position(|(m, _)| m == matcher) {
            return known as u8;
        }
        let index = self.orders.len().min(255) as u8;
        // The touch comes first, so that it sees the first and last order before this one.
        self.touch(matcher, Touch::Order(index));
        let orders = Orders {
            first: self.first(matcher),
            last: self.last(matcher),
            count: self.count(matcher),
            revenue: self.sum(matcher, Field::Amount),
            days: self.kept_count(&format!("days of {}", key(matcher))),
            first_day: self.number(&format!("first day of {}", key(matcher)), 0),
        };
        self.orders.push((matcher.clone(), orders));
        index
    }

    fn finish(mut self) -> Result<Layout, Error> {
        if self.panes.len() > MAX_PANE_SLOTS {
            let what = format!(
                "the feature catalogue needs {} measures in windows; at most {MAX_PANE_SLOTS}",
                self.panes.len()
            );
            return Err(Error::user(what).hint("declare fewer windowed features"));
        }
        // Orders and active days before the first and last instants they compare with.
        self.touches.sort_by_key(|(_, touch)| !matches!(touch, Touch::Order(_) | Touch::ActiveDay(_)));
        let routes = Source::ALL.map(|source| route(source, &self.touches));
        let ids =
            self.features.iter().enumerate().map(|(i, f)| (f.name.clone(), FeatureId(i as u16))).collect();
        Ok(Layout {
            windows: self.windows,
            panes: self.panes,
            features: self.features,
            orders: self.orders.into_iter().map(|(_, orders)| orders).collect(),
            sessions: self.sessions,
            tail: self.tail,
            tail_hour: self.tail_hour,
            leaving_hour: self.leaving_hour,
            kept: self.kept,
            touches: unique(&self.touches),
            valuer: None,
            routes,
            ids,
        })
    }
}

fn unique(touches: &[(Matcher, Touch)]) -> Vec<Touch> {
    let mut unique: Vec<Touch> = Vec::new();
    for (_, touch) in touches {
        if !unique.contains(touch) {
            unique.push(*touch);
        }
    }
    unique
}

fn route(source: Source, touches: &[(Matcher, Touch)]) -> Route {
    let of_source: Vec<_> = touches.iter().filter(|(m, _)| m.sources.contains(&source)).collect();
    let select = |name: Option<&str>| -> Box<[Touch]> {
        let matches = |m: &Matcher| match (&m.types, name) {
            (None, _) => true,
            (Some(types), Some(name)) => types.iter().any(|t| t == name),
            (Some(_), None) => false,
        };
        of_source.iter().filter(|(m, _)| matches(m)).map(|(_, touch)| *touch).collect()
    };
    let named: BTreeSet<&String> = of_source.iter().filter_map(|(m, _)| m.types.as_ref()).flatten().collect();
    let by_type = named.into_iter().map(|name| (name.as_str().into(), select(Some(name)))).collect();
    Route { by_type, other: select(None) }
}

fn of_type(source: Source, name: &str) -> Matcher {
    Matcher { sources: vec![source], types: Some(vec![name.to_owned()]) }
}

fn key(matcher: &Matcher) -> String {
    let sources: Vec<_> = matcher.sources.iter().map(|s| s.name()).collect();
    match &matcher.types {
        None => sources.join("+"),
        Some(types) => format!("{}:{}", sources.join("+"), types.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> (Layout, usize) {
        let mut row = RowBuilder::default();
        let layout = Layout::new(&Catalogue::shipped(), &mut row).unwrap();
        (layout, row.finish().len())
    }

    #[test]
    fn one_event_touches_only_its_own_slots() {
        let (layout, _) = shipped();
        let page = layout.touches(Source::Clickstream, "page_viewed").len();
        let product = layout.touches(Source::Clickstream, "product_viewed").len();
        assert!(page < product && product < 14, "{page} {product}");
        assert_eq!(layout.touches(Source::Profile, "traits_updated"), &[]);
        assert_eq!(layout.touches(Source::Clickstream, "never_heard_of").len(), page);
    }

    #[test]
    fn days_up_to_the_last_active_one_need_no_window_that_advances() {
        let text =
            "default = false\n[[feature]]\nname = \"o\"\nagg = \"overdue\"\nwindows = [\"30d\", \"60d\"]\n";
        let layout =
            Layout::new(&Catalogue::load("f.toml", text).unwrap(), &mut RowBuilder::default()).unwrap();
        assert!(layout.windows.is_empty() && layout.panes.is_empty());
        let first = layout.touches(Source::Support, "ticket_opened")[0];
        assert!(matches!(first, Touch::ActiveDay(_)), "before the last instant is set: {first:?}");
        assert_eq!(
            layout.touches(Source::Support, "ticket_opened").len(),
            2,
            "the two spans share their days"
        );
    }

    #[test]
    fn the_shipped_layout_stays_small() {
        let (layout, words) = shipped();
        assert!(layout.panes.len() <= 32, "{} pane measures", layout.panes.len());
        assert!(words * 4 <= 480, "{} bytes", words * 4);
    }
}
