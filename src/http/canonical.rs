//! What of a request is fingerprinted: what must be equal in a retry.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use crate::json;

/// What must be equal in a retry, for the same key not to be that of another request.
#[derive(Clone, Default)]
pub enum Canonical {
    /// Method, path with query, and the body's bytes. For clients that keep a request and send it once more:
    /// nothing is parsed, and a retry with other bytes is refused, whatever they mean.
    #[default]
    Bytes,
    /// Method, path with query, and the body's value if it is JSON (`application/json`,
    /// `application/*+json`), so that the order of members, white space and the spelling of strings and
    /// numbers make no difference. For clients that build a request anew for each retry, in languages
    /// whose maps have no order. All other bodies, and those that are no JSON after all, are their bytes.
    ///
    /// The value's form is that of RFC 8785, but that numbers are exact; of members with one name the last
    /// counts. Choose it where handlers parse the body and act on its value, not where they store or sign
    /// its bytes.
    Json,
    /// What a function makes of the request's head and its body: see [`Canonical::of`].
    Of(Arc<EssenceOf>),
}

/// A function that makes of a request what must be equal in a retry.
pub type EssenceOf = dyn Fn(&Parts, &[u8]) -> Vec<u8> + Send + Sync;

impl Canonical {
    /// What this function makes of the request's head and its body.
    ///
    /// ```
    /// use onced::http::Canonical;
    ///
    /// // Members in any order, and the client's version makes another request of it.
    /// let choice = Canonical::of(|parts, body| {
    ///     let version = parts.headers.get("x-version").map(|version| version.as_bytes());
    ///     [version.unwrap_or_default(), b"\n", &Canonical::Json.bytes(parts, body)].concat()
    /// });
    /// ```
    pub fn of(essence: impl Fn(&Parts, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Of(Arc::new(essence))
    }

    /// What of this request is fingerprinted.
    pub fn bytes(&self, parts: &Parts, body: &[u8]) -> Vec<u8> {
        let body = match self {
            Self::Of(essence) => return essence(parts, body),
            Self::Json if is_json(&parts.headers) => {
                json::canonical(body).unwrap_or(Cow::Borrowed(body))
            }
            Self::Json | Self::Bytes => Cow::Borrowed(body),
        };
        let path = parts.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let head = format!("{} {path}\n", parts.method);
        [head.as_bytes(), &body].concat()
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "Bytes",
            Self::Json => "Json",
            Self::Of(_) => "Of(_)",
        })
    }
}

/// Whether these headers say that the body is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let Some(kind) = kind else {
        return false;
    };
    // Parameters mean nothing here: JSON is UTF-8.
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let Some((class, subtype)) = kind.split_once('/') else {
        return false;
    };
    let suffix = subtype
        .rsplit_once('+')
        .map_or(subtype, |(_, suffix)| suffix);
    class.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn bytes(choice: &Canonical, kind: Option<&str>, body: &str) -> String {
        let mut request = Request::builder()
            .method("POST")
            .uri("http://host/charges?a=1");
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        String::from_utf8(choice.bytes(&parts, body.as_bytes())).unwrap()
    }

    #[test]
    fn json_is_taken_by_its_value_where_it_says_that_it_is_json() {
        let body = "{\"b\": 1.0, \"a\": [true]}";
        let value = "POST /charges?a=1\n{\"a\":[true],\"b\":1}";
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "application/vnd.api+json;v=1",
        ] {
            assert_eq!(bytes(&Canonical::Json, Some(kind), body), value, "{kind}");
        }
        let same = format!("POST /charges?a=1\n{body}");
        for kind in [
            "text/json",
            "application/jsonl",
            "application/json-seq",
            "json",
            "application/x+json+xml",
        ] {
            assert_eq!(bytes(&Canonical::Json, Some(kind), body), same, "{kind}");
        }
        assert_eq!(bytes(&Canonical::Json, None, body), same);
        assert_eq!(
            bytes(&Canonical::Bytes, Some("application/json"), body),
            same
        );
    }

    #[test]
    fn a_body_that_is_no_json_is_its_bytes() {
        for body in ["", "{\"a\": 1,}", "{} {}", "{\"a\": NaN}"] {
            let told = bytes(&Canonical::Json, Some("application/json"), body);
            assert_eq!(told, format!("POST /charges?a=1\n{body}"));
        }
    }
}
