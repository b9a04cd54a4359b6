//! What two hosts say to each other by the way that their packets have found.
//!
//! A way straight to a peer may be one that nothing but the engine's sockets can take: by a port
//! that was searched ([`super::punch`]). So the host is told of it, and may send messages of its own there,
//! sealed as packets are. They go straight or not at all: by the lane they would go in a circle. And only ways are
//! told of by which the longest datagrams pass: who says something has no other length to try.

use std::net::SocketAddr;

use super::driver::Driver;
use super::outbound::Way;
use super::session::Session;
use super::sockets::Pair;
use super::{DATAGRAM_BYTES, MESSAGE_BYTES_MAX, Outside, PeerKey};
use crate::sealed::{Kind, OVERHEAD_BYTES};

impl<O: Outside> Driver<O> {
    /// Tells the host of a way straight to the peer of a session, if that is another than it was told.
    pub(super) fn tell_way(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let at = way(session).map(|to| to.address);
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
        sessions.find_map(|session| Some(way(session)?.address))
    }

    /// Sends a message to the host of a peer, if there is a way for it.
    pub(super) fn say(&mut self, peer: PeerKey, message: &[u8]) {
        for slot in self.slots_of(peer) {
            let Some(session) = self.sessions.get_mut(slot) else {
                continue;
            };
            let Some(to) = way(session) else {
                continue;
            };
            session
                .paths
                .spoke(self.now, message.len() + OVERHEAD_BYTES);
            if message.len() <= MESSAGE_BYTES_MAX {
                let way = Way::Direct(to, DATAGRAM_BYTES[0]);
                self.exit.emit(session, way, Kind::Message, message);
            }
            return;
        }
    }
}

/// Returns the way for messages to the peer of a session.
fn way(session: &Session) -> Option<Pair> {
    let (to, bytes_max) = session.paths.direct()?;
    let is_one = to.is_straight() && bytes_max >= DATAGRAM_BYTES[0] && session.can_seal();
    is_one.then_some(to)
}
