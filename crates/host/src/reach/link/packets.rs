//! Links by the way straight to a peer that packets of a channel have found: often by a port that was searched,
//! where nothing else leads. Both ends are members of the channel and have agreed on keys, so there is no hello;
//! either end begins, with a sign of life, and uses the link once it hears one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use enishi_overlay::NodeId;
use tokio::sync::mpsc;

use super::hello::Pipe;
use super::message::Message;
use super::{Beginning, Linker, Opened};
use crate::packets::Word;

/// The most messages that wait to be sent by a link.
const MESSAGES_MAX: usize = 256;

/// How long a peer may take to give a sign of life by the way of packets before others are tried.
const ANSWER_TIME: Duration = Duration::from_secs(1);

impl Linker {
    /// Takes note of what there is by the ways of packets.
    pub(super) fn on_word(self: &Arc<Self>, word: Word) {
        match word {
            Word::Found(peer, at) => self.consider_packets(peer, at),
            Word::Said(peer, message) => {
                let message = Message::decode(&message);
                if matches!(message, Some(Message::Packet(_) | Message::Ping))
                    && let Some(at) = self.networks.straight_to(peer)
                {
                    self.link_by_packets(peer, at);
                }
            }
        }
    }

    /// Looks whether sessions that others carry could go by the ways of packets.
    pub(super) fn consider_all_packets(self: &Arc<Self>) {
        for (peer, at) in self.networks.all_straight() {
            self.consider_packets(peer, at);
        }
    }

    fn consider_packets(self: &Arc<Self>, peer: NodeId, at: SocketAddr) {
        if self.carrier.has_session(peer)
            && !self.carrier.is_reached(peer)
            && !self.networks.is_listened_to(peer)
        {
            self.link_by_packets(peer, at);
        }
    }

    /// Tries the way of packets; tells whether the peer is reached then.
    pub(super) async fn open_by_packets(self: &Arc<Self>, peer: NodeId) -> bool {
        let Some(at) = self.networks.straight_to(peer) else {
            return false;
        };
        self.link_by_packets(peer, at);
        tokio::time::sleep(ANSWER_TIME).await;
        self.carrier.is_reached(peer)
    }

    /// Begins a link by the way of packets.
    fn link_by_packets(self: &Arc<Self>, peer: NodeId, at: SocketAddr) {
        let Some(from) = self.networks.listen_to(peer) else {
            return;
        };
        let (to, mut outgoing) = mpsc::channel(MESSAGES_MAX);
        let networks = Arc::clone(&self.networks);
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                networks.say(peer, message);
            }
        });
        let opened = Opened {
            pipe: Pipe { to, from },
            about: format!("udp {at}"),
            beginning: Beginning::BySignOfLife,
            held: Box::new(()),
        };
        self.serve(peer, opened);
    }
}
