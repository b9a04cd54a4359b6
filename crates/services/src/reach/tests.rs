//! Two or three whole nodes that tell each other.

use enishi_overlay::{Keypair, Message, OverlayId};

use super::*;
use crate::service::ServiceId;
use crate::{Config, Input, Node, Output};

mod punching;
mod relaying;
mod showing;

fn node(number: u8) -> Node {
    let config = Config {
        overlay: enishi_overlay::Config::new(OverlayId::from_name("reach")),
        addresses: Vec::new(),
        host_name: "host".to_owned(),
        started_unix_s: 1_700_000_000,
    };
    Node::new(Keypair::from_seed(&[number; 32]), config, [number; 32])
}

fn path(peer: NodeId, address: &str) -> Input {
    Input::Path {
        peer,
        kind: PathKind::Direct,
        address: Some(address.parse().unwrap()),
    }
}

/// What a node says of this service to another one, with its whole message.
fn told(outputs: impl Iterator<Item = Output>) -> Vec<(NodeId, ReachMessage, Message)> {
    let told = outputs.filter_map(|output| match output {
        Output::Send { to, message } => match &message {
            Message::Direct { service, body } if *service == ServiceId::Reach as u8 => {
                Some((to.id(), ReachMessage::decode(body).unwrap(), message))
            }
            _ => None,
        },
        _ => None,
    });
    told.collect()
}

fn observed(outputs: impl Iterator<Item = Output>) -> Vec<Vec<SocketAddr>> {
    let events = outputs.filter_map(|output| match output {
        Output::Event(crate::Event::Reach(Event::Observed(addresses))) => Some(addresses),
        _ => None,
    });
    events.collect()
}

#[test]
fn who_opens_a_session_is_told_where_it_is_seen() {
    let (mut inner, mut first, mut second) = (node(1), node(2), node(3));
    let outer = "198.51.100.7:4321";
    let now = Time::from_secs(1);
    let mut events = Vec::new();
    for (observer, at) in [
        (&mut first, "20.0.1.1:7000"),
        (&mut second, "20.0.2.1:7000"),
    ] {
        events.extend(observed(inner.handle(now, path(observer.id(), at))));
        let said = told(observer.handle(now, path(inner.id(), outer)));
        let [(to, ReachMessage::Seen(address), message)] = &said[..] else {
            panic!("{said:?}");
        };
        assert_eq!((*to, address.to_string().as_str()), (inner.id(), outer));
        let (from, message) = (observer.id(), message.clone());
        events.extend(observed(
            inner.handle(now, Input::Message { from, message }),
        ));
    }
    assert_eq!(events, [vec![outer.parse().unwrap()]]);
    assert_eq!(inner.reach().observed(), &events[0][..]);
    // When both are gone, it is forgotten.
    let after = now + observed::EXPIRY;
    for observer in [&first, &second] {
        let ended = observed(inner.handle(now, Input::Closed(observer.id())));
        assert_eq!(ended, Vec::<Vec<SocketAddr>>::new());
    }
    assert!(inner.next_timeout().is_some_and(|at| at <= after));
    assert_eq!(observed(inner.handle(after, Input::Timeout)), [vec![]]);
}

#[test]
fn a_peer_that_moves_is_told_again_but_not_at_every_step() {
    let (mut here, peer) = (node(1), node(2).id());
    let mut say = |now: Time, input: Input| told(here.handle(now, input));
    let at = |second: u64| Time::from_secs(second);
    assert_eq!(say(at(1), path(peer, "198.51.100.7:1")).len(), 1);
    assert_eq!(say(at(2), path(peer, "198.51.100.7:1")).len(), 0);
    for port in 2..50 {
        let moved = path(peer, &format!("198.51.100.7:{port}"));
        assert_eq!(say(at(3), moved).len(), 0);
    }
    let said = say(at(1) + TELLING_PAUSE, Input::Timeout);
    let last = ReachMessage::Seen("198.51.100.7:49".parse().unwrap());
    assert_eq!(
        said.iter().map(|said| said.1.clone()).collect::<Vec<_>>(),
        [last]
    );
    // One that was restarted knows nothing any more.
    let restarted = crate::Command::Reach(Command::Restarted(peer));
    assert_eq!(say(at(99), Input::Command(restarted)).len(), 1);
    // What is no path from address to address says nothing.
    let relayed = Input::Path {
        peer,
        kind: PathKind::Relayed,
        address: None,
    };
    assert_eq!(say(at(200), relayed).len(), 0);
}

#[test]
fn what_is_said_before_a_session_goes_straight_on_both_sides_is_heard_and_outlasts_its_path() {
    let (mut here, mut server) = (node(1), node(2));
    let now = Time::from_secs(1);
    let packets = crate::Command::Reach(Command::Packets(7001));
    server.handle(now, Input::Command(packets)).for_each(drop);
    // There it goes straight first.
    let from = server.id();
    for (_, _, message) in told(server.handle(now, path(here.id(), "20.0.9.9:1"))) {
        let said = Input::Message { from, message };
        here.handle(now, said).for_each(drop);
    }
    let places = |here: &Node| here.reach().servers.place(from);
    assert_eq!(places(&here), None);
    here.handle(now, path(from, "20.0.1.1:7000")).for_each(drop);
    let place = Some("20.0.1.1:7001".parse().unwrap());
    assert_eq!(places(&here), place);
    assert_eq!(here.reach().observed.sightings().count(), 1);
    // By way of others for a moment: there it may still go straight, and nothing is said again.
    let relayed = Input::Path {
        peer: from,
        kind: PathKind::Relayed,
        address: None,
    };
    here.handle(now, relayed).for_each(drop);
    assert_eq!(places(&here), place);
    here.handle(now, Input::Closed(from)).for_each(drop);
    assert_eq!(places(&here), None);
}

#[test]
fn all_are_told_anew_of_other_ports() {
    let (mut here, peer) = (node(1), node(2).id());
    let at = Time::from_secs;
    here.handle(at(1), path(peer, "20.0.9.9:1")).for_each(drop);
    let mut tell = |second: u64, port: u16| {
        let packets = crate::Command::Reach(Command::Packets(port));
        let mut said = told(here.handle(at(second), Input::Command(packets)));
        said.extend(told(here.handle(at(second), Input::Timeout)));
        said.into_iter().map(|said| said.1).collect::<Vec<_>>()
    };
    let seen = ReachMessage::Seen("20.0.9.9:1".parse().unwrap());
    assert_eq!(tell(20, 7001), [seen.clone(), ReachMessage::Stun(7001)]);
    assert_eq!(tell(40, 7001), [], "it is the same one");
    assert_eq!(tell(60, 7002), [seen, ReachMessage::Stun(7002)]);
}

#[test]
fn nobody_is_heard_who_is_not_seen_at_an_address() {
    let (mut here, mut stranger) = (node(1), node(2));
    let seen = path(here.id(), "198.51.100.7:1");
    let (_, _, message) = told(stranger.handle(Time::ZERO, seen)).remove(0);
    let from = stranger.id();
    let heard = observed(here.handle(Time::ZERO, Input::Message { from, message }));
    assert_eq!(heard, Vec::<Vec<SocketAddr>>::new());
    assert_eq!(here.reach().observed.sightings().count(), 0);
}

fn asked_for(outputs: impl Iterator<Item = Output>) -> (Vec<(NodeId, Message)>, Vec<Event>) {
    let (mut said, mut events) = (Vec::new(), Vec::new());
    for output in outputs {
        match output {
            Output::Send { to, message } => said.push((to.id(), message)),
            Output::Event(crate::Event::Reach(event)) => events.push(event),
            _ => {}
        }
    }
    (said, events)
}

/// Hands messages of three nodes to and fro until there are none; returns the events of the first two.
fn settle(nodes: &mut [Node; 3], now: Time, first: usize, input: Input) -> [Vec<Event>; 2] {
    let mut events: [Vec<Event>; 2] = Default::default();
    let mut inputs = std::collections::VecDeque::from([(first, input)]);
    while let Some((at, input)) = inputs.pop_front() {
        let from = nodes[at].id();
        let (said, happened) = asked_for(nodes[at].handle(now, input));
        if let Some(events) = events.get_mut(at) {
            events.extend(happened);
        }
        for (to, message) in said {
            let to = nodes.iter().position(|node| node.id() == to);
            inputs.extend(to.map(|to| (to, Input::Message { from, message })));
        }
    }
    events
}

#[test]
fn what_others_see_of_a_node_is_no_news_unless_it_is_sought() {
    let (mut here, peer) = (node(1), node(2).id());
    let now = Time::from_secs(1);
    here.handle(now, path(peer, "20.0.1.1:7000")).for_each(drop);
    let seek = Input::Command(crate::Command::Reach(Command::Seek(true)));
    here.handle(now, seek).for_each(drop);
    let other = node(3).id();
    let sees = ReachMessage::Sees(other, "198.51.100.7".parse().unwrap(), None);
    let message = Message::Direct {
        service: ServiceId::Reach as u8,
        body: sees.encode().into(),
    };
    let heard = Input::Message {
        from: peer,
        message,
    };
    let (_, events) = asked_for(here.handle(now, heard));
    assert_eq!(events, []);
}
