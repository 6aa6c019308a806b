//! Whether a customer lets itself be scored: a trait says so, and silence is consent.
//!
//! Without it stages go on, since they say what the customer did; what predicts and acts upon it is off.

use super::facts::{TraitValue, Traits};
use super::plan::Privacy;

/// The text that means no, besides `false`.
const DENIED: &str = "denied";

/// Whether a customer with these traits must be neither scored nor alerted about.
pub fn is_refused(privacy: &Privacy, traits: Option<&Traits>) -> bool {
    let named = traits.filter(|_| !privacy.consent.is_empty());
    match named.and_then(|traits| traits.get(privacy.consent.as_str())) {
        Some(TraitValue::Flag(given)) => !given,
        Some(TraitValue::Text(text)) => text.eq_ignore_ascii_case(DENIED),
        Some(TraitValue::Number(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_no_is_a_no() {
        let privacy = Privacy::default();
        let said = |value| is_refused(&privacy, Some(&Traits::from([("consent".into(), value)])));
        assert!(said(TraitValue::Flag(false)) && said(TraitValue::Text("Denied".into())));
        assert!(!said(TraitValue::Flag(true)) && !said(TraitValue::Text("granted".into())));
        assert!(!said(TraitValue::Number(0.0)));
        assert!(!is_refused(&privacy, None));
        let off = Privacy { consent: String::new(), ..privacy };
        assert!(!is_refused(&off, Some(&Traits::from([("".into(), TraitValue::Flag(false))]))));
    }
}
