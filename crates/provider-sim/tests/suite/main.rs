//! The simulated provider, seen by a plain rustls and h2 client that is not ours.

mod books;
mod generation;
mod handshake;
mod http1;
mod requests;
mod support;
mod winding_down;
