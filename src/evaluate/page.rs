//! An evaluation as one page that needs nothing else: figures, plots and weights, in light and dark.
//!
//! Says nothing that is not in the [`Evaluation`] or the model; the same two give the same bytes.

use std::fmt::Write;

use super::{Evaluation, Figures, Part};
use crate::model::Model;
use crate::model::metrics::Report;
use crate::training::card;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6577;--line:#d9dee7;--page:#fbfcfe;--card:#fff;\
--model:#2457d6;--other:#c2561a;--up:#c2561a;--down:#2457d6;--warn:#8a4b00;--warnbg:#fff4e0}\
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf2;--soft:#9aa5b8;--line:#333c4d;--page:#12161e;--card:#1a202b;\
--model:#7aa2ff;--other:#ff9d66;--up:#ff9d66;--down:#7aa2ff;--warn:#ffcf87;--warnbg:#3a2c12}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);\
font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",sans-serif}\
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}h1{font-size:24px;margin:0 0 4px}\
h2{font-size:17px;margin:34px 0 10px}p{margin:4px 0;max-width:75ch}.soft{color:var(--soft)}\
.warn{background:var(--warnbg);color:var(--warn);padding:10px 14px;border-radius:8px;margin:14px 0}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:16px}\
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 12px 8px}\
figcaption{font-weight:600;margin-bottom:2px}figure p{font-size:13px;color:var(--soft)}svg{width:100%;height:auto;display:block}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}\
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600;font-size:13px}\
.bar{fill:none}text{fill:var(--soft);font-size:11px}.axis{stroke:var(--line)}.model{stroke:var(--model)}\
.chance{stroke:var(--soft);stroke-dasharray:4 4}.mark{fill:var(--model)}.churned{fill:var(--up);opacity:.6}\
.stayed{fill:var(--down);opacity:.6}.more{fill:var(--up)}.less{fill:var(--down)}\
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px 0 12px}";

/// Writes the page.
pub fn page(evaluation: &Evaluation, model: &Model) -> String {
    let title = format!("Churn model {} {}", escaped(&model.name), escaped(&model.version));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body><main>\n<h1>{title}</h1>\n"
    );
    head(&mut out, evaluation, model);
    figures(&mut out, evaluation);
    plots(&mut out, evaluation);
    weights(&mut out, model);
    parts(&mut out, "By stage", "stage", &evaluation.stages);
    parts(&mut out, "By segment", "segment", &evaluation.segments);
    cuts(&mut out, evaluation);
    put(&mut out, "</main></body>\n</html>\n");
    out
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: &str) {
    out.push_str(text);
}

fn head(out: &mut String, evaluation: &Evaluation, model: &Model) {
    let (about, scores) = (&evaluation.model, &evaluation.scores);
    let gap = if model.lead == 0 { String::new() } else { format!(", after a gap of {}", about.lead) };
    let _ = write!(
        out,
        "<p>The probability of {} within {}{gap}, for customers active in the last {}.</p>\n\
         <p class=\"soft\">{} examples of {} customers at {} instants from {} to {}. The model learned from what \
         happened until {}.</p>\n",
        card::label(model.label),
        about.horizon,
        about.active_within,
        scores.examples,
        evaluation.customers,
        evaluation.cuts.len(),
        evaluation.cuts.first().map_or(String::new(), |cut| cut.at.to_string()),
        evaluation.cuts.last().map_or(String::new(), |cut| cut.at.to_string()),
        about.learned_until,
    );
    if !evaluation.held_back {
        put(
            out,
            "<p class=\"warn\">Some of these instants lie inside what the model learned from: these figures \
                  flatter it.</p>\n",
        );
    }
}

fn figures(out: &mut String, evaluation: &Evaluation) {
    let (r, b) = (&evaluation.scores, &evaluation.baselines);
    let three = |x: f64| format!("{x:.3}");
    let interval = |r: &crate::model::metrics::Interval| {
        format!("{:.3} <span class=\"soft\">({:.3} to {:.3})</span>", r.value, r.low, r.high)
    };
    let no_order = |of: &dyn Fn(&Report) -> String| b.p_no_order.as_ref().map_or("–".into(), of);
    let recency = |of: &dyn Fn(&super::Ranking) -> String| b.recency.as_ref().map_or("–".into(), of);
    let rows = [
        [
            "ROC-AUC",
            &interval(&r.roc_auc),
            &no_order(&|r| interval(&r.roc_auc)),
            &recency(&|r| interval(&r.roc_auc)),
            "0.500",
        ],
        [
            "PR-AUC",
            &three(r.pr_auc),
            &no_order(&|r| three(r.pr_auc)),
            &recency(&|r| three(r.pr_auc)),
            &three(r.base_rate),
        ],
        [
            "Brier score",
            &format!("{:.4}", r.brier),
            &no_order(&|r| format!("{:.4}", r.brier)),
            "–",
            &format!("{:.4}", b.base_rate.brier),
        ],
        [
            "log loss",
            &format!("{:.4}", r.log_loss),
            &no_order(&|r| format!("{:.4}", r.log_loss)),
            "–",
            &format!("{:.4}", b.base_rate.log_loss),
        ],
        [
            "calibration error (ECE)",
            &format!("{:.4}", r.ece),
            &no_order(&|r| format!("{:.4}", r.ece)),
            "–",
            "–",
        ],
        ["mean probability", &three(r.mean_p), &no_order(&|r| three(r.mean_p)), "–", &three(r.base_rate)],
        [
            "lift at 10 %",
            &format!("{:.2}", r.lift_10),
            &no_order(&|r| format!("{:.2}", r.lift_10)),
            &recency(&|r| format!("{:.2}", r.lift_10)),
            "1.00",
        ],
        [
            "capture at 10 %",
            &three(r.capture_10),
            &no_order(&|r| three(r.capture_10)),
            &recency(&|r| three(r.capture_10)),
            "0.100",
        ],
    ];
    let head = ["", "this model", "p_no_order", "recency alone", "base rate"];
    put(out, "<h2>How good it is</h2>\n");
    table(out, &head, rows.iter().map(|row| row.map(str::to_owned)));
    put(out, "<p class=\"soft\">Intervals are the bootstrap's 95 % over customers.</p>\n");
}

fn table<const N: usize>(out: &mut String, head: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let cells = |row: &[String; N]| row.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>();
    let head: String = head.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    let _ = writeln!(out, "<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>");
    for row in rows {
        let _ = writeln!(out, "<tr>{}</tr>", cells(&row));
    }
    put(out, "</tbody></table></div>\n");
}

fn plots(out: &mut String, evaluation: &Evaluation) {
    let (curves, scores) = (&evaluation.curves, &evaluation.scores);
    let rate = scores.base_rate;
    put(out, "<h2>Plots</h2>\n<div class=\"plots\">\n");
    let unit = Plot { x: "stayers wrongly picked", y: "churners found", y_most: 1.0 };
    let roc = unit.line("chance", &[[0.0, 0.0], [1.0, 1.0]]) + &unit.line("model", &curves.roc);
    unit.figure(out, "ROC", &format!("area {:.3}; the diagonal is chance", scores.roc_auc.value), &roc);
    let plot = Plot { x: "churners found", y: "churners among those picked", y_most: 1.0 };
    let pr = plot.line("chance", &[[0.0, rate], [1.0, rate]]) + &plot.line("model", &curves.precision_recall);
    plot.figure(out, "Precision and recall", &format!("area {:.3}; chance is {rate:.3}", scores.pr_auc), &pr);
    let plot = Plot { x: "probability foretold", y: "share that churned", y_most: 1.0 };
    let points: Vec<[f64; 2]> = curves.reliability.iter().map(|bin| [bin.mean_p, bin.churned]).collect();
    let marks: String = points.iter().map(|point| plot.mark(*point)).collect();
    let reliability = plot.line("chance", &[[0.0, 0.0], [1.0, 1.0]]) + &plot.line("model", &points) + &marks;
    let caption =
        format!("tenths of the examples; error {:.4}. On the diagonal 0.7 means seven of ten", scores.ece);
    plot.figure(out, "Reliability", &caption, &reliability);
    let most = curves.lift.iter().map(|point| point[1]).fold(1.0, f64::max);
    let plot = Plot {
        x: "share of customers picked",
        y: "times the churners of a random pick",
        y_most: most * 1.05,
    };
    let lift = plot.line("chance", &[[0.0, 1.0], [1.0, 1.0]]) + &plot.line("model", &curves.lift);
    plot.figure(out, "Lift", &format!("{:.2} at the first tenth", scores.lift_10), &lift);
    let most = curves.distribution.iter().flatten().copied().fold(0.0, f64::max);
    let plot = Plot { x: "probability", y: "share of each group", y_most: most * 1.05 };
    let bars: String = curves.distribution.iter().enumerate().map(|(n, bar)| plot.bars(n, *bar)).collect();
    let key = "<span class=\"key\" style=\"background:var(--up)\"></span>churned\
               <span class=\"key\" style=\"background:var(--down)\"></span>stayed";
    plot.figure(out, "Scores", key, &bars);
    put(out, "</div>\n");
}

/// A plot over 0 to 1 across, in the units of the drawing.
struct Plot {
    x: &'static str,
    y: &'static str,
    y_most: f64,
}

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 50.0;
const BOTTOM: f64 = 38.0;
const EDGE: f64 = 16.0;

impl Plot {
    fn at(&self, [x, y]: [f64; 2]) -> (f64, f64) {
        let across = LEFT + x * (WIDTH - LEFT - EDGE);
        (across, HEIGHT - BOTTOM - y / self.y_most * (HEIGHT - BOTTOM - EDGE))
    }

    fn line(&self, class: &str, points: &[[f64; 2]]) -> String {
        let path: Vec<String> = points
            .iter()
            .map(|point| {
                let (x, y) = self.at(*point);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        format!(
            "<polyline class=\"{class}\" fill=\"none\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        )
    }

    fn mark(&self, point: [f64; 2]) -> String {
        let (x, y) = self.at(point);
        format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>")
    }

    fn bars(&self, n: usize, [stayed, churned]: [f64; 2]) -> String {
        let bars = super::curves::BARS as f64;
        let bar = |class: &str, share: f64| {
            let ((x, y), (next, zero)) =
                (self.at([n as f64 / bars, share]), self.at([(n as f64 + 1.0) / bars, 0.0]));
            let (width, height) = (next - x - 1.0, zero - y);
            format!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            )
        };
        bar("stayed", stayed) + &bar("churned", churned)
    }

    fn figure(&self, out: &mut String, title: &str, caption: &str, drawing: &str) {
        let _ = writeln!(
            out,
            "<figure><figcaption>{title}</figcaption><p>{caption}</p>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{}{drawing}</svg></figure>",
            self.axes()
        );
    }

    fn axes(&self) -> String {
        let mut out = String::new();
        for step in 0..=4 {
            let share = f64::from(step) / 4.0;
            let ((x, zero), (left, y)) = (self.at([share, 0.0]), self.at([0.0, share * self.y_most]));
            let (low, right) = (zero + 14.0, WIDTH - EDGE);
            let value = share * self.y_most;
            let _ = write!(
                out,
                "<line class=\"axis\" x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.2}</text>\
                 <text x=\"{x:.1}\" y=\"{low:.1}\" text-anchor=\"middle\">{share:.2}</text>",
                left - 5.0,
                y + 4.0,
            );
        }
        let middle = (HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(11 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - EDGE) / 2.0,
            HEIGHT - 6.0,
            self.x,
            self.y
        );
        out
    }
}

fn weights(out: &mut String, model: &Model) {
    put(
        out,
        "<h2>What it looks at</h2>\n<p class=\"soft\">Weights per standard deviation: to the right more churn, \
              to the left less.</p>\n",
    );
    let terms = card::by_weight(model);
    let most = terms.iter().map(|term| term.weight.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let rows = terms.into_iter().map(|term| {
        let (half, length) = (70.0, 70.0 * term.weight.abs() / most);
        let (class, x) = if term.weight > 0.0 { ("more", half) } else { ("less", half - length) };
        let bar = format!(
            "<svg viewBox=\"0 0 140 12\" style=\"width:140px\" aria-hidden=\"true\">\
             <line class=\"axis\" x1=\"70\" y1=\"0\" x2=\"70\" y2=\"12\"/>\
             <rect class=\"{class}\" x=\"{x:.1}\" y=\"2\" width=\"{length:.1}\" height=\"8\"/></svg>"
        );
        [code(&card::term(term)), format!("{:+.3}", term.weight), bar]
    });
    table(out, &["term", "weight", ""], rows);
}

fn parts(out: &mut String, title: &str, what: &str, parts: &[Part]) {
    if parts.is_empty() {
        return;
    }
    let _ = writeln!(out, "<h2>{title}</h2>");
    let row = |part: &Part| {
        let name = format!("{} <span class=\"soft\">{}</span>", escaped(&part.name), escaped(&part.of));
        numbers(name, &part.figures)
    };
    table(out, &head_of(what), parts.iter().map(row));
}

fn cuts(out: &mut String, evaluation: &Evaluation) {
    put(out, "<h2>By instant</h2>\n");
    let rows = evaluation.cuts.iter().map(|cut| numbers(cut.at.to_string(), &cut.part));
    table(out, &head_of("instant"), rows);
}

fn head_of(what: &str) -> [&str; 7] {
    [what, "examples", "churned", "mean probability", "ROC-AUC", "Brier", "ECE"]
}

fn numbers(name: String, figures: &Figures) -> [String; 7] {
    let three = |x: f64| format!("{x:.3}");
    [
        name,
        figures.examples.to_string(),
        three(figures.base_rate),
        three(figures.mean_p),
        figures.roc_auc.map_or("–".into(), three),
        format!("{:.4}", figures.brier),
        format!("{:.4}", figures.ece),
    ]
}

/// Markdown's code marks as HTML's.
fn code(text: &str) -> String {
    let pieces = escaped(text);
    let mut pieces = pieces.split('`');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    while let (Some(inside), after) = (pieces.next(), pieces.next()) {
        let _ = write!(out, "<code>{inside}</code>{}", after.unwrap_or_default());
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_become_markup() {
        assert_eq!(escaped("<b a=\"x\">&"), "&lt;b a=&quot;x&quot;&gt;&amp;");
        assert_eq!(code("log(1 + `orders<1`) × `x`"), "log(1 + <code>orders&lt;1</code>) × <code>x</code>");
    }

    #[test]
    fn a_plot_keeps_its_points_inside() {
        let plot = Plot { x: "", y: "", y_most: 2.0 };
        assert_eq!(plot.at([0.0, 0.0]), (LEFT, HEIGHT - BOTTOM));
        assert_eq!(plot.at([1.0, 2.0]), (WIDTH - EDGE, EDGE));
    }
}
