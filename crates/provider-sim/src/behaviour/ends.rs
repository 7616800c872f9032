//! Owns the choices how connections and streams end: forms, moments, codes. It does not own how it is done.

use serde::{Deserialize, Serialize};

/// How an HTTP/2 connection is brought to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GoAwayForm {
    /// The way of nginx: one GOAWAY with the last processed id. What is in flight finishes; what crosses it on
    /// the wire is ignored, unprocessed.
    #[default]
    Immediate,
    /// The way of RFC 9113 §6.8: GOAWAY(2^31-1), a round trip, GOAWAY(last). Nothing is lost.
    TwoPhase,
    /// GOAWAY(0): everything in flight is disowned, unprocessed.
    Zero,
    /// GOAWAY with a last id this many streams below the newest: those above are disowned, the others finish.
    Behind {
        /// How many streams are disowned.
        streams: u32,
    },
    /// GOAWAY(2^31-1) and no second one; new streams are still served.
    MaxOnly,
    /// GOAWAY with the last id and an error code, then the end at once: what is in flight is lost, and may
    /// have been processed.
    Abrupt {
        /// The error code.
        reason: ResetReason,
    },
    /// GOAWAY with exactly this last id: streams above it are disowned, the others finish.
    Exact {
        /// The last stream id, 0 to 2^31-1.
        last: u32,
    },
    /// No GOAWAY: TCP FIN without the `close_notify` alert of TLS, with requests in flight or not.
    Fin,
    /// No GOAWAY: `close_notify`, then FIN. What is in flight is lost.
    CloseNotify,
    /// No GOAWAY: FIN, while the server goes on reading. What it reads it drops, and it answers no more.
    HalfClose,
    /// No GOAWAY, no FIN: the server neither reads nor writes any more, and keeps the socket.
    BlackHole,
    /// No GOAWAY: TCP RST.
    Reset,
}

/// When, within a request, the connection is ended because of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoAwayPoint {
    /// As soon as the request's header block has arrived.
    #[default]
    Headers,
    /// After the first DATA frame of the request body. Never for a request without body.
    RequestData,
    /// After the response headers.
    ResponseHeaders,
    /// Between the last DATA frame of the response and its trailers or end.
    BeforeTrailers,
    /// After the response.
    AfterResponse,
}

/// Does an HTTP/1.1 server say that it closes?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Http1Close {
    /// The last response carries `Connection: close`.
    #[default]
    Announced,
    /// It does not: the connection closes right after the response.
    Silent,
}

/// Error codes of RST_STREAM and GOAWAY (RFC 9113 §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// INTERNAL_ERROR (2).
    #[default]
    InternalError,
    /// NO_ERROR (0).
    NoError,
    /// PROTOCOL_ERROR (1).
    ProtocolError,
    /// FLOW_CONTROL_ERROR (3).
    FlowControlError,
    /// SETTINGS_TIMEOUT (4).
    SettingsTimeout,
    /// STREAM_CLOSED (5).
    StreamClosed,
    /// FRAME_SIZE_ERROR (6).
    FrameSizeError,
    /// REFUSED_STREAM (7).
    RefusedStream,
    /// CANCEL (8).
    Cancel,
    /// COMPRESSION_ERROR (9).
    CompressionError,
    /// CONNECT_ERROR (10).
    ConnectError,
    /// ENHANCE_YOUR_CALM (11).
    EnhanceYourCalm,
    /// INADEQUATE_SECURITY (12).
    InadequateSecurity,
    /// HTTP_1_1_REQUIRED (13).
    Http11Required,
    /// Any other number.
    Code(u32),
}

impl ResetReason {
    /// The name as files and headers have it gives the reason; a number gives the code.
    pub(crate) fn named(name: &str) -> Option<Self> {
        if let Ok(code) = name.parse() {
            return Some(Self::Code(code));
        }
        use serde::de::IntoDeserializer as _;
        let name: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Self::deserialize(name).ok()
    }

    pub(crate) fn code(self) -> h2::Reason {
        match self {
            Self::NoError => h2::Reason::NO_ERROR,
            Self::ProtocolError => h2::Reason::PROTOCOL_ERROR,
            Self::InternalError => h2::Reason::INTERNAL_ERROR,
            Self::FlowControlError => h2::Reason::FLOW_CONTROL_ERROR,
            Self::RefusedStream => h2::Reason::REFUSED_STREAM,
            Self::Cancel => h2::Reason::CANCEL,
            Self::EnhanceYourCalm => h2::Reason::ENHANCE_YOUR_CALM,
            Self::Http11Required => h2::Reason::HTTP_1_1_REQUIRED,
            Self::SettingsTimeout => h2::Reason::SETTINGS_TIMEOUT,
            Self::StreamClosed => h2::Reason::STREAM_CLOSED,
            Self::FrameSizeError => h2::Reason::FRAME_SIZE_ERROR,
            Self::CompressionError => h2::Reason::COMPRESSION_ERROR,
            Self::ConnectError => h2::Reason::CONNECT_ERROR,
            Self::InadequateSecurity => h2::Reason::INADEQUATE_SECURITY,
            Self::Code(code) => h2::Reason::from(code),
        }
    }
}

/// When a stream is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetPoint {
    /// Instead of a response, after the request was processed.
    #[default]
    BeforeHeaders,
    /// In the middle of the request body: after its first DATA frame. A request without body is not reset.
    MidRequest,
    /// After the response headers.
    AfterHeaders,
    /// In the middle of the response body.
    MidBody,
    /// After the response body, instead of trailers and end.
    BeforeTrailers,
}
