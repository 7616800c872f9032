//! The tunnel through an HTTP proxy: one CONNECT (RFC 9110 §9.3.6), its answer, nothing more.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::HostPort;
use crate::error::DialError;

/// Largest answer header accepted from a proxy.
const MAX_ANSWER: usize = 8 * 1024;

/// Asks `proxy` for a tunnel to `provider`.
pub(super) async fn open_tunnel(
    mut tcp: TcpStream,
    proxy: &HostPort,
    provider: &HostPort,
) -> Result<TcpStream, DialError> {
    let fail = |detail: String| DialError::Via { proxy: proxy.to_string(), detail };
    let ask = format!("CONNECT {provider} HTTP/1.1\r\nHost: {provider}\r\n\r\n");
    tcp.write_all(ask.as_bytes()).await.map_err(|e| fail(e.to_string()))?;
    let mut answer = Vec::with_capacity(256);
    // Byte by byte: what follows the header belongs to TLS. The provider speaks only after our ClientHello, so
    // this reads a short header once per dial.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_ANSWER {
            return Err(fail(format!("its answer is longer than {MAX_ANSWER} bytes")));
        }
        answer.push(tcp.read_u8().await.map_err(|e| fail(format!("no answer to CONNECT: {e}")))?);
    }
    match status_of(&answer) {
        Some(200..=299) => Ok(tcp),
        Some(status) => Err(fail(format!("it answered {status} to CONNECT {provider}"))),
        None => Err(fail("its answer is not HTTP".to_owned())),
    }
}

/// The status code of an HTTP/1.x answer.
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer).ok()?.lines().next()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_status_and_nothing_else() {
        assert_eq!(status_of(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n"), Some(407));
        assert_eq!(status_of(b"SSH-2.0-OpenSSH\r\n\r\n"), None);
        assert_eq!(status_of(b"HTTP/1.1 20x Odd\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_quoted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = HostPort { host: "127.0.0.1".into(), port: address.port() };
        let server = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut ask = vec![0; 64];
            let n = tcp.read(&mut ask).await.unwrap();
            tcp.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&ask[..n]).into_owned()
        });
        let tcp = TcpStream::connect(address).await.unwrap();
        let provider = HostPort { host: "tsh.test".into(), port: 443 };
        let error = open_tunnel(tcp, &proxy, &provider).await.unwrap_err();
        assert!(error.to_string().contains("it answered 403 to CONNECT tsh.test:443"), "{error}");
        assert!(server.await.unwrap().starts_with("CONNECT tsh.test:443 HTTP/1.1\r\nHost: tsh.test:443\r\n"));
    }
}
