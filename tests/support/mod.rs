//! What integration tests of the core share: a plan with a real, small model, and an engine driven by JSON.
//!
//! Decides nothing and expects nothing; the tests do.
#![allow(dead_code)] // every test binary takes the parts it needs

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use stagecast::event::Source;
use stagecast::event::decoder::Decoder;
use stagecast::event::native::{Envelope, decode};
use stagecast::model::artifact::{
    Definitions, Direction, Golden, Label, Model, SCHEMA, Term, Training, Transform, definition_hash,
};
use stagecast::model::metrics::{Interval, Report};
use stagecast::model::reference::{Bins, Reference};
use stagecast::model::value::{Kind, Orders, ValueModel};
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::engine::{Applied, Engine};
use stagecast::pipeline::layout::Layout;
use stagecast::pipeline::outbox::Channel;
use stagecast::pipeline::plan::{Plan, Settings};
use stagecast::pipeline::words::RowBuilder;
use stagecast::time::{DAY_MS, Ts};

/// A plan over the shipped catalogue with the model of [`small_model`].
pub fn plan(lifecycles: &[String], settings: Settings) -> Arc<Plan> {
    plan_of(lifecycles, &small_model(), settings)
}

/// The same with another model.
pub fn plan_of(lifecycles: &[String], model: &Model, settings: Settings) -> Arc<Plan> {
    let files: Vec<(String, String)> = lifecycles
        .iter()
        .enumerate()
        .map(|(i, text)| (format!("lifecycle-{i}.toml"), text.clone()))
        .collect();
    let catalogue = Catalogue::shipped();
    let plan = Plan::new(&catalogue, &files, model, settings);
    Arc::new(plan.unwrap_or_else(|error| panic!("{error}")))
}

/// Four features whose probability goes through all bands as customers order, click and stay away.
pub fn small_model() -> Model {
    model(
        0.3,
        &[
            ("days_since_order", Transform::Recency { cap: 60.0 }, (0.5, 0.3, 1.2)),
            ("orders_90d", Transform::Log1p, (0.7, 0.7, -0.8)),
            ("clicks_7d", Transform::Log1p, (1.0, 1.0, -0.6)),
            ("overdue_ratio", Transform::Cap { at: 4.0 }, (1.0, 1.0, 0.7)),
        ],
    )
}

/// A valid model of these terms, each with its mean, deviation and weight, over the shipped catalogue.
pub fn model(intercept: f64, terms: &[(&str, Transform, (f64, f64, f64))]) -> Model {
    model_over(&Catalogue::shipped(), intercept, terms)
}

/// The same over another catalogue.
pub fn model_over(
    catalogue: &Catalogue,
    intercept: f64,
    terms: &[(&str, Transform, (f64, f64, f64))],
) -> Model {
    let layout = Layout::new(catalogue, &mut RowBuilder::default()).expect("the catalogue");
    let hash = |name: &str| definition_hash(&layout.definition(name).expect("a feature of the catalogue"));
    let term = |(feature, transform, (mean, deviation, weight)): &(&str, Transform, (f64, f64, f64))| Term {
        feature: (*feature).into(),
        transform: *transform,
        with: None,
        mean: *mean,
        deviation: *deviation,
        weight: *weight,
    };
    let mut model = Model {
        schema: SCHEMA,
        name: "small".into(),
        version: "1".into(),
        created: 0,
        label: Label::NoOrder,
        horizon: 30 * DAY_MS,
        lead: 0,
        active_within: 90 * DAY_MS,
        direction: Direction::Churn,
        intercept,
        terms: terms.iter().map(term).collect(),
        isotonic: None,
        calibration: None,
        value: None,
        recalibrated: None,
        training: training(),
        reference: Some(reference(terms.iter().map(|(name, ..)| *name))),
        catalogue: terms.iter().map(|(name, ..)| ((*name).to_owned(), hash(name))).collect(),
        golden: Vec::new(),
    };
    model.golden = [0.0, 3.0, f64::INFINITY].map(|value| golden(&model, value)).to_vec();
    model
}

/// The same model, foretelling orders of customers who buy the more often the smaller `alpha` is.
pub fn foretelling(mut model: Model, alpha: f64) -> Model {
    let orders = Orders {
        kind: Kind::BgNbd,
        r: 0.5,
        alpha,
        a: 0.8,
        b: 2.5,
        log_likelihood: -5.0,
        dropout_identified: true,
    };
    let layout =
        Layout::new(&Catalogue::shipped(), &mut RowBuilder::default()).expect("the shipped catalogue");
    let value = ValueModel { orders, spend: None, annual_discount: 0.1, buyers: 300 };
    model.add_value(value, &layout).expect("a model that foretells");
    model
}

/// What training would have seen, so that a census is taken on the way.
fn reference<'n>(features: impl Iterator<Item = &'n str>) -> Reference {
    let bins = || Bins::of((0..100).map(|i| f64::from(i % 40)).collect()).expect("values");
    Reference { features: features.map(|name| (name.to_owned(), bins())).collect(), score: bins() }
}

/// What the model must give where every feature has this value, by its definition.
fn golden(model: &Model, value: f64) -> Golden {
    let share = |t: &Term| t.weight * (t.transform.apply(value) - t.mean) / t.deviation;
    let logit = model.intercept + model.terms.iter().map(share).sum::<f64>();
    let features: BTreeMap<String, f64> = model.catalogue.keys().map(|name| (name.clone(), value)).collect();
    Golden { features, p_churn: 1.0 / (1.0 + (-logit).exp()) }
}

fn training() -> Training {
    let half = Interval { value: 0.5, low: 0.4, high: 0.6 };
    let held_back = Report {
        examples: 2,
        churned: 1,
        base_rate: 0.5,
        mean_p: 0.5,
        roc_auc: half,
        pr_auc: 0.5,
        log_loss: 0.7,
        brier: 0.25,
        ece: 0.0,
        lift_10: 1.0,
        capture_10: 0.1,
    };
    Training {
        examples: 2,
        customers: 2,
        base_rate: 0.5,
        first_cut: 0,
        last_cut: 1,
        held_back_from: 1,
        design: "by hand".into(),
        alpha: 1.0,
        held_back,
    }
}

/// One output record.
#[derive(Clone, Debug, PartialEq)]
pub struct Out {
    pub channel: Channel,
    pub key: String,
    pub ts: Ts,
    /// The CloudEvents id.
    pub id: u128,
    pub bytes: Vec<u8>,
}

impl Out {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("an output is JSON")
    }
}

/// An engine that reads native JSON.
pub struct Driver {
    pub engine: Engine,
}

impl Driver {
    /// With a journal, so that it can roll back.
    pub fn new(plan: &Arc<Plan>) -> Self {
        Driver { engine: Engine::new(Arc::clone(plan), true) }
    }

    /// Decodes and applies one record; panics when it is no usable event.
    pub fn apply(&mut self, source: Source, json: &[u8]) -> Applied {
        let envelope = Envelope { source, key: None, timestamp: None, latest: None };
        let money = self.engine.plan().settings.money.clone();
        let event = decode(json, &envelope, &money);
        let event = event.unwrap_or_else(|reject| panic!("{reject}: {}", String::from_utf8_lossy(json)));
        self.engine.step_alone(&event)
    }

    /// The same for a record of another format.
    pub fn apply_as(&mut self, decoder: &Decoder, source: Source, json: &[u8]) -> Applied {
        let envelope = Envelope { source, key: None, timestamp: None, latest: None };
        let money = self.engine.plan().settings.money.clone();
        let event = decoder.decode(json, &envelope, &(), &money);
        let event = event.unwrap_or_else(|reject| panic!("{reject}: {}", String::from_utf8_lossy(json)));
        self.engine.step_alone(&event)
    }

    /// What is due and not committed yet, in order.
    pub fn outputs(&self) -> Vec<Out> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a key is text");
        let out = |(record, key, value): (&stagecast::pipeline::outbox::Record, &[u8], &[u8])| Out {
            channel: record.channel,
            key: text(key),
            ts: record.ts,
            id: record.id,
            bytes: value.to_vec(),
        };
        self.engine.outbox.records().map(out).collect()
    }

    /// Commits, and returns what went out.
    pub fn commit(&mut self) -> Vec<Out> {
        let outputs = self.outputs();
        self.engine.commit();
        outputs
    }

    /// The encoded state of every customer, by id.
    pub fn states(&self) -> BTreeMap<String, Vec<u8>> {
        let store = self.engine.store();
        let state = |index: u32| {
            let mut bytes = Vec::new();
            self.engine.encode(index, &mut bytes);
            (store.id(index).to_string(), bytes)
        };
        store.indices().map(state).collect()
    }

    /// A new engine that goes on from these states.
    pub fn restored(plan: &Arc<Plan>, states: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut driver = Driver::new(plan);
        for (id, bytes) in states {
            driver.engine.restore(id, bytes).unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        driver.engine.finish_restore();
        driver
    }

    /// Customers per lifecycle and stage, counted afresh.
    pub fn recount(&self) -> Vec<Vec<i64>> {
        let (plan, store) = (self.engine.plan(), self.engine.store());
        let mut counts: Vec<Vec<i64>> =
            plan.lifecycles.iter().map(|(l, _)| vec![0; l.stages().len()]).collect();
        for index in store.indices() {
            for ((_, slots), count) in plan.lifecycles.iter().zip(&mut counts) {
                count[slots.stage.get(&store.look(index).row) as usize] += 1;
            }
        }
        counts
    }
}
