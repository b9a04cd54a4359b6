//! Ways straight to members that packets have found, and what hosts say to each other there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use enishi_dataplane::engine::PeerKey;
use enishi_overlay::NodeId;
use tokio::sync::mpsc;

use super::{Networks, lock};

/// The most words that wait to be taken, and messages of one peer.
const WORDS_MAX: usize = 256;
const MESSAGES_MAX: usize = 256;

/// What there is by the ways of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A way straight to a peer was found, or another one.
    Found(NodeId, SocketAddr),
    /// The host of a peer has said something, and nobody listens to it.
    Said(NodeId, Bytes),
}

/// Who is reached straight, and who hears of it; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Straight {
    peers: Arc<Mutex<HashMap<PeerKey, Peer>>>,
    words: mpsc::Sender<Word>,
}

/// A peer that is reached straight.
#[derive(Debug)]
struct Peer {
    at: SocketAddr,
    listener: Option<mpsc::Sender<Bytes>>,
}

impl Straight {
    /// Nobody is reached yet. What finds no room in the channel is lost.
    pub(super) fn new() -> (Self, mpsc::Receiver<Word>) {
        let (words, inlet) = mpsc::channel(WORDS_MAX);
        let peers = Arc::default();
        (Self { peers, words }, inlet)
    }

    /// A peer is reached at an address, or no longer: who listens to it hears the end then.
    pub(super) fn set(&self, peer: &PeerKey, at: Option<SocketAddr>) {
        let mut peers = lock(&self.peers);
        let Some(at) = at else {
            peers.remove(peer);
            return;
        };
        let listener = None;
        let known = peers.entry(*peer).or_insert(Peer { at, listener });
        known.at = at;
        drop(peers);
        let _ = self
            .words
            .try_send(Word::Found(NodeId::from_bytes(*peer), at));
    }

    fn listen(&self, peer: &PeerKey) -> Option<mpsc::Receiver<Bytes>> {
        let mut peers = lock(&self.peers);
        let known = peers.get_mut(peer)?;
        let (listener, inlet) = mpsc::channel(MESSAGES_MAX);
        known.listener = Some(listener);
        Some(inlet)
    }

    /// Passes on what the host of a peer has said; nothing of one that is not reached.
    pub(super) fn said(&self, peer: &PeerKey, message: &[u8]) {
        let mut peers = lock(&self.peers);
        let Some(known) = peers.get_mut(peer) else {
            return;
        };
        let message = Bytes::copy_from_slice(message);
        known.listener.take_if(|listener| listener.is_closed());
        // Without room it is lost.
        let _ = match &known.listener {
            Some(listener) => listener.try_send(message).is_ok(),
            None => {
                let word = Word::Said(NodeId::from_bytes(*peer), message);
                self.words.try_send(word).is_ok()
            }
        };
    }
}

impl Networks {
    /// Returns what there is by the ways of packets; once.
    pub fn words(&self) -> Option<mpsc::Receiver<Word>> {
        lock(&self.words).take()
    }

    /// Returns where packets go straight to a member, if they do.
    pub fn straight_to(&self, peer: NodeId) -> Option<SocketAddr> {
        let peers = lock(&self.straight.peers);
        peers.get(peer.as_bytes()).map(|peer| peer.at)
    }

    /// Returns all to whom packets go straight.
    pub fn all_straight(&self) -> Vec<(NodeId, SocketAddr)> {
        let peers = lock(&self.straight.peers);
        let all = peers
            .iter()
            .map(|(peer, known)| (NodeId::from_bytes(*peer), known.at));
        all.collect()
    }

    /// Returns what the host of a member says from now on, instead of who listened so far. It ends with the
    /// way; none without one.
    pub fn listen_to(&self, peer: NodeId) -> Option<mpsc::Receiver<Bytes>> {
        self.straight.listen(peer.as_bytes())
    }

    /// Tells whether somebody listens to the host of a member.
    pub fn is_listened_to(&self, peer: NodeId) -> bool {
        let peers = lock(&self.straight.peers);
        let listener = peers
            .get(peer.as_bytes())
            .and_then(|peer| peer.listener.as_ref());
        listener.is_some_and(|listener| !listener.is_closed())
    }

    /// Sends a message to the host of a member by the way that packets go straight, or not at all; it may be
    /// lost. Never waits.
    pub fn say(&self, peer: NodeId, message: Bytes) {
        if let Some(started) = self.started.get() {
            started.inbox.say(*peer.as_bytes(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::error::TryRecvError;

    use super::*;

    #[test]
    fn who_listens_hears_a_peer_until_its_way_is_lost() {
        const PEER: PeerKey = [7; 32];
        let peer = NodeId::from_bytes(PEER);
        let at: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let (straight, mut words) = Straight::new();
        straight.said(&PEER, b"from nowhere");
        assert!(straight.listen(&PEER).is_none());
        straight.set(&PEER, Some(at));
        straight.said(&PEER, b"one");
        let mut inlet = straight.listen(&PEER).unwrap();
        straight.said(&PEER, b"two");
        assert_eq!(words.try_recv(), Ok(Word::Found(peer, at)));
        let said = Word::Said(peer, Bytes::from_static(b"one"));
        assert_eq!(words.try_recv(), Ok(said));
        assert_eq!(inlet.try_recv(), Ok(Bytes::from_static(b"two")));
        // As many as nobody takes are lost, and no words are made of them.
        for _ in 0..2 * MESSAGES_MAX {
            straight.said(&PEER, b"three");
        }
        assert_eq!(words.try_recv(), Err(TryRecvError::Empty));
        // Another address is no reason to begin anew.
        straight.set(&PEER, Some("192.0.2.1:8".parse().unwrap()));
        assert!(matches!(words.try_recv(), Ok(Word::Found(..))));
        let kept = std::iter::from_fn(|| inlet.try_recv().ok()).count();
        assert_eq!(kept, MESSAGES_MAX);
        straight.set(&PEER, None);
        assert_eq!(inlet.try_recv(), Err(TryRecvError::Disconnected));
        // Who has gone listens no more.
        straight.set(&PEER, Some(at));
        drop(straight.listen(&PEER));
        straight.said(&PEER, b"four");
        let mut left = std::iter::from_fn(|| words.try_recv().ok());
        assert!(left.any(|word| word == Word::Said(peer, Bytes::from_static(b"four"))));
    }
}
