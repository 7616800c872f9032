//! End-to-end: callers, the gateway in this process, a provider. One module per theme.

mod bodies;
mod carries;
mod faults;
mod http1;
mod pool;
mod refuses;
mod routes;
mod trust;
