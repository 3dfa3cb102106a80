//! The verbs, with typed replies.

use std::time::Duration;

use bytes::Bytes;

use super::Client;
use super::reply::{ClientError, Value};
use crate::time::DurationWord;

/// The answer of [`Client::seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The first time; it is remembered now.
    New,
    /// Seen before, and its window has not ended.
    Dup,
    /// Not there, but it may have been seen in its window: the server's memory does not reach back that far.
    Unsure,
    /// Of a batch: there was no room to remember it, or the server takes no changes.
    NotStored,
}

/// What [`Client::begin`] may ask for.
#[derive(Clone, Debug, Default)]
pub struct BeginOptions {
    /// How long nobody else is told to run; the server's default if absent.
    pub lease: Option<Duration>,
    /// How long the record lives once it is settled or given up; the server's default if absent.
    pub ttl: Option<Duration>,
    /// Up to 32 hex digits: a digest of the payload, which every other caller's must equal.
    pub fingerprint: Option<String>,
    /// Names this attempt, so that it is told its token again if it asks again. 1 to 128 bytes.
    pub owner: Option<Vec<u8>>,
    /// How long to wait while another is at work, at most as long as the server lets anybody wait: 60 s
    /// unless set otherwise there.
    pub wait: Option<Duration>,
}

/// The answer of [`Client::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Do the work.
    Run(Held),
    /// Another is at work; it is of use to come again after this long.
    Busy(Duration),
    /// The work was settled before.
    Settled(Outcome),
    /// The key came with another fingerprint.
    Mismatch,
}

/// The right to do the work behind a key, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The fencing token: rises with every holder. For the systems that the work writes to.
    pub token: u64,
    /// How long nobody else is told to run.
    pub lease: Duration,
    /// How often the work was begun, this time included.
    pub attempt: u32,
    /// Whether it may have been done before: the server's memory does not reach back that far. Only said in a
    /// namespace that is set to `UNSURE REPORT`.
    pub is_unsure: bool,
}

/// What came of the work behind a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it failed for good.
    pub is_failure: bool,
    /// What its holder said of it, such as an HTTP status.
    pub code: u32,
    /// What its holder left for everyone else.
    pub body: Bytes,
}

/// What work comes to that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What to say of it, such as an HTTP status.
    pub code: u32,
    /// What everyone else is to be given.
    pub body: Bytes,
}

/// What [`Client::complete`] may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompleteOptions {
    /// How long the outcome is kept; as `begin` said, if absent.
    pub ttl: Option<Duration>,
    /// The fingerprint that the record must have, and gets if it has none.
    pub fingerprint: Option<String>,
    /// Whether it is stored also where there is no record any more.
    pub adopts: bool,
}

/// The answer to the holder of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is done, or was before.
    Ok,
    /// Another token was given since, or the work was settled or given up.
    Stale,
    /// There is no record any more.
    Gone,
    /// The record has another fingerprint.
    Mismatch,
    /// Of a batch: the server has no room, or takes no changes.
    NotStored,
}

/// The answer of [`Client::wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The work was settled.
    Settled(Outcome),
    /// It may be begun.
    Free,
    /// Another is still at work.
    TimedOut,
}

/// The answer of [`Client::mbegin`] for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Do the work, under this token.
    Run(u64),
    /// The same, but the work may have been done before.
    Unsure(u64),
    /// Another is at work.
    Busy,
    /// The work was done.
    Completed,
    /// It failed for good.
    Failed,
    /// The key was only seen, or stood in the batch before.
    Dup,
    /// There is no room, or the server takes no changes.
    NotStored,
}

/// Words of a request that is put together.
struct Words<'a>(Vec<std::borrow::Cow<'a, [u8]>>);

impl<'a> Words<'a> {
    fn of<const N: usize>(words: [&'a [u8]; N]) -> Self {
        Self(words.into_iter().map(Into::into).collect())
    }

    fn add(&mut self, word: impl Into<std::borrow::Cow<'a, [u8]>>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn text(&mut self, word: &impl ToString) -> &mut Self {
        self.add(word.to_string().into_bytes())
    }

    /// An option whose value is a duration, if there is one.
    fn duration(&mut self, name: &'static str, value: Option<Duration>) -> &mut Self {
        if let Some(value) = value {
            self.add(name.as_bytes()).text(&word(value));
        }
        self
    }

    fn slices(&self) -> Vec<&[u8]> {
        self.0.iter().map(|word| &**word).collect()
    }
}

/// A duration as the protocol has it; parts of a millisecond count as a whole one.
fn word(duration: Duration) -> DurationWord {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    DurationWord(u64::try_from(ms).unwrap_or(u64::MAX))
}

impl Client {
    /// Asks whether a key is here for the first time in its window, and remembers it for `ttl`, or as long as
    /// its namespace says.
    ///
    /// At most once: after [`ClientError::Lost`] nobody knows whether this call was told `NEW`. Where the work
    /// must be done, use [`Client::run_once`].
    pub async fn seen(
        &self,
        key: impl AsRef<[u8]>,
        ttl: Option<Duration>,
    ) -> Result<First, ClientError> {
        let mut words = Words::of([b"ONCE.SEEN", key.as_ref()]);
        match ttl {
            Some(ttl) => words.text(&word(ttl)),
            None => words.add(&b"-"[..]),
        };
        let told = self.pipeline.call(&words.slices()).await?;
        match &told {
            Value::Word(word) if word == "NEW" => Ok(First::New),
            Value::Word(word) if word == "DUP" => Ok(First::Dup),
            Value::Word(word) if word == "UNSURE" => Ok(First::Unsure),
            _ => Err(told.unexpected()),
        }
    }

    /// The same for many keys in one request, in their order; a repeat among them is [`First::Dup`].
    pub async fn mseen<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl: Option<Duration>,
    ) -> Result<Vec<First>, ClientError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let ttl = ttl.map_or("-".to_owned(), |ttl| word(ttl).to_string());
        let mut words: Vec<&[u8]> = vec![b"ONCE.MSEEN", ttl.as_bytes()];
        words.extend(keys.iter().map(AsRef::as_ref));
        let told = self.pipeline.call(&words).await?;
        letters(&told, keys.len(), |letter| match letter {
            b'N' => Some(First::New),
            b'D' => Some(First::Dup),
            b'U' => Some(First::Unsure),
            b'E' => Some(First::NotStored),
            _ => None,
        })
    }

    /// Forgets keys; how many there were.
    pub async fn forget<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64, ClientError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut words: Vec<&[u8]> = vec![b"ONCE.FORGET"];
        words.extend(keys.iter().map(AsRef::as_ref));
        let told = self.pipeline.call(&words).await?;
        match told {
            Value::Number(count) => Ok(count.unsigned_abs()),
            told => Err(told.unexpected()),
        }
    }

    /// Asks whether to do the work behind a key.
    pub async fn begin(
        &self,
        key: impl AsRef<[u8]>,
        options: &BeginOptions,
    ) -> Result<Begin, ClientError> {
        let mut words = Words::of([b"ONCE.BEGIN", key.as_ref()]);
        words
            .duration("LEASE", options.lease)
            .duration("TTL", options.ttl)
            .duration("WAIT", options.wait);
        if let Some(fingerprint) = &options.fingerprint {
            words.add(&b"FP"[..]).add(fingerprint.as_bytes());
        }
        if let Some(owner) = &options.owner {
            words.add(&b"OWNER"[..]).add(&owner[..]);
        }
        let words = words.slices();
        let told = match options.wait {
            Some(wait) if !wait.is_zero() => self.lanes.call(&words, wait).await?,
            _ => self.pipeline.call(&words).await?,
        };
        if told == Value::Word("MISMATCH".to_owned()) {
            return Ok(Begin::Mismatch);
        }
        begun(&told).ok_or_else(|| told.unexpected())
    }

    /// Extends the lease of who holds this token, by `lease` or as much as it was last; how long it is now.
    pub async fn renew(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
        lease: Option<Duration>,
    ) -> Result<Result<Duration, Ending>, ClientError> {
        let mut words = Words::of([b"ONCE.RENEW", key.as_ref()]);
        words.text(&token).duration("LEASE", lease);
        let told = self.pipeline.call(&words.slices()).await?;
        if let Value::Array(items) = &told
            && let [Value::Word(_), Value::Number(ms)] = &items[..]
        {
            return Ok(Ok(Duration::from_millis(ms.unsigned_abs())));
        }
        ending(&told).map(Err)
    }

    /// The work is done, and what came of it is what everyone else is told.
    pub async fn complete(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
        done: &Done,
        options: &CompleteOptions,
    ) -> Result<Ending, ClientError> {
        let words = completion(key.as_ref(), token, done, options);
        ending(&self.pipeline.call(&words.slices()).await?)
    }

    /// The work failed for good, and that is what everyone else is told, for `ttl` or as long as `begin` said.
    pub async fn fail_final(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
        done: &Done,
        ttl: Option<Duration>,
    ) -> Result<Ending, ClientError> {
        let words = failure(key.as_ref(), token, done, ttl);
        ending(&self.pipeline.call(&words.slices()).await?)
    }

    /// The work failed, and anybody may begin it again.
    pub async fn fail_retry(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
    ) -> Result<Ending, ClientError> {
        let token = token.to_string();
        let words: [&[u8]; 4] = [b"ONCE.FAIL", key.as_ref(), token.as_bytes(), b"RETRY"];
        ending(&self.pipeline.call(&words).await?)
    }

    /// The same as [`Client::fail_retry`] without waiting: if it does not arrive, the lease lapses.
    pub(super) fn let_go(&self, key: &[u8], token: u64) {
        let token = token.to_string();
        self.pipeline
            .tell(&[b"ONCE.FAIL", key, token.as_bytes(), b"RETRY"]);
    }

    /// The same as [`Client::complete`] without waiting.
    pub(super) fn leave(&self, key: &[u8], token: u64, done: &Done, options: &CompleteOptions) {
        let words = completion(key, token, done, options);
        self.pipeline.tell(&words.slices());
    }

    /// The same as [`Client::fail_final`] without waiting.
    pub(super) fn leave_failure(&self, key: &[u8], token: u64, done: &Done, ttl: Option<Duration>) {
        let words = failure(key, token, done, ttl);
        self.pipeline.tell(&words.slices());
    }

    /// Asks for a sign of life. Whatever was asked for before by this client, dropped work included, was
    /// executed once it is there, if the connection did not break.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.pipeline.call(&[b"PING"]).await.map(drop)
    }

    /// Waits until the work behind a key is settled or free to be begun, at most as long as the server lets
    /// anybody wait: 60 s unless set otherwise there.
    pub async fn wait(
        &self,
        key: impl AsRef<[u8]>,
        at_most: Duration,
    ) -> Result<Heard, ClientError> {
        let mut words = Words::of([b"ONCE.WAIT", key.as_ref()]);
        words.duration("TIMEOUT", Some(at_most));
        let told = self.lanes.call(&words.slices(), at_most).await?;
        match &told {
            Value::Word(word) if word == "FREE" => Ok(Heard::Free),
            Value::Word(word) if word == "TIMEOUT" => Ok(Heard::TimedOut),
            _ => match begun(&told) {
                Some(Begin::Settled(outcome)) => Ok(Heard::Settled(outcome)),
                _ => Err(told.unexpected()),
            },
        }
    }

    /// Begins the work behind many keys in one request, in their order.
    pub async fn mbegin<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        (ttl, lease): (Option<Duration>, Option<Duration>),
    ) -> Result<Vec<Claimed>, ClientError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let [ttl, lease] =
            [ttl, lease].map(|some| some.map_or("-".to_owned(), |some| word(some).to_string()));
        let mut words: Vec<&[u8]> = vec![b"ONCE.MBEGIN", ttl.as_bytes(), lease.as_bytes()];
        words.extend(keys.iter().map(AsRef::as_ref));
        let told = self.pipeline.call(&words).await?;
        let Value::Array(items) = &told else {
            return Err(told.unexpected());
        };
        let claimed: Option<Vec<_>> = items.iter().map(claimed).collect();
        claimed
            .filter(|claimed| claimed.len() == keys.len())
            .ok_or_else(|| told.unexpected())
    }

    /// The work behind many keys is done, each with the token that it was begun under; in their order.
    pub async fn mcomplete<K: AsRef<[u8]>>(
        &self,
        pairs: &[(K, u64)],
    ) -> Result<Vec<Ending>, ClientError> {
        self.end_many(b"ONCE.MCOMPLETE", pairs).await
    }

    /// The work behind many keys may be begun again.
    pub async fn mfail<K: AsRef<[u8]>>(
        &self,
        pairs: &[(K, u64)],
    ) -> Result<Vec<Ending>, ClientError> {
        self.end_many(b"ONCE.MFAIL", pairs).await
    }

    async fn end_many<K: AsRef<[u8]>>(
        &self,
        verb: &[u8],
        pairs: &[(K, u64)],
    ) -> Result<Vec<Ending>, ClientError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let tokens: Vec<_> = pairs.iter().map(|(_, token)| token.to_string()).collect();
        let mut words = vec![verb];
        for ((key, _), token) in pairs.iter().zip(&tokens) {
            words.extend([key.as_ref(), token.as_bytes()]);
        }
        let told = self.pipeline.call(&words).await?;
        letters(&told, pairs.len(), |letter| match letter {
            b'O' => Some(Ending::Ok),
            b'S' => Some(Ending::Stale),
            b'G' => Some(Ending::Gone),
            b'E' => Some(Ending::NotStored),
            _ => None,
        })
    }
}

/// The request of [`Client::complete`].
fn completion<'a>(
    key: &'a [u8],
    token: u64,
    done: &'a Done,
    options: &'a CompleteOptions,
) -> Words<'a> {
    let mut words = Words::of([b"ONCE.COMPLETE", key]);
    words.text(&token).add(&b"CODE"[..]).text(&done.code);
    words.duration("TTL", options.ttl);
    if let Some(fingerprint) = &options.fingerprint {
        words.add(&b"FP"[..]).add(fingerprint.as_bytes());
    }
    if options.adopts {
        words.add(&b"ADOPT"[..]);
    }
    words.add(&b"BODY"[..]).add(&done.body[..]);
    words
}

/// The request of [`Client::fail_final`].
fn failure<'a>(key: &'a [u8], token: u64, done: &'a Done, ttl: Option<Duration>) -> Words<'a> {
    let mut words = Words::of([b"ONCE.FAIL", key]);
    words.text(&token).add(&b"FINAL"[..]);
    words.add(&b"CODE"[..]).text(&done.code);
    words.duration("TTL", ttl);
    words.add(&b"BODY"[..]).add(&done.body[..]);
    words
}

/// A letter per key.
fn letters<T>(
    told: &Value,
    keys: usize,
    meaning: impl Fn(u8) -> Option<T>,
) -> Result<Vec<T>, ClientError> {
    let Value::Bulk(letters) = told else {
        return Err(told.unexpected());
    };
    let meanings: Option<Vec<T>> = letters.iter().map(|&letter| meaning(letter)).collect();
    meanings
        .filter(|meanings| meanings.len() == keys)
        .ok_or_else(|| told.unexpected())
}

/// What an array that begins with a word means.
fn begun(told: &Value) -> Option<Begin> {
    let Value::Array(items) = told else {
        return None;
    };
    let (Value::Word(word), rest) = items.split_first()? else {
        return None;
    };
    match (word.as_str(), rest) {
        (
            "RUN" | "UNSURE",
            &[
                Value::Number(token),
                Value::Number(lease),
                Value::Number(attempt),
            ],
        ) => Some(Begin::Run(Held {
            token: token.unsigned_abs(),
            lease: Duration::from_millis(lease.unsigned_abs()),
            attempt: u32::try_from(attempt).ok()?,
            is_unsure: word == "UNSURE",
        })),
        ("BUSY", &[Value::Number(ms)]) => {
            Some(Begin::Busy(Duration::from_millis(ms.unsigned_abs())))
        }
        ("DONE" | "FAILED", [Value::Number(code), Value::Bulk(body)]) => {
            Some(Begin::Settled(Outcome {
                is_failure: word == "FAILED",
                code: u32::try_from(*code).ok()?,
                body: body.clone(),
            }))
        }
        _ => None,
    }
}

fn ending(told: &Value) -> Result<Ending, ClientError> {
    match told {
        Value::Word(word) if word == "OK" => Ok(Ending::Ok),
        Value::Word(word) if word == "STALE" => Ok(Ending::Stale),
        Value::Word(word) if word == "GONE" => Ok(Ending::Gone),
        Value::Word(word) if word == "MISMATCH" => Ok(Ending::Mismatch),
        _ => Err(told.unexpected()),
    }
}

/// One item of `MBEGIN`.
fn claimed(item: &Value) -> Option<Claimed> {
    let Value::Bulk(item) = item else {
        return None;
    };
    let token = || crate::time::parse_u64(item.get(2..)?);
    match &item[..] {
        b"B" => Some(Claimed::Busy),
        b"C" => Some(Claimed::Completed),
        b"F" => Some(Claimed::Failed),
        b"D" => Some(Claimed::Dup),
        b"E" => Some(Claimed::NotStored),
        [b'N', b':', ..] => token().map(Claimed::Run),
        [b'U', b':', ..] => token().map(Claimed::Unsure),
        _ => None,
    }
}
