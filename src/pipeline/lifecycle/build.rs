//! From what a file says to a lifecycle that runs: checks names, stages and reachability, and compiles one
//! variant for every combination of overrides.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;

use crate::error::did_you_mean;
use crate::pipeline::facts::{FeatureId, FeatureNames};

use super::cel::{Complaint, Reads, SPECIAL_NAMES, Scope, lower, parse};
use super::expr::Truth;
use super::file::{At, File, Override, Patch, StageText};
use super::flips::{Watch, grows};
use super::problems::Problems;
use super::program::{Entry, Program, REJECT};
use super::roles::Roles;
use super::variants::Selectors;
use super::{Lifecycle, Stage, StageRules, Told, Variant};

/// The most stages a lifecycle may have: their truths share one word.
pub(super) const MAX_STAGES: usize = 32;
/// The longest name of a lifecycle or stage.
const MAX_NAME_BYTES: usize = 64;
/// The most reasons of a stage: every set of them has its text ready.
const MAX_REASONS: usize = 8;

/// Compiles `file`; `None` when a problem was found.
pub(super) fn build(file: &File, names: &dyn FeatureNames, problems: &mut Problems<'_>) -> Option<Lifecycle> {
    check_names(file, problems);
    check_vocabulary(file, names, problems);
    check_overrides(file, problems);
    let initial = initial_stage(file, problems);
    let allowed = allowed_moves(file, problems);
    if let (Some(initial), true) = (initial, file.stages.len() <= MAX_STAGES) {
        check_reachable(file, initial, &allowed, problems);
    }
    let selectors = match Selectors::new(&file.overrides) {
        Ok(selectors) => selectors,
        Err((line, what)) => {
            problems.add(line, what);
            return None;
        }
    };
    if file.stages.is_empty() || file.stages.len() > MAX_STAGES {
        return None;
    }
    let bare_traits: Vec<Box<str>> = file.traits.iter().map(|t| t.value.as_str().into()).collect();
    let mut compiler = Compiler::new(file, names, &allowed, &bare_traits);
    let variants: Vec<Option<Variant>> = (0..selectors.count())
        .map(|v| compiler.variant(&selectors.active(v, &file.overrides), problems))
        .collect();
    let mut traits = compiler.traits;
    traits.extend(file.overrides.iter().map(|o| o.of_trait.as_str().into()));
    let (initial, stages) = (initial?, file.stages.iter().map(stage).collect::<Box<[Stage]>>());
    Some(Lifecycle {
        name: file.name.as_ref()?.value.as_str().into(),
        version: file.version.as_str().into(),
        definition: file.definition.as_str().into(),
        initial,
        roles: Roles::of(&stages, usize::from(initial)),
        stages,
        allowed: allowed.clone().into(),
        selectors,
        variants: variants.into_iter().collect::<Option<_>>()?,
        features: compiler.features.into_iter().collect(),
        traits: traits.into_iter().collect(),
        p_churn: compiler.p_churn,
    })
}

fn stage(text: &StageText) -> Stage {
    let enter = text.rules.enter.as_ref().map(|rule| Box::from(rule.value.as_str()));
    let stay = text.rules.stay.as_ref().map(|rule| Box::from(rule.value.as_str()));
    Stage {
        name: text.name.value.as_str().into(),
        action: text.rules.action.as_deref().map(Box::from),
        stay: stay.or_else(|| enter.clone()),
        enter,
        from: text.from.as_ref().map(|from| from.value.iter().map(|s| s.as_str().into()).collect()),
        min_dwell_ms: text.rules.min_dwell_ms.unwrap_or(0),
        customer: text.customer,
    }
}

fn check_names(file: &File, problems: &mut Problems<'_>) {
    match &file.name {
        Some(name) => check_name("the lifecycle's name", name, problems),
        None => problems.add(1, "`name` is missing"),
    }
    if file.stages.is_empty() {
        problems.add(1, "no [[stage]]: a lifecycle needs at least one");
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, stage) in file.stages.iter().enumerate() {
        check_name("the stage's name", &stage.name, problems);
        if let Some(first) = seen.get(stage.name.value.as_str()) {
            let name = &stage.name.value;
            problems.add(stage.name.line, format!("stage `{name}` is there already, at line {first}"));
        } else {
            seen.insert(&stage.name.value, stage.name.line);
        }
        if stage.reasons.len() > MAX_REASONS {
            let (name, many) = (&stage.name.value, stage.reasons.len());
            let what = format!("stage `{name}` has {many} reasons; at most {MAX_REASONS} are possible");
            problems.add(stage.name.line, what);
        }
        if i == MAX_STAGES {
            let many = file.stages.len();
            problems.add(stage.name.line, format!("{many} stages; at most {MAX_STAGES} are possible"));
        }
    }
}

fn check_name(what: &str, name: &At<String>, problems: &mut Problems<'_>) {
    let text = &name.value;
    let word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !starts_well || !text.split(['-', '_']).all(word) || text.len() > MAX_NAME_BYTES {
        problems.add(
            name.line,
            format!("{what} `{text}` must be snake_case or kebab-case, at most {MAX_NAME_BYTES} bytes"),
        );
    }
}

/// Thresholds and bare traits must be names a rule can say, and mean one thing only.
fn check_vocabulary(file: &File, names: &dyn FeatureNames, problems: &mut Problems<'_>) {
    let thresholds = file.thresholds.iter().map(|(name, _)| ("threshold", name));
    let traits = file.traits.iter().map(|name| ("trait", name));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (what, At { line, value: name }) in thresholds.chain(traits) {
        if !is_identifier(name) {
            let way_out = if what == "trait" { "; read it as traits[\"name\"] instead" } else { "" };
            problems.add(*line, format!("{what} `{name}` is no name that a rule can say{way_out}"));
        } else if names.id(name).is_some() {
            problems.add(*line, format!("{what} `{name}` has the name of a feature"));
        } else if SPECIAL_NAMES.contains(&name.as_str()) {
            problems.add(*line, format!("{what} `{name}` has a name that is taken"));
        } else if !seen.insert(name) {
            problems.add(*line, format!("{what} `{name}` is declared twice"));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let reserved = ["in", "true", "false", "null"].contains(&name);
    !reserved
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_overrides(file: &File, problems: &mut Problems<'_>) {
    let stages = || file.stages.iter().map(|s| s.name.value.as_str());
    let thresholds = || file.thresholds.iter().map(|(t, _)| t.value.as_str());
    for one in &file.overrides {
        for (At { line, value: name }, _) in &one.thresholds {
            if !thresholds().any(|t| t == name) {
                let near = did_you_mean(name, thresholds());
                problems.add(*line, format!("unknown threshold `{name}`{near}"));
            }
        }
        for (At { line, value: name }, _) in &one.stages {
            if !stages().any(|s| s == name) {
                let near = did_you_mean(name, stages());
                problems.add(*line, format!("unknown stage `{name}`{near}"));
            }
        }
    }
}

fn index_of(file: &File, name: &str) -> Option<usize> {
    file.stages.iter().position(|s| s.name.value == name)
}

fn unknown_stage(file: &File, name: &str) -> String {
    let near = did_you_mean(name, file.stages.iter().map(|s| s.name.value.as_str()));
    format!("unknown stage `{name}`{near}")
}

fn initial_stage(file: &File, problems: &mut Problems<'_>) -> Option<u8> {
    let Some(initial) = &file.initial else {
        problems.add(1, "`initial` is missing: name the stage in which every customer begins");
        return None;
    };
    let index = index_of(file, &initial.value);
    if index.is_none() {
        problems.add(initial.line, format!("`initial`: {}", unknown_stage(file, &initial.value)));
    }
    index.and_then(|i| u8::try_from(i).ok())
}

/// Per stage, the mask of the other stages that may be entered from it.
fn allowed_moves(file: &File, problems: &mut Problems<'_>) -> Vec<u64> {
    let count = file.stages.len();
    let mut allowed = vec![0u64; count];
    for (to, stage) in file.stages.iter().enumerate().take(MAX_STAGES) {
        let mut sources: Vec<usize> = (0..count).collect();
        if let Some(from) = &stage.from {
            sources.clear();
            for name in &from.value {
                match index_of(file, name) {
                    Some(i) => sources.push(i),
                    None => problems.add(from.line, format!("`from`: {}", unknown_stage(file, name))),
                }
            }
        }
        for from in sources.into_iter().filter(|from| *from != to) {
            allowed[from] |= 1 << to;
        }
    }
    allowed
}

/// Every stage must be one that some customer can come to.
fn check_reachable(file: &File, initial: u8, allowed: &[u64], problems: &mut Problems<'_>) {
    let enterable: u64 = (0..file.stages.len())
        .filter(|i| file.stages[*i].rules.enter.is_some())
        .fold(0, |mask, i| mask | 1 << i);
    let mut reached = 1u64 << initial;
    loop {
        let next = (0..allowed.len())
            .filter(|i| reached & (1 << i) != 0)
            .fold(reached, |mask, i| mask | (allowed[i] & enterable));
        if next == reached {
            break;
        }
        reached = next;
    }
    for (i, stage) in file.stages.iter().enumerate().filter(|(i, _)| reached & (1 << i) == 0) {
        let (name, start) = (&stage.name.value, &file.stages[usize::from(initial)].name.value);
        let why = if enterable & (1 << i) == 0 {
            "it has no `enter` rule".to_string()
        } else {
            format!("no chain of `from` leads to it from `{start}`")
        };
        problems.add(stage.name.line, format!("stage `{name}` is unreachable: {why}"));
    }
}

/// Compiles variants, remembering what it has parsed and what all of them read.
struct Compiler<'a> {
    file: &'a File,
    names: &'a dyn FeatureNames,
    allowed: &'a [u64],
    bare_traits: &'a [Box<str>],
    parsed: BTreeMap<&'a str, Result<IdedExpr, Complaint>>,
    features: BTreeSet<FeatureId>,
    traits: BTreeSet<Box<str>>,
    p_churn: bool,
}

impl<'a> Compiler<'a> {
    fn new(
        file: &'a File,
        names: &'a dyn FeatureNames,
        allowed: &'a [u64],
        bare_traits: &'a [Box<str>],
    ) -> Self {
        Compiler {
            file,
            names,
            allowed,
            bare_traits,
            parsed: BTreeMap::new(),
            features: BTreeSet::new(),
            traits: BTreeSet::new(),
            p_churn: false,
        }
    }

    /// The lifecycle as it is for customers whose traits select `active`, the strongest override first.
    fn variant(&mut self, active: &[&'a Override], problems: &mut Problems<'_>) -> Option<Variant> {
        let thresholds = self.file.thresholds.iter().map(|t| threshold(t, active)).collect();
        let mut draft = Draft { thresholds, traits: Vec::new(), program: Program::default() };
        let mut stages = Vec::with_capacity(self.file.stages.len());
        for stage in &self.file.stages {
            let rules = patched(stage, active);
            let place = |key: &str| format!("stage `{}`, `{key}`", stage.name.value);
            let enter = self.rule(&place("enter"), rules.enter, &mut draft, problems);
            let stay = match rules.stay {
                Some(at) => self.rule(&place("stay"), Some(at), &mut draft, problems).entry,
                None => enter.entry,
            };
            let reasons: Vec<(&str, Rule)> = stage
                .reasons
                .iter()
                .take(MAX_REASONS)
                .map(|(name, rule)| {
                    let place = place(&format!("reasons.\"{name}\""));
                    (name.as_str(), self.rule(&place, Some(rule), &mut draft, problems))
                })
                .collect();
            stages.push(StageRules {
                enter: enter.entry,
                stay,
                reasons: reasons.iter().map(|(_, rule)| rule.entry).collect(),
                told: told(&enter, &reasons),
                min_dwell_ms: rules.min_dwell_ms,
                action: rules.action.map(Box::from),
            });
        }
        let program = match draft.program.finish(draft.traits) {
            Ok(program) => program,
            Err(what) => {
                problems.add(1, what);
                return None;
            }
        };
        let watches = (0..stages.len()).map(|i| self.watch(i, &program, &stages)).collect();
        Some(Variant { program, stages: stages.into(), watches })
    }

    fn watch(&self, current: usize, program: &Program, stages: &[StageRules]) -> Watch {
        let entered = (0..stages.len()).filter(|i| self.allowed[current] & (1 << i) != 0);
        let entries: Vec<Entry> = entered.map(|i| stages[i].enter).chain([stages[current].stay]).collect();
        Watch::new(program, entries, self.names)
    }

    /// Compiles the rule at `place`; one that is absent or wrong is never true.
    fn rule(
        &mut self,
        place: &str,
        at: Option<&'a At<String>>,
        draft: &mut Draft,
        problems: &mut Problems<'_>,
    ) -> Rule {
        let Some(At { line, value: source }) = at else {
            return Rule { source: Box::from(""), entry: REJECT, named: Box::default() };
        };
        let mut reads = Reads { traits: std::mem::take(&mut draft.traits), ..Reads::default() };
        let scope = Scope { names: self.names, thresholds: &draft.thresholds, bare_traits: self.bare_traits };
        let parsed = self.parsed.entry(source).or_insert_with(|| parse(source));
        let truth = match parsed {
            Ok(parsed) => lower(parsed, &scope, &mut reads),
            Err(complaint) => Err(vec![complaint.clone()]),
        };
        let truth = truth.unwrap_or_else(|complaints| {
            for complaint in complaints {
                let what = format!("{place}: {}", complaint.what);
                match complaint.unsupported {
                    true => problems.add_unsupported(*line, what),
                    false => problems.add(*line, what),
                }
            }
            Truth::Const(false)
        });
        let entry = draft.program.add(&truth, &|slot| grows(slot, self.names));
        self.features.extend(&reads.features);
        self.traits.extend(reads.traits.iter().cloned());
        self.p_churn |= reads.p_churn;
        draft.traits = reads.traits;
        Rule { source: source.trim().into(), entry, named: reads.features.into_iter().collect() }
    }
}

/// A rule and where it begins in its program.
struct Rule {
    source: Box<str>,
    entry: Entry,
    named: Box<[FeatureId]>,
}

/// How a move is told, for every set of reasons: the rule, and the reasons as a comment behind it.
fn told(enter: &Rule, reasons: &[(&str, Rule)]) -> Box<[Told]> {
    let one = |set: usize| {
        let is_true = |bit: usize| set & (1 << bit) != 0;
        let held = || reasons.iter().enumerate().filter(|(bit, _)| is_true(*bit)).map(|(_, reason)| reason);
        let names: Vec<&str> = held().map(|(name, _)| *name).collect();
        let comment = if names.is_empty() { String::new() } else { format!(" // {}", names.join(", ")) };
        let named: BTreeSet<FeatureId> =
            enter.named.iter().chain(held().flat_map(|(_, rule)| &rule.named)).copied().collect();
        Told { rule: format!("{}{comment}", enter.source).into(), named: named.into_iter().collect() }
    };
    (0..1usize << reasons.len()).map(one).collect()
}

/// A variant in the making.
struct Draft {
    thresholds: Vec<(Box<str>, f64)>,
    traits: Vec<Box<str>>,
    program: Program,
}

fn threshold(base: &(At<String>, f64), active: &[&Override]) -> (Box<str>, f64) {
    let name = &base.0.value;
    let overridden = active.iter().flat_map(|o| &o.thresholds).find(|(t, _)| t.value == *name);
    (name.as_str().into(), overridden.map_or(base.1, |(_, n)| *n))
}

/// A stage's rules once overrides are laid over them.
struct Patched<'a> {
    enter: Option<&'a At<String>>,
    stay: Option<&'a At<String>>,
    min_dwell_ms: i64,
    action: Option<&'a str>,
}

fn patched<'a>(stage: &'a StageText, active: &[&'a Override]) -> Patched<'a> {
    let layers: Vec<&'a Patch> = active
        .iter()
        .flat_map(|o| &o.stages)
        .filter(|(name, _)| name.value == stage.name.value)
        .map(|(_, patch)| patch)
        .chain([&stage.rules])
        .collect();
    Patched {
        enter: layers.iter().find_map(|p| p.enter.as_ref()),
        stay: layers.iter().find_map(|p| p.stay.as_ref()),
        min_dwell_ms: layers.iter().find_map(|p| p.min_dwell_ms).unwrap_or(0),
        action: layers.iter().find_map(|p| p.action.as_deref()),
    }
}
