//! The simulated provider, seen by a plain rustls and h2 client that is not ours.

mod books;
mod doors;
mod flow;
mod generation;
mod handshake;
mod http1;
mod ingress;
mod phases;
mod raw;
mod requests;
mod scripts;
mod settings;
mod support;
mod transport;
mod winding_down;
