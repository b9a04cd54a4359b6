//! Two members open their translations together, with a third who knows both.

use super::*;

/// Three nodes with relayed sessions, the least id first; and their ids.
fn three() -> ([Node; 3], [NodeId; 3]) {
    let mut nodes = [node(1), node(2), node(3)];
    nodes.sort_by_key(Node::id);
    let ids = [0, 1, 2].map(|at: usize| nodes[at].id());
    for (at, peer) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        let relayed = Input::Path {
            peer: ids[peer],
            kind: PathKind::Relayed,
            address: None,
        };
        let node: &mut Node = &mut nodes[at];
        node.handle(Time::from_secs(1), relayed).for_each(drop);
    }
    (nodes, ids)
}

fn command(command: Command) -> Input {
    Input::Command(crate::Command::Reach(command))
}

/// How packets come out of a house whose router keeps one port for all.
fn kept(network: u8) -> Option<punch::Offer> {
    Some(punch::Offer {
        at: ([20, 0, network, 1], 5000).into(),
        ports: punch::Ports::Kept,
    })
}

fn is_begun(events: &[Event], with: NodeId) -> bool {
    matches!(events, [Event::Punch { peer, .. }] if *peer == with)
}

#[test]
fn who_asked_while_the_other_one_had_no_time_is_met_as_soon_as_that_one_has() {
    for (early, late) in [(0, 1), (1, 0)] {
        let (mut nodes, ids) = three();
        let now = Time::from_secs(1);
        let looked = |at: usize, peer: usize| command(Command::Looked(ids[peer], kept(at as u8)));
        // The one is at it with a third.
        let busy = settle(&mut nodes, now, late, command(Command::Punch(ids[2])));
        assert_eq!(busy[late], [Event::Look(ids[2])]);
        settle(&mut nodes, now, early, command(Command::Punch(ids[late])));
        let unheard = settle(&mut nodes, now, early, looked(early, late));
        assert_eq!(unheard, [vec![], vec![]]);
        // The other one has time for the third meanwhile.
        let turn = settle(&mut nodes, now, early, command(Command::Punch(ids[2])));
        assert_eq!(turn[early], [Event::Look(ids[2])]);
        let none = || command(Command::Looked(ids[2], None));
        settle(&mut nodes, now, early, none());

        let free = settle(&mut nodes, now, late, none());
        assert_eq!(free[late], [Event::Look(ids[early])]);
        let asked = settle(&mut nodes, now, late, looked(late, early));
        assert_eq!(asked[early], [Event::Look(ids[late])]);
        let begun = settle(&mut nodes, now, early, looked(early, late));
        for (at, peer) in [(early, late), (late, early)] {
            assert!(is_begun(&begun[at], ids[peer]), "{early} {begun:?}");
        }
    }
}

#[test]
fn two_who_were_both_put_off_need_not_wait_for_it() {
    let (mut nodes, ids) = three();
    let now = Time::from_secs(1);
    let looked = |at: usize, peer: usize| command(Command::Looked(ids[peer], kept(at as u8)));
    // Each asks the other one while that one is at it with the third.
    for (asks, busy) in [(0, 1), (1, 0)] {
        settle(&mut nodes, now, asks, command(Command::Punch(ids[busy])));
        settle(&mut nodes, now, busy, command(Command::Punch(ids[2])));
        settle(&mut nodes, now, asks, looked(asks, busy));
        settle(
            &mut nodes,
            now,
            busy,
            command(Command::Looked(ids[2], None)),
        );
    }
    // Whoever was asked last asks in turn.
    let asked = settle(&mut nodes, now, 0, looked(0, 1));
    assert_eq!(asked[1], [Event::Look(ids[0])]);
    let begun = settle(&mut nodes, now, 1, looked(1, 0));
    assert!(is_begun(&begun[0], ids[1]) && is_begun(&begun[1], ids[0]));
}

/// Has the first node offer the third one a way; returns the number of its attempt.
fn offered(nodes: &mut [Node; 3], now: Time, to: NodeId) -> u64 {
    settle(nodes, now, 0, command(Command::Punch(to)));
    let said = told(nodes[0].handle(now, command(Command::Looked(to, kept(0)))));
    let number = said.iter().find_map(|(_, said, _)| match said {
        ReachMessage::Punch(number, _) => Some(*number),
        _ => None,
    });
    number.unwrap()
}

fn said(from: NodeId, said: &ReachMessage) -> Input {
    let message = Message::Direct {
        service: ServiceId::Reach as u8,
        body: said.encode().into(),
    };
    Input::Message { from, message }
}

#[test]
fn who_waits_in_vain_has_time_for_a_member_that_asks() {
    for (millis, is_heard) in [(1_900, false), (2_000, true)] {
        let (mut nodes, ids) = three();
        let now = Time::from_secs(1);
        let member = ids[1];
        offered(&mut nodes, now, ids[2]);
        settle(&mut nodes, now, 0, command(Command::Punch(member)));
        let asks = said(member, &ReachMessage::Punch(77, kept(1).unwrap()));
        let heard = settle(&mut nodes, now + Duration::from_millis(millis), 0, asks);
        let expected = is_heard.then_some(Event::Look(member));
        assert_eq!(heard[0], Vec::from_iter(expected), "{millis}");
    }
}

#[test]
fn nobody_but_a_member_ends_an_attempt_with_another_one() {
    let (mut nodes, ids) = three();
    let now = Time::from_secs(1);
    let number = offered(&mut nodes, now, ids[2]);
    for millis in (100..3_900).step_by(100) {
        let now = now + Duration::from_millis(millis);
        let asks = said(ids[1], &ReachMessage::Punch(millis, kept(1).unwrap()));
        for input in [asks, Input::Timeout] {
            assert_eq!(settle(&mut nodes, now, 0, input)[0], [], "{millis}");
        }
    }
    let late = now + Duration::from_millis(3_900);
    let answers = said(ids[2], &ReachMessage::Meet(number, kept(2).unwrap()));
    let begun = settle(&mut nodes, late, 0, answers);
    assert!(
        matches!(&begun[0][..], [Event::Punch { peer, .. }] if *peer == ids[2]),
        "{begun:?}"
    );
}

#[test]
fn who_does_not_answer_has_not_the_turn_of_those_who_wait() {
    let (mut nodes, ids) = three();
    let now = Time::from_secs(1);
    settle(&mut nodes, now, 0, command(Command::Punch(ids[2])));
    settle(
        &mut nodes,
        now,
        0,
        command(Command::Looked(ids[2], kept(0))),
    );
    let waiting = settle(&mut nodes, now, 0, command(Command::Punch(ids[1])));
    assert_eq!(waiting[0], []);
    for (millis, expected) in [(1_900, vec![]), (2_000, vec![Event::Look(ids[1])])] {
        let later = now + Duration::from_millis(millis);
        let turn = settle(&mut nodes, later, 0, Input::Timeout);
        assert_eq!(turn[0], expected, "{millis}");
    }
}

#[test]
fn one_who_asks_where_others_are_all_the_time_takes_nobody_elses_turn() {
    let (mut nodes, ids) = three();
    let now = Time::from_secs(1);
    for (peer, at) in [(0, "198.51.100.7:5000"), (1, "203.0.113.9:6000")] {
        nodes[2].handle(now, path(ids[peer], at)).for_each(drop);
    }
    let mut answers = |asker: usize, of: usize, times: usize| {
        let asked = (0..times).flat_map(|_| {
            let from = ids[asker];
            let asks = said(from, &ReachMessage::Where(ids[of]));
            let answers = told(nodes[2].handle(now, asks));
            answers
                .into_iter()
                .filter(move |(to, said, _)| *to == from && matches!(said, ReachMessage::Sees(..)))
        });
        asked.count()
    };
    let greedy = answers(0, 1, 1_000);
    assert!((1..100).contains(&greedy), "{greedy}");
    assert_eq!(answers(1, 0, 10), 10);
}

#[test]
fn two_members_begin_together_once_a_third_has_said_where_they_are_and_not_for_ever() {
    use punch::{Offer, PAUSE_LONG, Plan, Ports, TRIES_MAX};
    let mut nodes = [node(1), node(2), node(3)];
    let [one, other, third] = [0, 1, 2].map(|at: usize| nodes[at].id());
    let outer = ["198.51.100.7:5000", "203.0.113.9:6000"];
    let mut now = Time::from_secs(1);
    for (peer, at) in [(one, outer[0]), (other, outer[1])] {
        nodes[2].handle(now, path(peer, at)).for_each(drop);
    }
    for (at, peer) in [(0, other), (1, one)] {
        nodes[at]
            .handle(now, path(third, "20.0.3.1:7000"))
            .for_each(drop);
        let relayed = Input::Path {
            peer,
            kind: PathKind::Relayed,
            address: None,
        };
        nodes[at].handle(now, relayed).for_each(drop);
    }
    let command = |command| Input::Command(crate::Command::Reach(command));
    let offer = |at: usize, ports| Offer {
        at: outer[at].parse().unwrap(),
        ports,
    };
    let begin = |nodes: &mut [Node; 3], now: Time, lie: bool| {
        let mut all = settle(nodes, now, 0, command(Command::Punch(other)));
        if all[0] != [Event::Look(other)] {
            return all;
        }
        let said = match lie {
            true => Offer {
                at: "192.0.2.66:1".parse().unwrap(),
                ports: Ports::Random,
            },
            false => offer(0, Ports::Random),
        };
        let looked = command(Command::Looked(other, Some(said)));
        all = settle(nodes, now, 0, looked);
        assert_eq!(all[1], [Event::Look(one)]);
        let looked = command(Command::Looked(one, Some(offer(1, Ports::Kept))));
        settle(nodes, now, 1, looked)
    };
    let [first, second] = begin(&mut nodes, now, true);
    assert!(matches!(
        &first[..],
        [Event::Punch {
            plan: Plan::Open { .. },
            ..
        }]
    ));
    assert_eq!(second, [], "nobody sees it there: not one probe");
    let late = settle(&mut nodes, now + Duration::from_secs(1), 1, Input::Timeout);
    assert_eq!(late, [vec![], vec![]]);
    settle(&mut nodes, now, 0, command(Command::Punched(other, false)));
    now = now + Duration::from_secs(60);
    settle(&mut nodes, now, 1, Input::Timeout);
    for _ in 1..TRIES_MAX {
        now = now + Duration::from_secs(60);
        let [first, second] = begin(&mut nodes, now, false);
        assert!(matches!(
            &first[..],
            [Event::Punch {
                plan: Plan::Open { .. },
                ..
            }]
        ));
        assert!(matches!(
            &second[..],
            [Event::Punch {
                plan: Plan::Search { .. },
                ..
            }]
        ));
        for (at, peer) in [(0, other), (1, one)] {
            settle(&mut nodes, now, at, command(Command::Punched(peer, false)));
        }
    }
    now = now + Duration::from_secs(60);
    assert_eq!(begin(&mut nodes, now, false), [vec![], vec![]], "enough");
    now = now + PAUSE_LONG;
    let [first, _] = begin(&mut nodes, now, false);
    assert!(matches!(&first[..], [Event::Punch { .. }]));
}

#[test]
fn who_is_no_member_is_not_listened_to_again_soon() {
    use punch::{Offer, Ports};
    let (mut here, stranger) = (node(1), node(2).id());
    let at = "198.51.100.7:5000".parse().unwrap();
    let offer = Offer {
        at,
        ports: Ports::Kept,
    };
    let (mut looks, mut now) = (0, Time::from_secs(1));
    for number in 0..1_000 {
        let body = ReachMessage::Punch(number, offer).encode().into();
        let service = ServiceId::Reach as u8;
        let message = Message::Direct { service, body };
        let from = stranger;
        let (_, events) = asked_for(here.handle(now, Input::Message { from, message }));
        looks += events.len();
        let refused = crate::Command::Reach(Command::Looked(stranger, None));
        here.handle(now, Input::Command(refused)).for_each(drop);
        now = now + Duration::from_millis(60);
    }
    assert!((1..=5).contains(&looks), "{looks}");
}
