//! Everything that is decided before the first event: the catalogue's layout, the lifecycles, the model and
//! the settings, compiled against each other. Shared by all partitions and never changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::catalogue::{Agg, Catalogue};
use super::channels::MAIN_CHANNEL;
use super::consent;
use super::described::Description;
use super::drift::Watch;
use super::emit::Wording;
use super::facts::{FeatureId, FeatureNames, TraitValue, Traits};
use super::layout::{Layout, NEVER};
use super::lifecycle::{Lifecycle, StageState};
use super::outcomes::{Judging, Keeping, OutcomeSlots};
use super::store::AWAKE_LEAST;
use super::words::{RowBuilder, Slot};
use crate::error::{Error, Result};
use crate::event::money::Money;
use crate::model::value::{P_NO_ORDER, Valuer};
use crate::model::{Actionable, Definitions, Model, Scorer, Unit, Units};
use crate::time::{DAY_MS, Ts};

/// Lifecycles side by side.
pub const MAX_LIFECYCLES: usize = 64;
/// Alert policies side by side.
pub const MAX_POLICIES: usize = 64;

/// What the configuration says about the core.
#[derive(Clone, Debug)]
pub struct Settings {
    pub dedupe_ms: i64,
    pub min_change: f64,
    pub rescore_every_ms: i64,
    /// low | medium | high
    pub bands: [f64; 2],
    pub margin: f64,
    pub money: Money,
    pub policies: Vec<Policy>,
    /// Which scores are kept until their outcome is known.
    pub outcomes: Keeping,
    pub privacy: Privacy,
    pub identity: Identity,
    /// Customers of all partitions who may stay awake with nothing to do; see [`super::store`].
    pub awake_least: usize,
}

/// How customers of several ids are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How long, in event time, events under a merged id follow its customer, since the last that did.
    pub follow_ms: i64,
    /// Traits whose values are other ids of their customer.
    pub traits: Vec<String>,
}

impl Default for Identity {
    fn default() -> Self {
        Identity { follow_ms: 365 * DAY_MS, traits: Vec::new() }
    }
}

/// What customers may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Privacy {
    /// How long, in event time, an erased customer's events are dropped.
    pub opt_out_ms: i64,
    /// What makes the hash of an erased customer's id one that others cannot compute.
    pub salt: String,
    /// The trait by which a customer refuses to be scored; empty: none.
    pub consent: String,
}

impl Default for Privacy {
    fn default() -> Self {
        Privacy { opt_out_ms: 30 * DAY_MS, salt: "stagecast".into(), consent: "consent".into() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            dedupe_ms: DAY_MS,
            min_change: 0.01,
            rescore_every_ms: DAY_MS,
            bands: [0.3, 0.7],
            margin: 0.3,
            money: Money::default(),
            policies: vec![Policy::default()],
            privacy: Privacy::default(),
            awake_least: AWAKE_LEAST,
            identity: Identity::default(),
            outcomes: Keeping::default(),
        }
    }
}

/// An alert policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    pub on: PolicyOn,
    pub cooldown_ms: i64,
    /// Share of customers in the control group.
    pub control: f64,
    /// Traits that a customer must have for the policy to look at it.
    pub segment: Vec<(String, TraitValue)>,
    /// What a customer must have been worth so far for the policy to look at it.
    pub min_clv: Option<f64>,
    /// Instead of the stage's own action.
    pub action: Option<String>,
}

/// What a policy waits for.
#[derive(Clone, Debug)]
pub enum PolicyOn {
    Score {
        raise: f64,
        clear: f64,
    },
    /// The customer enters this stage; of any lifecycle when none is named.
    Stage {
        lifecycle: Option<String>,
        stage: String,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            name: "churn".into(),
            on: PolicyOn::Score { raise: 0.7, clear: 0.5 },
            cooldown_ms: 7 * DAY_MS,
            control: 0.1,
            segment: Vec::new(),
            min_clv: None,
            action: None,
        }
    }
}

/// What a customer has been worth so far, as a feature.
const CLV_TO_DATE: &str = "clv_to_date";

/// The slots every customer has, whatever the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct HeadSlots {
    /// The last evaluated instant.
    pub now: Slot<i64>,
    /// The newest event time.
    pub newest: Slot<i64>,
    /// The instant to which the windows are advanced; at least `now`.
    pub advanced: Slot<i64>,
    /// The next instant at which silence may mean something.
    pub due: Slot<i64>,
    /// The same without the outcomes that become known.
    pub asked: Slot<i64>,
    /// The instant for which its timer stands in the wheel; entries for other instants are stale.
    pub timer: Slot<i64>,
    /// The instant up to which the state topic knows this customer.
    pub persisted: Slot<i64>,
    /// The last score, and the last one emitted (NaN before the first).
    pub p: Slot<f64>,
    pub emitted_p: Slot<f64>,
    /// Stage changes emitted.
    pub sequence: Slot<u32>,
    /// Records of any kind emitted; the running number in their ids.
    pub emitted: Slot<u32>,
    /// The transaction that touched it last, and the one that must write it.
    pub touched: Slot<u32>,
    pub dirty: Slot<u32>,
    pub outcomes: OutcomeSlots,
}

/// Where one lifecycle keeps a customer's [`StageState`].
#[derive(Clone, Debug)]
pub struct StageSlots {
    pub stage: Slot<u32>,
    pub entered_at: Slot<i64>,
    pub truths: Slot<u64>,
    /// Two visit counts to a word.
    pub visits: Vec<Slot<u32>>,
    pub silent_moves: Slot<u32>,
}

impl StageSlots {
    fn new(lifecycle: &Lifecycle, row: &mut RowBuilder) -> Self {
        StageSlots {
            stage: row.slot(u32::from(lifecycle.initial)),
            entered_at: row.slot(NEVER),
            truths: row.slot(0u64),
            visits: (0..lifecycle.stages().len().div_ceil(2)).map(|_| row.slot(0u32)).collect(),
            silent_moves: row.slot(0u32),
        }
    }

    pub fn load(&self, row: &[u32], state: &mut StageState) {
        state.stage = self.stage.get(row) as u8;
        state.entered_at = self.entered_at.get(row);
        state.truths = self.truths.get(row);
        state.silent_moves = self.silent_moves.get(row) as u16;
        for (pair, slot) in state.visits.chunks_mut(2).zip(&self.visits) {
            let word = slot.get(row);
            pair[0] = word as u16;
            if let Some(second) = pair.get_mut(1) {
                *second = (word >> 16) as u16;
            }
        }
    }

    /// How often the customer has been in a stage, the stay at hand included.
    pub fn visits_of(&self, row: &[u32], stage: usize) -> u16 {
        let word = self.visits.get(stage / 2).map_or(0, |pair| pair.get(row));
        if stage.is_multiple_of(2) { word as u16 } else { (word >> 16) as u16 }
    }

    pub fn store(&self, row: &mut [u32], state: &StageState) {
        self.stage.set(row, u32::from(state.stage));
        self.entered_at.set(row, state.entered_at);
        self.truths.set(row, state.truths);
        self.silent_moves.set(row, u32::from(state.silent_moves));
        for (pair, slot) in state.visits.chunks(2).zip(&self.visits) {
            let second = pair.get(1).copied().unwrap_or(0);
            slot.set(row, u32::from(pair[0]) | u32::from(second) << 16);
        }
    }
}

/// Where one policy keeps whether it is armed and when it fired last.
#[derive(Clone, Copy, Debug)]
pub struct PolicySlots {
    pub disarmed: Slot<u32>,
    pub fired_at: Slot<i64>,
}

/// A model that scores what the plan's model scores, at the same instants, and of which nothing goes out.
#[derive(Debug)]
pub struct Challenger {
    pub name: String,
    pub version: String,
    pub scorer: Scorer,
    /// Where it looks at [`P_NO_ORDER`]: what that is by its own fit, not the champion's.
    foretells: Option<(FeatureId, Valuer)>,
}

impl Challenger {
    fn new(model: &Model, layout: &Layout) -> Result<Challenger> {
        let scorer = Scorer::new(model, layout)?;
        let looked_at = layout.id(P_NO_ORDER).filter(|id| scorer.features().any(|feature| feature == *id));
        Ok(Challenger {
            name: model.name.clone(),
            version: model.version.clone(),
            foretells: looked_at.zip(Valuer::of(model, layout)?),
            scorer,
        })
    }

    /// Its probability of churn. `features` are as they were afterwards.
    pub fn p(&self, features: &mut [f64]) -> f64 {
        let Some((id, valuer)) = &self.foretells else { return self.scorer.p(self.scorer.logit(features)) };
        let own = valuer.p_no_order(features).unwrap_or(f64::INFINITY);
        let champions = std::mem::replace(&mut features[id.index()], own);
        let p = self.scorer.p(self.scorer.logit(features));
        features[id.index()] = champions;
        p
    }

    /// What must have been read for it.
    fn features(&self) -> impl Iterator<Item = FeatureId> {
        self.scorer.features().chain(self.foretells.iter().flat_map(|(_, valuer)| valuer.features()))
    }
}

/// The compiled whole.
#[derive(Debug)]
pub struct Plan {
    pub settings: Settings,
    pub layout: Layout,
    pub head: HeadSlots,
    pub lifecycles: Vec<(Lifecycle, StageSlots)>,
    pub policies: Vec<PolicySlots>,
    pub scorer: Scorer,
    /// What customers are worth, where the model tells.
    pub valuer: Option<Valuer>,
    pub actionable: Vec<Actionable>,
    /// What the model's scores claim.
    pub judging: Judging,
    /// What customers are compared with, where the model says who it learned from.
    pub watch: Option<Arc<Watch>>,
    pub model_name: String,
    pub model_version: String,
    /// The model that scores in the shadow.
    pub challenger: Option<Challenger>,
    /// The features that an evaluation reads: the model's and the lifecycles'.
    pub needed: Vec<FeatureId>,
    pub all: Vec<FeatureId>,
    pub clv_to_date: Option<FeatureId>,
    /// Whether a rule or a policy asks for the main channel.
    pub keeps_channels: bool,
    /// The row of a customer nobody has heard of.
    pub new_row: Box<[u32]>,
    /// What stands where in an encoded state, and the id by which a state names it; see [`super::codec`].
    pub description: Description,
    pub layout_id: u32,
    pub wording: Wording,
}

impl Plan {
    /// The churn probability by these features, by their ids; NaN where the traits say that the customer refuses to be
    /// scored.
    pub fn p_churn(&self, features: &[f64], traits: Option<&Traits>) -> f64 {
        if consent::is_refused(&self.settings.privacy, traits) {
            return f64::NAN;
        }
        self.scorer.p(self.scorer.logit(features))
    }

    /// Compiles everything against the catalogue. `lifecycles` are `(file, text)`.
    pub fn new(
        catalogue: &Catalogue,
        lifecycles: &[(String, String)],
        model: &Model,
        settings: Settings,
    ) -> Result<Plan> {
        if lifecycles.len() > MAX_LIFECYCLES || settings.policies.len() > MAX_POLICIES {
            let what = format!(
                "at most {MAX_LIFECYCLES} lifecycles and {MAX_POLICIES} alert policies run side by side"
            );
            return Err(Error::user(what));
        }
        let mut row = RowBuilder::default();
        let head = head_slots(&mut row);
        let mut layout = Layout::new(catalogue, &mut row)?;
        let mut problems = Vec::new();
        let lifecycles = load_lifecycles(lifecycles, &layout, &mut row).map_err(|e| problems.push(e));
        let scorer = Scorer::new(model, &layout).map_err(|e| problems.push(e));
        // The scorer tells what is missing; definitions are compared where nothing is.
        let scorer =
            scorer.and_then(|s| model.check_definitions(&layout).map(|()| s).map_err(|e| problems.push(e)));
        if let Ok(lifecycles) = &lifecycles {
            problems.extend(check_policies(&settings.policies, lifecycles, &layout).err());
        }
        match (lifecycles, scorer) {
            (Ok(lifecycles), Ok(scorer)) if problems.is_empty() => {
                layout.valuer = Valuer::of(model, &layout)?;
                check_foretold(&layout, &lifecycles, model)?;
                let valuer = layout.valuer.clone();
                let judging = Judging::new(model, None, &settings);
                let watch = Watch::of(model, &layout).map(Arc::new);
                let parts = Parts { head, layout, lifecycles, scorer, row };
                Ok(Plan { valuer, judging, watch, ..parts.assemble(settings, (&model.name, &model.version)) })
            }
            _ => Err(Error::all_of(problems)),
        }
    }

    /// The same plan with a challenger beside `champion`, which is the plan's model.
    pub fn with_challenger(mut self, champion: &Model, challenger: &Model) -> Result<Plan> {
        let refused = |what: &str| {
            Error::user(format!("the challenger {} {}: {what}", challenger.name, challenger.version))
        };
        if (&champion.name, &champion.version) == (&challenger.name, &challenger.version) {
            return Err(refused("it is the champion itself").hint("let another model challenge, or none"));
        }
        let claim = |model: &Model| (model.label, model.horizon, model.lead);
        if claim(champion) != claim(challenger) {
            return Err(refused("it foretells something else than the champion").hint(
                "train it with the champion's --label, --horizon and --lead, so that one outcome judges both",
            ));
        }
        let shadow = Challenger::new(challenger, &self.layout)?;
        challenger.check_definitions(&self.layout)?;
        let is_value = |id: FeatureId| matches!(self.layout.feature(id).kind.0, Agg::Clv365d);
        if shadow.scorer.features().any(is_value) {
            return Err(refused("it looks at `clv_365d`, which only the model in use foretells")
                .hint("train it without that feature"));
        }
        let needed: BTreeSet<FeatureId> = self.needed.iter().copied().chain(shadow.features()).collect();
        self.needed = needed.into_iter().collect();
        self.judging = Judging::new(champion, Some(challenger), &self.settings);
        self.challenger = Some(shadow);
        Ok(self)
    }

    /// A plan that computes features and decides nothing: no lifecycle, no alert, a score that says nothing and
    /// is never asked for again. What training reads its examples with.
    pub fn for_features(catalogue: &Catalogue, settings: Settings) -> Result<Plan> {
        let mut row = RowBuilder::default();
        let head = head_slots(&mut row);
        let layout = Layout::new(catalogue, &mut row)?;
        let parts = Parts { head, layout, lifecycles: Vec::new(), scorer: Scorer::blank(), row };
        let settings = Settings {
            policies: Vec::new(),
            rescore_every_ms: Ts::MAX,
            min_change: f64::INFINITY,
            outcomes: Keeping::NONE,
            ..settings
        };
        Ok(parts.assemble(settings, ("", "")))
    }

    /// A state for scratch work, of the size each lifecycle needs.
    pub fn scratch_states(&self) -> Vec<StageState> {
        self.lifecycles.iter().map(|(lifecycle, _)| lifecycle.start(0)).collect()
    }
}

/// What is compiled by the time the row can be finished.
struct Parts {
    head: HeadSlots,
    layout: Layout,
    lifecycles: Vec<(Lifecycle, StageSlots)>,
    scorer: Scorer,
    row: RowBuilder,
}

impl Parts {
    fn assemble(mut self, settings: Settings, (model_name, model_version): (&str, &str)) -> Plan {
        let slots =
            |row: &mut RowBuilder| PolicySlots { disarmed: row.slot(0u32), fired_at: row.slot(NEVER) };
        let mut needed: BTreeSet<FeatureId> = self.scorer.features().collect();
        self.lifecycles.iter().for_each(|(lifecycle, _)| needed.extend(lifecycle.features()));
        let clv_to_date = self.layout.id(CLV_TO_DATE);
        if settings.policies.iter().any(|policy| policy.min_clv.is_some()) {
            needed.extend(clv_to_date);
        }
        let mut plan = Plan {
            head: self.head,
            policies: settings.policies.iter().map(|_| slots(&mut self.row)).collect(),
            actionable: self.scorer.actionable(&self.layout),
            scorer: self.scorer,
            valuer: None,
            judging: Judging::default(),
            watch: None,
            model_name: model_name.to_owned(),
            model_version: model_version.to_owned(),
            challenger: None,
            needed: needed.into_iter().collect(),
            all: (0..self.layout.features.len()).map(|i| FeatureId(i as u16)).collect(),
            clv_to_date,
            keeps_channels: asks_for_main_channel(&self.lifecycles, &settings.policies),
            new_row: self.row.finish(),
            description: Description::default(),
            layout_id: 0,
            wording: Wording::default(),
            settings,
            layout: self.layout,
            lifecycles: self.lifecycles,
        };
        plan.description = Description::of(&plan);
        plan.layout_id = plan.description.id();
        plan.wording = Wording::new(&plan);
        plan
    }
}

fn asks_for_main_channel(lifecycles: &[(Lifecycle, StageSlots)], policies: &[Policy]) -> bool {
    let by_rule = |lifecycle: &Lifecycle| lifecycle.reads_traits().iter().any(|name| **name == *MAIN_CHANNEL);
    lifecycles.iter().any(|(lifecycle, _)| by_rule(lifecycle))
        || policies.iter().flat_map(|policy| &policy.segment).any(|(name, _)| name == MAIN_CHANNEL)
}

pub(super) fn head_slots(row: &mut RowBuilder) -> HeadSlots {
    HeadSlots {
        now: row.slot(NEVER),
        newest: row.slot(NEVER),
        advanced: row.slot(NEVER),
        due: row.slot(Ts::MAX),
        asked: row.slot(Ts::MAX),
        timer: row.slot(Ts::MAX),
        persisted: row.slot(NEVER),
        p: row.slot(f64::NAN),
        emitted_p: row.slot(f64::NAN),
        sequence: row.slot(0u32),
        emitted: row.slot(0u32),
        touched: row.slot(0u32),
        dirty: row.slot(0u32),
        outcomes: OutcomeSlots::new(row),
    }
}

fn load_lifecycles(
    files: &[(String, String)],
    layout: &Layout,
    row: &mut RowBuilder,
) -> Result<Vec<(Lifecycle, StageSlots)>> {
    let mut loaded: Vec<(Lifecycle, StageSlots)> = Vec::new();
    let mut problems = Vec::new();
    for (file, text) in files {
        match Lifecycle::load(file, text, layout) {
            Ok(lifecycle) if loaded.iter().any(|(known, _)| known.name == lifecycle.name) => {
                problems.push(format!("{file}: a lifecycle named `{}` is there already", lifecycle.name));
            }
            Ok(lifecycle) => {
                let slots = StageSlots::new(&lifecycle, row);
                loaded.push((lifecycle, slots));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(Error::user(problems.join("\n"))) }
}

/// A rule on what the model does not foretell would be true, or false, of everybody.
fn check_foretold(layout: &Layout, lifecycles: &[(Lifecycle, StageSlots)], model: &Model) -> Result<()> {
    let told = |id: FeatureId| match layout.feature(id).kind.0 {
        Agg::PNoOrder => model.value.is_some(),
        Agg::Clv365d => model.value.as_ref().is_some_and(|value| value.spend.is_some()),
        _ => true,
    };
    let untold = lifecycles
        .iter()
        .find_map(|(lifecycle, _)| Some((lifecycle, *lifecycle.features().iter().find(|id| !told(**id))?)));
    let Some((lifecycle, id)) = untold else { return Ok(()) };
    let what = format!(
        "the lifecycle `{}` asks for `{}`, which the model {} does not foretell",
        lifecycle.name,
        layout.feature(id).name,
        model.name
    );
    Err(Error::user(what).hint("train the model on an input with a hundred buyers, thirty of whom came back"))
}

fn check_policies(
    policies: &[Policy],
    lifecycles: &[(Lifecycle, StageSlots)],
    layout: &Layout,
) -> Result<()> {
    for policy in policies {
        if policy.min_clv.is_some() && layout.id(CLV_TO_DATE).is_none() {
            let what = format!(
                "alert policy `{}` has `min_clv`, but the catalogue has no `{CLV_TO_DATE}`",
                policy.name
            );
            return Err(Error::user(what).hint("declare the feature as the shipped catalogue does"));
        }
        let PolicyOn::Stage { lifecycle, stage } = &policy.on else { continue };
        let found = lifecycles.iter().any(|(l, _)| {
            lifecycle.as_deref().is_none_or(|name| *l.name == *name)
                && l.stages().iter().any(|s| *s.name == **stage)
        });
        if !found {
            let nobody = lifecycle.as_ref().map_or("no lifecycle in use has".to_owned(), |name| {
                format!("no lifecycle `{name}` in use has")
            });
            let what =
                format!("alert policy `{}` waits for the stage `{stage}`, which {nobody}", policy.name);
            return Err(Error::user(what).hint("name a stage of a lifecycle that [lifecycles] use lists"));
        }
    }
    Ok(())
}

impl Definitions for Layout {
    fn definition(&self, name: &str) -> Option<String> {
        self.id(name).map(|id| self.feature(id).definition.clone())
    }
}

impl Units for Layout {
    /// What a campaign can move: counts, money, recency and moods; not age or habits of long ago.
    fn unit(&self, id: FeatureId) -> Option<Unit> {
        let (agg, _) = self.feature(id).kind;
        match agg {
            Agg::Count | Agg::DistinctDays | Agg::Sessions | Agg::Open => Some(Unit::COUNT),
            Agg::Sum | Agg::DaysSince | Agg::Overdue | Agg::OverdueRatio => Some(Unit::AMOUNT),
            Agg::Trend => Some(Unit::between(-1.0, 1.0)),
            Agg::Mean => match self.feature(id).kind.1 {
                Some(crate::event::Field::Sentiment) => Some(Unit::between(-1.0, 1.0)),
                Some(crate::event::Field::Csat) => Some(Unit::between(0.0, 5.0)),
                Some(crate::event::Field::Nps) => Some(Unit::between(0.0, 10.0)),
                _ => Some(Unit::AMOUNT),
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::SHIPPED_MODEL;

    #[test]
    fn a_rule_on_what_the_model_does_not_foretell_is_refused() {
        let text = "name = \"worth\"\ninitial = \"rest\"\n[[stage]]\nname = \"lost\"\nenter = \"p_no_order > 0.9\"\n\
                    [[stage]]\nname = \"rest\"\nenter = \"p_no_order <= 0.9\"\n";
        let lifecycles = [("worth.toml".to_owned(), text.to_owned())];
        let plan = |model: &Model| Plan::new(&Catalogue::shipped(), &lifecycles, model, Settings::default());
        let told = plan(&Model::from_json(SHIPPED_MODEL, "churn.json").unwrap()).unwrap();
        assert!(told.layout.valuer.is_some());
        let error = plan(&Model::of_one_term("clicks_7d", &Catalogue::shipped())).unwrap_err();
        assert!(error.what.contains("the lifecycle `worth` asks for `p_no_order`"), "{error}");
    }
}
