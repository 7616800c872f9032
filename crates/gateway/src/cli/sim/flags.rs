//! The flags that say how the simulated provider behaves, and their forms on a command line.

use std::time::Duration;

use clap::{Args, ValueEnum};
use provider_sim::{
    Behaviour, ClientAuth, GoAwayForm, HttpVersions, ResetReason, Respond, Resumption, TlsVersions,
};

/// How the simulated provider behaves; each default is that of an honest, quick provider.
#[derive(Clone, Debug, Args)]
pub struct BehaviourArgs {
    /// End each HTTP/2 connection after this many requests (HTTP/1.1: `Connection: close`).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub goaway_after_requests: Option<u32>,
    /// End each connection at this age.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub goaway_after_ms: Option<u64>,
    /// How connections end: immediate (as nginx), two-phase, zero, behind:N, max-only, abrupt, fin or reset.
    #[arg(long, value_name = "FORM", default_value = "immediate", value_parser = goaway_form)]
    pub goaway_form: GoAwayForm,
    /// Wait before each response.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub latency_ms: u64,
    /// Further wait, drawn evenly from zero to this.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub latency_jitter_ms: u64,
    /// Streams at once on one connection; 0 announces no limit.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_concurrent_streams: u32,
    /// TLS 1.3 tickets after a full handshake.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub tickets: u32,
    /// Give tickets and never take one: each handshake is full.
    #[arg(long)]
    pub no_resumption: bool,
    /// HTTP versions offered.
    #[arg(long, value_enum, default_value_t = HttpFlag::Both)]
    pub http: HttpFlag,
    /// TLS versions offered.
    #[arg(long, value_enum, default_value_t = TlsFlag::Both)]
    pub tls: TlsFlag,
    /// What to answer: echo, sink, describe or fixed:STATUS:BYTES.
    #[arg(long, value_name = "FORM", default_value = "echo", value_parser = respond)]
    pub respond: Respond,
    /// What is asked of the client's certificate.
    #[arg(long, value_enum, default_value_t = ClientAuthFlag::Pinned)]
    pub client_auth: ClientAuthFlag,
}

/// HTTP versions, as ALPN names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HttpFlag {
    /// HTTP/2, then HTTP/1.1.
    #[value(name = "h2+http/1.1")]
    Both,
    /// HTTP/2 alone.
    #[value(name = "h2")]
    H2,
    /// HTTP/1.1 alone.
    #[value(name = "http/1.1")]
    Http11,
    /// HTTP/1.1, and no ALPN.
    #[value(name = "none")]
    NoAlpn,
}

/// TLS versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsFlag {
    /// 1.2 and 1.3.
    #[value(name = "1.2+1.3")]
    Both,
    /// 1.2 alone.
    #[value(name = "1.2")]
    Tls12,
    /// 1.3 alone.
    #[value(name = "1.3")]
    Tls13,
}

/// What is asked of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuthFlag {
    /// It must be the one in --out, byte for byte.
    Pinned,
    /// Refused when it arrives: with TLS 1.3 after the client's handshake has succeeded.
    RefuseLate,
    /// Every handshake is refused at its first message.
    RefuseEarly,
    /// TLS succeeds with any; every request is answered 400, as nginx does.
    RefuseHttp,
}

impl BehaviourArgs {
    /// The same as data.
    pub(super) fn behaviour(&self) -> Behaviour {
        Behaviour {
            http: match self.http {
                HttpFlag::Both => HttpVersions::H2AndHttp11,
                HttpFlag::H2 => HttpVersions::H2Only,
                HttpFlag::Http11 => HttpVersions::Http11Only,
                HttpFlag::NoAlpn => HttpVersions::NoAlpn,
            },
            tls: match self.tls {
                TlsFlag::Both => TlsVersions::Both,
                TlsFlag::Tls12 => TlsVersions::Tls12Only,
                TlsFlag::Tls13 => TlsVersions::Tls13Only,
            },
            client_auth: match self.client_auth {
                ClientAuthFlag::Pinned => ClientAuth::PinnedLeaf,
                ClientAuthFlag::RefuseLate => ClientAuth::RefuseLate,
                ClientAuthFlag::RefuseEarly => ClientAuth::RefuseEarly,
                ClientAuthFlag::RefuseHttp => ClientAuth::RefuseHttp,
            },
            tickets: self.tickets,
            resumption: if self.no_resumption { Resumption::Refuse } else { Resumption::Enabled },
            goaway_after_requests: self.goaway_after_requests,
            goaway_after: self.goaway_after_ms.map(Duration::from_millis),
            goaway_form: self.goaway_form,
            latency: Duration::from_millis(self.latency_ms),
            latency_jitter: Duration::from_millis(self.latency_jitter_ms),
            max_concurrent_streams: Some(self.max_concurrent_streams).filter(|&limit| limit > 0),
            respond: self.respond,
            ..Behaviour::default()
        }
    }
}

fn goaway_form(text: &str) -> Result<GoAwayForm, String> {
    Ok(match text {
        "immediate" => GoAwayForm::Immediate,
        "two-phase" => GoAwayForm::TwoPhase,
        "zero" => GoAwayForm::Zero,
        "max-only" => GoAwayForm::MaxOnly,
        "abrupt" => GoAwayForm::Abrupt { reason: ResetReason::InternalError },
        "fin" => GoAwayForm::Fin,
        "reset" => GoAwayForm::Reset,
        _ => match text.strip_prefix("behind:").map(str::parse) {
            Some(Ok(streams)) => GoAwayForm::Behind { streams },
            Some(Err(_)) => return Err("behind:N takes a whole number of streams".to_owned()),
            None => {
                return Err(
                    "take immediate, two-phase, zero, behind:N, max-only, abrupt, fin or reset".to_owned()
                );
            }
        },
    })
}

fn respond(text: &str) -> Result<Respond, String> {
    match text {
        "echo" => return Ok(Respond::Echo),
        "sink" => return Ok(Respond::Sink),
        "describe" => return Ok(Respond::Describe),
        _ => {}
    }
    let fixed = text.strip_prefix("fixed:").and_then(|rest| rest.split_once(':'));
    let Some((status, bytes)) = fixed else {
        return Err("take echo, sink, describe or fixed:STATUS:BYTES".to_owned());
    };
    match (status.parse(), bytes.parse()) {
        (Ok(status @ 200..=999), Ok(body_bytes)) => Ok(Respond::Fixed { status, body_bytes }),
        (Ok(_), Ok(_)) => Err("the status is 200 to 999".to_owned()),
        _ => Err("fixed:STATUS:BYTES takes two whole numbers, as in fixed:200:1024".to_owned()),
    }
}
