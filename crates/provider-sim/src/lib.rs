//! A stand-in for the Thales backend: a real mutual-TLS server on loopback, HTTP/2 and HTTP/1.1, that behaves
//! like the provider and misbehaves on request. Used by tests, demo, benches and load tests.
//!
//! It owns its PKI (made anew at each start; nothing secret is stored), the pinning of exact client leaves, the
//! [`Behaviour`] as data that can be changed live, and the books ([`Ledger`]) of what it saw. It also calls
//! customers ([`IngressCall`]), one request at a time. It does not own any other client, and it is no model of the
//! provider's API: bodies mean nothing to it.
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
//! # What it can do
//! *Live* says whom a change of [`Behaviour`] reaches: new connections, open ones, or the next request.
//!
//! | what | how | live |
//! |---|---|---|
//! | GOAWAY with last id 0, behind by n, exact, newest, 2^31-1; in two phases, a round trip or a chosen time apart | [`GoAwayForm`], [`goaway_wait`](Behaviour::goaway_wait) | next end |
//! | its error code and debug data | [`goaway_code`](Behaviour::goaway_code), [`goaway_debug`](Behaviour::goaway_debug) | next end |
//! | … after n requests, at an age, after idleness | [`goaway_after_requests`](Behaviour::goaway_after_requests), [`goaway_after`](Behaviour::goaway_after), [`goaway_after_idle`](Behaviour::goaway_after_idle) | open; the age: new |
//! | … at header block, request data, response headers, before trailers, after the response | [`GoAwayPoint`] | next request |
//! | … on demand, for all, one, or one address | [`goaway_all`](Simulator::goaway_all), [`end`](Simulator::end) with [`Target`] | now |
//! | TCP reset, FIN, half-close, black hole, `close_notify`, the end of TLS without it | the other [`GoAwayForm`]s, at the same points; [`kill_connections`](Simulator::kill_connections) | now |
//! | HTTP/1.1: close when idle, after n requests, announced or not | [`idle_close`](Behaviour::idle_close), [`goaway_after_requests`](Behaviour::goaway_after_requests), [`Http1Close`] | open |
//! | REFUSED_STREAM, every n-th or by header | [`refuse_every`](Behaviour::refuse_every) | next request |
//! | RST_STREAM with any code at five points | [`ResetRule`], [`ResetPoint`] | next request |
//! | early response with RST_STREAM(NO_ERROR) | [`EarlyResponse`] | next request |
//! | SETTINGS: stream limit (0, shrinking, growing), window (0 and back), header table | [`max_concurrent_streams`](Behaviour::max_concurrent_streams), [`stream_window`](Behaviour::stream_window), [`header_table_size`](Behaviour::header_table_size) | open |
//! | stalls: before and within the handshake, before SETTINGS, before, within and after the response, request bodies not read | [`Stall`] | new; next request |
//! | PINGs ignored, all or after the first n | [`Pings`] | open |
//! | empty, tiny, many DATA frames; trailers; sizes | [`FrameShape`], [`Respond`], `sim-trailers` | next request |
//! | latency: fixed, jittered, spikes | [`latency`](Behaviour::latency), [`latency_jitter`](Behaviour::latency_jitter), [`LatencySpike`] | next request |
//! | certificates refused late, early, or by HTTP, with any alert | [`ClientAuth`], [`RefusalAlert`] | new |
//! | TLS versions, key exchange groups, ALPN, 0 to 20 tickets, resumption refused | [`TlsVersions`], [`KeyExchange`], [`HttpVersions`], [`tickets`](Behaviour::tickets), [`Resumption`] | new |
//! | its own certificate rotated, same authority or another | [`rotate_certificate`](Simulator::rotate_certificate), [`set_pki`](Simulator::set_pki) | new |
//! | not accepting, refusing, restarting on the same port | [`Listening`], [`restart`](Simulator::restart) | now |
//! | several loopback addresses with one port, counted apart | [`also_listen`](SimulatorOptions::also_listen), [`address_ledger`](Simulator::address_ledger) | at start |
//! | a call to the customer's ingress, with the provider's client certificate | [`IngressCall`], [`call_customer`](Simulator::call_customer) | now |
//! | all of it at fixed or random times | [`Script`], [`play`](Simulator::play) | |
//!
//! What it saw is in the [`Ledger`], and by correlation id in [`Simulator::account`]: a request that was refused,
//! ignored above a GOAWAY, or disowned by one counts as arrived and not as processed.
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
//! | `sim-stall` | `before_response`, `after_headers`, `mid_body`, `before_trailers`, `read_nothing` | stop dead there |
//! | `sim-reset` | a [`ResetReason`], e.g. `cancel`, or a number | RST_STREAM; HTTP/1.1: the connection breaks |
//! | `sim-reset-at` | `before_headers`, `mid_request`, `after_headers`, `mid_body`, `before_trailers` | when |
//! | `sim-refuse` | anything | REFUSED_STREAM, unprocessed (HTTP/2) |
//! | `sim-early` | anything | answer without reading the body, then RST_STREAM(NO_ERROR) |
//! | `sim-frame-bytes` | number | cut the response into DATA frames of this size |
//! | `sim-empty-frames` | number | this many empty DATA frames first |
//! | `sim-header-bytes` | number, up to 1 MiB | a response header `sim-filler` of this length |
//! | `sim-trailers` | `name=value,…` | trailers after the body |
//! | `sim-grpc-status` | number | `grpc-status` trailer (default 0) of a gRPC response |
//! | `sim-goaway` | a [`GoAwayForm`]: `immediate`, `two_phase`, `zero`, `behind:2`, `exact:5`, `max_only`, `abrupt`, `fin`, `close_notify`, `half_close`, `black_hole`, `reset` | end the connection with this request |
//! | `sim-goaway-at` | a [`GoAwayPoint`]: `headers`, `request_data`, `response_headers`, `before_trailers`, `after_response` | when |
//! | `sim-goaway-code` | a [`ResetReason`] or a number | with this error code |
//! | `sim-goaway-debug` | text | with this debug data |
//! | `sim-goaway-wait-ms` | number | this long between the two of `two_phase` |
//!
//! Each of the `sim-goaway…` headers ends the connection; what it does not say is as the behaviour has it. Over
//! HTTP/1.1 the forms that are frames end the connection after the response at hand.
//!
//! A request whose `content-type` begins with `application/grpc` gets its messages echoed and `grpc-status: 0`
//! in the trailers. `x-correlation-id` is mirrored, and counted: see [`Simulator::account`].

mod behaviour;
mod customer;
mod door;
mod ending;
mod error;
mod ledger;
mod pki;
mod plan;
mod registry;
mod script;
mod serve;
mod simulator;
mod socket;
mod tls;
mod wire;

pub use behaviour::{
    Behaviour, ClientAuth, EarlyResponse, FrameShape, GoAwayForm, GoAwayPoint, Http1Close, HttpVersions,
    KeyExchange, LatencySpike, Pings, RefusalAlert, ResetPoint, ResetReason, ResetRule, Respond, Resumption,
    Stall, TlsVersions,
};
pub use customer::{IngressCall, IngressError, IngressPhase};
pub use door::{AddressLedger, Listening};
pub use error::SimError;
pub use ledger::{Account, Ledger};
pub use pki::{
    CLIENT_CA_COMMON_NAME, ClientCredentials, ClientSpec, ExtendedKeyUsage, INTERMEDIATE_COMMON_NAME,
    KeyAlgorithm, Pki, PkiOptions, SignatureLabel, Validity, write_assets,
};
pub use registry::Target;
pub use script::{Playing, Rotation, Script, ScriptError};
pub use simulator::{Simulator, SimulatorOptions};
pub use tls::Endorsed;
