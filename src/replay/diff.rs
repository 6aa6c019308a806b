//! What another definition of a lifecycle would do to customers, before it is applied.
//!
//! The input is replayed under both definitions at once. Then the states of the old one are taken in by an
//! engine of the new one, as a restart does it: the second answer is where customers would go on applying it,
//! the first where they would stand had it always been so. They differ where a lifecycle remembers its past
//! (`from`, `stay`, `min_dwell`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::{Inputs, Merged, RawRecord, Rejected};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{Reject, Source};
use crate::pipeline::engine::Engine;
use crate::pipeline::plan::Plan;
use crate::time::Ts;

/// Who would move from where to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    pub as_of: Ts,
    pub customers: u64,
    /// Those whose stage is another, in order of their ids.
    pub moved: Vec<Moved>,
}

/// A customer's stage now, after applying the new definition, and had it always been in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    pub customer_id: String,
    pub from: String,
    pub on_applying: String,
    pub always: String,
}

/// How many customers go from one stage to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub on_applying: u64,
    pub always: u64,
}

impl Diff {
    /// By stage before and after; without those that stay.
    pub fn counts(&self) -> BTreeMap<(&str, &str), Counts> {
        let mut counts: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
        for moved in &self.moved {
            let Moved { from, on_applying, always, .. } = moved;
            if from != on_applying {
                counts.entry((from, on_applying)).or_default().on_applying += 1;
            }
            if from != always {
                counts.entry((from, always)).or_default().always += 1;
            }
        }
        counts
    }

    /// Customers that stay where they are.
    pub fn unmoved(&self) -> Counts {
        let moved = |to: fn(&Moved) -> &String| self.moved.iter().filter(|m| m.from != *to(m)).count() as u64;
        Counts {
            on_applying: self.customers - moved(|m| &m.on_applying),
            always: self.customers - moved(|m| &m.always),
        }
    }
}

/// Replays the folder under two plans of one lifecycle each, up to and including `until`, or to its end.
///
/// `progress` is told the number of events now and then.
pub fn diff(
    plans: (Plan, Plan),
    config: &Config,
    input: &Path,
    until: Option<Ts>,
    progress: &dyn Fn(u64),
) -> Result<Diff> {
    let [old_plan, new_plan] = [plans.0, plans.1].map(Arc::new);
    let mut old = Engine::new(Arc::clone(&old_plan), false);
    let mut always = Engine::new(Arc::clone(&new_plan), false);
    let mut events = Merged::new(Inputs::open(input, config)?, config);
    let (mut clock, mut count) = (None, 0u64);
    while let Some(line) = events.next(&mut Passed)? {
        let event = line.event();
        if until.is_some_and(|until| event.ts > until) {
            continue;
        }
        let reached = clock.unwrap_or(Ts::MIN);
        let now = if line.early { reached } else { event.ts.max(reached) };
        clock = Some(now);
        for engine in [&mut old, &mut always] {
            engine.step_alone(event);
            while engine.tick(now.saturating_sub(config.time.grace_ms)) {
                engine.commit();
            }
            engine.identities_mut().take_refused();
            engine.commit();
        }
        count += 1;
        if count.is_multiple_of(1_024) {
            progress(count);
        }
    }
    let as_of = until.or(clock).ok_or_else(|| {
        Error::user(format!("{} holds no event that can be used", input.display()))
            .hint("`stagecast replay` writes the records that cannot be used to dlq.ndjson, with the reasons")
    })?;
    run_on(&mut old, as_of);
    run_on(&mut always, as_of);
    let applied = applied(&old, &new_plan, as_of)?;
    Ok(compare(&old, &applied, &always, as_of))
}

/// The customers of one engine as another goes on with them after a restart.
fn applied(old: &Engine, plan: &Arc<Plan>, as_of: Ts) -> Result<Engine> {
    let mut engine = Engine::new(Arc::clone(plan), false);
    engine.learn_layout(old.plan().layout_id, old.plan().description.clone());
    let mut state = Vec::new();
    for index in old.store().indices() {
        state.clear();
        old.encode(index, &mut state);
        let carried = engine.restore(old.store().id(index), &state);
        carried.map_err(|error| Error::world(format!("a state cannot be carried over: {error}")))?;
    }
    engine.finish_restore();
    while engine.reconcile(as_of) {
        engine.commit();
    }
    run_on(&mut engine, as_of);
    Ok(engine)
}

fn run_on(engine: &mut Engine, until: Ts) {
    let mut from = Some(0);
    while let Some(next) = from {
        from = engine.run_on(until, next);
        engine.commit();
    }
}

fn compare(old: &Engine, applied: &Engine, always: &Engine, as_of: Ts) -> Diff {
    let mut moved = Vec::new();
    for index in old.store().indices() {
        let id = old.store().id(index);
        let [from, on_applying, always] = [old, applied, always].map(|engine| stage(engine, id));
        if from != on_applying || from != always {
            moved.push(Moved { customer_id: id.to_string(), from, on_applying, always });
        }
    }
    moved.sort_by(|a, b| a.customer_id.cmp(&b.customer_id));
    Diff { as_of, customers: old.store().len() as u64, moved }
}

/// A customer's stage in the one lifecycle of an engine.
fn stage(engine: &Engine, id: &str) -> String {
    let row = engine.store().find(id).map(|index| engine.store().look(index).row);
    let stage = row.zip(engine.plan().lifecycles.first()).and_then(|(row, (lifecycle, slots))| {
        lifecycle.stages().get(slots.stage.get(&row) as usize).map(|stage| stage.name.to_string())
    });
    stage.unwrap_or_default()
}

/// What cannot be used moves nobody under either definition.
struct Passed;

impl Rejected for Passed {
    fn rejected(&mut self, _: Source, _: &RawRecord, _: &Reject) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::setup;

    const OLD: &str = "name = \"l\"\ninitial = \"seen\"\n\
        [[stage]]\nname = \"buyer\"\nenter = \"orders_lifetime >= 1\"\nstay = \"true\"\n\
        [[stage]]\nname = \"seen\"\nenter = \"false\"\n";

    fn at(until: Option<Ts>) -> Diff {
        let dir = tempfile::tempdir().unwrap();
        let order = |c: &str, day: u32| {
            format!(
                r#"{{"customer_id":"{c}","type":"order_completed","amount":1,"ts":"2026-01-{day:02}T00:00:00Z"}}"#
            )
        };
        // `a` buys twice, `b` once and long ago by the end, `c` only looks.
        let orders = [order("a", 1), order("b", 1), order("a", 2), "not json".into()].join("\n");
        std::fs::write(dir.path().join("purchase.ndjson"), orders).unwrap();
        let click = r#"{"customer_id":"c","type":"page_viewed","ts":"2026-01-20T00:00:00Z"}"#;
        std::fs::write(dir.path().join("clickstream.ndjson"), click).unwrap();
        let new = "name = \"l\"\ninitial = \"seen\"\n\
            [[stage]]\nname = \"fan\"\nenter = \"orders_lifetime >= 2\"\n\
            [[stage]]\nname = \"fresh\"\nenter = \"orders_7d >= 1\"\nstay = \"true\"\n\
            [[stage]]\nname = \"seen\"\nenter = \"false\"\n";
        let layers = Layers { set: vec!["time.clock=events".into()], ..Layers::default() };
        let config = Config::from_layers(&layers).unwrap();
        let [old, new] =
            [OLD, new].map(|text| setup::plan_of_lifecycle(&config, ("l.toml".into(), text.into())).unwrap());
        diff((old, new), &config, dir.path(), until, &|_| {}).unwrap()
    }

    #[test]
    fn both_answers_are_as_of_the_end_of_the_input_or_the_instant_asked_for() {
        let at_end = at(None);
        assert_eq!((at_end.customers, at_end.as_of), (3, 1_768_867_200_000));
        let of = |on_applying, always| Counts { on_applying, always };
        let expected =
            [(("buyer", "fan"), of(1, 1)), (("buyer", "fresh"), of(0, 1)), (("buyer", "seen"), of(1, 0))];
        assert_eq!(at_end.counts(), expected.into());
        let on_the_first = at(Some(1_767_225_600_000));
        assert_eq!(on_the_first.counts(), [(("buyer", "fresh"), of(2, 2))].into());
        assert_eq!(on_the_first.customers, 2, "later events have not happened");
    }

    #[test]
    fn moves_are_counted_by_stage_before_and_after() {
        let moved = |id: &str, from: &str, on_applying: &str, always: &str| Moved {
            customer_id: id.into(),
            from: from.into(),
            on_applying: on_applying.into(),
            always: always.into(),
        };
        let moved = vec![moved("a", "x", "y", "y"), moved("b", "x", "x", "y"), moved("c", "y", "x", "y")];
        let diff = Diff { as_of: 0, customers: 5, moved };
        let of = |on_applying, always| Counts { on_applying, always };
        assert_eq!(diff.counts(), [(("x", "y"), of(1, 2)), (("y", "x"), of(1, 0))].into());
        assert_eq!(diff.unmoved(), of(3, 3));
    }
}
