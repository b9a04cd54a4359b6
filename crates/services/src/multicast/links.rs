//! The links of the tree among the members: three to the nearest, two to others.
//!
//! Members tell each other of members: each of those whom it knows that are nearest to the
//! other, and of some drawn from the rest. So everyone soon knows those nearest to it (M.
//! Jelasity, A. Montresor, O. Babaoglu, "T-Man: Gossip-based fast overlay topology
//! construction", Computer Networks 2009). Near links give short steps; the far ones, of
//! several drawn those whose own way into the network is shortest, keep the group in one
//! piece and carry messages between continents. A group whose members are all known links
//! each with each.

use std::time::Duration;

use enishi_overlay::{Coordinate, NodeId};

use super::group::{Alarm, Group, Role};
use super::wire::{Body, ExchangeSaid, LinkSaid, MEMBERS_TOLD_MAX, Told, Wish, whole};
use super::{Cx, SMALL_MAX};
use crate::calls::Tree;

/// How many links to the nearest a member wants.
const NEAR: usize = 3;
/// How many others.
const FAR: usize = 2;
/// From how many a far link is chosen.
const FAR_DRAWN: usize = 8;
/// How many links are asked for at once.
const ASKED_AT_ONCE: usize = 4;
/// How many of the members that are told are the nearest to who is told.
const NEAREST_TOLD: usize = 8;
/// From how many of the nearest every other partner of an exchange is drawn.
const NEAR_PARTNERS: usize = 8;
/// How often links are seen to: at first, and in the end; a prime, as the overlay's periods
/// are.
const TEND_FIRST: Duration = Duration::from_secs(1);
const TEND_INTERVAL: Duration = Duration::from_secs(31);
/// How long the answer to a wish for a link is waited for.
const ASKING_MAX: Duration = Duration::from_secs(6);
/// How long a member that has links enough is not asked again.
const SHUNNED_FOR: Duration = Duration::from_secs(300);
/// How long a neighbour may be silent: three digests.
const SILENT_MAX: Duration = Duration::from_secs(90);

impl Group {
    /// Sees to the links.
    pub(super) fn tend(&mut self, cx: &mut Cx<'_>) {
        self.drop_silent(cx);
        match self.tree {
            Tree::Biased => self.tend_members(cx),
            Tree::Scribe => self.tend_route(cx),
        }
    }

    fn drop_silent(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let links = self.links.iter();
        let silent = links.filter(|(_, link)| now.since(link.heard_at) > SILENT_MAX);
        let silent: Vec<NodeId> = silent.map(|(id, _)| *id).collect();
        let asked = self.asking.iter();
        let unanswered = asked.filter(|(_, (_, at))| now.since(*at) >= ASKING_MAX);
        let unanswered: Vec<NodeId> = unanswered.map(|(id, _)| *id).collect();
        for id in silent.into_iter().chain(unanswered) {
            cx.suspect(id);
            self.known.lost(id, now);
            self.asking.remove(&id);
            self.unlink(id, cx);
        }
    }

    fn tend_members(&mut self, cx: &mut Cx<'_>) {
        self.known.expire(cx.now());
        match self.is_small() {
            true => self.want_all(cx),
            false => self.want_some(cx),
        }
        self.exchange(cx);
        self.pause = (self.pause * 5 / 4).clamp(TEND_FIRST, TEND_INTERVAL);
        let wait = cx.rng().jitter(self.pause);
        self.deadlines.set(Alarm::Tend, cx.now() + wait);
    }

    /// Wants a link with every member.
    fn want_all(&mut self, cx: &mut Cx<'_>) {
        let missing: Vec<NodeId> = self
            .known
            .ids()
            .into_iter()
            .filter(|id| self.is_free(*id, cx))
            .collect();
        for id in missing.iter().take(SMALL_MAX) {
            self.want(*id, Role::Mesh, cx);
        }
    }

    /// Wants links with the nearest and with some others.
    fn want_some(&mut self, cx: &mut Cx<'_>) {
        self.release(Role::Mesh, 0, cx);
        self.want_near(cx);
        self.want_far(cx);
    }

    fn want_near(&mut self, cx: &mut Cx<'_>) {
        let mut have = self.with_role(Role::Near, cx);
        let under_way = self.asked_for(Role::Near);
        let mut lacking = NEAR.saturating_sub(have.len() + under_way);
        let here = cx.overlay().coordinate();
        let mut nearest: Vec<(Duration, NodeId)> = self
            .known
            .nearest(here)
            .into_iter()
            .filter(|id| !have.iter().any(|(_, other)| other == id))
            .filter(|id| self.is_open_to(*id, cx))
            .take(NEAR)
            .map(|id| (self.distance(id, cx).unwrap_or(Duration::MAX), id))
            .collect();
        nearest.sort_unstable();
        for (distance, id) in nearest {
            let worst = have.last().map(|(distance, _)| *distance);
            // By a quarter, since coordinates are only guesses.
            let nearer = worst.is_some_and(|worst| distance < worst - worst / 4);
            if lacking == 0 && !(nearer && under_way < ASKED_AT_ONCE) {
                break;
            }
            if lacking > 0 {
                lacking -= 1;
            } else {
                have.pop();
            }
            self.want(id, Role::Near, cx);
        }
        self.release(Role::Near, NEAR, cx);
    }

    fn want_far(&mut self, cx: &mut Cx<'_>) {
        let have = self.with_role(Role::Far, cx).len() + self.asked_for(Role::Far);
        let mut free = self.known.ids();
        free.retain(|id| self.is_free(*id, cx));
        let lacking = FAR.saturating_sub(have);
        for _ in 0..lacking {
            let drawn = (0..FAR_DRAWN.min(free.len()))
                .map(|_| free[cx.rng().below(free.len() as u64) as usize]);
            let drawn: Vec<NodeId> = drawn.collect();
            let best = drawn.into_iter().min_by_key(|id| (self.access(*id), *id));
            if let Some(best) = best {
                free.retain(|id| *id != best);
                self.want(best, Role::Far, cx);
            }
        }
    }

    /// Returns how long a member's own way into the network is, there and back.
    fn access(&self, id: NodeId) -> Duration {
        let coordinate = self.known.coordinate(id);
        let twice = coordinate.and_then(|coordinate| coordinate.round_trip(&coordinate));
        twice.unwrap_or(Duration::MAX)
    }

    /// Tells whether a member may be asked for a link, or has one already that it wants.
    fn is_open_to(&self, id: NodeId, cx: &Cx<'_>) -> bool {
        match self.links.get(&id) {
            Some(link) => link.mine.is_none(),
            None => self.is_free(id, cx),
        }
    }

    /// Tells whether there is neither a link nor a wish for one, and no reason against it.
    fn is_free(&self, id: NodeId, cx: &Cx<'_>) -> bool {
        let mut known = self.known.iter();
        let shunned = known.any(|(other, member)| *other == id && member.shunned_until > cx.now());
        !(shunned || self.links.contains_key(&id) || self.asking.contains_key(&id))
    }

    /// The links of a role and how far they are, nearest first.
    fn with_role(&self, role: Role, cx: &Cx<'_>) -> Vec<(Duration, NodeId)> {
        let links = self
            .links
            .iter()
            .filter(|(_, link)| link.mine == Some(role));
        let mut found: Vec<(Duration, NodeId)> = links
            .map(|(id, _)| (self.distance(*id, cx).unwrap_or(Duration::MAX), *id))
            .collect();
        found.sort_unstable();
        found
    }

    fn asked_for(&self, role: Role) -> usize {
        self.asking
            .values()
            .filter(|(asked, _)| *asked == role)
            .count()
    }

    /// Gives up the farthest links of a role past `keep`.
    fn release(&mut self, role: Role, keep: usize, cx: &mut Cx<'_>) {
        for (_, id) in self.with_role(role, cx).into_iter().skip(keep) {
            if let Some(link) = self.links.get_mut(&id) {
                link.mine = None;
                let wanted = link.theirs;
                self.say_of_link(id, Wish::Released, cx);
                if !wanted {
                    self.unlink(id, cx);
                }
            }
        }
    }

    fn want(&mut self, id: NodeId, role: Role, cx: &mut Cx<'_>) {
        self.asking.insert(id, (role, cx.now()));
        self.say_of_link(id, Wish::Wanted, cx);
        self.deadlines
            .set_no_later(Alarm::Tend, cx.now() + ASKING_MAX);
    }

    fn say_of_link(&self, to: NodeId, wish: Wish, cx: &mut Cx<'_>) {
        let me = myself(cx);
        let said = LinkSaid { wish, me };
        if let Some(sealed) = self.seal_for(to, &said, cx) {
            self.say(to, &Body::Link(sealed.into()), cx);
        }
    }

    fn seal_for(
        &self,
        to: NodeId,
        said: &impl serde::Serialize,
        cx: &mut Cx<'_>,
    ) -> Option<Vec<u8>> {
        let member = self.member.as_ref()?;
        let octets = postcard::to_stdvec(said).ok()?;
        let from = cx.me();
        Some(member.keys.seal_control(cx.rng(), (from, to), &octets))
    }

    fn open_from<T: serde::de::DeserializeOwned>(
        &self,
        from: NodeId,
        sealed: &[u8],
        cx: &Cx<'_>,
    ) -> Option<T> {
        let member = self.member.as_ref()?;
        whole(&member.keys.open_control((from, cx.me()), sealed)?)
    }

    /// Tells one that thinks to be a neighbour that it is none.
    pub(super) fn deny_link(&self, from: NodeId, cx: &mut Cx<'_>) {
        if self.known.has(from) && self.tree == Tree::Biased {
            self.say_of_link(from, Wish::Refused, cx);
        }
    }

    /// Another member says something of its link with this one.
    pub(super) fn on_link(&mut self, from: NodeId, sealed: &[u8], cx: &mut Cx<'_>) {
        let said: Option<LinkSaid> = self.open_from(from, sealed, cx);
        let Some(LinkSaid { wish, me: told }) = said.filter(|said| said.me.contact.id() == from)
        else {
            self.counters.refused += 1;
            return;
        };
        let now = cx.now();
        if wish != Wish::Leaving {
            self.known
                .learn(&told, cx.overlay().coordinate(), now, cx.rng());
        }
        match wish {
            Wish::Wanted => {
                let link = self.link_with(&told.contact, told.coordinate, now);
                let granted = link.map(|link| link.theirs = true).is_some();
                let answer = if granted {
                    Wish::Granted
                } else {
                    Wish::Refused
                };
                self.say_of_link(from, answer, cx);
                self.greet(from, granted, cx);
            }
            Wish::Granted => self.granted(&told, cx),
            Wish::Refused => {
                self.known.shun(from, now + SHUNNED_FOR);
                self.asking.remove(&from);
                self.unlink(from, cx);
                self.deadlines.set_no_later(Alarm::Tend, now + TEND_FIRST);
            }
            Wish::Released => {
                if let Some(link) = self.links.get_mut(&from) {
                    link.theirs = false;
                    if link.mine.is_none() {
                        self.unlink(from, cx);
                    }
                }
            }
            Wish::Leaving => self.gone(from, cx),
        }
    }

    fn granted(&mut self, told: &Told, cx: &mut Cx<'_>) {
        let (from, now) = (told.contact.id(), cx.now());
        let Some((role, _)) = self.asking.remove(&from) else {
            return;
        };
        let link = self.link_with(&told.contact, told.coordinate, now);
        match link {
            Some(link) => {
                link.mine = Some(role);
                self.greet(from, true, cx);
                if role == Role::Near {
                    self.release(Role::Near, NEAR, cx);
                }
            }
            None => self.say_of_link(from, Wish::Released, cx),
        }
    }

    /// Tells a new neighbour what is there.
    pub(super) fn greet(&self, new: NodeId, is_linked: bool, cx: &mut Cx<'_>) {
        if is_linked {
            self.say(new, &self.digest(cx), cx);
        }
    }

    /// Tells the neighbours that this node leaves the group.
    pub(super) fn take_leave(&self, cx: &mut Cx<'_>) {
        for id in self.links.keys().copied() {
            match self.tree {
                Tree::Biased => self.say_of_link(id, Wish::Leaving, cx),
                Tree::Scribe => self.say(id, &Body::Leave, cx),
            }
        }
    }

    /// Tells a member of members, and so is told of others: in turn one of the nearest, and
    /// any.
    fn exchange(&mut self, cx: &mut Cx<'_>) {
        let mut partners = self.known.nearest(cx.overlay().coordinate());
        if cx.rng().below(2) == 0 {
            partners.truncate(NEAR_PARTNERS);
        }
        if partners.is_empty() {
            return;
        }
        let partner = partners[cx.rng().below(partners.len() as u64) as usize];
        self.tell_members(partner, false, cx);
    }

    pub(super) fn tell_members(&self, to: NodeId, answer: bool, cx: &mut Cx<'_>) {
        let there = self.known.coordinate(to).unwrap_or_default();
        let members = self.sample(to, there, cx);
        let said = ExchangeSaid { answer, members };
        if let Some(sealed) = self.seal_for(to, &said, cx) {
            self.say(to, &Body::Exchange(sealed.into()), cx);
        }
    }

    /// Returns this member, those that are nearest to a place, and others.
    fn sample(&self, to: NodeId, there: Coordinate, cx: &mut Cx<'_>) -> Vec<Told> {
        let mut others = self.known.nearest(there);
        others.retain(|id| *id != to);
        let mut chosen: Vec<NodeId> = others.drain(..NEAREST_TOLD.min(others.len())).collect();
        while chosen.len() < MEMBERS_TOLD_MAX - 1 && !others.is_empty() {
            let drawn = cx.rng().below(others.len() as u64) as usize;
            chosen.push(others.swap_remove(drawn));
        }
        let now = cx.now();
        let told = chosen.into_iter().filter_map(|id| self.known.tell(id, now));
        std::iter::once(myself(cx)).chain(told).collect()
    }

    /// Another member tells of members.
    pub(super) fn on_exchange(&mut self, from: NodeId, sealed: &[u8], cx: &mut Cx<'_>) {
        let said: Option<ExchangeSaid> = self.open_from(from, sealed, cx);
        let Some(said) = said.filter(|said| said.members.len() <= MEMBERS_TOLD_MAX) else {
            self.counters.refused += 1;
            return;
        };
        let (me, now, here) = (cx.me(), cx.now(), cx.overlay().coordinate());
        let before = self.known.len();
        for told in &said.members {
            let id = told.contact.id();
            // Only who speaks is heard just now.
            let hearsay = id != from && told.age_s == 0;
            let age_s = told.age_s + u16::from(hearsay);
            if id != me {
                let told = Told {
                    age_s,
                    ..told.clone()
                };
                self.known.learn(&told, here, now, cx.rng());
            }
        }
        if before == 0 {
            self.pause = Duration::ZERO;
            self.deadlines.set_no_later(Alarm::Tend, now);
        }
        if !said.answer {
            self.tell_members(from, true, cx);
        }
    }
}

/// Returns what this node tells of itself.
pub(super) fn myself(cx: &Cx<'_>) -> Told {
    Told {
        contact: cx.overlay().me().clone(),
        coordinate: cx.overlay().coordinate(),
        age_s: 0,
    }
}
