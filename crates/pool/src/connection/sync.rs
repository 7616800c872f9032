//! The atomics that `permits` and `opening` are made of: the standard library's. The package `pool-loom` compiles both with
//! loom's in their place, which is why they name them through here.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
