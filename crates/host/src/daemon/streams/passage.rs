//! Streams under the rules of a governed channel.
//!
//! A stream leads to a service by its name and has no port. So it takes a rule without ports, as
//! every protocol does that has none. It belongs to the channel in which it was opened: it ends
//! when the rules of that channel do not allow it any more, and when one of the two is no member
//! any more.

use std::sync::Arc;

use enishi_overlay::NodeId;
use enishi_services::Node;
use enishi_services::vnet::access::{Permit, Permits};
use enishi_services::vnet::wire::Claim;
use enishi_services::vnet::{Channel, ChannelId, Event};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Desk;
use crate::store::unix_s;

/// Who opens a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// This node.
    Me,
    /// The other member.
    Member,
}

/// By what a stream is allowed.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) channel: ChannelId,
    /// The claim of the peer in the channel, when the stream was opened. The directory of members
    /// may not have it later on, which says nothing of whether it is one.
    pub(super) claim: Arc<Claim>,
    opener: Opener,
}

/// What there is between this node and a peer.
#[derive(Debug)]
pub(super) enum Passages {
    /// No common channel.
    None,
    /// Common channels, none of which allows it; the name of one.
    Refused(String),
    /// It is allowed.
    Allowed(Passage),
}

impl Passages {
    /// Looks for a channel by which a stream is allowed. Who opens one needs a member; who takes
    /// one, a member that has proved in its session that it is one.
    pub(super) fn find(node: &Node, peer: NodeId, opener: Opener) -> Self {
        let mut found = Self::None;
        for (id, channel) in node.vnet().channels() {
            let claim = match opener {
                Opener::Me => channel.member(peer),
                Opener::Member => channel.attached(peer),
            };
            let Some(claim) = claim else { continue };
            if allows(node, channel, claim, opener) {
                return Self::Allowed(Passage {
                    channel: id,
                    claim: Arc::new(claim.clone()),
                    opener,
                });
            }
            found = Self::Refused(channel.name().to_owned());
        }
        found
    }
}

impl Passage {
    /// Returns when the stream is allowed no more. The events begin no later than when it was
    /// found to be allowed.
    pub(super) async fn end(self, desk: Desk, mut events: Receiver<Event>) {
        loop {
            match events.recv().await {
                Ok(Event::Governed(channel) | Event::Closed(channel))
                    if channel == self.channel => {}
                Ok(_) => continue,
                // It may have been among those that were missed.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
            let passage = self.clone();
            let allowed = desk.look(move |node| passage.is_open(node)).await;
            if !allowed.unwrap_or(false) {
                return;
            }
        }
    }

    fn is_open(&self, node: &Node) -> bool {
        let channel = node.vnet().channel(self.channel);
        channel.is_some_and(|channel| {
            // It may have come by another invitation since.
            let known = channel.member(self.claim.contact.id());
            let claim = known.unwrap_or(&self.claim);
            channel.admits(claim, unix_s()) && allows(node, channel, claim, self.opener)
        })
    }
}

fn allows(node: &Node, channel: &Channel, claim: &Claim, opener: Opener) -> bool {
    let permits = channel.permits(node.id(), claim);
    permits.is_none_or(|permits| lets_begin(&permits, opener))
}

fn lets_begin(permits: &Permits, opener: Opener) -> bool {
    let permits = match opener {
        Opener::Me => &permits.outbound,
        Opener::Member => &permits.inbound,
    };
    permits.iter().any(Permit::is_for_everything)
}

#[cfg(test)]
mod tests {
    use enishi_services::vnet::access::Ports;

    use super::*;

    #[test]
    fn each_end_asks_what_its_rules_let_the_opener_begin() {
        let permit = |network, ports| Permit { network, ports };
        let whole = permit(None, None);
        let port = permit(None, Some(Ports::Tcp(0, u16::MAX)));
        let lan = permit("192.168.7.0/24".parse().ok(), None);
        let one_way = Permits {
            inbound: vec![port.clone(), lan.clone(), whole],
            outbound: vec![port, lan],
        };
        assert!(lets_begin(&one_way, Opener::Member));
        assert!(!lets_begin(&one_way, Opener::Me));
        let turned = Permits {
            inbound: one_way.outbound,
            outbound: one_way.inbound,
        };
        assert!(!lets_begin(&turned, Opener::Member));
        assert!(lets_begin(&turned, Opener::Me));
    }
}
