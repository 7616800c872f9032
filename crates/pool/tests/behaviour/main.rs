//! The rules of the pool, each as a test against a simulated provider on loopback: what must hold when things go
//! wrong. One binary, one module per theme.

mod deaf;
mod dial;
mod dns;
mod frames;
mod habits;
mod http1;
mod http1_faults;
mod http1_health;
mod http1_life;
mod http1_races;
mod http2;
mod limits;
mod nameserver;
mod passports;
mod proofs;
mod records;
mod renewal;
mod sending;
mod silence;
mod support;
mod traps;
mod workers;
