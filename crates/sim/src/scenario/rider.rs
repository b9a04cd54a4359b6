//! A world of nodes of which some are free riders: they join, ask and store like the
//! others, and pass nothing on and keep nothing for anybody.
//!
//! A rider is the daemon's own node, with the policy of all, whose host throws away what the
//! node would send for others, and tells it that its disk is full. Half of the riders confirm what they then
//! drop; the other half give it back at once. They answer what is asked of themselves, and
//! whom they know: without that they would lose their own place. For their first minutes
//! they are honest: whoever knows nobody but a rider would never get in.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{Config, Message, NodeId, Position, Time};
use enishi_services::{Command, Event, Node, dht, service::ServiceId};

use super::subject::{Seen, Subject};
use crate::participant::{Birth, Effect, Input, Participant};
use crate::world::{Index, Traffic};

/// How old a rider is when it begins to ride: a world has grown by then.
const HONEST_FOR: Duration = Duration::from_secs(120);

/// How such a world is set up.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// How everyone but the riders takes part.
    pub(super) config: Config,
    /// How many of a million are riders.
    pub(super) riders_per_million: u32,
}

/// What becomes of what a node should pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// It is passed on.
    Honest,
    /// It is confirmed and dropped.
    Drops,
    /// It is given back.
    GivesBack,
}

impl Manners {
    /// Returns the manners of the node with a number: the riders are spread evenly, and the
    /// first node is none.
    pub(super) fn of(index: Index, riders_per_million: u32) -> Self {
        let spread = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let rides = index > 0 && (spread * 1_000_000) >> 32 < u64::from(riders_per_million);
        match spread & 1 {
            _ if !rides => Self::Honest,
            0 => Self::Drops,
            _ => Self::GivesBack,
        }
    }
}

/// A node, honest or not.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) node: Node,
    id: NodeId,
    manners: Manners,
}

impl Participant for Member {
    type Message = Message;
    type Command = Command;
    type Event = Event;
    type Key = (ServiceId, Vec<u8>);
    type Config = Setting;

    fn new(birth: Birth, setting: &Setting) -> Self {
        let manners = Manners::of(birth.index, setting.riders_per_million);
        let id = birth.keypair.id();
        let mut node = <Node as Participant>::new(birth, &setting.config.clone().into());
        if manners != Manners::Honest {
            let full = dht::Command::Storage { works: false };
            let input = enishi_services::Input::Command(Command::Dht(full));
            node.handle(Time::ZERO, input).for_each(drop);
        }
        Self { node, id, manners }
    }

    fn handle(&mut self, now: Time, input: Input<Self>) -> impl Iterator<Item = Effect<Self>> + '_ {
        let given = match &input {
            Input::Message {
                from,
                message: Message::Routed(routed),
            } => Some((*from, routed.hop)),
            _ => None,
        };
        let effects = Participant::handle(&mut self.node, now, input_of(input));
        let mut effects: Vec<Effect<Self>> = effects.map(effect_of).collect();
        if self.manners != Manners::Honest && now.since(Time::ZERO) > HONEST_FOR {
            self.ride(given, &mut effects);
        }
        effects.into_iter()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.node.next_timeout()
    }

    fn encoded_len(message: &Message) -> usize {
        message.encoded_len()
    }

    fn sort(message: &Message) -> &'static str {
        <Node as Participant>::sort(message)
    }
}

impl Member {
    /// Throws away what is for others; `given` is the message that was to be passed on.
    fn ride(&self, given: Option<(NodeId, u32)>, effects: &mut Vec<Effect<Self>>) {
        let before = effects.len();
        effects.retain(|effect| !self.is_relayed(effect));
        let relayed = effects.len() < before;
        let Some((from, number)) = given.filter(|_| relayed && self.manners == Manners::GivesBack)
        else {
            return;
        };
        for effect in effects {
            if let Effect::Send { to, message } = effect
                && to.id() == from
                && *message == (Message::HopAck { hop: number })
            {
                let (hop, declined) = (number, true);
                *message = Message::HopNack { hop, declined };
            }
        }
    }

    fn is_relayed(&self, effect: &Effect<Self>) -> bool {
        match effect {
            Effect::Send {
                message: Message::Routed(routed),
                ..
            } => routed.origin.id() != self.id,
            _ => false,
        }
    }
}

impl Subject for Member {
    fn lookup(id: u64, target: Position) -> Command {
        Node::lookup(id, target)
    }

    fn seen(event: Event) -> Option<Seen> {
        Node::seen(event)
    }

    fn place(&self) -> Position {
        self.node.place()
    }

    fn in_charge(places: &BTreeMap<Position, Index>, target: Position) -> Option<Index> {
        Node::in_charge(places, target)
    }

    fn table_len(&self) -> (usize, usize) {
        self.node.table_len()
    }

    fn lookup_bytes(traffic: &Traffic) -> u64 {
        Node::lookup_bytes(traffic)
    }
}

fn input_of(input: Input<Member>) -> Input<Node> {
    match input {
        Input::Message { from, message } => Input::Message { from, message },
        Input::Unreachable(peer) => Input::Unreachable(peer),
        Input::Bootstrap(contact) => Input::Bootstrap(contact),
        Input::Restored { key, value, age_s } => Input::Restored { key, value, age_s },
        Input::Command(command) => Input::Command(command),
        Input::Timeout => Input::Timeout,
    }
}

fn effect_of(effect: Effect<Node>) -> Effect<Member> {
    match effect {
        Effect::Send { to, message } => Effect::Send { to, message },
        Effect::GiveUp(peer) => Effect::GiveUp(peer),
        Effect::Drop(peer) => Effect::Drop(peer),
        Effect::Event(event) => Effect::Event(event),
        Effect::Persist { key, value } => Effect::Persist { key, value },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn riders_are_as_many_as_asked_for_and_of_both_kinds() {
        for share in [0, 100_000, 300_000, 500_000] {
            let manners: Vec<Manners> = (0..1000).map(|i| Manners::of(i, share)).collect();
            let count = |kind| manners.iter().filter(|m| **m == kind).count() as u32;
            let (drop, back) = (count(Manners::Drops), count(Manners::GivesBack));
            assert!((drop + back).abs_diff(share / 1000) <= 20, "{drop} {back}");
            assert!(drop.abs_diff(back) <= 60, "{drop} {back}");
        }
    }
}
