//! Who uses the keys of limited invitations to governed channels ([`crate::uses`]).

use enishi_overlay::NodeId;

use super::government::channel_of_token;
use super::{Alarm, ChannelId, Cx, Vnet};
use crate::calls::{GetAnswer, PutAnswer};
use crate::uses::Finding;

impl Vnet {
    /// Does what is due, and comes back when the next is.
    pub(super) fn see_uses(&mut self, id: ChannelId, cx: &mut Cx<'_>) {
        let channel = self.channels.get_mut(&id);
        if let Some(government) = channel.and_then(|channel| channel.government.as_mut()) {
            government.uses.ring(cx);
        }
        self.await_uses(id);
    }

    fn await_uses(&mut self, id: ChannelId) {
        let channel = self.channels.get(&id);
        let government = channel.and_then(|channel| channel.government.as_ref());
        if let Some(next) = government.and_then(|g| g.uses.next_timeout()) {
            self.deadlines.set(Alarm::Uses(id), next);
        }
    }

    /// A member that came by a limited invitation is in touch: does it hold the key?
    pub(super) fn watch_use(&mut self, id: ChannelId, member: NodeId, cx: &mut Cx<'_>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let (Some(government), Some(claim)) =
            (&mut channel.government, channel.members.get(&member))
        else {
            return;
        };
        let standing = government.standing(claim, cx.unix_s());
        if let Some(key) = standing.and_then(|standing| standing.single_use) {
            government.uses.watch(key, member, cx);
            self.await_uses(id);
        }
    }

    /// There may be neighbours on the ring now: own keys that are not claimed yet can be.
    pub(super) fn claim_uses(&mut self, cx: &mut Cx<'_>) {
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        for id in ids {
            let channel = self.channels.get_mut(&id);
            if let Some(government) = channel.and_then(|channel| channel.government.as_mut()) {
                government.uses.neighbours_changed(cx.now());
            }
            self.await_uses(id);
        }
    }

    pub(super) fn use_found(&mut self, token: u64, answer: &GetAnswer, cx: &mut Cx<'_>) {
        let Some(id) = channel_of_token(token) else {
            return;
        };
        let channel = self.channels.get_mut(&id);
        if let Some(government) = channel.and_then(|channel| channel.government.as_mut()) {
            let finding = government.uses.got(token, answer, cx);
            self.follow(id, finding, cx);
        }
    }

    pub(super) fn use_claimed(&mut self, token: u64, answer: PutAnswer, cx: &mut Cx<'_>) {
        let Some(id) = channel_of_token(token) else {
            return;
        };
        let channel = self.channels.get_mut(&id);
        if let Some(government) = channel.and_then(|channel| channel.government.as_mut()) {
            let finding = government.uses.put_done(token, answer, cx);
            self.follow(id, finding, cx);
        }
    }

    fn follow(&mut self, id: ChannelId, finding: Finding, cx: &mut Cx<'_>) {
        match finding {
            Finding::Nothing => {}
            Finding::AnotherKey(_) => {
                let me = cx.me();
                let channel = self.channels.get_mut(&id);
                if let Some(government) = channel.and_then(|c| c.government.as_mut()) {
                    government.use_key(me);
                }
                self.keep(id, cx);
                self.publish_all(id, cx);
                self.announce_to_known(id, cx);
            }
            Finding::SecondUse { member, .. } => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.members.remove(&member);
                }
                self.detach_one(id, member, cx);
            }
        }
        if let Some(channel) = self.channels.get_mut(&id)
            && channel.is_used_up()
        {
            channel.notice = Some(
                "the invitation was used by others already: ask for another one (`enishi channel \
                 invite`), after `enishi channel leave`"
                    .to_owned(),
            );
        }
        self.await_uses(id);
    }
}
