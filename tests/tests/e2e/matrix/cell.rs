//! One cell: a provider with a fault and one request of one kind. It does not own what must hold at the end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use tsh_tests::{Body, Feed, H2c, Http1, Lab, Reply, caller, empty, eventually, full, within};

use super::{
    faults::{Fault, When},
    judge::judge,
    stage::Stage,
};

/// The kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    /// GET over HTTP/1.1.
    Get,
    /// POST of 1 KiB over HTTP/1.1: held for a replay.
    SmallPost,
    /// POST of 1 MiB, streamed over h2c: more than is held for a replay.
    LargePost,
    /// A gRPC call over h2c.
    Grpc,
}

/// More than `replay_buffer_bytes`: once this much is sent, the body cannot be sent again.
const LET_GO: usize = 128 * 1024;
const LARGE: usize = 1024 * 1024;

impl Column {
    pub(super) const ALL: [Self; 4] = [Self::Get, Self::SmallPost, Self::LargePost, Self::Grpc];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::SmallPost => "POST, 1 KiB",
            Self::LargePost => "POST, 1 MiB streamed",
            Self::Grpc => "gRPC",
        }
    }

    fn request(self, id: &str, fault: &Fault) -> (Request<Body>, Option<Feed>) {
        let (mut feed, mut builder) = (None, caller::ask(self.method(), "/pay", id));
        for (name, value) in fault.orders {
            builder = builder.header(*name, *value);
        }
        let body = match self {
            Self::Get => empty(),
            Self::SmallPost => full(vec![b'p'; 1024]),
            Self::LargePost => {
                let (fed, body) = Feed::new();
                feed = Some(fed);
                body
            }
            Self::Grpc => {
                builder = builder.header("content-type", "application/grpc").header("te", "trailers");
                full(grpc_message(&[b'g'; 300]))
            }
        };
        (builder.body(body).expect("a request"), feed)
    }

    fn method(self) -> &'static str {
        if self == Self::Get { "GET" } else { "POST" }
    }

    async fn open(self, stage: &Stage, request: Request<Body>) -> Reply {
        let opened = match self {
            Self::Get | Self::SmallPost => {
                let mut caller = Http1::connect(stage.lab.egress()).await;
                within("a response over HTTP/1.1", caller.open(request)).await
            }
            Self::LargePost | Self::Grpc => {
                let mut caller = H2c::connect(stage.lab.egress()).await;
                within("a response over h2c", caller.open(request)).await
            }
        };
        match opened {
            Ok(response) => {
                stage.note_begun();
                within("the reply's body", Reply::read(response)).await
            }
            // A response that breaks right after it began may take its header with it.
            Err(e) => Reply {
                status: 0,
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                trailers: None,
                cut: Some(e.to_string()),
            },
        }
    }
}

fn grpc_message(content: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(content.len()).expect("a short message"));
    message.put_slice(content);
    message.freeze()
}

/// Runs one cell.
///
/// # Errors
/// What does not hold.
pub(super) async fn run(fault: &Fault, column: Column) -> Result<(), String> {
    let stage = Stage::set(fault).await;
    let id = stage.lab.id();
    let (request, feed) = column.request(&id, fault);
    for _ in 0..fault.warm_up {
        let reply = stage.lab.get("/before").await;
        if reply.status != 200 {
            return Err(format!("the request before got {reply:?}"));
        }
    }
    if fault.when == When::Before {
        (fault.act)(&stage).await;
    }
    let fed = Arc::new(AtomicUsize::new(0));
    let feeding = feed.map(|feed| tokio::spawn(feed_large(feed, fed.clone())));
    let (reply, ()) = tokio::join!(column.open(&stage, request), async {
        if fault.when == When::During {
            eventually("the provider has the request", async || {
                let reached = stage.provider.sim.seen(&id) > 0;
                (reached && (column != Column::LargePost || let_go(&stage.lab, &fed).await)).then_some(())
            })
            .await;
            (fault.act)(&stage).await;
        }
    });
    if let Some(feeding) = feeding {
        let _ = within("the feed ends", feeding).await;
    }
    judge(fault, column, &stage, &id, &reply).await
}

/// Feeds the large body as fast as it is taken.
async fn feed_large(feed: Feed, fed: Arc<AtomicUsize>) {
    while fed.load(Ordering::Relaxed) < LARGE && feed.send(vec![b'l'; 16 * 1024]).await {
        fed.fetch_add(16 * 1024, Ordering::Relaxed);
    }
}

/// So much of the large body was sent on that it is held no more.
async fn let_go(lab: &Lab, fed: &AtomicUsize) -> bool {
    fed.load(Ordering::Relaxed) >= LET_GO && lab.pool("sandbox").await["replay_bytes"] == 0
}
