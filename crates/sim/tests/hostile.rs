//! What hostile or broken peers cannot do.

mod town;

use std::time::Duration;

use enishi_overlay::view::VIEW_NODES_MAX;
use enishi_overlay::{Keypair, Message, NodeId};
use enishi_services::{Command, Event, diag};
use enishi_sim::oracle::Census;
use enishi_sim::world::World;

use town::{grown, setup};

const NODES: usize = 40;

fn world() -> World {
    grown(setup(9), NODES, 60)
}

fn stranger(seed: u8) -> NodeId {
    Keypair::from_seed(&[seed; 32]).id()
}

/// The victim's tables are bounded, it still routes, and the ring is whole.
fn unharmed(world: &mut World, victim: usize) {
    let node = world.node(victim).expect("nobody kills it");
    assert!(node.overlay().peers().count() <= VIEW_NODES_MAX);
    assert!(node.dht().store().len() < 1000);
    world.run_for(Duration::from_secs(60));
    let census = Census::take(world);
    assert_eq!(census.ring_gaps(world), 0);
    world.take_events();
    let mut answered = 0;
    for id in 0..50 {
        let target = enishi_overlay::Position::from_number(world.rng().number());
        world.command(victim, Command::Diag(diag::Command::Trace { id, target }));
        world.run_for(Duration::from_secs(12));
        for (_, _, event) in world.take_events() {
            if let Event::Diag(diag::Event::Traced {
                end: Some((node, ..)),
                ..
            }) = event
            {
                assert_eq!(
                    world.index_of(node),
                    census.nearest(target, 1).first().copied()
                );
                answered += 1;
            }
        }
    }
    assert_eq!(answered, 50);
}

#[test]
fn messages_played_again_by_anyone_change_nothing() {
    let mut world = world();
    let victim = 11;
    world.tap(victim);
    world.run_for(Duration::from_secs(200));
    let tape = world.take_tape();
    assert!(tape.len() > 100, "{} messages", tape.len());
    for (from, message) in tape.iter().chain(&tape) {
        world.inject(victim, *from, message.clone());
        world.inject(victim, stranger(1), message.clone());
    }
    unharmed(&mut world, victim);
}

#[test]
fn damaged_messages_change_nothing() {
    let mut world = world();
    let victim = 12;
    world.tap(victim);
    world.run_for(Duration::from_secs(200));
    let tape = world.take_tape();
    let (mut understood, mut refused) = (0, 0);
    for (from, message) in tape.iter().cycle().take(20_000) {
        let mut octets = message.encode();
        let at = world.rng().below(octets.len() as u64) as usize;
        octets[at] ^= 1 << world.rng().below(8);
        match Message::decode(&octets) {
            Ok(message) => {
                understood += 1;
                world.inject(victim, *from, message);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        understood > 1000 && refused > 1000,
        "{understood} {refused}"
    );
    unharmed(&mut world, victim);
}

#[test]
fn a_flood_of_newcomers_and_errands_is_bounded() {
    let mut world = world();
    let victim = 13;
    world.tap(victim);
    world.run_for(Duration::from_secs(120));
    let tape = world.take_tape();
    for number in 0..50_000_u64 {
        let from = stranger(number as u8);
        let (_, message) = &tape[number as usize % tape.len()];
        let message = match message.clone() {
            Message::Hello(mut hello) => {
                hello.contact = enishi_overlay::Contact::new(from, []);
                hello.link = true;
                Message::Hello(hello)
            }
            Message::Routed(mut routed) => {
                routed.request = number;
                Message::Routed(routed)
            }
            other => other,
        };
        world.inject(victim, from, message);
    }
    unharmed(&mut world, victim);
}

#[test]
fn an_answer_of_the_wrong_kind_ends_the_question() {
    use enishi_overlay::message::{Answer, Reply};
    use enishi_services::dht::{self, Caller, Consistency, GetAnswer};
    use enishi_services::record::{Key, Kind};

    let mut world = world();
    let key = Key::new(Kind::Lease, &stranger(3));
    let in_charge = Census::take(&world).nearest(key.position(), 1)[0];
    world.tap(in_charge);
    // Any node near the key may answer: somebody's question comes by the one that listens.
    let forged = (1..NODES).find_map(|step| {
        let asker = (in_charge + step) % NODES;
        world.take_events();
        let (caller, consistency) = (Caller::Host(7), Consistency::Hasty);
        let get = dht::Command::Get {
            caller,
            key,
            consistency,
        };
        world.command(asker, Command::Dht(get));
        for _ in 0..500 {
            world.run_for(Duration::from_millis(1));
            let asked = world.take_tape().into_iter().find_map(|(_, message)| {
                let Message::Routed(routed) = message else {
                    return None;
                };
                let own = routed.origin.id() == world.id(asker);
                (own && routed.target == key.position()).then_some(routed.request)
            });
            if let Some(request) = asked {
                let reply = Reply::Nodes(vec![]);
                let answer = Answer {
                    request,
                    hops: 1,
                    reply,
                };
                world.inject(asker, stranger(4), Message::Answer(answer));
                return Some(asker);
            }
        }
        None
    });
    let asker = forged.expect("the question was to come by");
    let ended = world.take_events().into_iter().any(|(_, index, event)| {
        let got = matches!(
            event,
            Event::Dht(dht::Event::Got {
                answer: GetAnswer::Failed,
                ..
            })
        );
        index == asker && got
    });
    assert!(ended, "the asker hears that nobody answered");
}
