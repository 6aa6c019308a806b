//! Progress of long work: shown on a terminal, silent in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of 1,000 steps.
pub fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(1_000).with_message(what);
    style(bar, "{msg} {wide_bar} {percent} % {eta}")
}

/// A count without a known end. It turns by itself, since work such as fitting counts nothing.
pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    let bar = style(bar, "{spinner} {msg} {human_pos} records {per_sec} {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn style(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
