//! A body of any size that costs no memory: the same block of zeros, again and again.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Size of the block that all chunks are slices of.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// The block; its memory is shared by every chunk.
pub(crate) fn block() -> Bytes {
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    Bytes::from_static(&ZEROS)
}

/// A body of `size` zero bytes.
#[derive(Debug)]
pub(crate) struct Zeros {
    left: u64,
}

impl Zeros {
    /// A body of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self { left: size }
    }
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(BLOCK_BYTES as u64);
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(block().slice(..length as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn has_exactly_the_size_asked_for() {
        for size in [0, 1, BLOCK_BYTES as u64, 3 * BLOCK_BYTES as u64 + 7] {
            let body = Zeros::new(size);
            assert_eq!(body.size_hint().exact(), Some(size));
            let mut body = body;
            let mut total = 0;
            while let Some(frame) = body.frame().await {
                total += frame.unwrap().into_data().unwrap().len() as u64;
            }
            assert_eq!(total, size);
        }
    }
}
