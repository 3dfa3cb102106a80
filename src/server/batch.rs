//! Questions of one connection that are asked together: requests in a row that all ask "is this the
//! first time?" in the usual form. Anything else is answered only after they are.
//!
//! Kept by the worker, for whichever connection it serves: it is empty between two of them.

use super::output::Output;
use crate::command::spec::Verb;
use crate::command::{Command, Reply, Seen, Set, SetAnswer, SetIf, stored_value};
use crate::command::{Expiry, Ttl};
use crate::engine::{BATCH_MAX, Engine, Namespace, Policy, Question};
use crate::metrics::Tally;
use crate::store::{Verdict, WindowMode};
use crate::time::Millis;
use crate::wire::{Dialect, Sink};

/// What a question's answer looks like.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `SEEN`.
    Word,
    /// `SET … NX`.
    OkOrNil,
    /// `SETNX`.
    Number,
}

/// A question that waits for the others.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    verb: Verb,
    form: Form,
    key: Span,
    value: Option<Span>,
}

/// Where some bytes of the input lie.
#[derive(Clone, Copy, Debug)]
struct Span {
    begins: u32,
    len: u32,
}

impl Span {
    /// The part of `input` that `bytes` is; `None` if it lies elsewhere.
    fn within(bytes: &[u8], input: &[u8]) -> Option<Self> {
        let begins = (bytes.as_ptr() as usize).checked_sub(input.as_ptr() as usize)?;
        (begins + bytes.len() <= input.len()).then_some(Self {
            begins: begins as u32,
            len: bytes.len() as u32,
        })
    }

    fn of(self, input: &[u8]) -> &[u8] {
        let begins = self.begins as usize;
        &input[begins..begins + self.len as usize]
    }
}

/// Where answers go.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    pub(super) dialect: Dialect,
    pub(super) tally: &'a mut Tally,
    pub(super) out: &'a mut Output,
}

/// Questions that wait to be asked together, in the order of their replies.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: Vec<Waiting>,
    questions: Vec<Question>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what waits, for a worker that goes on after a connection broke off.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.questions.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() == BATCH_MAX
    }

    /// Takes a command in if it is a question in the usual form; false if it is not.
    pub(super) fn take(
        &mut self,
        verb: Verb,
        command: &Command<'_>,
        input: &[u8],
        engine: &Engine,
        namespace: &Namespace,
    ) -> bool {
        let policy = namespace.policy();
        let usual = match command {
            Command::Seen(seen) => usual_seen(seen, &policy),
            Command::Set(set) => usual_set(set, &policy),
            _ => None,
        };
        let Some((form, key, value, ttl_ms, mode)) = usual else {
            return false;
        };
        let Some(span) = Span::within(key, input) else {
            return false;
        };
        let value = value.map(|value| Span::within(value, input));
        if namespace.is_dropped() || matches!(value, Some(None)) {
            return false;
        }
        self.waiting.push(Waiting {
            verb,
            form,
            key: span,
            value: value.flatten(),
        });
        self.questions.push(Question {
            key: engine.hashed(namespace, key),
            ttl_ms,
            mode,
            verdict: Verdict::Full,
        });
        true
    }

    /// Asks what waits, and appends the answers.
    pub(super) fn ask(
        &mut self,
        input: &[u8],
        engine: &Engine,
        namespace: &Namespace,
        now: Millis,
        to: &mut Answers<'_>,
    ) {
        let waiting = &self.waiting;
        let content = |at: usize| {
            let Waiting { key, value, .. } = waiting[at];
            (key.of(input), value.map(|value| value.of(input)))
        };
        engine.ask(namespace, &mut self.questions, content, now);
        let mut said = Said::default();
        for (waiting, question) in self.waiting.iter().zip(&self.questions) {
            let is_error = question.verdict == Verdict::Full;
            to.tally.count(waiting.verb, is_error);
            said.push(waiting.form, question.verdict, (engine, namespace), to);
        }
        self.clear();
    }
}

/// Answers of a batch as they were encoded, to say them again: there are few different ones.
#[derive(Default)]
struct Said([[Encoded; VERDICTS]; FORMS]);

/// An answer's bytes, and how many they are; 0 if it was not said yet, or is longer.
type Encoded = ([u8; ANSWER_BYTES], u8);

/// Bytes of the longest answer that is kept: `+NEW` in RESP.
const ANSWER_BYTES: usize = 8;
const FORMS: usize = 3;
const VERDICTS: usize = 5;

impl Said {
    #[inline]
    fn push(
        &mut self,
        form: Form,
        verdict: Verdict,
        from: (&Engine, &Namespace),
        to: &mut Answers<'_>,
    ) {
        let out = to.out.bytes();
        let (bytes, len) = &mut self.0[form as usize][verdict as usize];
        if *len == 0 {
            let begins = out.len();
            to.dialect.encode(&reply(form, verdict, from), out);
            if let Some(place) = bytes.get_mut(..out.len() - begins) {
                place.copy_from_slice(&out[begins..]);
                *len = place.len() as u8;
            }
            return;
        }
        // All of them and then less: a number of bytes that is known is one move.
        out.extend_from_slice(bytes);
        out.truncate(out.len() - (ANSWER_BYTES - usize::from(*len)));
    }
}

type Usual<'a> = (Form, &'a [u8], Option<&'a [u8]>, u64, WindowMode);

fn usual_seen<'a>(seen: &Seen<'a>, policy: &Policy) -> Option<Usual<'a>> {
    if seen.fingerprint.is_some() || seen.event_at.is_some() || seen.namespace.is_some() {
        return None;
    }
    // One that is too long is refused where such things are worded.
    let ttl_ms = match seen.ttl {
        Ttl::Default => policy.ttl_ms,
        Ttl::Ms(ms) if ms <= policy.ttl_max_ms => ms,
        Ttl::Ms(_) => return None,
    };
    let mode = seen.mode.unwrap_or(policy.mode);
    Some((Form::Word, seen.key, None, ttl_ms, mode))
}

fn usual_set<'a>(set: &Set<'a>, policy: &Policy) -> Option<Usual<'a>> {
    if set.condition != SetIf::Absent {
        return None;
    }
    let form = match set.answer {
        SetAnswer::OkOrNil => Form::OkOrNil,
        SetAnswer::Number => Form::Number,
        SetAnswer::Before => return None,
    };
    let ttl_ms = match set.expiry {
        Expiry::Default => policy.ttl_ms,
        Expiry::In(ms) => ms.min(policy.ttl_max_ms),
        _ => return None,
    };
    let value = stored_value(set.value);
    Some((form, set.key, value, ttl_ms, WindowMode::Fixed))
}

fn reply(
    form: Form,
    verdict: Verdict,
    (engine, namespace): (&Engine, &Namespace),
) -> Reply<'static> {
    match (form, verdict) {
        (_, Verdict::Full) => engine.no_room(namespace).into(),
        (Form::Word, Verdict::New) => Reply::Word("NEW"),
        (Form::Word, Verdict::Unsure) => Reply::Word("UNSURE"),
        (Form::Word, Verdict::Dup) => Reply::Word("DUP"),
        (Form::Word, Verdict::Mismatch) => Reply::Word("MISMATCH"),
        (Form::OkOrNil, Verdict::New | Verdict::Unsure) => Reply::OK,
        (Form::OkOrNil, _) => Reply::Nil,
        (Form::Number, Verdict::New | Verdict::Unsure) => Reply::Number(1),
        (Form::Number, _) => Reply::Number(0),
    }
}
