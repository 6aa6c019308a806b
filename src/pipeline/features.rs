//! Features: reading the values that the catalogue names from a customer's row, as of an instant.
//!
//! The one feature code for serving, replay and training.

use super::facts::{FeatureId, Line};
use super::layout::{Layout, NEVER, Orders, Read};
use super::lifecycle::SilentTime;
use super::panes::hour_of;
use super::windows;
use crate::event::MICROS;
use crate::model::value::{Buyer, Valuer};
use crate::time::{DAY_MS, Ts};

const DAY: f64 = DAY_MS as f64;

/// Reads the features of `ids` into `out` (one place per feature of the catalogue). The windows must be
/// advanced to `now`.
pub fn read_into(layout: &Layout, row: &[u32], now: Ts, margin: f64, ids: &[FeatureId], out: &mut [f64]) {
    for id in ids {
        out[id.index()] = read(layout, row, now, margin, layout.features[id.index()].read);
    }
}

#[inline]
fn read(layout: &Layout, row: &[u32], now: Ts, margin: f64, read: Read) -> f64 {
    match read {
        Read::Count(slot) => f64::from(slot.get(row)),
        Read::Sum(slot) => money(slot.get(row)),
        Read::Mean { sum, count } => match count.get(row) {
            0 => 0.0,
            n => money(sum.get(row)) / f64::from(n),
        },
        Read::Extreme(slot) => match slot.get(row) {
            i64::MIN | i64::MAX => 0.0,
            micros => money(micros),
        },
        Read::LastValue(value) => money(value.micros.get(row)),
        Read::LastInWindow(value, window) => {
            let ts = value.ts.get(row);
            let inside = ts != NEVER && layout.windows[usize::from(window)].holds(hour_of(ts), hour_of(now));
            if inside { money(value.micros.get(row)) } else { 0.0 }
        }
        Read::Net(slot) => slot.get(row).max(0) as f64,
        Read::Trend { last, both } => {
            let (last, both) = (f64::from(last.get(row)), f64::from(both.get(row)));
            (last - (both - last)) / (both + 1.0)
        }
        Read::DaysSince(_) => line(layout, row, read).map_or(f64::INFINITY, |line| line.at(now)),
        Read::Tenure(_) | Read::OverdueRatio(_) | Read::Overdue(..) | Read::RfmAge(_) => {
            line(layout, row, read).map_or(0.0, |line| line.at(now))
        }
        Read::OrderGap(index) => {
            gap_ms(&layout.orders[usize::from(index)], row).map_or(f64::INFINITY, |ms| ms / DAY)
        }
        Read::RfmFrequency(index) => f64::from(repeat_days(&layout.orders[usize::from(index)], row)),
        Read::RfmRecency(index) => {
            let orders = &layout.orders[usize::from(index)];
            let (first, last) = (orders.first.get(row), orders.last.get(row));
            if first == NEVER { 0.0 } else { (last - first) as f64 / DAY }
        }
        Read::RfmMonetary(index) => {
            let orders = &layout.orders[usize::from(index)];
            match repeat_days(orders, row) {
                0 => 0.0,
                n => money(orders.revenue.get(row).saturating_sub(orders.first_day.get(row))) / f64::from(n),
            }
        }
        Read::Clv { revenue, refunded } => money(revenue.get(row).saturating_sub(refunded.get(row))) * margin,
        Read::PNoOrder => {
            foretold(layout, row, now).map_or(f64::INFINITY, |(valuer, buyer)| valuer.p_no_order_of(&buyer))
        }
        Read::Clv365d => foretold(layout, row, now)
            .and_then(|(valuer, buyer)| valuer.clv_365d_of(&buyer, margin))
            .unwrap_or(0.0),
    }
}

/// What foretells, and the customer as it sees it; `None` for who never ordered, and before a model foretells.
fn foretold<'a>(layout: &'a Layout, row: &[u32], now: Ts) -> Option<(&'a Valuer, Buyer)> {
    let valuer = layout.valuer.as_ref()?;
    // None of these is money that stays, so the margin says nothing about them.
    let values = valuer.features().map(|id| read(layout, row, now, 1.0, layout.features[id.index()].read));
    Buyer::read(values).map(|buyer| (valuer, buyer))
}

fn money(micros: i64) -> f64 {
    micros as f64 / MICROS
}

fn repeat_days(orders: &Orders, row: &[u32]) -> u32 {
    orders.days.get(row).saturating_sub(1)
}

/// Mean time between orders; `None` below two.
fn gap_ms(orders: &Orders, row: &[u32]) -> Option<f64> {
    let count = orders.count.get(row);
    // Of orders counted under another catalogue the instants may not be known.
    (count >= 2 && orders.first.get(row) != NEVER)
        .then(|| (orders.last.get(row) - orders.first.get(row)) as f64 / f64::from(count - 1))
}

/// The line along which a linear feature grows, while it does.
fn line(layout: &Layout, row: &[u32], read: Read) -> Option<Line> {
    let days_since = |ts: Ts| (ts != NEVER).then_some(Line { zero: ts, scale: DAY });
    match read {
        Read::DaysSince(slot) | Read::Tenure(slot) => days_since(slot.get(row)),
        Read::RfmAge(index) => days_since(layout.orders[usize::from(index)].first.get(row)),
        Read::OverdueRatio(index) => {
            let orders = &layout.orders[usize::from(index)];
            // Orders all at one instant have no rhythm that could be overdue.
            let scale = gap_ms(orders, row).filter(|gap| *gap > 0.0)?;
            Some(Line { zero: orders.last.get(row), scale })
        }
        Read::Overdue(active, days) => {
            active.gap(row, days).map(|gap| Line { zero: active.last.get(row), scale: gap * DAY })
        }
        _ => None,
    }
}

/// A customer's row as the lifecycles see it when they look ahead.
pub struct Silence<'a> {
    pub layout: &'a Layout,
    pub row: &'a [u32],
    pub log: &'a [u8],
}

impl SilentTime for Silence<'_> {
    fn line(&self, id: FeatureId) -> Option<Line> {
        line(self.layout, self.row, self.layout.features[id.index()].read)
    }

    fn window_change(&self, id: FeatureId) -> Option<Ts> {
        let feature = &self.layout.features[id.index()];
        if let Read::LastInWindow(value, window) = feature.read {
            return windows::leaves_at(&self.layout.windows[usize::from(window)], value.ts.get(self.row));
        }
        let changes = feature.windows.iter();
        changes.filter_map(|w| windows::next_change(self.layout, self.row, self.log, *w, feature.panes)).min()
    }
}
