//! Nodes that relay packets, as the node decided.

use std::time::Duration;

use enishi_dataplane::engine::{ByRelay, Command, RelayTerms};
use enishi_dataplane::relay::{RelayKey, Token};
use enishi_services::keys::Secret;
use enishi_services::reach::relay::{Relayed, Terms};

use super::Networks;
use crate::reach::Rates;

impl Networks {
    /// Says how much is relayed for others.
    pub(crate) fn set_relay_terms(&self, terms: Terms, rates: Rates) {
        self.tell(Command::RelayTerms(RelayTerms {
            pairs_max: terms.pairs_max as usize,
            bytes_per_s_each: rates.each,
            bytes_per_s_all: rates.all,
        }));
    }

    /// Relays between two others from now on.
    pub(crate) fn relay(&self, token: u64, keys: &[Secret; 2], lasts: Duration) {
        self.tell(Command::Relay {
            token: Token(token),
            keys: keys.each_ref().map(|key| RelayKey::new(**key)),
            lasts,
        });
    }

    /// Relays between two others no longer.
    pub(crate) fn end_relay(&self, token: u64) {
        let keys = [(); 2].map(|()| Secret::new([0; 32]));
        self.relay(token, &keys, Duration::ZERO);
    }

    /// A node relays to a peer.
    pub(crate) fn by_relay(&self, relayed: &Relayed) {
        // What leads into a virtual network would be a tunnel within itself.
        if self.open.holds(relayed.at.ip()) {
            return;
        }
        let (peer, by, at) = (relayed.peer, relayed.by, relayed.at);
        tracing::debug!(?peer, ?by, %at, "a node relays packets to a peer");
        self.tell(Command::ByRelay(ByRelay {
            peer: *relayed.peer.as_bytes(),
            by: *relayed.by.as_bytes(),
            at: relayed.at,
            token: Token(relayed.token),
            key: RelayKey::new(*relayed.key),
            lasts: relayed.lasts,
        }));
    }
}
