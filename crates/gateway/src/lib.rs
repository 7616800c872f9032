//! TSH Gateway: the program that carries a bank's calls to Thales over warm, pinned, proven mutual-TLS connections.
//!
//! Owns configuration, the egress facade, the gRPC API, the admin listener, telemetry, the life cycle and the
//! commands. Connections belong to `pool`, trust to `tls-core`. Bodies are opaque here: streamed, never logged.

pub mod admin;
pub mod cli;
pub mod config;
pub mod egress;
pub mod grpc;
pub mod outcome;
pub mod runtime;
pub mod telemetry;
