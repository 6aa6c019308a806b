//! One customer's life as a queue of things to come: sessions, orders, tickets, experiences, leaving, returning.
//!
//! Everything that happens is put into the queue with its instant and taken out in time order, so that what
//! comes later (an order) can still be prevented by what comes before (having left).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::calendar;
use super::person::{Person, Spell, Truth};
use super::random::Random;
use super::record::{Hundredths, Record, Writer, customer_id};
use crate::event::Source;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Ts, format_rfc3339};

/// How much a bad or a good experience changes the rate of dropping out, and how far all of them together can.
const BAD_FACTOR: f64 = 2.2;
const GOOD_FACTOR: f64 = 0.92;
const FACTOR_LEAST: f64 = 0.6;
const FACTOR_MOST: f64 = 8.0;
/// Who has left still looks in for a while, more rarely.
const FADE_DAYS: f64 = 14.0;
const FADE_SLOWDOWN: f64 = 3.0;
/// Who has left comes back with the campaigns or never: so many of those who read the mails, and of the others.
const RETURNING_READERS: f64 = 0.15;
const RETURNING_OTHERS: f64 = 0.05;
const RETURN_DAYS_LEAST: f64 = 45.0;
const RETURN_DAYS_MORE: f64 = 60.0;
const RENEWAL: Ts = 30 * DAY_MS;
/// Of each kind of product.
const MODELS: i64 = 24;

/// A customer from its first event on.
#[derive(Debug)]
pub struct Life {
    person: Person,
    random: Random,
    number: u32,
    queue: BinaryHeap<Reverse<Coming>>,
    /// Breaks ties of the queue by the order of putting in.
    put: u32,
    /// While `Some`, it is a customer, and dropout's hazard has been counted up to this instant.
    here: Option<Here>,
    /// Raised at every leaving and returning: what was planned for another spell is void.
    spell: u32,
    fades_until: Ts,
    subscribed: bool,
    factor: f64,
    events: u32,
    sessions: u32,
    orders: u32,
    tickets: u32,
    bad_experiences: u32,
    spells: Vec<(Ts, Option<Ts>)>,
}

/// The dropout that awaits: it comes when the hazard, summed over time, reaches a threshold drawn at the start.
#[derive(Clone, Copy, Debug)]
struct Here {
    hazard_left: f64,
    counted_to: Ts,
    /// The number of the valid `Leave` in the queue.
    leave: u32,
}

#[derive(Debug)]
struct Coming {
    at: Ts,
    put: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Event(Record),
    Session { spell: u32 },
    Order { session: u32, channel: &'static str },
    Renewal { spell: u32 },
    Experience { good: bool },
    Leave { leave: u32 },
    Return,
}

impl Life {
    pub fn begins(seed: u64, number: u32, at: Ts) -> Life {
        let mut random = Random::new(seed, u64::from(number) + 1);
        let person = Person::born(&mut random);
        let mut life = Life {
            person,
            random,
            number,
            queue: BinaryHeap::new(),
            put: 0,
            here: None,
            spell: 0,
            fades_until: at,
            subscribed: false,
            factor: 1.0,
            events: 0,
            sessions: 0,
            orders: 0,
            tickets: 0,
            bad_experiences: 0,
            spells: Vec::new(),
        };
        life.sign_up(at);
        life.arrive(at);
        life.put(at + MINUTE_MS, What::Session { spell: life.spell });
        life
    }

    /// The instant of the next thing to come.
    pub fn next_at(&self) -> Option<Ts> {
        self.queue.peek().map(|Reverse(coming)| coming.at)
    }

    /// Lets the next thing happen; not everything that happens can be seen.
    pub fn step(&mut self) -> Option<Record> {
        let Reverse(Coming { at, what, .. }) = self.queue.pop()?;
        match what {
            What::Event(record) => return Some(record),
            What::Session { spell } if spell == self.spell => self.session(at),
            What::Order { session, channel } if self.here.is_some() => {
                return Some(self.order(at, session, channel));
            }
            What::Renewal { spell } if spell == self.spell && self.subscribed => {
                return Some(self.renewal(at));
            }
            What::Experience { good } => self.experience(at, good),
            What::Leave { leave } if self.here.is_some_and(|here| here.leave == leave) => self.leave(at),
            What::Return => self.comes_back(at),
            What::Session { .. } | What::Order { .. } | What::Renewal { .. } | What::Leave { .. } => {}
        }
        None
    }

    /// What was really so; nothing after `end` is told.
    pub fn truth(&self, end: Ts) -> Truth {
        let before_end = |ts: Ts| (ts < end).then(|| format_rfc3339(ts));
        let spell = |(from, to): &(Ts, Option<Ts>)| Spell {
            from: format_rfc3339(*from),
            to: to.and_then(before_end),
        };
        let spells: Vec<Spell> = self.spells.iter().map(spell).collect();
        Truth {
            customer_id: customer_id(self.number),
            segment: self.person.segment.name,
            orders_per_day: self.person.orders_per_day,
            dropout_per_day: self.person.hazard_per_day,
            dropout_factor: self.factor,
            orders: self.orders,
            bad_experiences: self.bad_experiences,
            dropped_out: spells.last().and_then(|spell| spell.to),
            spells,
        }
    }

    fn put(&mut self, at: Ts, what: What) {
        self.put += 1;
        self.queue.push(Reverse(Coming { at, put: self.put, what }));
    }

    fn write(&mut self, source: Source, kind: &str, ts: Ts) -> Writer {
        self.events += 1;
        Writer::new(source, self.number, self.events, kind, ts)
    }

    fn emit(&mut self, record: Record) {
        self.put(record.ts, What::Event(record));
    }

    fn days(&mut self, least: f64, more: f64) -> Ts {
        ((least + self.random.exponential(more)) * DAY_MS as f64) as Ts
    }

    // ── Coming and going ────────────────────────────────────────────────────────────────────────────────

    fn sign_up(&mut self, at: Ts) {
        let (segment, country) = (self.person.segment.name, self.person.country.code);
        let (plan, channel, opted_in) = (self.person.plan, self.person.channel, self.person.opted_in);
        let traits = format!(
            r#"{{"segment":"{segment}","country":"{country}","plan":"{plan}","channel":"{channel}","opted_in":{opted_in}}}"#
        );
        let profile = self.write(Source::Profile, "traits_updated", at).raw("traits", traits).end();
        self.emit(profile);
        let signed_up =
            self.write(Source::Clickstream, "signed_up", at + SECOND_MS).text("channel", channel).end();
        self.emit(signed_up);
    }

    /// A spell as a customer begins.
    fn arrive(&mut self, at: Ts) {
        self.spells.push((at, None));
        self.here = Some(Here { hazard_left: self.random.exponential(1.0), counted_to: at, leave: 0 });
        self.plan_to_leave(at);
    }

    /// Puts the leaving where it is due at the present hazard.
    fn plan_to_leave(&mut self, now: Ts) {
        let per_day = self.person.hazard_per_day * self.factor;
        let leave = self.put + 1;
        let Some(here) = &mut self.here else { return };
        here.leave = leave;
        let days = here.hazard_left.max(0.0) / per_day;
        let ms = (days * DAY_MS as f64).min(1e15) as Ts;
        self.put(now + ms + 1, What::Leave { leave });
    }

    fn experience(&mut self, at: Ts, good: bool) {
        if !good {
            self.bad_experiences += 1;
        }
        let before = self.factor;
        let change = if good { GOOD_FACTOR } else { BAD_FACTOR };
        self.factor = (before * change).clamp(FACTOR_LEAST, FACTOR_MOST);
        if let Some(here) = &mut self.here {
            let days = (at - here.counted_to) as f64 / DAY_MS as f64;
            here.hazard_left -= days * self.person.hazard_per_day * before;
            here.counted_to = at;
            self.plan_to_leave(at);
        }
    }

    /// From here on there are no orders; sessions fade out, subscriptions end, some come back.
    fn leave(&mut self, at: Ts) {
        self.here = None;
        if let Some((_, to)) = self.spells.last_mut() {
            *to = Some(at);
        }
        self.fades_until = at + self.days(0.0, FADE_DAYS);
        if self.subscribed {
            self.subscribed = false;
            let ts = at + self.days(0.0, 2.0);
            let cancelled = self.write(Source::Purchase, "subscription_cancelled", ts).end();
            self.emit(cancelled);
        }
        if self.person.opted_in && self.random.chance(0.25) {
            let ts = at + self.days(0.2, 5.0);
            let unsubscribed =
                self.write(Source::Clickstream, "unsubscribed", ts).text("channel", "email").end();
            self.emit(unsubscribed);
        } else {
            let returning = if self.person.opted_in { RETURNING_READERS } else { RETURNING_OTHERS };
            if self.random.chance(returning) {
                self.plans_to_return(at);
            }
        }
    }

    /// The first campaign after it has been away for some time, at an hour of the day.
    fn plans_to_return(&mut self, left: Ts) {
        let away = left + self.days(RETURN_DAYS_LEAST, RETURN_DAYS_MORE);
        let (begins, _) = calendar::next_campaign(away);
        let hours = 8.0 + self.random.exponential(10.0).min(60.0);
        let back = begins.max(away) + (hours * HOUR_MS as f64) as Ts;
        self.fades_until = self.fades_until.min(back - DAY_MS);
        self.put(back, What::Return);
    }

    fn comes_back(&mut self, at: Ts) {
        self.spell += 1;
        self.factor = 1.0;
        self.arrive(at);
        for (kind, after) in [("email_opened", 0), ("email_clicked", 20 * SECOND_MS)] {
            let record = self.write(Source::Clickstream, kind, at + after);
            let campaign = calendar::campaign_at(at).unwrap_or("we-miss-you");
            let record = record.text("channel", "email").text("campaign", campaign).end();
            self.emit(record);
        }
        self.put(at + 30 * SECOND_MS, What::Session { spell: self.spell });
    }

    // ── Sessions ────────────────────────────────────────────────────────────────────────────────────────

    fn session(&mut self, at: Ts) {
        let here = self.here.is_some();
        if !here && at > self.fades_until {
            return;
        }
        let slowdown = if here { 1.0 } else { FADE_SLOWDOWN };
        let next = self.person.next_session(at + 31 * MINUTE_MS, slowdown, &mut self.random);
        self.put(next, What::Session { spell: self.spell });
        // A visit planned before leaving may not be made after it.
        if !here && self.random.chance(1.0 - 1.0 / FADE_SLOWDOWN) {
            return;
        }
        self.sessions += 1;
        let channel = self.person.channel_of_a_session(&mut self.random);
        let mut visit = Visit { session: self.sessions, channel, ts: at };
        self.enters(&mut visit);
        let pages = 1 + self.random.exponential(if here { 3.0 } else { 1.2 }).min(30.0) as u32;
        for _ in 0..pages {
            let kind = match *self.random.pick(&BROWSING) {
                "page_viewed" => visit.page(),
                kind => kind,
            };
            self.click(&mut visit, kind);
        }
        if here && self.random.chance(self.person.conversion()) {
            self.buys(&mut visit);
        } else {
            self.leaves_a_cart(&mut visit);
        }
        if self.random.chance(0.004) {
            self.rates_us(visit.ts);
        }
        if here && self.person.opted_in && self.random.chance(0.12) {
            self.opens_an_email(visit.ts);
        }
    }

    /// Most newsletters lead nowhere.
    fn opens_an_email(&mut self, ts: Ts) {
        let at = ts + self.days(0.5, 3.0);
        let record = self.write(Source::Clickstream, "email_opened", at);
        self.emit(record.text("channel", "email").text("campaign", "newsletter").end());
    }

    fn enters(&mut self, visit: &mut Visit) {
        if visit.channel == "email" || (self.person.opted_in && self.random.chance(0.08)) {
            let regular = *self.random.pick(&CAMPAIGNS);
            let campaign = calendar::campaign_at(visit.ts).unwrap_or(regular);
            for kind in ["email_opened", "email_clicked"] {
                let record = self.write(Source::Clickstream, kind, visit.ts);
                let record = record.text("channel", "email").text("campaign", campaign).end();
                self.emit(record);
                visit.ts += self.random.between(2, 30) * SECOND_MS;
            }
        }
        self.click(visit, visit.page());
        if self.random.chance(0.35) {
            self.click(visit, "signed_in");
        }
    }

    /// One click, and the time until the next: never long enough to end the session.
    fn click(&mut self, visit: &mut Visit, kind: &str) {
        let mut writer = self.write(Source::Clickstream, kind, visit.ts);
        writer = writer
            .text("session_id", format_args!("s{:07}-{}", self.number, visit.session))
            .text("channel", visit.channel);
        if kind.starts_with("product_") && kind != "product_list_viewed" || kind == "wishlist_added" {
            let product = self.product();
            writer = writer.text("product_id", product);
            if visit.channel != "app" && kind == "product_viewed" {
                writer = writer.text("url", format_args!("/products/{product}"));
            }
        } else if kind == "product_list_viewed" {
            writer = writer.text("url", format_args!("/{}", self.random.pick(&PRODUCTS).shelf));
        } else if kind == "page_viewed" {
            writer = writer.text("url", self.random.pick(&PAGES));
        }
        self.emit(writer.end());
        let seconds = (3.0 + self.random.exponential(35.0)).min(900.0);
        visit.ts += (seconds * SECOND_MS as f64) as Ts;
    }

    fn product(&mut self) -> Product {
        Product { of: self.random.pick(&PRODUCTS), model: self.random.between(1, MODELS) }
    }

    fn buys(&mut self, visit: &mut Visit) {
        for _ in 0..self.random.between(1, 3) {
            self.click(visit, "product_added");
        }
        self.click(visit, "cart_viewed");
        self.click(visit, "checkout_started");
        self.put(visit.ts, What::Order { session: visit.session, channel: visit.channel });
    }

    fn leaves_a_cart(&mut self, visit: &mut Visit) {
        if !self.random.chance(0.14) {
            return;
        }
        self.click(visit, "product_added");
        if self.random.chance(0.5) {
            self.click(visit, "cart_viewed");
        }
        match self.random.between(0, 9) {
            0..3 => self.click(visit, "product_removed"),
            3 | 4 => self.click(visit, "checkout_started"),
            _ => {}
        }
    }

    fn rates_us(&mut self, ts: Ts) {
        let mood = 8.5 - 1.5 * libm::log(self.factor) + 1.8 * self.random.normal();
        let nps = mood.clamp(0.0, 10.0) as i64;
        let record = self.write(Source::Support, "nps_rated", ts + HOUR_MS).raw("nps", nps).end();
        self.emit(record);
    }

    // ── Orders ──────────────────────────────────────────────────────────────────────────────────────────

    fn order(&mut self, ts: Ts, session: u32, channel: &'static str) -> Record {
        self.orders += 1;
        let order = self.orders;
        let (items, cents) = self.basket();
        self.follow_up(ts, order, cents);
        let id = format!("o{:07}-{order}", self.number);
        self.write(Source::Purchase, "order_completed", ts)
            .text("order_id", id)
            .cents("amount", cents)
            .text("currency", "EUR")
            .raw("items", items)
            .text("channel", channel)
            .text("session_id", format_args!("s{:07}-{session}", self.number))
            .end()
    }

    /// The items as JSON, and what they cost together.
    fn basket(&mut self) -> (String, i64) {
        let (mut items, mut total) = (String::from("["), 0);
        for i in 0..*self.random.pick(&[(1, 55), (2, 25), (3, 13), (4, 7)]) {
            let product = self.product();
            let quantity = *self.random.pick(&[(1, 80), (2, 15), (5, 5)]);
            let price =
                (self.person.item_cents * libm::exp(0.4 * self.random.normal())).clamp(50.0, 1e7) as i64;
            total += quantity * price;
            let comma = if i == 0 { "" } else { "," };
            let price = Hundredths(price);
            items.push_str(&format!(
                r#"{comma}{{"product_id":"{product}","quantity":{quantity},"price":{price}}}"#
            ));
        }
        items.push(']');
        (items, total)
    }

    /// What an order brings with it: subscriptions, refunds, questions, praise.
    fn follow_up(&mut self, ts: Ts, order: u32, cents: i64) {
        if self.person.subscriber && !self.subscribed {
            self.subscribes(ts + MINUTE_MS);
        }
        let id = format!("o{:07}-{order}", self.number);
        if self.random.chance(0.012) {
            let at = ts + self.random.between(5, 180) * MINUTE_MS;
            let cancelled = self.write(Source::Purchase, "order_cancelled", at).text("order_id", id).end();
            self.emit(cancelled);
        } else if self.random.chance(0.05) {
            let at = ts + self.days(2.0, 5.0);
            let share = *self.random.pick(&[(100, 6), (50, 3), (25, 1)]);
            let refunded = self.write(Source::Purchase, "order_refunded", at).text("order_id", id);
            let refunded = refunded.cents("amount", cents * share / 100).text("currency", "EUR").end();
            self.emit(refunded);
        }
        if self.random.chance(0.09) {
            let at = ts + self.days(0.5, 4.0);
            self.asks_for_help(at);
        }
        if self.random.chance(0.06) {
            let kind =
                *self.random.pick(&[("product_reviewed", 5), ("product_shared", 3), ("referral_sent", 2)]);
            let at = ts + self.days(3.0, 6.0);
            let channel = self.person.channel;
            let record = self.write(Source::Clickstream, kind, at).text("channel", channel).end();
            self.emit(record);
        }
    }

    fn subscribes(&mut self, ts: Ts) {
        self.subscribed = true;
        let plan = if self.person.plan == "free" { "basic" } else { "pro" };
        self.person.plan = plan;
        let started = self.write(Source::Purchase, "subscription_started", ts);
        let started = started.cents("amount", 990).text("currency", "EUR").end();
        self.emit(started);
        let traits = format!(r#"{{"plan":"{plan}"}}"#);
        let profile =
            self.write(Source::Profile, "traits_updated", ts + SECOND_MS).raw("traits", traits).end();
        self.emit(profile);
        self.put(ts + RENEWAL, What::Renewal { spell: self.spell });
    }

    fn renewal(&mut self, ts: Ts) -> Record {
        self.put(ts + RENEWAL, What::Renewal { spell: self.spell });
        let renewed = self.write(Source::Purchase, "subscription_renewed", ts);
        renewed.cents("amount", 990).text("currency", "EUR").end()
    }

    // ── Support ─────────────────────────────────────────────────────────────────────────────────────────

    /// A ticket from its opening to the customer's verdict. A bad one is slow, and remembered.
    fn asks_for_help(&mut self, at: Ts) {
        self.tickets += 1;
        let good = self.random.chance(0.65);
        let priority = *self.random.pick(&[("low", 25), ("normal", 50), ("high", 20), ("urgent", 5)]);
        let mut ticket = Ticket { number: self.tickets, priority, good, ts: at };
        self.ticket_event(&mut ticket, "ticket_opened", -0.25);
        for _ in 0..self.random.between(1, if good { 2 } else { 4 }) {
            let mood = if good { 0.15 } else { -0.4 };
            self.ticket_event(&mut ticket, "ticket_replied", mood);
        }
        if good || self.random.chance(0.8) {
            self.ticket_event(&mut ticket, "ticket_solved", if good { 0.4 } else { -0.2 });
            if !good && self.random.chance(0.35) {
                self.ticket_event(&mut ticket, "ticket_reopened", -0.6);
                self.ticket_event(&mut ticket, "ticket_solved", -0.3);
            }
            self.rates_the_help(&ticket);
        }
        self.put(ticket.ts, What::Experience { good });
    }

    fn ticket_event(&mut self, ticket: &mut Ticket, kind: &str, mood: f64) {
        let sentiment = ((mood + 0.22 * self.random.normal()).clamp(-1.0, 1.0) * 100.0) as i64;
        let record = self
            .write(Source::Support, kind, ticket.ts)
            .text("ticket_id", format_args!("t{:07}-{}", self.number, ticket.number))
            .text("priority", ticket.priority)
            .cents("sentiment", sentiment)
            .end();
        self.emit(record);
        let hours = self.random.gamma(1.5, if ticket.good { 5.0 } else { 26.0 });
        ticket.ts += (hours * HOUR_MS as f64) as Ts + MINUTE_MS;
    }

    fn rates_the_help(&mut self, ticket: &Ticket) {
        if !self.random.chance(0.6) {
            return;
        }
        let stars: &[(i64, u32)] =
            if ticket.good { &[(5, 55), (4, 35), (3, 10)] } else { &[(1, 45), (2, 35), (3, 20)] };
        let csat = *self.random.pick(stars);
        let record = self.write(Source::Support, "csat_rated", ticket.ts);
        let id = format!("t{:07}-{}", self.number, ticket.number);
        self.emit(record.text("ticket_id", id).raw("csat", csat).end());
    }
}

struct Visit {
    session: u32,
    channel: &'static str,
    ts: Ts,
}

impl Visit {
    fn page(&self) -> &'static str {
        if self.channel == "app" { "screen_viewed" } else { "page_viewed" }
    }
}

/// `running-shoes-07`: a kind of product and the number of its model.
#[derive(Clone, Copy)]
struct Product {
    of: &'static Kind,
    model: i64,
}

struct Kind {
    name: &'static str,
    shelf: &'static str,
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:02}", self.of.name, self.model)
    }
}

struct Ticket {
    number: u32,
    priority: &'static str,
    good: bool,
    ts: Ts,
}

const BROWSING: [(&str, u32); 5] = [
    ("product_viewed", 46),
    ("product_list_viewed", 20),
    ("page_viewed", 18),
    ("products_searched", 12),
    ("wishlist_added", 4),
];
const fn kind(name: &'static str, shelf: &'static str) -> Kind {
    Kind { name, shelf }
}

#[rustfmt::skip]
const PRODUCTS: [(Kind, u32); 16] = [
    (kind("running-shoes", "shoes"), 12), (kind("trail-shoes", "shoes"), 7), (kind("sandals", "shoes"), 5),
    (kind("rain-jacket", "clothing"), 9), (kind("fleece", "clothing"), 8), (kind("merino-shirt", "clothing"), 9),
    (kind("hiking-trousers", "clothing"), 6), (kind("socks", "clothing"), 10), (kind("backpack", "equipment"), 8),
    (kind("tent", "equipment"), 3), (kind("sleeping-bag", "equipment"), 3), (kind("headlamp", "equipment"), 5),
    (kind("water-bottle", "accessories"), 6), (kind("gloves", "accessories"), 4), (kind("cap", "accessories"), 4),
    (kind("gift-card", "gifts"), 1),
];
const PAGES: [(&str, u32); 6] =
    [("/", 40), ("/sale", 20), ("/new", 15), ("/help", 8), ("/account", 12), ("/about", 5)];
const CAMPAIGNS: [(&str, u32); 3] = [("newsletter", 55), ("cart-reminder", 25), ("new-arrivals", 20)];

impl PartialEq for Coming {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Coming {}

impl PartialOrd for Coming {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Coming {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.put).cmp(&(other.at, other.put))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days from `at` to the leaving that is planned.
    fn days_left(life: &Life, at: Ts) -> f64 {
        let planned = life.here.unwrap().leave;
        let is_it =
            |Reverse(c): &&Reverse<Coming>| matches!(c.what, What::Leave { leave } if leave == planned);
        let Reverse(leave) = life.queue.iter().find(is_it).unwrap();
        (leave.at - at) as f64 / DAY_MS as f64
    }

    #[test]
    fn a_bad_experience_shortens_the_time_that_is_left_and_a_good_one_lengthens_it() {
        for number in 1..50 {
            let mut life = Life::begins(11, number, 0);
            let before = days_left(&life, 0);
            let half_way = (before * DAY_MS as f64 / 2.0) as Ts;
            life.experience(half_way, false);
            assert!((days_left(&life, half_way) * BAD_FACTOR * 2.0 / before - 1.0).abs() < 1e-3);
            life.experience(half_way, true);
            assert!(
                (days_left(&life, half_way) * BAD_FACTOR * GOOD_FACTOR * 2.0 / before - 1.0).abs() < 1e-3
            );
        }
    }

    #[test]
    fn experiences_change_the_hazard_only_so_far() {
        let mut life = Life::begins(11, 1, 0);
        (0..20).for_each(|_| life.experience(0, false));
        assert_eq!(life.factor, FACTOR_MOST);
        (0..60).for_each(|_| life.experience(0, true));
        assert_eq!(life.factor, FACTOR_LEAST);
    }

    #[test]
    fn what_is_still_to_come_stays_small() {
        let mut life = Life::begins(11, 3, 0);
        let mut most = 0;
        for _ in 0..20_000 {
            life.step();
            most = most.max(life.queue.len());
        }
        assert!(most < 150, "{most} things in the queue");
    }
}
