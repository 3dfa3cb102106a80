//! `onced log dump`: the records of a log as JSON lines.
//!
//! The log is read twice: first for the namespaces as they are at its end, and with `--live` for where
//! each key's last record is; then to print.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use super::{Known, control, look, survey, unproven_words};
use crate::log::control::{Control, Space};
use crate::log::reader::{Frame, Present};
use crate::log::record::{self, Record};
use crate::log::segment::Position;
use crate::store::{self, Fingerprint, State};
use crate::time::Millis;

/// What lines look like, for `--help`.
const LINES: &str = r#"One object a line. A key that was stored, or stored again with another deadline or value:

  {"op":"put","namespace":"orders","key":"order-17","deadline_ms":1767225600000}

with "fingerprint" (hex digits), "value" or "record" where it has one. A record is idempotency's:

  "record":{"state":"completed","token":245135528472577,"attempt":1,"began_ms":1767225500000,
   "code":200,"body":"charged"}

where state is in_progress, released, completed or failed; one in progress has "lease_end_ms",
"lease_ms" and perhaps "owner" in the place of "code" and "body". A key that was removed:

  {"op":"remove","namespace":"orders","key":"order-17","deadline_ms":1767225600000}

where the deadline is the latest that an earlier record of the key may have. A namespace, where
it is made and whenever its properties change:

  {"op":"namespace","namespace":"orders","ttl_ms":3600000,"ttl_max_ms":31536000000,
   "mode":"fixed","keys_max":0,"full":"reject","keys":"exact","unsure":"new",
   "covered_since_ms":0,"unsure_until_ms":0}

A key that is not UTF-8 stands as "key_hex" instead of "key", two digits for each byte, and such
a value, owner or body as "value_hex", "owner_hex" or "body_hex". A put without "value" has the value that every marker has, 1."#;

/// Print what a data directory holds as JSON lines, in the order of the log
///
/// Keys of namespaces that were purged or dropped later are left out. Damage is left out too, with a
/// line on standard error and exit status 1. To load keys into a server, take --live: without it this
/// is a history, in which what came later counts. While a server writes to the directory, keys that it
/// stores or rewrites meanwhile may be missing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = LINES)]
pub(super) struct DumpArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Only this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only what a server would remember now: of each key the last record, if its deadline has not
    /// passed; takes memory for each such key
    #[arg(long)]
    live: bool,

    /// Namespaces too that were purged or dropped later; one whose name is not in the log any more has
    /// a number instead
    #[arg(long, conflicts_with = "live")]
    all: bool,
}

pub(super) fn run(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let disk = look(&args.directory)?;
    let begin = |present: &Present| (present.now, Outline::default());
    let (view, (_, outline), findings) =
        survey(&disk, begin, |(now, outline), frame| match control(frame) {
            Some(control) => outline.spaces.hear(&control),
            None if args.live => outline.note_last(frame, *now),
            None => {}
        })?;
    // A server may have written more since, of which the outline knows nothing.
    let end = findings
        .segments
        .last()
        .map_or_else(Position::default, |last| Position {
            segment: last.number,
            offset: last.bytes,
        });
    let spaces = outline.spaces.here.present.values();
    let mut known = spaces.chain(outline.spaces.past.values().filter(|_| args.all));
    if let Some(name) = &args.namespace
        && !known.any(|space| space.name == *name)
    {
        bail!("{} has no namespace '{name}'", args.directory.display());
    }
    let out = BufWriter::new(std::io::stdout().lock());
    let mut printer = Printer::new(args, outline, out);
    printer.begin()?;
    view.read(|frame| {
        if frame.at < end {
            printer.frame(frame)?;
        }
        Ok(())
    })?;
    printer.out.flush()?;
    let mut clean = true;
    for loss in &findings.losses {
        clean = false;
        let (name, offset, bytes) = (&loss.name, loss.offset, loss.bytes);
        eprintln!(
            "onced: {name} is damaged at byte {offset}: {bytes} bytes are left out{}",
            unproven_words(loss)
        );
    }
    for name in &findings.missing {
        clean = false;
        eprintln!("onced: {name} is missing: what it held is left out");
    }
    Ok(ExitCode::from(u8::from(!clean)))
}

/// What has to be known before the first record is printed.
#[derive(Debug, Default)]
struct Outline {
    spaces: Known,
    /// With `--live`, where the last record of each live key is.
    last: HashMap<(u32, Box<[u8]>), Position>,
}

impl Outline {
    fn note_last(&mut self, frame: &Frame<'_>, now: Millis) {
        each_record(frame, |at, record, key| {
            let id = (frame.space, key.into());
            if record.content.is_some() && record.deadline >= now {
                self.last.insert(id, at);
            } else {
                self.last.remove(&id);
            }
            Ok(())
        })
        .expect("nothing here fails");
    }
}

/// Calls with each record of a frame, where it begins, and its key as it was sent.
fn each_record(
    frame: &Frame<'_>,
    mut visit: impl FnMut(Position, &Record<'_>, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut key = Vec::new();
    let mut rest = frame.payload;
    let mut at = frame.at;
    at.offset += (frame.range.len() - rest.len()) as u64;
    loop {
        let before = rest.len();
        let Some(record) = record::take(&mut rest) else {
            return Ok(());
        };
        key.clear();
        record.key.write_to(&mut key);
        visit(at, &record, &key)?;
        at.offset += (before - rest.len()) as u64;
    }
}

struct Printer<'a, W> {
    args: &'a DumpArgs,
    outline: Outline,
    /// The namespaces as of where the reading is.
    here: Known,
    /// Each namespace as it was printed last.
    printed: HashMap<u32, Space>,
    out: W,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(args: &'a DumpArgs, outline: Outline, out: W) -> Self {
        Self {
            args,
            outline,
            here: Known::default(),
            printed: HashMap::new(),
            out,
        }
    }

    /// With `--live`, all namespaces as they are in the end.
    fn begin(&mut self) -> std::io::Result<()> {
        if !self.args.live {
            return Ok(());
        }
        let spaces = self.outline.spaces.here.present.clone();
        spaces.values().try_for_each(|space| self.space(space))
    }

    fn frame(&mut self, frame: &Frame<'_>) -> std::io::Result<()> {
        let Some(control) = control(frame) else {
            return self.records(frame);
        };
        self.here.hear(&control);
        match control {
            _ if self.args.live => {}
            Control::Opened(opened) => {
                for space in &opened.spaces {
                    self.space(space)?;
                }
            }
            Control::Space(space) => self.space(&space)?,
            Control::Dropped { id, .. } if self.args.all => {
                if let Some(space) = self.here.find(id).cloned()
                    && self.is_wanted(Some(&space), id)
                {
                    let line = DropLine {
                        op: "drop",
                        namespace: &space.name,
                    };
                    self.print(&line)?;
                }
            }
            Control::Dropped { .. } | Control::Synced(_) | Control::Closed | Control::Sealed => {}
        }
        Ok(())
    }

    fn is_wanted(&self, space: Option<&Space>, id: u32) -> bool {
        let is_there = self.outline.spaces.here.present.contains_key(&id);
        let wanted_name = self.args.namespace.as_deref();
        (self.args.all || is_there)
            && wanted_name.is_none_or(|name| space.is_some_and(|space| space.name == name))
    }

    fn space(&mut self, space: &Space) -> std::io::Result<()> {
        if !self.is_wanted(Some(space), space.id) || self.printed.get(&space.id) == Some(space) {
            return Ok(());
        }
        self.printed.insert(space.id, space.clone());
        self.print(&SpaceLine {
            op: "namespace",
            namespace: &space.name,
            ttl_ms: space.ttl_ms,
            ttl_max_ms: space.ttl_max_ms,
            mode: if space.slides { "slide" } else { "fixed" },
            keys_max: space.keys_max,
            full: if space.evicts { "evict" } else { "reject" },
            keys: if space.keeps_digests {
                "digest"
            } else {
                "exact"
            },
            unsure: if space.reports_unsure {
                "report"
            } else {
                "new"
            },
            covered_since_ms: space.covered_since.0,
            unsure_until_ms: space.unsure_until.0,
        })
    }

    fn records(&mut self, frame: &Frame<'_>) -> std::io::Result<()> {
        let known = self.here.find(frame.space);
        let space = known.or_else(|| self.outline.spaces.find(frame.space));
        if !self.is_wanted(space, frame.space) {
            return Ok(());
        }
        let name = space.map(|space| space.name.clone());
        each_record(frame, |at, record, key| {
            if self.args.live {
                let id = (frame.space, key.into());
                if self.outline.last.get(&id) != Some(&at) {
                    return Ok(());
                }
            }
            let content = record.content.unwrap_or_default();
            let (key, key_hex) = text_or_hex(Some(key));
            let (value, value_hex) = text_or_hex(content.value);
            self.print(&RecordLine {
                op: if record.content.is_some() {
                    "put"
                } else {
                    "remove"
                },
                namespace: name.as_deref(),
                namespace_id: name.is_none().then_some(frame.space),
                key,
                key_hex,
                deadline_ms: record.deadline.0,
                fingerprint: content
                    .fingerprint
                    .or(content.record.and_then(|record| record.fingerprint))
                    .map(fingerprint_hex),
                value,
                value_hex,
                record: content.record.as_ref().map(ClaimLine::of),
            })
        })
    }

    fn print(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => {
            let digits = b"0123456789abcdef";
            let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
            let hex = pairs.map(|digit| char::from(digits[usize::from(digit)]));
            (None, Some(hex.collect()))
        }
    }
}

fn fingerprint_hex(fingerprint: Fingerprint) -> String {
    let digits = usize::from(fingerprint.digits);
    format!("{:0digits$x}", fingerprint.value)
}

#[derive(Serialize)]
struct RecordLine<'a> {
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    deadline_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<ClaimLine<'a>>,
}

/// An idempotency record.
#[derive(Serialize)]
struct ClaimLine<'a> {
    state: &'static str,
    token: u64,
    attempt: u32,
    began_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_end_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

impl<'a> ClaimLine<'a> {
    fn of(record: &store::Record<'a>) -> Self {
        let (state, lease, owner) = match record.state {
            State::Running {
                lease_end,
                lease_ms,
                owner,
            } => ("in_progress", Some((lease_end.0, lease_ms)), owner),
            State::Released => ("released", None, None),
            State::Completed(_) => ("completed", None, None),
            State::Failed(_) => ("failed", None, None),
        };
        let outcome = record.outcome();
        let (owner, owner_hex) = text_or_hex(owner);
        let (body, body_hex) = text_or_hex(outcome.map(|outcome| outcome.body));
        Self {
            state,
            token: record.token,
            attempt: record.attempt,
            began_ms: record.began.0,
            lease_end_ms: lease.map(|(end, _)| end),
            lease_ms: lease.map(|(_, ms)| ms),
            owner,
            owner_hex,
            code: outcome.map(|outcome| outcome.code),
            body,
            body_hex,
        }
    }
}

#[derive(Serialize)]
struct SpaceLine<'a> {
    op: &'static str,
    namespace: &'a str,
    ttl_ms: u64,
    ttl_max_ms: u64,
    mode: &'static str,
    keys_max: u64,
    full: &'static str,
    keys: &'static str,
    unsure: &'static str,
    covered_since_ms: u64,
    unsure_until_ms: u64,
}

#[derive(Serialize)]
struct DropLine<'a> {
    op: &'static str,
    namespace: &'a str,
}
