//! How good a probability is: discrimination, calibration, and what a campaign would get out of it.
//!
//! Pure functions over probabilities and outcomes. None depends on the order of the rows: ties are shared out.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything an evaluation says about one set of probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub examples: usize,
    pub churned: usize,
    pub base_rate: f64,
    pub mean_p: f64,
    pub roc_auc: Interval,
    pub pr_auc: f64,
    pub log_loss: f64,
    pub brier: f64,
    pub ece: f64,
    pub lift_10: f64,
    pub capture_10: f64,
}

/// A value with the 95 % interval of its bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// How the interval is drawn: customers are resampled, not rows, since one customer's rows are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    pub rounds: usize,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { rounds: 200, seed: 0 }
    }
}

/// Judges probabilities against outcomes. `None` when there is only one class, or lengths differ, or a
/// probability is not a number from 0 to 1.
pub fn report(p: &[f64], churned: &[bool], customer: &[u64], bootstrap: Bootstrap) -> Option<Report> {
    if p.len() != churned.len() || p.len() != customer.len() || p.iter().any(|p| !(0.0..=1.0).contains(p)) {
        return None;
    }
    let positives = churned.iter().filter(|c| **c).count();
    let n = p.len() as f64;
    Some(Report {
        examples: p.len(),
        churned: positives,
        base_rate: positives as f64 / n,
        mean_p: p.iter().sum::<f64>() / n,
        roc_auc: roc_auc_interval(p, churned, customer, bootstrap)?,
        pr_auc: pr_auc(p, churned)?,
        log_loss: log_loss(p, churned),
        brier: brier(p, churned),
        ece: ece(p, churned),
        lift_10: lift(p, churned, 0.1)?,
        capture_10: capture(p, churned, 0.1)?,
    })
}

/// The probability that a churner is scored above a stayer, ties counting half. `None` with one class only.
pub fn roc_auc(score: &[f64], churned: &[bool]) -> Option<f64> {
    let order = ascending(score);
    weighted_auc(score, churned, &order, |_| 1.0)
}

/// The ROC-AUC with a percentile interval from resampled customers.
pub fn roc_auc_interval(
    score: &[f64],
    churned: &[bool],
    customer: &[u64],
    bootstrap: Bootstrap,
) -> Option<Interval> {
    let order = ascending(score);
    let value = weighted_auc(score, churned, &order, |_| 1.0)?;
    let mut ids = BTreeMap::new();
    let of_row: Vec<usize> = customer
        .iter()
        .map(|c| {
            let next = ids.len();
            *ids.entry(*c).or_insert(next)
        })
        .collect();
    let mut rng = Pcg64::seed_from_u64(bootstrap.seed);
    let mut drawn = vec![0u32; ids.len()];
    let mut values = Vec::with_capacity(bootstrap.rounds);
    for _ in 0..bootstrap.rounds {
        drawn.fill(0);
        for _ in 0..ids.len() {
            drawn[below(&mut rng, ids.len())] += 1;
        }
        let weight = |row: usize| f64::from(drawn[of_row[row]]);
        // A draw without one of the classes says nothing about their order.
        values.extend(weighted_auc(score, churned, &order, weight));
    }
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values.get(((values.len() as f64 - 1.0) * q).round() as usize).copied();
    Some(Interval { value, low: at(0.025).unwrap_or(value), high: at(0.975).unwrap_or(value) })
}

/// Average precision: Σ (recall gained at a threshold) × (precision there), over distinct scores.
pub fn pr_auc(score: &[f64], churned: &[bool]) -> Option<f64> {
    let positives = churned.iter().filter(|c| **c).count() as f64;
    if positives == 0.0 || score.len() != churned.len() {
        return None;
    }
    let (mut hits, mut seen, mut area) = (0.0, 0.0, 0.0);
    for tie in descending_ties(score) {
        let gained = tie.iter().filter(|i| churned[**i]).count() as f64;
        hits += gained;
        seen += tie.len() as f64;
        area += gained / positives * hits / seen;
    }
    Some(area)
}

/// Mean negative log likelihood in nats; a probability of exactly 0 or 1 counts as 10^-15 from it.
pub fn log_loss(p: &[f64], churned: &[bool]) -> f64 {
    p.iter().zip(churned).map(|(p, c)| surprise(*p, *c)).sum::<f64>() / p.len() as f64
}

/// What is left to tell where nothing is known but the rate: the mean negative log likelihood, in nats.
pub fn entropy(rate: f64) -> f64 {
    -(rate * libm::log(rate) + (1.0 - rate) * libm::log(1.0 - rate))
}

/// The negative log likelihood of one outcome.
pub fn surprise(p: f64, churned: bool) -> f64 {
    -libm::log((if churned { p } else { 1.0 - p }).max(1e-15))
}

/// Mean squared error of the probability.
pub fn brier(p: &[f64], churned: &[bool]) -> f64 {
    let error = |(p, c): (&f64, &bool)| (*p - f64::from(*c)).powi(2);
    p.iter().zip(churned).map(error).sum::<f64>() / p.len() as f64
}

/// Probabilities of about the same height, and how many of them churned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub examples: usize,
    pub mean_p: f64,
    pub churned: f64,
}

/// Ten bins of equal mass, the highest probabilities first; empty ones are left out.
///
/// Equal probabilities stay in one bin (that of their middle rank), whatever the order of the rows.
pub fn reliability(p: &[f64], churned: &[bool]) -> Vec<Bin> {
    const BINS: usize = 10;
    let n = p.len();
    let mut bins = [Bin::default(); BINS];
    let mut seen = 0;
    for tie in descending_ties(p) {
        let middle = seen as f64 + tie.len() as f64 / 2.0;
        let bin = &mut bins[((middle * BINS as f64 / n as f64) as usize).min(BINS - 1)];
        for i in &tie {
            bin.mean_p += p[*i];
            bin.churned += f64::from(churned[*i]);
        }
        bin.examples += tie.len();
        seen += tie.len();
    }
    let mean = |bin: Bin| {
        let n = bin.examples as f64;
        Bin { mean_p: bin.mean_p / n, churned: bin.churned / n, ..bin }
    };
    bins.into_iter().filter(|bin| bin.examples > 0).map(mean).collect()
}

/// Expected calibration error over these bins: Σ share × |mean p − share churned|.
pub fn ece(p: &[f64], churned: &[bool]) -> f64 {
    let gap = |bin: &Bin| bin.examples as f64 * (bin.mean_p - bin.churned).abs();
    reliability(p, churned).iter().map(gap).sum::<f64>() / p.len() as f64
}

/// The share of all churners among the `share` highest scores.
pub fn capture(score: &[f64], churned: &[bool], share: f64) -> Option<f64> {
    let positives = churned.iter().filter(|c| **c).count() as f64;
    (positives > 0.0).then(|| caught(score, churned, share) / positives)
}

/// How many times more churners the `share` highest scores hold than a random pick of the same size.
pub fn lift(score: &[f64], churned: &[bool], share: f64) -> Option<f64> {
    Some(capture(score, churned, share)? / (picked(score.len(), share) / score.len() as f64))
}

fn picked(n: usize, share: f64) -> f64 {
    (n as f64 * share).ceil().clamp(1.0, n as f64)
}

/// Churners among the highest scores; a tie at the edge gives its average.
fn caught(score: &[f64], churned: &[bool], share: f64) -> f64 {
    let mut left = picked(score.len(), share);
    let mut caught = 0.0;
    for tie in descending_ties(score) {
        let take = left.min(tie.len() as f64);
        let hits = tie.iter().filter(|i| churned[**i]).count() as f64;
        caught += hits * take / tie.len() as f64;
        left -= take;
        if left <= 0.0 {
            break;
        }
    }
    caught
}

/// Row numbers by ascending score.
fn ascending(score: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..score.len()).collect();
    order.sort_by(|a, b| score[*a].total_cmp(&score[*b]));
    order
}

/// Rows of equal score together, the highest first.
pub fn descending_ties(score: &[f64]) -> Vec<Vec<usize>> {
    let mut order = ascending(score);
    order.reverse();
    order.chunk_by(|a, b| score[*a] == score[*b]).map(<[usize]>::to_vec).collect()
}

/// Mann–Whitney with row weights, in one pass over rows of ascending score.
fn weighted_auc(
    score: &[f64],
    churned: &[bool],
    order: &[usize],
    weight: impl Fn(usize) -> f64,
) -> Option<f64> {
    let (mut stayers_below, mut churners, mut pairs) = (0.0, 0.0, 0.0);
    for tie in order.chunk_by(|a, b| score[*a] == score[*b]) {
        let (mut up, mut down) = (0.0, 0.0);
        for i in tie {
            *(if churned[*i] { &mut up } else { &mut down }) += weight(*i);
        }
        pairs += up * (stayers_below + down / 2.0);
        stayers_below += down;
        churners += up;
    }
    let all = stayers_below * churners;
    (all > 0.0).then(|| pairs / all)
}

/// A uniform index below `n`, by the high half of a product; the bias is below n / 2^64.
fn below(rng: &mut impl Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    const T: bool = true;
    const F: bool = false;

    #[test]
    fn roc_auc_counts_pairs_and_halves_ties() {
        // Pairs (churner, stayer): 0.9>0.8, 0.9>0.3, 0.3<0.8, 0.3=0.3 → 1 + 1 + 0 + ½ of 4.
        close(roc_auc(&[0.9, 0.8, 0.3, 0.3], &[T, F, T, F]).unwrap(), 2.5 / 4.0);
        close(roc_auc(&[0.5; 6], &[T, F, T, F, F, F]).unwrap(), 0.5);
        close(roc_auc(&[0.1, 0.2], &[T, F]).unwrap(), 0.0);
        assert_eq!(roc_auc(&[0.1, 0.2], &[T, T]), None);
        assert_eq!(roc_auc(&[], &[]), None);
    }

    #[test]
    fn pr_auc_is_the_average_precision() {
        // Recall steps of ½ at precision 1/1 and 2/3.
        close(pr_auc(&[0.9, 0.8, 0.7, 0.1], &[T, F, T, F]).unwrap(), 0.5 + 0.5 * 2.0 / 3.0);
        // One threshold for all: precision is the base rate.
        close(pr_auc(&[0.4; 5], &[T, F, F, F, F]).unwrap(), 0.2);
        assert_eq!(pr_auc(&[0.4], &[F]), None);
    }

    #[test]
    fn log_loss_and_brier_match_the_formulas() {
        close(log_loss(&[0.8, 0.4], &[T, F]), -(0.8f64.ln() + 0.6f64.ln()) / 2.0);
        close(log_loss(&[0.0], &[T]), -(1e-15f64.ln()));
        close(brier(&[0.8, 0.4], &[T, F]), (0.04 + 0.16) / 2.0);
    }

    #[test]
    fn ece_weighs_the_gap_of_each_bin() {
        // Ten bins of two rows each: in every bin p is 0.5 ± a hair and one of the two churns, except the last.
        let p: Vec<f64> = (0..20).map(|i| f64::from(i) / 20.0).collect();
        let churned: Vec<bool> = (0..20).map(|i| i % 2 == 0).collect();
        let by_hand: f64 =
            (0..10).map(|b| (f64::from(4 * b + 1) / 40.0 - 0.5).abs() * 2.0).sum::<f64>() / 20.0;
        close(ece(&p, &churned), by_hand);
        // All equal: one bin, and the gap is that of the means.
        close(ece(&[0.3; 8], &[T, T, T, T, F, F, F, F]), 0.2);
        close(ece(&[0.0, 1.0], &[F, T]), 0.0);
    }

    #[test]
    fn lift_and_capture_take_the_top_tenth() {
        let p: Vec<f64> = (0..20).map(f64::from).collect();
        let churned: Vec<bool> = (0..20).map(|i| !(2..18).contains(&i)).collect();
        // The two highest of twenty both churn; four churn in all.
        close(capture(&p, &churned, 0.1).unwrap(), 0.5);
        close(lift(&p, &churned, 0.1).unwrap(), 0.5 / 0.1);
        // A tie at the edge is shared out, so that the order of the rows is nothing.
        close(capture(&[0.5; 20], &churned, 0.1).unwrap(), 0.1);
        assert_eq!(capture(&p, &[F; 20], 0.1), None);
    }

    #[test]
    fn no_metric_depends_on_the_order_of_rows() {
        let p = [0.9, 0.8, 0.8, 0.8, 0.3, 0.3, 0.1, 0.05, 0.8, 0.3, 0.2];
        let churned = [T, F, T, F, T, F, F, F, T, F, F];
        let back = |i: usize| p.len() - 1 - i;
        let p2: Vec<f64> = (0..p.len()).map(|i| p[back(i)]).collect();
        let churned2: Vec<bool> = (0..p.len()).map(|i| churned[back(i)]).collect();
        close(roc_auc(&p, &churned).unwrap(), roc_auc(&p2, &churned2).unwrap());
        close(pr_auc(&p, &churned).unwrap(), pr_auc(&p2, &churned2).unwrap());
        close(ece(&p, &churned), ece(&p2, &churned2));
        close(lift(&p, &churned, 0.1).unwrap(), lift(&p2, &churned2, 0.1).unwrap());
    }

    #[test]
    fn the_interval_is_repeatable_and_widens_when_rows_belong_to_fewer_customers() {
        let n = 400;
        let p: Vec<f64> = (0..n).map(|i| f64::from(i * 37 % 101) / 101.0).collect();
        let churned: Vec<bool> = (0..n).map(|i| (i * 37 % 101 + i * 53 % 97) > 100).collect();
        let alone: Vec<u64> = (0..n as u64).collect();
        let shared: Vec<u64> = (0..n as u64).map(|i| i / 50).collect();
        let of = |customer: &[u64], seed| {
            roc_auc_interval(&p, &churned, customer, Bootstrap { rounds: 200, seed }).unwrap()
        };
        let interval = of(&alone, 7);
        assert_eq!(interval, of(&alone, 7));
        assert_ne!(interval, of(&alone, 8));
        assert!(interval.low < interval.value && interval.value < interval.high);
        assert_eq!(of(&vec![1; n as usize], 7).low, interval.value, "one customer resampled is itself");
        assert_eq!(of(&shared, 7).value, interval.value);
    }

    #[test]
    fn a_report_needs_both_classes_and_probabilities() {
        let report = |p: &[f64], c: &[bool]| report(p, c, &vec![1; p.len()], Bootstrap::default());
        assert!(report(&[0.2, 0.8], &[F, T]).is_some());
        assert!(report(&[0.2, 0.8], &[T, T]).is_none());
        assert!(report(&[0.2, 1.8], &[F, T]).is_none());
        assert!(report(&[0.2, f64::NAN], &[F, T]).is_none());
    }
}
