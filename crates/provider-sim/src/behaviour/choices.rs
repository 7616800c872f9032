//! Owns the exclusive choices inside [`Behaviour`](super::Behaviour): one enum each, default first. It does not
//! own how connections and streams end.

use serde::{Deserialize, Serialize};

/// HTTP versions that the server offers by ALPN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpVersions {
    /// `h2`, then `http/1.1`.
    #[default]
    H2AndHttp11,
    /// `h2` alone: a client that offers only HTTP/1.1 gets `no_application_protocol`.
    H2Only,
    /// `http/1.1` alone.
    Http11Only,
    /// No ALPN at all, HTTP/1.1 spoken.
    NoAlpn,
}

/// TLS versions that the server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 alone.
    Tls12Only,
    /// 1.3 alone.
    Tls13Only,
}

/// Key exchange groups that the server takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyExchange {
    /// Every one that the library has, the hybrid X25519MLKEM768 too.
    #[default]
    Any,
    /// Those without a post-quantum half.
    Classical,
}

/// What is asked of the client's certificate. None of these grants anything by address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// The leaf must be, byte for byte, one that is endorsed, in its validity window, with the listed CN.
    #[default]
    PinnedLeaf,
    /// Every certificate is refused when it arrives. With TLS 1.3 the client's handshake has succeeded by
    /// then and the alert comes with its first read; with TLS 1.2 the handshake itself fails.
    RefuseLate,
    /// Every ClientHello is answered with an alert.
    RefuseEarly,
    /// The way of nginx: TLS completes with any certificate, PING is answered, every request gets 400.
    RefuseHttp,
}

/// The TLS alert of a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalAlert {
    /// access_denied (49).
    #[default]
    AccessDenied,
    /// bad_certificate (42).
    BadCertificate,
    /// unsupported_certificate (43).
    UnsupportedCertificate,
    /// certificate_revoked (44).
    CertificateRevoked,
    /// certificate_expired (45).
    CertificateExpired,
    /// certificate_unknown (46).
    CertificateUnknown,
    /// unknown_ca (48).
    UnknownCa,
}

impl RefusalAlert {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::BadCertificate => 42,
            Self::UnsupportedCertificate => 43,
            Self::CertificateRevoked => 44,
            Self::CertificateExpired => 45,
            Self::CertificateUnknown => 46,
            Self::UnknownCa => 48,
            Self::AccessDenied => 49,
        }
    }
}

/// Whether tickets lead to resumed handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resumption {
    /// Yes.
    #[default]
    Enabled,
    /// Tickets are given and never taken: each handshake is full.
    Refuse,
}

/// Where the server stops dead and stays so until the client gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stall {
    /// Nowhere.
    #[default]
    None,
    /// TCP is accepted, the ClientHello never answered.
    AtHandshake,
    /// The ClientHello is answered with the first bytes of a ServerHello, and no more.
    MidHandshake,
    /// TLS completes, then not one byte: no SETTINGS, no PONG.
    BeforeSettings,
    /// Requests are read (and count as processed), never answered.
    BeforeResponse,
    /// Response headers, then nothing.
    AfterHeaders,
    /// Response headers and half of the body, then nothing.
    MidBody,
    /// Response headers and the whole body, but neither trailers nor the end.
    BeforeTrailers,
    /// Request bodies are not read: no window update, no answer.
    ReadNothing,
}

/// What becomes of PING frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pings {
    /// Answered.
    #[default]
    Answer,
    /// Swallowed: a black hole.
    Ignore,
    /// The first so many of a connection are answered, the others swallowed.
    IgnoreAfter {
        /// How many are answered.
        answered: u32,
    },
}

/// What the answer is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Respond {
    /// 200 with the request's body, streamed as it arrives, and its content type. Trailers come back too.
    #[default]
    Echo,
    /// This status with a body of this many bytes.
    Fixed {
        /// Status code, 200 to 999.
        status: u16,
        /// Length of the body in bytes.
        body_bytes: u64,
    },
    /// The body is read to its end; 200 with `{"received":n}`.
    Sink,
    /// The body is read to its end; 200 with a JSON description of the request as it arrived: method, path,
    /// authority, version, headers, trailers, bytes received.
    Describe,
}

/// How response bodies are cut into DATA frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FrameShape {
    /// As large as window and frame size allow.
    #[default]
    Whole,
    /// Frames of this many bytes.
    Sized {
        /// Bytes per frame, at least 1.
        bytes: u32,
    },
    /// This many empty frames before the body.
    EmptyFirst {
        /// How many.
        frames: u32,
    },
}
