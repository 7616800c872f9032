//! The life of a connection: one enum, one transition function.

use serde::Serialize;

/// Where a connection stands. Streams start only in [`State::Serving`].
///
/// ```text
/// Dialing ──handshake──▶ Proving ──proof──▶ Serving ──retire──▶ Draining ──last stream──▶ Closed
///    └───────failure────────┴────────────────end────┴──────────────end──────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// Resolving, connecting, shaking hands.
    Dialing,
    /// The handshake ended; our first PING is on its way. TLS 1.3 lets a handshake succeed although the server
    /// refuses our certificate, so this is not yet a connection.
    Proving,
    /// The PING was acknowledged: the provider took our certificate, speaks HTTP/2, and its limits are known.
    Serving,
    /// No new streams; those that run may end.
    Draining,
    /// Gone.
    Closed,
}

/// What moves a connection from state to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The handshake ended well and the pins hold.
    HandshakeDone,
    /// The proof arrived.
    Proved,
    /// It is to take no new streams: age, GOAWAY, PING failure, replaced generation, surplus, stop.
    Retire,
    /// The transport ended, or the last stream of a draining connection did.
    End,
}

/// A move that the table does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a connection that is {from:?} cannot take {event:?}")]
pub struct Illegal {
    /// The state it was in.
    pub from: State,
    /// The event.
    pub event: Event,
}

impl State {
    /// All states.
    pub const ALL: [State; 5] = [Self::Dialing, Self::Proving, Self::Serving, Self::Draining, Self::Closed];

    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialing => "dialing",
            Self::Proving => "proving",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Closed => "closed",
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Illegal`] for a move that makes no sense; the caller has a bug.
    pub fn next(self, event: Event) -> Result<State, Illegal> {
        match (self, event) {
            (Self::Dialing, Event::HandshakeDone) => Ok(Self::Proving),
            (Self::Proving, Event::Proved) => Ok(Self::Serving),
            (Self::Serving | Self::Draining, Event::Retire) => Ok(Self::Draining),
            // A connection that has not served has nothing to drain.
            (Self::Dialing | Self::Proving, Event::Retire) => Ok(Self::Closed),
            (_, Event::End) => Ok(Self::Closed),
            (Self::Closed, Event::Retire) => Ok(Self::Closed),
            (from, event) => Err(Illegal { from, event }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, so that any change to the machine shows in review.
    #[test]
    fn the_table_of_moves() {
        let mut table = String::new();
        for from in State::ALL {
            for event in [Event::HandshakeDone, Event::Proved, Event::Retire, Event::End] {
                let to = from.next(event).map_or("-", State::as_str);
                table.push_str(&format!("{} {event:?} {to}\n", from.as_str()));
            }
        }
        assert_eq!(
            table,
            "dialing HandshakeDone proving\ndialing Proved -\ndialing Retire closed\ndialing End closed\n\
             proving HandshakeDone -\nproving Proved serving\nproving Retire closed\nproving End closed\n\
             serving HandshakeDone -\nserving Proved -\nserving Retire draining\nserving End closed\n\
             draining HandshakeDone -\ndraining Proved -\ndraining Retire draining\ndraining End closed\n\
             closed HandshakeDone -\nclosed Proved -\nclosed Retire closed\nclosed End closed\n"
        );
    }
}
