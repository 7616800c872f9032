//! Walks through every interleaving of the pool's permits with loom; all of it is in `tests/permits.rs`.
//!
//! Owns no code of the product: it compiles `pool/src/connection/permits.rs` with loom's atomics. A package of its own,
//! so that the flag below builds loom anew and not the product's dependencies:
//!
//! ```text
//! RUSTFLAGS="--cfg tsh_loom" cargo test -p pool-loom --target-dir target/loom
//! ```
