//! Walks through every interleaving of the pool's permits (`tests/permits.rs`) and of the gate through which streams are
//! opened (`tests/opening.rs`) with loom.
//!
//! Owns no code of the product: it compiles `pool/src/connection/permits.rs` and `opening.rs` with loom's atomics. A package of its own,
//! so that the flag below builds loom anew and not the product's dependencies:
//!
//! ```text
//! RUSTFLAGS="--cfg tsh_loom" cargo test -p pool-loom --target-dir target/loom
//! ```
