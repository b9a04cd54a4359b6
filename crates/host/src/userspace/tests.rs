//! Two stacks whose engines are a thread that carries packets from one queue to the other.

use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use enishi_dataplane::device::{Device, READ_BYTES_MAX, queue_with_super_packets};
use enishi_dataplane::offload::{OFFLOAD_HEADER_BYTES, Offload};
use enishi_dataplane::{IpPacket, Reason, error_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const MTU: u16 = 1420;

fn addresses(number: u8) -> [(IpAddr, u8); 2] {
    let six = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
    [
        (Ipv4Addr::new(10, 77, 0, number).into(), 16),
        (six.into(), 64),
    ]
}

fn at(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(addresses(number)[0].0, port)
}

fn at6(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(addresses(number)[1].0, port)
}

/// Two stacks at 10.77.0.1 and 10.77.0.2, and what carries their packets until it is dropped.
struct Pair {
    left: Stack,
    right: Stack,
    stop: Arc<AtomicBool>,
}

impl Pair {
    /// Carries all packets but the given share of them: one of so many.
    fn new(lost: Option<u32>) -> Self {
        let (left_device, left) = queue_with_super_packets(MTU).unwrap();
        let (right_device, right) = queue_with_super_packets(MTU).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        thread::spawn(move || {
            let mut count = 0;
            while !until.load(Ordering::Relaxed) {
                let mut idle = true;
                for (from, to) in [(&left_device, &right_device), (&right_device, &left_device)] {
                    idle &= !carry(from, to, lost, &mut count);
                }
                if idle {
                    thread::sleep(Duration::from_micros(100));
                }
            }
        });
        Self {
            left: Stack::start(left, addresses(1), MTU).unwrap(),
            right: Stack::start(right, addresses(2), MTU).unwrap(),
            stop,
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.left.close();
        self.right.close();
    }
}

/// Carries one packet; false when there is none. What goes to neither is answered.
fn carry(from: &Device, to: &Device, lost: Option<u32>, count: &mut u32) -> bool {
    let mut buffer = [0; READ_BYTES_MAX];
    let Ok(length) = from.read(&mut buffer) else {
        return false;
    };
    *count += 1;
    let header = Offload::default().encode(true, 0);
    let packet = IpPacket::parse(&buffer[OFFLOAD_HEADER_BYTES..length]).unwrap();
    let known = [1, 2].map(|number| addresses(number).map(|(address, _)| address));
    if !known.as_flattened().contains(&packet.destination()) {
        let error = error_for(&packet, Reason::HostUnreachable, None).unwrap();
        let pieces = [IoSlice::new(&header), IoSlice::new(&error)];
        from.write(&pieces).unwrap();
    } else if lost.is_none_or(|lost| !count.is_multiple_of(lost)) {
        to.write(&[IoSlice::new(&buffer[..length])]).unwrap();
    }
    true
}

async fn echo(mut listener: Listener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
    }
}

/// Sends so many octets to an echo, and checks what comes back.
async fn check_echo(stack: &Stack, to: SocketAddr, octets: usize) {
    let stream = stack.connect(to).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..octets).map(|at| (at / 7) as u8).collect();
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        writer.write_all(&copy).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    sending.await.unwrap();
    assert!(received == sent, "{} of {octets}", received.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_carry_what_they_are_given() {
    let pair = Pair::new(None);
    tokio::spawn(echo(pair.right.listen(80).unwrap()));
    check_echo(&pair.left, at(2, 80), 3_000_000).await;
    check_echo(&pair.left, at6(2, 80), 100).await;
    let many = (0..20).map(|_| check_echo(&pair.left, at(2, 80), 50_000));
    for one in many.map(Box::pin) {
        one.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_comes_again() {
    let pair = Pair::new(Some(50));
    tokio::spawn(echo(pair.right.listen(80).unwrap()));
    check_echo(&pair.left, at(2, 80), 300_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let pair = Pair::new(None);
    let kind = async |to| pair.left.connect(to).await.err().map(|error| error.kind());
    assert_eq!(
        kind(at(2, 81)).await,
        Some(io::ErrorKind::ConnectionRefused)
    );
    assert_eq!(kind(at(9, 80)).await, Some(io::ErrorKind::HostUnreachable));
    assert_eq!(kind(at6(9, 80)).await, Some(io::ErrorKind::HostUnreachable));
    let listener = pair.right.listen(80).unwrap();
    let twice = pair.right.listen(80).err().map(|error| error.kind());
    assert_eq!(twice, Some(io::ErrorKind::AddrInUse));
    drop(listener);
    assert_eq!(
        kind(at(2, 80)).await,
        Some(io::ErrorKind::ConnectionRefused)
    );
    let mut listener = pair.right.listen(80).unwrap();
    let stream = pair.left.connect(at(2, 80)).await.unwrap();
    let (mut taken, from) = listener.accept().await.unwrap();
    assert_eq!(from.ip(), at(1, 0).ip());
    pair.left.close();
    let mut rest = Vec::new();
    let ended = taken.read_to_end(&mut rest).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(stream);
    assert!(pair.left.connect(at(2, 80)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_pass_and_large_ones_in_fragments() {
    let pair = Pair::new(None);
    let (left, right) = (pair.left.bind(0).unwrap(), pair.right.bind(53).unwrap());
    assert!(pair.right.bind(53).is_err());
    for (to, length) in [(at(2, 53), 0), (at(2, 53), 9000), (at6(2, 53), 1300)] {
        left.send_to(&vec![7; length], to).unwrap();
        let mut buffer = vec![0; 10_000];
        let (received, from) = right.recv_from(&mut buffer).await.unwrap();
        assert_eq!(received, length);
        right.send_to(b"answer", from).unwrap();
        let (received, from) = left.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..received], from), (&b"answer"[..], to));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_bounded_and_come_back() {
    let pair = Pair::new(None);
    let mut sockets = Vec::new();
    let refused = loop {
        match pair.left.bind(0) {
            Ok(socket) => sockets.push(socket),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(
        (sockets.len(), refused),
        (SOCKETS_MAX, io::ErrorKind::QuotaExceeded)
    );
    sockets.clear();
    tokio::spawn(echo(pair.right.listen(80).unwrap()));
    // Whoever ends first is remembered for a while, and still there is room.
    for _ in 0..SOCKETS_MAX {
        check_echo(&pair.left, at(2, 80), 10).await;
    }
}
