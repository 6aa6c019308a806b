//! Progress of long work: shown on a terminal, silent in a pipe.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of 1,000 steps.
pub fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(1_000).with_message(what);
    style(bar, "{msg} {wide_bar} {percent} % {eta}")
}

/// A count without a known end.
pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    style(bar, "{msg} {human_pos} events {per_sec}")
}

fn style(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
