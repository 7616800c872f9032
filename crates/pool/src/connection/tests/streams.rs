//! Leases against the streams that the provider counts, under random interleavings of everything that begins and ends
//! them.
//!
//! Owns a model of callers and of providers. Whatever they do: when all bytes have crossed, no provider sees a stream
//! that no lease stands for, nobody holds a lease without a stream, and no provider ever sees more than it allowed.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use proptest::{collection::vec, prelude::*};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::options;
use crate::{
    BodyError, ConnectionId, Journey, PoolConfig, SendErrorKind, State, Timeouts,
    testing::{Feed, Frame, GOAWAY_SOON, Lab, for_all},
};

#[derive(Clone, Debug)]
enum Op {
    /// A request, with a body that is fed or none; its response is read as it comes, or when it is told to.
    Ask {
        fed: bool,
        eager: bool,
    },
    /// A piece of a request body.
    Feed(usize),
    /// The end of a request body.
    Whole(usize),
    /// A caller goes away, wherever its request stands.
    Cancel(usize),
    /// A caller begins to read.
    Read(usize),
    /// The provider says something about one of its streams.
    Say(usize, usize, Word),
    /// SETTINGS with this number of streams.
    Streams(usize, u32),
    GoAway(usize, Last),
    /// The transport breaks.
    Break(usize),
    /// The provider stops reading, or begins again.
    Deaf(usize),
    Birth(u32),
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Header,
    Piece(usize),
    End,
    Reset(u32),
}

#[derive(Clone, Copy, Debug)]
enum Last {
    Nothing,
    /// The stream at this place.
    Of(usize),
    All,
    Soon,
}

const NO_ERROR: u32 = 0x0;
const INTERNAL_ERROR: u32 = 0x2;
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        3 => Just(Word::Header),
        3 => (1usize..600).prop_map(Word::Piece),
        6 => Just(Word::End),
        3 => prop::sample::select(vec![NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL]).prop_map(Word::Reset),
    ]
}

fn last() -> impl Strategy<Value = Last> {
    prop_oneof![Just(Last::Nothing), any::<usize>().prop_map(Last::Of), Just(Last::All), Just(Last::Soon)]
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<usize>;
    prop_oneof![
        14 => (any::<bool>(), prop::bool::weighted(0.7)).prop_map(|(fed, eager)| Op::Ask { fed, eager }),
        4 => at().prop_map(Op::Feed),
        4 => at().prop_map(Op::Whole),
        5 => at().prop_map(Op::Cancel),
        4 => at().prop_map(Op::Read),
        14 => (at(), at(), word()).prop_map(|(wire, stream, word)| Op::Say(wire, stream, word)),
        4 => (at(), 0u32..6).prop_map(|(wire, streams)| Op::Streams(wire, streams)),
        2 => (at(), last()).prop_map(|(wire, last)| Op::GoAway(wire, last)),
        1 => at().prop_map(Op::Break),
        2 => at().prop_map(Op::Deaf),
        3 => (0u32..5).prop_map(Op::Birth),
        3 => (1u64..400).prop_map(Op::Pass),
    ]
}

/// Why a request has no whole response; only what may happen here.
#[derive(Debug)]
enum NoAnswer {
    Send(SendErrorKind),
    Body(BodyError),
}

/// One caller.
struct Call {
    task: JoinHandle<Result<(), NoAnswer>>,
    feed: Option<mpsc::UnboundedSender<Bytes>>,
    read: watch::Sender<bool>,
}

struct World {
    lab: Lab,
    calls: Vec<Call>,
    asked: usize,
    ended: usize,
    cancelled: usize,
    /// Streams in flight on each connection when last looked.
    before: HashMap<ConnectionId, u32>,
}

fn timeouts() -> Timeouts {
    Timeouts {
        queue: Duration::from_millis(500),
        response_header: Duration::from_millis(1_000),
        idle: Duration::from_millis(1_500),
        ..Timeouts::default()
    }
}

/// Connections beside one another, at most.
const WIRES: usize = 4;
/// Callers beside one another, at most.
const CALLS: usize = 24;

impl World {
    fn new() -> Self {
        let config =
            PoolConfig { max_streams: 4, queue_capacity: 16, resets_per_30s: 8, ..PoolConfig::default() };
        let lab = Lab::new(config, timeouts());
        Self { lab, calls: Vec::new(), asked: 0, ended: 0, cancelled: 0, before: HashMap::new() }
    }

    fn call(&mut self, at: usize) -> Option<&mut Call> {
        let at = at.checked_rem(self.calls.len())?;
        Some(&mut self.calls[at])
    }

    /// A connection whose transport is up.
    fn wire(&self, at: usize) -> Option<usize> {
        let up: Vec<_> = (0..self.lab.wires.len()).filter(|i| self.lab.wires[*i].1.is_up()).collect();
        Some(up[at.checked_rem(up.len())?])
    }

    fn say(&mut self, wire: usize, frame: impl FnOnce(&crate::testing::Peer) -> Option<Frame>) {
        let Some(at) = self.wire(wire) else { return };
        let peer = &mut self.lab.wires[at].1;
        if let Some(frame) = frame(peer) {
            peer.say(frame);
        }
    }

    fn ask(&mut self, fed: bool, eager: bool) {
        if self.calls.len() == CALLS {
            return;
        }
        let (feed, pieces) = mpsc::unbounded_channel();
        let (read, mut may_read) = watch::channel(eager);
        let pool = self.lab.pool.clone();
        let request = Lab::request(Feed(fed.then_some(pieces)));
        let task = tokio::spawn(async move {
            let response = pool
                .send(request, &options(timeouts()), &mut Journey::default())
                .await
                .map_err(|e| NoAnswer::Send(e.kind))?;
            let _ = may_read.wait_for(|now| *now).await;
            response.into_body().collect().await.map(|_| ()).map_err(NoAnswer::Body)
        });
        self.asked += 1;
        self.calls.push(Call { task, feed: fed.then_some(feed), read });
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Ask { fed, eager } => self.ask(fed, eager),
            Op::Feed(at) => {
                if let Some(Call { feed: Some(feed), .. }) = self.call(at) {
                    let _ = feed.send(Bytes::from_static(b"a piece"));
                }
            }
            Op::Whole(at) => {
                if let Some(call) = self.call(at) {
                    call.feed = None;
                }
            }
            Op::Cancel(at) => {
                if let Some(call) = self.call(at) {
                    call.task.abort();
                }
            }
            Op::Read(at) => {
                if let Some(call) = self.call(at) {
                    call.read.send_replace(true);
                }
            }
            Op::Say(wire, stream, word) => self.say(wire, |peer| {
                let (id, _) = peer.at(stream)?;
                Some(match word {
                    Word::Header => Frame::Header(id),
                    Word::Piece(size) => Frame::Data(id, size),
                    Word::End => Frame::End(id),
                    Word::Reset(code) => Frame::Reset(id, code),
                })
            }),
            Op::Streams(wire, streams) => self.say(wire, |_| Some(Frame::Streams(streams))),
            Op::GoAway(wire, last) => self.say(wire, |peer| {
                Some(Frame::GoAway(match last {
                    Last::Nothing => 0,
                    Last::Of(at) => peer.at(at).map_or(0, |(id, _)| id),
                    Last::All => peer.highest(),
                    Last::Soon => GOAWAY_SOON,
                }))
            }),
            Op::Break(wire) => {
                if let Some(at) = self.wire(wire) {
                    self.lab.wires[at].1.hang_up();
                }
            }
            Op::Deaf(wire) => {
                if let Some(at) = self.wire(wire) {
                    let peer = &mut self.lab.wires[at].1;
                    peer.deaf = !peer.deaf;
                }
            }
            Op::Birth(streams) => {
                if self.lab.wires.iter().filter(|(_, peer)| peer.is_up()).count() < WIRES {
                    self.lab.birth(streams).await;
                }
            }
            Op::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
        }
    }

    /// Lets everything cross, and hears from callers that are done.
    async fn settle(&mut self) -> Result<(), TestCaseError> {
        self.lab.settle().await;
        for at in (0..self.calls.len()).rev() {
            if !self.calls[at].task.is_finished() {
                continue;
            }
            self.ended += 1;
            match self.calls.swap_remove(at).task.await {
                Ok(outcome) => check_outcome(outcome)?,
                Err(e) => {
                    prop_assert!(e.is_cancelled(), "a caller panicked: {e}");
                    self.cancelled += 1;
                }
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        // Whoever does not read holds its lease although the provider is done.
        let all_read = self.calls.iter().all(|call| *call.read.borrow());
        for (link, peer) in &mut self.lab.wires {
            prop_assert_eq!(peer.broken(), &[] as &[String]);
            let (leases, streams) = (link.in_flight(), peer.open().len() as u32);
            let before = self.before.insert(link.id(), leases).unwrap_or(0);
            let allowed = peer.take_most_told().min(4);
            prop_assert!(
                leases <= allowed.max(before),
                "{leases} leases, before {before}, allowed {allowed}"
            );
            if peer.deaf || link.state() == State::Closed {
                // What it counts is old.
                continue;
            }
            prop_assert!(streams <= leases, "{streams} streams for {leases} leases");
            prop_assert!(
                !all_read || streams == leases,
                "{leases} leases for {streams} streams, and nobody reads"
            );
        }
        Ok(())
    }

    /// Everybody gets what he waits for; nothing is left.
    async fn end(mut self) -> Result<(), TestCaseError> {
        self.lab.birth(100).await;
        for call in &mut self.calls {
            call.feed = None;
            call.read.send_replace(true);
        }
        for (_, peer) in &mut self.lab.wires {
            peer.deaf = false;
            peer.say(Frame::Streams(100));
        }
        // Abandoned streams run out for at most ten seconds.
        for _ in 0..120 {
            for (_, peer) in &mut self.lab.wires {
                let open: Vec<_> = peer.open().keys().copied().collect();
                open.into_iter().for_each(|id| peer.say(Frame::End(id)));
            }
            self.settle().await?;
            self.check()?;
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        prop_assert_eq!((self.calls.len(), self.ended), (0, self.asked), "each request has one outcome");
        let status = self.lab.pool.status();
        prop_assert_eq!((status.in_flight, status.queue_depth, status.replay_bytes), (0, 0, 0));
        for (link, peer) in &self.lab.wires {
            prop_assert_eq!((link.in_flight(), peer.open().len()), (0, 0), "{:?}", link.state());
        }
        let (link, _) = self.lab.wires.last().expect("it was born above");
        prop_assert!(link.permits().has_room(link.share()) && link.capacity() == 4, "all permits are free");
        Ok(())
    }
}

fn check_outcome(outcome: Result<(), NoAnswer>) -> Result<(), TestCaseError> {
    use SendErrorKind::{IdleTimeout, ProviderReset, QueueFull, QueueTimeout, ResponseTimeout};
    match outcome {
        Ok(())
        | Err(NoAnswer::Send(
            IdleTimeout { .. }
            | ProviderReset { .. }
            | QueueFull { .. }
            | QueueTimeout { .. }
            | ResponseTimeout { .. },
        ))
        | Err(NoAnswer::Body(
            BodyError::Cut(_) | BodyError::CallerStalled(_) | BodyError::Idle(_) | BodyError::Unread(_),
        )) => Ok(()),
        Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

#[test]
fn leases_are_the_streams_that_the_provider_counts_in_any_order_of_events() {
    // Some steps follow the last at once, before anything of it has crossed.
    let step = (op(), prop::bool::weighted(0.6));
    for_all(150, vec(step, 1..100), |steps| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for streams in [3, 2] {
                world.lab.birth(streams).await;
            }
            for (op, crosses) in steps {
                world.apply(op).await;
                if crosses {
                    world.settle().await?;
                    world.check()?;
                }
            }
            world.end().await
        })
    });
}
