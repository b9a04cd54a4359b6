//! Any protocol of the node's shape can live in the world.

use std::time::Duration;

use enishi_overlay::{Contact, NodeId, Time};
use enishi_sim::internet::Model;
use enishi_sim::participant::{Birth, Effect, Input};
use enishi_sim::{Participant, World};

/// Passes a number on, one more each time, and asks again each second.
#[derive(Debug)]
struct Counter {
    neighbour: Option<Contact>,
    ask_at: Option<Time>,
}

impl Participant for Counter {
    type Message = u32;
    type Command = ();
    type Event = (NodeId, u32);
    type Key = ();
    type Config = Duration;

    fn new(_: Birth, _: &Duration) -> Self {
        Self {
            neighbour: None,
            ask_at: None,
        }
    }

    fn handle(&mut self, now: Time, input: Input<Self>) -> impl Iterator<Item = Effect<Self>> {
        let effect = match input {
            Input::Bootstrap(contact) => {
                self.neighbour = Some(contact);
                self.ask_at = Some(now + Duration::from_secs(1));
                None
            }
            Input::Timeout => {
                self.ask_at = Some(now + Duration::from_secs(1));
                let to = self.neighbour.clone();
                to.map(|to| Effect::Send { to, message: 1 })
            }
            Input::Message { from, message } => Some(Effect::Event((from, message))),
            Input::Unreachable(peer) => Some(Effect::Event((peer, 0))),
            Input::Command(()) | Input::Restored { .. } => None,
        };
        effect.into_iter()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.ask_at
    }

    fn encoded_len(_: &u32) -> usize {
        4
    }
}

#[test]
fn another_protocol_meets_the_same_world() {
    let mut world = World::<Counter>::inhabited(1, Model::default(), Duration::ZERO);
    let first = world.spawn(None);
    let second = world.spawn(Some(first));
    world.run_for(Duration::from_millis(10_500));
    let heard = world.take_events();
    assert_eq!(heard.len(), 10);
    assert!(
        heard
            .iter()
            .all(|(_, index, event)| { *index == first && *event == (world.id(second), 1) })
    );
    assert_eq!(world.counters().bytes, 40);
    world.kill(first);
    world.run_for(Duration::from_secs(200));
    let heard = world.take_events();
    let unreachable = (second, (world.id(first), 0));
    assert!(
        heard
            .iter()
            .any(|(_, index, event)| (*index, *event) == unreachable)
    );
}
