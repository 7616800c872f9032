//! The request's body as hyper reads it, and how far it has come.
//!
//! The upload itself lies in a slot that the request can empty: after a failed attempt it takes the body back, and the
//! connection's task finds nothing to send any more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::{
    BoxError,
    upload::{Upload, UploadError},
};

/// The upload while an attempt sends it.
pub(super) type Slot<B> = Arc<Mutex<Option<Upload<B>>>>;

/// The body of one attempt.
pub(super) struct Sending<B> {
    slot: Slot<B>,
    progress: Arc<Progress>,
    trailers: Trailers,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trailers {
    ToCome,
    Sent,
}

impl<B> Sending<B> {
    pub(super) fn new(slot: Slot<B>, progress: Arc<Progress>) -> Self {
        Self { slot, progress, trailers: Trailers::ToCome }
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        // hyper lets go of a body when it is sent, also without polling an empty one; where it gives up half way it
        // closes the connection.
        self.progress.note(true);
    }
}

impl<B> Body for Sending<B>
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
        let mut slot = this.slot.lock();
        let Some(upload) = slot.as_mut() else {
            return Poll::Ready(Some(Err("the attempt is over".into())));
        };
        let frame = match ready!(upload.poll_chunk(cx)) {
            Ok(Some(chunk)) => Some(Ok(Frame::data(chunk))),
            Ok(None) if this.trailers == Trailers::ToCome => {
                this.trailers = Trailers::Sent;
                upload.trailers().cloned().map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Ok(None) => None,
            Err(fault) => {
                let words = fault.to_string();
                this.progress.fail(fault);
                Some(Err(words.into()))
            }
        };
        let over = frame.is_none() || upload.is_drained();
        this.progress.note(over);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.slot.lock().as_ref().is_some_and(Upload::is_drained)
    }

    fn size_hint(&self) -> SizeHint {
        match self.slot.lock().as_ref().and_then(Upload::left) {
            Some(bytes) => SizeHint::with_exact(bytes),
            None => SizeHint::default(),
        }
    }
}

/// How far a body that hyper sends has come.
#[derive(Debug)]
pub(in crate::send) struct Progress {
    moved: Mutex<Moved>,
    /// Why it ended early.
    fault: Mutex<Option<UploadError>>,
}

/// The last sign of life, and whether it was the end.
#[derive(Clone, Copy, Debug)]
pub(in crate::send) struct Moved {
    pub(in crate::send) at: Instant,
    pub(in crate::send) ended: bool,
}

impl Progress {
    pub(super) fn new(ended: bool) -> Self {
        Self { moved: Mutex::new(Moved { at: Instant::now(), ended }), fault: Mutex::new(None) }
    }

    pub(super) fn note(&self, ended: bool) {
        let mut moved = self.moved.lock();
        if !moved.ended {
            *moved = Moved { at: Instant::now(), ended };
        }
    }

    fn fail(&self, fault: UploadError) {
        *self.fault.lock() = Some(fault);
    }

    pub(in crate::send) fn take_fault(&self) -> Option<UploadError> {
        self.fault.lock().take()
    }

    /// When it last moved.
    pub(in crate::send) fn moved(&self) -> Moved {
        *self.moved.lock()
    }
}
