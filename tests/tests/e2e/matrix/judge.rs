//! What must hold at the end of a cell: the reply, the log line, the provider's books, the counts, the metrics.

use std::ops::RangeInclusive;

use tsh_tests::{Lab, Reply, eventually};

use super::{
    cell::Column,
    faults::{Fault, Sees},
    stage::Stage,
};

/// Compares what was seen with what the cell says.
///
/// # Errors
/// What does not hold.
pub(super) async fn judge(
    fault: &Fault,
    column: Column,
    stage: &Stage,
    id: &str,
    reply: &Reply,
) -> Result<(), String> {
    let sees = fault.expected(column);
    the_caller(sees, stage, id, reply).await?;
    at_rest(&stage.lab).await;
    if fault.heals {
        eventually("the next request is answered", async || {
            (stage.lab.get("/after").await.status == 200).then_some(())
        })
        .await;
        at_rest(&stage.lab).await;
    }
    the_provider(fault, stage).await?;
    nothing_lost(sees.lost(), &stage.lab).await
}

/// Reply, log line and the provider's account of this request.
async fn the_caller(expected: Sees, stage: &Stage, id: &str, reply: &Reply) -> Result<(), String> {
    let line = stage.lab.log_line(id).await;
    let outcome = line["outcome"].as_str().unwrap_or_default();
    let seen = stage.provider.sim.seen(id);
    let answered = reply.status == 200 && reply.header("gw-error").is_empty() && reply.cut.is_none();
    let replayed = line["attempts"].as_u64() > Some(1);
    let failed = |codes: &[&str], safe: &str| {
        let code = reply.header("gw-error");
        let agreed = codes.contains(&code) && outcome == code && reply.header("gw-retry-safe") == safe;
        agreed && if safe == "yes" { seen == 0 } else { seen <= 1 }
    };
    let holds = match expected {
        Sees::Answer => answered && outcome == "ok" && seen == 1,
        Sees::Replayed => answered && outcome == "ok" && seen == 1 && replayed,
        Sees::Fails(codes, safe) => failed(codes, safe),
        Sees::UsedUp(codes) => failed(codes, "yes") && line["attempts"] == 3,
        Sees::PerhapsUsedUp(codes) => failed(codes, "yes"),
        Sees::Cut(codes) => {
            // A response that breaks right after it began may take its header with it.
            let broke = matches!(reply.status, 0 | 200) && reply.cut.is_some();
            broke && codes.contains(&outcome) && seen <= 1
        }
        Sees::AnswerOrFails(codes, safe) => (answered && outcome == "ok" && seen == 1) || failed(codes, safe),
    };
    if holds {
        return Ok(());
    }
    let Reply { status, headers, body, cut, .. } = reply;
    let length = body.len();
    Err(format!(
        "expected {expected}; seen {seen}; {status} {headers:?}, {length} bytes, cut {cut:?}; line {line}"
    ))
}

/// The provider processed nothing twice, no stream came above its limit, and none is left open but those that it
/// keeps by falling silent.
async fn the_provider(fault: &Fault, stage: &Stage) -> Result<(), String> {
    let sim = &stage.provider.sim;
    if !sim.duplicated().is_empty() {
        return Err(format!("processed twice: {:?}", sim.duplicated()));
    }
    let left = fault.keeps;
    eventually(&format!("the provider has {left} open streams"), async || {
        (sim.ledger().streams_open == left).then_some(())
    })
    .await;
    match sim.ledger().stream_limit_breaches {
        0 => Ok(()),
        breaches => Err(format!("{breaches} streams above the limit that was acknowledged")),
    }
}

/// Requests that provably were not processed and failed although their body was held.
async fn nothing_lost(allowed: RangeInclusive<u64>, lab: &Lab) -> Result<(), String> {
    let lost = lab.metrics().await.count("tsh_unprocessed_lost_total", &[]);
    if allowed.contains(&lost) { Ok(()) } else { Err(format!("{lost} lost, not {allowed:?}")) }
}

/// Every count of the gateway is back to zero.
async fn at_rest(lab: &Lab) {
    eventually("every count is back to zero", async || {
        let pool = lab.pool("sandbox").await;
        let zero = |name: &str| pool[name].as_u64() == Some(0);
        (zero("in_flight") && zero("queue_depth") && zero("replay_bytes")).then_some(())
    })
    .await;
}
