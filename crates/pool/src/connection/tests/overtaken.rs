//! A lease that SETTINGS overtook: the provider lowered its number of streams after the lease was granted and before
//! its stream was opened.

use std::{pin::Pin, task::Context, task::Poll, task::Waker};

use http::Response;

use super::options;
use crate::{
    Journey, PoolConfig, ResponseBody, SendError, Timeouts, Verdict,
    testing::{Feed, Frame, Lab},
};

type Answer = Result<Response<ResponseBody>, SendError>;
/// A request that goes on only when the test polls it.
type Ask = Pin<Box<dyn Future<Output = (Answer, Journey)>>>;

fn ask(lab: &Lab) -> Ask {
    let pool = lab.pool.clone();
    Box::pin(async move {
        let mut journey = Journey::default();
        let options = options(Timeouts::default());
        let answer = pool.send(Lab::request(Feed(None)), &options, &mut journey).await;
        (answer, journey)
    })
}

/// Polls each once; those that are done go.
fn poll(asks: &mut Vec<Ask>) -> Vec<(Answer, Journey)> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut done = Vec::new();
    asks.retain_mut(|ask| match ask.as_mut().poll(&mut cx) {
        Poll::Pending => true,
        Poll::Ready(outcome) => {
            done.push(outcome);
            false
        }
    });
    done
}

const STREAMS: u32 = 128;
const OVERTAKEN: usize = 40;

/// 128 streams are open and 40 requests wait. Forty streams end, so that all who wait are granted a lease; before they
/// look, the provider lowers its limit to 1.
#[tokio::test(start_paused = true)]
async fn a_stream_that_settings_overtook_is_taken_back_as_not_sent_and_leased_anew() {
    let mut lab = Lab::new(PoolConfig { max_streams: STREAMS, ..PoolConfig::default() }, Timeouts::default());
    lab.birth(STREAMS).await;
    let mut open: Vec<_> = (0..STREAMS).map(|_| ask(&lab)).collect();
    let mut waiting: Vec<_> = (0..OVERTAKEN).map(|_| ask(&lab)).collect();
    assert!(poll(&mut open).is_empty() && poll(&mut waiting).is_empty());
    lab.settle().await;
    assert_eq!(lab.pool.status().queue_depth as usize, OVERTAKEN);
    assert_eq!(lab.wires[0].1.open().len(), STREAMS as usize);

    let ending: Vec<u32> = lab.wires[0].1.open().keys().copied().take(OVERTAKEN).collect();
    ending.iter().for_each(|id| lab.wires[0].1.say(Frame::End(*id)));
    lab.settle().await;
    let ended = poll(&mut open);
    assert_eq!(ended.len(), OVERTAKEN);
    drop(ended);
    assert_eq!(lab.pool.status().queue_depth, 0, "all have a lease");

    lab.wires[0].1.say(Frame::Streams(1));
    lab.settle().await;
    let (link, peer) = &lab.wires[0];
    assert_eq!((peer.told(), link.capacity(), link.in_flight()), (1, 1, STREAMS));
    let before = peer.opened();
    assert!(poll(&mut waiting).is_empty());
    lab.settle().await;
    assert_eq!(lab.verdicts(), vec![Verdict::NotSent; OVERTAKEN], "the gate turned each of them away");
    let (link, peer) = &lab.wires[0];
    assert_eq!(peer.opened(), before, "nothing of them was sent, at once or later");
    assert_eq!(link.in_flight() as usize, peer.open().len(), "their leases went back");
    assert_eq!(lab.pool.status().queue_depth as usize, OVERTAKEN, "each asks for another");

    let mut answered = Vec::new();
    for _ in 0..STREAMS as usize + OVERTAKEN {
        let peer = &mut lab.wires[0].1;
        let next = peer.open().keys().next().copied();
        peer.say(Frame::End(next.expect("somebody is served as long as anybody waits")));
        lab.settle().await;
        drop(poll(&mut open));
        answered.extend(poll(&mut waiting).into_iter().map(|(answer, journey)| (answer.is_ok(), journey)));
        lab.settle().await;
        if answered.len() == OVERTAKEN {
            break;
        }
    }
    assert!(open.is_empty() && answered.len() == OVERTAKEN, "{} were answered", answered.len());
    assert!(
        answered.iter().all(|(ok, journey)| *ok && journey.attempts == 1),
        "what was not sent is no attempt"
    );
    let (link, peer) = &lab.wires[0];
    assert_eq!(peer.broken(), [] as [String; 0], "none above the limit once it was acknowledged");
    assert_eq!((link.in_flight(), peer.open().len(), link.peak_in_flight()), (0, 0, STREAMS));
    let totals = lab.pool.status().totals;
    assert_eq!((totals.replays as usize, totals.unprocessed_lost), (OVERTAKEN, 0));
}

/// The same, where another connection has room: nobody waits.
#[tokio::test(start_paused = true)]
async fn a_stream_that_settings_overtook_goes_to_a_connection_with_room() {
    let mut lab = Lab::new(PoolConfig::default(), Timeouts::default());
    lab.birth(2).await;
    let mut open = vec![ask(&lab), ask(&lab)];
    let mut waiting = vec![ask(&lab)];
    assert!(poll(&mut open).is_empty() && poll(&mut waiting).is_empty());
    lab.settle().await;
    lab.wires[0].1.say(Frame::End(1));
    lab.settle().await;
    drop(poll(&mut open));
    lab.wires[0].1.say(Frame::Streams(1));
    lab.settle().await;
    lab.birth(1).await;
    assert!(poll(&mut waiting).is_empty());
    lab.settle().await;
    assert_eq!(lab.verdicts(), [Verdict::NotSent]);
    let (old, young) = (&lab.wires[0].1, &lab.wires[1].1);
    assert_eq!((old.opened(), young.opened()), (2, 1));
    lab.wires[1].1.say(Frame::End(1));
    lab.settle().await;
    let [(Ok(_), journey)] = &poll(&mut waiting)[..] else { panic!("it is answered") };
    assert_eq!((journey.attempts, journey.connection), (1, Some(lab.wires[1].0.id())));
    assert_eq!(lab.pool.status().queue_depth, 0);
}
