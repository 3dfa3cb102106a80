//! Many first-time questions at once: hashed together, fetched from memory together, then asked.
//!
//! One question waits for one or two lines of memory, some 100 to 400 ns each; a hundred wait for
//! theirs at the same time. So the keys of a batch are sorted by shard, each shard is locked for a
//! moment to start the fetching, and then once more to ask: two short locks for some keys instead
//! of one for each. A shard that another thread has at that moment is left for the end: what it does
//! there may be a step of growth, some 20 µs.
//!
//! Questions about different keys are asked in another order than they came in, unless there may
//! not be room for all; those about one key stay in order, since it is in one shard and the sorting
//! keeps order. Not for questions with
//! fingerprints or times of their own.

use super::journal::{Promise, Writing};
use super::namespace::{Namespace, NamespaceRoom};
use super::{Engine, Policy};
use crate::log::{frame, record};
use crate::store::{Ask, Hashed, Verdict, WindowMode};
use crate::time::Millis;

/// Questions in a batch at most: enough to hide the waiting, few enough that the first answer is
/// not late.
pub const BATCH_MAX: usize = 128;
/// With less memory than this left, questions are asked in the order in which they came.
const SHORT_OF_MEMORY_BYTES: isize = 8 << 20;
/// Shards of a namespace at most: the hash bits that choose one.
pub(super) const SHARDS_MAX: usize = 256;

/// One question, without the bytes of its key, which stay where they were received.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The key's identity and hash.
    pub key: Hashed,
    /// How long it lives from now, in milliseconds.
    pub ttl_ms: u64,
    /// What a repeat does.
    pub mode: WindowMode,
    /// The answer, once it was asked.
    pub verdict: Verdict,
}

/// A question's bytes: its key, and the value to store if it is new (`None` is `1`).
pub type Content<'a> = (&'a [u8], Option<&'a [u8]>);

impl Engine {
    /// The part of a key that a [`Question`] needs.
    #[inline]
    pub fn hashed(&self, namespace: &Namespace, key: &[u8]) -> Hashed {
        namespace.hashed(&self.secret, key)
    }

    /// Asks up to [`BATCH_MAX`] questions and fills in the verdicts; `content` gives the bytes of
    /// the question of a number.
    pub fn ask<'a>(
        &self,
        namespace: &Namespace,
        questions: &mut [Question],
        content: impl Fn(usize) -> Content<'a>,
        now: Millis,
    ) {
        debug_assert!(questions.len() <= BATCH_MAX);
        let policy = namespace.policy();
        let mut order = [0_u8; BATCH_MAX];
        let mut ends = [0_u8; SHARDS_MAX];
        let Some(first) = questions.first() else {
            return;
        };
        let first = namespace.index_of(&first.key);
        let count = sort(namespace, questions, &mut order, &mut ends);
        let groups = Groups {
            order: &order,
            ends: &ends[..count],
            first,
        };
        if questions.len() > 1 {
            each_group(&groups, |shard, group| {
                namespace.read_shard_if_free(shard, |shard| {
                    for &at in group {
                        shard.prefetch(&questions[usize::from(at)].key);
                    }
                });
            });
        }
        let mut promise = self.promise_for(questions.len(), &content);
        let mut asking = Asking {
            engine: self,
            namespace,
            policy,
            content: &content,
            promise: &mut promise,
            now,
        };
        // Where there may not be room for all, the first to come get it.
        if policy.keys_max > 0 || !self.budget.admits(SHORT_OF_MEMORY_BYTES) {
            for at in 0..questions.len() {
                let shard = namespace.index_of(&questions[at].key);
                asking.group(shard, &[at as u8], questions, true);
            }
        } else {
            let mut busy = [0_u8; SHARDS_MAX];
            let mut busy_count = 0;
            each_group(&groups, |shard, group| {
                if !asking.group(shard, group, questions, false) {
                    busy[busy_count] = shard as u8;
                    busy_count += 1;
                }
            });
            for &shard in &busy[..busy_count] {
                let shard = usize::from(shard);
                asking.group(shard, groups.of(shard), questions, true);
            }
        }
        if let Some(next) = self.successor(namespace) {
            self.ask_elsewhere(&next, questions, &content, now);
        }
    }

    /// Space in the log for a batch that is all new, if there is a log.
    fn promise_for<'a>(
        &self,
        questions: usize,
        content: &impl Fn(usize) -> Content<'a>,
    ) -> Promise<'_> {
        let Some(log) = self.log() else {
            return Promise::of(None, 0);
        };
        let bytes = |at| {
            let (key, value) = content(at);
            frame::HEADER_BYTES + record::bytes_max(key.len(), value.map_or(0, <[u8]>::len))
        };
        Promise::of(Some(log), (0..questions).map(bytes).sum())
    }

    /// Asks what a namespace did not take any more of the one that has its place, whose keys have
    /// another form.
    #[cold]
    fn ask_elsewhere<'a>(
        &self,
        next: &Namespace,
        questions: &mut [Question],
        content: &impl Fn(usize) -> Content<'a>,
        now: Millis,
    ) {
        for (at, question) in questions.iter_mut().enumerate() {
            if question.verdict == Verdict::Full {
                let (bytes, value) = content(at);
                let ask = Ask {
                    ttl_ms: question.ttl_ms,
                    mode: question.mode,
                    value,
                    ..Ask::default()
                };
                question.verdict = self.seen(next, bytes, &ask, now);
            }
        }
    }
}

/// What the groups of a batch have in common.
struct Asking<'a, 'e, C> {
    engine: &'e Engine,
    namespace: &'e Namespace,
    policy: Policy,
    content: C,
    promise: &'a mut Promise<'e>,
    now: Millis,
}

impl<'a, C: Fn(usize) -> Content<'a>> Asking<'_, '_, &C> {
    /// Asks the questions of one shard, under one lock. False, and nothing is asked, if another thread
    /// has the shard and it is not to be waited for.
    fn group(
        &mut self,
        shard: usize,
        group: &[u8],
        questions: &mut [Question],
        waits: bool,
    ) -> bool {
        let (content, engine, policy, now) = (self.content, self.engine, &self.policy, self.now);
        let ask_all = |shard: &mut Writing<'_, '_>, room: &mut NamespaceRoom<'_>| {
            let mut ask = Ask::default();
            for &at in group {
                let at = usize::from(at);
                let question = &mut questions[at];
                let (bytes, value) = content(at);
                let key = question.key.of(bytes, &engine.secret);
                ask.ttl_ms = question.ttl_ms;
                ask.mode = question.mode;
                ask.value = value;
                let verdict = shard.seen(&key, &ask, room, now);
                room.count(shard, verdict);
                question.verdict = policy.told(verdict);
            }
        };
        self.namespace
            .write_many(shard, waits, policy, self.promise, ask_all)
    }
}

/// Orders question numbers by shard, and by their own order within one. `ends` gets where each
/// group ends in `order`; returns how many groups there may be.
fn sort(
    namespace: &Namespace,
    questions: &[Question],
    order: &mut [u8; BATCH_MAX],
    ends: &mut [u8; SHARDS_MAX],
) -> usize {
    let groups = namespace.shard_count();
    let group_of = |question: &Question| namespace.index_of(&question.key);
    for question in questions {
        ends[group_of(question)] += 1;
    }
    let mut begins = 0;
    for end in &mut ends[..groups] {
        let count = std::mem::replace(end, begins);
        begins += count;
    }
    // Each group's beginning moves to its end as its questions are put in place.
    for (at, question) in questions.iter().enumerate() {
        let place = &mut ends[group_of(question)];
        order[usize::from(*place)] = at as u8;
        *place += 1;
    }
    groups
}

/// Visits the groups, the one of question 0 first: threads that all began with the first shard would
/// meet at every one.
fn each_group(groups: &Groups<'_>, mut visit: impl FnMut(usize, &[u8])) {
    for shard in (groups.first..groups.ends.len()).chain(0..groups.first) {
        let group = groups.of(shard);
        if !group.is_empty() {
            visit(shard, group);
        }
    }
}

/// Question numbers by shard.
struct Groups<'a> {
    order: &'a [u8],
    /// Where each shard's end in `order`.
    ends: &'a [u8],
    /// The shard to begin with.
    first: usize,
}

impl<'a> Groups<'a> {
    /// Those of a shard.
    fn of(&self, shard: usize) -> &'a [u8] {
        let begins = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.order[usize::from(begins)..usize::from(self.ends[shard])]
    }
}
