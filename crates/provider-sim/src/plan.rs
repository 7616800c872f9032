//! Owns the decision what one request gets: the behaviour of the server, changed by the request's own `sim-…`
//! headers. Pure: it sees heads of requests and never a socket.

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::behaviour::{
    Behaviour, ClientAuth, EarlyResponse, FrameShape, GoAwayForm, GoAwayPoint, ResetPoint, ResetReason,
    Respond, Stall,
};
use crate::ending::Ending;

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
    /// The connection ends because of this request.
    pub(crate) ending: Option<Ending>,
    pub(crate) ending_at: GoAwayPoint,
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
        let mut plan = Self::steered(parts, behaviour, ordinal, jitter);
        let last = behaviour.goaway_after_requests.is_some_and(|limit| ordinal >= u64::from(limit));
        if last && plan.ending.is_none() && plan.intake != Intake::Refuse {
            plan.ending = Some(Ending::of(behaviour));
        }
        plan
    }

    /// The ending of the connection that is due once this point of the request is reached.
    pub(crate) fn ends_at(&self, point: GoAwayPoint) -> Option<&Ending> {
        self.ending.as_ref().filter(|_| self.ending_at == point)
    }

    /// Does anything happen between the last byte of the body and the end of the response?
    pub(crate) fn acts_before_end(&self) -> bool {
        self.stall == Stall::BeforeTrailers
            || matches!(self.reset, Some((ResetPoint::BeforeTrailers, _)))
            || self.ends_at(GoAwayPoint::BeforeTrailers).is_some()
    }

    /// Does anything happen while the request body arrives?
    pub(crate) fn acts_on_request_data(&self) -> bool {
        matches!(self.reset, Some((ResetPoint::MidRequest, _)))
            || self.ends_at(GoAwayPoint::RequestData).is_some()
    }

    fn steered(parts: &Parts, behaviour: &Behaviour, ordinal: u64, jitter: Duration) -> Self {
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
                && let Err(problem) = plan.steer(order, value, behaviour)
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
            ending: None,
            ending_at: behaviour.goaway_at,
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
            ending: None,
            ending_at: GoAwayPoint::Headers,
        }
    }

    fn steer(&mut self, order: &str, value: &HeaderValue, behaviour: &Behaviour) -> Result<(), &'static str> {
        let text = value.to_str().map_err(|_| "not ASCII")?;
        match order {
            "status" => self.status = status(text)?,
            "respond" => self.content = content(text)?,
            "body-bytes" => self.content = Content::Filler(number(text)?),
            "delay-ms" => self.delay = Duration::from_millis(number(text)?),
            "stall" => self.stall = stall(text)?,
            "reset" => {
                let reason = ResetReason::named(text)
                    .ok_or("not the name of a reason, such as `cancel`, nor a number")?;
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
            order => return self.steer_ending(order, text, behaviour),
        }
        Ok(())
    }

    /// The orders that end the connection; any of them does, in the form of the behaviour if no other is given.
    fn steer_ending(&mut self, order: &str, text: &str, behaviour: &Behaviour) -> Result<(), &'static str> {
        let ending = self.ending.get_or_insert_with(|| Ending::of(behaviour));
        match order {
            "goaway" => ending.form = goaway(text)?,
            "goaway-at" => self.ending_at = goaway_point(text)?,
            "goaway-code" => {
                ending.code = ResetReason::named(text)
                    .ok_or("not the name of a reason, such as `enhance_your_calm`, nor a number")?;
            }
            "goaway-debug" => ending.debug = text.into(),
            "goaway-wait-ms" => ending.wait = Duration::from_millis(number(text)?),
            _ => return Err("unknown; the crate documentation of provider-sim lists the steering headers"),
        }
        Ok(())
    }
}

/// The wait beyond the fixed latency: jitter drawn evenly, and now and then a spike. The same for the same seed,
/// connection and request.
pub(crate) fn drawn(behaviour: &Behaviour, seed: u64, connection: u64, ordinal: u64) -> Duration {
    let (jitter, spike) = (behaviour.latency_jitter, behaviour.latency_spike);
    if jitter.is_zero() && spike.is_none() {
        return Duration::ZERO;
    }
    let mut rng = fastrand::Rng::with_seed(seed ^ connection.rotate_left(32) ^ ordinal);
    let wait = jitter.mul_f64(rng.f64());
    match spike {
        Some(spike) if rng.u32(..spike.one_in.max(1)) == 0 => wait + spike.wait,
        _ => wait,
    }
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
        "after_headers" => Ok(Stall::AfterHeaders),
        "mid_body" => Ok(Stall::MidBody),
        "before_trailers" => Ok(Stall::BeforeTrailers),
        "read_nothing" => Ok(Stall::ReadNothing),
        _ => {
            Err("must be `before_response`, `after_headers`, `mid_body`, `before_trailers` or `read_nothing`")
        }
    }
}

fn reset_point(text: &str) -> Result<ResetPoint, &'static str> {
    match text {
        "before_headers" => Ok(ResetPoint::BeforeHeaders),
        "mid_request" => Ok(ResetPoint::MidRequest),
        "after_headers" => Ok(ResetPoint::AfterHeaders),
        "mid_body" => Ok(ResetPoint::MidBody),
        "before_trailers" => Ok(ResetPoint::BeforeTrailers),
        _ => Err("must be `before_headers`, `mid_request`, `after_headers`, `mid_body` or `before_trailers`"),
    }
}

fn goaway(text: &str) -> Result<GoAwayForm, &'static str> {
    let numbered = |prefix: &str| text.strip_prefix(prefix).map(str::parse::<u32>);
    match text {
        "immediate" => Ok(GoAwayForm::Immediate),
        "two_phase" => Ok(GoAwayForm::TwoPhase),
        "zero" => Ok(GoAwayForm::Zero),
        "max_only" => Ok(GoAwayForm::MaxOnly),
        "abrupt" => Ok(GoAwayForm::Abrupt { reason: ResetReason::InternalError }),
        "fin" => Ok(GoAwayForm::Fin),
        "close_notify" => Ok(GoAwayForm::CloseNotify),
        "half_close" => Ok(GoAwayForm::HalfClose),
        "black_hole" => Ok(GoAwayForm::BlackHole),
        "reset" => Ok(GoAwayForm::Reset),
        _ => match (numbered("behind:"), numbered("exact:")) {
            (Some(Ok(streams)), _) => Ok(GoAwayForm::Behind { streams }),
            (_, Some(Ok(last))) => Ok(GoAwayForm::Exact { last }),
            _ => Err("must be `immediate`, `two_phase`, `zero`, `behind:<streams>`, `exact:<last id>`, \
                      `max_only`, `abrupt`, `fin`, `close_notify`, `half_close`, `black_hole` or `reset`"),
        },
    }
}

fn goaway_point(text: &str) -> Result<GoAwayPoint, &'static str> {
    match text {
        "headers" => Ok(GoAwayPoint::Headers),
        "request_data" => Ok(GoAwayPoint::RequestData),
        "response_headers" => Ok(GoAwayPoint::ResponseHeaders),
        "before_trailers" => Ok(GoAwayPoint::BeforeTrailers),
        "after_response" => Ok(GoAwayPoint::AfterResponse),
        _ => Err("must be `headers`, `request_data`, `response_headers`, `before_trailers` or \
                  `after_response`"),
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
    use crate::behaviour::LatencySpike;

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
        let behaviour = Behaviour { latency_jitter: longest, ..Behaviour::default() };
        let draw = |seed| (0..1000).map(|ordinal| drawn(&behaviour, seed, 3, ordinal)).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|wait| *wait <= longest));
        let mean = draw(7).iter().sum::<Duration>() / 1000;
        assert!((Duration::from_millis(9)..Duration::from_millis(11)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn one_request_in_so_many_waits_for_the_spike() {
        let spike = LatencySpike { one_in: 10, wait: Duration::from_secs(1) };
        let behaviour = Behaviour { latency_spike: Some(spike), ..Behaviour::default() };
        let late = |seed| (0..1000).filter(|&n| drawn(&behaviour, seed, 3, n) == spike.wait).count();
        assert_eq!(late(7), late(7));
        assert!((70..130).contains(&late(7)), "seed 7: {}", late(7));
    }

    #[test]
    fn any_order_about_the_end_ends_the_connection_in_the_form_of_the_behaviour() {
        let plan = plan_of(&[("sim-goaway-at", "before_trailers"), ("sim-goaway-code", "enhance_your_calm")]);
        let ending = plan.ends_at(GoAwayPoint::BeforeTrailers).unwrap();
        assert_eq!((ending.form, ending.code), (GoAwayForm::Immediate, ResetReason::EnhanceYourCalm));
        assert!(plan.ends_at(GoAwayPoint::Headers).is_none());
        let plan = plan_of(&[("sim-goaway", "exact:5")]);
        assert_eq!(plan.ends_at(GoAwayPoint::Headers).unwrap().form, GoAwayForm::Exact { last: 5 });
    }

    #[test]
    fn grpc_ends_with_its_status() {
        let plan = plan_of(&[("content-type", "application/grpc+proto")]);
        assert_eq!(plan.trailers.get("grpc-status").unwrap(), "0");
    }
}
