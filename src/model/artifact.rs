//! The churn model as a file: JSON that a person can read, and every check that can be made of it alone.
//!
//! Owns the schema and its checks. Must not score (that is [`super::scorer`]) and must not fit (that is
//! [`super::fit`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::metrics::Report;
use super::reference::Reference;
pub use super::transform::Transform;
use super::transform::VALUE_MOST;
use super::value::{self, ValueModel};
use crate::error::{Error, Result};
use crate::time::Ts;

/// The schema this program reads and writes.
pub const SCHEMA: u32 = 1;
pub const TERMS_MOST: usize = 64;
/// Terms that are interactions.
pub const PRODUCTS_MOST: usize = 8;
/// With the intercept, 63 numbers of at most [`LOGIT_MOST`] each: their sum stays exact (see `scorer`).
pub const FEATURES_MOST: usize = 62;
/// The largest share of one feature, or of the intercept, in the logit: odds of 10^14 to 1.
pub const LOGIT_MOST: f64 = 32.0;
pub const WEIGHT_MOST: f64 = 1e6;
pub const DEVIATION_LEAST: f64 = 1e-9;
const NAME_BYTES_MOST: usize = 128;

/// A churn model: logit = intercept + Σ weight × (value − mean) / deviation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub schema: u32,
    pub name: String,
    pub version: String,
    /// Event time at which the training data ends; never a wall clock, so that a fit can be repeated.
    #[serde(with = "instant")]
    pub created: Ts,
    pub label: Label,
    #[serde(with = "span")]
    pub horizon: i64,
    /// The gap between the instant of scoring and the horizon.
    #[serde(with = "span")]
    pub lead: i64,
    /// Who was an example: customers with an event in this span before the cut.
    #[serde(with = "span")]
    pub active_within: i64,
    pub direction: Direction,
    pub intercept: f64,
    pub terms: Vec<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What a customer is still worth, where the input held enough orders to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueModel>,
    /// Where its probabilities were set right after training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recalibrated: Option<Recalibration>,
    pub training: Training,
    /// How features and score were spread in training; without it drift cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// Feature → hash of its definition at training time.
    pub catalogue: BTreeMap<String, String>,
    pub golden: Vec<Golden>,
}

/// What counts as churn within the horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    NoOrder,
    NoEvent,
    Cancelled,
}

/// Which way the weights point. There is one answer, and the file says it: a positive weight means churn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Churn,
}

/// One summand of the logit. With `with`, its value is the product of both factors (an interaction).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    pub feature: String,
    pub transform: Transform,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Factor>,
    pub mean: f64,
    pub deviation: f64,
    pub weight: f64,
}

/// The second factor of an interaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    pub feature: String,
    pub transform: Transform,
}

/// Platt scaling in logit space: slope × logit + intercept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    pub slope: f64,
    pub intercept: f64,
}

/// What `recalibrate` made of another version: slope and intercept on top of that one's logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recalibration {
    /// The version it was.
    pub from: String,
    pub outcomes: usize,
    pub slope: f64,
    pub intercept: f64,
}

/// What the model was made from, and how it did on the part of the period it had not been fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    pub examples: usize,
    pub customers: usize,
    pub base_rate: f64,
    #[serde(with = "instant")]
    pub first_cut: Ts,
    #[serde(with = "instant")]
    pub last_cut: Ts,
    /// First cut of the later slice, on which design, size and `held_back` were decided.
    #[serde(with = "instant")]
    pub held_back_from: Ts,
    pub design: String,
    pub alpha: f64,
    pub held_back: Report,
}

/// A feature vector and the probability that must come out of it. `null` stands for +inf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    #[serde(with = "null_for_infinity")]
    pub features: BTreeMap<String, f64>,
    pub p_churn: f64,
}

/// The canonical text of a feature's definition, from which its hash is taken.
pub trait Definitions {
    fn definition(&self, name: &str) -> Option<String>;
}

/// The first 64 bits of the SHA-256 of a definition, as 16 hexadecimal digits.
pub fn definition_hash(definition: &str) -> String {
    let digest = Sha256::digest(definition.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Model {
    pub fn read(path: &Path) -> Result<Model> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read model", path, &e))?;
        Model::from_json(&text, &path.display().to_string())
    }

    /// Writes under a temporary name and renames, so that a running instance never loads half a model.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let partial = path.with_file_name(name);
        std::fs::write(&partial, self.to_json()?).map_err(|e| Error::io("write", &partial, &e))?;
        std::fs::rename(&partial, path).map_err(|e| Error::io("write", path, &e))
    }

    /// Parses and checks; `origin` is the file's name for messages.
    pub fn from_json(text: &str, origin: &str) -> Result<Model> {
        let model: Model = serde_json::from_str(text).map_err(|e| {
            Error::user(format!("{origin}:{}: not a churn model: {e}", e.line()))
                .hint("`stagecast train` writes model files; a newer program's file needs that newer program")
        })?;
        model.check().map_err(|mut error| {
            error.what = format!("{origin}: {}", error.what);
            error
        })?;
        Ok(model)
    }

    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|json| json + "\n")
            .map_err(|e| Error::world(format!("model {} cannot be written as JSON: {e}", self.name)))
    }

    /// The features the model looks at, in the order of their names.
    pub fn features(&self) -> BTreeSet<&str> {
        self.terms.iter().flat_map(Term::features).collect()
    }

    /// Those, and the features that values are foretold from.
    fn inputs(&self) -> BTreeSet<&str> {
        let of_value = self.value.iter().flat_map(|_| value::FEATURES);
        self.features().into_iter().chain(of_value).collect()
    }

    /// Adds what a customer is worth, with the definitions of the features it is foretold from.
    pub fn add_value(&mut self, value: ValueModel, definitions: &dyn Definitions) -> Result<()> {
        self.value = Some(value);
        self.catalogue = self.hashes(definitions)?;
        self.check()
    }

    /// The hash of each feature's definition.
    pub(super) fn hashes(&self, definitions: &dyn Definitions) -> Result<BTreeMap<String, String>> {
        let hash = |name: &str| {
            let definition = definitions.definition(name).ok_or_else(|| {
                Error::world(format!("feature `{name}` is in the dataset but has no definition"))
            })?;
            Ok((name.to_owned(), definition_hash(&definition)))
        };
        self.inputs().into_iter().map(hash).collect()
    }

    /// Every check that needs nothing but the file.
    pub fn check(&self) -> Result<()> {
        let edited = |what: String| Error::user(what).hint("train the model again rather than editing it");
        if self.schema != SCHEMA {
            let what = format!("schema {} is not the one this program reads ({SCHEMA})", self.schema);
            return Err(Error::user(what).hint("train the model again with this version of stagecast"));
        }
        self.check_head().map_err(edited)?;
        self.check_terms().map_err(edited)?;
        self.value.as_ref().map_or(Ok(()), ValueModel::check).map_err(edited)?;
        self.check_catalogue().map_err(edited)?;
        let reference = |reference: &Reference| reference.check(self.features().into_iter());
        self.reference.as_ref().map_or(Ok(()), reference).map_err(edited)?;
        self.check_golden().map_err(edited)
    }

    fn check_head(&self) -> Result<(), String> {
        for (key, text) in [("name", &self.name), ("version", &self.version)] {
            if text.is_empty() || text.len() > NAME_BYTES_MOST {
                return Err(format!("`{key}` must have 1 to {NAME_BYTES_MOST} bytes, it has {}", text.len()));
            }
        }
        if self.horizon <= 0 {
            return Err("`horizon` must be longer than nothing".into());
        }
        if self.intercept.is_nan() || self.intercept.abs() > LOGIT_MOST {
            return Err(format!("`intercept` is {}, beyond ±{LOGIT_MOST}", self.intercept));
        }
        if let Some(c) = self.calibration {
            if !(c.slope > 0.0 && c.slope <= 100.0 && c.intercept.abs() <= LOGIT_MOST) {
                let (slope, intercept) = (c.slope, c.intercept);
                return Err(format!("calibration slope {slope} or intercept {intercept} is out of bounds"));
            }
            if (c.slope * self.intercept + c.intercept).abs() > LOGIT_MOST {
                return Err(format!("the calibrated intercept is beyond ±{LOGIT_MOST}"));
            }
        }
        Ok(())
    }

    fn check_terms(&self) -> Result<(), String> {
        if self.terms.is_empty() || self.terms.len() > TERMS_MOST {
            return Err(format!("a model has 1 to {TERMS_MOST} terms, this one {}", self.terms.len()));
        }
        let mut seen = BTreeSet::new();
        for (i, term) in self.terms.iter().enumerate() {
            let place = format!("terms[{i}] (`{}`)", term.feature);
            term.check().map_err(|what| format!("{place}: {what}"))?;
            if !seen.insert(term.key()) {
                return Err(format!("{place}: the same feature and transform occur twice"));
            }
        }
        let products = self.terms.iter().filter(|term| term.with.is_some()).count();
        if products > PRODUCTS_MOST {
            return Err(format!(
                "a model has no more than {PRODUCTS_MOST} interactions, this one {products}"
            ));
        }
        let features = self.features().len();
        if features > FEATURES_MOST {
            return Err(format!(
                "a model looks at no more than {FEATURES_MOST} features, this one at {features}"
            ));
        }
        Ok(())
    }

    fn check_catalogue(&self) -> Result<(), String> {
        let features = self.inputs();
        let foretold = |name: &&&str| [value::P_NO_ORDER, value::CLV_365D].contains(name);
        if let Some(name) = features.iter().find(foretold).filter(|_| self.value.is_none()) {
            return Err(format!("a term looks at `{name}`, which without `value` nothing foretells"));
        }
        if let Some(name) = features.iter().find(|name| !self.catalogue.contains_key(**name)) {
            return Err(format!("`catalogue` has no definition hash for `{name}`"));
        }
        match self.catalogue.keys().find(|name| !features.contains(name.as_str())) {
            Some(name) => Err(format!("`catalogue` names `{name}`, which nothing uses")),
            None => Ok(()),
        }
    }

    fn check_golden(&self) -> Result<(), String> {
        if self.golden.is_empty() {
            return Err(
                "there are no golden vectors, so that nothing proves the model scores as trained".into()
            );
        }
        let features = self.features();
        for (i, golden) in self.golden.iter().enumerate() {
            if !golden.features.keys().map(String::as_str).eq(features.iter().copied()) {
                return Err(format!("golden[{i}] must give a value for exactly the features of the terms"));
            }
            if !(0.0..=1.0).contains(&golden.p_churn) {
                return Err(format!("golden[{i}]: p_churn is {}, not a probability", golden.p_churn));
            }
        }
        Ok(())
    }

    /// Refuses a model whose features are no longer computed as they were in training.
    pub fn check_definitions(&self, definitions: &dyn Definitions) -> Result<()> {
        for (name, trained) in &self.catalogue {
            let Some(definition) = definitions.definition(name) else { continue };
            let now = definition_hash(&definition);
            if now != *trained {
                return Err(Error::user(format!(
                    "model {} {}: feature `{name}` is not defined as it was in training (hash {now}, trained on {trained})",
                    self.name, self.version
                ))
                .hint("restore the feature's definition, or train the model again"));
            }
        }
        Ok(())
    }
}

impl Term {
    pub fn features(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.feature.as_str()).chain(self.with.iter().map(|with| with.feature.as_str()))
    }

    fn check(&self) -> Result<(), String> {
        let transforms = std::iter::once(self.transform).chain(self.with.iter().map(|with| with.transform));
        for transform in transforms {
            if !transform.bend_is_usable() {
                return Err(format!("{transform:?} needs a bound above 0 and at most {VALUE_MOST}"));
            }
        }
        if self.with.as_ref().is_some_and(|with| with.feature == self.feature) {
            return Err("`with` must name another feature; use `hinge` for a curve".into());
        }
        if !(self.deviation.is_finite() && self.deviation >= DEVIATION_LEAST) {
            return Err(format!("`deviation` is {}, below {DEVIATION_LEAST}", self.deviation));
        }
        if !self.mean.is_finite() {
            return Err("`mean` is not finite".into());
        }
        if self.weight.is_nan() || self.weight.abs() > WEIGHT_MOST {
            return Err(format!("`weight` is {}, beyond ±{WEIGHT_MOST}", self.weight));
        }
        Ok(())
    }

    /// Equal for terms that always have the same value, in whichever order an interaction is written.
    fn key(&self) -> [Option<(&str, (u8, u64))>; 2] {
        let first = Some((self.feature.as_str(), self.transform.key()));
        let second = self.with.as_ref().map(|with| (with.feature.as_str(), with.transform.key()));
        if second.is_some() && second < first { [second, first] } else { [first, second] }
    }
}

/// An instant as RFC 3339.
mod instant {
    use crate::time::{Ts, format_rfc3339, parse_rfc3339};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(ts: &Ts, serializer: S) -> Result<S::Ok, S::Error> {
        format_rfc3339(*ts).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ts, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not an RFC 3339 instant")))
    }
}

/// A span of time as `30d`.
mod span {
    use crate::time::{format_span, parse_span};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        format_span(*ms).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        parse_span(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Numbers by name, where `null` is +inf, as in every feature vector that leaves the program.
mod null_for_infinity {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub fn serialize<S: Serializer>(map: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, x)| (name, x.is_finite().then_some(*x))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let map = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(name, x)| (name, x.unwrap_or(f64::INFINITY))).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::scorer::Scorer;
    use crate::pipeline::facts::{FeatureId, FeatureNames, Motion};

    /// A catalogue of six features.
    pub(crate) struct Names;

    const NAMES: [&str; 6] =
        ["orders_90d", "days_since_order", "revenue_90d", "sentiment_90d", "tenure_days", "clicks_trend_14d"];

    impl FeatureNames for Names {
        fn id(&self, name: &str) -> Option<FeatureId> {
            NAMES.iter().position(|n| *n == name).map(|i| FeatureId(i as u16))
        }

        fn names(&self) -> Vec<&str> {
            NAMES.to_vec()
        }

        fn motion(&self, _: FeatureId) -> Motion {
            Motion::Still
        }
    }

    impl Definitions for Names {
        fn definition(&self, name: &str) -> Option<String> {
            self.id(name).map(|_| format!("{name} as defined"))
        }
    }

    pub(crate) fn term(feature: &str, transform: Transform, weight: f64) -> Term {
        Term { feature: feature.into(), transform, with: None, mean: 0.4, deviation: 1.3, weight }
    }

    pub(crate) fn with(term: Term, feature: &str, transform: Transform) -> Term {
        Term { with: Some(Factor { feature: feature.into(), transform }), ..term }
    }

    /// One of everything.
    pub(crate) fn model() -> Model {
        let recency = Transform::Recency { cap: 90.0 };
        let far = |term: Term| Term { mean: 120.0, deviation: 80.0, ..term };
        let mut model = Model {
            schema: SCHEMA,
            name: "churn".into(),
            version: "1".into(),
            created: 1_767_225_600_000,
            label: Label::NoOrder,
            horizon: 30 * crate::time::DAY_MS,
            lead: 0,
            active_within: 90 * crate::time::DAY_MS,
            direction: Direction::Churn,
            intercept: -0.7,
            terms: vec![
                term("orders_90d", Transform::Log1p, -0.6),
                term("days_since_order", recency, 0.9),
                term("days_since_order", Transform::Never, 0.3),
                term("days_since_order", Transform::Log1pCap { at: 120.0 }, 0.2),
                far(term("days_since_order", Transform::Hinge { knot: 30.0 }, 0.25)),
                with(term("days_since_order", recency, 0.4), "orders_90d", Transform::Log1p),
                far(term("revenue_90d", Transform::Cap { at: 400.0 }, -0.5)),
                term("sentiment_90d", Transform::Identity, -0.2),
                term("sentiment_90d", Transform::Log1p, 0.1),
                far(term("orders_90d", Transform::Identity, 0.2)),
            ],
            calibration: None,
            value: None,
            recalibrated: None,
            training: training(),
            reference: None,
            catalogue: BTreeMap::new(),
            golden: Vec::new(),
        };
        model.keep_only_what_terms_use();
        model
    }

    /// As many terms as a large model has.
    pub(crate) fn wide_model() -> Model {
        let mut model = model();
        for name in NAMES {
            for transform in [
                Transform::Log1p,
                Transform::Log1pCap { at: 77.0 },
                Transform::Recency { cap: 33.0 },
                Transform::Hinge { knot: 3.0 },
            ] {
                let new = Term { deviation: 50.0, ..term(name, transform, 0.1) };
                if model.terms.iter().all(|t| t.key() != new.key()) && model.terms.len() < 25 {
                    model.terms.push(new);
                }
            }
        }
        model.keep_only_what_terms_use();
        model
    }

    fn training() -> Training {
        let p = [0.2, 0.9, 0.4];
        let report = crate::model::metrics::report(&p, &[false, true, false], &[1, 2, 3], Default::default());
        Training {
            examples: 3,
            customers: 3,
            base_rate: 1.0 / 3.0,
            first_cut: 0,
            last_cut: 1,
            held_back_from: 1,
            design: "plain".into(),
            alpha: 1.0,
            held_back: report.unwrap(),
        }
    }

    impl Model {
        pub(crate) fn keep_only_what_terms_use(&mut self) {
            let hash = |name: &str| definition_hash(&format!("{name} as defined"));
            self.catalogue = self.features().into_iter().map(|name| (name.to_owned(), hash(name))).collect();
            let features =
                |value: f64| self.features().into_iter().map(|name| (name.to_owned(), value)).collect();
            self.golden = [0.0, 2.0, f64::INFINITY]
                .map(|value| Golden { features: features(value), p_churn: 0.5 })
                .to_vec();
            self.renew_golden();
        }

        /// Makes the golden vectors those of the model as it stands.
        pub(crate) fn renew_golden(&mut self) {
            let mut golden = self.golden.clone();
            for vector in &mut golden {
                let value = |name: &&str| vector.features.get(*name).copied().unwrap_or(0.0);
                let features: Vec<f64> = NAMES.iter().map(value).collect();
                vector.p_churn = Scorer::p_of(self, &Names, &features).unwrap_or(0.5);
            }
            self.golden = golden;
        }
    }

    #[test]
    fn a_model_written_and_read_is_the_same_model() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("churn.json");
        let model = model();
        model.write(&path).unwrap();
        assert_eq!(Model::read(&path).unwrap(), model);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary stays");
        crate::model::load(&path, &Names).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for readable in [
            "\"horizon\": \"30d\"",
            "\"created\": \"2026-01-01T00:00:00.000Z\"",
            "\"recency\": {",
            "\"log1p\"",
        ] {
            assert!(text.contains(readable), "{readable}");
        }
    }

    /// Changes one place of the written model and gives the refusal.
    fn refusal(from: &str, to: &str) -> String {
        let text = model().to_json().unwrap();
        assert!(text.contains(from), "{from}");
        let error = Model::from_json(&text.replacen(from, to, 1), "churn.json").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint.is_some());
        error.what
    }

    #[test]
    fn a_broken_file_is_refused_with_the_place() {
        for (from, to, says) in [
            ("\"schema\": 1", "\"schema\": 2", "churn.json: schema 2"),
            ("\"label\"", "\"lable\"", "churn.json:6: not a churn model: unknown field `lable`"),
            ("\"no_order\"", "\"no_orders\"", "unknown variant `no_orders`"),
            ("\"direction\": \"churn\"", "\"direction\": \"stay\"", "unknown variant `stay`"),
            ("\"cap\": 90.0", "\"cap\": 0.0", "terms[1] (`days_since_order`): Recency"),
            ("\"cap\": 90.0", "\"kap\": 90.0", "unknown field `kap`"),
            ("\"never\"", "\"whenever\"", "unknown variant `whenever`"),
            ("\"deviation\": 1.3", "\"deviation\": 0.0", "terms[0] (`orders_90d`): `deviation`"),
            ("\"weight\": -0.6", "\"weight\": -6e9", "`weight` is -6000000000"),
            ("\"weight\": -0.6", "\"weight\": null", "invalid type: null"),
            ("\"intercept\": -0.7", "\"intercept\": 77", "`intercept` is 77"),
            ("\"horizon\": \"30d\"", "\"horizon\": \"0d\"", "`horizon`"),
            ("\"horizon\": \"30d\"", "\"horizon\": \"soon\"", "`soon` is not a span"),
            ("\"hinge\"", "\"recency\"", "unknown field `knot`"),
            (
                "\"feature\": \"orders_90d\",\n        \"transform\": \"log1p\"",
                "\"feature\": \"days_since_order\",\n        \"transform\": \"log1p\"",
                "must name another feature",
            ),
        ] {
            let what = refusal(from, to);
            assert!(what.contains(says), "{what}");
        }
    }

    #[test]
    fn duplicates_missing_hashes_and_missing_proofs_are_refused() {
        let check = |change: &dyn Fn(&mut Model), says: &str| {
            let mut model = model();
            change(&mut model);
            let error = model.check().unwrap_err();
            assert!(error.what.contains(says), "{error}");
        };
        check(&|m| m.terms.push(m.terms[0].clone()), "terms[10] (`orders_90d`): the same feature");
        check(
            &|m| {
                m.terms.push(with(
                    term("orders_90d", Transform::Log1p, 1.0),
                    "days_since_order",
                    Transform::Recency { cap: 90.0 },
                ))
            },
            "occur twice",
        );
        check(&|m| m.terms.clear(), "1 to 64 terms");
        check(
            &|m| {
                let caps = (1..=9).map(|at| Transform::Cap { at: f64::from(at) });
                let product = |t| with(term("orders_90d", t, 0.1), "revenue_90d", Transform::Log1p);
                m.terms = caps.map(product).collect();
            },
            "no more than 8 interactions",
        );
        check(&|m| drop(m.catalogue.remove("orders_90d")), "no definition hash for `orders_90d`");
        check(&|m| drop(m.catalogue.insert("x".into(), "0".into())), "names `x`, which nothing uses");
        check(&|m| m.golden.clear(), "no golden vectors");
        check(&|m| m.golden[1].features.clear(), "golden[1]");
        check(&|m| m.golden[0].p_churn = f64::NAN, "golden[0]");
        check(&|m| m.calibration = Some(Calibration { slope: -1.0, intercept: 0.0 }), "slope -1");
    }

    #[test]
    fn a_feature_that_is_computed_otherwise_than_in_training_is_refused() {
        struct Changed;
        impl Definitions for Changed {
            fn definition(&self, name: &str) -> Option<String> {
                Some(format!("{name} as {}", if name == "revenue_90d" { "changed" } else { "defined" }))
            }
        }
        model().check_definitions(&Names).unwrap();
        let error = model().check_definitions(&Changed).unwrap_err();
        assert!(error.what.contains("`revenue_90d` is not defined as it was in training"), "{error}");
    }

    #[test]
    fn a_definition_has_a_short_stable_hash() {
        assert_eq!(definition_hash(""), "e3b0c44298fc1c14");
        assert_ne!(definition_hash("a"), definition_hash("b"));
    }
}
