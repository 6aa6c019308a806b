//! What the customers of each stage have brought in so far, all together and by segment.
//!
//! Counted from the states themselves, customer by customer: it is exact whenever it is asked for, and restarts
//! and rebalances cannot lose any of it. Sums are of millionths, so that they do not depend on the order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::engine::Engine;
use super::facts::{TraitValue, Traits};
use super::features;
use crate::event::MICROS;

/// The trait that names a customer's segment.
pub const SEGMENT: &str = "segment";
/// Segments that are told apart; the customers of all others are together under [`OTHERS`].
pub const SEGMENTS_MOST: usize = 32;
pub const OTHERS: &str = "(others)";

/// The customers of one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageWorth {
    pub customers: u64,
    /// Of them, in a stage that is no customer's, those who have been customers before; counted where it matters.
    pub returned: u64,
    pub(crate) clv_micros: i64,
}

impl StageWorth {
    /// The sum of their `clv_to_date`.
    pub fn clv_to_date(&self) -> f64 {
        self.clv_micros as f64 / MICROS
    }

    /// `None` of nobody.
    pub fn mean_clv_to_date(&self) -> Option<f64> {
        (self.customers > 0).then(|| self.clv_to_date() / self.customers as f64)
    }

    fn add(&mut self, other: StageWorth) {
        self.customers += other.customers;
        self.returned += other.returned;
        self.clv_micros = self.clv_micros.saturating_add(other.clv_micros);
    }
}

/// By lifecycle and stage.
type Stages = Vec<Vec<StageWorth>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    pub all: Stages,
    pub segments: BTreeMap<Box<str>, Stages>,
}

impl Worth {
    /// Adds what another partition counted.
    pub fn add(&mut self, other: &Worth) {
        add_stages(&mut self.all, &other.all);
        for (segment, stages) in &other.segments {
            add_stages(self.segment(segment), stages);
        }
    }

    fn segment(&mut self, name: &str) -> &mut Stages {
        told_apart(&mut self.segments, name)
    }
}

/// What is kept of a segment, or of [`OTHERS`] when there are too many of them.
pub fn told_apart<'s, T: Default>(segments: &'s mut BTreeMap<Box<str>, T>, name: &str) -> &'s mut T {
    let is_told = segments.contains_key(name) || segments.len() < SEGMENTS_MOST;
    segments.entry(if is_told { name } else { OTHERS }.into()).or_default()
}

fn add_stages(to: &mut Stages, from: &Stages) {
    for (k, stages) in from.iter().enumerate() {
        for (stage, worth) in stages.iter().enumerate() {
            place(to, k, stage).add(*worth);
        }
    }
}

fn place(stages: &mut Stages, lifecycle: usize, stage: usize) -> &mut StageWorth {
    if stages.len() <= lifecycle {
        stages.resize_with(lifecycle + 1, Vec::new);
    }
    let of = &mut stages[lifecycle];
    if of.len() <= stage {
        of.resize(stage + 1, StageWorth::default());
    }
    &mut of[stage]
}

impl Engine {
    /// Looks at every customer; without the feature `clv_to_date` all of them are worth 0.
    pub fn worth(&self) -> Worth {
        let (plan, store) = (self.plan(), self.store());
        let mut values = vec![0.0; plan.layout.features.len()];
        let (mut worth, mut room) = (Worth::default(), Vec::new());
        for index in store.indices() {
            let row = store.peek(index, &mut room);
            let clv = plan.clv_to_date.map_or(0.0, |id| {
                // Of all that ever happened: it does not matter how far the windows are advanced.
                let now = plan.head.now.get(row);
                features::read_into(&plan.layout, row, now, plan.settings.margin, &[id], &mut values);
                values[id.index()]
            });
            let clv_micros = (clv * MICROS).round() as i64;
            let traits = store.traits(index);
            let segment = traits.as_deref().map_or("".into(), segment_of);
            for (k, (lifecycle, slots)) in plan.lifecycles.iter().enumerate() {
                let stage = slots.stage.get(row) as usize;
                let roles = lifecycle.roles();
                let returned = roles.by_return
                    && !roles.is_customer(stage)
                    && roles.was_customer(|stage| slots.visits_of(row, stage));
                let one = StageWorth { customers: 1, returned: u64::from(returned), clv_micros };
                place(&mut worth.all, k, stage).add(one);
                if !segment.is_empty() {
                    place(worth.segment(&segment), k, stage).add(one);
                }
            }
        }
        worth
    }
}

/// The segment that these traits name; empty if they name none.
pub fn segment_of(traits: &Traits) -> Cow<'_, str> {
    match traits.get(SEGMENT) {
        Some(TraitValue::Text(text)) => Cow::Borrowed(text),
        Some(TraitValue::Number(number)) => number.to_string().into(),
        Some(TraitValue::Flag(flag)) => flag.to_string().into(),
        None => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::event::{ProfileChange, Source};
    use crate::pipeline::catalogue::Catalogue;
    use crate::pipeline::codec::tests::event;
    use crate::pipeline::lifecycle::preset;
    use crate::pipeline::plan::{Plan, Settings};
    use std::sync::Arc;

    #[test]
    fn a_customer_is_worth_what_it_bought_in_its_stage_and_segment() {
        let lifecycle = ("retention.toml".to_owned(), preset("retention").unwrap().to_owned());
        let catalogue = Catalogue::shipped();
        let model = crate::model::Model::of_one_term("clicks_7d", &catalogue);
        let plan = Plan::new(&catalogue, &[lifecycle], &model, Settings::default()).unwrap();
        let margin = plan.settings.margin;
        let mut engine = Engine::new(Arc::new(plan), false);
        for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
            let at = 1_767_225_600_000;
            let order = event(Source::Purchase, "order_completed", at, None);
            for _ in 0..n {
                engine.step(&crate::event::Event { customer_id: id.into(), ..order.clone() });
            }
            let traits =
                vec![(SEGMENT.into(), Some(TraitValue::Text(if n < 2 { "smb" } else { "vip" }.into())))];
            let profile = Some(Box::new(ProfileChange::Traits(traits)));
            let told = event(Source::Profile, "traits_updated", at, None);
            engine.step(&crate::event::Event { customer_id: id.into(), profile, ..told });
        }
        let worth = engine.worth();
        let sum = |stages: &Stages| {
            let of = |f: fn(&StageWorth) -> f64| stages[0].iter().map(f).sum::<f64>();
            (of(|s| s.customers as f64), of(StageWorth::clv_to_date))
        };
        assert_eq!(sum(&worth.all), (3.0, 3.0 * 12.5 * margin));
        assert_eq!(sum(&worth.segments["smb"]), (2.0, 12.5 * margin));
        assert_eq!(sum(&worth.segments["vip"]), (1.0, 2.0 * 12.5 * margin));
        for (stage, counted) in engine.population()[0].iter().zip(&worth.all[0]) {
            assert_eq!(*stage, counted.customers as i64);
        }
    }

    /// Bought, lapsed by silence, and is one of many who stand where prospects do: told apart, now and when it leaves.
    #[test]
    fn former_customers_are_told_apart_from_prospects() {
        let lifecycle = ("advocacy.toml".to_owned(), preset("advocacy").unwrap().to_owned());
        let catalogue = Catalogue::shipped();
        let model = crate::model::Model::of_one_term("clicks_7d", &catalogue);
        let plan = Plan::new(&catalogue, &[lifecycle], &model, Settings::default()).unwrap();
        let mut engine = Engine::new(Arc::new(plan), true);
        let (begin, year) = (1_767_225_600_000, 365 * crate::time::DAY_MS);
        let step = |engine: &mut Engine, id: &'static str, kind: &'static str, at| {
            let source = if kind == "order_completed" { Source::Purchase } else { Source::Clickstream };
            engine.step(&crate::event::Event { customer_id: id.into(), ..event(source, kind, at, None) });
        };
        step(&mut engine, "former", "order_completed", begin);
        step(&mut engine, "prospect", "page_viewed", begin);
        engine.run_until(begin + year);
        let returned =
            |engine: &Engine| engine.worth().all[0].iter().map(|stage| stage.returned).sum::<u64>();
        assert_eq!(returned(&engine), 1);
        step(&mut engine, "former", "order_completed", begin + year);
        step(&mut engine, "prospect", "order_completed", begin + year);
        assert_eq!(returned(&engine), 0);
        let left: Vec<_> =
            engine.traffic.moves().counts().filter(|(_, at, _)| at.from == "awareness").collect();
        let moved =
            left.iter().flat_map(|(_, _, left)| left.to()).map(|(_, moved)| (moved.all, moved.returned));
        assert_eq!(moved.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)), (2, 1));
    }

    fn one(micros: i64) -> Stages {
        vec![vec![StageWorth::default(), StageWorth { customers: 1, returned: 0, clv_micros: micros }]]
    }

    #[test]
    fn partitions_add_up_and_segments_beyond_the_limit_are_together() {
        let mut sum = Worth::default();
        for n in 0..SEGMENTS_MOST + 3 {
            let segment = format!("s{n:03}").into_boxed_str();
            sum.add(&Worth { all: one(500_000), segments: [(segment, one(500_000))].into() });
        }
        let all = sum.all[0][1];
        assert_eq!((all.customers, all.clv_to_date()), (35, 17.5));
        assert_eq!(all.mean_clv_to_date(), Some(0.5));
        assert_eq!(sum.all[0][0].mean_clv_to_date(), None);
        assert_eq!(sum.segments.len(), SEGMENTS_MOST + 1);
        assert_eq!(sum.segments[OTHERS][0][1].customers, 3);
    }
}
