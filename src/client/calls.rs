//! The verbs, with typed replies.

use std::time::Duration;

use super::Client;
use super::answers::{
    Begin, BeginOptions, Claimed, CompleteOptions, Done, Ending, First, Heard, begun, claimed,
    ending, letters,
};
use super::pipeline::Sent;
use super::reply::{ClientError, Value};
use crate::time::DurationWord;

/// Words of a request that is put together.
pub(super) struct Words<'a>(Vec<std::borrow::Cow<'a, [u8]>>);

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

    pub(super) fn slices(&self) -> Vec<&[u8]> {
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
        self.begin_seen(key.as_ref(), options, &Sent::default())
            .await
    }

    /// The same; whoever drops this call can see whether it was sent.
    pub(super) async fn begin_seen(
        &self,
        key: &[u8],
        options: &BeginOptions,
        sent: &Sent,
    ) -> Result<Begin, ClientError> {
        let words = beginning(key, options);
        let words = words.slices();
        let told = match options.wait {
            Some(wait) if !wait.is_zero() => self.lanes.call(&words, wait, sent).await?,
            _ => self.pipeline.call_seen(&words, sent).await?,
        };
        if told == Value::Word("MISMATCH".to_owned()) {
            return Ok(Begin::Mismatch);
        }
        begun(&told).ok_or_else(|| told.unexpected())
    }

    /// Gives back what this owner was told to run, if that is so, without waiting for it: the same owner is
    /// told the same token again.
    pub(super) fn give_back(&self, key: &[u8], options: &BeginOptions) {
        let (client, key, options) = (self.clone(), key.to_vec(), options.clone());
        self.pipeline.runtime().spawn(async move {
            // Where nobody is at work there is nothing to give back, and nothing is to be begun for it.
            let looked = client.pipeline.insist(&[b"ONCE.PEEK", &key]).await;
            if !matches!(looked, Some(Value::Bulk(letter)) if &letter[..] == b"B") {
                return;
            }
            let words = beginning(&key, &options);
            let told = client.pipeline.insist(&words.slices()).await;
            if let Some(Begin::Run(held)) = told.as_ref().and_then(begun) {
                client.tell(&release(&key, held.token));
            }
        });
    }

    /// Extends the lease of who holds this token, by `lease` or as much as it was last; how long it is now.
    pub async fn renew(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
        lease: Option<Duration>,
    ) -> Result<Result<Duration, Ending>, ClientError> {
        let words = renewal(key.as_ref(), token, lease);
        renewed(&self.pipeline.call(&words.slices()).await?)
    }

    /// The work is done, and what came of it is what everyone else is told.
    pub async fn complete(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
        done: &Done,
        options: &CompleteOptions,
    ) -> Result<Ending, ClientError> {
        self.end(&completion(key.as_ref(), token, done, options))
            .await
    }

    /// The work failed for good, and that is what everyone else is told, for `ttl` or as long as `begin` said.
    pub async fn fail_final(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
        done: &Done,
        ttl: Option<Duration>,
    ) -> Result<Ending, ClientError> {
        self.end(&failure(key.as_ref(), token, done, ttl)).await
    }

    /// The work failed, and anybody may begin it again.
    pub async fn fail_retry(
        &self,
        key: impl AsRef<[u8]>,
        token: u64,
    ) -> Result<Ending, ClientError> {
        self.end(&release(key.as_ref(), token)).await
    }

    /// Sends what ends work, and waits for the answer.
    pub(super) async fn end(&self, words: &Words<'_>) -> Result<Ending, ClientError> {
        ending(&self.pipeline.call(&words.slices()).await?)
    }

    /// The same without waiting: if it does not arrive, the lease lapses.
    pub(super) fn tell(&self, words: &Words<'_>) {
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
        let told = self
            .lanes
            .call(&words.slices(), at_most, &Sent::default())
            .await?;
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

/// The request of [`Client::begin`].
fn beginning<'a>(key: &'a [u8], options: &'a BeginOptions) -> Words<'a> {
    let mut words = Words::of([b"ONCE.BEGIN", key]);
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
    words
}

/// The request of [`Client::renew`].
pub(super) fn renewal(key: &[u8], token: u64, lease: Option<Duration>) -> Words<'_> {
    let mut words = Words::of([b"ONCE.RENEW", key]);
    words.text(&token).duration("LEASE", lease);
    words
}

/// The answer of [`Client::renew`].
pub(super) fn renewed(told: &Value) -> Result<Result<Duration, Ending>, ClientError> {
    if let Value::Array(items) = told
        && let [Value::Word(_), Value::Number(ms)] = &items[..]
    {
        return Ok(Ok(Duration::from_millis(ms.unsigned_abs())));
    }
    ending(told).map(Err)
}

/// The request of [`Client::complete`].
pub(super) fn completion<'a>(
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
pub(super) fn failure<'a>(
    key: &'a [u8],
    token: u64,
    done: &'a Done,
    ttl: Option<Duration>,
) -> Words<'a> {
    let mut words = Words::of([b"ONCE.FAIL", key]);
    words.text(&token).add(&b"FINAL"[..]);
    words.add(&b"CODE"[..]).text(&done.code);
    words.duration("TTL", ttl);
    words.add(&b"BODY"[..]).add(&done.body[..]);
    words
}

/// The request of [`Client::fail_retry`].
pub(super) fn release(key: &[u8], token: u64) -> Words<'_> {
    let mut words = Words::of([b"ONCE.FAIL", key]);
    words.text(&token).add(&b"RETRY"[..]);
    words
}
