//! The bar that long work shows at a terminal.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Draws a bar over so many bytes or, where that is unknown, a count of lines.
pub(super) fn draw(bytes_total: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes_total {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {human_pos} lines {per_sec}",
        ),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_style(ProgressStyle::with_template(template).expect("the templates are well-formed"))
}

/// Says something on standard error, above the bar if there is one.
pub(super) fn say(bar: Option<&ProgressBar>, text: &str) {
    // Standard error may be closed; that ends nothing.
    let say = || drop(writeln!(io::stderr(), "onced: {text}"));
    match bar {
        Some(bar) => bar.suspend(say),
        None => say(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bars_can_be_drawn() {
        for total in [Some(10), None] {
            let bar = draw(total);
            bar.inc(3);
            assert_eq!((bar.length(), bar.position()), (total, 3));
            bar.finish_and_clear();
        }
    }
}
