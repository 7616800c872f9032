//! A name server on loopback whose answers can be changed at any time.
//!
//! Owns the wire side only (UDP, A and AAAA); what it answers is the test's matter.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

/// What is answered for every name.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// These addresses. Several lists take turns.
    Addresses { turns: Vec<Vec<IpAddr>>, ttl: u32 },
    /// An alias that may be believed for `ttl`, and the IPv4 address of what it stands for, for 300 s.
    Alias { ttl: u32, address: IpAddr },
    /// These addresses, and nothing at all where another family than this is asked for.
    OneFamily { family: RecordType, addresses: Vec<IpAddr>, ttl: u32 },
    /// There is no such name.
    NoSuchName,
    /// SERVFAIL.
    Failing,
    /// Nothing at all.
    Silent,
}

impl Script {
    pub(crate) fn addresses(ttl: u32, addresses: &[&str]) -> Self {
        Self::rotating(ttl, &[addresses])
    }

    pub(crate) fn rotating(ttl: u32, turns: &[&[&str]]) -> Self {
        let turns = turns.iter().map(|turn| turn.iter().map(|a| a.parse().unwrap()).collect()).collect();
        Self::Addresses { turns, ttl }
    }
}

/// A running name server; it ends with the test's runtime.
pub(crate) struct NameServer {
    address: SocketAddr,
    desk: Arc<Mutex<Desk>>,
}

struct Desk {
    script: Script,
    asked: usize,
}

impl NameServer {
    pub(crate) async fn start(script: Script) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let desk = Arc::new(Mutex::new(Desk { script, asked: 0 }));
        tokio::spawn(serve(socket, desk.clone()));
        Self { address, desk }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn say(&self, script: Script) {
        self.desk.lock().script = script;
    }

    /// How often it was asked for IPv4 addresses.
    pub(crate) fn asked(&self) -> usize {
        self.desk.lock().asked
    }
}

async fn serve(socket: UdpSocket, desk: Arc<Mutex<Desk>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = desk.lock().answer(&Message::from_vec(&buffer[..length]).unwrap());
        if let Some(answer) = answer {
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }
}

impl Desk {
    fn answer(&mut self, question: &Message) -> Option<Message> {
        let query = question.queries.first().unwrap().clone();
        let mut answer = Message::new(question.id, MessageType::Response, question.op_code);
        answer.metadata.recursion_desired = question.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match &self.script {
            Script::Silent => {
                self.asked += usize::from(query.query_type() == RecordType::A);
                return None;
            }
            Script::Alias { ttl, address } if query.query_type() == RecordType::A => {
                let canonical = Name::from_ascii("canonical.dns.test.").unwrap();
                let alias = RData::CNAME(CNAME(canonical.clone()));
                answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, alias));
                answer.add_answer(record(&canonical, 300, *address));
            }
            Script::Alias { .. } => {}
            Script::OneFamily { family, .. } if query.query_type() != *family => return None,
            Script::OneFamily { addresses, ttl, .. } => {
                answer.add_answers(addresses.iter().map(|a| record(query.name(), *ttl, *a)));
            }
            Script::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
            Script::Failing => answer.metadata.response_code = ResponseCode::ServFail,
            Script::Addresses { turns, ttl } => {
                let turn = &turns[self.asked % turns.len()];
                let fits = |a: &&IpAddr| a.is_ipv4() == (query.query_type() == RecordType::A);
                answer.add_answers(turn.iter().filter(fits).map(|a| record(query.name(), *ttl, *a)));
            }
        }
        self.asked += usize::from(query.query_type() == RecordType::A);
        Some(answer)
    }
}

fn record(name: &Name, ttl: u32, address: IpAddr) -> Record {
    Record::from_rdata(name.clone(), ttl, RData::from(address))
}
