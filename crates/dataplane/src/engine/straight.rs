//! What two hosts say to each other by the way that their packets have found.
//!
//! A way straight to a peer may be one that nothing but the engine's sockets can take: by a port
//! that was searched ([`super::punch`]). So the host is told of it, and may send messages of its own there,
//! sealed as packets are. They go straight or not at all: by the lane they would go in a circle.

use std::net::SocketAddr;

use super::driver::Driver;
use super::outbound::Way;
use super::sockets::Pair;
use super::{Outside, PeerKey};
use crate::sealed::{Kind, OVERHEAD_BYTES};

impl<O: Outside> Driver<O> {
    /// Tells the host of a way straight to the peer of a session, if that is another than it was told.
    pub(super) fn tell_way(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let at = session.paths.straight().map(|pair| pair.address);
        if at != session.told_at {
            session.told_at = at;
            let peer = session.peer;
            let at = at.or_else(|| self.straight_to(peer));
            self.exit.outside.straight(&peer, at);
        }
    }

    /// A session is forgotten that the host was told a way of.
    pub(super) fn untell_way(&mut self, peer: PeerKey) {
        let at = self.straight_to(peer);
        self.exit.outside.straight(&peer, at);
    }

    /// Returns where a peer is reached straight, by the session with it in any network.
    fn straight_to(&self, peer: PeerKey) -> Option<SocketAddr> {
        let slots = self.slots_of(peer).into_iter();
        let mut sessions = slots.filter_map(|slot| self.sessions.get(slot));
        sessions.find_map(|session| Some(session.paths.straight()?.address))
    }

    /// Sends a message to the host of a peer, if there is a way straight to it which it is not too
    /// long for.
    pub(super) fn say(&mut self, peer: PeerKey, message: &[u8]) {
        for slot in self.slots_of(peer) {
            let Some(session) = self.sessions.get_mut(slot) else {
                continue;
            };
            let way = session.paths.direct();
            let Some((to, bytes_max)) = way.filter(|(to, _)| to.is_straight()) else {
                continue;
            };
            let bytes = message.len() + OVERHEAD_BYTES;
            session.paths.spoke(self.now, bytes);
            if bytes <= bytes_max {
                let way = Way::Direct(to, bytes_max);
                self.exit.emit(session, way, Kind::Message, message);
            }
            return;
        }
    }

    /// Takes a message of a peer's host.
    pub(super) fn hear(&mut self, peer: PeerKey, from: Pair, message: &[u8]) {
        if from.is_straight() {
            self.exit.outside.said(&peer, message);
        }
    }
}
