//! What benchmarks and instruction counts share: handshakes in memory, a gateway in memory, the small operations.
//!
//! Owns set-up and the operations that are measured; measuring itself is `benches/gateway.rs` (time) and
//! `src/bin/hot_path.rs` under `instructions.sh` (instructions). Nothing here opens a socket.

pub mod handshake;
pub mod http;
pub mod parts;
pub mod rig;

/// The product's allocator, so that what is measured here is what runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
