//! Responses as they are stored: a code for the status, and a body of header lines, an empty line and
//! the response's own body, as HTTP/1.1 has them.
//!
//! So `GET` at any Redis client's prompt shows what a retry would be given. What is not written by
//! this file is not read as a response.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use memchr::{memchr_iter, memmem};

use super::body::{Body, full};
use crate::client::Outcome;

/// The header that marks a replayed response; its value is `true`.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The header of a replayed response whose body was too large to be stored; its value is `true`.
pub const IDEMPOTENCY_BODY_OMITTED: HeaderName =
    HeaderName::from_static("idempotency-body-omitted");

/// What is of one connection, one message or one caller, and wrong in a replay.
const NEVER_REPLAYED: [HeaderName; 13] = [
    SET_COOKIE,
    DATE,
    CONTENT_LENGTH, // of the body that is replayed: whoever sends it counts it
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    IDEMPOTENCY_REPLAYED,
];

/// The body's end of a record that stores a response.
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    /// Whether the response's own body is not among them.
    pub(super) is_without_body: bool,
}

/// A response as it is stored in at most `bytes_max`. What does not fit is left out, and that is said:
/// first the body, then the headers.
pub(super) fn store(
    headers: &HeaderMap,
    body: Option<&[u8]>,
    (never, bytes_max): (&[HeaderName], usize),
) -> Stored {
    let head = head(headers, never);
    let is_whole = body.is_some_and(|body| head.len() + 2 + body.len() <= bytes_max);
    if let (true, Some(body)) = (is_whole, body) {
        return Stored {
            bytes: [&head[..], b"\r\n", body].concat().into(),
            is_without_body: false,
        };
    }
    let omitted = [IDEMPOTENCY_BODY_OMITTED.as_str(), ": true\r\n\r\n"].concat();
    let fits = head.len() + omitted.len() <= bytes_max;
    Stored {
        bytes: [if fits { &head[..] } else { b"" }, omitted.as_bytes()]
            .concat()
            .into(),
        is_without_body: true,
    }
}

/// The lines of those headers that are replayed.
fn head(headers: &HeaderMap, never: &[HeaderName]) -> Vec<u8> {
    let of_connection: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    let mut lines = Vec::new();
    for (name, value) in headers {
        if [&NEVER_REPLAYED[..], never, &of_connection]
            .iter()
            .any(|names| names.contains(name))
        {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
}

/// The response that a record stores; `None` if it stores something else.
pub(super) fn replay(outcome: &Outcome) -> Option<Response<Body>> {
    let status = u16::try_from(outcome.code).ok()?;
    let status = StatusCode::from_u16(status).ok()?;
    let body = &outcome.body;
    let head_bytes = match body.strip_prefix(b"\r\n") {
        Some(_) => 0,
        None => memmem::find(body, b"\r\n\r\n")? + 2,
    };
    let lines = memchr_iter(b'\n', &body[..head_bytes]).count();
    let mut lines = vec![httparse::EMPTY_HEADER; lines];
    let parsed = httparse::parse_headers(&body[..head_bytes + 2], &mut lines).ok()?;
    let httparse::Status::Complete((_, lines)) = parsed else {
        return None;
    };
    let mut response = Response::new(full(body.slice(head_bytes + 2..)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for line in lines {
        let name = line.name.parse::<HeaderName>().ok()?;
        headers.append(name, HeaderValue::from_bytes(line.value).ok()?);
    }
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_bytes(value).unwrap())
            })
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn outcome(code: u32, body: impl Into<Bytes>) -> Outcome {
        Outcome {
            is_failure: false,
            code,
            body: body.into(),
        }
    }

    /// The replayed response's headers, as lines, and its body.
    fn replayed(code: u32, stored: &Stored) -> (Vec<String>, Bytes) {
        let response = replay(&outcome(code, stored.bytes.clone())).unwrap();
        assert_eq!(u32::from(response.status().as_u16()), code);
        let (parts, body) = response.into_parts();
        let lines = parts.headers.iter();
        let lines =
            lines.map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let body = runtime.block_on(body.collect()).unwrap().to_bytes();
        (lines.collect(), body)
    }

    #[test]
    fn a_response_comes_back_as_it_was_stored() {
        let sent = headers(&[
            ("content-type", b"text/plain; charset=utf-8"),
            ("location", b"/charges/1"),
            ("x-two", b"1"),
            ("x-two", b"\xe9\t2"),
            ("x-empty", b""),
        ]);
        for body in [&b""[..], b"a", b"\r\n", b"\r\n\r\n", b"x: y\r\n\r\n\0\xff"] {
            let stored = store(&sent, Some(body), (&[], 1_000));
            assert!(!stored.is_without_body);
            let (lines, got) = replayed(201, &stored);
            assert_eq!(got, body);
            assert_eq!(
                lines,
                [
                    "content-type: text/plain; charset=utf-8",
                    "location: /charges/1",
                    "x-two: 1",
                    "x-two: \\xe9\\t2",
                    "x-empty: ",
                    "idempotency-replayed: true"
                ]
            );
            let (lines, got) = replayed(204, &store(&HeaderMap::new(), Some(body), (&[], 1_000)));
            assert_eq!((lines.len(), &got[..]), (1, body));
        }
    }

    #[test]
    fn what_is_of_one_message_is_not_replayed() {
        let mut sent = HeaderMap::new();
        for name in NEVER_REPLAYED {
            sent.append(name, HeaderValue::from_static("1"));
        }
        sent.insert(CONNECTION, HeaderValue::from_static("close, X-Hop"));
        for name in ["x-hop", "x-request-id", "x-kept"] {
            sent.append(name, HeaderValue::from_static("1"));
        }
        let never = [HeaderName::from_static("x-request-id")];
        let (lines, _) = replayed(200, &store(&sent, Some(b""), (&never, 1_000)));
        assert_eq!(lines, ["x-kept: 1", "idempotency-replayed: true"]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_that_is_said() {
        let sent = headers(&[("location", b"/charges/1")]);
        let whole = "location: /charges/1\r\n\r\n".len() + 10;
        for (bytes_max, body, has_location) in [
            (whole, Some(&b"0123456789"[..]), true),
            (whole - 1, None, false),
            (200, None, true),
            (0, None, false),
        ] {
            let given = (bytes_max <= whole).then_some(&b"0123456789"[..]);
            let stored = store(&sent, given, (&[], bytes_max));
            assert_eq!(stored.is_without_body, body.is_none(), "{bytes_max}");
            let (lines, got) = replayed(201, &stored);
            assert_eq!(got, body.unwrap_or_default());
            assert_eq!(
                lines.contains(&"location: /charges/1".to_owned()),
                has_location
            );
            let said = lines.contains(&"idempotency-body-omitted: true".to_owned());
            assert_eq!(said, body.is_none());
        }
    }

    #[test]
    fn what_is_no_response_is_not_replayed() {
        for (code, body) in [
            (0, &b"\r\n"[..]),
            (99, b"\r\n"),
            (1_000, b"\r\n"),
            (70_000, b"\r\n"),
            (200, b""),
            (200, b"\r"),
            (200, b"charged"),
            (200, b"{\"a\": 1}\r\n\r\n"),
            (200, b"a b: 1\r\n\r\n"),
            (200, b"a: 1\r\n"),
            (200, b"a: \x01\r\n\r\n"),
        ] {
            let body = Bytes::from_static(body);
            assert!(
                replay(&outcome(code, body.clone())).is_none(),
                "{code} {body:?}"
            );
        }
    }
}
