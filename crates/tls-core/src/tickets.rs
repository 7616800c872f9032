//! Session tickets of one generation: bounded, counted, single use, and no older than one verification.
//!
//! rustls resumes without running the verifier, and every resumption brings new tickets with the old chain,
//! so one verification could be stretched for ever. This store ends that: it counts from a full handshake
//! and empties itself after [`MAX_VERIFICATION_AGE`], or when a certificate of the verified path expires,
//! whichever is first. The next dial then finds no ticket and is a full handshake.
//!
//! Tickets are secrets: neither `Debug` nor the counters show any.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::clock::WallClock;

/// How long after a full handshake its tickets may be used. Certificates are judged anew at least this often.
pub(crate) const MAX_VERIFICATION_AGE: Duration = Duration::hours(24);

/// How far the clock may seem to run backwards: threads read it at slightly different moments, and webpki's
/// time has whole seconds.
const CLOCK_TOLERANCE: Duration = Duration::MINUTE;

/// The tickets of one generation, for one server. See the module for its rules.
pub struct TicketStore {
    server_name: ServerName<'static>,
    capacity: usize,
    clock: Arc<dyn WallClock>,
    state: Mutex<State>,
}

/// What a [`TicketStore`] has seen since it was made. TLS 1.2 sessions count as tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TicketStats {
    /// Put in.
    pub stored: u64,
    /// Handed out for a resumption.
    pub taken: u64,
    /// Asked for when there was none: a full handshake followed.
    pub missing: u64,
    /// Thrown away unused because the verification behind them was too old.
    pub expired: u64,
    /// Thrown away unused for other reasons: no room, superseded, or a check after a resumption failed.
    pub evicted: u64,
    /// Held now.
    pub held: u64,
}

#[derive(Default)]
struct State {
    /// Oldest in front.
    tickets: VecDeque<Tls13ClientSessionValue>,
    /// rustls keeps one TLS 1.2 session per server; unlike a ticket it may be used repeatedly.
    session: Option<Tls12ClientSessionValue>,
    kx_hint: Option<NamedGroup>,
    window: Window,
    stats: TicketStats,
}

/// The time during which tickets may be stored and taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Window {
    /// Nothing was verified yet, or the time ran out. Tickets that still arrive over older connections are
    /// refused until the next full handshake.
    #[default]
    Closed,
    /// Open from a full handshake until the end.
    Open { since: OffsetDateTime, until: OffsetDateTime },
}

impl TicketStore {
    /// An empty store for `server_name` that holds at most `capacity` TLS 1.3 tickets and one TLS 1.2
    /// session. A capacity of 0 turns resumption off.
    pub fn new(server_name: ServerName<'static>, capacity: usize, clock: Arc<dyn WallClock>) -> Self {
        Self { server_name, capacity, clock, state: Mutex::default() }
    }

    /// Tells the store that a chain was verified at `now` by a full handshake, and that the first
    /// certificate of its path expires at `not_after`.
    ///
    /// A second full handshake within the window does not lengthen it: tickets of the first are still held.
    pub fn note_full_handshake(&self, now: OffsetDateTime, not_after: OffsetDateTime) {
        let mut state = self.state.lock();
        state.close_if_over(now);
        let end = now.saturating_add(MAX_VERIFICATION_AGE).min(not_after);
        state.window = match state.window {
            Window::Open { since, until } => Window::Open { since, until: until.min(end) },
            Window::Closed => Window::Open { since: now, until: end },
        };
    }

    /// Throws all tickets away, so that the next handshakes are full. For when a check after a resumption
    /// failed: the other tickets carry the same chain.
    pub fn flush(&self) {
        let mut state = self.state.lock();
        let dropped = state.drop_all();
        state.stats.evicted += dropped;
        state.window = Window::Closed;
    }

    /// The counters. Tickets whose time ran out are counted as expired first.
    pub fn stats(&self) -> TicketStats {
        let mut state = self.state.lock();
        state.close_if_over(self.clock.now());
        TicketStats { held: state.held(), ..state.stats }
    }

    /// How many TLS 1.3 tickets are held at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Locks the state after closing a window whose time ran out; `None` for another server's name, which
    /// only misuse can bring.
    fn state_for(&self, server_name: &ServerName<'_>) -> Option<parking_lot::MutexGuard<'_, State>> {
        if *server_name != self.server_name {
            return None;
        }
        let mut state = self.state.lock();
        state.close_if_over(self.clock.now());
        Some(state)
    }
}

impl State {
    fn held(&self) -> u64 {
        self.tickets.len() as u64 + u64::from(self.session.is_some())
    }

    fn drop_all(&mut self) -> u64 {
        let held = self.held();
        self.tickets.clear();
        self.session = None;
        held
    }

    /// Ends the window when `now` lies outside it. A clock set back ends it too: ages are unknown then.
    fn close_if_over(&mut self, now: OffsetDateTime) {
        if let Window::Open { since, until } = self.window
            && !(since.saturating_sub(CLOCK_TOLERANCE) <= now && now < until)
        {
            self.stats.expired += self.drop_all();
            self.window = Window::Closed;
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.window, Window::Open { .. })
    }
}

impl ClientSessionStore for TicketStore {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        if let Some(mut state) = self.state_for(&server_name) {
            state.kx_hint = Some(group);
        }
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.state_for(server_name)?.kx_hint
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        let Some(mut state) = self.state_for(&server_name) else { return };
        if self.capacity == 0 || !state.is_open() {
            state.stats.evicted += 1;
            return;
        }
        state.stats.stored += 1;
        if state.session.replace(value).is_some() {
            state.stats.evicted += 1;
        }
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let mut state = self.state_for(server_name)?;
        let session = state.session.clone()?;
        state.stats.taken += 1;
        Some(session)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        if let Some(mut state) = self.state_for(server_name)
            && state.session.take().is_some()
        {
            state.stats.evicted += 1;
        }
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let Some(mut state) = self.state_for(&server_name) else { return };
        if self.capacity == 0 || !state.is_open() {
            state.stats.evicted += 1;
            return;
        }
        if state.tickets.len() == self.capacity {
            state.tickets.pop_front();
            state.stats.evicted += 1;
        }
        state.tickets.push_back(value);
        state.stats.stored += 1;
    }

    /// Newest first: a server keeps its newest sessions longest.
    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut state = self.state_for(server_name)?;
        let ticket = state.tickets.pop_back();
        match ticket {
            Some(_) => state.stats.taken += 1,
            // rustls asks for a TLS 1.2 session next, which counts by itself if there is one.
            None if state.session.is_none() => state.stats.missing += 1,
            None => {}
        }
        ticket
    }
}

impl fmt::Debug for TicketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketStore")
            .field("capacity", &self.capacity)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
