//! Which variant of a lifecycle a customer's traits select.
//!
//! Every trait with overrides is one digit: 0 when none of its values fits, else the place of the value. A
//! variant is the number those digits write.

use crate::pipeline::facts::{TraitValue, Traits};

use super::file::Override;

/// The most combinations of overrides that are compiled.
const MAX_VARIANTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Selectors {
    digits: Box<[Digit]>,
}

#[derive(Debug)]
struct Digit {
    of_trait: Box<str>,
    values: Vec<Choice>,
    /// What one step of this digit is worth.
    worth: usize,
}

/// A value as the file writes it.
#[derive(Debug)]
struct Choice {
    text: Box<str>,
    number: Option<f64>,
    /// Its place in the list of overrides, which is also its priority.
    at: usize,
}

impl Choice {
    fn fits(&self, value: &TraitValue) -> bool {
        match value {
            TraitValue::Text(text) => *text == self.text,
            TraitValue::Number(n) => self.number == Some(*n),
            TraitValue::Flag(flag) => &*self.text == if *flag { "true" } else { "false" },
        }
    }
}

impl Selectors {
    /// An error names the line at which the combinations become too many.
    pub(super) fn new(overrides: &[Override]) -> Result<Selectors, (usize, String)> {
        let mut digits: Vec<Digit> = Vec::new();
        for (at, one) in overrides.iter().enumerate() {
            let choice = Choice { text: one.value.as_str().into(), number: one.value.parse().ok(), at };
            match digits.iter_mut().find(|d| *d.of_trait == *one.of_trait) {
                Some(digit) => digit.values.push(choice),
                None => {
                    let of_trait = one.of_trait.as_str().into();
                    digits.push(Digit { of_trait, values: vec![choice], worth: 1 });
                }
            }
            let count = digits.iter().fold(1usize, |n, d| n.saturating_mul(d.values.len() + 1));
            if count > MAX_VARIANTS {
                let what = format!(
                    "the overrides up to here make {count} combinations; at most {MAX_VARIANTS} are possible: \
                     use fewer values or fewer traits"
                );
                return Err((one.line, what));
            }
        }
        let mut worth = 1;
        for digit in &mut digits {
            digit.worth = worth;
            worth *= digit.values.len() + 1;
        }
        Ok(Selectors { digits: digits.into() })
    }

    pub(super) fn count(&self) -> usize {
        self.digits.iter().map(|d| d.values.len() + 1).product()
    }

    /// The variant for a customer with these traits; 0 is the one without overrides.
    pub(super) fn select(&self, traits: &Traits) -> usize {
        self.digits
            .iter()
            .map(|digit| {
                let value = traits.get(&digit.of_trait);
                let place = value.and_then(|v| digit.values.iter().position(|choice| choice.fits(v)));
                place.map_or(0, |place| (place + 1) * digit.worth)
            })
            .sum()
    }

    /// The overrides of a variant, in file order.
    pub(super) fn active<'o>(&self, variant: usize, overrides: &'o [Override]) -> Vec<&'o Override> {
        let chosen = |digit: &Digit| {
            let place = variant / digit.worth % (digit.values.len() + 1);
            place.checked_sub(1).map(|at| digit.values[at].at)
        };
        let mut places: Vec<usize> = self.digits.iter().filter_map(chosen).collect();
        places.sort_unstable();
        places.into_iter().map(|at| &overrides[at]).collect()
    }
}
