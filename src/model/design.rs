//! Which transforms of which columns a fit may choose from.
//!
//! Owns the candidate designs, built from the names and the values of the columns alone. Must not look at
//! labels: what helps is decided in [`super::fit`], on held-back time.

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::artifact::DEVIATION_LEAST;
use super::transform::Transform;
use super::value::P_NO_ORDER;

/// An instant's distance is capped where 95 % of the finite values lie, and not under a week.
const CAP_QUANTILE: f64 = 0.95;
const CAP_DAYS_LEAST: f64 = 7.0;
const KNOT_QUANTILES: [f64; 4] = [0.1, 0.25, 0.5, 0.75];
const CURVE_QUANTILES: [f64; 6] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.97];
/// Values within ± this are left as they are: shares, trends, sentiment.
const PLAIN_MOST: f64 = 1.0;

/// Features that are probabilities, and +inf of who has none.
const PROBABILITIES: [&str; 1] = [P_NO_ORDER];

/// Silence in a customer's own rhythm, in gaps between its active days. Its effect is steepest over the first few of them,
/// whatever the shop.
const RHYTHM: &str = "activity_overdue_";
const RHYTHM_KNOTS: [f64; 2] = [1.0, 3.0];

/// Where recency and frequency are looked for, best first.
const RECENCY: [&str; 3] = ["days_since_order", "days_since_event", "days_since_click"];
const FREQUENCY: [&str; 5] = ["orders_lifetime", "orders_90d", "orders_30d", "active_days_90d", "events_90d"];

/// A term before it has a weight. Columns by number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    pub column: usize,
    pub transform: Transform,
    pub with: Option<(usize, Transform)>,
}

impl Spec {
    fn plain(column: usize, transform: Transform) -> Spec {
        Spec { column, transform, with: None }
    }

    pub fn uses(&self, column: usize) -> bool {
        self.column == column || self.with.is_some_and(|(other, _)| other == column)
    }

    pub fn value(&self, row: ArrayView1<f64>) -> f64 {
        let partner = self.with.map_or(1.0, |(column, transform)| transform.apply(row[column]));
        self.transform.apply(row[self.column]) * partner
    }
}

/// A named way to look at all columns: numbers into [`Designs::specs`].
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    pub name: String,
    pub specs: Vec<usize>,
}

/// All candidate terms once, and the designs over them, the simplest first.
#[derive(Clone, Debug)]
pub struct Designs {
    pub specs: Vec<Spec>,
    pub designs: Vec<Design>,
}

/// Candidate designs for these columns; those that do not vary, or only repeat an earlier one, are left out.
pub fn candidates<'n>(names: &'n [String], rows: ArrayView2<f64>) -> Designs {
    let repeats = |i: usize| (0..i).any(|earlier| rows.column(earlier) == rows.column(i));
    let read = |(i, name): (usize, &'n String)| Column::read(i, name, rows.column(i)).filter(|_| !repeats(i));
    let columns: Vec<Column> = names.iter().enumerate().filter_map(read).collect();
    let recency: Vec<Spec> = columns.iter().flat_map(Column::with_linear_recency).collect();
    let log_recency: Vec<Spec> = columns.iter().flat_map(Column::with_log_recency).collect();
    let main = |wanted: &[&str]| wanted.iter().find_map(|name| columns.iter().find(|c| c.name == *name));
    let (recent, frequent) = (main(&RECENCY), main(&FREQUENCY));
    let of_rhythm = columns.iter().filter(|column| column.is_rhythm()).flat_map(Column::rhythm_splines);
    let splines: Vec<Spec> =
        recent.map(Column::splines).unwrap_or_default().into_iter().chain(of_rhythm).collect();
    let interaction: Vec<Spec> = recent.zip(frequent).map(|(r, f)| r.times(f)).unwrap_or_default();

    let mut designs = Designs { specs: Vec::new(), designs: Vec::new() };
    designs.add("log recency", &[&log_recency]);
    designs.add("linear recency", &[&recency]);
    designs.add("log recency, splines", &[&log_recency, &splines]);
    designs.add("log recency, recency × frequency", &[&log_recency, &interaction]);
    designs.add("log recency, splines, recency × frequency", &[&log_recency, &splines, &interaction]);
    designs
}

impl Designs {
    /// One design, of these terms.
    pub fn only(name: String, specs: Vec<Spec>) -> Designs {
        let design = Design { name, specs: (0..specs.len()).collect() };
        Designs { specs, designs: vec![design] }
    }

    /// Those without curves: where these lead shows in no single weight. What grows later is looked at on its own.
    pub fn straight(mut self) -> Designs {
        let bends = |spec: &usize| matches!(self.specs[*spec].transform, Transform::Cap { .. });
        self.designs.retain(|design| !design.specs.iter().any(bends));
        self
    }

    /// Adds a design unless it is one that is there already (no splines where there is neither recency nor rhythm).
    fn add(&mut self, name: &str, parts: &[&[Spec]]) {
        let mut numbers = Vec::new();
        for spec in parts.iter().copied().flatten() {
            let known = self.specs.iter().position(|s| s == spec);
            let number = known.unwrap_or_else(|| {
                self.specs.push(*spec);
                self.specs.len() - 1
            });
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        if self.designs.iter().all(|design| design.specs != numbers) {
            self.designs.push(Design { name: name.to_owned(), specs: numbers });
        }
    }

    /// The values of all candidate terms: a row per row, a column per spec.
    pub fn values(&self, rows: ArrayView2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((rows.nrows(), self.specs.len()), |(i, j)| self.specs[j].value(rows.row(i)))
    }
}

/// A curve over a column: pieces that stay flat beyond the last knot. Of its finite values in ascending order; empty where
/// there is nothing to bend.
pub fn curve(column: usize, name: &str, finite: &[f64]) -> Vec<Spec> {
    let most = finite.last().copied().unwrap_or(0.0);
    let mut knots = CURVE_QUANTILES.map(|q| quantile(finite, q)).to_vec();
    knots.retain(|knot| *knot > 0.0 && *knot < most && !PROBABILITIES.contains(&name));
    knots.dedup();
    knots.into_iter().map(|at| Spec::plain(column, Transform::Cap { at })).collect()
}

/// Of two main terms of different columns.
pub fn product(one: &Spec, other: &Spec) -> Option<Spec> {
    let is_main = |spec: &Spec| {
        spec.with.is_none() && !matches!(spec.transform, Transform::Never | Transform::Cap { .. })
    };
    (is_main(one) && is_main(other) && one.column != other.column)
        .then_some(Spec { with: Some((other.column, other.transform)), ..*one })
}

/// The finite values in ascending order.
pub fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut finite: Vec<f64> = values.filter(|x| x.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    finite
}

/// Of values in ascending order; 0 where there are none.
pub fn quantile(ascending: &[f64], q: f64) -> f64 {
    let at = (ascending.len().saturating_sub(1) as f64 * q).round() as usize;
    ascending.get(at).copied().unwrap_or(0.0)
}

/// What is known of a column that varies.
struct Column<'n> {
    index: usize,
    name: &'n str,
    /// Finite values in ascending order.
    finite: Vec<f64>,
    sometimes_never: bool,
}

impl<'n> Column<'n> {
    fn read(index: usize, name: &'n str, values: ArrayView1<f64>) -> Option<Column<'n>> {
        let finite = ascending(values.iter().copied());
        let sometimes_never = finite.len() < values.len() && !finite.is_empty();
        let varies = finite.first().zip(finite.last()).is_some_and(|(a, b)| b - a > DEVIATION_LEAST);
        (varies || sometimes_never).then_some(Column { index, name, finite, sometimes_never })
    }

    fn is_since(&self) -> bool {
        self.sometimes_never || self.name.starts_with("days_since_")
    }

    fn is_rhythm(&self) -> bool {
        self.name.starts_with(RHYTHM)
    }

    fn quantile(&self, q: f64) -> f64 {
        quantile(&self.finite, q)
    }

    fn cap(&self) -> f64 {
        self.quantile(CAP_QUANTILE).ceil().max(CAP_DAYS_LEAST)
    }

    fn with_linear_recency(&self) -> Vec<Spec> {
        self.with_recency(Transform::Recency { cap: self.cap() })
    }

    fn with_log_recency(&self) -> Vec<Spec> {
        self.with_recency(Transform::Log1pCap { at: self.cap() })
    }

    fn with_recency(&self, recency: Transform) -> Vec<Spec> {
        let main = match (PROBABILITIES.contains(&self.name), self.is_since()) {
            (true, _) => Transform::Logit,
            (false, _) if self.is_rhythm() => {
                Transform::Recency { cap: self.quantile(CAP_QUANTILE).max(1.0) }
            }
            (false, true) => recency,
            (false, false) => self.ordinary(),
        };
        let mut specs = vec![Spec::plain(self.index, main)];
        if self.sometimes_never {
            specs.push(Spec::plain(self.index, Transform::Never));
        }
        specs
    }

    /// Counts and money have long tails; shares and trends have none.
    fn ordinary(&self) -> Transform {
        let most = self.finite.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        if most > PLAIN_MOST { Transform::Log1p } else { Transform::Identity }
    }

    /// Piecewise linear in days. The pieces are caps, not hinges: they span the same curves below the last
    /// knot and stay flat beyond it, where there are no examples to fit a slope to.
    fn splines(&self) -> Vec<Spec> {
        let mut knots: Vec<f64> = KNOT_QUANTILES.map(|q| self.quantile(q).ceil()).to_vec();
        knots.push(self.cap());
        knots.retain(|knot| *knot >= 1.0);
        knots.dedup();
        knots.iter().map(|at| Spec::plain(self.index, Transform::Cap { at: *at })).collect()
    }

    fn rhythm_splines(&self) -> [Spec; RHYTHM_KNOTS.len()] {
        RHYTHM_KNOTS.map(|at| Spec::plain(self.index, Transform::Cap { at }))
    }

    fn times(&self, frequency: &Column) -> Vec<Spec> {
        let with = Some((frequency.index, Transform::Log1p));
        vec![Spec { column: self.index, transform: Transform::Recency { cap: self.cap() }, with }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn counts_get_logs_trends_stay_and_instants_get_recency_and_never() {
        let inf = f64::INFINITY;
        let rows = array![[1.0, 0.5, 3.0, 7.0], [9.0, -0.5, inf, 7.0], [4.0, 0.0, 40.0, 7.0]];
        let found = candidates(
            &names(&["orders_90d", "orders_trend_14d", "days_since_order", "constant"]),
            rows.view(),
        );
        let first: Vec<Spec> = found.designs[0].specs.iter().map(|i| found.specs[*i]).collect();
        assert_eq!(
            first,
            [
                Spec::plain(0, Transform::Log1p),
                Spec::plain(1, Transform::Identity),
                Spec::plain(2, Transform::Log1pCap { at: 40.0 }),
                Spec::plain(2, Transform::Never),
            ]
        );
        assert!(found.specs.iter().all(|spec| !spec.uses(3)), "a constant column is no candidate");
        assert!(found.specs.iter().any(|spec| spec.with == Some((0, Transform::Log1p)) && spec.column == 2));
        assert_eq!(found.designs.len(), 5);
        assert!(found.values(rows.view()).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn a_probability_gets_its_log_odds_and_never() {
        let rows = array![[0.2, 1.0], [f64::INFINITY, 4.0], [0.9, 9.0]];
        let found = candidates(&names(&[P_NO_ORDER, "orders_90d"]), rows.view());
        let own: Vec<Transform> =
            found.specs.iter().filter(|spec| spec.uses(0)).map(|spec| spec.transform).collect();
        assert_eq!(own, [Transform::Logit, Transform::Never]);
    }

    #[test]
    fn a_column_that_repeats_another_is_no_candidate() {
        let inf = f64::INFINITY;
        let rows = array![[1.0, inf, inf], [9.0, 2.0, 2.0], [4.0, 5.0, 5.0]];
        let found = candidates(&names(&["orders_90d", "days_since_event", "days_since_order"]), rows.view());
        assert!(found.specs.iter().any(|spec| spec.uses(1)) && !found.specs.iter().any(|spec| spec.uses(2)));
    }

    #[test]
    fn silence_in_its_own_rhythm_bends_after_a_gap_and_after_three() {
        let inf = f64::INFINITY;
        let rows = array![[0.2, 3.0], [8.5, 40.0], [0.0, inf]];
        let found = candidates(&names(&["activity_overdue_60d", "days_since_event"]), rows.view());
        let own = |design: &Design| -> Vec<Transform> {
            let specs = design.specs.iter().map(|i| found.specs[*i]);
            specs.filter(|spec| spec.uses(0)).map(|spec| spec.transform).collect()
        };
        let main = [Transform::Recency { cap: 8.5 }];
        let bent = [&main[..], &[Transform::Cap { at: 1.0 }, Transform::Cap { at: 3.0 }]].concat();
        assert!(found.clone().straight().designs.iter().all(|design| own(design) == main));
        for design in &found.designs {
            assert_eq!(
                own(design),
                if design.name.contains("splines") { &bent[..] } else { &main },
                "{design:?}"
            );
        }
    }

    #[test]
    fn without_a_recency_column_there_is_one_design() {
        let rows = array![[1.0, 0.5], [9.0, -0.5]];
        let found = candidates(&names(&["clicks_7d", "clicks_trend_14d"]), rows.view());
        assert_eq!(found.designs.len(), 1);
    }
}
