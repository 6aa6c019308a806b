//! A campaign with a known effect: of the customers who were alerted about and may be reached, so many order once
//! more than they would have.
//!
//! The extra order changes nothing else in a customer's life. The same simulation without the campaign is therefore
//! what would have happened without it, customer by customer, and the campaign's true effect can be counted.

use std::collections::BTreeMap;
use std::path::Path;

use super::random::Random;
use super::record::{Record, Writer};
use super::{CUSTOMERS_MOST, Settings};
use crate::campaign::{read_alert, read_lines};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Ts};

/// Random streams of their own, beyond those of the customers' lives.
const STREAMS: u64 = 1 << 32;
/// Event numbers of their own, so that no id is used twice.
const NUMBERS: u32 = 1_000_000_000;
const ANSWER_DAYS: f64 = 4.0;
const ANSWER_DAYS_MOST: f64 = 20.0;

/// Whom the campaign reached, and who answered.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Customers of the treatment, by their first alert of a policy.
    pub reached: usize,
    /// Those of them who order once more.
    pub answered: usize,
    /// The records of that, in time order.
    pub records: Vec<Record>,
}

impl Campaign {
    /// Reads the alerts that a run over the same customers wrote. Each policy reaches a customer once, at its first
    /// alert, unless the customer is in the policy's control group; `uplift` is the share of them who answer.
    pub fn read(path: &Path, uplift: f64, settings: &Settings) -> Result<Campaign> {
        let mut first: BTreeMap<(u32, String), Ts> = BTreeMap::new();
        read_lines(path, &mut |json| {
            let alert = read_alert(json)?;
            let customer = customer_of(&alert.customer, settings)?;
            if !alert.control {
                let at = first.entry((customer, alert.policy)).or_insert(alert.ts);
                *at = alert.ts.min(*at);
            }
            Ok(())
        })
        .map_err(|error| {
            error.hint("name the churn-alerts.ndjson that `replay` wrote for this very simulation")
        })?;
        if first.is_empty() {
            return Err(Error::user(format!("{} holds no alert of a treatment group", path.display()))
                .hint("`stagecast replay` over the simulation without a campaign writes them"));
        }
        let mut campaign = Campaign { reached: first.len(), ..Campaign::default() };
        for (number, ((customer, _), alerted)) in first.into_iter().enumerate() {
            let mut random = Random::new(settings.seed, STREAMS + number as u64);
            if random.chance(uplift) {
                let ordered = campaign.answer(customer, NUMBERS + 2 * number as u32, alerted, &mut random);
                campaign.answered += usize::from(ordered < settings.end());
            }
        }
        campaign.records.retain(|record| record.ts < settings.end());
        campaign.records.sort_by_key(|record| (record.ts, record.customer));
        Ok(campaign)
    }

    /// A mail is clicked, and an order follows; returns when.
    fn answer(&mut self, customer: u32, number: u32, alerted: Ts, random: &mut Random) -> Ts {
        let days = random.exponential(ANSWER_DAYS).min(ANSWER_DAYS_MOST);
        let clicked = alerted + HOUR_MS + (days * DAY_MS as f64) as Ts;
        let click = Writer::new(Source::Clickstream, customer, number, "email_clicked", clicked);
        self.records.push(click.text("channel", "email").text("campaign", "alert").end());
        let ordered = clicked + 10 * MINUTE_MS;
        let cents = (4_000.0 * libm::exp(0.5 * random.normal())) as i64;
        let order = Writer::new(Source::Purchase, customer, number + 1, "order_completed", ordered)
            .text("order_id", format_args!("a{customer:07}-{number}"))
            .cents("amount", cents)
            .text("currency", "EUR")
            .text("channel", "email");
        self.records.push(order.end());
        ordered
    }
}

/// The number in `c0000042`.
fn customer_of(id: &str, settings: &Settings) -> Result<u32, String> {
    let number = id.strip_prefix('c').and_then(|digits| digits.parse::<u32>().ok());
    let known = |number: &u32| (1..=settings.customers.min(CUSTOMERS_MOST)).contains(&u64::from(*number));
    number.filter(known).ok_or_else(|| format!("`{id}` is none of the simulated customers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Simulation;

    fn alert(customer: &str, policy: &str, day: i64, group: &str) -> String {
        let ts = crate::time::format_rfc3339(super::super::START + day * DAY_MS);
        format!(
            r#"{{"alert_id":"{customer}{policy}{day}","customer_id":"{customer}","ts":"{ts}","policy":"{policy}","group":"{group}"}}"#
        )
    }

    fn read(lines: &[String], uplift: f64) -> Result<Campaign> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("churn-alerts.ndjson");
        std::fs::write(&path, lines.join("\n")).unwrap();
        Campaign::read(&path, uplift, &Settings { customers: 50, days: 60, ..Settings::default() })
    }

    #[test]
    fn only_the_treatment_answers_and_each_customer_once() {
        let lines = [
            alert("c0000001", "churn", 10, "treatment"),
            alert("c0000001", "churn", 20, "treatment"),
            alert("c0000002", "churn", 10, "control"),
        ];
        let campaign = read(&lines, 1.0).unwrap();
        assert_eq!((campaign.reached, campaign.answered, campaign.records.len()), (1, 1, 2));
        assert!(campaign.records.iter().all(|record| record.customer == 1));
        let nobody = read(&lines, 0.0).unwrap();
        assert_eq!((nobody.reached, nobody.answered, nobody.records.len()), (1, 0, 0));
    }

    #[test]
    fn alerts_of_other_customers_are_refused_with_their_line() {
        let error = read(&[alert("c0000051", "churn", 1, "treatment")], 0.5).unwrap_err();
        assert!(error.what.contains(":1: `c0000051` is none of the simulated customers"), "{error}");
        assert!(read(&[alert("c0000005", "churn", 1, "control")], 0.5).is_err());
    }

    #[test]
    fn a_campaign_adds_its_records_and_changes_no_other() {
        let settings = Settings { customers: 50, days: 60, ..Settings::default() };
        let campaign = read(&[alert("c0000007", "churn", 30, "treatment")], 1.0).unwrap();
        let plain: Vec<Record> = Simulation::new(&settings).unwrap().collect();
        let answered: Vec<Record> =
            Simulation::new(&settings).unwrap().answered(campaign.records.clone()).collect();
        assert!(answered.is_sorted_by_key(|record| record.ts));
        let (extra, rest): (Vec<Record>, Vec<Record>) =
            answered.into_iter().partition(|record| campaign.records.contains(record));
        assert_eq!((extra, rest), (campaign.records, plain));
    }
}
