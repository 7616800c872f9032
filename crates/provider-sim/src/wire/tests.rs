//! The wire layer alone, between two in-memory pipes, with bytes cut at random places.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Kind and stream of each frame; fails on a torn one.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32)> {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk::<HEAD_LEN>() {
        let head = Head::parse(head);
        found.push((head.kind, head.stream));
        bytes = &bytes[HEAD_LEN + head.length..];
    }
    assert!(bytes.is_empty(), "a torn frame at the end");
    found
}

fn wire(capacity: usize, limit: Option<u32>) -> (Wire<DuplexStream>, WireControl, DuplexStream, Arc<Books>) {
    let (near, far) = duplex(capacity);
    let books = Arc::new(Books::default());
    let opening = Opening { pings: Pings::Answer, stream_limit: limit, header_table: None };
    let (wire, control) = Wire::new(near, books.clone(), opening);
    (wire, control, far, books)
}

/// Writes in random pieces; one order is given before piece `order_at`.
async fn write_in_pieces(
    wire: &mut Wire<DuplexStream>,
    bytes: &[u8],
    rng: &mut fastrand::Rng,
    order: impl FnOnce(),
) {
    let order_at = rng.usize(..bytes.len());
    let (mut at, mut order) = (0, Some(order));
    while at < bytes.len() {
        let n = rng.usize(1..=9.min(bytes.len() - at));
        if at + n > order_at
            && let Some(order) = order.take()
        {
            order();
        }
        wire.write_all(&bytes[at..at + n]).await.unwrap();
        at += n;
    }
    wire.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_frame_is_slipped_in_between_frames_and_never_inside_a_header_block() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut wire, control, mut far, _) = wire(1 << 16, None);
        let bytes = [
            raw(frame::SETTINGS, 0, 0, b""),
            raw(frame::HEADERS, 0, 1, b"headers"),
            raw(frame::CONTINUATION, END_HEADERS, 1, b"more"),
            raw(frame::DATA, 0, 1, &[7; 40]),
        ]
        .concat();
        write_in_pieces(&mut wire, &bytes, &mut rng, || control.goaway(1, 0, b"")).await;
        drop(wire);
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        let found = frames(&written);
        let at = found.iter().position(|&(kind, _)| kind == frame::GOAWAY).expect("the GOAWAY is sent");
        assert_ne!(at, 2, "seed {seed}: inside the header block: {found:?}");
        let others: Vec<_> = found.iter().filter(|(kind, _)| *kind != frame::GOAWAY).collect();
        assert_eq!(others.len(), 4, "seed {seed}: {found:?}");
    }
}

/// Feeds `bytes` in random pieces and returns what comes through.
async fn read_in_pieces(
    wire: &mut Wire<DuplexStream>,
    far: &mut DuplexStream,
    bytes: &[u8],
    rng: &mut fastrand::Rng,
) -> Vec<u8> {
    let mut passed = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let n = rng.usize(1..=30.min(bytes.len() - at));
        far.write_all(&bytes[at..at + n]).await.unwrap();
        at += n;
        let mut buffer = vec![0; rng.usize(1..=64)];
        while let Some(Ok(n)) = futures_util::FutureExt::now_or_never(wire.read(&mut buffer)) {
            passed.extend_from_slice(&buffer[..n]);
        }
    }
    passed
}

#[tokio::test]
async fn data_above_a_cut_is_swallowed_and_its_window_given_back() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut wire, control, mut far, _) = wire(1 << 16, None);
        let begin = [vec![b'P'; PREFACE_LEN], raw(frame::HEADERS, END_HEADERS, 3, b"h")].concat();
        assert!(read_in_pieces(&mut wire, &mut far, &begin, &mut rng).await == begin, "seed {seed}");
        assert!(control.cut(3, 0, b"").is_empty(), "nothing was taken up");
        let below = raw(frame::DATA, 0, 3, &[1; 20]);
        let above = raw(frame::DATA, 0, 5, &[2; 300]);
        let headers = raw(frame::HEADERS, END_HEADERS, 5, b"h");
        let bytes = [&headers, &below, &above, &below].map(Vec::as_slice).concat();
        let passed = read_in_pieces(&mut wire, &mut far, &bytes, &mut rng).await;
        assert!(passed == [&headers, &below, &below].map(Vec::as_slice).concat(), "seed {seed}");
        // The answer to stream 3 ends; so does the connection.
        wire.write_all(&raw(frame::RST_STREAM, 0, 3, &[0; 4])).await.unwrap();
        assert_eq!(wire.read(&mut [0; 1]).await.unwrap(), 0, "seed {seed}");
        drop(wire);
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        let expected = [(frame::GOAWAY, 0), (frame::WINDOW_UPDATE, 0), (frame::RST_STREAM, 3)];
        assert_eq!(frames(&written), expected, "seed {seed}");
        let update = raw(frame::WINDOW_UPDATE, 0, 0, &300u32.to_be_bytes());
        assert!(written.windows(update.len()).any(|window| window == update), "seed {seed}");
    }
}

#[tokio::test]
async fn only_the_acknowledgement_of_our_own_settings_is_swallowed() {
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut wire, control, mut far, books) = wire(1 << 16, None);
    wire.write_all(&raw(frame::SETTINGS, 0, 0, b"")).await.unwrap();
    control.stream_limit(1);
    let ack = raw(frame::SETTINGS, ACK, 0, b"");
    let open = |stream| raw(frame::HEADERS, END_HEADERS, stream, b"h");
    // Two streams before the limit is acknowledged are no breach; the third is one.
    let begin = [vec![b'P'; PREFACE_LEN], ack.clone(), open(1), open(3)].concat();
    wire.flush().await.unwrap();
    let passed = read_in_pieces(&mut wire, &mut far, &begin, &mut rng).await;
    assert!(passed == begin, "the library sees the first ACK");
    assert_eq!(books.snapshot().stream_limit_breaches, 0);
    let passed = read_in_pieces(&mut wire, &mut far, &[ack, open(5)].concat(), &mut rng).await;
    assert!(passed == open(5), "and not the second");
    assert_eq!((books.snapshot().stream_limit_breaches, books.snapshot().streams_open), (1, 3));
    drop((wire, control));
    assert_eq!(books.snapshot().streams_open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_socket_gets_every_byte_in_order() {
    let (mut wire, _control, mut far, _) = wire(100, None);
    let bytes: Vec<u8> = (0..200u32).flat_map(|n| raw(frame::DATA, 0, 1, &vec![n as u8; 1000])).collect();
    let copy = bytes.clone();
    let writer = tokio::spawn(async move {
        wire.write_all(&copy).await.unwrap();
        wire.shutdown().await.unwrap();
    });
    let mut written = Vec::new();
    far.read_to_end(&mut written).await.unwrap();
    assert!(written == bytes);
    writer.await.unwrap();
}
