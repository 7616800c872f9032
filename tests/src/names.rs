//! A name server on loopback whose answer can be changed at any time.
//!
//! Owns the wire side only (UDP, A records); what it answers is the test's matter.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Message, MessageType},
    rr::{RData, Record, RecordType},
};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

/// The name that resolves to whatever the name server says.
pub const PROVIDER_NAME: &str = "provider.dns.test";

/// Seconds for which an answer may be believed: the least that there is.
const TTL: u32 = 1;

/// A running name server; it ends with the test's runtime.
pub struct NameServer {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<IpAddr>>>,
}

impl NameServer {
    /// Listens on a free port and answers every question with these addresses.
    ///
    /// # Panics
    /// Without loopback.
    pub async fn start(addresses: &[IpAddr]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let answer = Arc::new(Mutex::new(addresses.to_vec()));
        tokio::spawn(serve(socket, answer.clone()));
        Self { address, answer }
    }

    /// Where it listens, for `[dns] servers`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers these addresses from now on.
    pub fn say(&self, addresses: &[IpAddr]) {
        *self.answer.lock() = addresses.to_vec();
    }
}

async fn serve(socket: UdpSocket, addresses: Arc<Mutex<Vec<IpAddr>>>) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let now = addresses.lock().clone();
        if let Some(bytes) = answer(&question, &now).and_then(|answer| answer.to_vec().ok()) {
            // Who asked and went away asks again.
            let _ = socket.send_to(&bytes, from).await;
        }
    }
}

fn answer(question: &Message, addresses: &[IpAddr]) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let mut answer = Message::new(question.id, MessageType::Response, question.op_code);
    answer.metadata.recursion_desired = question.recursion_desired;
    answer.metadata.recursion_available = true;
    let fits = |a: &&IpAddr| a.is_ipv4() == (query.query_type() == RecordType::A);
    let records = addresses.iter().filter(fits);
    answer.add_answers(records.map(|a| Record::from_rdata(query.name().clone(), TTL, RData::from(*a))));
    answer.add_query(query);
    Some(answer)
}
