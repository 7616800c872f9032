//! The store's rules, seen through real handshakes: rustls lets nobody else make a ticket.

use std::sync::Arc;

use time::Duration;

use super::*;
use crate::facts::HandshakeKind;
use crate::generation::{Generation, TlsOptions};
use crate::pin::PinSet;
use crate::testing::{
    HOST, Lab, NOW, ONLY_TLS12, ONLY_TLS13, ServerOptions, begin, connect, connect_halfway,
};

fn kind(generation: &Generation, server: &Arc<rustls::ServerConfig>) -> HandshakeKind {
    connect(generation, server).facts(generation).unwrap().kind
}

fn generation(lab: &Lab, ticket_capacity: usize) -> Arc<Generation> {
    lab.generation_with(lab.trust(PinSet::default()), TlsOptions { ticket_capacity, ..TlsOptions::default() })
}

#[test]
fn tickets_are_counted_from_arrival_to_use() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    assert_eq!(kind(&generation, &server), HandshakeKind::Full);
    let first = TicketStats { stored: 2, missing: 1, held: 2, ..TicketStats::default() };
    assert_eq!(generation.tickets().stats(), first);
    assert_eq!(kind(&generation, &server), HandshakeKind::Resumed);
    // One taken, two new ones brought by the resumed connection.
    assert_eq!(generation.tickets().stats(), TicketStats { stored: 4, taken: 1, held: 3, ..first });
}

#[test]
fn a_tls_1_3_ticket_is_used_once() {
    let lab = Lab::new();
    let one = lab.server_with(ServerOptions { tickets: 1, ..ServerOptions::default() });
    let generation = lab.generation();
    assert_eq!(kind(&generation, &one), HandshakeKind::Full);
    let name = generation.server_name();
    assert!(generation.tickets().take_tls13_ticket(&name).is_some());
    assert!(generation.tickets().take_tls13_ticket(&name).is_none());
    assert_eq!(kind(&generation, &one), HandshakeKind::Full);
}

#[test]
fn a_full_store_drops_the_oldest() {
    let lab = Lab::new();
    let server = lab.server_with(ServerOptions { tickets: 3, ..ServerOptions::default() });
    for (capacity, evicted) in [(3, 0), (2, 1), (1, 2)] {
        let generation = generation(&lab, capacity);
        kind(&generation, &server);
        let stats = generation.tickets().stats();
        assert_eq!((stats.stored, stats.evicted, stats.held), (3, evicted, capacity as u64));
    }
}

#[test]
fn the_newest_ticket_is_used_first() {
    // Two nodes of a provider that do not share sessions: the older tickets are of no use to the second.
    let lab = Lab::new();
    let (first, second) = (lab.server(), lab.server());
    let generation = lab.generation();
    assert_eq!(kind(&generation, &first), HandshakeKind::Full);
    assert_eq!(kind(&generation, &second), HandshakeKind::Full);
    assert_eq!(kind(&generation, &second), HandshakeKind::Resumed);
}

#[test]
fn a_tls_1_2_session_resumed_across_the_end_is_not_kept() {
    let lab = Lab::new();
    let server = lab.server_with(ServerOptions { versions: ONLY_TLS12, ..ServerOptions::default() });
    let generation = lab.generation();
    kind(&generation, &server);
    lab.clock.set(NOW + Duration::DAY - Duration::SECOND);
    let mut straddling = begin(&generation, &server);
    lab.clock.advance(Duration::SECOND);
    straddling.settle();
    assert_eq!(straddling.facts(&generation).unwrap().kind, HandshakeKind::Resumed);
    assert_eq!(generation.tickets().stats().held, 0);
    assert_eq!(kind(&generation, &server), HandshakeKind::Full);
}

#[test]
fn twenty_tickets_at_once_stay_within_the_bound() {
    let lab = Lab::new();
    let server = lab.server_with(ServerOptions { tickets: 20, ..ServerOptions::default() });
    let generation = generation(&lab, 8);
    for _ in 0..5 {
        kind(&generation, &server);
        assert!(generation.tickets().stats().held <= 8);
    }
}

#[test]
fn a_capacity_of_zero_turns_resumption_off() {
    let lab = Lab::new();
    let tls12 = ServerOptions { versions: ONLY_TLS12, ..ServerOptions::default() };
    for server in [lab.server(), lab.server_with(tls12)] {
        let generation = generation(&lab, 0);
        assert_eq!(kind(&generation, &server), HandshakeKind::Full);
        assert_eq!(kind(&generation, &server), HandshakeKind::Full);
        assert_eq!(generation.tickets().stats().held, 0);
    }
}

#[test]
fn a_server_without_tickets_is_dialled_in_full_every_time() {
    let lab = Lab::new();
    let server = lab.server_with(ServerOptions { tickets: 0, ..ServerOptions::default() });
    let generation = lab.generation();
    for missing in 1..=3 {
        assert_eq!(kind(&generation, &server), HandshakeKind::Full);
        assert_eq!(generation.tickets().stats().missing, missing);
    }
}

#[test]
fn a_tls_1_2_session_is_used_again_and_counted() {
    let lab = Lab::new();
    let tls12 = ServerOptions { versions: ONLY_TLS12, ..ServerOptions::default() };
    let (generation, server) = (lab.generation(), lab.server_with(tls12));
    assert_eq!(kind(&generation, &server), HandshakeKind::Full);
    assert_eq!(kind(&generation, &server), HandshakeKind::Resumed);
    assert_eq!(kind(&generation, &server), HandshakeKind::Resumed);
    let stats = generation.tickets().stats();
    assert_eq!((stats.missing, stats.taken, stats.held), (1, 2, 1));
}

#[test]
fn a_full_handshake_is_forced_after_24_hours_however_often_it_was_resumed() {
    for versions in [ONLY_TLS13, ONLY_TLS12] {
        let lab = Lab::new();
        let server = lab.server_with(ServerOptions { versions, ..ServerOptions::default() });
        let generation = lab.generation();
        assert_eq!(kind(&generation, &server), HandshakeKind::Full);
        for _ in 0..23 {
            lab.clock.advance(Duration::HOUR);
            assert_eq!(kind(&generation, &server), HandshakeKind::Resumed);
        }
        lab.clock.set(NOW + Duration::DAY);
        assert_eq!(kind(&generation, &server), HandshakeKind::Full);
        assert!(generation.tickets().stats().expired > 0);
        // And the new verification starts a new day.
        assert_eq!(kind(&generation, &server), HandshakeKind::Resumed);
    }
}

#[test]
fn a_full_handshake_in_between_does_not_lengthen_the_life_of_older_tickets() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    kind(&generation, &server);
    lab.clock.advance(Duration::hours(20));
    // A second provider node that knows no tickets: full, at hour 20.
    let stranger = lab.server_with(ServerOptions { tickets: 0, ..ServerOptions::default() });
    assert_eq!(kind(&generation, &stranger), HandshakeKind::Full);
    lab.clock.advance(Duration::hours(4));
    assert_eq!(generation.tickets().stats().held, 0);
    assert_eq!(kind(&generation, &server), HandshakeKind::Full);
}

#[test]
fn tickets_end_with_the_first_certificate_of_the_path() {
    let mut lab = Lab::new();
    lab.leaf = lab.issuing.leaf_with(HOST, |params| params.not_after = NOW + Duration::HOUR);
    let (generation, server) = (lab.generation(), lab.server());
    kind(&generation, &server);
    lab.clock.set(NOW + Duration::HOUR - Duration::SECOND);
    assert_eq!(generation.tickets().stats().held, 2);
    lab.clock.advance(Duration::SECOND);
    let stats = generation.tickets().stats();
    assert_eq!((stats.held, stats.expired), (0, 2));
}

#[test]
fn tickets_that_arrive_after_the_end_are_refused_until_the_next_full_handshake() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    let mut slow = connect_halfway(&generation, &server);
    slow.facts(&generation).unwrap();
    assert_eq!(generation.tickets().stats().stored, 0);
    lab.clock.advance(Duration::hours(25));
    slow.settle();
    assert_eq!(slow.client.tls13_tickets_received(), 2);
    let stats = generation.tickets().stats();
    assert_eq!((stats.stored, stats.evicted, stats.held), (0, 2, 0));
}

#[test]
fn a_clock_set_back_ends_the_tickets() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    kind(&generation, &server);
    lab.clock.advance(-CLOCK_TOLERANCE);
    assert_eq!(generation.tickets().stats().held, 2);
    lab.clock.advance(-Duration::SECOND);
    assert_eq!(generation.tickets().stats().held, 0);
}

#[test]
fn a_flush_forces_full_handshakes() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    kind(&generation, &server);
    generation.tickets().flush();
    let stats = generation.tickets().stats();
    assert_eq!((stats.held, stats.evicted), (0, 2));
    assert_eq!(kind(&generation, &server), HandshakeKind::Full);
    assert_eq!(kind(&generation, &server), HandshakeKind::Resumed);
}

#[test]
fn tickets_belong_to_one_server_name() {
    let lab = Lab::new();
    let generation = lab.generation();
    kind(&generation, &lab.server());
    let other = ServerName::try_from("other.test").unwrap();
    let before = generation.tickets().stats();
    assert!(generation.tickets().take_tls13_ticket(&other).is_none());
    generation.tickets().set_kx_hint(other.clone(), NamedGroup::X25519);
    assert_eq!(generation.tickets().kx_hint(&other), None);
    assert_eq!(generation.tickets().stats(), before);
}

#[test]
fn debug_shows_counters_and_no_ticket() {
    let lab = Lab::new();
    let generation = lab.generation();
    kind(&generation, &lab.server());
    let shown = format!("{:?}", generation.tickets());
    assert!(shown.starts_with("TicketStore { capacity: 64, stats: TicketStats { stored: 2,"), "{shown}");
    assert!(!shown.contains("ticket:") && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_new_generation_never_resumes_an_old_ticket() {
    let lab = Lab::new();
    let (old, server) = (lab.generation(), lab.server());
    kind(&old, &server);
    assert_eq!(kind(&old, &server), HandshakeKind::Resumed);
    let pinned = lab.trust(PinSet::from_iter([lab.leaf.pin()]));
    let new = lab.generation_with(pinned, TlsOptions::default());
    assert_eq!(kind(&new, &server), HandshakeKind::Full);
    // Not even a ticket that finds its way across: rustls ties it to the old verifier.
    let name = old.server_name();
    let ticket = old.tickets().take_tls13_ticket(&name).unwrap();
    new.tickets().flush();
    new.tickets().note_full_handshake(NOW, NOW + Duration::DAY);
    new.tickets().insert_tls13_ticket(name, ticket);
    assert_eq!(new.tickets().stats().held, 1);
    assert_eq!(kind(&new, &server), HandshakeKind::Full);
}
