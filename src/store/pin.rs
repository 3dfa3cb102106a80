//! Stored bytes that replies hold while they are sent.
//!
//! A value of some KiB and more is handed out as it is, not copied. While the store holds it too it costs
//! nothing more; what the store lets go of, but a reply still holds, is memory that nobody else counts. It is
//! counted in a [`Ledger`] from that moment until the last reply has let go of it, whoever does so last.
//!
//! Where nobody gave the store a ledger nothing is counted. Smaller values are shared in the same way and are
//! not counted: who sends them copies them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::kept::StoredRecord;
use crate::limits::SHARED_VALUE_BYTES_MIN;

/// Told of bytes that came into use beside the store's own, or went out of it.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// So many more, or fewer.
    fn change(&self, bytes: isize);
}

/// Where something that is handed out lies: no two things that are stored at a time lie in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(usize);

impl Address {
    /// Of a value or record of these bytes; none if they are few.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SHARED_VALUE_BYTES_MIN).then_some(Self(bytes.as_ptr() as usize))
    }
}

/// What one shard has handed out, and still holds.
#[derive(Debug, Default)]
pub(super) struct Pins {
    ledger: Option<Arc<dyn Ledger>>,
    given: RefCell<Given>,
}

/// What was handed out. What nobody holds any more stays until there is twice as much as there was.
#[derive(Debug, Default)]
struct Given {
    pinned: BTreeMap<Address, Arc<Pinned>>,
    look_at: usize,
}

/// Something that is stored and was handed out.
#[derive(Debug)]
struct Pinned {
    /// Twice how many hold it, and one more once the store does not.
    state: AtomicUsize,
    bytes: usize,
    ledger: Arc<dyn Ledger>,
}

/// The store does not hold it any more.
const LET_GO: usize = 1;
/// One reply holds it.
const HOLDER: usize = 2;
/// How many are kept track of before it is looked for those that nobody holds.
const KEPT_MIN: usize = 32;

/// What one reply holds.
struct Pin<T> {
    held: T,
    pinned: Arc<Pinned>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Pin<T> {
    fn as_ref(&self) -> &[u8] {
        self.held.as_ref()
    }
}

impl<T> Drop for Pin<T> {
    fn drop(&mut self) {
        let pinned = &self.pinned;
        let before = pinned.state.fetch_sub(HOLDER, Ordering::AcqRel);
        if before == HOLDER | LET_GO {
            pinned.ledger.change(-(pinned.bytes as isize));
        }
    }
}

impl Pinned {
    /// The store lets go of it. It is counted if somebody holds it; nobody can take hold of it from here on.
    fn let_go(&self) {
        let before = self.state.fetch_or(LET_GO, Ordering::AcqRel);
        if before >= HOLDER {
            self.ledger.change(self.bytes as isize);
        }
    }

    fn is_held(&self) -> bool {
        self.state.load(Ordering::Acquire) >= HOLDER
    }
}

impl Pins {
    /// Counts there from here on.
    pub(super) fn count_in(&mut self, ledger: Arc<dyn Ledger>) {
        self.ledger = Some(ledger);
    }

    /// The same ledger, and nothing handed out.
    pub(super) fn anew(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            given: RefCell::default(),
        }
    }

    /// A stored value, for a reply.
    pub(super) fn value(&self, value: &Bytes) -> Bytes {
        match self.pin(value, value.len(), || value.clone()) {
            Some(pin) => Bytes::from_owner(pin),
            None => value.clone(),
        }
    }

    /// The last `len` bytes of a stored record, for a reply.
    pub(super) fn end_of(&self, record: &StoredRecord, len: usize) -> Bytes {
        let bytes = record.as_ref();
        let begins = bytes.len() - len;
        match self.pin(bytes, record.heap_bytes(), || record.clone()) {
            Some(pin) => Bytes::from_owner(pin).slice(begins..),
            None => Bytes::from_owner(record.clone()).slice(begins..),
        }
    }

    fn pin<T>(&self, bytes: &[u8], counted: usize, held: impl FnOnce() -> T) -> Option<Pin<T>> {
        let ledger = self.ledger.as_ref()?;
        let address = Address::of(bytes)?;
        let mut given = self.given.borrow_mut();
        if given.pinned.len() >= given.look_at.max(KEPT_MIN) {
            given.pinned.retain(|_, pinned| pinned.is_held());
            given.look_at = 2 * given.pinned.len();
        }
        let pinned = given.pinned.entry(address).or_insert_with(|| {
            Arc::new(Pinned {
                state: AtomicUsize::new(0),
                bytes: counted,
                ledger: Arc::clone(ledger),
            })
        });
        pinned.state.fetch_add(HOLDER, Ordering::AcqRel);
        Some(Pin {
            held: held(),
            pinned: Arc::clone(pinned),
        })
    }

    /// The store lets go of what lies there.
    #[inline]
    pub(super) fn let_go(&mut self, address: Option<Address>) {
        if let Some(address) = address
            && let Some(pinned) = self.given.get_mut().pinned.remove(&address)
        {
            pinned.let_go();
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for pinned in self.given.get_mut().pinned.values() {
            pinned.let_go();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicIsize;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{Begin, Key, Outcome, Secret, Settle, Shard, Unbounded};
    use crate::time::Millis;

    #[derive(Debug, Default)]
    struct Sum(AtomicIsize);

    impl Ledger for Sum {
        fn change(&self, bytes: isize) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    impl Sum {
        fn get(&self) -> isize {
            self.0.load(Ordering::Relaxed)
        }
    }

    const NOW: Millis = Millis(1_790_000_000_000);
    const HOUR_MS: u64 = 3_600_000;
    /// Beyond what a slot can say.
    const FAR_MS: u64 = 300 * 365 * 24 * HOUR_MS;

    fn shard() -> (Shard, Arc<Sum>, Secret) {
        let sum = Arc::new(Sum::default());
        let mut shard = Shard::default();
        shard.count_in(Arc::clone(&sum) as _);
        (shard, sum, Secret::new([7; 192]))
    }

    fn set(shard: &mut Shard, key: &Key<'_>, value: &[u8]) {
        let deadline = NOW.after(HOUR_MS);
        let set = shard.set(key, Some(value), deadline, &mut Unbounded, NOW);
        assert!(set.is_some());
    }

    fn get(shard: &Shard, key: &Key<'_>) -> Option<Bytes> {
        shard.get(key, NOW)?.value_to_send()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize, usize),
        Get(usize),
        Drop(usize),
        Remove(usize),
        Extend(usize, u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || 0..4_usize;
        let len = prop_oneof![
            Just(SHARED_VALUE_BYTES_MIN),
            SHARED_VALUE_BYTES_MIN..3 * SHARED_VALUE_BYTES_MIN,
            Just(SHARED_VALUE_BYTES_MIN - 1),
        ];
        prop_oneof![
            4 => (key(), len).prop_map(|(key, len)| Step::Set(key, len)),
            6 => key().prop_map(Step::Get),
            4 => any::<usize>().prop_map(Step::Drop),
            1 => key().prop_map(Step::Remove),
            1 => (key(), prop_oneof![Just(HOUR_MS), Just(FAR_MS)])
                .prop_map(|(key, ms)| Step::Extend(key, ms)),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        /// What counts is what replies hold and the store does not, each once.
        #[test]
        fn what_only_replies_hold_is_counted_once(steps in proptest::collection::vec(step(), 1..120)) {
            let (mut shard, sum, secret) = shard();
            // Long keys, and short ones.
            let keys: Vec<_> = (0..4).map(|n| format!("key {n}").repeat(1 + n % 2 * 9)).collect();
            let key = |at: usize| secret.key(keys[at].as_bytes());
            let (mut version, mut stored) = (0_u64, BTreeMap::new());
            let mut held: Vec<(u64, Bytes)> = Vec::new();
            for step in steps {
                match step {
                    Step::Set(at, len) => {
                        version += 1;
                        set(&mut shard, &key(at), &vec![version as u8; len]);
                        stored.insert(at, version);
                    }
                    Step::Get(at) => {
                        let got = get(&shard, &key(at));
                        prop_assert_eq!(got.is_some(), stored.contains_key(&at));
                        held.extend(got.map(|value| (stored[&at], value)));
                    }
                    Step::Drop(at) if !held.is_empty() => {
                        held.swap_remove(at % held.len());
                    }
                    Step::Drop(_) => {}
                    Step::Remove(at) => {
                        shard.remove(&key(at), NOW);
                        stored.remove(&at);
                    }
                    Step::Extend(at, ms) => {
                        shard.set_deadline(&key(at), NOW.after(ms), NOW);
                    }
                    Step::Clear => {
                        drop(shard.clear());
                        stored.clear();
                    }
                }
                let orphans: BTreeMap<_, _> = held
                    .iter()
                    .filter(|(version, _)| !stored.values().any(|stored| stored == version))
                    .filter(|(_, value)| value.len() >= SHARED_VALUE_BYTES_MIN)
                    .map(|(version, value)| (version, value.len() as isize))
                    .collect();
                prop_assert_eq!(sum.get(), orphans.values().sum::<isize>());
                prop_assert!(held.iter().all(|(version, value)| value.iter().all(|&b| b == *version as u8)));
            }
            drop(shard);
            drop(held);
            prop_assert_eq!(sum.get(), 0);
        }
    }

    #[test]
    fn a_record_that_went_counts_while_a_reply_holds_its_body() {
        let (mut shard, sum, secret) = shard();
        let key = secret.key(b"charge-17");
        let begin = Begin {
            lease_ms: 1_000,
            ttl_ms: HOUR_MS,
            ..Begin::default()
        };
        shard.begin(&key, &begin, || 1, &mut Unbounded, NOW);
        let body = vec![b'x'; 10_000];
        let settle = Settle {
            is_failure: false,
            outcome: Outcome {
                code: 0,
                body: &body,
            },
            ttl_ms: None,
            fingerprint: None,
            adopt_ttl_ms: None,
        };
        shard.settle(&key, 1, &settle, &mut Unbounded, NOW);
        let told = || shard.get(&key, NOW).map(|entry| entry.body());
        let (first, second) = (told().unwrap(), told().unwrap());
        assert_eq!(first, body);
        // All of them are what is stored, and that is counted there.
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(sum.get(), 0);
        shard.remove(&key, NOW);
        let counted = sum.get();
        assert!((10_000..10_200).contains(&counted), "{counted}");
        drop(first);
        assert_eq!((sum.get(), &second[..]), (counted, &body[..]));
        drop(second);
        assert_eq!(sum.get(), 0);
    }

    #[test]
    fn what_nobody_holds_is_not_kept_track_of() {
        let (mut shard, _, secret) = shard();
        for n in 0..10_000 {
            let name = format!("key {n}");
            set(
                &mut shard,
                &secret.key(name.as_bytes()),
                &[1; SHARED_VALUE_BYTES_MIN],
            );
            assert!(get(&shard, &secret.key(name.as_bytes())).is_some());
        }
        let tracked = shard.table.pins.given.borrow().pinned.len();
        assert!(tracked <= KEPT_MIN, "{tracked}");
    }
}
