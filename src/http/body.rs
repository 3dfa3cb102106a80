//! Bodies: one type for all of them, and reading them within a bound.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// The error of a body that breaks off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request that the service gets and of every response that the layer gives.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Any body as a [`Body`].
pub(super) fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body of these bytes.
pub(super) fn full(bytes: Bytes) -> Body {
    Beginning {
        bytes,
        trailers: None,
        rest: None,
    }
    .boxed_unsync()
}

/// What was read of a body, and how to go on.
pub(super) struct Beginning {
    /// The bytes that were read.
    pub(super) bytes: Bytes,
    trailers: Option<HeaderMap>,
    rest: Option<Body>,
}

impl Beginning {
    /// Reads a body, until it ends or more than `bytes_max` have come.
    pub(super) async fn read(mut body: Body, bytes_max: usize) -> Result<Self, BoxError> {
        let mut bytes = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = body.frame().await.transpose()? {
            match frame.into_data() {
                Ok(piece) => {
                    bytes.extend_from_slice(&piece);
                    if bytes.len() > bytes_max {
                        return Ok(Self {
                            bytes: bytes.freeze(),
                            trailers: None,
                            rest: Some(body),
                        });
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self {
            bytes: bytes.freeze(),
            trailers,
            rest: None,
        })
    }

    /// Whether the bytes are all that the body has.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// The whole body, as if nothing had been read of it.
    pub(super) fn into_body(self) -> Body {
        self.boxed_unsync()
    }
}

impl HttpBody for Beginning {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(
                self.trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.bytes.len() as u64;
        let Some(rest) = &self.rest else {
            return SizeHint::with_exact(read);
        };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(read + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(read + upper);
        }
        hint
    }
}
