//! The model card: what a person should know of a model before trusting it, as Markdown beside its file.
//!
//! Says nothing that is not in the model; the same model gives the same card.

use std::fmt::Write;

use super::Trained;
use crate::model::Model;
use crate::model::artifact::{Calibration, Label, Term};
use crate::model::transform::Transform;
use crate::model::value::{Kind, Spend, ValueModel};
use crate::time::{format_rfc3339, format_span};

/// How every card begins, so that one can be told from a file that must not be overwritten.
pub const HEADING: &str = "# Churn model ";

/// Writes the card.
pub fn card(trained: &Trained) -> String {
    let model = &trained.model;
    let mut out = format!("{HEADING}{} {}\n", model.name, model.version);
    section(&mut out, "What it says", &says(model));
    section(&mut out, "What it was trained on", &trained_on(model));
    section(&mut out, "How good it is", &quality(trained));
    section(&mut out, "What it looks at", &terms(model));
    section(&mut out, "What customers are worth", &value(model));
    section(&mut out, "What to keep in mind", &limits(model));
    out
}

fn section(out: &mut String, heading: &str, body: &str) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\n## {heading}\n\n{body}");
}

/// What counts as churn, in words.
pub fn label(label: Label) -> &'static str {
    match label {
        Label::NoOrder => "no order",
        Label::NoEvent => "no event of any kind",
        Label::Cancelled => "a cancelled subscription",
    }
}

fn says(model: &Model) -> String {
    let gap =
        if model.lead == 0 { String::new() } else { format!(", after a gap of {}", format_span(model.lead)) };
    format!(
        "`p_churn` is the probability of {} within {}{gap}, for customers who were active in the last {}. It is a \
         probability, not a ranking: among customers at 0.7, about seven of ten should churn.\n",
        label(model.label),
        format_span(model.horizon),
        format_span(model.active_within),
    )
}

fn trained_on(model: &Model) -> String {
    let t = &model.training;
    format!(
        "{} examples of {} customers at cuts from {} to {}; {:.1} % of them churned. An example is one customer at one \
         cut: its features come from events before the cut, its label from the horizon after it.\n",
        t.examples,
        t.customers,
        format_rfc3339(t.first_cut),
        format_rfc3339(t.last_cut),
        100.0 * t.base_rate,
    )
}

fn quality(trained: &Trained) -> String {
    let t = &trained.model.training;
    let r = &t.held_back;
    let n = r.base_rate;
    let base_loss = -(n * libm::log(n) + (1.0 - n) * libm::log(1.0 - n));
    let recency = trained.recency_auc.map_or("–".into(), |auc| format!("{auc:.3}"));
    format!(
        "Measured on the {} examples from {} on, by a fit that saw only examples whose horizon had ended by then. The \
         design, its size and the calibration were chosen on them too, so expect a little less.\n\n\
         | | this model | recency alone | base rate |\n|---|---|---|---|\n\
         | ROC-AUC | {:.3} ({:.3} to {:.3}) | {recency} | 0.500 |\n\
         | PR-AUC | {:.3} | | {n:.3} |\n\
         | log loss | {:.4} | | {base_loss:.4} |\n\
         | Brier score | {:.4} | | {:.4} |\n\
         | calibration error (ECE) | {:.4} | | |\n\
         | mean `p_churn` | {:.3} | | {n:.3} |\n\
         | lift at 10 % | {:.2} | | 1.00 |\n\
         | capture at 10 % | {:.3} | | 0.100 |\n\n\
         The interval is the bootstrap's 95 % over customers.\n",
        r.examples,
        format_rfc3339(t.held_back_from),
        r.roc_auc.value,
        r.roc_auc.low,
        r.roc_auc.high,
        r.pr_auc,
        r.log_loss,
        r.brier,
        n * (1.0 - n),
        r.ece,
        r.mean_p,
        r.lift_10,
        r.capture_10,
    )
}

fn terms(model: &Model) -> String {
    let mut out = format!(
        "Design: {}, L2 penalty {}. {} Weights are per standard deviation; above 0 means more churn.\n\n\
         | term | weight |\n|---|---|\n",
        model.training.design,
        model.training.alpha,
        calibration(model),
    );
    for one in by_weight(model) {
        let _ = writeln!(out, "| {} | {:+.3} |", term(one), one.weight);
    }
    out
}

fn calibration(model: &Model) -> String {
    match (&model.isotonic, model.calibration) {
        (Some(curve), _) => {
            format!("Calibration: isotonic, {} knots.", curve.from.len())
        }
        (None, Some(Calibration { slope: 1.0, intercept })) => {
            format!(
                "Calibration: the level of the latest part of the period ({intercept:+.3} in the log odds)."
            )
        }
        (None, Some(c)) => format!("Calibration: Platt, {:.3} × logit {:+.3}.", c.slope, c.intercept),
        (None, None) => "Calibration: none, since none helped.".into(),
    }
}

/// The terms, the heaviest first.
pub fn by_weight(model: &Model) -> Vec<&Term> {
    let mut terms: Vec<&Term> = model.terms.iter().collect();
    terms.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    terms
}

/// What a term looks at, in words.
pub fn term(term: &Term) -> String {
    let partner = term.with.as_ref().map(|with| format!(" × {}", shown(&with.feature, with.transform)));
    shown(&term.feature, term.transform) + &partner.unwrap_or_default()
}

fn shown(feature: &str, transform: Transform) -> String {
    match transform {
        Transform::Identity => format!("`{feature}`"),
        Transform::Log1p => format!("log(1 + `{feature}`)"),
        Transform::Cap { at } => format!("min(`{feature}`, {at})"),
        Transform::Log1pCap { at } => format!("log(1 + min(`{feature}`, {at}))"),
        Transform::Recency { cap } => format!("min(`{feature}`, {cap}) / {cap}"),
        Transform::Never => format!("`{feature}` never happened"),
        Transform::Hinge { knot } => format!("max(0, `{feature}` − {knot})"),
        Transform::Logit => format!("log odds of `{feature}`"),
    }
}

fn value(model: &Model) -> String {
    let Some(ValueModel { orders, spend, annual_discount, buyers }) = &model.value else {
        return "The input held too few orders to foretell them: `p_no_order` and `clv_365d` are null.\n"
            .into();
    };
    let kind = match orders.kind {
        Kind::BgNbd => "BG/NBD",
        Kind::MbgNbd => "MBG/NBD",
    };
    let mut out = format!(
        "`p_no_order` comes from {kind}, fitted to {buyers} buyers as of the last cut: r = {:.3}, alpha = {:.2} days, \
         a = {:.3}, b = {:.3} (log likelihood {:.4} per buyer).",
        orders.r, orders.alpha, orders.a, orders.b, orders.log_likelihood
    );
    if !orders.dropout_identified {
        out.push_str(
            " These orders do not tell customers who left from customers who pause: a and b lie where the fit was \
             bounded, and `p_no_order` rests on the rhythm of orders alone.",
        );
    }
    let spends = |s: &Spend| {
        format!(
            " `clv_365d` is the margin of the orders expected in 365 days, discounted by {:.0} % a year, at Gamma-Gamma's \
             value of an order: p = {:.2}, q = {:.2}, v = {:.2}.\n",
            100.0 * annual_discount,
            s.p,
            s.q,
            s.v
        )
    };
    out + &spend.as_ref().map_or(" What they spend could not be fitted: `clv_365d` is null.\n".into(), spends)
}

fn limits(model: &Model) -> String {
    format!(
        "- The probability belongs to {} of horizon and to the customers it was trained on. Another shop, another \
         season or another horizon wants another training.\n\
         - It foretells; it does not say what causes churn, nor what an action would change. The control group of \
         the alerts measures that.\n\
         - Features that are declared otherwise than in training are refused at start.\n\
         - The same events and settings give the same file and this page again, byte for byte. The file says how \
         features and score were spread over the examples: drift of the stream is held against that.\n",
        format_span(model.horizon)
    )
}
