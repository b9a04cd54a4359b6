//! Who was admitted in the present sessions, and who only knocked.

use std::collections::BTreeMap;

use enishi_overlay::admission::Standing;
use enishi_overlay::{NodeId, Time};

/// The most nodes whose admission is remembered: more than there can be sessions. Beyond it
/// the one that was silent the longest is forgotten, and has to show its proof again.
const PARTNERS_MAX: usize = 4096;

/// The most nodes without a proof that are remembered. They have a table of their own, so
/// that they cannot crowd out members.
const STRANGERS_MAX: usize = 256;

/// What is known of a node in the present session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    /// How it stands, once it has shown a proof that counts.
    pub(super) standing: Option<Standing>,
    /// A hash of that proof, which needs no second look.
    proof: [u8; 32],
    /// When this node last showed its own proof to it.
    pub(super) presented_at: Option<Time>,
    /// The number of the newest revocation list that it has.
    pub(super) revocations: u64,
    /// How many messages it sent without a proof.
    pub(super) overheard: u32,
    /// When it was last asked for its proof.
    pub(super) asked_at: Option<Time>,
    /// When it last showed one that does not count.
    pub(super) tried_at: Option<Time>,
    used_at: Time,
}

impl Peer {
    /// Returns how it stands if it was admitted by this very proof.
    pub(super) fn admitted_by(&self, proof: &[u8; 32]) -> Option<Standing> {
        self.standing.filter(|_| self.proof == *proof)
    }

    pub(super) fn admit(&mut self, standing: Standing, proof: [u8; 32]) {
        self.standing = Some(standing);
        self.proof = proof;
        self.overheard = 0;
        self.tried_at = None;
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Whom this node addressed, or admitted.
    partners: BTreeMap<NodeId, Peer>,
    strangers: BTreeMap<NodeId, Peer>,
}

impl Peers {
    /// Returns a node that this one addresses or admits.
    pub(super) fn partner(&mut self, id: NodeId, now: Time) -> &mut Peer {
        if !self.partners.contains_key(&id) {
            let known = self.strangers.remove(&id).unwrap_or_default();
            make_room(&mut self.partners, PARTNERS_MAX);
            self.partners.insert(id, known);
        }
        touch(self.partners.entry(id).or_default(), now)
    }

    /// Returns a node that has spoken.
    pub(super) fn spoken(&mut self, id: NodeId, now: Time) -> &mut Peer {
        if self.partners.contains_key(&id) {
            return touch(self.partners.entry(id).or_default(), now);
        }
        if !self.strangers.contains_key(&id) {
            make_room(&mut self.strangers, STRANGERS_MAX);
        }
        touch(self.strangers.entry(id).or_default(), now)
    }

    pub(super) fn standing(&self, id: NodeId) -> Option<Standing> {
        self.partners.get(&id)?.standing
    }

    pub(super) fn presented_at(&self, id: NodeId) -> Option<Time> {
        self.partners.get(&id)?.presented_at
    }

    pub(super) fn admitted(&self) -> impl Iterator<Item = (NodeId, Standing)> {
        let partners = self.partners.iter();
        partners.filter_map(|(id, peer)| Some((*id, peer.standing?)))
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.partners.remove(&id);
        self.strangers.remove(&id);
    }

    /// The own proof is another one: everybody is to see it.
    pub(super) fn present_anew(&mut self) {
        for peer in self.partners.values_mut() {
            peer.presented_at = None;
        }
    }
}

fn touch(peer: &mut Peer, now: Time) -> &mut Peer {
    peer.used_at = now;
    peer
}

fn make_room(peers: &mut BTreeMap<NodeId, Peer>, max: usize) {
    if peers.len() >= max {
        let oldest = peers.iter().min_by_key(|(_, peer)| peer.used_at);
        if let Some(oldest) = oldest.map(|(id, _)| *id) {
            peers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> NodeId {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(octets)
    }

    #[test]
    fn strangers_crowd_out_strangers_and_the_silent_go_first() {
        let mut peers = Peers::default();
        let standing = Standing {
            expires_unix_s: 9,
            invitation: None,
            single_use: None,
        };
        for number in 0..PARTNERS_MAX {
            let at = Time::from_secs(number as u64);
            peers.partner(id(number), at).admit(standing, [0; 32]);
        }
        for number in 10_000..20_000 {
            peers.spoken(id(number), Time::from_secs(9_000)).overheard += 1;
        }
        assert_eq!(peers.strangers.len(), STRANGERS_MAX);
        assert_eq!(peers.admitted().count(), PARTNERS_MAX);
        peers.spoken(id(0), Time::from_secs(9_000));
        peers.partner(id(30_000), Time::from_secs(9_001));
        assert!(peers.standing(id(0)).is_some() && peers.standing(id(1)).is_none());
        assert_eq!(peers.partners.len(), PARTNERS_MAX);
    }
}
