//! A small PKI and in-memory handshakes for this crate's tests.
