//! What the engine needs of the sessions: their datagram lanes, and somebody who listens.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use enishi_dataplane::engine::{self, Outside, PeerKey};
use enishi_overlay::NodeId;
use enishi_services::vnet::ChannelId;
use tokio::sync::mpsc;

use super::stun::{Questions, Stun, Stunned};
use super::{Note, Open};
use crate::session::{DatagramLane, Sessions};

/// The lanes of the sessions that packets went over, as long as these are open.
pub(super) struct Lanes {
    pub(super) sessions: Sessions,
    pub(super) notes: mpsc::Sender<Note>,
    pub(super) open: Arc<Open>,
    by_peer: HashMap<PeerKey, DatagramLane>,
    stun: Stun,
}

impl Lanes {
    pub(super) fn new(
        sessions: Sessions,
        notes: mpsc::Sender<Note>,
        open: Arc<Open>,
        questions: Questions,
    ) -> Self {
        Self {
            sessions,
            notes,
            open,
            by_peer: HashMap::new(),
            stun: Stun::new(questions),
        }
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
            },
            engine::Note::Wayless { peer } => Note::Wayless(NodeId::from_bytes(peer)),
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

    fn foreign(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        match self.stun.take(from, datagram)? {
            Stunned::Answer(answer) => Some(answer),
            Stunned::Seen(by, at) => {
                let _ = self.notes.try_send(Note::Seen { by, at });
                None
            }
        }
    }
}
