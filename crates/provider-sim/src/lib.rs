//! A stand-in for the Thales backend: a real mutual-TLS server on loopback, HTTP/2 and HTTP/1.1, that behaves
//! like the provider and misbehaves on request. Used by tests, demo, benches and load tests.
//!
//! It owns its PKI (made anew at each start; nothing secret is stored), the pinning of exact client leaves, the
//! [`Behaviour`] as data that can be changed live, and the books ([`Ledger`]) of what it saw. It does not own
//! any client, and it is no model of the provider's API: bodies mean nothing to it.
//!
//! ```
//! # tokio_test();
//! # fn tokio_test() { tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use provider_sim::{ClientSpec, Pki, PkiOptions, Simulator, SimulatorOptions};
//!
//! let pki = Arc::new(Pki::generate(PkiOptions::default())?);
//! let client = pki.issue_client(ClientSpec::named("CUSTOMER-0001-SBX"))?;
//! let simulator =
//!     Simulator::start(SimulatorOptions { endorsed: vec![client.endorsed()], ..SimulatorOptions::new(pki) }).await?;
//! assert!(simulator.addr().ip().is_loopback());
//! assert_eq!(simulator.ledger().requests, 0);
//! simulator.stop().await;
//! # Ok::<(), provider_sim::SimError>(()) }).unwrap(); }
//! ```
//!
//! # Steering single requests
//! Headers of a request change what happens to it alone, over what [`Behaviour`] says. A value that cannot be
//! read is answered 400 with the reason.
//!
//! | header | value | effect |
//! |---|---|---|
//! | `sim-status` | 200…999 | status of the response |
//! | `sim-respond` | `echo`, `sink`, `describe` | what the response is made of |
//! | `sim-body-bytes` | number | a response body of this many bytes |
//! | `sim-delay-ms` | number | wait this long before the response |
//! | `sim-stall` | `before_response`, `mid_body`, `read_nothing` | stop dead there |
//! | `sim-reset` | a [`ResetReason`], e.g. `cancel` | RST_STREAM; HTTP/1.1: the connection breaks |
//! | `sim-reset-at` | `before_headers`, `after_headers`, `mid_body` | when |
//! | `sim-refuse` | anything | REFUSED_STREAM, unprocessed (HTTP/2) |
//! | `sim-early` | anything | answer without reading the body, then RST_STREAM(NO_ERROR) |
//! | `sim-frame-bytes` | number | cut the response into DATA frames of this size |
//! | `sim-empty-frames` | number | this many empty DATA frames first |
//! | `sim-header-bytes` | number, up to 1 MiB | a response header `sim-filler` of this length |
//! | `sim-trailers` | `name=value,…` | trailers after the body |
//! | `sim-grpc-status` | number | `grpc-status` trailer (default 0) of a gRPC response |
//! | `sim-goaway` | a plain [`GoAwayForm`], e.g. `immediate`, `two_phase`, `zero`, `fin` | end the connection with this request |
//!
//! A request whose `content-type` begins with `application/grpc` gets its messages echoed and `grpc-status: 0`
//! in the trailers. `x-correlation-id` is mirrored, and counted: see [`Simulator::seen`].

mod behaviour;
mod door;
mod ending;
mod error;
mod ledger;
mod pki;
mod plan;
mod registry;
mod serve;
mod simulator;
mod socket;
mod tls;
mod wire;

pub use behaviour::{
    Behaviour, ClientAuth, EarlyResponse, FrameShape, GoAwayForm, GoAwayPoint, Http1Close, HttpVersions,
    LatencySpike, Pings, RefusalAlert, ResetPoint, ResetReason, ResetRule, Respond, Resumption, Stall,
    TlsVersions,
};
pub use door::{AddressLedger, Listening};
pub use error::SimError;
pub use ledger::{Account, Ledger};
pub use pki::{
    ClientCredentials, ClientSpec, ExtendedKeyUsage, INTERMEDIATE_COMMON_NAME, KeyAlgorithm, Pki, PkiOptions,
    SignatureLabel, Validity, write_assets,
};
pub use registry::Target;
pub use simulator::{Simulator, SimulatorOptions};
pub use tls::Endorsed;
