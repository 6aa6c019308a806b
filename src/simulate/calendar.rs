//! What happens to all customers alike: the seasons of a year, and the shop's campaigns. Pure.

use crate::time::{DAY_MS, Ts};

/// How much there is to do by month, mean 1: quiet after the holidays and in summer, loud before Christmas.
const MONTHS: [f64; 12] = [0.86, 0.88, 0.94, 0.97, 0.99, 0.95, 0.90, 0.90, 0.98, 1.05, 1.25, 1.33];
const YEAR_DAYS: f64 = 365.2425;
/// Every year's campaigns: the day of the year on which each begins.
const CAMPAIGNS: [(i64, &str); 6] = [
    (12, "winter-sale"),
    (83, "spring-refresh"),
    (165, "summer-sale"),
    (238, "back-to-school"),
    (328, "black-friday"),
    (341, "christmas-gifts"),
];
const CAMPAIGN_DAYS: i64 = 6;
/// How much more often those come who read the mails, while a campaign runs.
const LIFT: f64 = 1.4;
/// Between campaigns they come the more rarely, so that a year has mean 1 for them too.
const BETWEEN: f64 = 365.0 / (365.0 + 36.0 * (LIFT - 1.0));

/// The highest value of [`mood`].
pub const MOOD_MOST: f64 = 1.33 * (LIFT * BETWEEN);

/// How much busier than on average this instant is, for who reads the mails and who does not.
pub fn mood(t: Ts, reads_mails: bool) -> f64 {
    let season = MONTHS[(of_year(t) * 12.0) as usize % 12];
    match (reads_mails, campaign_at(t)) {
        (false, _) => season,
        (true, None) => season * BETWEEN,
        (true, Some(_)) => season * (LIFT * BETWEEN),
    }
}

/// The campaign that runs at this instant.
pub fn campaign_at(t: Ts) -> Option<&'static str> {
    let day = day_of_year(t);
    CAMPAIGNS.iter().find(|(first, _)| (*first..first + CAMPAIGN_DAYS).contains(&day)).map(|(_, name)| *name)
}

/// The first campaign to begin at or after this instant's day, and when.
pub fn next_campaign(t: Ts) -> (Ts, &'static str) {
    let (midnight, day) = (t.div_euclid(DAY_MS), day_of_year(t));
    let this_year = CAMPAIGNS.iter().find(|(first, _)| *first >= day);
    let (days, name) = match this_year {
        Some((first, name)) => (first - day, *name),
        None => (CAMPAIGNS[0].0 + YEAR_DAYS as i64 - day, CAMPAIGNS[0].1),
    };
    ((midnight + days) * DAY_MS, name)
}

/// From 0 to 1, by years of equal length: seasons need no calendar.
fn of_year(t: Ts) -> f64 {
    let days = t.div_euclid(DAY_MS) as f64;
    (days / YEAR_DAYS).fract()
}

fn day_of_year(t: Ts) -> i64 {
    (of_year(t) * YEAR_DAYS) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;

    fn at(text: &str) -> Ts {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_year_has_mean_one_and_its_stated_peak() {
        for reads_mails in [false, true] {
            let mean = (0..365).map(|day| mood(day * DAY_MS, reads_mails)).sum::<f64>() / 365.0;
            assert!((mean - 1.0).abs() < 0.02, "{mean}");
        }
        let most = (0..3_650).map(|day| mood(day * DAY_MS, true)).fold(0.0, f64::max);
        assert_eq!(most, MOOD_MOST);
        assert!(mood(at("2025-12-10T00:00:00Z"), false) > mood(at("2025-07-20T00:00:00Z"), false));
    }

    #[test]
    fn a_campaign_begins_when_it_is_said_to() {
        for day in 0..2_000 {
            let t = at("2025-01-01T00:00:00Z") + day * DAY_MS + 1;
            let (begins, name) = next_campaign(t);
            assert!(begins > t - DAY_MS && begins <= t + 90 * DAY_MS, "{day}");
            // Years of equal length drift by a day against midnights.
            assert!([begins, begins + DAY_MS].iter().any(|d| campaign_at(*d) == Some(name)), "{day}");
        }
    }
}
