//! End-to-end: callers, the gateway in this process, a provider. One module per theme.

mod bodies;
mod callers;
mod carries;
mod connections;
mod deadlines;
mod drift;
mod faults;
mod grpc;
mod health;
mod http1;
mod matrix;
mod metrics;
mod peers;
mod pool;
mod refuses;
mod routes;
mod seed;
mod shutdown;
mod stages;
mod trust;
