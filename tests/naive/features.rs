//! Every feature of the default catalogue as of an instant, counted afresh from all events. Section 2.
//!
//! A feature is a pure function of the events, the instant and the money table; nothing is remembered.

use std::collections::{BTreeMap, BTreeSet};

use stagecast::time::{DAY_MS, HOUR_MS, MINUTE_MS, Ts, parse_span};

use super::event::{Ev, Kind, Money, micros};

/// The catalogue: names, and the windows each is computed over (none: a value as of now).
#[rustfmt::skip]
pub const CATALOGUE: &[(&str, &[&str])] = &[
    ("events", &["7d", "30d", "90d", "lifetime"]),
    ("clicks", &["1d", "7d", "30d", "90d", "lifetime"]),
    ("sessions", &["7d", "30d", "90d"]),
    ("active_days", &["7d", "30d", "90d"]),
    ("activity_overdue", &["60d"]),
    ("product_views", &["7d", "30d"]),
    ("cart_adds", &["7d", "30d"]),
    ("searches", &["30d"]),
    ("checkouts", &["30d"]),
    ("emails_opened", &["30d"]),
    ("shares", &["90d", "lifetime"]),
    ("orders", &["7d", "30d", "90d", "lifetime"]),
    ("revenue", &["30d", "90d", "lifetime"]),
    ("refunds", &["30d", "90d"]),
    ("order_value", &["lifetime"]),
    ("tickets", &["7d", "30d", "90d"]),
    ("open_tickets", &[]),
    ("sentiment", &["90d"]),
    ("csat", &["90d"]),
    ("days_since_event", &[]),
    ("days_since_click", &[]),
    ("days_since_order", &[]),
    ("days_since_ticket", &[]),
    ("days_since_subscription_started", &[]),
    ("days_since_subscription_cancelled", &[]),
    ("tenure_days", &[]),
    ("order_gap_days", &[]),
    ("overdue_ratio", &[]),
    ("clicks_trend", &["14d"]),
    ("orders_trend", &["14d"]),
    ("rfm_frequency", &[]),
    ("rfm_recency_days", &[]),
    ("rfm_age_days", &[]),
    ("rfm_monetary", &[]),
    ("clv_to_date", &[]),
];

/// `events_7d`, `open_tickets`, …: every name of the catalogue.
pub fn names() -> Vec<String> {
    let expand = |(name, windows): &(&str, &[&str])| match windows {
        [] => vec![(*name).to_owned()],
        windows => windows.iter().map(|w| format!("{name}_{w}")).collect(),
    };
    CATALOGUE.iter().flat_map(expand).collect()
}

/// Every feature of the catalogue as of `t`.
pub fn features(events: &[Ev], t: Ts, money: &Money) -> BTreeMap<String, f64> {
    let view = View { events, at: t, money };
    names().into_iter().map(|name| (name.clone(), view.get(&name))).collect()
}

/// A window's length in milliseconds; `None` is the lifetime.
pub type Window = Option<i64>;

/// The hop by which the tail of a window advances.
fn hop(window: i64) -> i64 {
    if window < 12 * DAY_MS { HOUR_MS } else { DAY_MS }
}

/// The sawtooth rule: whether an event at `ts` counts in the window as of `at`.
pub fn in_window(ts: Ts, at: Ts, window: Window) -> bool {
    match window {
        _ if ts > at => false,
        None => true,
        Some(w) => ts.div_euclid(hop(w)) > at.div_euclid(hop(w)) - w / hop(w),
    }
}

/// The first instant at which an event at `ts` no longer counts in a window: the rule solved for `at`.
pub fn leaves_window(ts: Ts, window: i64) -> Ts {
    (ts.div_euclid(hop(window)) + window / hop(window)) * hop(window)
}

/// The window at the end of a feature's name, if there is one.
pub fn window_of(name: &str) -> Option<(&str, Window)> {
    let (base, window) = name.rsplit_once('_')?;
    match window {
        "lifetime" => Some((base, None)),
        span => Some((base, Some(parse_span(span).ok()?))),
    }
}

/// The lengths of the windows that a feature looks through.
pub fn windows_of(name: &str) -> Vec<i64> {
    match window_of(name) {
        Some((base, Some(w))) if base.ends_with("_trend") => vec![w, 2 * w],
        Some((_, Some(w))) => vec![w],
        _ => vec![],
    }
}

/// One customer's events so far, seen from one instant.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub events: &'a [Ev],
    pub at: Ts,
    pub money: &'a Money,
}

impl View<'_> {
    /// The value of a feature by its full name.
    pub fn get(&self, name: &str) -> f64 {
        self.now(name)
            .or_else(|| window_of(name).and_then(|(base, window)| self.windowed(base, window)))
            .unwrap_or_else(|| panic!("`{name}` is no feature of the catalogue that this model computes"))
    }

    fn windowed(&self, base: &str, w: Window) -> Option<f64> {
        Some(match base {
            "events" => self.count(w, Ev::is_activity),
            "clicks" => self.count(w, is_click),
            "sessions" => self.sessions(w),
            "active_days" => self.active_days(w),
            "product_views" => self.count(w, |e| e.is(Kind::Clickstream, "product_viewed")),
            "cart_adds" => self.count(w, |e| e.is(Kind::Clickstream, "product_added")),
            "searches" => self.count(w, |e| e.is(Kind::Clickstream, "products_searched")),
            "checkouts" => self.count(w, |e| e.is(Kind::Clickstream, "checkout_started")),
            "emails_opened" => self.count(w, |e| e.is(Kind::Clickstream, "email_opened")),
            "shares" => self.count(w, is_share),
            "orders" => self.count(w, is_order),
            "revenue" => self.money_of(w, is_order),
            "refunds" => self.count(w, is_refund),
            "order_value" => ratio_or_zero(self.money_of(w, is_order), self.count(w, is_order)),
            "tickets" => self.count(w, is_ticket),
            "sentiment" => self.support_mean(w, |e| e.sentiment),
            "csat" => self.support_mean(w, |e| e.csat),
            "clicks_trend" => self.trend(w?, is_click),
            "orders_trend" => self.trend(w?, is_order),
            _ => return None,
        })
    }

    fn now(&self, name: &str) -> Option<f64> {
        Some(match name {
            "open_tickets" => self.open_tickets(),
            "days_since_event"
            | "days_since_click"
            | "days_since_order"
            | "days_since_ticket"
            | "days_since_subscription_started"
            | "days_since_subscription_cancelled"
            | "overdue_ratio"
            | "activity_overdue_60d"
            | "tenure_days"
            | "rfm_age_days" => match self.line(name) {
                Some(line) => line.at(self.at),
                None if name.starts_with("days_since") => f64::INFINITY,
                None => 0.0,
            },
            "order_gap_days" => self.order_gap_ms().map_or(f64::INFINITY, |gap| gap / DAY_MS as f64),
            "rfm_frequency" => (self.order_days() - 1.0).max(0.0),
            "rfm_recency_days" => match (self.first(is_order), self.last(is_order)) {
                (Some(first), Some(last)) => (last - first) as f64 / DAY_MS as f64,
                _ => 0.0,
            },
            "rfm_monetary" => self.rfm_monetary(),
            "clv_to_date" => {
                (self.money_of(None, is_order) - self.money_of(None, is_refund)) * self.money.margin
            }
            _ => return None,
        })
    }

    /// What a feature that grows by itself grows along, once it does.
    pub fn line(&self, name: &str) -> Option<Line> {
        let days_since = |zero: Option<Ts>| zero.map(|zero| Line { zero, scale: DAY_MS as f64 });
        match name {
            "days_since_event" => days_since(self.last(Ev::is_activity)),
            "days_since_click" => days_since(self.last(is_click)),
            "days_since_order" => days_since(self.last(is_order)),
            "days_since_ticket" => days_since(self.last(is_ticket)),
            "days_since_subscription_started" => days_since(self.last(is_start)),
            "days_since_subscription_cancelled" => days_since(self.last(is_cancellation)),
            "tenure_days" => days_since(self.first(Ev::is_activity)),
            "rfm_age_days" => days_since(self.first(is_order)),
            // days_since_order / order_gap_days, with the days cancelled out
            // (orders all at one instant have no rhythm that could be overdue)
            "overdue_ratio" => {
                let scale = self.order_gap_ms().filter(|gap| *gap > 0.0)?;
                Some(Line { zero: self.last(is_order)?, scale })
            }
            // of the active days among the 60 up to the last one
            "activity_overdue_60d" => {
                let day = |ts: Ts| ts.div_euclid(DAY_MS);
                let last = self.last(Ev::is_activity)?;
                let recent = self.past().filter(|e| e.is_activity() && day(e.ts) > day(last) - 60);
                let days: BTreeSet<i64> = recent.map(|e| day(e.ts)).collect();
                let span = days.last()? - days.first()?;
                let gap = || span as f64 / (days.len() - 1) as f64;
                (days.len() > 1).then(|| Line { zero: last, scale: gap() * DAY_MS as f64 })
            }
            _ => None,
        }
    }

    /// Everything that has happened by now.
    fn past(&self) -> impl Iterator<Item = &Ev> {
        self.events.iter().filter(|e| e.ts <= self.at)
    }

    fn within(&self, w: Window) -> impl Iterator<Item = &Ev> {
        self.events.iter().filter(move |e| in_window(e.ts, self.at, w))
    }

    fn count(&self, w: Window, what: impl Fn(&Ev) -> bool) -> f64 {
        self.within(w).filter(|e| what(e)).count() as f64
    }

    fn money_of(&self, w: Window, what: impl Fn(&Ev) -> bool) -> f64 {
        self.within(w).filter(|e| what(e)).map(|e| self.money.micros(e)).sum::<i64>() as f64 / 1e6
    }

    fn first(&self, what: impl Fn(&Ev) -> bool) -> Option<Ts> {
        self.past().filter(|e| what(e)).map(|e| e.ts).min()
    }

    fn last(&self, what: impl Fn(&Ev) -> bool) -> Option<Ts> {
        self.past().filter(|e| what(e)).map(|e| e.ts).max()
    }

    /// The mean over support events that carry the field; 0 when none does. Summed in millionths like money,
    /// so that the order of arrival cannot show.
    fn support_mean(&self, w: Window, field: impl Fn(&Ev) -> Option<f64>) -> f64 {
        let carried: Vec<i64> =
            self.within(w).filter(|e| e.kind == Kind::Support).filter_map(field).map(micros).collect();
        ratio_or_zero(carried.iter().sum::<i64>() as f64 / 1e6, carried.len() as f64)
    }

    /// Sessions by the instant at which they start. All clicks decide where a session starts, not only those
    /// in the window; clicks at the same instant are one.
    fn sessions(&self, w: Window) -> f64 {
        let clicks: BTreeSet<Ts> = self.past().filter(|e| is_click(e)).map(|e| e.ts).collect();
        let starts = clicks.iter().filter(|ts| clicks.range(*ts - 30 * MINUTE_MS + 1..**ts).next().is_none());
        starts.filter(|ts| in_window(**ts, self.at, w)).count() as f64
    }

    fn active_days(&self, w: Window) -> f64 {
        distinct_days(self.within(w).filter(|e| e.is_activity()).map(|e| e.ts))
    }

    fn order_days(&self) -> f64 {
        distinct_days(self.past().filter(|e| is_order(e)).map(|e| e.ts))
    }

    fn trend(&self, w: i64, what: impl Fn(&Ev) -> bool) -> f64 {
        let last = self.count(Some(w), &what);
        let before = self.count(Some(2 * w), &what) - last;
        (last - before) / (last + before + 1.0)
    }

    fn open_tickets(&self) -> f64 {
        let n = |type_: &str| self.count(None, |e| e.is(Kind::Support, type_));
        (n("ticket_opened") + n("ticket_reopened") - n("ticket_solved")).max(0.0)
    }

    /// The mean gap between orders; none below two orders.
    fn order_gap_ms(&self) -> Option<f64> {
        let orders = self.count(None, is_order);
        let span = self.last(is_order)? - self.first(is_order)?;
        (orders >= 2.0).then(|| span as f64 / (orders - 1.0))
    }

    /// The mean worth of the days with orders that follow the first.
    fn rfm_monetary(&self) -> f64 {
        let Some(first) = self.first(is_order) else { return 0.0 };
        let repeat = |e: &Ev| is_order(e) && e.ts.div_euclid(DAY_MS) > first.div_euclid(DAY_MS);
        ratio_or_zero(self.money_of(None, repeat), self.order_days() - 1.0)
    }
}

/// A value that grows by itself: `(t − zero) / scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub zero: Ts,
    pub scale: f64,
}

impl Line {
    pub fn at(self, t: Ts) -> f64 {
        (t - self.zero) as f64 / self.scale
    }
}

fn is_click(e: &Ev) -> bool {
    e.kind == Kind::Clickstream
}

fn is_order(e: &Ev) -> bool {
    e.is(Kind::Purchase, "order_completed")
}

fn is_refund(e: &Ev) -> bool {
    e.is(Kind::Purchase, "order_refunded")
}

fn is_start(e: &Ev) -> bool {
    e.is(Kind::Purchase, "subscription_started")
}

fn is_cancellation(e: &Ev) -> bool {
    e.is(Kind::Purchase, "subscription_cancelled")
}

fn is_ticket(e: &Ev) -> bool {
    e.is(Kind::Support, "ticket_opened")
}

fn is_share(e: &Ev) -> bool {
    ["product_shared", "product_reviewed", "referral_sent"].iter().any(|t| e.is(Kind::Clickstream, t))
}

fn distinct_days(instants: impl Iterator<Item = Ts>) -> f64 {
    instants.map(|ts| ts.div_euclid(DAY_MS)).collect::<BTreeSet<i64>>().len() as f64
}

fn ratio_or_zero(sum: f64, n: f64) -> f64 {
    if n > 0.0 { sum / n } else { 0.0 }
}
