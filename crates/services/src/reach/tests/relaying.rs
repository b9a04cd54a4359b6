//! Members choose nodes that relay, and nodes decide for whom they do.

use std::collections::VecDeque;

use super::super::relay::{LASTS, Terms};
use super::*;

const PORT: u16 = 7001;
const TERMS: Terms = Terms {
    pairs_max: 2,
    pairs_of_one_max: 1,
};

/// Two members, the lesser id first, then nodes that relay, which have sessions with both.
fn town(relays: usize, terms: Terms) -> Vec<Node> {
    let mut members = [node(1), node(2)];
    members.sort_by_key(Node::id);
    let relays = (0..relays).map(|number| node(10 + number as u8));
    let mut nodes: Vec<Node> = members.into_iter().chain(relays).collect();
    for at in 2..nodes.len() {
        for member in 0..2 {
            meet(&mut nodes, member, at);
        }
        for command in [Command::Packets(PORT), Command::Terms(terms)] {
            play(&mut nodes, Time::ZERO, at, command);
        }
    }
    nodes
}

fn address(at: usize) -> String {
    format!("20.0.{at}.1:7000")
}

/// Two nodes have a session that goes straight.
fn meet(nodes: &mut [Node], one: usize, other: usize) {
    for (here, there) in [(one, other), (other, one)] {
        let peer = nodes[there].id();
        let input = path(peer, &address(there));
        nodes[here].handle(Time::ZERO, input).for_each(drop);
    }
}

/// Tells a node something and hands messages to and fro until there are none; returns what the hosts are
/// told of relays.
fn play(nodes: &mut [Node], now: Time, first: usize, command: Command) -> Vec<(usize, Event)> {
    deliver(
        nodes,
        now,
        first,
        Input::Command(crate::Command::Reach(command)),
    )
}

fn deliver(nodes: &mut [Node], now: Time, first: usize, input: Input) -> Vec<(usize, Event)> {
    let mut events = Vec::new();
    let mut inputs = VecDeque::from([(first, input)]);
    while let Some((at, input)) = inputs.pop_front() {
        let from = nodes[at].id();
        let (said, happened) = asked_for(nodes[at].handle(now, input));
        events.extend(happened.into_iter().map(|event| (at, event)));
        for (to, message) in said {
            let to = nodes.iter().position(|node| node.id() == to);
            inputs.extend(to.map(|to| (to, Input::Message { from, message })));
        }
    }
    events.retain(|(_, event)| {
        matches!(
            event,
            Event::Relay { .. } | Event::RelayEnds(_) | Event::Relayed(_)
        )
    });
    events
}

/// One says something to the first of those that relay.
fn tell(nodes: &mut [Node], now: Time, from: usize, said: &ReachMessage) -> Vec<(usize, Event)> {
    let message = Message::Direct {
        service: ServiceId::Reach as u8,
        body: said.encode().into(),
    };
    let from = nodes[from].id();
    deliver(nodes, now, 2, Input::Message { from, message })
}

/// One wants the first of them to relay.
fn wish(
    nodes: &mut [Node],
    now: Time,
    from: usize,
    with: NodeId,
    token: u64,
) -> Vec<(usize, Event)> {
    tell(nodes, now, from, &ReachMessage::Relay(with, token))
}

fn wayless(nodes: &[Node], peer: usize, is_relayed: bool) -> Command {
    Command::Wayless {
        peer: nodes[peer].id(),
        is_relayed,
        by: nodes.iter().skip(2).map(Node::id).collect(),
    }
}

/// The tokens by which a node's packets are relayed, and by whom.
fn relayed(events: &[(usize, Event)], at: usize) -> Vec<(NodeId, u64)> {
    let of = events.iter().filter(|(of, _)| *of == at);
    let relayed = of.filter_map(|(_, event)| match event {
        Event::Relayed(relayed) => Some((relayed.by, relayed.token)),
        _ => None,
    });
    relayed.collect()
}

#[test]
fn two_members_get_the_same_relays_each_with_a_key_of_its_own() {
    let mut nodes = town(3, TERMS);
    let now = Time::from_secs(1);
    let command = wayless(&nodes, 1, false);
    let events = play(&mut nodes, now, 0, command);
    let (mine, theirs) = (relayed(&events, 0), relayed(&events, 1));
    assert_eq!(mine.len(), relay::RELAYS_MAX);
    assert_eq!(mine, theirs);
    for (at, event) in &events {
        match event {
            Event::Relay { token, keys, lasts } => {
                assert!(*at >= 2 && *lasts == LASTS && keys[0] != keys[1]);
                let is_of_it = |(of, event): &&(usize, Event)| matches!(event, Event::Relayed(told) if told.token == *token && told.key == keys[*of]);
                assert_eq!(events.iter().filter(is_of_it).count(), 2);
            }
            Event::Relayed(told) => {
                let by = nodes.iter().position(|node| node.id() == told.by).unwrap();
                let there: SocketAddr = address(by).parse().unwrap();
                assert_eq!(told.at, SocketAddr::new(there.ip(), PORT));
                assert_eq!(told.peer, nodes[1 - at].id());
            }
            other => panic!("{other:?}"),
        }
    }

    // Nothing more is asked for until half of the time is over; then the same tokens hold on.
    let soon = now + Duration::from_secs(30);
    for at in 0..2 {
        let command = wayless(&nodes, 1 - at, true);
        assert_eq!(play(&mut nodes, soon, at, command), []);
    }
    let later = now + LASTS / 2 + Duration::from_secs(1);
    let command = wayless(&nodes, 1, true);
    let events = play(&mut nodes, later, 0, command);
    assert_eq!(relayed(&events, 0), mine);
    assert_eq!(relayed(&events, 1), mine);
}

#[test]
fn the_greater_id_asks_when_nothing_came_of_the_other() {
    let mut nodes = town(1, TERMS);
    let now = Time::from_secs(1);
    let command = wayless(&nodes, 0, false);
    assert_eq!(play(&mut nodes, now, 1, command.clone()), []);
    let events = play(&mut nodes, now + Duration::from_secs(5), 1, command);
    assert_eq!(relayed(&events, 0).len(), 1);
    // Who goes straight in a session needs none.
    let mut nodes = town(1, TERMS);
    meet(&mut nodes, 0, 1);
    let command = wayless(&nodes, 1, false);
    assert_eq!(play(&mut nodes, now, 0, command), []);
}

#[test]
fn a_relay_that_is_of_no_use_gives_way_to_another() {
    let mut nodes = town(4, TERMS);
    let now = Time::from_secs(1);
    let command = wayless(&nodes, 1, false);
    let first = play(&mut nodes, now, 0, command.clone());
    let first = relayed(&first, 0);
    let second = play(&mut nodes, now + Duration::from_secs(5), 0, command);
    let second = relayed(&second, 0);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(
        first
            .iter()
            .all(|(by, _)| second.iter().all(|(other, _)| other != by))
    );
    // So does one whose session has ended.
    let (gone, _) = second[0];
    let closed = Input::Closed(gone);
    deliver(&mut nodes, now + Duration::from_secs(6), 0, closed);
    let at = nodes.iter().position(|node| node.id() == gone).unwrap();
    nodes.remove(at);
    let useless_no_more = now + Duration::from_secs(200);
    let command = wayless(&nodes, 1, true);
    let third = play(&mut nodes, useless_no_more, 0, command);
    let held = relayed(&third, 0);
    assert!(
        held.iter().any(|(by, _)| *by != gone && *by != second[1].0),
        "{held:?}"
    );
}

#[test]
fn a_node_relays_only_if_it_agrees_and_for_so_many() {
    let now = Time::from_secs(1);
    let ask = |nodes: &mut Vec<Node>, now| {
        let command = wayless(nodes, 1, false);
        play(nodes, now, 0, command)
    };
    assert_eq!(ask(&mut town(2, Terms::default()), now), [], "not asked to");
    // Without a session to the other one.
    let mut nodes = town(1, TERMS);
    let gone = nodes[1].id();
    deliver(&mut nodes, now, 2, Input::Closed(gone));
    assert_eq!(ask(&mut nodes, now), []);

    // A new wish of a pair ends what it had, as its end may have forgotten all; others' are refused.
    let mut nodes = town(1, TERMS);
    let before = ask(&mut nodes, now);
    let [(relay, token)] = relayed(&before, 0)[..] else {
        panic!("{before:?}");
    };
    let wish = |nodes: &mut Vec<Node>, from: usize, with: NodeId, token: u64| {
        wish(nodes, now, from, with, token)
    };
    let other = nodes[1].id();
    let events = wish(&mut nodes, 0, other, 0);
    assert!(events.contains(&(2, Event::RelayEnds(token))), "{events:?}");
    let fresh = relayed(&events, 0);
    assert!(fresh.len() == 1 && fresh[0].0 == relay && fresh[0].1 != token);
    // One pair of each member, two in all.
    for number in 0..3 {
        nodes.push(node(30 + number));
        let at = nodes.len() - 1;
        meet(&mut nodes, at, 2);
    }
    let ids: Vec<NodeId> = nodes.iter().map(Node::id).collect();
    assert_eq!(wish(&mut nodes, 0, ids[3], 0), [], "one of a member");
    assert_eq!(relayed(&wish(&mut nodes, 3, ids[4], 0), 4).len(), 1);
    assert_eq!(wish(&mut nodes, 5, ids[5], 0), [], "with itself");
    nodes.push(node(40));
    meet(&mut nodes, 6, 2);
    let last = nodes[6].id();
    assert_eq!(wish(&mut nodes, 5, last, 0), [], "two in all");
    // They end, and others have their turn.
    let over = now + LASTS;
    deliver(&mut nodes, over, 2, Input::Timeout);
    let events = self::wish(&mut nodes, over, 5, last, 0);
    assert_eq!(relayed(&events, 5).len(), 1);
}

#[test]
fn what_nobody_uses_makes_room_for_others() {
    let now = Time::from_secs(1);
    let mut nodes = town(1, TERMS);
    let command = wayless(&nodes, 1, false);
    let [(_, token)] = relayed(&play(&mut nodes, now, 0, command), 0)[..] else {
        panic!("no relay");
    };
    nodes.push(node(30));
    meet(&mut nodes, 3, 2);
    let other = nodes[3].id();
    assert_eq!(wish(&mut nodes, now, 0, other, 0), [], "one of a member");
    play(&mut nodes, now, 2, Command::Unused(token));
    let events = wish(&mut nodes, now, 0, other, 0);
    assert_eq!(relayed(&events, 0).len(), 1);
}

#[test]
fn wishes_of_one_member_do_not_use_up_those_of_another() {
    let now = Time::from_secs(1);
    let mut nodes = town(1, TERMS);
    let [one, other] = [0, 1].map(|at: usize| nodes[at].id());
    for number in 0..1_000 {
        let nobody = node(100 + (number % 100) as u8).id();
        assert_eq!(wish(&mut nodes, now, 0, nobody, 0), []);
    }
    assert_eq!(wish(&mut nodes, now, 0, other, 0), [], "it had its turn");
    assert_eq!(relayed(&wish(&mut nodes, now, 1, one, 0), 1).len(), 1);
}

#[test]
fn a_node_that_is_seen_elsewhere_than_it_is_relays_by_a_mapped_port_alone() {
    let now = Time::from_secs(1);
    let router = "198.51.100.7:7000";
    let cases = [
        (&*address(2), None, Some(PORT)),
        (router, None, None),
        (router, Some("198.51.100.7:41"), Some(41)),
        (router, Some("203.0.113.1:41"), None),
    ];
    for (seen, mapped, port) in cases {
        let mut nodes = town(1, TERMS);
        let local = vec![address(2).parse().unwrap()];
        let mapped = mapped.map(|at: &str| at.parse().unwrap());
        for command in [Command::Local(local), Command::Mapped(mapped)] {
            play(&mut nodes, now, 2, command);
        }
        let said = ReachMessage::Seen(seen.parse().unwrap());
        tell(&mut nodes, now, 0, &said);
        let command = wayless(&nodes, 1, false);
        let events = play(&mut nodes, now, 0, command);
        let ports: Vec<u16> = events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Relayed(relayed) => Some(relayed.at.port()),
                _ => None,
            })
            .collect();
        let expected: Vec<u16> = port.into_iter().flat_map(|port| [port; 2]).collect();
        assert_eq!(ports, expected, "{seen} {mapped:?}");
    }
}

#[test]
fn grants_are_taken_from_those_whose_session_goes_straight() {
    use super::super::relay::Grant;
    let mut nodes = town(1, TERMS);
    let stranger = node(50).id();
    let (relay, peer) = (nodes[2].id(), nodes[1].id());
    let grant = |with: NodeId, token, port| {
        let grant = Grant {
            token,
            key: Secret::new([1; 32]),
            port,
            lasts_s: u16::MAX,
        };
        let body = ReachMessage::Grant(with, grant).encode().into();
        let service = ServiceId::Reach as u8;
        Message::Direct { service, body }
    };
    let now = Time::from_secs(1);
    let mut takes = |from, message| {
        let events = deliver(&mut nodes, now, 0, Input::Message { from, message });
        events.iter().find_map(|(_, event)| match event {
            Event::Relayed(relayed) => Some(relayed.lasts),
            _ => None,
        })
    };
    assert_eq!(takes(stranger, grant(peer, 1, PORT)), None);
    assert_eq!(takes(relay, grant(peer, 1, 0)), None);
    assert_eq!(takes(relay, grant(peer, 0, PORT)), None);
    assert_eq!(takes(relay, grant(relay, 1, PORT)), None);
    assert_eq!(takes(relay, grant(peer, 1, PORT)), Some(LASTS), "no longer");
}
