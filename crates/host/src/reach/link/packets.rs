//! Links by the way straight to a peer that packets of a channel have found: often by a port that was searched,
//! where nothing else leads. Both ends are members of the channel and have agreed on keys, so there is no hello;
//! either end begins.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use enishi_overlay::NodeId;
use tokio::sync::mpsc;

use super::hello::Pipe;
use super::message::Message;
use super::{Linker, Opened};
use crate::packets::{Networks, Word};

/// The most messages that wait in one direction of a link.
const MESSAGES_MAX: usize = 256;

/// The links by the ways of packets.
pub(super) struct ByPackets {
    pub(super) networks: Arc<Networks>,
    pipes: Mutex<HashMap<NodeId, mpsc::Sender<Bytes>>>,
}

impl ByPackets {
    pub(super) fn new(networks: Arc<Networks>) -> Self {
        let pipes = Mutex::default();
        Self { networks, pipes }
    }

    /// Hands what a peer said to the link with it; false if there is none.
    fn hand_over(&self, peer: NodeId, message: &Bytes) -> bool {
        let pipes = crate::reach::lock(&self.pipes);
        let pipe = pipes.get(&peer).filter(|pipe| !pipe.is_closed());
        // Without room it is lost.
        pipe.inspect(|pipe| drop(pipe.try_send(message.clone())))
            .is_some()
    }

    fn has(&self, peer: NodeId) -> bool {
        let pipes = crate::reach::lock(&self.pipes);
        pipes.get(&peer).is_some_and(|pipe| !pipe.is_closed())
    }

    /// The link with a peer ends: nothing comes any more.
    fn end(&self, peer: NodeId) {
        crate::reach::lock(&self.pipes).remove(&peer);
    }

    /// Makes the two directions of a link.
    fn pipe(&self, peer: NodeId) -> Pipe {
        let (to, mut outgoing) = mpsc::channel(MESSAGES_MAX);
        let (incoming, from) = mpsc::channel(MESSAGES_MAX);
        let mut pipes = crate::reach::lock(&self.pipes);
        pipes.retain(|_, pipe| !pipe.is_closed());
        pipes.insert(peer, incoming);
        let networks = Arc::clone(&self.networks);
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                networks.say(peer, message);
            }
        });
        Pipe { to, from }
    }
}

impl Linker {
    /// Takes note of what there is by the ways of packets.
    pub(super) fn on_word(self: &Arc<Self>, word: Word) {
        match word {
            Word::Found(peer, at) => {
                let is_wanted = || self.carrier.has_session(peer) && !self.carrier.is_reached(peer);
                if self.packets.has(peer) || is_wanted() {
                    self.link_by_packets(peer, at);
                }
            }
            Word::Lost(peer) => self.packets.end(peer),
            Word::Said(peer, message) => {
                let begins = || {
                    let message = Message::decode(&message);
                    matches!(message, Some(Message::Packet(_) | Message::Ping))
                };
                if !self.packets.hand_over(peer, &message)
                    && begins()
                    && let Some(at) = self.packets.networks.straight_to(peer)
                {
                    self.link_by_packets(peer, at);
                    self.packets.hand_over(peer, &message);
                }
            }
        }
    }

    /// Uses the way of packets for a session, in place of a link that there is.
    pub(super) fn link_by_packets(self: &Arc<Self>, peer: NodeId, at: SocketAddr) {
        let opened = Opened {
            pipe: self.packets.pipe(peer),
            about: format!("udp {at}"),
            welcome: None,
            held: Box::new(()),
        };
        self.serve(peer, opened);
    }
}
