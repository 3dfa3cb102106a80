//! What attackers store: frames that would make history, were they taken for such.

use onced::log::control::{Control, Opened, Space};
use onced::log::format::Format;
use onced::log::record::{self, Content};
use onced::log::segment::{Position, Secret as SegmentSecret};
use onced::store::{Outcome, Record, Secret, State};
use onced::time::Millis;

/// A key that nobody ever asked for.
pub const FORGED: &str = "forged-key";
/// A key that is there, and that attackers want to be gone.
pub const VICTIM: &str = "victim";
/// A key under which work was done, and which attackers want to have another outcome.
pub const CLAIM: &str = "claim";
/// The body of that other outcome.
pub const FORGED_BODY: &str = "what-the-attacker-says";

/// The payloads of frames that would change history, with the numbers of their namespaces.
pub fn payloads(deadline: Millis, segment: u64) -> Vec<(u32, Vec<u8>)> {
    let secret = Secret::new([7; 192]);
    let records = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = Vec::new();
        write(&mut payload);
        (1, payload)
    };
    let outcome = Record {
        token: 1 << 40,
        attempt: 1,
        began: Millis(deadline.0 - 5_000),
        fingerprint: None,
        state: State::Completed(Outcome {
            code: 200,
            body: FORGED_BODY.as_bytes(),
        }),
    };
    let outcome = Content {
        record: Some(outcome),
        ..Content::default()
    };
    let mut all = vec![
        records(&|out| {
            let key = secret.key(FORGED.as_bytes());
            record::push_put(out, &key, deadline, &Content::default());
        }),
        records(&|out| record::push_removal(out, &secret.key(VICTIM.as_bytes()), deadline)),
        records(&|out| record::push_put(out, &secret.key(CLAIM.as_bytes()), deadline, &outcome)),
    ];
    let space = Space {
        id: 900,
        name: "forged".to_owned(),
        keeps_digests: false,
        ttl_ms: 1_000,
        ttl_max_ms: 1_000_000,
        slides: false,
        keys_max: 0,
        evicts: false,
        reports_unsure: false,
        covered_since: Millis(0),
        unsure_until: Millis(0),
        set: None,
    };
    let everywhere = Position {
        segment: segment + 1_000,
        offset: 0,
    };
    let opened = Opened {
        at: Millis(0),
        boot: [1; 16],
        always_synced: true,
        synced: everywhere,
        earlier: Vec::new(),
        next_space: 901,
        covered_since: Millis(0),
        last_token: 0,
        spaces: vec![space.clone()],
    };
    let dropped = Control::Dropped {
        id: 1,
        covered_since: Millis(0),
    };
    for control in [
        Control::Space(space),
        dropped,
        Control::Opened(Box::new(opened)),
        Control::Synced(everywhere),
        Control::Sealed,
        Control::Closed,
    ] {
        let mut payload = Vec::new();
        control.push(&mut payload);
        all.push((0, payload));
    }
    all
}

/// As many bytes of whole frames, one behind the other, as if they stood at `at` in a segment.
pub fn frames(bytes: usize, deadline: Millis, segment: u64, at: u64, variant: u64) -> Vec<u8> {
    let formats = [
        Format::v1(),
        // Secrets that could be guessed.
        Format::v2(segment, SegmentSecret([0; 16])),
        Format::v2(segment, SegmentSecret([3; 16])),
    ];
    let payloads = payloads(deadline, segment);
    let mut out = Vec::new();
    let mut next = variant;
    loop {
        let (space, payload) = &payloads[next as usize % payloads.len()];
        // Most of them of version 1, which needs no guess.
        let format = &formats[(next / 7 % 4) as usize % formats.len()];
        let begins = out.len();
        format.push(&mut out, at + begins as u64, *space, payload);
        if out.len() > bytes {
            out.truncate(begins);
            return out;
        }
        next += 1;
    }
}
