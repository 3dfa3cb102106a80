//! Any two keys: each comes back byte for byte, and they are one only if their bytes are. The
//! first byte of the input says where the second key begins.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use onced::store::{Ask, Secret, Shard, Unbounded, Verdict};
use onced::time::Millis;

const NOW: Millis = Millis(1_790_000_000_000);

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let (a, b) = bytes.split_at(bytes.len().min(usize::from(cut)));
    let secret = Secret::new([0x5a; 192]);
    let ask = Ask {
        ttl_ms: 1_000,
        ..Ask::default()
    };
    let mut shard = Shard::default();
    let mut seen =
        |key: &[u8]| shard.seen(&secret.key(key), &ask, &mut Unbounded, NOW).0 == Verdict::New;
    assert!(seen(a));
    assert_eq!(seen(b), a != b);
    assert!(!seen(a));

    let mut found = BTreeSet::new();
    let end = shard.scan(0, u32::MAX, NOW, |key| {
        let mut bytes = Vec::new();
        key.write_to(&mut bytes);
        found.insert(bytes);
    });
    assert_eq!(end.next, None);
    assert_eq!(found, BTreeSet::from([a.to_vec(), b.to_vec()]));

    assert!(shard.remove(&secret.key(a), NOW).is_some());
    assert_eq!(shard.get(&secret.key(b), NOW).is_some(), a != b);
});
