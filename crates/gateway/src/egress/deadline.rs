//! Deadlines that callers give: read, checked, made into a limit of the exchange, told to the provider.
//!
//! Owns which fields count and what a wrong one is answered. The form of `grpc-timeout` is `grpc::timeout`'s; what
//! is left is written into each attempt by the pool ([`TimeLeft`]).

use std::time::Duration;

use http::{HeaderMap, HeaderName, Request};
use pool::{RetrySafe, TimeForm, TimeLeft, Timeouts};
use tokio::time::Instant;

use super::{
    headers::{Content, Survey},
    reply::Failure,
};
use crate::{
    grpc::timeout::{self, GRPC_TIMEOUT},
    outcome::ErrorCode,
};

/// Deadlines beyond this are as good as none: the longest that `timeouts.total_ms` may be.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Most digits in the configured field: far more than [`LONGEST`].
const MOST_DIGITS: usize = 10;

/// How long a caller waits, counted from the end of its request's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadline {
    /// `None`: for as long as the configuration allows.
    wait: Option<Duration>,
    told: Told,
}

/// The fields that the caller gave; these and no others are passed on, with what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    grpc: bool,
    configured: bool,
}

impl Deadline {
    /// What the fields of a request ask for. `grpc-timeout` counts with a content type of gRPC alone.
    ///
    /// # Errors
    /// A field in a wrong form, or one that leaves no time.
    pub(super) fn of(
        headers: &HeaderMap,
        found: &Survey,
        configured: Option<&HeaderName>,
    ) -> Result<Self, Failure> {
        let mut deadline = Self::default();
        if found.grpc_timeout && found.content != Content::Plain {
            deadline.told.grpc = true;
            deadline.lower(&GRPC_TIMEOUT, read(headers, &GRPC_TIMEOUT, timeout::parse, timeout::FORM)?)?;
        }
        if let Some(name) = configured
            && headers.contains_key(name)
        {
            deadline.told.configured = true;
            deadline.lower(name, read(headers, name, parse_millis, "milliseconds in 1 to 10 digits")?)?;
        }
        Ok(deadline)
    }

    /// A further deadline that holds as well.
    pub(super) fn and(mut self, other: Option<Duration>) -> Self {
        self.wait = self.wait.into_iter().chain(other.map(|wait| wait.min(LONGEST))).min();
        self
    }

    fn lower(&mut self, name: &HeaderName, wait: Duration) -> Result<(), Failure> {
        if wait.is_zero() {
            return Err(Failure {
                retry_safe: RetrySafe::Yes,
                ..Failure::early(
                    ErrorCode::DeadlineExceeded,
                    format!("`{name}` leaves no time: nothing was sent to the provider"),
                )
            });
        }
        *self = self.and(Some(wait));
        Ok(())
    }

    /// Lowers the limit of the whole exchange, which began at `began`; never raises it. Puts what the provider is
    /// to be told into the request, whose header is already fit for it.
    pub(super) fn apply<B>(
        &self,
        timeouts: &mut Timeouts,
        request: &mut Request<B>,
        began: Instant,
        configured: Option<&HeaderName>,
    ) {
        let Some(wait) = self.wait else { return };
        let total = timeouts.total.map_or(wait, |total| total.min(wait));
        let deadline = began + total;
        timeouts.total = Some(deadline.saturating_duration_since(Instant::now()));
        // A field that belonged to the caller's hop is gone by now, and stays so.
        let fields: Vec<_> = [
            self.told.grpc.then_some((GRPC_TIMEOUT, TimeForm::Grpc)),
            configured.filter(|_| self.told.configured).map(|name| (name.clone(), TimeForm::Millis)),
        ]
        .into_iter()
        .flatten()
        .filter(|(name, _)| request.headers().contains_key(name))
        .collect();
        if !fields.is_empty() {
            request.extensions_mut().insert(TimeLeft { deadline, fields });
        }
    }
}

/// The one value of a field.
fn read(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&[u8]) -> Option<Duration>,
    form: &str,
) -> Result<Duration, Failure> {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|value| parse(value.as_bytes())), values.next()) {
        (Some(wait), None) => Ok(wait),
        _ => Err(Failure::early(
            ErrorCode::BadRequest,
            format!("`{name}` is not a time to wait: give it once, as {form}"),
        )),
    }
}

fn parse_millis(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > MOST_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Duration::from_millis(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::{super::headers::survey, *};

    const CONFIGURED: HeaderName = HeaderName::from_static("x-wait-ms");

    fn asked(fields: &[(&'static str, &'static str)]) -> (Request<()>, Result<Deadline, Failure>) {
        let mut request = Request::new(());
        for (name, value) in fields {
            request.headers_mut().append(*name, http::HeaderValue::from_static(value));
        }
        let deadline = Deadline::of(request.headers(), &survey(request.headers()), Some(&CONFIGURED));
        (request, deadline)
    }

    fn wait(fields: &[(&'static str, &'static str)]) -> Option<Duration> {
        asked(fields).1.unwrap().wait
    }

    #[test]
    fn grpc_timeout_counts_for_grpc_alone_and_the_configured_field_for_all() {
        let grpc = ("content-type", "application/grpc+proto");
        assert_eq!(wait(&[grpc, ("grpc-timeout", "2S")]), Some(Duration::from_secs(2)));
        assert_eq!(wait(&[("content-type", "application/json"), ("grpc-timeout", "2S")]), None);
        assert_eq!(wait(&[("grpc-timeout", "nonsense")]), None);
        assert_eq!(wait(&[("x-wait-ms", "1500")]), Some(Duration::from_millis(1500)));
        assert_eq!(wait(&[grpc, ("grpc-timeout", "2S"), ("x-wait-ms", "9")]), Some(Duration::from_millis(9)));
        assert_eq!(wait(&[grpc, ("grpc-timeout", "99999999H")]), Some(LONGEST));
    }

    #[test]
    fn a_wrong_form_is_named_with_the_field_and_the_right_one() {
        let grpc = ("content-type", "application/grpc");
        for fields in [
            &[grpc, ("grpc-timeout", "2s")][..],
            &[grpc, ("grpc-timeout", "123456789n")],
            &[grpc, ("grpc-timeout", "1S"), ("grpc-timeout", "2S")],
        ] {
            let failure = asked(fields).1.unwrap_err();
            assert_eq!((failure.code, failure.retry_safe), (ErrorCode::BadRequest, RetrySafe::No));
            assert!(failure.detail.contains("grpc-timeout") && failure.detail.contains(timeout::FORM));
        }
        for value in ["", "1s", "-1", "1.5", "12345678901", "1, 2"] {
            let failure = asked(&[("x-wait-ms", value)]).1.unwrap_err();
            assert_eq!(failure.code, ErrorCode::BadRequest, "{value:?}");
            assert!(failure.detail.contains("x-wait-ms") && failure.detail.contains("milliseconds"));
        }
    }

    #[test]
    fn no_time_left_is_a_deadline_that_passed_with_nothing_sent() {
        for fields in [
            &[("x-wait-ms", "0")][..],
            &[("content-type", "application/grpc"), ("grpc-timeout", "0n"), ("x-wait-ms", "5")],
        ] {
            let failure = asked(fields).1.unwrap_err();
            assert_eq!((failure.code, failure.retry_safe), (ErrorCode::DeadlineExceeded, RetrySafe::Yes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_lowered_and_never_raised_and_the_given_fields_alone_are_told() {
        let began = Instant::now();
        tokio::time::advance(Duration::from_millis(10)).await;
        for (total, left) in [(None, 90), (Some(5_000), 90), (Some(50), 40)] {
            let (mut request, deadline) = asked(&[("x-wait-ms", "100"), ("grpc-timeout", "1H")]);
            let mut timeouts = Timeouts { total: total.map(Duration::from_millis), ..Timeouts::default() };
            deadline.unwrap().apply(&mut timeouts, &mut request, began, Some(&CONFIGURED));
            assert_eq!(timeouts.total, Some(Duration::from_millis(left)), "{total:?}");
            let told = request.extensions().get::<TimeLeft>().unwrap();
            assert_eq!(told.deadline, Instant::now() + Duration::from_millis(left));
            assert_eq!(
                told.fields,
                [(CONFIGURED, TimeForm::Millis)],
                "this grpc-timeout is not ours to read"
            );
        }
        let (mut request, deadline) = asked(&[("accept", "*/*")]);
        let mut timeouts = Timeouts::default();
        deadline.unwrap().apply(&mut timeouts, &mut request, began, Some(&CONFIGURED));
        assert_eq!((timeouts.total, request.extensions().get::<TimeLeft>().is_none()), (None, true));
    }
}
