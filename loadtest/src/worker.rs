//! One thread of the generator: its connections, its callers, its share of the tickets.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    args::ProtocolArg,
    caller::{self, Exchange},
    error::Error,
    grpc, h2c, http1,
    plan::Plan,
    record::{Live, Lost, Recorder, Reply},
    schedule::{Schedule, Share, Ticket},
    source::Source,
};

/// Connections opened at the same time before the start: half of a small listen backlog.
const DIALS_AT_ONCE: usize = 64;

/// What the runner tells all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Connect, then wait.
    Prepare,
    /// Requests begin at this instant.
    Go(Instant),
    /// Start no further request.
    Stop,
}

/// What a worker tells the runner.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its connections stand.
    Ready,
    /// A connection could not be opened; the worker has ended.
    Unreachable(Lost),
    /// All its requests have ended.
    Done(Box<Recorder>),
}

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The plan of the run.
    pub plan: Arc<Plan>,
    /// Which of the workers it is.
    pub share: Share,
    /// Counts shared with the runner.
    pub live: Arc<Live>,
    /// Orders.
    pub commands: watch::Receiver<Command>,
    /// Where its events go.
    pub events: mpsc::Sender<Event>,
}

impl Worker {
    /// Runs on its own thread until all its requests have ended.
    ///
    /// # Errors
    /// [`Error::System`] if the system refuses a runtime or a timer.
    pub(crate) fn run(self) -> Result<(), Error> {
        let failed = |action| move |source| Error::System { action, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed("start a runtime"))?;
        runtime.block_on(self.work()).map_err(failed("use a timer"))
    }

    async fn work(mut self) -> std::io::Result<()> {
        let callers = match self.connect().await {
            Ok(callers) => callers,
            Err(lost) => {
                self.tell(Event::Unreachable(lost)).await;
                return Ok(());
            }
        };
        self.tell(Event::Ready).await;
        let Some(start) = self.wait_for_start().await else { return Ok(()) };

        let Plan { pacing, warmup, extent, .. } = *self.plan;
        let schedule = Schedule::new(pacing, start, warmup, extent, self.share);
        let source = Arc::new(Source::new(pacing, schedule));
        let record = Arc::new(Mutex::new(Recorder::new(self.live.clone())));
        tokio::time::sleep_until(start).await;
        let mut running = JoinSet::new();
        for caller in callers {
            running.spawn(caller::run(self.plan.clone(), source.clone(), record.clone(), caller));
        }
        let mut commands = self.commands.clone();
        let paced = tokio::select! {
            paced = async {
                let paced = source.pace().await;
                while running.join_next().await.is_some() {}
                paced
            } => paced,
            () = until_stopped(&mut commands) => {
                source.close();
                Ok(())
            }
        };
        // After a stop: the requests under way still get their outcome.
        while running.join_next().await.is_some() {}
        let record = std::mem::replace(&mut *record.lock(), Recorder::new(self.live.clone()));
        self.tell(Event::Done(Box::new(record))).await;
        paced
    }

    async fn connect(&self) -> Result<Vec<Caller>, Lost> {
        let Share { index, workers } = self.share;
        let mine = (0..u64::from(self.plan.connections)).filter(|connection| connection % workers == index);
        let dials = mine.map(|_| connect(self.plan.clone(), self.live.clone()));
        let callers: Vec<Vec<Caller>> =
            stream::iter(dials).buffer_unordered(DIALS_AT_ONCE).try_collect().await?;
        Ok(callers.into_iter().flatten().collect())
    }

    async fn wait_for_start(&mut self) -> Option<Instant> {
        loop {
            match *self.commands.borrow_and_update() {
                Command::Go(start) => return Some(start),
                Command::Stop => return None,
                Command::Prepare => {}
            }
            self.commands.changed().await.ok()?;
        }
    }

    async fn tell(&self, event: Event) {
        // The runner is gone only when the program ends.
        let _runner_gone = self.events.send(event).await;
    }
}

/// The callers of one connection.
///
/// # Errors
/// The loss, when the connection cannot be opened.
pub(crate) async fn connect(plan: Arc<Plan>, live: Arc<Live>) -> Result<Vec<Caller>, Lost> {
    if plan.protocol == ProtocolArg::Http1 {
        return Ok(vec![Caller::Http1(http1::Caller::connect(plan, live).await?)]);
    }
    let link = h2c::Link::connect(plan.clone(), live).await?;
    let caller = |_| match plan.protocol {
        ProtocolArg::Grpc => Caller::Grpc(grpc::Caller::new(plan.clone(), link.clone())),
        _ => Caller::H2c(h2c::Caller::new(plan.clone(), link.clone(), plan.path.clone())),
    };
    Ok((0..plan.streams).map(caller).collect())
}

async fn until_stopped(commands: &mut watch::Receiver<Command>) {
    if commands.wait_for(|command| *command == Command::Stop).await.is_err() {
        // No runner, nobody to stop for.
        std::future::pending::<()>().await;
    }
}

/// A caller of any protocol.
#[derive(Debug)]
pub(crate) enum Caller {
    /// HTTP/1.1.
    Http1(http1::Caller),
    /// Cleartext HTTP/2.
    H2c(h2c::Caller),
    /// gRPC.
    Grpc(grpc::Caller),
}

impl Exchange for Caller {
    async fn exchange(&mut self, ticket: &Ticket) -> Result<Reply, Lost> {
        match self {
            Self::Http1(caller) => caller.exchange(ticket).await,
            Self::H2c(caller) => caller.exchange(ticket).await,
            Self::Grpc(caller) => caller.exchange(ticket).await,
        }
    }
}
