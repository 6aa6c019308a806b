//! The feature catalogue as it is declared: TOML in, checked declarations out.
//!
//! Owns the grammar of `features.toml`. What a declaration means in memory is [`super::layout`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;

use super::active_days;
use crate::error::{Error, did_you_mean};
use crate::event::{Field, Source, names};
use crate::time::{DAY_MS, HOUR_MS, format_span, parse_span};

/// The catalogue that ships with the program.
pub const DEFAULT: &str = include_str!("../../models/features.toml");

/// Windows from this length on advance in days, shorter ones in hours.
pub const DAY_HOP_FROM_MS: i64 = 12 * DAY_MS;
/// Different window lengths in one catalogue.
pub const MAX_WINDOWS: usize = 16;
/// The longest window, so that panes stay bounded.
pub const MAX_WINDOW_MS: i64 = 1_100 * DAY_MS;
/// Features after windows are spelled out.
pub const MAX_FEATURES: usize = 1_024;

/// How events become a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Agg {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Last,
    DistinctDays,
    Overdue,
    Sessions,
    Trend,
    DaysSince,
    Open,
    Tenure,
    OrderGap,
    OverdueRatio,
    RfmFrequency,
    RfmRecency,
    RfmAge,
    RfmMonetary,
    ClvToDate,
    PNoOrder,
    Clv365d,
}

const AGGS: [(&str, Agg); 22] = [
    ("count", Agg::Count),
    ("sum", Agg::Sum),
    ("mean", Agg::Mean),
    ("min", Agg::Min),
    ("max", Agg::Max),
    ("last", Agg::Last),
    ("distinct_days", Agg::DistinctDays),
    ("overdue", Agg::Overdue),
    ("sessions", Agg::Sessions),
    ("trend", Agg::Trend),
    ("days_since", Agg::DaysSince),
    ("open", Agg::Open),
    ("tenure", Agg::Tenure),
    ("order_gap", Agg::OrderGap),
    ("overdue_ratio", Agg::OverdueRatio),
    ("rfm_frequency", Agg::RfmFrequency),
    ("rfm_recency", Agg::RfmRecency),
    ("rfm_age", Agg::RfmAge),
    ("rfm_monetary", Agg::RfmMonetary),
    ("clv_to_date", Agg::ClvToDate),
    ("p_no_order", Agg::PNoOrder),
    ("clv_365d", Agg::Clv365d),
];

impl Agg {
    /// Whether the feature is looked at through windows (and its name carries one).
    fn windowed(self) -> bool {
        use Agg::*;
        matches!(self, Count | Sum | Mean | Min | Max | Last | DistinctDays | Overdue | Sessions | Trend)
    }

    fn needs_field(self) -> bool {
        matches!(self, Agg::Sum | Agg::Mean | Agg::Min | Agg::Max | Agg::Last)
    }

    fn allows_lifetime(self) -> bool {
        !matches!(self, Agg::Trend | Agg::DistinctDays | Agg::Overdue)
    }

    fn name(self) -> &'static str {
        AGGS.iter().find(|(_, agg)| *agg == self).map_or("", |(name, _)| name)
    }
}

/// The span of event time a value covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// The last so many milliseconds, by the sawtooth rule.
    Last(i64),
    Lifetime,
}

/// Which events a declaration is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Matcher {
    pub sources: Vec<Source>,
    /// `None`: every type of the sources.
    pub types: Option<Vec<String>>,
}

/// One `[[feature]]`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    pub name: String,
    pub matcher: Matcher,
    pub agg: Agg,
    pub field: Option<Field>,
    /// Each span with the text it was declared by. Empty for features that are looked at as of now.
    pub windows: Vec<(Span, String)>,
}

impl Declaration {
    /// The names of its features with the span of each.
    pub fn features(&self) -> Vec<(String, Span)> {
        if self.windows.is_empty() {
            return vec![(self.name.clone(), Span::Lifetime)];
        }
        self.windows.iter().map(|(span, text)| (format!("{}_{text}", self.name), *span)).collect()
    }

    /// The lengths of the windows it needs that end now and advance with time, in milliseconds: a trend looks through two,
    /// and those of `overdue` end with the last active day.
    pub(super) fn window_lengths(&self) -> impl Iterator<Item = i64> {
        let lengths = self.windows.iter().filter_map(|(span, _)| match span {
            Span::Last(ms) if self.agg != Agg::Overdue => Some(*ms),
            _ => None,
        });
        lengths.flat_map(|ms| std::iter::once(ms).chain((self.agg == Agg::Trend).then_some(2 * ms)))
    }

    /// A canonical text of one feature: equal texts mean equal values. Models keep a hash of it.
    pub fn definition(&self, span: Span) -> String {
        let sources: Vec<_> = self.matcher.sources.iter().map(|s| s.name()).collect();
        let types = self.matcher.types.as_ref().map_or("*".into(), |t| t.join(","));
        let field = self.field.map_or("", Field::name);
        let window = if self.windows.is_empty() { "now".into() } else { span_suffix(span) };
        format!("{}({field}) of {} types {types} over {window}", self.agg.name(), sources.join("+"))
    }
}

fn span_suffix(span: Span) -> String {
    match span {
        Span::Last(ms) => format_span(ms),
        Span::Lifetime => "lifetime".into(),
    }
}

/// All declarations, in order, without two features of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    pub declarations: Vec<Declaration>,
}

impl Catalogue {
    /// The catalogue that ships.
    pub fn shipped() -> Catalogue {
        Catalogue::read("features.toml", DEFAULT).unwrap_or(Catalogue { declarations: Vec::new() })
    }

    /// Reads a catalogue file: its declarations on top of the shipped ones, unless it says `default = false`.
    ///
    /// Reports every problem of the file at once, each with file and line.
    pub fn load(file: &str, text: &str) -> Result<Catalogue, Error> {
        let own = parse(file, text)?;
        let mut declarations = if own.default { Catalogue::shipped().declarations } else { Vec::new() };
        for declaration in own.declarations {
            match declarations.iter_mut().find(|d| d.name == declaration.name) {
                Some(replaced) => *replaced = declaration,
                None => declarations.push(declaration),
            }
        }
        Catalogue { declarations }.checked(file)
    }

    fn read(file: &str, text: &str) -> Result<Catalogue, Error> {
        Catalogue { declarations: parse(file, text)?.declarations }.checked(file)
    }

    /// Limits and clashes that show only over all declarations.
    fn checked(self, file: &str) -> Result<Catalogue, Error> {
        let mut names = BTreeSet::new();
        let mut windows = BTreeSet::new();
        for declaration in &self.declarations {
            windows.extend(declaration.window_lengths());
            for (name, _) in declaration.features() {
                if RESERVED.contains(&name.as_str()) || !names.insert(name.clone()) {
                    return Err(Error::user(format!("{file}: the name `{name}` is taken twice or reserved")));
                }
            }
        }
        if windows.len() > MAX_WINDOWS {
            return Err(Error::user(format!(
                "{file}: {} different windows; at most {MAX_WINDOWS}",
                windows.len()
            )));
        }
        if names.len() > MAX_FEATURES {
            return Err(Error::user(format!("{file}: {} features; at most {MAX_FEATURES}", names.len())));
        }
        Ok(self)
    }
}

/// Names that rules use for other things.
const RESERVED: [&str; 6] = ["p_churn", "stage_days", "traits", "inf", "true", "false"];

struct Parsed {
    default: bool,
    declarations: Vec<Declaration>,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default = "yes")]
    default: bool,
    #[serde(default)]
    feature: Vec<toml::Spanned<RawFeature>>,
    #[serde(flatten)]
    other: BTreeMap<String, toml::Value>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct RawFeature {
    name: String,
    source: Option<OneOrMany>,
    types: Option<Vec<String>>,
    agg: String,
    field: Option<String>,
    windows: Option<Vec<String>>,
    #[serde(flatten)]
    other: BTreeMap<String, toml::Value>,
}

const FEATURE_KEYS: [&str; 6] = ["name", "source", "types", "agg", "field", "windows"];

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn parse(file: &str, text: &str) -> Result<Parsed, Error> {
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let line = line_of(text, &error.span().unwrap_or(0..0));
        Error::user(format!("{file}:{line}: {}", error.message()))
            .hint("a feature has the keys name, source, types, agg, field and windows")
    })?;
    let mut problems = Vec::new();
    for key in raw.other.keys() {
        let near = did_you_mean(key, ["feature", "default"]);
        let names_it = |line: &str| line.trim_start_matches(['[', ' ', '"', '\'']).starts_with(&**key);
        let line = 1 + text.lines().position(names_it).unwrap_or(0);
        problems.push(format!("{file}:{line}: unknown key `{key}`{near}"));
    }
    let (mut declarations, mut lines) = (Vec::new(), BTreeMap::new());
    for feature in raw.feature {
        let line = line_of(text, &feature.span());
        let feature = feature.into_inner();
        if let Some(first) = lines.insert(feature.name.clone(), line) {
            problems.push(format!(
                "{file}:{line}: feature `{}` is declared in line {first} already",
                feature.name
            ));
        }
        match checked(feature) {
            Ok(declaration) => declarations.push(declaration),
            Err(problem) => problems.push(format!("{file}:{line}: {problem}")),
        }
    }
    if problems.is_empty() {
        Ok(Parsed { default: raw.default, declarations })
    } else {
        Err(Error::user(problems.join("\n")))
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

fn checked(raw: RawFeature) -> Result<Declaration, String> {
    let name = raw.name;
    let snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(snake) || name.as_bytes()[0].is_ascii_digit() {
        return Err(format!("feature name `{name}` is not snake_case of at most 64 bytes"));
    }
    if let Some(key) = raw.other.keys().next() {
        return Err(format!("feature `{name}`: unknown key `{key}`{}", did_you_mean(key, FEATURE_KEYS)));
    }
    let agg = AGGS.iter().find(|(known, _)| *known == raw.agg).map(|(_, agg)| *agg).ok_or_else(|| {
        format!("feature `{name}`: unknown agg `{}`{}", raw.agg, did_you_mean(&raw.agg, AGGS.map(|(n, _)| n)))
    })?;
    let matcher = Matcher { sources: sources(&name, raw.source)?, types: types(&name, raw.types)? };
    check_matcher(&name, agg, &matcher)?;
    let field = field(&name, agg, raw.field)?;
    let windows = windows(&name, agg, raw.windows)?;
    Ok(Declaration { name, matcher, agg, field, windows })
}

fn sources(name: &str, raw: Option<OneOrMany>) -> Result<Vec<Source>, String> {
    let texts = match raw {
        None => return Ok(Source::ACTIVITY.to_vec()),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    let mut sources = Vec::new();
    for text in &texts {
        let source = Source::from_name(text).ok_or_else(|| {
            let near = did_you_mean(text, Source::ALL.map(Source::name));
            format!("feature `{name}`: unknown source `{text}`{near}")
        })?;
        sources.push(source);
    }
    sources.sort();
    sources.dedup();
    if sources.is_empty() { Err(format!("feature `{name}`: source is an empty list")) } else { Ok(sources) }
}

fn types(name: &str, raw: Option<Vec<String>>) -> Result<Option<Vec<String>>, String> {
    match raw {
        None => Ok(None),
        Some(types) if types.is_empty() => Err(format!("feature `{name}`: types is an empty list")),
        Some(mut types) => {
            if let Some(foreign) = types.iter().find(|name| !names::is_type(name)) {
                return Err(format!(
                    "feature `{name}`: `{foreign}` is no type an event has here, which is snake_case and of at most 64 bytes"
                ));
            }
            types.sort();
            types.dedup();
            Ok(Some(types))
        }
    }
}

fn check_matcher(name: &str, agg: Agg, matcher: &Matcher) -> Result<(), String> {
    let only = |source: Source| matcher.sources == [source];
    match agg {
        Agg::Sessions if !only(Source::Clickstream) || matcher.types.is_some() => Err(format!(
            "feature `{name}`: sessions are of the whole clickstream: source = \"clickstream\", no types"
        )),
        Agg::Open if !only(Source::Support) || matcher.types.is_some() => {
            Err(format!("feature `{name}`: open counts tickets: source = \"support\", no types"))
        }
        Agg::ClvToDate if !only(Source::Purchase) || matcher.types.is_some() => Err(format!(
            "feature `{name}`: clv_to_date is of orders and refunds: source = \"purchase\", no types"
        )),
        Agg::PNoOrder | Agg::Clv365d if !only(Source::Purchase) || matcher.types.is_some() => Err(format!(
            "feature `{name}`: {} is foretold by the model: source = \"purchase\", no types",
            agg.name()
        )),
        Agg::OrderGap
        | Agg::OverdueRatio
        | Agg::RfmFrequency
        | Agg::RfmRecency
        | Agg::RfmAge
        | Agg::RfmMonetary
            if !only(Source::Purchase) =>
        {
            Err(format!("feature `{name}`: {} needs source = \"purchase\"", agg.name()))
        }
        _ => Ok(()),
    }
}

fn field(name: &str, agg: Agg, raw: Option<String>) -> Result<Option<Field>, String> {
    match (agg.needs_field(), raw) {
        (false, None) => Ok(None),
        (false, Some(_)) => Err(format!("feature `{name}`: {} takes no field", agg.name())),
        (true, None) => Err(format!("feature `{name}`: {} needs a field", agg.name())),
        (true, Some(text)) => match Field::ALL.into_iter().find(|f| f.name() == text) {
            Some(field) => Ok(Some(field)),
            None => {
                let near = did_you_mean(&text, Field::ALL.map(Field::name));
                Err(format!(
                    "feature `{name}`: unknown field `{text}`{near}; fields are amount, sentiment, csat, nps"
                ))
            }
        },
    }
}

fn windows(name: &str, agg: Agg, raw: Option<Vec<String>>) -> Result<Vec<(Span, String)>, String> {
    let texts = match (agg.windowed(), raw) {
        (false, None) => return Ok(Vec::new()),
        (false, Some(_)) => {
            return Err(format!("feature `{name}`: {} is as of now and takes no windows", agg.name()));
        }
        (true, None) => {
            return Err(format!("feature `{name}`: {} needs windows, such as [\"30d\"]", agg.name()));
        }
        (true, Some(texts)) => texts,
    };
    let mut spans = Vec::new();
    for text in &texts {
        let text = text.trim();
        let span =
            if text == "lifetime" { Span::Lifetime } else { Span::Last(window_length(name, agg, text)?) };
        if span == Span::Lifetime && !agg.allows_lifetime() {
            return Err(format!("feature `{name}`: {} has no lifetime window", agg.name()));
        }
        if spans.iter().any(|(known, _)| *known == span) {
            return Err(format!("feature `{name}`: the window {text} stands there twice"));
        }
        spans.push((span, text.to_owned()));
    }
    if spans.is_empty() { Err(format!("feature `{name}`: windows is an empty list")) } else { Ok(spans) }
}

fn window_length(name: &str, agg: Agg, text: &str) -> Result<i64, String> {
    let ms =
        parse_span(text).map_err(|problem| format!("feature `{name}`: window {problem}, or \"lifetime\""))?;
    let (hop, hop_name) = if ms >= DAY_HOP_FROM_MS { (DAY_MS, "days") } else { (HOUR_MS, "hours") };
    if ms < HOUR_MS || ms % hop != 0 || ms > MAX_WINDOW_MS {
        return Err(format!("feature `{name}`: window {text} must be whole {hop_name}, from 1h to 1100d"));
    }
    let days_most = i64::from(active_days::DAYS);
    if agg == Agg::Overdue && (ms % DAY_MS != 0 || ms > days_most * DAY_MS) {
        return Err(format!(
            "feature `{name}`: window {text} of overdue must be whole days, from 1d to {days_most}d"
        ));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalogue_has_every_feature_of_the_contract() {
        let names: Vec<String> = Catalogue::shipped()
            .declarations
            .iter()
            .flat_map(|d| d.features())
            .map(|(name, _)| name)
            .collect();
        for name in "events_7d events_30d events_90d events_lifetime clicks_1d clicks_7d clicks_30d clicks_90d \
            clicks_lifetime sessions_7d sessions_30d sessions_90d active_days_7d active_days_30d active_days_90d \
            product_views_7d product_views_30d cart_adds_7d cart_adds_30d searches_30d checkouts_30d \
            emails_opened_30d shares_90d shares_lifetime orders_7d orders_30d orders_90d orders_lifetime \
            revenue_30d revenue_90d revenue_lifetime refunds_30d refunds_90d order_value_lifetime tickets_7d \
            tickets_30d tickets_90d open_tickets sentiment_90d csat_90d days_since_event days_since_click \
            days_since_order days_since_ticket tenure_days order_gap_days overdue_ratio clicks_trend_14d \
            orders_trend_14d rfm_frequency rfm_recency_days rfm_age_days rfm_monetary clv_to_date p_no_order clv_365d"
            .split_whitespace()
        {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        for (text, expected) in [
            (
                "[[feature]]\nname = \"x\"\nagg = \"cuont\"\n",
                "f.toml:1: feature `x`: unknown agg `cuont` (did you mean `count`?)",
            ),
            (
                "\n[[feature]]\nname = \"X\"\nagg = \"count\"\n",
                "f.toml:2: feature name `X` is not snake_case",
            ),
            ("[[feature]]\nname = \"x\"\nagg = \"sum\"\nwindows=[\"7d\"]\n", "sum needs a field"),
            ("[[feature]]\nname = \"x\"\nagg = \"count\"\nwindows=[\"90m\"]\n", "whole hours"),
            ("[[feature]]\nname = \"x\"\nagg = \"count\"\nwindows=[\"300h\"]\n", "whole days"),
            (
                "[[feature]]\nname = \"x\"\nagg = \"count\"\nsource = \"clicks\"\nwindows=[\"7d\"]\n",
                "unknown source `clicks`",
            ),
            (
                "[[feature]]\nname = \"x\"\nagg = \"count\"\nwndows=[\"7d\"]\n",
                "f.toml:1: feature `x`: unknown key `wndows` (did you mean `windows`?)",
            ),
            (
                "[[feature]]\nname = \"x\"\nagg = \"days_since\"\n\n[[feature]]\nname = \"x\"\nagg = \"open\"\n",
                "f.toml:5: feature `x` is declared in line 1 already",
            ),
            (
                "[[feature]]\nname = \"x\"\nagg = \"overdue\"\nwindows=[\"65d\"]\n",
                "window 65d of overdue must be whole days, from 1d to 64d",
            ),
            ("[[feature]]\nname = \"x\"\nagg = \"overdue\"\nwindows=[\"36h\"]\n", "must be whole days"),
            ("[[feature]]\nname = \"x\"\nagg = \"overdue\"\nwindows=[\"lifetime\"]\n", "no lifetime window"),
            ("[[feature]]\nname = \"x\"\nagg = \"overdue\"\n", "needs windows"),
            ("\n[[featrue]]\nname = \"x\"\n", "f.toml:2: unknown key `featrue` (did you mean `feature`?)"),
            (
                "[[feature]]\nname = \"x\"\nagg = \"count\"\ntypes = [\"Page Viewed\"]\nwindows=[\"7d\"]\n",
                "`Page Viewed` is no type an event has here, which is snake_case",
            ),
            ("[[feature]]\nname = \"p\"\nagg = \"days_since\"\nwindows=[\"7d\"]\n", "takes no windows"),
            ("[[feature]]\nname = \"p_churn\"\nagg = \"days_since\"\n", "reserved"),
        ] {
            let error = Catalogue::load("f.toml", text).unwrap_err();
            assert!(error.what.contains(expected), "{text}\n gave: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_file_adds_to_the_shipped_catalogue_or_stands_alone() {
        let own =
            "[[feature]]\nname = \"orders\"\nsource = \"purchase\"\nagg = \"count\"\nwindows = [\"2d\"]\n";
        let merged = Catalogue::load("f.toml", own).unwrap();
        assert_eq!(merged.declarations.len(), Catalogue::shipped().declarations.len());
        let alone = Catalogue::load("f.toml", &format!("default = false\n{own}")).unwrap();
        assert_eq!(alone.declarations[0].features(), [("orders_2d".to_owned(), Span::Last(2 * DAY_MS))]);
    }
}
