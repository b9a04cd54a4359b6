//! A plain forwarder between two hosts: one device, one peer, one fixed key; no handshake,
//! no tables, no checks. It is the measure of what the machine can do, against which the
//! engine is held (`cargo xtask bench vnet`). It protects nothing.
//!
//!     forwarder NAME ADDRESS/PREFIX PORT PEER:PORT

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use anyhow::{Context as _, bail};
use enishi_dataplane::IpPacket;
use enishi_dataplane::device::{Device, DeviceConfig, Layer, READ_BYTES_MAX};
use enishi_dataplane::ecn::NOT_CAPABLE;
use enishi_dataplane::offload::{OFFLOAD_HEADER_BYTES, Offload, Run, split};
use enishi_dataplane::sealed::{
    Cipher, DirectionKey, INDEX_MARK, Kind, OVERHEAD_BYTES, Opener, Sealer,
};
use enishi_dataplane::socket::{BATCH_BYTES_MAX, Received, Socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const MTU: u16 = 1420;
/// How many packets are read from the device before the socket has its turn.
const READS_MAX: usize = 64;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, address, port, peer] = words.as_slice() else {
        bail!("usage: forwarder NAME ADDRESS/PREFIX PORT PEER:PORT");
    };
    let (address, prefix) = address.split_once('/').context("no prefix")?;
    let address: Ipv4Addr = address.parse()?;
    let device = Device::new(&DeviceConfig {
        layer: Layer::Ip,
        name: name.clone(),
        mtu: MTU,
        ipv4: (address, prefix.parse()?),
        ipv6: None,
    })?;
    let socket = Socket::bind(port.parse()?)?;
    let key = DirectionKey::new([7; 32]);
    let cipher = Cipher::preferred();
    Forwarder {
        peer: peer.parse()?,
        sealer: Sealer::new(cipher, &key, INDEX_MARK),
        opener: Opener::new(cipher, &key),
        out: Vec::with_capacity(BATCH_BYTES_MAX),
        stride: 0,
        socket,
        device,
    }
    .run()
}

struct Forwarder {
    device: Device,
    socket: Socket,
    peer: SocketAddr,
    sealer: Sealer,
    opener: Opener,
    out: Vec<u8>,
    stride: usize,
}

impl Forwarder {
    fn run(mut self) -> anyhow::Result<()> {
        let mut read = vec![0; READ_BYTES_MAX];
        let mut received = vec![vec![0; 1 << 16]; 4];
        loop {
            let mut ready = [
                PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut ready, PollTimeout::NONE)?;
            let [from_device, from_socket] =
                ready.map(|ready| ready.revents().is_some_and(|events| !events.is_empty()));
            if from_device {
                for _ in 0..READS_MAX {
                    match self.device.read(&mut read) {
                        Ok(length) => self.seal(&mut read[..length]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                self.flush();
            }
            if from_socket {
                let mut buffers: Vec<_> = received
                    .iter_mut()
                    .map(|buffer| IoSliceMut::new(buffer))
                    .collect();
                let mut batches = [None; 4];
                if self.socket.receive(&mut buffers, &mut batches).is_ok() {
                    for (buffer, batch) in received.iter_mut().zip(batches) {
                        if let Some(batch) = batch {
                            self.open(buffer, batch);
                        }
                    }
                }
            }
        }
    }

    fn seal(&mut self, read: &mut [u8]) {
        let Some((header, packet)) = read.split_first_chunk_mut::<OFFLOAD_HEADER_BYTES>() else {
            return;
        };
        let Some(offload) = Offload::decode(header) else {
            return;
        };
        match offload.segments {
            Some((transport, bytes)) => {
                split(packet, transport, bytes, usize::MAX, |packet| {
                    self.push(Kind::PartialPacket, packet);
                });
            }
            None if offload.partial.is_some() => self.push(Kind::PartialPacket, packet),
            None => self.push(Kind::Packet, packet),
        }
    }

    fn push(&mut self, kind: Kind, packet: &[u8]) {
        let length = packet.len() + OVERHEAD_BYTES;
        let full = self.out.len() + length > BATCH_BYTES_MAX
            || self.out.len() >= self.stride * self.socket.batch_datagrams_max()
            || length > self.stride
            || !self.out.len().is_multiple_of(self.stride);
        if full {
            self.flush();
            self.stride = length;
        }
        let start = self.out.len();
        self.out.resize(start + length, 0);
        let _ = self.sealer.seal(kind, packet, &mut self.out[start..]);
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            let _ = self
                .socket
                .send((self.peer, NOT_CAPABLE), &self.out, self.stride);
            self.out.clear();
        }
        self.stride = 0;
    }

    fn open(&mut self, buffer: &mut [u8], batch: Received) {
        let device = &self.device;
        let mut run: Option<Run<'_>> = None;
        let write = |run: Run<'_>| run.finish(|pieces| drop(device.write(pieces)));
        for datagram in buffer[..batch.bytes].chunks_mut(batch.stride) {
            let Ok(opened) = self.opener.open(datagram) else {
                continue;
            };
            let Ok(packet) = IpPacket::parse(opened.content) else {
                continue;
            };
            let partial = opened.kind == Some(Kind::PartialPacket);
            if run.as_mut().is_some_and(|run| run.extend(&packet, partial)) {
                continue;
            }
            if let Some(before) = run.replace(Run::begin(&packet, partial)) {
                write(before);
            }
        }
        if let Some(run) = run {
            write(run);
        }
    }
}
