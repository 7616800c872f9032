//! Owns the decision what one request gets: the behaviour of the server, changed by the request's own `sim-…`
//! headers. Pure: it sees heads of requests and never a socket.

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::behaviour::{
    Behaviour, ClientAuth, EarlyResponse, FrameShape, GoAwayForm, ResetPoint, ResetReason, Respond, Stall,
};

/// More than any client accepts.
const MAX_FILLER: usize = 1 << 20;

/// What one request gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) intake: Intake,
    pub(crate) status: StatusCode,
    pub(crate) content: Content,
    pub(crate) delay: Duration,
    pub(crate) stall: Stall,
    pub(crate) reset: Option<(ResetPoint, ResetReason)>,
    pub(crate) early: EarlyResponse,
    pub(crate) frames: FrameShape,
    pub(crate) trailers: HeaderMap,
    pub(crate) filler_bytes: usize,
    pub(crate) goaway: Option<GoAwayForm>,
}

/// Is the request taken up at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    Process,
    /// REFUSED_STREAM.
    Refuse,
    /// 400, because of the client's certificate or a steering header that makes no sense.
    Reject,
}

/// What the response body is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Echo,
    Filler(u64),
    Text(String),
    Sink,
    Describe,
}

impl Plan {
    /// `ordinal` counts the requests of this connection from 1; `jitter` is drawn by the caller.
    pub(crate) fn new(parts: &Parts, behaviour: &Behaviour, ordinal: u64, jitter: Duration) -> Self {
        let mut plan = Self::from_behaviour(behaviour, ordinal, jitter);
        if plan.intake == Intake::Reject {
            return plan;
        }
        if is_grpc(&parts.headers) {
            plan.trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
        }
        // One walk: nearly every request has none of these, and a look-up for each would cost more.
        for (name, value) in &parts.headers {
            if let Some(order) = name.as_str().strip_prefix("sim-")
                && let Err(problem) = plan.steer(order, value)
            {
                return Self::rejected(format!("sim-{order}: {problem}\n"));
            }
        }
        plan
    }

    fn from_behaviour(behaviour: &Behaviour, ordinal: u64, jitter: Duration) -> Self {
        if behaviour.client_auth == ClientAuth::RefuseHttp {
            return Self::rejected("400 The SSL certificate error\n".to_owned());
        }
        let every = |n: u32| n > 0 && ordinal.is_multiple_of(u64::from(n));
        let (status, content) = match behaviour.respond {
            Respond::Echo => (200, Content::Echo),
            Respond::Fixed { status, body_bytes } => (status, Content::Filler(body_bytes)),
            Respond::Sink => (200, Content::Sink),
            Respond::Describe => (200, Content::Describe),
        };
        Self {
            intake: if behaviour.refuse_every.is_some_and(every) { Intake::Refuse } else { Intake::Process },
            // `Behaviour::validate` has seen to the range.
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
            content,
            delay: behaviour.latency + jitter,
            stall: behaviour.stall,
            reset: behaviour.reset.filter(|rule| every(rule.every_nth)).map(|rule| (rule.at, rule.reason)),
            early: behaviour.early_response,
            frames: behaviour.frames,
            trailers: HeaderMap::new(),
            filler_bytes: 0,
            goaway: None,
        }
    }

    fn rejected(text: String) -> Self {
        Self {
            intake: Intake::Reject,
            status: StatusCode::BAD_REQUEST,
            content: Content::Text(text),
            delay: Duration::ZERO,
            stall: Stall::None,
            reset: None,
            early: EarlyResponse::On,
            frames: FrameShape::Whole,
            trailers: HeaderMap::new(),
            filler_bytes: 0,
            goaway: None,
        }
    }

    fn steer(&mut self, order: &str, value: &HeaderValue) -> Result<(), &'static str> {
        let text = value.to_str().map_err(|_| "not ASCII")?;
        match order {
            "status" => self.status = status(text)?,
            "respond" => self.content = content(text)?,
            "body-bytes" => self.content = Content::Filler(number(text)?),
            "delay-ms" => self.delay = Duration::from_millis(number(text)?),
            "stall" => self.stall = stall(text)?,
            "reset" => {
                let reason = ResetReason::named(text).ok_or("not the name of a reason, such as `cancel`")?;
                self.reset = Some((self.reset.map_or(ResetPoint::default(), |(at, _)| at), reason));
            }
            "reset-at" => {
                let reason = self.reset.map_or(ResetReason::default(), |(_, reason)| reason);
                self.reset = Some((reset_point(text)?, reason));
            }
            "refuse" => self.intake = Intake::Refuse,
            "early" => self.early = EarlyResponse::On,
            "frame-bytes" => match number(text)? {
                0 => return Err("must be at least 1"),
                bytes => self.frames = FrameShape::Sized { bytes: u32::try_from(bytes).unwrap_or(u32::MAX) },
            },
            "empty-frames" => {
                self.frames =
                    FrameShape::EmptyFirst { frames: u32::try_from(number(text)?).map_err(|_| "too many")? };
            }
            "header-bytes" => {
                self.filler_bytes = usize::try_from(number(text)?).unwrap_or(usize::MAX).min(MAX_FILLER);
            }
            "trailers" => trailers(text, &mut self.trailers)?,
            "grpc-status" => {
                self.trailers
                    .insert(HeaderName::from_static("grpc-status"), HeaderValue::from(number(text)?));
            }
            "goaway" => self.goaway = Some(goaway(text)?),
            _ => return Err("unknown; the crate documentation of provider-sim lists the steering headers"),
        }
        Ok(())
    }
}

/// Drawn evenly from zero to `longest`; the same for the same seed, connection and request.
pub(crate) fn drawn(longest: Duration, seed: u64, connection: u64, ordinal: u64) -> Duration {
    if longest.is_zero() {
        return Duration::ZERO;
    }
    let seed = seed ^ connection.rotate_left(32) ^ ordinal;
    longest.mul_f64(fastrand::Rng::with_seed(seed).f64())
}

/// gRPC by content type.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "not a whole number")
}

fn status(text: &str) -> Result<StatusCode, &'static str> {
    let code =
        text.parse().ok().filter(|code| (200..=999).contains(code)).ok_or("not a status of 200 to 999")?;
    StatusCode::from_u16(code).map_err(|_| "not a status of 200 to 999")
}

fn content(text: &str) -> Result<Content, &'static str> {
    match text {
        "echo" => Ok(Content::Echo),
        "sink" => Ok(Content::Sink),
        "describe" => Ok(Content::Describe),
        _ => Err("must be `echo`, `sink` or `describe`"),
    }
}

fn stall(text: &str) -> Result<Stall, &'static str> {
    match text {
        "before_response" => Ok(Stall::BeforeResponse),
        "mid_body" => Ok(Stall::MidBody),
        "read_nothing" => Ok(Stall::ReadNothing),
        _ => Err("must be `before_response`, `mid_body` or `read_nothing`"),
    }
}

fn reset_point(text: &str) -> Result<ResetPoint, &'static str> {
    match text {
        "before_headers" => Ok(ResetPoint::BeforeHeaders),
        "after_headers" => Ok(ResetPoint::AfterHeaders),
        "mid_body" => Ok(ResetPoint::MidBody),
        _ => Err("must be `before_headers`, `after_headers` or `mid_body`"),
    }
}

fn goaway(text: &str) -> Result<GoAwayForm, &'static str> {
    match text {
        "immediate" => Ok(GoAwayForm::Immediate),
        "two_phase" => Ok(GoAwayForm::TwoPhase),
        "zero" => Ok(GoAwayForm::Zero),
        "max_only" => Ok(GoAwayForm::MaxOnly),
        "abrupt" => Ok(GoAwayForm::Abrupt { reason: ResetReason::InternalError }),
        "fin" => Ok(GoAwayForm::Fin),
        "reset" => Ok(GoAwayForm::Reset),
        _ => Err("must be `immediate`, `two_phase`, `zero`, `max_only`, `abrupt`, `fin` or `reset`"),
    }
}

fn trailers(text: &str, into: &mut HeaderMap) -> Result<(), &'static str> {
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=').ok_or("must be `name=value,…`")?;
        let name: HeaderName = name.trim().parse().map_err(|_| "not a header name before `=`")?;
        into.insert(name, value.trim().parse().map_err(|_| "not a header value after `=`")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(headers: &[(&str, &str)]) -> Plan {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Plan::new(&parts, &Behaviour::default(), 1, Duration::ZERO)
    }

    #[test]
    fn a_request_without_orders_gets_the_behaviour_of_the_server() {
        let plan = plan_of(&[("x-simple", "1")]);
        assert_eq!(
            (plan.intake, plan.status, plan.content),
            (Intake::Process, StatusCode::OK, Content::Echo)
        );
    }

    #[test]
    fn orders_of_a_request_win() {
        let plan = plan_of(&[("sim-status", "503"), ("sim-body-bytes", "10"), ("sim-reset-at", "mid_body")]);
        assert_eq!((plan.status.as_u16(), plan.content), (503, Content::Filler(10)));
        assert_eq!(plan.reset, Some((ResetPoint::MidBody, ResetReason::InternalError)));
    }

    #[test]
    fn an_order_that_cannot_be_read_is_rejected_with_its_name() {
        for (name, value) in [("sim-status", "99"), ("sim-statsu", "200"), ("sim-trailers", "x")] {
            let plan = plan_of(&[(name, value)]);
            assert_eq!(plan.intake, Intake::Reject);
            assert!(matches!(plan.content, Content::Text(text) if text.starts_with(name)), "{name}");
        }
    }

    #[test]
    fn jitter_is_repeatable_bounded_and_spread() {
        let longest = Duration::from_millis(20);
        let draw = |seed| (0..1000).map(|ordinal| drawn(longest, seed, 3, ordinal)).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|wait| *wait <= longest));
        let mean = draw(7).iter().sum::<Duration>() / 1000;
        assert!((Duration::from_millis(9)..Duration::from_millis(11)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn grpc_ends_with_its_status() {
        let plan = plan_of(&[("content-type", "application/grpc+proto")]);
        assert_eq!(plan.trailers.get("grpc-status").unwrap(), "0");
    }
}
