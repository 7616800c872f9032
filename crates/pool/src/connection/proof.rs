//! What showed that a connection serves: which sign of the provider's consent was used.
//!
//! Owns the names only. TLS 1.3 lets a handshake succeed although the server refuses our certificate, so every
//! connection waits for one of these; who waits for which is `supervisor::life` and `http1::proof`.

use serde::Serialize;

/// The sign by which a connection was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Our first PING was acknowledged (RFC 9113 §6.7).
    Ping,
    /// Our SETTINGS were acknowledged although PINGs were not (RFC 9113 §6.5.3).
    SettingsAck,
    /// The handshake itself: TLS 1.2 ends only after the server looked at our certificate (RFC 5246 §7.3).
    Handshake,
    /// A TLS 1.3 session ticket, which a server sends after its check (RFC 8446 §4.6.1).
    Ticket,
    /// No alert and no end for as long as an answer takes. The weakest of them.
    QuietWindow,
    /// The application health request was answered as expected.
    HealthRequest,
}

impl Proof {
    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::SettingsAck => "settings_ack",
            Self::Handshake => "handshake",
            Self::Ticket => "ticket",
            Self::QuietWindow => "quiet_window",
            Self::HealthRequest => "health_request",
        }
    }
}
