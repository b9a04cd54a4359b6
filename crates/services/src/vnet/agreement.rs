//! Keys for the packets that two members exchange.
//!
//! Whoever asks and whoever answers each draw an X25519 key for this one agreement
//! (RFC 7748, section 6.1) and forget it afterwards, so that what was sealed stays sealed
//! when a node's key or the channel's secret becomes known later. The channel's session
//! secret is mixed in, so that a node which could pretend to be a member in the session
//! cannot have the keys. Everything that was said is mixed in as well: who, the nonce of this
//! agreement, both keys and both indices.
//!
//! ```text
//! shared            = X25519(own secret, the other's public key); all zeros are refused
//! asker to answerer = derive("... to answerer", shared, [channel, said])
//! answerer to asker = derive("... to asker", shared, [channel, said])
//! ```
//!
//! [`derive`] is BLAKE3's key derivation. The TLS exporter of the session is not mixed in: two
//! nodes may have two connections for a moment, and need not take the same one. What was said
//! went through a session that proves who the other is, which is what the exporter would add.

use std::net::SocketAddr;
use std::time::Duration;

use enishi_overlay::{NodeId, Rng};
use serde::Serialize;
use x25519_dalek::{PublicKey, StaticSecret};

use super::secret::ChannelKeys;
use crate::keys::{Secret, derive};

/// After how long others are agreed on, if keys are used: as in WireGuard (section 6.1 of its
/// paper, Rekey-After-Time). The answerer waits a little longer, so that only one asks.
const RENEW_ASKER: Duration = Duration::from_secs(120);
const RENEW_ANSWERER: Duration = Duration::from_secs(135);

/// The two highest bits of an index are set, by which datagrams are told from others.
const INDEX_MARK: u32 = 0xc000_0000;

/// What one side of an agreement keeps until it is made; forgotten when dropped.
pub(super) struct Draw {
    secret: StaticSecret,
    /// What the other side is told.
    pub(super) public: [u8; 32],
    /// What this node wants to call the session.
    pub(super) index: u32,
}

impl Draw {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        rng.fill(&mut *seed);
        let secret = StaticSecret::from(*seed);
        Self {
            public: PublicKey::from(&secret).to_bytes(),
            secret,
            index: rng.number() as u32 | INDEX_MARK,
        }
    }
}

impl std::fmt::Debug for Draw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draw")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What one side said of its draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) node: NodeId,
    pub(super) public: [u8; 32],
    pub(super) index: u32,
    pub(super) aes: bool,
}

/// Keys that were agreed with a member, and where its packets may be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// The key for what goes to the member.
    #[serde(skip)]
    pub send: Secret,
    /// The key for what comes from it.
    #[serde(skip)]
    pub receive: Secret,
    /// What the member calls the session, and what this node calls it.
    pub send_index: u32,
    /// See there.
    pub receive_index: u32,
    /// Whether both have AES in hardware: AES-256-GCM is used then, ChaCha20-Poly1305
    /// otherwise.
    pub aes: bool,
    /// Whether the member is known to have the keys: true for whoever asked.
    pub member_has_them: bool,
    /// After how long others are wanted, if they are used.
    pub renew_after: Duration,
    /// Where the member takes packets.
    pub candidates: Vec<SocketAddr>,
}

/// Derives the keys of an agreement; none when the other's key is one of the few with which
/// the outcome would not depend on ours (RFC 7748, section 6.1).
pub(super) fn agree(
    keys: &ChannelKeys,
    draw: &Draw,
    (asker, answerer): (Said, Said),
    nonce: &[u8; 16],
    candidates: Vec<SocketAddr>,
) -> Option<Agreement> {
    let asked = asker.public == draw.public;
    let (mine, other) = if asked {
        (asker, answerer)
    } else {
        (answerer, asker)
    };
    let shared = draw.secret.diffie_hellman(&PublicKey::from(other.public));
    if !shared.was_contributory() {
        return None;
    }
    let mut said = nonce.to_vec();
    for side in [asker, answerer] {
        said.extend(side.node.as_bytes());
        said.extend(side.public);
        said.extend(side.index.to_be_bytes());
        said.push(side.aes.into());
    }
    let about = [&keys.session()[..], &said];
    let to_answerer = derive("enishi 1 packets to answerer", shared.as_bytes(), &about);
    let to_asker = derive("enishi 1 packets to asker", shared.as_bytes(), &about);
    let (send, receive) = if asked {
        (to_answerer, to_asker)
    } else {
        (to_asker, to_answerer)
    };
    Some(Agreement {
        send,
        receive,
        send_index: other.index | INDEX_MARK,
        receive_index: mine.index,
        aes: asker.aes && answerer.aes,
        member_has_them: asked,
        renew_after: if asked { RENEW_ASKER } else { RENEW_ANSWERER },
        candidates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(octet: u8) -> Rng {
        Rng::from_seed([octet; 32])
    }

    fn channel(secret: u8) -> ChannelKeys {
        let network = "10.77.0.0/16".parse().unwrap();
        ChannelKeys::new("office", network, &Secret::new([secret; 32]), None)
    }

    fn said(draw: &Draw, node: u8) -> Said {
        let node = NodeId::from_bytes([node; 32]);
        Said {
            node,
            public: draw.public,
            index: draw.index,
            aes: true,
        }
    }

    #[test]
    fn both_have_the_same_keys_and_nobody_else() {
        let (a, b) = (Draw::new(&mut rng(1)), Draw::new(&mut rng(2)));
        let sides = (said(&a, 1), said(&b, 2));
        let of = |secret, draw, sides, nonce| {
            agree(&channel(secret), draw, sides, &[nonce; 16], vec![]).unwrap()
        };
        let (asker, answerer) = (of(7, &a, sides, 3), of(7, &b, sides, 3));
        assert_eq!(
            (&asker.send, &asker.receive),
            (&answerer.receive, &answerer.send)
        );
        assert_eq!((asker.send_index, asker.receive_index), (b.index, a.index));
        assert_ne!(asker.send, asker.receive);
        assert!(asker.member_has_them && !answerer.member_has_them && asker.aes);
        let other_secret = of(8, &b, sides, 3);
        let other_nonce = of(7, &b, sides, 4);
        let other_node = of(
            7,
            &b,
            (
                Said {
                    node: NodeId::from_bytes([9; 32]),
                    ..sides.0
                },
                sides.1,
            ),
            3,
        );
        for other in [other_secret, other_nonce, other_node] {
            assert_ne!(asker.send, other.receive);
        }
    }

    #[test]
    fn keys_that_contribute_nothing_are_refused() {
        let a = Draw::new(&mut rng(1));
        let zero = Said {
            public: [0; 32],
            ..said(&Draw::new(&mut rng(2)), 2)
        };
        assert!(agree(&channel(7), &a, (said(&a, 1), zero), &[0; 16], vec![]).is_none());
    }

    #[test]
    fn keys_are_never_shown() {
        let (a, b) = (Draw::new(&mut rng(1)), Draw::new(&mut rng(2)));
        let agreement = agree(
            &channel(7),
            &a,
            (said(&a, 1), said(&b, 2)),
            &[0; 16],
            vec![],
        )
        .unwrap();
        let shown = format!("{a:?} {agreement:?}");
        assert!(!shown.contains(&format!("{:?}", &agreement.send[..4])));
        let written = postcard::to_stdvec(&agreement).unwrap();
        assert!(!written.windows(8).any(|part| part == &agreement.send[..8]));
    }
}
