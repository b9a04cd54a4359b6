//! Ways straight to members that packets have found, and what hosts say to each other there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use enishi_dataplane::engine::PeerKey;
use enishi_overlay::NodeId;
use tokio::sync::mpsc;

use super::{Networks, lock};

/// The most words that wait to be taken.
const WORDS_MAX: usize = 1_024;

/// What there is by the ways of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A way straight to a peer was found, or another one.
    Found(NodeId, SocketAddr),
    /// It is not there any more.
    Lost(NodeId),
    /// The host of a peer has said something.
    Said(NodeId, Bytes),
}

/// Who is reached straight, and who hears of it; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Straight {
    at: Arc<Mutex<HashMap<PeerKey, SocketAddr>>>,
    words: mpsc::Sender<Word>,
}

impl Straight {
    /// Nobody is reached yet. What finds no room in the channel is lost.
    pub(super) fn new() -> (Self, mpsc::Receiver<Word>) {
        let (words, inlet) = mpsc::channel(WORDS_MAX);
        let at = Arc::default();
        (Self { at, words }, inlet)
    }

    /// Returns where a peer is.
    fn to(&self, peer: &PeerKey) -> Option<SocketAddr> {
        lock(&self.at).get(peer).copied()
    }

    /// A peer is reached at an address, or no longer.
    pub(super) fn set(&self, peer: &PeerKey, at: Option<SocketAddr>) {
        let node = NodeId::from_bytes(*peer);
        let word = match at {
            Some(at) => {
                lock(&self.at).insert(*peer, at);
                Word::Found(node, at)
            }
            None => {
                lock(&self.at).remove(peer);
                Word::Lost(node)
            }
        };
        let _ = self.words.try_send(word);
    }

    /// Passes on what the host of a peer has said.
    pub(super) fn said(&self, peer: &PeerKey, message: &[u8]) {
        let message = Bytes::copy_from_slice(message);
        let _ = self
            .words
            .try_send(Word::Said(NodeId::from_bytes(*peer), message));
    }
}

impl Networks {
    /// Returns what there is by the ways of packets; once.
    pub fn words(&self) -> Option<mpsc::Receiver<Word>> {
        lock(&self.words).take()
    }

    /// Returns where packets go straight to a member, if they do.
    pub fn straight_to(&self, peer: NodeId) -> Option<SocketAddr> {
        self.straight.to(peer.as_bytes())
    }

    /// Sends a message to the host of a member by the way that packets go straight, or not at all; it may be
    /// lost. Never waits.
    pub fn say(&self, peer: NodeId, message: Bytes) {
        if let Some(started) = self.started.get() {
            started.inbox.say(*peer.as_bytes(), message);
        }
    }
}
