//! Which pool a request belongs to: compared field by field, never by a hash alone.
//!
//! Owns the identity of a pool. Generation and protocol are attributes of each connection, not of the key.

use serde::Serialize;

/// Customer, environment and authority: two requests may share a connection only if all three are equal
/// (S3: mutual TLS is set up per customer identifier and per environment).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PoolKey {
    /// Customer identifier (S2).
    pub customer: String,
    /// Environment name, as in the configuration.
    pub environment: String,
    /// Authority of the provider, `host[:port]` (from S22).
    pub authority: String,
}
