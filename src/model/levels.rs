//! How much all churn at a cut beside what their features say: the season's doing, and no feature's that grew or fell at
//! the time.
//!
//! A fit that is kept has a column for each cut beside those of its terms (random intercepts: Laird and Ware 1982), so
//! that weights tell customers of one instant apart. Without them whatever grows with the years, such as a customer's
//! age, would take over what the seasons did. The mean of all levels is the model's intercept.

use std::collections::BTreeMap;

use ndarray::{Array2, ShapeBuilder};

use crate::time::Ts;

/// How far levels lie apart before anything is known of them, in log odds: as far as seasons do.
const DEVIATION: f64 = 0.3;
/// Neighbouring cuts share a level where there are more, and where there are so many examples that their levels would fill
/// more cells than this: each takes eight bytes of every example, and is read in every step of a fit.
const LEVELS_MOST: usize = 24;
const CELLS_MOST: usize = 6_000_000;
const LEVELS_LEAST: usize = 4;

/// By row and level: of a size that makes the penalty on the weights one over the square of [`DEVIATION`] on the levels.
/// No column where there is but one cut.
pub(super) fn levels(at: &[Ts], alpha: f64) -> Array2<f64> {
    let mut columns: BTreeMap<Ts, usize> = at.iter().map(|at| (*at, 0)).collect();
    let most = (CELLS_MOST / at.len().max(1)).clamp(LEVELS_LEAST, LEVELS_MOST);
    let (cuts, levels) = (columns.len(), columns.len().min(most));
    if cuts < 2 {
        return Array2::zeros((at.len(), 0).f());
    }
    columns.values_mut().enumerate().for_each(|(cut, column)| *column = cut * levels / cuts);
    let mut x = Array2::zeros((at.len(), levels).f());
    for (row, at) in at.iter().enumerate() {
        x[[row, columns[at]]] = DEVIATION * alpha.sqrt();
    }
    x
}

#[cfg(test)]
mod tests {
    use super::super::logistic::{fit, sigmoid};
    use super::*;
    use ndarray::Axis;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    #[test]
    fn what_the_season_did_is_no_features_that_grew_at_the_time() {
        const CUTS: usize = 4;
        const ROWS: usize = 12_000;
        let mut rng = Pcg64::seed_from_u64(3);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let at: Vec<Ts> = (0..ROWS).map(|row| (row % CUTS) as Ts).collect();
        // An age that says nothing grows from cut to cut, and so does churn.
        let age = Array2::from_shape_fn((ROWS, 1), |(row, _)| at[row] as f64 - 1.5 + uniform());
        let churned: Vec<bool> = at.iter().map(|at| uniform() < sigmoid(0.4 * *at as f64 - 0.6)).collect();
        let alone = fit(&age, &churned, 10.0).unwrap();
        assert!(alone.weights[0] > 0.25, "{alone:?}");
        let mut x = Array2::zeros((ROWS, 0).f());
        x.append(Axis(1), age.view()).unwrap();
        x.append(Axis(1), levels(&at, 10.0).view()).unwrap();
        assert!(x.t().is_standard_layout() && x.ncols() == 1 + CUTS);
        let told_apart = fit(&x, &churned, 10.0).unwrap();
        assert!(told_apart.weights[0].abs() < 0.12, "{told_apart:?}");
        assert_eq!(told_apart.clone().first(1).weights.len(), 1);
        assert!(told_apart.intercept.abs() < 0.1, "the mean of all levels: {told_apart:?}");
    }

    #[test]
    fn one_cut_has_no_level_of_its_own() {
        assert_eq!(levels(&[7, 7, 7], 1.0).dim(), (3, 0));
        assert_eq!(levels(&[], 1.0).dim(), (0, 0));
    }

    #[test]
    fn neighbouring_cuts_share_a_level_where_there_are_many() {
        let at: Vec<Ts> = (0..100).collect();
        let levels = levels(&at, 1.0);
        assert_eq!(levels.ncols(), LEVELS_MOST);
        assert!(levels.rows().into_iter().all(|row| row.sum() == DEVIATION));
        let sizes: Vec<f64> = levels.columns().into_iter().map(|column| column.sum() / DEVIATION).collect();
        assert!(sizes.iter().all(|rows| (4.0..=5.1).contains(rows)), "{sizes:?}");
        assert!(levels[[0, 0]] > 0.0 && levels[[99, LEVELS_MOST - 1]] > 0.0);
    }

    #[test]
    fn a_million_examples_have_few_levels() {
        let at: Vec<Ts> = (0..1_000_000).map(|row| row / 50_000).collect();
        assert_eq!(levels(&at, 1.0).ncols(), 6);
    }
}
