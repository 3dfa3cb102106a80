//! What a run found, as text for people or as one JSON object.
//!
//! Both are made from one [`Report`], so they cannot disagree. Nothing is rounded away in JSON;
//! the text rounds for reading.

use std::fmt;

use indicatif::HumanCount;
use serde::Serialize;

use super::Plan;
use super::connection::Outcome;
use super::schedule::LATE_AFTER_NS;
use super::workload::Draw;
use crate::time::DurationWord;

/// The findings of a run; its fields are those of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The version of onced that made the load.
    pub(super) version: &'static str,
    /// What was asked for, defaults included.
    pub(super) settings: Settings,
    /// Counted requests, the warm-up excluded.
    pub(super) requests: u64,
    /// Counted replies; equal to `requests`, or the run has failed.
    pub(super) replies: u64,
    /// From the end of the warm-up to the last counted reply.
    pub(super) elapsed_s: f64,
    /// `replies / elapsed_s`.
    pub(super) requests_per_s: f64,
    /// The same in keys: `mseen` carries many per request, `ping` none.
    pub(super) keys_per_s: f64,
    /// Keys answered as seen for the first time.
    pub(super) new: u64,
    /// Keys answered as seen before.
    pub(super) dup: u64,
    /// Keys answered as seen before with another fingerprint.
    pub(super) mismatch: u64,
    /// Keys the server could not be sure about.
    pub(super) unsure: u64,
    /// Answers to `ping`.
    pub(super) pong: u64,
    /// Errors, those of the warm-up included.
    pub(super) errors: u64,
    /// The text of the first error.
    pub(super) first_error: Option<String>,
    /// The keys among the counted requests that were not used earlier in the run: a server that
    /// knew none of them before owes as many `new`. Null where that is not tracked.
    pub(super) expected_new: Option<u64>,
    /// Latencies of counted requests.
    pub(super) latency_us: Latency,
    /// How well a fixed rate was kept; null in a closed loop.
    pub(super) schedule: Option<Kept>,
    /// The requests that were not counted.
    pub(super) warmup: Warmup,
}

/// Everything a run can be repeated with.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    pub(super) server: String,
    pub(super) protocol: &'static str,
    pub(super) command: &'static str,
    pub(super) batch: Option<usize>,
    pub(super) connections: usize,
    pub(super) pipeline: usize,
    pub(super) threads: usize,
    pub(super) requests: Option<u64>,
    pub(super) duration_ms: Option<u64>,
    pub(super) warmup_ms: u64,
    pub(super) rate_per_s: Option<u64>,
    pub(super) ttl_ms: u64,
    pub(super) keys: String,
    pub(super) key_bytes: usize,
    pub(super) prefix: String,
    pub(super) repeat_percent: Option<f64>,
    pub(super) key_space: Option<u64>,
    pub(super) seed: u64,
    pub(super) timeout_ms: u64,
}

/// Percentiles in microseconds, to three significant digits.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p99_9: f64,
    #[serde(rename = "p99.99")]
    pub(super) p99_99: f64,
    pub(super) max: f64,
}

/// How well a fixed rate was kept.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Kept {
    /// Requests sent more than `late_after_us` after their intended moment.
    pub(super) sent_late: u64,
    /// What counts as late.
    pub(super) late_after_us: f64,
    /// The longest any request was sent after its intended moment.
    pub(super) lag_max_us: f64,
}

/// The requests before the counted ones.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Warmup {
    /// Requests sent, and answered.
    pub(super) requests: u64,
    /// Their keys that were answered as new.
    pub(super) new: u64,
    /// Their keys that were not used earlier in the run.
    pub(super) expected_new: Option<u64>,
}

impl Report {
    /// Draws up the findings of a run.
    pub(super) fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let measured = &outcome.measured;
        let warmup = &outcome.warmup;
        let measured_from_ns = plan.timeline().measured_from_ns;
        let elapsed_s = outcome.last_reply_ns.saturating_sub(measured_from_ns) as f64 / 1e9;
        // A run without a single counted reply has taken no time.
        let per_s = |count: u64| count as f64 / elapsed_s.max(1e-9);
        let keys_per_request = plan.form.keys_per_request() as u64;
        let fresh_is_known = keys_per_request > 0 && matches!(plan.draw, Draw::Repeat(_));
        let late = outcome.lateness;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            settings: Settings::new(plan),
            requests: measured.requests,
            replies: measured.replies,
            elapsed_s,
            requests_per_s: per_s(measured.replies),
            keys_per_s: per_s(measured.replies * keys_per_request),
            new: measured.new,
            dup: measured.dup,
            mismatch: measured.mismatch,
            unsure: measured.unsure,
            pong: measured.pong,
            errors: measured.errors + warmup.errors,
            first_error: warmup
                .first_error
                .clone()
                .or_else(|| measured.first_error.clone()),
            expected_new: fresh_is_known.then_some(measured.keys_fresh),
            latency_us: Latency::new(outcome),
            schedule: plan.rate_per_s.map(|_| Kept {
                sent_late: late.sent_late,
                late_after_us: us(LATE_AFTER_NS),
                lag_max_us: us(late.lag_max_ns),
            }),
            warmup: Warmup {
                requests: warmup.requests,
                new: warmup.new,
                expected_new: fresh_is_known.then_some(warmup.keys_fresh),
            },
        }
    }

    /// The one JSON object.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// What the number of `new` answers says beyond itself; taken over the warm-up too, because a
    /// key used on both sides of its end may be answered on either.
    fn remark(&self) -> Option<String> {
        let expected = self.expected_new? + self.warmup.expected_new?;
        let new = self.new + self.warmup.new + self.unsure;
        if self.errors > 0 {
            None
        } else if new < expected {
            Some(format!(
                "{} keys were known before the run (was this --seed used before, within the ttl?)",
                HumanCount(expected - new)
            ))
        } else if new > expected {
            Some(format!(
                "{} more than there were keys: some were told NEW twice (did their ttl end, or were they evicted, during the run?)",
                HumanCount(new - expected)
            ))
        } else {
            None
        }
    }
}

impl Settings {
    fn new(plan: &Plan) -> Self {
        let (repeat_percent, key_space) = match plan.draw {
            Draw::Repeat(percent) => (Some(percent), None),
            Draw::Space(keys) => (None, Some(keys)),
        };
        let form = &plan.form;
        Self {
            server: plan.server.to_string(),
            protocol: form.protocol.name(),
            command: form.command.name(),
            batch: (form.keys_per_request() > 1).then_some(form.batch),
            connections: plan.connections,
            pipeline: plan.pipeline,
            threads: plan.threads,
            requests: plan.requests,
            duration_ms: plan.duration_ms,
            warmup_ms: plan.warmup_ms,
            rate_per_s: plan.rate_per_s,
            ttl_ms: form.ttl_ms,
            keys: plan.shape.to_string(),
            key_bytes: form.prefix.len() + form.key_bytes,
            prefix: form.prefix.clone(),
            repeat_percent,
            key_space,
            seed: plan.seed,
            timeout_ms: plan.timeout_ms,
        }
    }
}

impl Latency {
    fn new(outcome: &Outcome) -> Self {
        let histogram = &outcome.latency_ns;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Self {
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(histogram.max()),
        }
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt_load(f)?;
        self.settings.fmt_keys(f)?;
        writeln!(
            f,
            "requests    {} answered in {:.3} s",
            HumanCount(self.replies),
            self.elapsed_s
        )?;
        if self.warmup.requests > 0 {
            let warmup = HumanCount(self.warmup.requests);
            writeln!(f, "warm-up     {warmup} more, not counted")?;
        }
        write!(f, "throughput  {} requests/s", whole(self.requests_per_s))?;
        if self.settings.batch.is_some() {
            write!(f, ", {} keys/s", whole(self.keys_per_s))?;
        }
        writeln!(f)?;
        self.fmt_answers(f)?;
        self.fmt_latency(f)?;
        if let Some(kept) = self.schedule {
            kept.fmt_for(f, self.requests)?;
        }
        if self.errors > 0 {
            let errors = HumanCount(self.errors);
            let first = self.first_error.as_deref().unwrap_or("");
            writeln!(f, "errors      {errors}, the first: {first}")?;
        }
        Ok(())
    }
}

impl Settings {
    fn fmt_load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "load        {} {} to {}, {} connections x {} in flight, {} thread{}",
            self.protocol,
            self.command,
            self.server,
            self.connections,
            self.pipeline,
            self.threads,
            if self.threads == 1 { "" } else { "s" }
        )?;
        if let Some(batch) = self.batch {
            write!(f, ", {batch} keys a request")?;
        }
        match self.rate_per_s {
            Some(rate) => writeln!(f, ", fixed rate {}/s", HumanCount(rate)),
            None => writeln!(f, ", closed loop"),
        }
    }

    fn fmt_keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys        {} of {} bytes", self.keys, self.key_bytes)?;
        if let Some(percent) = self.repeat_percent {
            write!(f, ", {percent}% repeats")?;
        }
        if let Some(keys) = self.key_space {
            write!(f, ", out of {}", HumanCount(keys))?;
        }
        let ttl = DurationWord(self.ttl_ms);
        writeln!(f, ", ttl {ttl}, seed {}", self.seed)
    }
}

impl Report {
    fn fmt_answers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answers    ")?;
        let mut separator = " ";
        for (name, count, always) in [
            ("pong", self.pong, false),
            ("new", self.new, self.settings.command != "ping"),
            ("dup", self.dup, self.settings.command != "ping"),
            ("mismatch", self.mismatch, false),
            ("unsure", self.unsure, false),
            ("errors", self.errors, true),
        ] {
            if always || count > 0 {
                write!(f, "{separator}{} {name}", HumanCount(count))?;
                separator = ", ";
            }
        }
        writeln!(f)?;
        if let Some(expected) = self.expected_new {
            let expected = HumanCount(expected);
            write!(f, "            expected of a fresh server: {expected} new")?;
            match self.remark() {
                Some(remark) => writeln!(f, "; {remark}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }

    fn fmt_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = &self.latency_us;
        write!(f, "latency    ")?;
        let mut separator = " ";
        for (name, us) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p99_9),
            ("p99.99", latency.p99_99),
            ("max", latency.max),
        ] {
            write!(f, "{separator}{name} {}", ReadableUs(us))?;
            separator = "  ";
        }
        writeln!(f)
    }
}

impl Kept {
    fn fmt_for(&self, f: &mut fmt::Formatter<'_>, requests: u64) -> fmt::Result {
        let lag = ReadableUs(self.lag_max_us);
        if self.sent_late == 0 {
            return writeln!(f, "schedule    kept; at most {lag} behind");
        }
        writeln!(
            f,
            "schedule    FELL BEHIND: {} requests ({:.2}%) were sent more than {} late, at most {lag}; latency counts from the intended moment",
            HumanCount(self.sent_late),
            self.sent_late as f64 * 100.0 / requests.max(1) as f64,
            ReadableUs(self.late_after_us),
        )
    }
}

#[allow(clippy::cast_sign_loss)] // rates are not negative
fn whole(rate: f64) -> HumanCount {
    HumanCount(rate.round() as u64)
}

/// Microseconds in the unit that reads best.
struct ReadableUs(f64);

impl fmt::Display for ReadableUs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0;
        if us < 1_000.0 {
            write!(f, "{us:.0} µs")
        } else if us < 1_000_000.0 {
            write!(f, "{:.2} ms", us / 1e3)
        } else {
            write!(f, "{:.2} s", us / 1e6)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::reply::Tally;
    use super::super::tests::plan;
    use super::*;

    fn outcome() -> Outcome {
        let mut outcome = Outcome::new();
        outcome.measured = Tally {
            requests: 1_000,
            keys_fresh: 700,
            replies: 1_000,
            new: 700,
            dup: 300,
            ..Tally::default()
        };
        for us in 1..=1_000 {
            outcome.latency_ns.record(us * 1_000).unwrap();
        }
        outcome.last_reply_ns = 500_000_000;
        outcome
    }

    fn report(line: &str, outcome: &Outcome) -> Report {
        Report::new(&plan(line).unwrap(), outcome)
    }

    fn names(value: &Value) -> Vec<&str> {
        let object = value.as_object().unwrap();
        let mut names: Vec<_> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn json_has_every_field_whatever_the_run() {
        for line in [
            "",
            "--rate 1k --duration 1s",
            "--key-space 5 --command mseen",
        ] {
            let json = report(line, &outcome()).to_json().unwrap();
            assert!(!json.contains('\n'));
            let json: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(
                names(&json).join(" "),
                "dup elapsed_s errors expected_new first_error keys_per_s latency_us mismatch new \
                 pong replies requests requests_per_s schedule settings unsure version warmup"
            );
            assert_eq!(
                names(&json["settings"]).join(" "),
                "batch command connections duration_ms key_bytes key_space keys pipeline prefix \
                 protocol rate_per_s repeat_percent requests seed server threads timeout_ms ttl_ms \
                 warmup_ms"
            );
            assert_eq!(
                names(&json["latency_us"]).join(" "),
                "max mean p50 p90 p99 p99.9 p99.99"
            );
            assert_eq!(json["schedule"].is_null(), !line.contains("rate"));
        }
    }

    #[test]
    fn figures_are_what_was_measured() {
        let found = report("", &outcome());
        assert!((found.requests_per_s - 2_000.0).abs() < 1e-6);
        assert!((found.keys_per_s - 2_000.0).abs() < 1e-6);
        assert_eq!(found.expected_new, Some(700));
        // Three significant digits.
        assert!((found.latency_us.p50 - 500.0).abs() <= 1.0);
        assert!((found.latency_us.p99_9 - 999.0).abs() <= 1.0);
        assert!((found.latency_us.max - 1_000.0).abs() <= 1.0);
        let batched = report("--command mseen --batch 50", &outcome());
        assert!((batched.keys_per_s - 100_000.0).abs() < 1e-6);
        let pinged = report("--command ping", &outcome());
        assert!(pinged.keys_per_s.abs() < 1e-6);
        assert_eq!(pinged.expected_new, None);
        assert_eq!(report("--key-space 9", &outcome()).expected_new, None);
    }

    #[test]
    fn the_warmup_is_not_part_of_the_time() {
        let found = report("--warmup 250ms", &outcome());
        assert!((found.elapsed_s - 0.25).abs() < 1e-9);
        let nothing = report("", &Outcome::new());
        assert!(nothing.requests_per_s.abs() < 1e-6);
        assert!(!nothing.to_string().contains("NaN"));
    }

    #[test]
    fn the_text_says_what_stands_out() {
        let plain = report("--seed 42", &outcome()).to_string();
        for part in ["seed 42", "700 new, 300 dup, 0 errors", "2,000 requests/s"] {
            assert!(plain.contains(part), "{part}: {plain}");
        }
        assert!(!plain.contains("schedule"));

        let mut known = outcome();
        known.measured.new -= 100;
        let text = report("", &known).to_string();
        assert!(text.contains("100 keys were known before"), "{text}");

        let mut twice = outcome();
        twice.measured.new += 1;
        let text = report("", &twice).to_string();
        assert!(text.contains("told NEW twice"), "{text}");

        let mut failed = outcome();
        failed.warmup.errors = 1;
        failed.warmup.first_error = Some("ERR FULL".to_owned());
        let found = report("", &failed);
        assert_eq!(found.errors, 1);
        assert!(found.to_string().contains("1, the first: ERR FULL"));

        let mut behind = outcome();
        behind.lateness.sent_late = 250;
        behind.lateness.lag_max_ns = 3_500_000;
        let text = report("--rate 1k", &behind).to_string();
        assert!(
            text.contains("FELL BEHIND: 250 requests (25.00%)"),
            "{text}"
        );
        assert!(text.contains("at most 3.50 ms"), "{text}");
        let text = report("--rate 1k", &outcome()).to_string();
        assert!(text.contains("schedule    kept"), "{text}");
    }
}
