//! How the two ends of a link come to know each other, and what they say afterwards.
//!
//! ```text
//!   opener                                            listener
//!     | -- 0 Hello: "enishi/1" ------------------------> |
//!     | <------------------ 1 Nonce: 32 octets drawn --- |
//!     | -- 2 Proof: ephemeral key, sealed(id, signature) > |
//!     | <---------------------------- 3 Welcome: a seal -- |
//!     | <- 4 Packet (octets) / 5 Ping / 6 Pong ---------> |
//! ```
//!
//! The opener then pings: of several links that it has opened at once it takes one, and the listener
//! uses none before it knows that.
//!
//! The first octet of a message says which it is. Whoever carries the link reads it all, a proxy for
//! one, so nothing in it names a node: the opener's id is sealed for the listener, by a key agreed on
//! (X25519, RFC 7748) between a key pair drawn for this link and the listener's own, whose id the
//! opener knows already. The listener says nothing to who does not know its id. The signature is over
//! the nonce, so that nobody can show it again; the seal of the welcome proves the listener.
//!
//! Packets are those of QUIC, which protects them; a link adds nothing to that.

use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId, Rng};
use enishi_services::keys::{Secret, derive, seal, unseal};
use tokio::sync::mpsc;

use super::message::Message;

/// How long the other end may be silent before the same is said again: what carries a link may lose
/// messages.
const SAY_AGAIN: Duration = Duration::from_secs(1);

const SIGNED: &[u8] = b"enishi 1 link";

/// The two directions of what carries a link. Sending never waits: without room a message is lost.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) to: mpsc::Sender<Bytes>,
    pub(super) from: mpsc::Receiver<Bytes>,
}

/// What both ends know once the opener has drawn its key.
struct Agreed {
    proof: Secret,
    welcome: Secret,
    signed: Vec<u8>,
}

impl Agreed {
    fn new(shared: &[u8; 32], nonce: &[u8; 32], key: &[u8; 32], listener: NodeId) -> Self {
        let about: [&[u8]; 3] = [nonce, key, listener.as_bytes()];
        Self {
            proof: derive("enishi 1 link proof", shared, &about),
            welcome: derive("enishi 1 link welcome", shared, &about),
            signed: [&[SIGNED], &about[..]].concat().concat(),
        }
    }
}

/// A pipe whose other end takes links: of which node, shows only by [`Greeted::prove`].
#[derive(Debug)]
pub(super) struct Greeted {
    pipe: Pipe,
    nonce: [u8; 32],
}

/// Finds out whether links are taken at the other end; none when what is there does not speak this.
/// The caller limits the time.
pub(super) async fn greet(mut pipe: Pipe) -> Option<Greeted> {
    let nonce = pipe
        .ask(&Message::Hello, |answer| match answer {
            Message::Nonce(nonce) => Some(nonce),
            _ => None,
        })
        .await?;
    Some(Greeted { pipe, nonce })
}

impl Greeted {
    /// Opens the link; none when what is there is not that node, or is silent. The caller limits the
    /// time.
    pub(super) async fn prove(mut self, own: &Keypair, listener: NodeId) -> Option<Pipe> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok()?;
        let mut rng = Rng::from_seed(seed);
        let drawn = {
            let mut seed = zeroize::Zeroizing::new([0; 32]);
            rng.fill(&mut *seed);
            Keypair::from_seed(&seed)
        };
        let key = *drawn.id().as_bytes();
        let agreed = Agreed::new(&*drawn.agree(&listener)?, &self.nonce, &key, listener);
        let name = [&own.id().as_bytes()[..], &own.sign(&agreed.signed)].concat();
        let sealed = seal(&mut rng, &agreed.proof, &[], &name).into();
        let is_it = |answer| match answer {
            Message::Welcome(sealed) => unseal(&agreed.welcome, &[], &sealed).map(drop),
            _ => None,
        };
        let proof = Message::Proof { key, sealed };
        self.pipe.ask(&proof, is_it).await?;
        Some(self.pipe)
    }
}

/// Waits for a node that opens a link, and returns which it is, what it was answered, and the place that it was
/// given; none when the other end proves to be none, goes, or finds no `place`. The caller limits the time.
pub(super) async fn accept<T>(
    pipe: &mut Pipe,
    own: &Keypair,
    place: impl FnOnce() -> Option<T>,
) -> Option<(NodeId, Bytes, T)> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).ok()?;
    let mut rng = Rng::from_seed(seed);
    let mut nonce = [0; 32];
    rng.fill(&mut nonce);
    loop {
        match Message::decode(&pipe.from.recv().await?)? {
            Message::Hello => pipe.say(&Message::Nonce(nonce)),
            Message::Proof { key, sealed } => {
                let shared = own.agree(&NodeId::from_bytes(key))?;
                let agreed = Agreed::new(&shared, &nonce, &key, own.id());
                let name = unseal(&agreed.proof, &[], &sealed)?;
                let (id, signature) = name.split_first_chunk::<32>()?;
                let opener = NodeId::from_bytes(*id);
                let signature = <[u8; 64]>::try_from(signature).ok()?;
                let is_it = opener != own.id() && opener.verify(&agreed.signed, &signature);
                let place = is_it.then(place).flatten()?;
                let welcome = seal(&mut rng, &agreed.welcome, &[], &[]);
                let welcome = Message::Welcome(welcome.into());
                pipe.say(&welcome);
                return Some((opener, welcome.encode(), place));
            }
            _ => return None,
        }
    }
}

impl Pipe {
    /// Says something; without room it is lost.
    pub(super) fn say(&self, message: &Message) {
        let _ = self.to.try_send(message.encode());
    }

    /// Says something again and again until the answer comes.
    async fn ask<T>(
        &mut self,
        message: &Message,
        mut is_answer: impl FnMut(Message) -> Option<T>,
    ) -> Option<T> {
        loop {
            self.say(message);
            let answered = async {
                loop {
                    // What comes twice, or late, is passed over.
                    let answer = Message::decode(&self.from.recv().await?)?;
                    if let Some(answer) = is_answer(answer) {
                        return Some(answer);
                    }
                }
            };
            if let Ok(answer) = tokio::time::timeout(SAY_AGAIN, answered).await {
                return answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Pipe, Pipe) {
        let ((to, from), (back_to, back_from)) = (mpsc::channel(8), mpsc::channel(8));
        let far = Pipe { to: back_to, from };
        (
            Pipe {
                to,
                from: back_from,
            },
            far,
        )
    }

    async fn open(pipe: Pipe, own: &Keypair, listener: NodeId) -> Option<Pipe> {
        greet(pipe).await?.prove(own, listener).await
    }

    async fn accepted(pipe: &mut Pipe, own: &Keypair) -> Option<NodeId> {
        let accepted = accept(pipe, own, || Some(())).await;
        accepted.map(|(opener, ..)| opener)
    }

    fn key(n: u8) -> Keypair {
        Keypair::from_seed(&[n; 32])
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is() {
        let (near, mut far) = pair();
        let listening = tokio::spawn(async move { accepted(&mut far, &key(2)).await });
        assert!(open(near, &key(1), key(2).id()).await.is_some());
        assert_eq!(listening.await.unwrap(), Some(key(1).id()));
    }

    #[tokio::test]
    async fn who_is_another_node_is_told_nothing() {
        let (near, mut far) = pair();
        let listening = tokio::spawn(async move { accepted(&mut far, &key(3)).await });
        assert!(open(near, &key(1), key(2).id()).await.is_none());
        assert_eq!(listening.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_proof_counts_once_and_names_nobody() {
        let (near, mut middle) = pair();
        let opening = tokio::spawn(async move { open(near, &key(1), key(2).id()).await.is_some() });
        let hello = middle.from.recv().await.unwrap();
        assert_eq!(Message::decode(&hello), Some(Message::Hello));
        middle.say(&Message::Nonce([7; 32]));
        let proof = middle.from.recv().await.unwrap();
        let contains = |part: &[u8]| proof.windows(part.len()).any(|w| w == part);
        assert!(!contains(key(1).id().as_bytes()) && !contains(key(2).id().as_bytes()));
        opening.abort();
        // Shown to the listener, which has drawn another nonce.
        let (near, mut far) = pair();
        near.to.try_send(hello).unwrap();
        near.to.try_send(proof).unwrap();
        assert_eq!(accepted(&mut far, &key(2)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_is_said_again() {
        let (near, mut far) = pair();
        let listening = tokio::spawn(async move {
            far.from.recv().await;
            accepted(&mut far, &key(2)).await
        });
        assert!(open(near, &key(1), key(2).id()).await.is_some());
        assert_eq!(listening.await.unwrap(), Some(key(1).id()));
    }
}
