//! The atomics that `permits` is made of: the standard library's. The package `pool-loom` compiles `permits` with
//! loom's in their place, which is why it names them through here.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
