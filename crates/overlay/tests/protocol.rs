//! The overlay's protocol, one behaviour at a time.

mod net;

use std::time::Duration;

use enishi_overlay::class::Grade;
use enishi_overlay::message::{Hello, Query, Reply, Routed};
use enishi_overlay::overlay::{Effect, Input, Manner};
use enishi_overlay::silence::Silences;
use enishi_overlay::view::{Snapshot, ViewUpdate};
use enishi_overlay::{Contact, Coordinate, Message, OverlayId, PathKind, Position};

use net::{Net, id};

#[test]
fn a_place_follows_from_the_key_and_the_overlay() {
    let [one, other] = ["one", "other"].map(OverlayId::from_name);
    let place = Position::of_node(&one, &id(1));
    assert_eq!(place, Position::of_node(&one, &id(1)));
    assert_ne!(place, Position::of_node(&one, &id(2)));
    assert_ne!(place, Position::of_node(&other, &id(1)));
}

#[test]
fn three_nodes_know_each_other_and_the_size() {
    let net = Net::new(3);
    for overlay in &net.overlays {
        assert!(overlay.joined());
        assert_eq!(overlay.near().len(), 2);
        assert_eq!(overlay.size_estimate(), 3);
    }
}

#[test]
fn the_neighbour_in_common_makes_two_meet() {
    let mut net = Net::new(3);
    let contact = net.overlays[1].me().clone();
    let message = Message::Introduce { subject: id(2) };
    net.input(
        0,
        Input::Message {
            from: id(1),
            message,
        },
    );
    let told = net.effects.iter().any(
        |(number, effect)| matches!(effect, Effect::Dial(newcomer) if *number == 2 && *newcomer == contact),
    );
    assert!(told, "{:?}", net.effects);
    // A stranger is introduced to nobody.
    net.effects.clear();
    let message = Message::Introduce { subject: id(2) };
    net.input(
        0,
        Input::Message {
            from: id(77),
            message,
        },
    );
    assert!(net.effects.is_empty());
    assert_eq!(net.overlays[0].counters().messages_refused, 1);
}

/// Who dials whom, and where first.
fn dials(net: &Net) -> Vec<(usize, usize, String)> {
    let dials = net
        .effects
        .iter()
        .filter_map(|(number, effect)| match effect {
            Effect::Dial(to) => {
                let first = to.addresses()[0].to_string();
                Some((*number, net.number(to.id()), first))
            }
            _ => None,
        });
    dials.collect()
}

#[test]
fn two_that_meet_dial_each_other_where_the_third_sees_them() {
    let mut net = Net::new(3);
    for number in [1, 2] {
        let address = Some(([198, 51, 100, number as u8], 1234).into());
        let (peer, kind) = (id(number), PathKind::Direct);
        let path = Input::Path {
            peer,
            kind,
            address,
        };
        net.input(0, path);
    }
    let (from, subject) = (id(1), id(2));
    let message = Message::Introduce { subject };
    net.input(0, Input::Message { from, message });
    let expected = [(1, 2, "198.51.100.2:1234"), (2, 1, "198.51.100.1:1234")];
    assert_eq!(
        dials(&net),
        expected.map(|(who, whom, first)| (who, whom, first.to_owned()))
    );
    // Who has just gone is not missed.
    net.effects.clear();
    let message = Message::Introduce { subject: id(9) };
    net.input(0, Input::Message { from, message });
    assert!(dials(&net).is_empty());
    assert_eq!(net.overlays[0].counters().messages_refused, 0);
}

#[test]
fn whoever_told_of_one_that_keeps_silent_makes_the_two_meet() {
    let mut net = Net::new(2);
    net.cut([1, 2]);
    net.add();
    net.run_for(Duration::from_millis(1400));
    assert!(dials(&net).is_empty(), "{:?}", dials(&net));
    net.run_for(Duration::from_millis(200));
    let dials = dials(&net);
    for (who, whom) in [(1, 2), (2, 1)] {
        assert!(
            dials.iter().any(|dial| (dial.0, dial.1) == (who, whom)),
            "{dials:?}"
        );
    }
    assert!(dials.len() <= 4, "{dials:?}");
}

#[test]
fn who_takes_leave_is_gone_at_once() {
    let mut net = Net::new(4);
    net.input(2, Input::Leave);
    net.kill(2);
    for number in [0, 1, 3] {
        assert!(!net.overlays[number].near().contains(id(2)));
    }
}

#[test]
fn who_dies_is_found_out_within_a_period_and_two_questions() {
    let mut net = Net::new(5);
    net.kill(3);
    // 11 s and a fifth until the next question, then one and two seconds for the answers.
    net.run_for(Duration::from_secs(17));
    for number in [0, 1, 2, 4] {
        assert!(
            !net.overlays[number].near().contains(id(3)),
            "node {number}"
        );
    }
    let drops = net
        .effects
        .iter()
        .filter(|(_, e)| matches!(e, Effect::GiveUp(gone) if *gone == id(3)));
    assert_eq!(drops.count(), 4);
}

#[test]
fn who_cannot_be_reached_is_said_hello_to_once_when_others_speak_again() {
    let mut net = Net::new(5);
    net.cut([0, 2]);
    net.refuse([0, 3]);
    net.run_for(Duration::from_secs(40));
    for lost in [2, 3] {
        assert!(!net.overlays[0].near().contains(id(lost)));
    }
    net.heal();
    net.sent.clear();
    // What 2 says makes 0 try those that others name: 3 among them.
    net.run_for(Duration::from_secs(60));
    assert!(net.overlays[0].near().contains(id(2)));
    let hellos = net.sent.iter().filter(|(from, to, message)| {
        *from == 0 && to.id() == id(3) && matches!(message, Message::Hello(_))
    });
    assert!((1..10).contains(&hellos.count()));
}

#[test]
fn a_message_for_the_dead_goes_to_the_next_in_charge() {
    let mut net = Net::new(5);
    let target = net.overlays[3].position();
    net.kill(3);
    net.effects.clear();
    let now = net.now;
    let request = net.overlays[1].locate(now, target, Manner::TRACED);
    net.run_for(Duration::from_secs(12));
    let living = [0, 1, 2, 4];
    let in_charge = living
        .into_iter()
        .min_by_key(|number| target.rank(net.overlays[*number].position()))
        .unwrap();
    let answer = net
        .effects
        .iter()
        .find_map(|(number, effect)| match effect {
            Effect::Answered {
                request: r,
                from,
                reply,
                ..
            } if *number == 1 && *r == request => Some((*from, reply.clone())),
            _ => None,
        });
    let (from, reply) = answer.expect("an answer");
    assert_eq!(from, id(in_charge));
    assert!(matches!(reply, Reply::Nodes(nodes) if nodes[0].contact.id() == id(in_charge)));
}

#[test]
fn a_hello_in_another_name_is_refused() {
    let mut net = Net::new(3);
    let view = ViewUpdate {
        base: None,
        version: 1,
        removed: vec![],
        seated: vec![],
        added: vec![],
        moved: vec![],
        graded: vec![],
        shared: vec![],
        snapshot: Snapshot::default(),
    };
    let contact = Contact::new(id(50), []);
    let hello = Hello {
        nonce: 1,
        contact,
        coordinate: Coordinate::default(),
        grade: Grade::default(),
        link: true,
        view: Some(view),
    };
    net.input(
        0,
        Input::Message {
            from: id(51),
            message: Message::Hello(hello),
        },
    );
    assert_eq!(net.overlays[0].counters().messages_refused, 1);
    assert!(net.overlays[0].peer(id(50)).is_none());
}

#[test]
fn messages_do_not_go_round_for_ever() {
    let mut net = Net::new(5);
    let routed = Routed {
        request: 9,
        origin: Contact::new(id(1), []),
        target: Position::from_number(5),
        hops: 64,
        hop: 1,
        toward: None,
        by_ring: false,
        silences: Silences::default(),
        straight: false,
        any: false,
        trace: false,
        query: Query::Nodes { count: 4 },
    };
    net.sent.clear();
    net.input(
        0,
        Input::Message {
            from: id(1),
            message: Message::Routed(routed),
        },
    );
    // Confirmed and dropped.
    assert!(
        matches!(net.sent[..], [(0, _, Message::HopAck { hop: 1 })]),
        "{:?}",
        net.sent
    );
}

#[test]
fn a_trace_hears_from_each_hop_unless_it_declines() {
    let mut net = Net::new(8);
    let target = net.overlays[6].position();
    let in_charge = net.overlays[6].me().id();
    let now = net.now;
    let request = net.overlays[1].locate(now, target, Manner::TRACED);
    net.run_for(Duration::from_secs(2));
    let reported = net.effects.iter().any(|(number, effect)| {
        matches!(effect, Effect::HopReport { request: r, by, report, .. }
            if *number == 1 && *r == request && *by == in_charge && report.next.is_none())
    });
    assert!(reported);
}

/// The nonces of the questions for a sign of life that the first node has sent, oldest first.
fn questions(net: &Net) -> Vec<u16> {
    let sent = net.sent.iter().filter(|(from, ..)| *from == 0);
    let nonces = sent.filter_map(|(_, _, message)| match message {
        Message::Ping { nonce, .. } => Some(*nonce),
        _ => None,
    });
    nonces.collect()
}

/// Two nodes, of which the first one has just asked the silent second one so often; what it asked.
fn asking_one_that_is_silent(times: usize) -> (Net, Vec<u16>) {
    let mut net = Net::new(2);
    net.kill(1);
    net.sent.clear();
    let now = net.now;
    net.overlays[0].suspect(now, id(1));
    while questions(&net).len() < times {
        net.run_for(Duration::from_millis(10));
    }
    let asked = questions(&net);
    (net, asked)
}

/// The second node answers a question.
fn answer(net: &mut Net, nonce: u16) {
    let message = Message::Pong {
        nonce,
        version: 0,
        known: true,
        about: None,
    };
    let from = id(1);
    net.input(0, Input::Message { from, message });
}

#[test]
fn a_late_answer_tells_how_slow_a_peer_is() {
    let (mut net, asked) = asking_one_that_is_silent(2);
    let wait = |net: &Net| net.overlays[0].peer(id(1)).unwrap().round_trip().timeout();
    let before = wait(&net);
    answer(&mut net, asked[0]);
    let after = wait(&net);
    assert!(after >= before * 5 / 4, "{before:?}, then {after:?}");
    net.run_for(Duration::from_secs(2));
    assert!(net.overlays[0].peer(id(1)).is_some());
    assert_eq!(questions(&net).len(), 2, "it has answered");
}

#[test]
fn who_did_not_run_for_a_while_hears_first_what_came_meanwhile() {
    for answers in [true, false] {
        let (mut net, asked) = asking_one_that_is_silent(3);
        net.now = net.now + Duration::from_secs(5);
        let now = net.now;
        net.overlays[0].handle(now, Input::Timeout);
        if answers {
            answer(&mut net, asked[2]);
        }
        net.run_for(Duration::from_millis(100));
        assert_eq!(net.overlays[0].peer(id(1)).is_some(), answers);
    }
}
