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

/// The header of a response that should be stored, and is not: another took over while the request was being
/// handled, or onced cannot be reached or has no room. A retry may get another response, or be handled again.
/// Its value is `true`.
pub const IDEMPOTENCY_NOT_STORED: HeaderName = HeaderName::from_static("idempotency-not-stored");

/// What is of one connection, one message or one caller, and wrong in a replay.
const NEVER_REPLAYED: [HeaderName; 14] = [
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
    IDEMPOTENCY_NOT_STORED,
];

/// The body's end of a record that stores a response.
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    /// Whether the response's own body is not among them.
    pub(super) is_without_body: bool,
}

/// What to store of a response, in at most `bytes_max`: all of it if it fits, then its headers, then only
/// its status. What is left out is said.
pub(super) fn store(
    headers: &HeaderMap,
    body: Option<&[u8]>,
    (never, bytes_max): (&[HeaderName], usize),
) -> Vec<Stored> {
    let head = head(headers, never);
    let omitted = [IDEMPOTENCY_BODY_OMITTED.as_str(), ": true\r\n"].concat();
    let whole = body.map(|body| [&head[..], b"\r\n", body].concat());
    let without_body = [&head[..], omitted.as_bytes(), b"\r\n"].concat();
    [
        (whole, false),
        (Some(without_body), true),
        (Some(Vec::new()), true),
    ]
    .into_iter()
    .filter_map(|(bytes, is_without_body)| {
        let bytes = bytes.filter(|bytes| bytes.len() <= bytes_max)?.into();
        Some(Stored {
            bytes,
            is_without_body,
        })
    })
    .collect()
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
        if is_replayed(name, never) && !of_connection.contains(name) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }
    lines
}

fn is_replayed(name: &HeaderName, never: &[HeaderName]) -> bool {
    !NEVER_REPLAYED.contains(name) && !never.contains(name)
}

/// The response that a record stores; `None` if it stores something else.
pub(super) fn replay(outcome: &Outcome, never: &[HeaderName]) -> Option<Response<Body>> {
    let status = u16::try_from(outcome.code).ok()?;
    let status = StatusCode::from_u16(status).ok()?;
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    let yes = HeaderValue::from_static("true");
    let stored = &outcome.body;
    if stored.is_empty() {
        response
            .headers_mut()
            .insert(IDEMPOTENCY_BODY_OMITTED, yes.clone());
    } else {
        let head_bytes = match stored.strip_prefix(b"\r\n") {
            Some(_) => 0,
            None => memmem::find(stored, b"\r\n\r\n")? + 2,
        };
        let lines = memchr_iter(b'\n', &stored[..head_bytes]).count();
        let mut lines = vec![httparse::EMPTY_HEADER; lines];
        let parsed = httparse::parse_headers(&stored[..head_bytes + 2], &mut lines).ok()?;
        let httparse::Status::Complete((_, lines)) = parsed else {
            return None;
        };
        for line in lines {
            let name = line.name.parse::<HeaderName>().ok()?;
            // Whoever stored it may not have known.
            if is_replayed(&name, never) {
                let value = HeaderValue::from_bytes(line.value).ok()?;
                response.headers_mut().append(name, value);
            }
        }
        *response.body_mut() = full(stored.slice(head_bytes + 2..));
    }
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, yes);
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
        let response = replay(&outcome(code, stored.bytes.clone()), &[]).unwrap();
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
            assert!(!stored[0].is_without_body);
            let (lines, got) = replayed(201, &stored[0]);
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
            let (lines, got) =
                replayed(204, &store(&HeaderMap::new(), Some(body), (&[], 1_000))[0]);
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
        let (lines, _) = replayed(200, &store(&sent, Some(b""), (&never, 1_000))[0]);
        assert_eq!(lines, ["x-kept: 1", "idempotency-replayed: true"]);
    }

    #[test]
    fn there_is_ever_less_to_store_and_what_is_left_out_is_said() {
        let sent = headers(&[("location", b"/charges/1")]);
        let body = b"0123456789 and so on, for longer than the header says so";
        let whole = "location: /charges/1\r\n\r\n".len() + body.len();
        let head = "location: /charges/1\r\nidempotency-body-omitted: true\r\n\r\n".len();
        for (bytes_max, rungs) in [(whole, 3), (whole - 1, 2), (head, 2), (head - 1, 1), (0, 1)] {
            let stored = store(&sent, Some(body), (&[], bytes_max));
            assert_eq!(stored.len(), rungs, "{bytes_max}");
            for (rung, stored) in stored.iter().rev().enumerate() {
                let (lines, got) = replayed(201, stored);
                let is_whole = rung == 2;
                assert_eq!(stored.is_without_body, !is_whole);
                assert_eq!(got, if is_whole { &body[..] } else { b"" });
                let has = |line: &str| lines.iter().any(|one| one == line);
                assert_eq!(has("location: /charges/1"), rung > 0);
                assert_eq!(has("idempotency-body-omitted: true"), !is_whole);
            }
        }
        assert_eq!(
            store(&sent, None, (&[], 1_000)).len(),
            2,
            "it was not read to its end"
        );
    }

    /// A record that another program wrote, which did not know what is not to be replayed.
    #[test]
    fn what_must_not_be_replayed_is_not_whoever_stored_it() {
        let stored =
            b"content-length: 100\r\ntransfer-encoding: chunked\r\nx-a: 1\r\nx-kept: 1\r\n\r\nbody";
        let never = [HeaderName::from_static("x-a")];
        let response = replay(&outcome(200, &stored[..]), &never).unwrap();
        let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-kept", "idempotency-replayed"]);
    }

    #[test]
    fn what_is_no_response_is_not_replayed() {
        for (code, body) in [
            (0, &b"\r\n"[..]),
            (99, b"\r\n"),
            (1_000, b"\r\n"),
            (70_000, b"\r\n"),
            (0, b""),
            (200, b"\r"),
            (200, b"charged"),
            (200, b"{\"a\": 1}\r\n\r\n"),
            (200, b"a b: 1\r\n\r\n"),
            (200, b"a: 1\r\n"),
            (200, b"a: \x01\r\n\r\n"),
        ] {
            let body = Bytes::from_static(body);
            assert!(
                replay(&outcome(code, body.clone()), &[]).is_none(),
                "{code} {body:?}"
            );
        }
    }
}
