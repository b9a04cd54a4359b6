//! What the engine needs of the sessions: their datagram lanes, and somebody who listens.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_dataplane::engine::{self, Outside, PeerKey};
use enishi_dataplane::sealed::FOR_HOST;
use enishi_overlay::NodeId;
use enishi_services::rendezvous::QUESTION_BYTES;
use enishi_services::vnet::ChannelId;
use tokio::sync::mpsc;

use super::straight::Straight;
use super::stun::{Questions, Stun, Stunned};
use super::{Note, Open};
use crate::session::{DatagramLane, Sessions};

/// How many questions of strangers are passed on in a second; further ones are dropped.
const QUESTIONS_PER_S_MAX: u32 = 64;

/// The lanes of the sessions that packets went over, as long as these are open.
pub(super) struct Lanes {
    pub(super) sessions: Sessions,
    pub(super) notes: mpsc::Sender<Note>,
    pub(super) open: Arc<Open>,
    by_peer: HashMap<PeerKey, DatagramLane>,
    straight: Straight,
    stun: Stun,
    asked: Asked,
    answered: Asked,
}

impl Lanes {
    pub(super) fn new(
        sessions: Sessions,
        notes: mpsc::Sender<Note>,
        open: Arc<Open>,
        (questions, straight): (Questions, Straight),
    ) -> Self {
        Self {
            sessions,
            notes,
            open,
            by_peer: HashMap::new(),
            straight,
            stun: Stun::new(questions),
            asked: Asked::default(),
            answered: Asked::default(),
        }
    }
}

/// How many questions there were since a moment, a second ago at most.
#[derive(Debug, Default)]
struct Asked(Option<(Instant, u32)>);

impl Asked {
    /// Tells whether one more may be passed on in this second.
    fn may(&mut self, now: Instant) -> bool {
        let (since, count) = self.0.get_or_insert((now, 0));
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= QUESTIONS_PER_S_MAX
    }
}

impl Outside for Lanes {
    fn note(&mut self, note: engine::Note) {
        let note = match note {
            engine::Note::Missing { network, address } => Note::Missing {
                channel: ChannelId(network.0),
                address,
            },
            engine::Note::Many { network, packet } => Note::Many {
                channel: ChannelId(network.0),
                packet,
            },
            engine::Note::KeysWanted { network, peer } => Note::KeysWanted {
                channel: ChannelId(network.0),
                peer: NodeId::from_bytes(peer),
            },
            engine::Note::UnknownIndex { peer, index } => Note::UnknownIndex {
                from: NodeId::from_bytes(peer),
                index,
            },
            engine::Note::Seen { peer, at } => Note::Seen {
                by: NodeId::from_bytes(peer),
                at,
                ticket: None,
            },
            // What has cut that way off may have cut off the session's.
            engine::Note::Doubtful(peer) => {
                return self.sessions.doubt(NodeId::from_bytes(peer));
            }
            engine::Note::Wayless { peer, is_relayed } => {
                Note::Wayless(NodeId::from_bytes(peer), is_relayed)
            }
            engine::Note::RelayUnused(token) => Note::RelayUnused(token.0),
            engine::Note::Punched { peer, is_through } => {
                Note::Punched(NodeId::from_bytes(peer), is_through)
            }
            engine::Note::DeviceLost { network, name } => {
                return self.open.lost_device(ChannelId(network.0), &name);
            }
        };
        // Without room: the next packet brings another.
        let _ = self.notes.try_send(note);
    }

    fn lane_bytes_max(&mut self, peer: &PeerKey) -> Option<usize> {
        if let Some(bytes_max) = self.by_peer.get(peer).and_then(DatagramLane::bytes_max) {
            return Some(bytes_max);
        }
        self.by_peer.remove(peer);
        let lane = self.sessions.datagrams(NodeId::from_bytes(*peer))?;
        let bytes_max = lane.bytes_max()?;
        self.by_peer.insert(*peer, lane);
        Some(bytes_max)
    }

    fn send_by_lane(&mut self, peer: &PeerKey, datagrams: &[Bytes]) {
        if let Some(lane) = self.by_peer.get(peer) {
            // A path that has just become smaller loses those that are too large for it.
            let _ = lane.send_many(datagrams);
        }
    }

    fn straight(&mut self, peer: &PeerKey, at: Option<SocketAddr>) {
        self.straight.set(peer, at);
    }

    fn said(&mut self, peer: &PeerKey, message: &[u8]) {
        self.straight.said(peer, message);
    }

    fn foreign(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        if datagram
            .first()
            .is_some_and(|first| FOR_HOST.contains(first))
        {
            // Questions have one length, so a flood of them costs its sender something; answers, which
            // are this node's own affair, are counted by themselves.
            let counted = match datagram.len() == QUESTION_BYTES {
                true => &mut self.asked,
                false => &mut self.answered,
            };
            if counted.may(Instant::now()) {
                let datagram = Bytes::copy_from_slice(datagram);
                let _ = self.notes.try_send(Note::Question { from, datagram });
            }
            return None;
        }
        match self.stun.take(from, datagram)? {
            Stunned::Answer(answer) => Some((answer.to, answer.octets)),
            Stunned::Seen(by, at, ticket) => {
                let _ = self.notes.try_send(Note::Seen { by, at, ticket });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_passed_on_so_many_a_second() {
        let (mut asked, mut now) = (Asked::default(), Instant::now());
        for _ in 0..3 {
            let passed = (0..1_000).filter(|_| asked.may(now)).count();
            assert_eq!(passed, QUESTIONS_PER_S_MAX as usize);
            now += Duration::from_secs(1);
        }
    }
}
