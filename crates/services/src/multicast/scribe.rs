//! The tree of Scribe: the union of the members' routes to the rendezvous.
//!
//! A member joins by the next node on the way to the rendezvous, which joins in turn unless
//! it has, up to the node in charge (document 004, equation 8; M. Castro, P. Druschel,
//! A.-M. Kermarrec, A. Rowstron, "Scribe: A large-scale and decentralized application-level
//! multicast infrastructure", JSAC 2002). Each step is to the peer that is nearest to the
//! rendezvous, so each node's parent is nearer than itself and there are no loops. Messages
//! go from each node to its parent and children but the one that they came from. Nodes on
//! the way forward though they are no members and read nothing.

use std::time::Duration;

use enishi_overlay::{Contact, Coordinate, NodeId};

use super::Cx;
use super::group::{Alarm, Group, Role};
use super::keys::rendezvous;
use super::wire::Body;
use crate::calls::Tree;

/// How often the way is looked at again; a prime, as the overlay's periods are.
const TEND_INTERVAL: Duration = Duration::from_secs(13);
/// How soon after something changed.
const TEND_SOON: Duration = Duration::from_secs(1);
/// How long the answer to a join is waited for.
const JOINING_MAX: Duration = Duration::from_secs(3);

impl Group {
    /// Joins by the next node on the way to the rendezvous, and leaves the one before.
    pub(super) fn tend_route(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let silent: Vec<NodeId> = self
            .asking
            .iter()
            .filter(|(_, (_, at))| now.since(*at) >= JOINING_MAX)
            .map(|(id, _)| *id)
            .collect();
        let next = self.next_to_rendezvous(&silent, cx);
        for id in silent {
            cx.suspect(id);
            self.asking.remove(&id);
        }
        let parent = self.parent();
        let joining = next.is_some_and(|next| self.asking.contains_key(&next));
        match next {
            Some(next) if parent != Some(next) && !joining => {
                self.asking.insert(next, (Role::Parent, now));
                self.say(next, &Body::Join, cx);
            }
            None => self.leave_parent(None, cx),
            Some(_) => {}
        }
        let interval = match self.asking.is_empty() {
            true => cx.rng().jitter(TEND_INTERVAL),
            false => JOINING_MAX,
        };
        self.deadlines.set(Alarm::Tend, now + interval);
    }

    /// The neighbours on the ring changed.
    pub(super) fn tend_soon(&mut self, cx: &mut Cx<'_>) {
        if self.tree == Tree::Scribe {
            let soon = cx.now() + TEND_SOON;
            self.deadlines.set_no_later(Alarm::Tend, soon);
        }
    }

    /// A node wants to have the messages by way of this one.
    pub(super) fn on_join(&mut self, from: NodeId, cx: &mut Cx<'_>) {
        if self.tree != Tree::Scribe {
            return;
        }
        let contact = contact_of(from, cx);
        // One that is full says nothing: the other looks for another way.
        if let Some(link) = self.link_with(&contact, Coordinate::default(), cx.now()) {
            link.theirs = true;
            // The ways of the two cross while the ring changes: the one that is nearer is right.
            link.mine = None;
            self.say(from, &Body::Joined, cx);
            self.greet(from, true, cx);
            self.deadlines.set_no_later(Alarm::Tend, cx.now());
        }
    }

    /// The next node on the way takes this one in.
    pub(super) fn on_joined(&mut self, from: NodeId, cx: &mut Cx<'_>) {
        if self.asking.remove(&from).is_none() || self.tree != Tree::Scribe {
            return;
        }
        let contact = contact_of(from, cx);
        let now = cx.now();
        if let Some(link) = self.link_with(&contact, Coordinate::default(), now) {
            link.mine = Some(Role::Parent);
            self.leave_parent(Some(from), cx);
            self.greet(from, true, cx);
        }
    }

    /// A child leaves, or a parent ends.
    pub(super) fn on_leave(&mut self, from: NodeId, cx: &mut Cx<'_>) {
        if self.tree == Tree::Scribe {
            let was_parent = self.parent() == Some(from);
            self.unlink(from, cx);
            if was_parent {
                self.deadlines.set_no_later(Alarm::Tend, cx.now());
            }
        }
    }

    /// Tells whether this node neither is a member nor forwards for anyone.
    pub(super) fn is_idle(&self) -> bool {
        self.member.is_none() && !self.links.values().any(|link| link.theirs)
    }

    fn parent(&self) -> Option<NodeId> {
        let mut links = self.links.iter();
        let parent = links.find(|(_, link)| link.mine == Some(Role::Parent));
        parent.map(|(id, _)| *id)
    }

    /// Leaves the parents but the one to be kept.
    fn leave_parent(&mut self, keep: Option<NodeId>, cx: &mut Cx<'_>) {
        let links = self.links.iter();
        let parents = links.filter(|(id, link)| link.mine.is_some() && Some(**id) != keep);
        let parents: Vec<(NodeId, bool)> = parents.map(|(id, link)| (*id, link.theirs)).collect();
        for (id, is_child) in parents {
            if is_child {
                if let Some(link) = self.links.get_mut(&id) {
                    link.mine = None;
                }
            } else {
                self.say(id, &Body::Leave, cx);
                self.unlink(id, cx);
            }
        }
    }

    /// Returns the peer that is nearest to the rendezvous, if it is nearer than this node.
    fn next_to_rendezvous(&self, avoid: &[NodeId], cx: &Cx<'_>) -> Option<NodeId> {
        let (target, overlay) = (rendezvous(&self.tag), cx.overlay());
        let peers = overlay.peers().map(|peer| peer.contact().id());
        let ranked = peers
            .filter(|id| !avoid.contains(id))
            .map(|id| (target.rank(overlay.position_of(&id)), id));
        let (rank, next) = ranked.min()?;
        // A client is in charge of nothing.
        let nearer = overlay.is_client() || rank < target.rank(overlay.position());
        nearer.then_some(next)
    }
}

/// Returns how to reach a node that has just spoken.
fn contact_of(id: NodeId, cx: &Cx<'_>) -> Contact {
    let known = cx.overlay().contact_of(id);
    known.unwrap_or_else(|| Contact::new(id, []))
}
