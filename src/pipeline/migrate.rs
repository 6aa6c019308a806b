//! States of another layout: what of them this plan knows by name, and what begins anew.
//!
//! | of the other layout | becomes |
//! |---|---|
//! | a kept value or pane measure of a name that this plan has | that value |
//! | one that this plan has not | nothing |
//! | a lifecycle and a stage of known names | that stage, its visits and the time in it |
//! | a stage that is gone | `initial`, told by [`super::reconcile`] |
//! | a policy of a known name | armed or not, and when it fired |
//!
//! What only this plan has begins as in a new customer. It owns the mapping; [`super::codec`] reads the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use thin_vec::ThinVec;

use super::described::{Description, Kind, name_of};
use super::layout::{DAY_HOP_HOURS, Feature, KeptSlot, Layout, NEVER, Read};
use super::panes::{self, Measures};
use super::plan::Plan;
use super::store::OrderDays;

/// Where what stands in states of one layout goes in a plan. Every list is in the order of the states.
#[derive(Clone, Debug)]
pub struct LayoutMap {
    pub kept: Vec<(Kind, Option<KeptSlot>)>,
    panes: Vec<Option<u8>>,
    orders: Vec<Option<u8>>,
    pub lifecycles: Vec<LifecycleMap>,
    pub policies: Vec<Option<usize>>,
    /// Whether the states end in the counts of channels.
    pub channels: bool,
    /// Orders that the plan counts and the states did not, not all of it.
    partial_orders: Vec<usize>,
    /// The plan's lifecycles, as bits, of which the states know nothing, and those whose definition is another.
    pub fresh: u64,
    pub changed: u64,
}

/// Where a customer of one lifecycle goes.
#[derive(Clone, Debug)]
pub struct LifecycleMap {
    /// The plan's lifecycle of that name.
    pub to: Option<usize>,
    /// By stage of the states; a stage that is gone by its name.
    pub stages: Vec<Result<u8, Box<str>>>,
}

impl LayoutMap {
    pub fn new(plan: &Plan, from: &Description) -> LayoutMap {
        let layout = &plan.layout;
        let kept = |(name, kind): &(String, Kind)| {
            let same = layout.kept.iter().find(|k| k.name == *name && Kind::of(k.slot) == *kind);
            (*kind, same.map(|k| k.slot))
        };
        let orders: Vec<Option<u8>> = from
            .orders
            .iter()
            .map(|name| layout.orders.iter().position(|o| name_of(layout, o) == name).map(|i| i as u8))
            .collect();
        let pane = |(name, combine): &(String, _)| {
            let same = layout.panes.iter().position(|p| p.name == *name && p.combine == *combine);
            same.map(|i| i as u8)
        };
        let policy = |name: &String| plan.settings.policies.iter().position(|p| p.name == *name);
        let mut map = LayoutMap {
            kept: from.kept.iter().map(kept).collect(),
            panes: from.panes.iter().map(pane).collect(),
            partial_orders: (0..layout.orders.len()).filter(|i| !orders.contains(&Some(*i as u8))).collect(),
            orders,
            lifecycles: Vec::new(),
            policies: from.policies.iter().map(policy).collect(),
            channels: from.channels,
            fresh: 0,
            changed: 0,
        };
        map.map_lifecycles(plan, from);
        map
    }

    fn map_lifecycles(&mut self, plan: &Plan, from: &Description) {
        for described in &from.lifecycles {
            let to = plan.lifecycles.iter().position(|(l, _)| *l.name == *described.name);
            let stage = |name: &String| {
                let known = to.and_then(|to| plan.lifecycles[to].0.stage_index(name));
                known.ok_or_else(|| name.as_str().into())
            };
            self.lifecycles.push(LifecycleMap { to, stages: described.stages.iter().map(stage).collect() });
        }
        for (k, (lifecycle, _)) in plan.lifecycles.iter().enumerate() {
            match from.lifecycles.iter().find(|described| *described.name == *lifecycle.name) {
                None => self.fresh |= 1 << k,
                Some(described) if *described.definition != *lifecycle.definition => self.changed |= 1 << k,
                Some(_) => {}
            }
        }
    }

    /// Measures that a pane of the states may hold.
    pub fn pane_count(&self) -> usize {
        self.panes.len()
    }

    pub fn order_count(&self) -> usize {
        self.orders.len()
    }

    /// The log with the measures at the plan's places; those that the plan does not keep are left out.
    pub fn log(&self, log: &[u8], layout: &Layout) -> ThinVec<u8> {
        if self.panes.iter().enumerate().all(|(i, to)| *to == Some(i as u8)) {
            return ThinVec::from(log);
        }
        let mut all = panes::unpack(log, self.panes.len());
        for pane in &mut all {
            let mut measures = Measures::new(layout.panes.len());
            for (slot, value) in pane.measures.iter() {
                if let Some(to) = self.panes[usize::from(slot)] {
                    measures.put(to, value);
                }
            }
            pane.measures = measures;
        }
        all.retain(|pane| pane.measures.mask != 0);
        let mut mapped = ThinVec::new();
        panes::pack(&all, &mut mapped);
        mapped
    }

    /// The days of the orders that the plan still counts.
    pub fn order_days(&self, days: OrderDays) -> OrderDays {
        if self.orders.iter().enumerate().all(|(i, to)| *to == Some(i as u8)) {
            return days;
        }
        let mapped = days.0.iter().filter_map(|entry| {
            self.orders[OrderDays::orders_of(*entry)].map(|to| OrderDays::with_orders(*entry, to))
        });
        let mut mapped: ThinVec<u32> = mapped.collect();
        mapped.sort_unstable();
        OrderDays(mapped)
    }

    /// Orders of which the states know some numbers only, such as their count or the last: the others begin
    /// with what can be known from these, so that first, last and count make sense together.
    pub fn complete_orders(&self, layout: &Layout, row: &mut [u32]) {
        for orders in self.partial_orders.iter().map(|i| &layout.orders[*i]) {
            let (first, last) = (orders.first.get(row), orders.last.get(row));
            let Some(known) = [last, first].into_iter().find(|ts| *ts != NEVER) else { continue };
            if first == NEVER {
                orders.first.set(row, known);
            }
            if last == NEVER {
                orders.last.set(row, known);
            }
            orders.count.set(row, orders.count.get(row).max(1));
            orders.days.set(row, 1);
            orders.first_day.set(row, orders.revenue.get(row));
        }
    }
}

/// The layouts that states of one log may have.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    maps: BTreeMap<u32, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    map: Arc<LayoutMap>,
    description: Arc<Description>,
    /// Whether the description stands in the log, and how many states were read by it.
    in_log: bool,
    states: u64,
}

impl Layouts {
    /// The plan's own layout, under its id and under the one that versions before descriptions gave it. (That id
    /// did not tell the rules of lifecycles: who is known by it counts as evaluated under the present ones.)
    pub fn of(plan: &Plan) -> Layouts {
        let mut layouts = Layouts::default();
        layouts.add(plan.layout_id, plan, plan.description.clone(), false);
        layouts.add(super::codec::undescribed_id(plan), plan, plan.description.clone(), false);
        layouts
    }

    fn add(&mut self, id: u32, plan: &Plan, description: Description, in_log: bool) {
        let map = Arc::new(LayoutMap::new(plan, &description));
        self.maps.insert(id, Known { map, description: Arc::new(description), in_log, states: 0 });
    }

    /// Takes in a description that stands in the log.
    pub fn learn(&mut self, id: u32, plan: &Plan, description: Description) {
        match self.maps.get_mut(&id) {
            Some(known) if *known.description == description => known.in_log = true,
            _ => self.add(id, plan, description, true),
        }
    }

    /// The same of a state from another log.
    pub fn meet(&mut self, id: u32, plan: &Plan, description: &Description) {
        if !self.maps.contains_key(&id) {
            self.add(id, plan, description.clone(), false);
        }
    }

    /// How to read a state of this layout.
    pub fn of_state(&mut self, id: u32) -> Option<Arc<LayoutMap>> {
        let known = self.maps.get_mut(&id)?;
        known.states += 1;
        Some(Arc::clone(&known.map))
    }

    /// The layouts in use whose descriptions are not in the log yet.
    pub fn missing(&self, own: u32) -> Vec<(u32, Vec<u8>)> {
        let missing =
            self.maps.iter().filter(|(id, known)| !known.in_log && (**id == own || known.states > 0));
        missing.map(|(id, known)| (*id, known.description.encode())).collect()
    }

    /// The descriptions that stand in the log, the plan's own taken to be among them.
    pub fn described(&self, own: u32) -> impl Iterator<Item = (u32, Vec<u8>)> + '_ {
        let described = self.maps.iter().filter(move |(id, known)| known.in_log || **id == own);
        described.map(|(id, known)| (*id, known.description.encode()))
    }

    /// What people should know of the states that were read: see [`news`].
    pub fn news(&self, plan: &Plan) -> Vec<String> {
        let others = self.maps.values().filter(|known| known.states > 0);
        others.flat_map(|known| news(plan, &known.description)).collect()
    }
}

/// What changes for states of another layout, in sentences; nothing when nothing does.
pub fn news(plan: &Plan, from: &Description) -> Vec<String> {
    let mut news = Vec::new();
    let mut tell = |what: &str, names: Vec<&str>, then: &str| {
        if !names.is_empty() {
            news.push(format!("{what}: {}; {then}", names.join(", ")));
        }
    };
    tell(
        "features that no earlier event has filled",
        new_features(plan, from),
        "they begin empty and fill from now on",
    );
    let lifecycles = || plan.lifecycles.iter().map(|(lifecycle, _)| lifecycle);
    let find = |name: &str| from.lifecycles.iter().find(|described| described.name == name);
    let other = lifecycles().filter(|l| find(&l.name).is_some_and(|d| *d.definition != *l.definition));
    tell(
        "lifecycles with another definition",
        other.map(|l| &*l.name).collect(),
        "every customer is evaluated once, with trigger `definition`",
    );
    let fresh = lifecycles().filter(|l| find(&l.name).is_none());
    tell(
        "new lifecycles",
        fresh.map(|l| &*l.name).collect(),
        "every customer begins in `initial` and is evaluated, with trigger `definition`",
    );
    let has = |name: &str| lifecycles().any(|l| *l.name == *name);
    let gone = from.lifecycles.iter().filter(|d| !has(&d.name));
    tell(
        "lifecycles no longer in use",
        gone.map(|d| d.name.as_str()).collect(),
        "where customers stood in them is forgotten",
    );
    let stands = |name: &&String| plan.settings.policies.iter().any(|p| p.name == **name);
    tell(
        "traits counted from events that nothing counted so far",
        if plan.keeps_channels && !from.channels { vec![super::channels::MAIN_CHANNEL] } else { Vec::new() },
        "they are known of what comes from now on",
    );
    tell(
        "alert policies no longer there",
        from.policies.iter().filter(|p| !stands(p)).map(String::as_str).collect(),
        "when they fired last is forgotten",
    );
    news
}

/// The plan's features whose value as of now lacks events that states of the other layout did not keep.
pub fn new_features<'a>(plan: &'a Plan, from: &Description) -> Vec<&'a str> {
    let layout = &plan.layout;
    let has_kept = |name: &str| from.kept.iter().any(|(known, _)| known == name);
    let has_pane = |name: &str| from.panes.iter().any(|(known, _)| known == name);
    let longest = |hourly: bool| {
        let of = from.windows.iter().filter(|ms| !hourly || **ms < super::catalogue::DAY_HOP_FROM_MS);
        of.copied().max().unwrap_or(0)
    };
    let is_new = |feature: &&Feature| {
        let outlives = |w: &u8| {
            let window = &layout.windows[usize::from(*w)];
            window.ms > longest(false) || (window.hop_hours < DAY_HOP_HOURS && window.ms > longest(true))
        };
        panes::bits(feature.panes).any(|pane| !has_pane(&layout.panes[usize::from(pane)].name))
            || (feature.panes != 0 && feature.windows.iter().any(outlives))
            || kept_names(layout, feature.read).into_iter().any(|name| !has_kept(name))
    };
    layout.features.iter().filter(is_new).map(|feature| feature.name.as_str()).collect()
}

/// The names of the kept values that a feature is read from.
fn kept_names(layout: &Layout, read: Read) -> Vec<&str> {
    let (counts, numbers) = match read {
        Read::Count(slot) => (vec![slot], vec![]),
        Read::Sum(slot) | Read::Extreme(slot) | Read::Net(slot) => (vec![], vec![slot]),
        Read::DaysSince(slot) | Read::Tenure(slot) => (vec![], vec![slot]),
        Read::Overdue(active, _) => (vec![], vec![active.bits, active.last]),
        Read::Mean { sum, count } => (vec![count], vec![sum]),
        Read::LastValue(value) | Read::LastInWindow(value, _) => (vec![], vec![value.ts, value.micros]),
        // What is foretold follows from order statistics that other features read already.
        Read::Trend { .. } | Read::PNoOrder | Read::Clv365d => (vec![], vec![]),
        Read::Clv { revenue, refunded } => (vec![], vec![revenue, refunded]),
        Read::OrderGap(i)
        | Read::OverdueRatio(i)
        | Read::RfmFrequency(i)
        | Read::RfmRecency(i)
        | Read::RfmAge(i)
        | Read::RfmMonetary(i) => {
            let orders = &layout.orders[usize::from(i)];
            (
                vec![orders.count, orders.days],
                vec![orders.first, orders.last, orders.revenue, orders.first_day],
            )
        }
    };
    let is_read = |slot: KeptSlot| match slot {
        KeptSlot::Count(slot) => counts.contains(&slot),
        KeptSlot::Number(slot) | KeptSlot::Instant(slot) => numbers.contains(&slot),
        KeptSlot::Float(_) => false,
    };
    layout.kept.iter().filter(|kept| is_read(kept.slot)).map(|kept| kept.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Source;
    use crate::model::Model;
    use crate::pipeline::catalogue::Catalogue;
    use crate::pipeline::codec::tests::{encoded, event};
    use crate::pipeline::engine::Engine;
    use crate::pipeline::facts::FeatureNames;
    use crate::pipeline::outbox::Channel;
    use crate::pipeline::plan::{Policy, Settings};
    use crate::time::{DAY_MS, HOUR_MS, Ts};
    use serde_json::{Value, json};

    const NOW: Ts = 1_767_225_600_000;
    const LAST: Ts = NOW + 4 * DAY_MS + HOUR_MS;

    const NPS: &str = "[[feature]]\nname = \"nps\"\nsource = \"support\"\nagg = \"max\"\nfield = \"nps\"\nwindows = [\"30d\", \"lifetime\"]\n";
    /// Before the shipped ones in order, so that every place moves.
    const FEW: &str = r#"default = false
[[feature]]
name = "orders"
source = "purchase"
types = ["order_completed"]
agg = "count"
windows = ["30d", "lifetime"]
[[feature]]
name = "days_since_order"
source = "purchase"
types = ["order_completed"]
agg = "days_since"
[[feature]]
name = "clicks"
source = "clickstream"
agg = "count"
windows = ["7d"]
"#;

    fn plan(lifecycles: &[&str], catalogue: &str, policies: &[&str]) -> Arc<Plan> {
        let files: Vec<_> = lifecycles.iter().map(|text| ("l.toml".to_owned(), (*text).to_owned())).collect();
        let catalogue = Catalogue::load("features.toml", catalogue).unwrap();
        let policies =
            policies.iter().map(|name| Policy { name: (*name).into(), ..Policy::default() }).collect();
        let settings = Settings { policies, ..Settings::default() };
        Arc::new(
            Plan::new(&catalogue, &files, &Model::of_one_term("clicks_7d", &catalogue), settings).unwrap(),
        )
    }

    /// A lifecycle of these stages, the last one `initial`, each entered by a rule.
    fn lifecycle(name: &str, stages: &[(&str, &str)]) -> String {
        let initial = stages.last().unwrap().0;
        let stage =
            |(name, enter): &(&str, &str)| format!("[[stage]]\nname = \"{name}\"\nenter = \"{enter}\"\n");
        let stages: String = stages.iter().map(stage).collect();
        format!("name = \"{name}\"\ninitial = \"{initial}\"\n{stages}")
    }

    fn lived_in(plan: &Arc<Plan>) -> Engine {
        let mut engine = Engine::new(Arc::clone(plan), true);
        for day in 0..5 {
            let ts = NOW + day * DAY_MS;
            engine.step(&event(Source::Purchase, "order_completed", ts, None));
            engine.step(&event(Source::Clickstream, "page_viewed", ts + HOUR_MS, None));
        }
        engine
    }

    /// The customer of `from` as an engine of another plan restores it.
    fn carried(from: &Engine, to: &Arc<Plan>) -> Engine {
        let mut engine = Engine::new(Arc::clone(to), true);
        engine.learn_layout(from.plan().layout_id, from.plan().description.clone());
        engine.restore("c", &encoded(from)).unwrap();
        engine.finish_restore();
        engine
    }

    fn feature(engine: &Engine, name: &str) -> f64 {
        engine.view(0, LAST).features[engine.plan().layout.id(name).unwrap().index()]
    }

    fn changes(engine: &Engine) -> Vec<Value> {
        let records = engine.outbox.records().filter(|(output, ..)| output.channel == Channel::StageChanges);
        records.map(|(_, _, json)| serde_json::from_slice(json).unwrap()).collect()
    }

    #[test]
    fn features_that_stay_keep_their_values_and_new_ones_begin_empty() {
        let (few, all) = (plan(&[], FEW, &[]), plan(&[], NPS, &[]));
        let (of_few, of_all) = (lived_in(&few), lived_in(&all));
        let (grown, shrunk) = (carried(&of_few, &all), carried(&of_all, &few));
        for name in ["orders_30d", "orders_lifetime", "days_since_order", "clicks_7d"] {
            let value = feature(&of_all, name);
            assert_eq!([&of_few, &grown, &shrunk].map(|e| feature(e, name)), [value; 3], "{name}");
        }
        for (name, value) in [("revenue_30d", 0.0), ("tenure_days", 0.0), ("nps_30d", 0.0)] {
            assert_eq!(feature(&grown, name), value, "{name}");
        }
        assert_eq!(encoded(&carried(&carried(&of_few, &all), &few)), encoded(&of_few), "there and back");
        let new = new_features(&all, &few.description);
        assert!(
            new.contains(&"revenue_30d") && new.contains(&"nps_lifetime") && new.contains(&"tenure_days")
        );
        assert!(new.contains(&"orders_90d"), "of the window, only the last 30 days are known");
        assert!(!new.contains(&"orders_30d") && !new.contains(&"orders_7d"), "{new:?}");
        assert_eq!(new_features(&few, &all.description), [""; 0]);
        assert!(news(&all, &few.description)[0].contains("revenue_30d"));
        assert_eq!(news(&all, &all.description), [""; 0]);
    }

    #[test]
    fn orders_known_in_part_make_sense_together_and_go_on() {
        let (few, all) = (plan(&[], FEW, &[]), plan(&[], "", &[]));
        let mut grown = carried(&lived_in(&few), &all);
        assert_eq!((feature(&grown, "orders_lifetime"), feature(&grown, "overdue_ratio")), (5.0, 0.0));
        assert_eq!((feature(&grown, "rfm_frequency"), feature(&grown, "rfm_recency_days")), (0.0, 0.0));
        let again = encoded(&carried(&grown, &all));
        assert_eq!(again, encoded(&grown), "it is a state like any other");
        grown.step(&event(Source::Purchase, "order_completed", LAST, None));
        assert_eq!((feature(&grown, "orders_lifetime"), feature(&grown, "rfm_frequency")), (6.0, 0.0));
        let count_only = FEW.replace("agg = \"days_since\"", "agg = \"count\"\nwindows = [\"30d\"]");
        let mut counted = carried(&lived_in(&plan(&[], &count_only, &[])), &all);
        assert_eq!(feature(&counted, "order_gap_days"), f64::INFINITY);
        counted.step(&event(Source::Purchase, "order_completed", LAST, None));
        assert_eq!(feature(&counted, "days_since_order"), 0.0);
    }

    #[test]
    fn stages_and_policies_go_by_their_names() {
        let old =
            [lifecycle("l", &[("a", "orders_lifetime >= 3"), ("b", "orders_lifetime >= 1"), ("c", "false")])];
        let new = [lifecycle(
            "l",
            &[("z", "false"), ("c", "false"), ("b", "false"), ("a", "orders_lifetime >= 1")],
        )];
        let from = lived_in(&plan(&[&old[0]], "", &["p", "q"]));
        let to = plan(&[&new[0]], "", &["q", "new"]);
        let mut engine = carried(&from, &to);
        assert_eq!(engine.population(), [vec![0, 0, 0, 1]], "in `a` it was and is");
        let row = engine.store().look(0).row.to_vec();
        let of_old = &from.plan().policies[1];
        assert_eq!(to.policies[0].fired_at.get(&row), of_old.fired_at.get(&from.store().look(0).row));
        assert_eq!(to.policies[1].fired_at.get(&row), NEVER);
        assert_eq!(engine.to_reconcile(), 1);
        assert!(!engine.reconcile(LAST + DAY_MS));
        assert_eq!(changes(&engine), [json!(null); 0], "nothing moved");
        assert_eq!(engine.store().dirty(), [0], "and it is written, so that it is not asked again");
        engine.commit();
        let again = carried(&engine, &to);
        assert_eq!(again.to_reconcile(), 0);
    }

    #[test]
    fn a_stage_that_is_gone_is_left_and_what_follows_is_told() {
        let old = lifecycle("l", &[("loyal", "orders_lifetime >= 3"), ("new", "true")]);
        let new = lifecycle("l", &[("customer", "orders_lifetime >= 1"), ("new", "true")]);
        let mut engine = carried(&lived_in(&plan(&[&old], "", &[])), &plan(&[&new], "", &[]));
        assert_eq!(engine.population(), [vec![0, 1]], "nobody is counted in a stage that is gone");
        engine.reconcile(LAST + DAY_MS);
        let told = |change: &Value| {
            let text = |key: &str| change[key].as_str().unwrap_or("").to_owned();
            [text("from"), text("to"), text("trigger"), text("ts"), change["sequence"].to_string()]
        };
        let ts = "2026-01-06T01:00:00.000Z";
        let expected = [
            ["loyal", "new", "definition", ts, "2"].map(str::to_owned),
            ["new", "customer", "definition", ts, "3"].map(str::to_owned),
        ];
        let got = changes(&engine);
        assert_eq!(got.iter().map(told).collect::<Vec<_>>(), expected);
        assert_eq!(got[0]["visit"], 2, "the second time in `new`");
        assert_eq!(
            got[0]["stage_days"].as_f64(),
            Some((3.0 * DAY_MS as f64 + HOUR_MS as f64) / DAY_MS as f64)
        );
        assert_eq!(engine.population(), [vec![1, 0]]);
        assert_eq!(engine.tally.gone_stages, [((0, "loyal".into(), 1), 1)]);
    }

    #[test]
    fn a_new_lifecycle_begins_in_initial_as_of_now_and_one_that_is_gone_is_forgotten() {
        let old = lifecycle("old", &[("a", "true")]);
        let new = lifecycle("new", &[("buyer", "orders_lifetime >= 1"), ("visitor", "true")]);
        let mut engine = carried(&lived_in(&plan(&[&old], "", &[])), &plan(&[&new], "", &[]));
        assert_eq!(engine.population(), [vec![0, 1]]);
        engine.reconcile(LAST);
        let got = changes(&engine);
        assert_eq!((got.len(), &got[0]["from"], &got[0]["to"]), (1, &json!("visitor"), &json!("buyer")));
        assert_eq!((&got[0]["trigger"], got[0]["stage_days"].as_f64()), (&json!("definition"), Some(0.0)));
    }

    #[test]
    fn a_transaction_taken_back_reconciles_its_customers_again() {
        let old = lifecycle("l", &[("loyal", "orders_lifetime >= 3"), ("new", "true")]);
        let new = lifecycle("l", &[("customer", "orders_lifetime >= 1"), ("new", "true")]);
        let mut engine = carried(&lived_in(&plan(&[&old], "", &[])), &plan(&[&new], "", &[]));
        engine.reconcile(LAST);
        let first = changes(&engine);
        engine.rollback();
        assert_eq!((engine.to_reconcile(), engine.population()), (1, &[vec![0, 1]][..]));
        engine.reconcile(LAST);
        assert_eq!(changes(&engine), first);
        engine.commit();
        assert_eq!(engine.to_reconcile(), 0);
    }

    #[test]
    fn states_of_before_descriptions_load_and_are_described_from_then_on() {
        let plan = plan(&[&lifecycle("l", &[("a", "true")])], "", &[]);
        let from = lived_in(&plan);
        let mut bytes = encoded(&from);
        let legacy = crate::pipeline::codec::undescribed_id(&plan);
        bytes[1..5].copy_from_slice(&legacy.to_le_bytes());
        let end = bytes.len() - 4;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..end]) as u32;
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        let mut engine = Engine::new(Arc::clone(&plan), true);
        engine.restore("c", &bytes).unwrap();
        engine.finish_restore();
        assert_eq!(encoded(&engine), encoded(&from));
        assert_eq!(engine.to_reconcile(), 0);
        let ids: Vec<u32> = engine.undescribed_layouts().into_iter().map(|(id, _)| id).collect();
        assert!(ids.contains(&legacy) && ids.contains(&plan.layout_id), "{ids:?}");
        engine.learn_layout(plan.layout_id, plan.description.clone());
        assert_eq!(engine.undescribed_layouts().len(), 1);
        let read = Description::decode(&plan.description.encode());
        assert_eq!(read, Ok(plan.description.clone()));
    }
}
