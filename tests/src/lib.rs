//! Support for the end-to-end suites: a gateway in this process between real callers and a simulated provider.
//!
//! Owns how tests start things ([`Plan`], [`Provider`]), how they call ([`caller`]), and how they read what the
//! gateway says of itself: replies, access log, metrics. It owns no rule of the product; those are in the tests.

pub mod caller;
pub mod lab;
pub mod load;
pub mod metrics;
pub mod names;
pub mod peers;
pub mod plan;
pub mod provider;
pub mod tls;
pub mod wait;

pub use caller::{Body, Feed, H2c, Http1, Reply, empty, full};
pub use lab::Lab;
pub use load::{Load, Tally};
pub use metrics::Metrics;
pub use names::NameServer;
pub use plan::{EnvironmentPlan, Plan};
pub use provider::Provider;
pub use wait::{SOON, eventually, within};
