//! The name server of a storm: one name, one IPv4 address at a time, believed for a second.
//!
//! Owns the wire side (UDP). When the address changes is the weather's.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Message, MessageType},
    rr::{RData, Record, RecordType},
};
use parking_lot::Mutex;
use tokio::{net::UdpSocket, task::AbortHandle};

use crate::{error::Error, lab::lab};

/// The shortest that the gateway believes an answer anyway.
const TTL_SECONDS: u32 = 1;

/// A running name server. Dropping it ends it.
#[derive(Debug)]
pub(super) struct NameServer {
    address: SocketAddr,
    answer: Arc<Mutex<IpAddr>>,
    task: AbortHandle,
}

impl NameServer {
    /// Starts it on a free port of loopback; every name stands for `answer`.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) async fn start(answer: IpAddr) -> Result<Self, Error> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(lab("start the name server"))?;
        let address = socket.local_addr().map_err(lab("start the name server"))?;
        let answer = Arc::new(Mutex::new(answer));
        let task = tokio::spawn(serve(socket, answer.clone())).abort_handle();
        Ok(Self { address, answer, task })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What every name stands for now.
    pub(super) fn answer(&self) -> IpAddr {
        *self.answer.lock()
    }

    /// From now on every name stands for `answer`.
    pub(super) fn say(&self, answer: IpAddr) {
        *self.answer.lock() = answer;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, address: Arc<Mutex<IpAddr>>) {
    let mut buffer = vec![0; 4096];
    // An error of a UDP socket is about one packet; the gateway asks again.
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let said = *address.lock();
        if let Some(answer) = answer(&buffer[..length], said) {
            let _asked_again = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to one question; none to what is no question.
fn answer(packet: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let question = Message::from_vec(packet).ok()?;
    let query = question.queries.first()?.clone();
    let mut answer = Message::new(question.id, MessageType::Response, question.op_code);
    answer.metadata.recursion_desired = question.recursion_desired;
    answer.metadata.recursion_available = true;
    if address.is_ipv4() == (query.query_type() == RecordType::A) {
        answer.add_answer(Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::from(address)));
    }
    answer.add_query(query);
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::Query, rr::Name};

    use super::*;

    #[test]
    fn a_name_has_the_one_address_and_no_other() {
        let address = IpAddr::from([127, 0, 0, 2]);
        let ask = |kind| {
            let mut question = Message::query();
            question.add_query(Query::query(Name::from_ascii("provider.test.").unwrap(), kind));
            let answer = answer(&question.to_vec().unwrap(), address).unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(answer.id, question.id);
            answer.answers.len()
        };
        assert_eq!(ask(RecordType::A), 1);
        assert_eq!(ask(RecordType::AAAA), 0);
        assert_eq!(answer(b"noise", address), None);
    }
}
