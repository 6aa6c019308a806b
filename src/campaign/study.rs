//! The experiment behind a policy's alerts: who was in which half, who came back, what that was worth.
//!
//! Pure: told what happened, in any order but alerts first, it answers with a [`Report`].
//!
//! Customers are what was drawn for the two groups, so a customer counts once by policy: by its first alert.
//! Whoever was alerted is counted in the group it was drawn for, whether the campaign reached it or not, and is
//! left out until its time is over. Both keep the two groups alike but for the campaign.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::statistics::{Moments, Share, quantile};
use crate::days::Days;
use crate::event::{Event, Field, MICROS, ProfileChange, Source};
use crate::model::metrics::Interval;
use crate::pipeline::outbox::hash_customer;
use crate::time::{DAY_MS, Rfc3339, Ts, format_rfc3339, format_span};

/// A split that is so many standard errors off is no accident (p < 0.001).
const SPLIT_ERRORS_MOST: f64 = 3.29;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// How long after its alert a customer has to return.
    pub within: i64,
    /// `None`: orders where the input has any, else outcomes.
    pub returned_by: Option<Returned>,
    /// Alerts from here on.
    pub since: Option<Ts>,
    /// Alerts before this.
    pub until: Option<Ts>,
    /// Stages in which a customer has lapsed: by name, or as `lifecycle:name`.
    pub lapse: Vec<String>,
    /// How far apart kept scores of a customer lie.
    pub outcomes_every: i64,
    /// The share of the control group by policy, as configured.
    pub control: BTreeMap<String, f64>,
    /// What of an order's value stays.
    pub margin: f64,
}

/// What counts as a return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Returned {
    /// An order in the time after the alert
    Order,
    /// The score behind the alert turned out wrong: its outcome says that the customer did not churn
    Outcome,
}

/// An alert that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub id: String,
    pub customer: String,
    pub policy: String,
    pub ts: Ts,
    pub control: bool,
    pub value_at_risk: Option<f64>,
}

/// What the experiments of all policies say.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub within: String,
    pub returned_by: Returned,
    /// The last instant that is known of.
    pub as_of: Rfc3339,
    pub policies: Vec<Policy>,
}

/// One policy's experiment.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    pub policy: String,
    pub first_alert: Rfc3339,
    pub last_alert: Rfc3339,
    pub alerts: u64,
    pub treatment: Half,
    pub control: Half,
    /// Return rate of the treatment less that of the control, with Newcombe's interval; `None` without both.
    pub difference: Option<Interval>,
    /// Customers of the treatment who returned and would not have.
    pub incremental_customers: Option<Interval>,
    /// What a customer of the treatment spent more, with Welch's interval.
    pub revenue_difference: Option<Interval>,
    /// What all of the treatment spent more, and the margin of that.
    pub incremental_revenue: Option<Interval>,
    pub incremental_margin: Option<Interval>,
    /// Customers whose time after the alert is not over, or whose outcome is not known.
    pub undecided: u64,
    pub split: Option<Split>,
    pub warning: Warning,
}

/// One of the two groups.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Half {
    pub customers: u64,
    pub returned: u64,
    /// With Wilson's interval.
    pub return_rate: Option<Interval>,
    /// Orders less refunds in the time after the alert, in the base currency; `None` where no order was told.
    pub revenue: Option<f64>,
    pub revenue_per_customer: Option<f64>,
    /// What the alerts said.
    pub value_at_risk: f64,
}

/// Whether the groups have the sizes that were configured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Split {
    pub configured: f64,
    pub observed: f64,
    /// False where chance does not explain the difference: somebody was left out, and the groups are not alike.
    pub plausible: bool,
}

/// How early the policy knew.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Warning {
    /// Customers' ways into a stage of lapse since the policy's first alert.
    pub lapses: u64,
    /// Those with an alert of this policy after the last order before.
    pub warned: u64,
    /// From that alert to the lapse: the median, and the quarters' bounds.
    pub days: Option<Interval>,
}

/// What is known of an alerted customer.
#[derive(Debug, Default)]
struct Case {
    /// By policy number.
    alerts: Vec<(usize, Alerted)>,
    spending: Vec<Spending>,
    lapses: Vec<Ts>,
    outcomes: Vec<(Ts, bool)>,
    event_ids: HashSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Alerted {
    ts: Ts,
    control: bool,
    value_at_risk: f64,
}

#[derive(Clone, Copy, Debug)]
struct Spending {
    ts: Ts,
    is_order: bool,
    /// Millionths; refunds are below 0.
    amount: i64,
}

/// Everything told so far.
#[derive(Debug)]
pub struct Study {
    question: Question,
    policies: Vec<String>,
    cases: HashMap<u64, Case>,
    alert_ids: HashSet<String>,
    /// Lapses of customers whom no policy named.
    unwarned: Vec<Ts>,
    orders: u64,
    outcomes: u64,
    /// The last score of which anybody's outcome is known.
    judged_to: Ts,
    /// When whatever was told happened.
    days: Days,
    /// Customers who are others now, by the hashes of their ids.
    merged: HashMap<u64, u64>,
}

impl Study {
    pub fn new(question: Question) -> Study {
        Study {
            question,
            policies: Vec::new(),
            cases: HashMap::new(),
            alert_ids: HashSet::new(),
            unwarned: Vec::new(),
            orders: 0,
            outcomes: 0,
            judged_to: Ts::MIN,
            days: Days::default(),
            merged: HashMap::new(),
        }
    }

    /// All alerts have to be told before anything else. One told twice counts once.
    pub fn alert(&mut self, alert: Alert) {
        self.days.note(alert.ts);
        let Question { since, until, .. } = self.question;
        let is_asked =
            since.is_none_or(|since| alert.ts >= since) && until.is_none_or(|until| alert.ts < until);
        if !is_asked || !self.alert_ids.insert(alert.id) {
            return;
        }
        let known = self.policies.iter().position(|name| *name == alert.policy);
        let policy = known.unwrap_or_else(|| {
            self.policies.push(alert.policy);
            self.policies.len() - 1
        });
        let value_at_risk = alert.value_at_risk.unwrap_or(0.0);
        let alerted = Alerted { ts: alert.ts, control: alert.control, value_at_risk };
        self.cases.entry(hash_customer(&alert.customer)).or_default().alerts.push((policy, alerted));
    }

    /// Anything a customer did; one told twice under the same id counts once.
    pub fn event(&mut self, event: &Event<'_>) {
        self.days.note(event.ts);
        if let Some(ProfileChange::Merged(merge)) = event.profile.as_deref() {
            return self.merge(&merge.from_id, &event.customer_id);
        }
        if event.source != Source::Purchase {
            return;
        }
        let is_order = event.name == "order_completed";
        if !is_order && event.name != "order_refunded" {
            return;
        }
        self.orders += u64::from(is_order);
        let customer = self.who(&event.customer_id);
        let Some(case) = self.cases.get_mut(&customer) else { return };
        if event.event_id.as_deref().is_some_and(|id| !case.event_ids.insert(hash_customer(id))) {
            return;
        }
        let amount = event.numbers.get(Field::Amount).unwrap_or(0);
        let amount = if is_order { amount } else { -amount };
        case.spending.push(Spending { ts: event.ts, is_order, amount });
    }

    /// A customer's way into a stage.
    pub fn stage_change(&mut self, customer: &str, lifecycle: &str, to: &str, ts: Ts) {
        self.days.note(ts);
        let is_lapse = |stage: &String| match stage.split_once(':') {
            Some((of, name)) => of == lifecycle && name == to,
            None => stage == to,
        };
        if !self.question.lapse.iter().any(is_lapse) {
            return;
        }
        match self.cases.get_mut(&self.who(customer)) {
            Some(case) => case.lapses.push(ts),
            None => self.unwarned.push(ts),
        }
    }

    /// What became of a score.
    pub fn outcome(&mut self, customer: &str, scored_at: Ts, churned: bool) {
        self.outcomes += 1;
        self.judged_to = self.judged_to.max(scored_at);
        if let Some(case) = self.cases.get_mut(&self.who(customer)) {
            case.outcomes.push((scored_at, churned));
        }
    }

    /// Whoever has this id by now, hashed.
    fn who(&self, id: &str) -> u64 {
        let mut customer = hash_customer(id);
        while let Some(target) = self.merged.get(&customer) {
            customer = *target;
        }
        customer
    }

    /// From now on whatever is told of either is told of one customer, who has done and been told what both were.
    fn merge(&mut self, from: &str, into: &str) {
        let (from, into) = (self.who(from), self.who(into));
        if from == into {
            return;
        }
        self.merged.insert(from, into);
        if let Some(theirs) = self.cases.remove(&from) {
            self.cases.entry(into).or_default().take_over(theirs);
        }
    }

    /// How many policies have alerts.
    pub fn policies(&self) -> usize {
        self.policies.len()
    }

    /// `None` where nothing was told that says who returned.
    pub fn report(mut self) -> Option<Report> {
        let told = [(self.orders, Returned::Order), (self.outcomes, Returned::Outcome)];
        let found = told.iter().find(|(n, _)| *n > 0).map(|(_, by)| *by);
        let returned_by = self.question.returned_by.or(found)?;
        let as_of = self.days.end()?;
        for case in self.cases.values_mut() {
            case.alerts.sort_by_key(|(_, alert)| alert.ts);
            case.spending.sort_by_key(|spending| spending.ts);
        }
        let mut policies: Vec<Policy> =
            (0..self.policies.len()).map(|policy| self.policy(policy, returned_by, as_of)).collect();
        policies.sort_by(|a, b| a.policy.cmp(&b.policy));
        Some(Report {
            within: format_span(self.question.within),
            returned_by,
            as_of: format_rfc3339(as_of),
            policies,
        })
    }

    fn policy(&self, policy: usize, returned_by: Returned, as_of: Ts) -> Policy {
        let (mut groups, mut undecided) = ([Group::default(); 2], 0);
        let (mut alerts, mut first, mut last) = (0, Ts::MAX, Ts::MIN);
        // In a fixed order, so that sums of fractions are the same every time.
        let mut cases: Vec<(&u64, &Case)> = self.cases.iter().collect();
        cases.sort_unstable_by_key(|(customer, _)| **customer);
        for (_, case) in &cases {
            let mut own =
                case.alerts.iter().filter(|(of, _)| *of == policy).map(|(_, alert)| alert).peekable();
            let Some(counted) = own.peek().copied() else { continue };
            for alert in own {
                (first, last) = (first.min(alert.ts), last.max(alert.ts));
                alerts += 1;
            }
            match self.returned(case, counted.ts, returned_by, as_of) {
                None => undecided += 1,
                Some(returned) => {
                    let revenue = case.revenue(counted.ts, self.question.within);
                    groups[usize::from(counted.control)].add(returned, revenue, counted.value_at_risk);
                }
            }
        }
        let [treatment, control] = groups;
        let times = |interval: Interval, factor: f64| Interval {
            value: interval.value * factor,
            low: interval.low * factor,
            high: interval.high * factor,
        };
        let treated = treatment.share.of as f64;
        let difference = treatment.share.minus(control.share);
        let spends = self.orders > 0;
        let revenue_difference = treatment.revenue.minus(control.revenue).filter(|_| spends);
        let incremental_revenue = revenue_difference.map(|each| times(each, treated));
        let name = self.policies[policy].clone();
        Policy {
            first_alert: format_rfc3339(first),
            last_alert: format_rfc3339(last),
            alerts,
            difference,
            incremental_customers: difference.map(|rate| times(rate, treated)),
            revenue_difference,
            incremental_revenue,
            incremental_margin: incremental_revenue.map(|all| times(all, self.question.margin)),
            undecided,
            split: self.split(&name, &cases, policy),
            warning: self.warning(&cases, policy, first),
            treatment: treatment.told(spends),
            control: control.told(spends),
            policy: name,
        }
    }

    /// Whether a customer returned after an alert; `None` while that is open.
    fn returned(&self, case: &Case, alerted: Ts, by: Returned, as_of: Ts) -> Option<bool> {
        let end = alerted.saturating_add(self.question.within);
        match by {
            Returned::Order => (end <= as_of).then(|| {
                case.spending.iter().any(|spent| spent.is_order && spent.ts > alerted && spent.ts <= end)
            }),
            // Scores are kept some time apart, so that the alert's own may be known by its neighbour's outcome only: but
            // not before scores of its time are judged.
            Returned::Outcome if alerted > self.judged_to => None,
            Returned::Outcome => {
                let near = case.outcomes.iter().map(|(at, churned)| ((at - alerted).abs(), churned));
                let nearest = near.filter(|(off, _)| *off <= self.question.outcomes_every).min();
                nearest.map(|(_, churned)| !churned)
            }
        }
    }

    /// Of all who were alerted, whether decided yet or not.
    fn split(&self, name: &str, cases: &[(&u64, &Case)], policy: usize) -> Option<Split> {
        let configured = *self.question.control.get(name)?;
        let first = |case: &&Case| case.alerts.iter().find(|(of, _)| *of == policy).map(|(_, alert)| *alert);
        let alerted: Vec<Alerted> = cases.iter().filter_map(|(_, case)| first(case)).collect();
        let share = Share {
            hits: alerted.iter().filter(|alert| alert.control).count() as u64,
            of: alerted.len() as u64,
        };
        let plausible = match configured > 0.0 && configured < 1.0 {
            true => share.errors_from(configured).abs() <= SPLIT_ERRORS_MOST,
            false => share.rate() == configured,
        };
        Some(Split { configured, observed: share.rate(), plausible })
    }

    fn warning(&self, cases: &[(&u64, &Case)], policy: usize, first: Ts) -> Warning {
        let mut lapses = self.unwarned.iter().filter(|ts| **ts >= first).count() as u64;
        let mut days = Vec::new();
        for (_, case) in cases {
            for lapse in case.lapses.iter().filter(|ts| **ts >= first) {
                lapses += 1;
                days.extend(case.warned_at(*lapse, policy).map(|ts| (lapse - ts) as f64 / DAY_MS as f64));
            }
        }
        days.sort_by(f64::total_cmp);
        let at = |q: f64| quantile(&days, q);
        let spread = at(0.5).zip(at(0.25)).zip(at(0.75));
        Warning {
            lapses,
            warned: days.len() as u64,
            days: spread.map(|((value, low), high)| Interval { value, low, high }),
        }
    }
}

impl Case {
    fn take_over(&mut self, other: Case) {
        self.alerts.extend(other.alerts);
        self.spending.extend(other.spending);
        self.lapses.extend(other.lapses);
        self.outcomes.extend(other.outcomes);
        self.event_ids.extend(other.event_ids);
    }

    fn revenue(&self, alerted: Ts, within: i64) -> f64 {
        let inside = |spent: &&Spending| spent.ts > alerted && spent.ts <= alerted.saturating_add(within);
        let micros: i64 = self.spending.iter().filter(inside).map(|spent| spent.amount).sum();
        micros as f64 / MICROS
    }

    /// The first alert of a policy after the last order before a lapse that is known of, or after the lapse before it.
    fn warned_at(&self, lapse: Ts, policy: usize) -> Option<Ts> {
        let orders = self.spending.iter().filter(|spent| spent.is_order).map(|spent| spent.ts);
        let earlier = self.lapses.iter().copied();
        let begins = orders.chain(earlier).filter(|ts| *ts < lapse).max().unwrap_or(Ts::MIN);
        let own = self.alerts.iter().filter(|(of, _)| *of == policy).map(|(_, alert)| alert.ts);
        own.filter(|ts| *ts >= begins && *ts <= lapse).min()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    share: Share,
    revenue: Moments,
    value_at_risk: f64,
}

impl Group {
    fn add(&mut self, returned: bool, revenue: f64, value_at_risk: f64) {
        self.share.of += 1;
        self.share.hits += u64::from(returned);
        self.revenue.add(revenue);
        self.value_at_risk += value_at_risk;
    }

    fn told(self, spends: bool) -> Half {
        let customers = self.share.of;
        Half {
            customers,
            returned: self.share.hits,
            return_rate: self.share.interval(),
            revenue: spends.then(|| self.revenue.mean() * customers as f64),
            revenue_per_customer: (spends && customers > 0).then(|| self.revenue.mean()),
            value_at_risk: self.value_at_risk,
        }
    }
}
