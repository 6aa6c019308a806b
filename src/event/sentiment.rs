//! The mood of what a customer wrote, from VADER's lexicon and rules (Hutto and Gilbert, 2014).
//!
//! Reads English; words of other languages are mostly unknown to it, and a text without a known word has no
//! mood. The text is looked at and forgotten.

use std::sync::LazyLock;

use vader_sentimental::SentimentIntensityAnalyzer;

/// Only so much of a text is read: the rules look at all words for every word, and a mood shows early.
const READ_AT_MOST_BYTES: usize = 4_096;
/// VADER's own precision; finer digits would depend on the order of additions.
const PRECISION: f64 = 1e4;

static ANALYZER: LazyLock<SentimentIntensityAnalyzer<'static>> =
    LazyLock::new(SentimentIntensityAnalyzer::new);

/// From −1 (very negative) to 1 (very positive); `None` when nothing in the text tells.
pub(super) fn sentiment(text: &str) -> Option<f64> {
    let scores = ANALYZER.polarity_scores(beginning(text));
    let silent = scores.pos == 0.0 && scores.neg == 0.0;
    let mood = (scores.compound.clamp(-1.0, 1.0) * PRECISION).round() / PRECISION;
    (mood.is_finite() && !silent).then_some(mood)
}

fn beginning(text: &str) -> &str {
    let end = (0..=READ_AT_MOST_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_have_the_right_sign_and_the_same_digits_each_time() {
        let angry = sentiment("This is terrible. I HATE waiting, the parcel arrived broken!!").unwrap();
        let happy = sentiment("Thank you so much, great help and very friendly :)").unwrap();
        assert!(angry < -0.5 && happy > 0.5, "{angry} {happy}");
        assert_eq!(sentiment("Thank you so much, great help and very friendly :)"), Some(happy));
    }

    #[test]
    fn a_text_that_tells_nothing_has_no_mood() {
        for text in ["", " ", "?", "Where is order 4711", "Wo ist meine Bestellung"] {
            assert_eq!(sentiment(text), None, "{text}");
        }
    }

    #[test]
    fn long_and_odd_texts_are_answered_within_bounds() {
        let texts = [
            "good bad ".repeat(100_000),
            "😀🏿\u{0}".repeat(3_000),
            "but".repeat(9_999),
            "ß kind of".repeat(999),
        ];
        for text in texts {
            let mood = sentiment(&text).unwrap_or(0.0);
            assert!((-1.0..=1.0).contains(&mood), "{mood}");
        }
    }
}
