//! What the topics must look like, and the two commands that make and check them.
//!
//! [`check`] and [`plan`] are pure: a layout wanted and the facts found go in, findings and topics to create
//! come out. [`crate::kafka::admin`] asks the cluster and tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;

use crate::error::{Error, Result};
use crate::kafka::admin::Admin;
use crate::kafka::clients::ClientSettings;
use crate::kafka::keys;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, format_span};

/// The state's segments are closed after this long, so that compaction can reach what is in them.
pub const SEGMENT_MS: i64 = 6 * HOUR_MS;
/// A value that was overwritten or erased is compacted away within this long of its segment's beginning.
pub const COMPACTION_LAG_MAX_MS: i64 = DAY_MS;
/// How long a tombstone outlives its compaction, so that every reader has seen it.
pub const TOMBSTONE_KEPT_MS: i64 = DAY_MS;
/// After at most this long nothing of an erased customer is left in the compacted topics, its id included:
/// the value goes with the first compaction, the tombstone with the one after it has been kept.
pub const ERASED_WITHIN_MS: i64 = COMPACTION_LAG_MAX_MS + TOMBSTONE_KEPT_MS + COMPACTION_LAG_MAX_MS;

/// How long what passes between the ids of a customer is kept. Nobody asks for it once it has arrived; a service
/// that stands still for longer loses what was under way.
pub const MOVES_KEPT_MS: i64 = 7 * DAY_MS;

/// The largest record that is written, as brokers and librdkafka take it.
pub const RECORD_BYTES_MOST: &str = "11534336";

/// What a dead letter has besides its record, generously.
const LETTER_HEADERS_BYTES: i64 = 16 << 10;

/// Clocks of machines differ; a broker that is stricter than this refuses honest records.
const CLOCK_SKEW_MAX_MS: i64 = 10 * MINUTE_MS;

/// The topics of one application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The topics of the enabled sources.
    pub inputs: Vec<String>,
    pub stage_changes: String,
    pub churn_scores: String,
    pub churn_alerts: String,
    pub churn_outcomes: String,
    pub erasures: String,
    pub dlq: String,
    pub state: String,
    pub identity: String,
    /// For topics to be created while no input exists yet; otherwise the inputs' count is taken.
    pub partitions: i32,
    /// For topics to be created.
    pub replication: i32,
}

/// What a topic is for, which decides what it must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Input,
    /// A stream of records each of which counts: stage changes, alerts, outcomes, dead letters.
    Log,
    /// Receipts of erasures, which are kept for whoever has to prove them.
    Receipts,
    /// The latest score of each customer.
    Scores,
    State,
    /// What passes between the ids of one customer.
    Moves,
}

/// What the cluster says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminFacts {
    pub brokers: usize,
    /// The topics that exist, of those that were asked for.
    pub topics: BTreeMap<String, TopicFacts>,
}

/// One existing topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFacts {
    pub partitions: i32,
    /// The smallest number of replicas any of its partitions has.
    pub replication: i32,
    /// Its effective configuration, defaults included.
    pub config: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// stagecast must not run like this.
    Error,
    /// It can, but something will be lost or late.
    Warning,
}

/// Something about a topic that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub topic: String,
    /// One sentence without a full stop.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
    pub config: BTreeMap<&'static str, String>,
}

/// `stagecast topics create`: makes what is missing, changes nothing that exists, and refuses to build upon a
/// layout that cannot work.
pub fn create(settings: &ClientSettings, layout: &Layout, inputs: bool, out: &mut dyn Write) -> Result<()> {
    let admin = Admin::connect(settings)?;
    let found = admin.look(layout)?;
    let new = plan(layout, &found, inputs).map_err(|wrong| refusal(&wrong))?;
    admin.create(&new)?;
    for (topic, _) in layout.topics() {
        match (new.iter().find(|n| n.name == topic), found.topics.get(topic)) {
            (Some(made), _) => say(out, &format!("created    {made}"))?,
            (None, Some(there)) => say(out, &format!("unchanged  {topic}: {} partitions", there.partitions))?,
            (None, None) => say(
                out,
                &format!("missing    {topic}: an input; whoever writes it creates it, or pass --inputs"),
            )?,
        }
    }
    if new.is_empty() {
        say(out, "nothing to do")?;
    }
    Ok(())
}

/// What `stagecast topics check` finds, the keys of a sample of the inputs included. `progress` is told the
/// number of records looked at.
pub fn inspect(settings: &ClientSettings, layout: &Layout, progress: &dyn Fn(u64)) -> Result<Vec<Finding>> {
    let found = Admin::connect(settings)?.look(layout)?;
    let mut findings = check(layout, &found);
    findings.extend(keys::misplaced(settings, &layout.inputs_found(&found), progress)?);
    Ok(findings)
}

/// Prints what is wrong; fails when something must change before `run`.
pub fn report(findings: &[Finding], layout: &Layout, out: &mut dyn Write) -> Result<()> {
    for finding in findings {
        say(out, &finding.to_string())?;
    }
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    if errors > 0 {
        return Err(Error::world(format!(
            "{errors} of the findings must be put right before `stagecast run`"
        )));
    }
    say(out, &format!("{} topics are as they must be", layout.topics().len()))
}

/// What `run` does before anything else: the same check, where errors refuse to start and warnings are logged. Topics
/// that nobody else creates are made, where nothing else is wrong.
///
/// Returns the number of partitions that inputs and state share.
pub fn require(settings: &ClientSettings, layout: &Layout) -> Result<i32> {
    let admin = Admin::connect(settings)?;
    let mut found = admin.look(layout)?;
    let own = own_topics(layout, &found);
    if !own.is_empty() {
        admin.create(&own)?;
        own.iter().for_each(|topic| tracing::info!("created {topic}"));
        found = admin.look(layout)?;
    }
    let (errors, warnings): (Vec<_>, Vec<_>) =
        check(layout, &found).into_iter().partition(|f| f.severity == Severity::Error);
    for warning in &warnings {
        tracing::warn!(topic = warning.topic, "{}; {}", warning.what, warning.fix);
    }
    match found.topics.get(&layout.state) {
        Some(state) if errors.is_empty() => Ok(state.partitions),
        _ => Err(refusal(&errors)),
    }
}

/// Topics that nobody but this application knows, receipts and moves, when nothing but their absence keeps the service
/// from running.
fn own_topics(layout: &Layout, found: &AdminFacts) -> Vec<NewTopic> {
    let is_own = |name: &str| {
        let absent = !found.topics.contains_key(name);
        absent && [&layout.identity, &layout.erasures].iter().any(|own| *own == name)
    };
    let wrong = check(layout, found).into_iter().filter(|finding| finding.severity == Severity::Error);
    if wrong.into_iter().any(|finding| !is_own(&finding.topic)) {
        return Vec::new();
    }
    let mut new = plan(layout, found, false).unwrap_or_default();
    new.retain(|topic| is_own(&topic.name));
    new
}

/// Everything about the existing and missing topics that is not as it should be, errors first.
pub fn check(layout: &Layout, found: &AdminFacts) -> Vec<Finding> {
    let mut findings = twice_used(layout);
    for (topic, role) in layout.topics() {
        match found.topics.get(topic) {
            None => findings.push(missing(topic, role)),
            Some(facts) => findings.extend(wrong_in(topic, role, facts)),
        }
    }
    findings.extend(unequal(layout, found));
    findings.extend(short_letters(layout, found));
    findings.sort_by_key(|f| f.severity);
    findings
}

/// The topics to create, or the findings that stand in the way.
pub fn plan(layout: &Layout, found: &AdminFacts, inputs: bool) -> Result<Vec<NewTopic>, Vec<Finding>> {
    let absent = |topic: &str| !found.topics.contains_key(topic);
    let mut wrong: Vec<Finding> = check(layout, found)
        .into_iter()
        .filter(|f| f.severity == Severity::Error && !absent(&f.topic))
        .collect();
    let shared = layout.co_partitioned().find_map(|t| found.topics.get(t)).map(|t| t.partitions);
    let partitions = shared.unwrap_or(layout.partitions);
    if partitions < 1 {
        wrong.push(Finding::error(&layout.state, "a topic needs a partition", "set topics.partitions"));
    }
    let (replication, brokers) = (layout.replication, found.brokers);
    let new: Vec<NewTopic> = layout
        .topics()
        .into_iter()
        .filter(|(topic, role)| absent(topic) && (inputs || *role != Role::Input))
        .map(|(topic, role)| NewTopic {
            name: topic.to_owned(),
            partitions,
            replication,
            config: role.config(replication),
        })
        .collect();
    if !new.is_empty() && usize::try_from(replication).is_ok_and(|r| r > brokers) {
        let what = format!("{replication} replicas are asked for, and the cluster has {brokers} brokers");
        wrong.push(Finding::error(&new[0].name, what, "set topics.replication"));
    }
    if wrong.is_empty() { Ok(new) } else { Err(wrong) }
}

impl Layout {
    /// Every topic with its role, in the order of flow.
    pub fn topics(&self) -> Vec<(&str, Role)> {
        let outputs = [
            (&self.stage_changes, Role::Log),
            (&self.churn_scores, Role::Scores),
            (&self.churn_alerts, Role::Log),
            (&self.churn_outcomes, Role::Log),
            (&self.erasures, Role::Receipts),
            (&self.dlq, Role::Log),
            (&self.state, Role::State),
            (&self.identity, Role::Moves),
        ];
        let inputs = self.inputs.iter().map(|t| (t.as_str(), Role::Input));
        inputs.chain(outputs.into_iter().map(|(t, role)| (t.as_str(), role))).collect()
    }

    /// The inputs that exist, with their numbers of partitions.
    fn inputs_found<'a>(&'a self, found: &AdminFacts) -> Vec<(&'a str, i32)> {
        let partitions = |topic: &'a String| Some((topic.as_str(), found.topics.get(topic)?.partitions));
        self.inputs.iter().filter_map(partitions).collect()
    }

    /// Partition n of each of these belongs to partition n of the others.
    fn co_partitioned(&self) -> impl Iterator<Item = &String> {
        self.inputs.iter().chain([&self.state, &self.identity])
    }
}

impl Role {
    /// The configuration a topic of this role is created with.
    pub fn config(self, replication: i32) -> BTreeMap<&'static str, String> {
        let mut config = BTreeMap::new();
        match self {
            Role::Input => {
                config.insert("cleanup.policy", "delete".to_owned());
            }
            Role::Log => {
                config.insert("cleanup.policy", "delete".to_owned());
            }
            Role::Receipts => {
                config.insert("cleanup.policy", "delete".to_owned());
                config.insert("retention.ms", "-1".to_owned());
            }
            Role::Moves => {
                config.insert("cleanup.policy", "delete".to_owned());
                config.insert("retention.ms", MOVES_KEPT_MS.to_string());
                config.insert("segment.ms", SEGMENT_MS.to_string());
            }
            Role::Scores | Role::State => {
                config.insert("cleanup.policy", "compact".to_owned());
                config.insert("min.cleanable.dirty.ratio", "0.2".to_owned());
                config.insert("segment.ms", SEGMENT_MS.to_string());
                config.insert("max.compaction.lag.ms", COMPACTION_LAG_MAX_MS.to_string());
                config.insert("delete.retention.ms", TOMBSTONE_KEPT_MS.to_string());
            }
        }
        // A dead letter is larger than the record it was, and a customer's state may be as large as what it knows.
        if matches!(self, Role::Log | Role::State | Role::Moves) {
            config.insert("max.message.bytes", RECORD_BYTES_MOST.to_owned());
        }
        if replication >= 3 {
            config.insert("min.insync.replicas", "2".to_owned());
        }
        config
    }
}

/// A dead letter is the record and some headers, which a topic that takes no more than the inputs do may refuse.
fn short_letters(layout: &Layout, found: &AdminFacts) -> Option<Finding> {
    let takes = |topic: &String| found.topics.get(topic)?.number("max.message.bytes");
    let (letters, records) = (takes(&layout.dlq)?, layout.inputs.iter().filter_map(takes).max()?);
    (letters < records + LETTER_HEADERS_BYTES).then(|| {
        Finding::warning(
            &layout.dlq,
            format!(
                "its max.message.bytes is {letters} and an input's is {records}: a dead letter of such a record could not be \
                 written, and the service would go no further"
            ),
            format!("set max.message.bytes={RECORD_BYTES_MOST} on `{}` (kafka-configs.sh --alter)", layout.dlq),
        )
    })
}

/// Roles must not share a topic: a state record in an output, or a loop.
fn twice_used(layout: &Layout) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let topics = layout.topics();
    let again = topics.iter().filter(|(topic, _)| !seen.insert(*topic));
    again
        .map(|(topic, _)| {
            Finding::error(
                topic,
                "one topic is named for two purposes",
                "give each source and output a topic of its own",
            )
        })
        .collect()
}

fn missing(topic: &str, role: Role) -> Finding {
    let fix = match role {
        Role::Input => {
            "run `stagecast topics create --inputs`, or create it with as many partitions as the others; a topic that \
             this user may not see is as good as none (`stagecast topics acls`)"
        }
        _ => {
            "run `stagecast topics create`; a topic that this user may not see is as good as none (`stagecast \
             topics acls`)"
        }
    };
    Finding::error(topic, "it does not exist", fix)
}

fn wrong_in(topic: &str, role: Role, facts: &TopicFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(wrong_cleanup(topic, role, facts));
    if role != Role::Input {
        findings.extend(strict_timestamps(topic, facts));
        findings.extend(wrong_replicas(topic, facts));
    }
    if matches!(role, Role::Scores | Role::State) {
        findings.extend(late_erasure(topic, facts));
    }
    findings
}

fn wrong_cleanup(topic: &str, role: Role, facts: &TopicFacts) -> Option<Finding> {
    let policy = facts.config.get("cleanup.policy")?;
    let compacts = policy.contains("compact");
    let is = format!("its cleanup.policy is `{policy}`");
    let alter = |to: &str| format!("set cleanup.policy={to} on `{topic}` (kafka-configs.sh --alter)");
    match role {
        Role::State if policy != "compact" => Some(Finding::error(
            topic,
            format!("{is}: the state of silent customers would be deleted"),
            alter("compact"),
        )),
        Role::Log | Role::Receipts | Role::Moves if compacts => Some(Finding::error(
            topic,
            format!("{is}: all but a customer's last record would be lost"),
            alter("delete"),
        )),
        Role::Scores if policy != "compact" => Some(Finding::warning(
            topic,
            format!("{is}: the scores of silent customers would be deleted"),
            alter("compact"),
        )),
        Role::Input if compacts => Some(Finding::warning(
            topic,
            format!("{is}: a customer's events that were not read in time would be lost"),
            alter("delete"),
        )),
        _ => None,
    }
}

/// Our records bear the time of processing; a broker that allows no skew would refuse them for ever.
fn strict_timestamps(topic: &str, facts: &TopicFacts) -> Vec<Finding> {
    if facts.config.get("message.timestamp.type").is_some_and(|t| t == "LogAppendTime") {
        return Vec::new();
    }
    ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"]
        .into_iter()
        .filter_map(|key| Some((key, facts.number(key)?)))
        .filter(|(_, ms)| *ms < CLOCK_SKEW_MAX_MS)
        .map(|(key, ms)| {
            Finding::warning(
                topic,
                format!("{key} is {}: a clock that is off by more stops every transaction", format_span(ms)),
                format!("set {key} to at least {CLOCK_SKEW_MAX_MS} on `{topic}`"),
            )
        })
        .collect()
}

fn wrong_replicas(topic: &str, facts: &TopicFacts) -> Option<Finding> {
    let (min_isr, replicas) = (facts.number("min.insync.replicas")?, i64::from(facts.replication));
    if min_isr > replicas {
        Some(Finding::error(
            topic,
            format!(
                "min.insync.replicas is {min_isr} and it has {replicas} replicas: nothing can be written"
            ),
            "lower min.insync.replicas or add replicas",
        ))
    } else if replicas > 1 && min_isr == replicas {
        Some(Finding::warning(
            topic,
            format!("min.insync.replicas equals its {replicas} replicas: one broker down stops every write"),
            "set min.insync.replicas one below the number of replicas",
        ))
    } else if replicas >= 3 && min_isr == 1 {
        Some(Finding::warning(
            topic,
            format!(
                "min.insync.replicas is 1 of {replicas}: the loss of one broker can lose committed records"
            ),
            "set min.insync.replicas=2",
        ))
    } else {
        None
    }
}

/// Without a bound on compaction the bytes of an erased customer stay for as long as they like.
fn late_erasure(topic: &str, facts: &TopicFacts) -> Option<Finding> {
    let unbounded = [("max.compaction.lag.ms", 30 * DAY_MS), ("delete.retention.ms", 30 * DAY_MS)]
        .into_iter()
        .find(|(key, limit)| facts.number(key).is_some_and(|ms| ms > *limit));
    unbounded.map(|(key, limit)| {
        Finding::warning(
            topic,
            format!("its {key} is above {}: erased customers stay in its segments", format_span(limit)),
            format!("set {key}={COMPACTION_LAG_MAX_MS} on `{topic}`"),
        )
    })
}

/// Inputs and state that are not cut alike.
fn unequal(layout: &Layout, found: &AdminFacts) -> Vec<Finding> {
    let counts: Vec<(&String, i32)> = layout
        .co_partitioned()
        .filter_map(|topic| Some((topic, found.topics.get(topic)?.partitions)))
        .collect();
    let Some(&(first, expected)) = counts.first() else {
        return Vec::new();
    };
    counts
        .iter()
        .filter(|(_, count)| *count != expected)
        .map(|(topic, count)| {
            Finding::error(
                topic,
                format!(
                    "it has {count} partitions and `{first}` has {expected}: a customer's events would meet \
                     different workers"
                ),
                "give inputs and state equally many partitions; adding some moves keys, so start with new topics \
                 or a new app.id",
            )
        })
        .collect()
}

fn refusal(wrong: &[Finding]) -> Error {
    let list: Vec<String> = wrong.iter().map(|f| format!("`{}`: {}", f.topic, f.what)).collect();
    let fix = wrong.first().map(|f| f.fix.clone()).unwrap_or_default();
    Error::user(format!("the topics cannot be used as they are: {}", list.join("; "))).hint(fix)
}

fn say(out: &mut dyn Write, line: &str) -> Result<()> {
    writeln!(out, "{line}").map_err(|e| Error::world(format!("cannot write the answer: {e}")))
}

impl Finding {
    fn error(topic: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { severity: Severity::Error, topic: topic.to_owned(), what: what.into(), fix: fix.into() }
    }

    pub(super) fn warning(topic: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { severity: Severity::Warning, ..Finding::error(topic, what, fix) }
    }
}

impl TopicFacts {
    pub fn number(&self, key: &str) -> Option<i64> {
        self.config.get(key)?.parse().ok()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7}  {}: {}\n  fix: {}", self.severity, self.topic, self.what, self.fix)
    }
}

impl fmt::Display for NewTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} partitions, replication {}", self.name, self.partitions, self.replication)?;
        for (key, value) in &self.config {
            write!(f, ", {key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            inputs: vec!["clicks".to_owned(), "purchase".to_owned()],
            stage_changes: "changes".to_owned(),
            churn_scores: "scores".to_owned(),
            churn_alerts: "alerts".to_owned(),
            churn_outcomes: "outcomes".to_owned(),
            erasures: "erasures".to_owned(),
            dlq: "dlq".to_owned(),
            state: "state".to_owned(),
            identity: "identity".to_owned(),
            partitions: 6,
            replication: 1,
        }
    }

    /// The cluster after `topics create --inputs` on nothing.
    fn created() -> AdminFacts {
        let empty = AdminFacts { brokers: 1, topics: BTreeMap::new() };
        let topics = plan(&layout(), &empty, true).unwrap().into_iter().map(|new| {
            let config = new.config.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            (new.name, TopicFacts { partitions: new.partitions, replication: new.replication, config })
        });
        AdminFacts { brokers: 1, topics: topics.collect() }
    }

    fn with(topic: &str, key: &str, value: &str) -> AdminFacts {
        let mut facts = created();
        facts.topics.get_mut(topic).unwrap().config.insert(key.to_owned(), value.to_owned());
        facts
    }

    #[test]
    fn what_create_makes_is_what_check_wants_and_a_second_run_makes_nothing() {
        assert_eq!(check(&layout(), &created()), []);
        assert_eq!(plan(&layout(), &created(), true), Ok(vec![]));
    }

    #[test]
    fn state_and_scores_compact_in_bounded_time_and_the_rest_deletes() {
        let facts = created();
        for (topic, policy) in [
            ("clicks", "delete"),
            ("changes", "delete"),
            ("alerts", "delete"),
            ("outcomes", "delete"),
            ("erasures", "delete"),
            ("dlq", "delete"),
            ("identity", "delete"),
            ("scores", "compact"),
            ("state", "compact"),
        ] {
            assert_eq!(facts.topics[topic].config["cleanup.policy"], policy, "{topic}");
        }
        assert_eq!(facts.topics["state"].number("max.compaction.lag.ms"), Some(COMPACTION_LAG_MAX_MS));
        assert_eq!(facts.topics["erasures"].number("retention.ms"), Some(-1), "receipts are kept");
        const { assert!(SEGMENT_MS <= COMPACTION_LAG_MAX_MS) }
    }

    #[test]
    fn run_makes_topics_of_its_own_and_nobody_elses_and_none_on_a_layout_that_cannot_work() {
        let without = |names: &[&str]| {
            let mut facts = created();
            facts.topics.retain(|topic, _| !names.contains(&topic.as_str()));
            facts
        };
        let made = |facts: &AdminFacts| -> Vec<(String, i32)> {
            own_topics(&layout(), facts).into_iter().map(|new| (new.name, new.partitions)).collect()
        };
        assert_eq!(made(&created()), []);
        let (receipts, moves) = (("erasures".to_owned(), 6), ("identity".to_owned(), 6));
        assert_eq!(made(&without(&["erasures"])), std::slice::from_ref(&receipts));
        assert_eq!(made(&without(&["identity", "erasures"])), [receipts, moves]);
        for missing in ["state", "changes", "clicks", "dlq"] {
            assert_eq!(made(&without(&["identity", missing])), [], "{missing}");
        }
        let mut facts = without(&["identity"]);
        facts.topics.get_mut("purchase").unwrap().partitions = 3;
        assert_eq!(made(&facts), []);
    }

    #[test]
    fn every_wrong_layout_is_found_and_weighed() {
        use Severity::{Error, Warning};
        for (topic, key, value, severity) in [
            ("state", "cleanup.policy", "delete", Error),
            ("state", "cleanup.policy", "compact,delete", Error),
            ("changes", "cleanup.policy", "compact", Error),
            ("alerts", "cleanup.policy", "compact,delete", Error),
            ("outcomes", "cleanup.policy", "compact", Error),
            ("erasures", "cleanup.policy", "compact", Error),
            ("dlq", "cleanup.policy", "compact", Error),
            ("identity", "cleanup.policy", "compact", Error),
            ("scores", "cleanup.policy", "delete", Warning),
            ("clicks", "cleanup.policy", "compact", Warning),
            ("scores", "message.timestamp.after.max.ms", "1000", Warning),
            ("state", "min.insync.replicas", "2", Error),
            ("state", "max.compaction.lag.ms", "9223372036854775807", Warning),
        ] {
            let findings = check(&layout(), &with(topic, key, value));
            let found: Vec<_> = findings.iter().map(|f| (f.topic.as_str(), f.severity)).collect();
            assert_eq!(found, [(topic, severity)], "{topic} {key}={value}");
        }
    }

    #[test]
    fn dead_letters_must_have_room_for_what_the_inputs_take() {
        let mut facts = with("clicks", "max.message.bytes", "1048588");
        assert_eq!(check(&layout(), &facts), []);
        for (takes, found) in [("1048588", 1), ("1064972", 0), ("1000", 1)] {
            facts.topics.get_mut("dlq").unwrap().config.insert("max.message.bytes".into(), takes.into());
            let findings = check(&layout(), &facts);
            assert_eq!(findings.len(), found, "{takes}: {findings:?}");
            assert!(findings.iter().all(|f| f.topic == "dlq" && f.severity == Severity::Warning));
        }
    }

    #[test]
    fn replicas_that_stop_writes_or_lose_them_are_warned_about() {
        for (replicas, min_isr, found) in [(3, "1", 1), (3, "2", 0), (3, "3", 1), (1, "1", 0)] {
            let mut facts = with("state", "min.insync.replicas", min_isr);
            facts.topics.get_mut("state").unwrap().replication = replicas;
            assert_eq!(check(&layout(), &facts).len(), found, "{min_isr} of {replicas}");
        }
    }

    #[test]
    fn missing_topics_and_unequal_counts_are_errors() {
        let mut facts = created();
        facts.topics.remove("dlq");
        facts.topics.get_mut("purchase").unwrap().partitions = 4;
        facts.topics.get_mut("scores").unwrap().partitions = 1;
        let findings = check(&layout(), &facts);
        let found: Vec<_> = findings.iter().map(|f| (f.topic.as_str(), f.severity)).collect();
        assert_eq!(found, [("dlq", Severity::Error), ("purchase", Severity::Error)]);
    }

    #[test]
    fn new_topics_take_the_partition_count_of_the_inputs_that_exist() {
        let mut facts = created();
        facts.topics.retain(|name, _| name == "purchase");
        facts.topics.get_mut("purchase").unwrap().partitions = 24;
        let new = plan(&layout(), &facts, true).unwrap();
        assert_eq!(new.len(), 9);
        assert!(new.iter().all(|t| t.partitions == 24));
        let names: Vec<_> = plan(&layout(), &facts, false).unwrap().into_iter().map(|t| t.name).collect();
        assert!(!names.contains(&"clicks".to_owned()));
    }

    #[test]
    fn nothing_is_built_upon_a_wrong_layout() {
        let mut facts = with("state", "cleanup.policy", "delete");
        facts.topics.remove("dlq");
        let wrong = plan(&layout(), &facts, false).unwrap_err();
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].topic, "state");
    }

    #[test]
    fn more_replicas_than_brokers_are_refused_before_asking() {
        let three = Layout { replication: 3, ..layout() };
        let one = AdminFacts { brokers: 1, topics: BTreeMap::new() };
        assert!(plan(&three, &one, true).unwrap_err()[0].what.contains("3 replicas"));
        let new = plan(&three, &AdminFacts { brokers: 3, ..one }, true).unwrap();
        assert!(new.iter().all(|t| t.config["min.insync.replicas"] == "2"));
    }

    #[test]
    fn one_topic_for_two_purposes_is_an_error() {
        let mut layout = layout();
        layout.dlq = layout.inputs[0].clone();
        assert!(check(&layout, &created()).iter().any(|f| f.what.contains("two purposes")));
    }
}
