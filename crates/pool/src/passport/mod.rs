//! Passports and obituaries: what is known of each connection while it lives, and what is kept when it is dead.
//!
//! Owns the particulars of a living connection that nobody else needs ([`Passport`]), the fixed-size record of a dead
//! one ([`Obituary`]) and the bounded store of those ([`Obituaries`]), one per process. Nothing here is on the way of
//! a request, and nothing decides: who looks afterwards shall find what happened.

mod bury;
mod compact;
mod counted;
mod living;
mod obituary;
mod store;

pub(crate) use self::{
    bury::{Buried, Records},
    counted::{Counted, counted},
    living::Passport,
};
pub use self::{
    compact::{Micros, Name, PING_SERIES, PinStart, PingSeries, Prefix, RemoteAddress, ShortText},
    living::{GoAwaySeen, PassportStatus, PingTimes},
    obituary::{DialTimes, Obituary, PingMicros, UnixMicros},
    store::{Obituaries, ObituaryFilter},
};
