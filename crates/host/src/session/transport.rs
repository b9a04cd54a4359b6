//! Packets of sessions that no socket of this node carries: the QUIC library's custom transport.
//!
//! What the library wants to send to a peer by this transport is handed to the host's [`Carry`],
//! and what comes from a peer in any such way enters by [`Transport::deliver`]. To the library
//! each peer has one address here that never changes, whichever nodes carry its packets: those are
//! changed below it, so that a connection does not notice.
//!
//! The address is the number of a place in a table, not the peer's id, and is worth nothing on
//! another node. The library never forgets an address, and takes in any before anything of it is
//! proven: with [`PEERS_MAX`] places what strangers can make it keep is bounded.
//!
//! Nothing waits here. What finds no room is lost, as on any network.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use enishi_overlay::NodeId;
use iroh::endpoint::transports::{
    CustomEndpoint, CustomSender, CustomTransport, RecvInfo, Transmit,
};
use iroh_base::{CustomAddr, TransportAddr};
use n0_watcher::Watchable;
use noq_udp::RecvMeta;

use super::{CARRIED_BYTES_MAX, lock};

/// By which the library tells transports apart: `enishi`.
const TRANSPORT: u64 = 0x656e_6973_6869;

/// The most peers with an address; the one not heard of for longest gives way.
const PEERS_MAX: usize = 4_096;

/// The most packets, and octets of them, that wait for the library.
const RECEIVED_MAX: usize = 4_096;
const RECEIVED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many packets the library may hand over at once. The least of all transports counts, so less
/// would slow sockets down, which take so many in one call.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Who carries packets to peers that no socket reaches.
pub trait Carry: Send + Sync + 'static {
    /// Carries a packet of at most [`CARRIED_BYTES_MAX`] octets. Called while a connection
    /// is locked: must not block, nor ask anything of a session.
    fn carry(&self, to: NodeId, packet: Bytes);

    /// Tells how packets to a peer go; none when there is no way.
    fn by(&self, to: NodeId) -> Option<By>;
}

/// How packets go that no socket of the sessions carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// By way of another node.
    Node(NodeId),
    /// Over a link to the peer itself, described for people: `tcp 192.0.2.1:443`.
    Link(Arc<str>),
}

/// Of a node for which nobody carries packets.
#[derive(Clone, Copy, Debug)]
pub struct NobodyCarries;

impl Carry for NobodyCarries {
    fn carry(&self, _: NodeId, _: Bytes) {}

    fn by(&self, _: NodeId) -> Option<By> {
        None
    }
}

/// The transport, as long as the sessions last; endpoints come and go.
#[derive(Clone)]
pub(super) struct Transport(Arc<Inner>);

struct Inner {
    carry: Arc<dyn Carry>,
    places: Mutex<Places>,
    received: Mutex<Received>,
    own: Watchable<Vec<CustomAddr>>,
}

/// Which peer has which address.
#[derive(Default)]
struct Places {
    by_peer: HashMap<NodeId, u32>,
    peers: Vec<Place>,
    uses: u64,
}

struct Place {
    peer: NodeId,
    used: u64,
}

/// What came and waits for the library.
#[derive(Default)]
struct Received {
    packets: VecDeque<(u32, Bytes)>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Transport {
    pub(super) fn new(carry: Arc<dyn Carry>) -> Self {
        Self(Arc::new(Inner {
            carry,
            places: Mutex::default(),
            received: Mutex::default(),
            own: Watchable::new(Vec::new()),
        }))
    }

    /// Returns the address of a peer.
    pub(super) fn address(&self, peer: NodeId) -> TransportAddr {
        TransportAddr::Custom(address(lock(&self.0.places).number(peer)))
    }

    /// Takes a packet in that somebody says to be of this peer, which QUIC then finds out.
    pub(super) fn deliver(&self, from: NodeId, packet: Bytes) {
        let number = lock(&self.0.places).number(from);
        let waker = lock(&self.0.received).push(number, packet);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Tells how packets to a peer go.
    pub(super) fn by(&self, peer: NodeId) -> Option<By> {
        self.0.carry.by(peer)
    }
}

impl Places {
    /// Returns the number of a peer, which gets one if it has none.
    fn number(&mut self, peer: NodeId) -> u32 {
        self.uses += 1;
        let used = self.uses;
        if let Some(number) = self.by_peer.get(&peer) {
            if let Some(place) = self.peers.get_mut(*number as usize) {
                place.used = used;
            }
            return *number;
        }
        let place = Place { peer, used };
        let oldest = || {
            let places = self.peers.iter().enumerate();
            places.min_by_key(|(_, place)| place.used)
        };
        let number = match oldest().filter(|_| self.peers.len() >= PEERS_MAX) {
            Some((oldest, _)) => {
                let gone = std::mem::replace(&mut self.peers[oldest], place);
                self.by_peer.remove(&gone.peer);
                oldest
            }
            None => {
                self.peers.push(place);
                self.peers.len() - 1
            }
        };
        // There are `PEERS_MAX` numbers.
        self.by_peer.insert(peer, number as u32);
        number as u32
    }

    fn peer(&self, number: u32) -> Option<NodeId> {
        self.peers.get(number as usize).map(|place| place.peer)
    }
}

impl Received {
    /// Puts a packet behind the others, if there is room; returns whom to wake.
    fn push(&mut self, from: u32, packet: Bytes) -> Option<Waker> {
        let bytes = self.bytes + packet.len();
        if self.packets.len() >= RECEIVED_MAX || bytes > RECEIVED_BYTES_MAX {
            return None;
        }
        self.bytes = bytes;
        self.packets.push_back((from, packet));
        self.waker.take()
    }

    /// Takes the next packet if it is no longer than `bytes_max`; longer ones are dropped.
    fn pop(&mut self, bytes_max: usize) -> Option<(u32, Bytes)> {
        loop {
            let (from, packet) = self.packets.pop_front()?;
            self.bytes -= packet.len();
            if packet.len() <= bytes_max {
                return Some((from, packet));
            }
        }
    }
}

impl CustomTransport for Transport {
    fn bind(&self) -> io::Result<Box<dyn CustomEndpoint>> {
        Ok(Box::new(self.clone()))
    }
}

impl CustomEndpoint for Transport {
    fn watch_local_addrs(&self) -> n0_watcher::Direct<Vec<CustomAddr>> {
        self.0.own.watch()
    }

    fn create_sender(&self) -> Arc<dyn CustomSender> {
        Arc::new(self.clone())
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        infos: &mut [RecvInfo],
    ) -> Poll<io::Result<usize>> {
        let mut received = lock(&self.0.received);
        let mut count = 0;
        for ((buffer, meta), info) in buffers.iter_mut().zip(metas).zip(infos) {
            let Some((from, packet)) = received.pop(buffer.len()) else {
                break;
            };
            buffer[..packet.len()].copy_from_slice(&packet);
            (meta.len, meta.stride) = (packet.len(), packet.len());
            *info = RecvInfo::new(address(from), None);
            count += 1;
        }
        if count == 0 {
            received.waker = Some(cx.waker().clone());
            // The library gives an endpoint up when all of its transports fail, and then another one
            // takes its place. If this one only waited, sockets that died would never be noticed; as
            // long as one of them waits, an error here is nothing.
            return Poll::Ready(Err(io::ErrorKind::WouldBlock.into()));
        }
        Poll::Ready(Ok(count))
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        SEGMENTS_MAX
    }
}

impl CustomSender for Transport {
    fn is_valid_send_addr(&self, to: &CustomAddr) -> bool {
        number(to).is_some()
    }

    /// Never waits and never fails: the library would drop the packet in both cases, and give the
    /// endpoint up after some errors.
    fn poll_send(
        &self,
        _: &mut Context<'_>,
        to: &CustomAddr,
        _: Option<&CustomAddr>,
        transmit: &Transmit<'_>,
    ) -> Poll<io::Result<()>> {
        let peer = number(to).and_then(|number| lock(&self.0.places).peer(number));
        if let Some(peer) = peer {
            let length = transmit.segment_size.unwrap_or(transmit.contents.len());
            let packets = transmit.contents.chunks(length.max(1));
            for packet in packets.filter(|packet| packet.len() <= CARRIED_BYTES_MAX) {
                self.0.carry.carry(peer, Bytes::copy_from_slice(packet));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

fn address(number: u32) -> CustomAddr {
    CustomAddr::from_parts(TRANSPORT, &number.to_le_bytes())
}

fn number(address: &CustomAddr) -> Option<u32> {
    let octets = (address.id() == TRANSPORT).then(|| address.data())?;
    octets.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    #[test]
    fn addresses_are_bounded_and_those_in_use_stay() {
        let mut places = Places::default();
        let first = places.number(id(0));
        for n in 1..3 * PEERS_MAX {
            let number = places.number(id(n));
            assert_eq!(places.peer(number), Some(id(n)));
            assert_eq!(places.number(id(0)), first);
        }
        assert_eq!(
            (places.peers.len(), places.by_peer.len()),
            (PEERS_MAX, PEERS_MAX)
        );
        assert_eq!(places.peer(first), Some(id(0)));
        assert_eq!(number(&address(first)), Some(first));
        assert_eq!(number(&CustomAddr::from_parts(1, &[0; 4])), None);
    }

    #[test]
    fn what_waits_for_the_library_is_bounded() {
        let mut received = Received::default();
        for _ in 0..2 * RECEIVED_MAX {
            received.push(1, Bytes::from_static(&[0; 1_400]));
        }
        assert!(received.bytes <= RECEIVED_BYTES_MAX && received.packets.len() <= RECEIVED_MAX);
        assert!(received.pop(1_399).is_none() && received.packets.is_empty());
        assert_eq!(received.bytes, 0);
    }
}
