//! Which connections are asked for.

use std::net::{IpAddr, SocketAddr};

use pool::{CauseOfDeath, ConnectionId, ConnectionStatus, ObituaryFilter, Protocol, State};
use time::{Duration, OffsetDateTime};

use crate::admin::parameters::{BadParameter, Parameters};

/// The parameters that there are.
pub(super) const PARAMETERS: &[&str] =
    &["environment", "state", "cause", "protocol", "generation", "address", "id", "since", "limit"];

/// Entries in an answer unless asked otherwise, and at most.
const DEFAULT_LIMIT: usize = 100;
const MOST: usize = 10_000;

/// Ten years: more seconds than any process lives.
const LONGEST_AGO: u32 = 315_360_000;

/// Which states are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    Living,
    Dead,
    In(State),
}

const STATES: [(Wanted, &str); 7] = [
    (Wanted::Living, "living"),
    (Wanted::Dead, "dead"),
    (Wanted::In(State::Dialing), "dialing"),
    (Wanted::In(State::Proving), "proving"),
    (Wanted::In(State::Serving), "serving"),
    (Wanted::In(State::Draining), "draining"),
    (Wanted::Dead, "closed"),
];

const PROTOCOLS: [(Protocol, &str); 2] = [(Protocol::H2, "h2"), (Protocol::Http11, "http/1.1")];

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    wanted: Wanted,
    /// What holds for dead connections; of living ones all of it but cause and time.
    pub(super) dead: ObituaryFilter,
    pub(super) limit: usize,
}

impl Filter {
    /// Reads a query; `environments` are those that there are.
    pub(super) fn parse(
        query: &str,
        environments: &[&str],
        now: OffsetDateTime,
    ) -> Result<Self, BadParameter> {
        let parameters = Parameters::parse(query, PARAMETERS)?;
        let address = parameters.read("address", "an IP address with or without a port", address)?;
        let number = |value: &str| value.parse::<u64>().ok();
        let ago = |value: &str| value.parse::<u32>().ok().filter(|seconds| *seconds <= LONGEST_AGO);
        let since = parameters.read("since", "a number of seconds", ago)?;
        let dead = ObituaryFilter {
            environment: environment(&parameters, environments)?,
            cause: parameters.choose("cause", CauseOfDeath::ALL.map(|cause| (cause, cause.as_str())))?,
            protocol: parameters.choose("protocol", PROTOCOLS)?,
            generation: parameters.read("generation", "the serial of a generation", number)?,
            ip: address.map(|(ip, _)| ip),
            port: address.and_then(|(_, port)| port),
            since: since.map(|seconds| now.saturating_sub(Duration::seconds(seconds.into()))),
            id: parameters.read("id", "the number of a connection, such as 7 or c7", |value| {
                number(value.strip_prefix('c').unwrap_or(value)).map(ConnectionId)
            })?,
        };
        let wanted = parameters.choose("state", STATES)?.unwrap_or(Wanted::Any);
        Ok(Self { wanted, dead, limit: parameters.limit(DEFAULT_LIMIT, MOST)? })
    }

    pub(super) fn wants_dead(&self) -> bool {
        matches!(self.wanted, Wanted::Any | Wanted::Dead)
    }

    /// A cause is something that only dead ones have.
    pub(super) fn wants_living(&self) -> bool {
        self.wanted != Wanted::Dead && self.dead.cause.is_none()
    }

    pub(super) fn wants_environment(&self, name: &str) -> bool {
        self.dead.environment.as_deref().is_none_or(|wanted| wanted == name)
    }

    /// Whether this living one is wanted, its environment aside.
    pub(super) fn wants(&self, connection: &ConnectionStatus) -> bool {
        let dead = &self.dead;
        let in_state = match self.wanted {
            Wanted::Any | Wanted::Living => true,
            Wanted::Dead => false,
            Wanted::In(state) => connection.state == state,
        };
        let address = connection.address.parse::<SocketAddr>().ok();
        in_state
            && dead.id.is_none_or(|id| connection.id == id)
            && dead.protocol.is_none_or(|protocol| connection.protocol == protocol)
            && dead.generation.is_none_or(|generation| connection.generation == generation)
            && dead.ip.is_none_or(|ip| address.is_some_and(|address| address.ip() == ip))
            && dead.port.is_none_or(|port| address.is_some_and(|address| address.port() == port))
    }
}

fn environment(parameters: &Parameters<'_>, known: &[&str]) -> Result<Option<String>, BadParameter> {
    match parameters.get("environment") {
        Some(name) if !known.contains(&name) => {
            Err(BadParameter::value("environment", name, known.iter().copied()))
        }
        name => Ok(name.map(str::to_owned)),
    }
}

/// An address with or without its port.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    match text.parse::<SocketAddr>() {
        Ok(address) => Some((address.ip(), Some(address.port()))),
        Err(_) => {
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            bare.parse().ok().map(|ip| (ip, None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_port_and_brackets() {
        let v6: IpAddr = "::1".parse().unwrap();
        assert_eq!(address("[::1]:443"), Some((v6, Some(443))));
        assert_eq!(address("::1"), Some((v6, None)));
        assert_eq!(address("[::1]"), Some((v6, None)));
        assert_eq!(address("192.0.2.1:9"), Some(("192.0.2.1".parse().unwrap(), Some(9))));
        assert_eq!(address("tsh.example"), None);
    }
}
