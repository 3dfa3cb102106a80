//! Refusals, as problem details for programs and people (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LANGUAGE, CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::body::{Body, full};

/// Why a request is refused, or has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No `Idempotency-Key`.
    Missing,
    /// One that is none, and why.
    Malformed(&'static str),
    /// The scope says that it is from nobody.
    NoScope,
    /// The request's body broke off.
    BrokenRequest,
    /// The request's body has more bytes than this.
    TooLarge(usize),
    /// Another with this key is being handled.
    Busy(Duration),
    /// Another took over while this one was being handled, which was stopped.
    TakenOver,
    /// The key came with another request.
    Mismatch,
    /// onced is down.
    Down,
    /// onced refuses what this layer asks for.
    Misconfigured,
    /// The response's body broke off.
    BrokenResponse,
    /// What is stored under the key is no response.
    NoResponse,
}

/// The members of a problem, in the order in which people read them.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// When to come again where nobody knows.
const SOON: Duration = Duration::from_secs(1);

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Malformed(_) | Self::BrokenRequest => StatusCode::BAD_REQUEST,
            Self::NoScope => StatusCode::FORBIDDEN,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) | Self::TakenOver => StatusCode::CONFLICT,
            Self::Mismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Down => StatusCode::SERVICE_UNAVAILABLE,
            Self::BrokenResponse | Self::NoResponse | Self::Misconfigured => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Missing => "The request has no Idempotency-Key",
            Self::Malformed(_) => "The Idempotency-Key is malformed",
            Self::NoScope => "Nobody knows who sends this request",
            Self::BrokenRequest => "The request's body broke off",
            Self::TooLarge(_) => "The request's body is too large",
            Self::Busy(_) => "A request with this Idempotency-Key is being handled",
            Self::TakenOver => "Another request with this Idempotency-Key took over",
            Self::Mismatch => "This Idempotency-Key belongs to another request",
            Self::Down => "Nobody knows whether this request was handled before",
            Self::Misconfigured => "This service cannot tell whether requests were handled",
            Self::BrokenResponse => "The response broke off",
            Self::NoResponse => "This Idempotency-Key stands for something else",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Missing => {
                "Send a header Idempotency-Key with a string of your choice in double quotes, \
                 such as a UUID: new for each operation, the same for each retry of it."
                    .to_owned()
            }
            Self::Malformed(why) => format!("{why}."),
            Self::NoScope => "Say who you are, as this service wants it said.".to_owned(),
            Self::BrokenRequest => "Send it again.".to_owned(),
            Self::TooLarge(max) => format!("It may have {max} bytes."),
            Self::TakenOver => {
                "The handling of this one was stopped on its way. Send the same request again, somewhat \
                 later, to get the outcome of the other."
                    .to_owned()
            }
            Self::Busy(_) => {
                "Send the same request again, somewhat later, to get its outcome.".to_owned()
            }
            Self::Mismatch => {
                "A retry has the method, path and body of the first request. For another \
                 operation, choose another key."
                    .to_owned()
            }
            Self::Down => "It was not handled now. Send the same request again, later.".to_owned(),
            Self::Misconfigured => {
                "It was not handled. The fault is not yours, and trying again is of no use."
                    .to_owned()
            }
            Self::BrokenResponse => {
                "What came of the request is not known. Send the same request again.".to_owned()
            }
            Self::NoResponse => "Choose another key.".to_owned(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(after) => Some(*after),
            Self::TakenOver | Self::Down => Some(SOON),
            _ => None,
        }
    }

    /// The refusal, with a link to the documentation of the service, if there is one.
    pub(super) fn response(&self, documentation: Option<&HeaderValue>) -> Response<Body> {
        let kind = documentation.and_then(|url| url.to_str().ok());
        let status = self.status();
        let details = Details {
            kind: kind.unwrap_or("about:blank"),
            title: self.title(),
            status: status.as_u16(),
            detail: &self.detail(),
        };
        let body = serde_json::to_vec(&details).expect("texts and a number are JSON");
        let mut response = Response::new(full(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
        let link = kind.map(|url| format!("<{url}>; rel=\"describedby\"; type=\"text/html\""));
        if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
            headers.insert(LINK, link);
        }
        if let Some(after) = self.retry_after() {
            let seconds = after.as_millis().div_ceil(1_000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
