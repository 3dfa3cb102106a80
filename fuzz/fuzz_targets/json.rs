//! Any bytes as a JSON text, by what the HTTP layer fingerprints: what serde_json takes has a canonical form, which
//! is its own form and which it takes too; what it does not take stays as it is.

#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use onced::http::Canonical;
use serde::de::IgnoredAny;

/// Levels that are surely within those that serde_json takes.
const SHALLOW: usize = 100;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = Request::new(()).into_parts().0;
    let json = "application/json".parse();
    parts.headers.extend([(
        http::header::CONTENT_TYPE,
        json.expect("it is a header's value"),
    )]);
    let head = Canonical::Bytes.bytes(&parts, b"").len();
    let form = |text: &[u8]| Canonical::Json.bytes(&parts, text).split_off(head);
    let is_json = |text: &[u8]| serde_json::from_slice::<IgnoredAny>(text).is_ok();

    let once = form(bytes);
    assert_eq!(form(&once), once);
    let opened = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    if is_json(bytes) {
        assert!(is_json(&once));
    } else if opened.count() < SHALLOW {
        assert_eq!(once, bytes);
    }
});
