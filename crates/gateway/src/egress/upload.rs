//! The body of a caller's request on its way to the pool: tells a malformed one from a caller that left.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pool::BoxError;

use super::caller::Phase;

/// A request body; what is wrong with its form is noted on the connection.
pub(super) struct Upload<B> {
    body: B,
    /// Of an HTTP/1.1 connection. HTTP/2 answers malformed bodies itself, with RST_STREAM (RFC 9113 §8.1.1).
    phase: Option<Arc<Phase>>,
}

impl<B> Upload<B> {
    pub(super) fn new(body: B, phase: Option<Arc<Phase>>) -> Self {
        Self { body, phase }
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let error = error.into();
                if let Some(phase) = this.phase.as_ref().filter(|_| is_malformed(&*error)) {
                    phase.body_malformed();
                }
                error
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// hyper tells what breaks the chunked coding (RFC 9112 §7.1) by these kinds; a caller that leaves is an early end or
/// an error of the socket.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        }
        cause = error.source();
    }
    false
}
