//! What a request is known by: its key, whose it is, and its fingerprint.
//!
//! The key in onced is `SCOPE/KEY`. In the scope, `%` and `/` are written `%25` and `%2F`, so that no
//! two pairs come to one key. The fingerprint is the first half of a SHA-256: keys are the client's
//! choice, and it is not to find another request that passes for the first.

use std::fmt::{self, Write};
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Item, Parser};
use sha2::{Digest, Sha256};

/// The request's header with its key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Hex digits of a fingerprint, as many as onced keeps.
const FINGERPRINT_DIGITS: usize = crate::limits::FINGERPRINT_DIGITS_MAX;

/// What the key of a request comes to, as far as its scope is concerned.
type ScopeOf = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// Whose keys are kept apart from whose: two callers that choose the same key must not get each other's
/// responses.
#[derive(Clone)]
pub struct Scope(Arc<ScopeOf>);

impl Scope {
    /// What this function makes of a request: a tenant, a user. `None` refuses it with 403.
    ///
    /// It sees the request's head, with the extensions that outer layers have put there.
    pub fn of(scope: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(scope))
    }

    /// The value of a header that tells who sends the request, such as `x-api-key`; without one, with an
    /// empty one or with several it is refused with 403. onced gets a digest of the value, not the value.
    ///
    /// For values that stay the same: with a bearer token that is refreshed between a request and its retry,
    /// or a signature, which is new each time, the retry is another's request and is handled again. There,
    /// let an outer layer find out who it is, put that into the request's extensions, and use [`Scope::of`].
    ///
    /// # Panics
    ///
    /// If the name is none that a header may have, or not in lower case.
    pub fn header(name: &'static str) -> Self {
        let name = HeaderName::from_static(name);
        Self::of(move |parts| {
            let mut values = parts.headers.get_all(&name).iter();
            let value = values.next().filter(|value| !value.is_empty())?;
            // Of two, one may be what a proxy added, and nobody knows which.
            values.next().is_none().then(|| hex(&Sha256::digest(value)))
        })
    }

    /// All callers share their keys, and whoever knows one gets its response: for services that only one
    /// caller can reach.
    pub fn shared() -> Self {
        Self::of(|_| Some(String::new()))
    }

    /// The key in onced of a request with this key; `None` if it is from nobody.
    pub(super) fn key(&self, parts: &Parts, key: &str) -> Option<Vec<u8>> {
        let scope = (self.0)(parts)?;
        let mut whole = Vec::with_capacity(scope.len() + 1 + key.len());
        for byte in scope.bytes() {
            match byte {
                b'%' => whole.extend_from_slice(b"%25"),
                b'/' => whole.extend_from_slice(b"%2F"),
                byte => whole.push(byte),
            }
        }
        whole.push(b'/');
        whole.extend_from_slice(key.as_bytes());
        Some(whole)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// The key that a request names; `Ok(None)` if it names none, and why what it names is none.
pub(super) fn named(
    headers: &HeaderMap,
    bytes_max: usize,
    accepts_bare: bool,
) -> Result<Option<String>, &'static str> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("There are several, and one is wanted");
    }
    let key = match Parser::new(value.as_bytes()).parse::<Item>() {
        Ok(Item {
            bare_item: BareItem::String(key),
            ..
        }) => String::from(key),
        _ => match value.to_str() {
            Ok(bare) if accepts_bare && !bare.contains(['"', ',', ' ']) => bare.to_owned(),
            _ => {
                return Err(
                    "It is to be a string in double quotes, of printable ASCII characters (RFC 9651)",
                );
            }
        },
    };
    if key.is_empty() {
        return Err("It is empty");
    }
    if key.len() > bytes_max {
        return Err("It is too long");
    }
    Ok(Some(key))
}

/// The fingerprint of what a request is about.
pub(super) fn fingerprint(essence: &[u8]) -> String {
    let mut digits = hex(&Sha256::digest(essence));
    digits.truncate(FINGERPRINT_DIGITS);
    digits
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _infallible = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::super::canonical::Canonical;
    use super::*;

    fn of(value: &[u8], accepts_bare: bool) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        named(&headers, 10, accepts_bare)
    }

    #[test]
    fn a_key_is_a_string_of_structured_fields() {
        for (value, key) in [
            (&br#""abc""#[..], "abc"),
            (br#"  "abc"  "#, "abc"),
            (br#""a\"b\\c""#, r#"a"b\c"#),
            (br#""abc";version=1;x"#, "abc"),
            (br#""a b, c""#, "a b, c"),
            (br#""0123456789""#, "0123456789"),
        ] {
            assert_eq!(of(value, false).unwrap().unwrap(), key);
        }
        for value in [
            &b""[..],
            b"abc",
            b"\"",
            b"\"abc",
            b"abc\"",
            br#""""#,
            br#""a" "b""#,
            br#""a", "b""#,
            br#"("a")"#,
            br#""a\b""#,
            b"\"a\xe9\"",
            b"\"a\tb\"",
            b"17",
            b"?1",
            b":YWJj:",
            br#""01234567890""#,
        ] {
            assert!(of(value, false).is_err(), "{}", value.escape_ascii());
        }
        assert_eq!(named(&HeaderMap::new(), 10, true), Ok(None));
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("\"a\""));
        }
        assert!(named(&twice, 10, true).is_err());
    }

    #[test]
    fn bare_keys_are_taken_where_that_is_chosen() {
        for (value, key) in [
            (&b"abc-1"[..], "abc-1"),
            (b"17", "17"),
            (br#""abc""#, "abc"),
        ] {
            assert_eq!(of(value, true).unwrap().unwrap(), key);
        }
        for value in [&b""[..], b"\"abc", b"a b", b"a,b", b"a\xe9", b"01234567890"] {
            assert!(of(value, true).is_err(), "{}", value.escape_ascii());
        }
    }

    fn parts(method: &str, uri: &str) -> Parts {
        let request = Request::builder().method(method).uri(uri);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn no_two_scopes_and_keys_come_to_one() {
        let pairs = [
            ("a", "b"),
            ("a/b", ""),
            ("a%2Fb", ""),
            ("", "a/b"),
            ("a", "/b"),
            ("a/", "b"),
        ];
        let parts = parts("POST", "/");
        let mut keys: Vec<_> = pairs
            .iter()
            .map(|(scope, key)| {
                let scope = (*scope).to_owned();
                Scope::of(move |_| Some(scope.clone()))
                    .key(&parts, key)
                    .unwrap()
            })
            .collect();
        assert_eq!(keys[0], b"a/b");
        assert_eq!(keys[1], b"a%2Fb/");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), pairs.len());
        assert_eq!(Scope::of(|_| None).key(&parts, "a"), None);
        assert_eq!(Scope::shared().key(&parts, "a").unwrap(), b"/a");
    }

    #[test]
    fn a_scope_by_a_header_hides_its_value() {
        let scope = Scope::header("authorization");
        let mut parts = parts("POST", "/");
        assert_eq!(scope.key(&parts, "a"), None);
        parts
            .headers
            .insert("authorization", HeaderValue::from_static("Bearer s3cret"));
        let key = scope.key(&parts, "a").unwrap();
        assert_eq!(key.len(), 64 + 2);
        assert!(!String::from_utf8(key.clone()).unwrap().contains("s3cret"));
        parts
            .headers
            .insert("authorization", HeaderValue::from_static("Bearer other"));
        assert_ne!(scope.key(&parts, "a").unwrap(), key);
        parts
            .headers
            .append("authorization", HeaderValue::from_static("Bearer s3cret"));
        assert_eq!(scope.key(&parts, "a"), None, "there are two");
        parts
            .headers
            .insert("authorization", HeaderValue::from_static(""));
        assert_eq!(scope.key(&parts, "a"), None);
    }

    #[test]
    fn a_fingerprint_tells_requests_apart() {
        let of = |method, uri, body: &[u8]| {
            fingerprint(&Canonical::default().bytes(&parts(method, uri), body))
        };
        let first = of("POST", "/charges?a=1", b"x");
        assert_eq!(first.len(), FINGERPRINT_DIGITS);
        assert_eq!(of("POST", "/charges?a=1", b"x"), first);
        assert_eq!(of("POST", "http://host/charges?a=1", b"x"), first);
        for other in [
            of("PATCH", "/charges?a=1", b"x"),
            of("POST", "/charges?a=2", b"x"),
            of("POST", "/charges", b"x"),
            of("POST", "/charges?a=1", b"y"),
            of("POST", "/charges?a=1", b""),
        ] {
            assert_ne!(other, first);
        }
    }
}
