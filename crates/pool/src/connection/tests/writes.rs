//! What a turn of requests costs in writes, and a burst of replies in reads.
//!
//! Owns a stream that counts both. How many TLS records that makes is counted on the wire, in `tests/behaviour`.
