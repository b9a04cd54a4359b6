//! Ways that end, fall silent, come back and are wanted.

use super::relays::{
    BUSY_FOR, BUSY_PAUSE, GONE_AFTER, LINK_GONE_AFTER, LINK_SILENT_AFTER, LOST_FOR,
};
use super::*;

fn id(n: u32) -> NodeId {
    let mut octets = [0; 32];
    octets[..4].copy_from_slice(&n.to_le_bytes());
    NodeId::from_bytes(octets)
}

const PACKET: Bytes = Bytes::from_static(b"packet");
const LOOK: Duration = Duration::from_millis(100);

#[test]
fn packets_wait_for_a_way_which_is_wanted_when_nobody_answered() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    for _ in 0..2 * HELD_MAX {
        assert_eq!(ways.send(now, id(1), &PACKET), Sending::Held);
    }
    assert_eq!(ways.tick(now), []);
    now += PATIENCE;
    assert_eq!(ways.tick(now), [Due::Want(id(1))]);
    assert_eq!((ways.tick(now), ways.by(id(1))), (vec![], None));
    assert_eq!(ways.add(now, id(1), id(9)).len(), HELD_MAX);
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(9)));
    now += LOOK;
    ways.refused(id(1), id(9));
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::Held);
    now += HELD_TIME;
    assert_eq!(ways.tick(now), [Due::Want(id(1)), Due::Try(id(1))]);
    assert!(ways.add(now, id(1), id(8)).is_empty());
    ways.forget(id(1));
    assert_eq!(ways.by(id(1)), None);
}

/// Sends a packet every look; returns after how long it goes by another node.
fn until_changed(
    ways: &mut Ways,
    mut now: Instant,
    mut looks: impl FnMut(&mut Ways, Instant, &[Due]),
) -> Duration {
    let started = now;
    let first = ways.by(id(1));
    while ways.by(id(1)) == first {
        now += LOOK;
        assert!(now - started < Duration::from_secs(5), "it stays");
        ways.send(now, id(1), &PACKET);
        let due = ways.tick(now);
        looks(ways, now, &due);
    }
    now - started
}

#[test]
fn a_node_that_is_gone_is_noticed_within_two_seconds() {
    let now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(9));
    ways.send(now, id(1), &PACKET);
    let mut asked = 0;
    let took = until_changed(&mut ways, now, |ways, now, due| {
        asked += due.iter().filter(|due| **due == Due::Ask(id(8))).count();
        // The peer is heard by the other way.
        ways.heard(now, id(1), id(9));
    });
    assert!(
        took <= Duration::from_secs(2) && asked >= 2,
        "{took:?} {asked}"
    );
    assert_eq!(ways.by(id(1)), Some(id(9)));
}

#[test]
fn a_peer_that_is_silent_is_tried_by_the_next_way() {
    let now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(9));
    let took = until_changed(&mut ways, now, |ways, now, _| ways.heard_relay(now, id(8)));
    assert!(took <= SILENT_AFTER + 2 * LOOK, "{took:?}");
}

#[test]
fn who_answers_stays_and_a_spare_is_wanted() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    let mut wanted = 0;
    for _ in 0..300 {
        now += LOOK;
        assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(8)));
        for due in ways.tick(now) {
            match due {
                Due::Ask(relay) => ways.heard_relay(now, relay),
                Due::Want(_) => wanted += 1,
                Due::Try(_) | Due::Again { .. } => panic!("there is a way"),
            }
        }
    }
    assert!((2..=4).contains(&wanted), "{wanted}");
    // Unused, nobody is asked.
    now += IN_USE;
    assert_eq!(ways.tick(now), []);
}

#[test]
fn pauses_change_nothing_and_one_that_dies_in_a_pause_is_noticed() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(9));
    for _ in 0..20 {
        // A question, its answer, and what confirms that.
        ways.send(now, id(1), &PACKET);
        now += LOOK;
        ways.heard(now, id(1), id(8));
        now += CONFIRMS / 2;
        ways.send(now, id(1), &PACKET);
        for _ in 0..50 {
            now += LOOK;
            for due in ways.tick(now) {
                if let Due::Ask(relay) = due {
                    ways.heard_relay(now, relay);
                }
            }
        }
        assert_eq!(ways.by(id(1)), Some(id(8)));
    }
    // One packet, and the first of the two does not answer any more.
    ways.send(now, id(1), &PACKET);
    for _ in 0..20 {
        now += LOOK;
        for due in ways.tick(now) {
            if due == Due::Ask(id(9)) {
                ways.heard_relay(now, id(9));
            }
        }
    }
    assert_eq!(ways.by(id(1)), Some(id(9)));
}

#[test]
fn who_is_heard_another_way_is_answered_that_way() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    for relay in [7, 8, 9] {
        ways.add(now, id(1), id(relay));
    }
    // What goes by 7 is lost, and the peer says it again by 9.
    for _ in 0..10 {
        now += LOOK;
        ways.send(now, id(1), &PACKET);
        ways.heard_relay(now, id(7));
        ways.heard(now, id(1), id(9));
        now += LOOK;
        ways.send(now, id(1), &PACKET);
    }
    assert_eq!(ways.by(id(1)), Some(id(9)));
}

#[test]
fn a_way_that_is_not_found_is_wanted_ever_less_often() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    let mut wanted = 0;
    for _ in 0..1_200 {
        now += LOOK;
        ways.send(now, id(1), &PACKET);
        let due = ways.tick(now);
        wanted += due.iter().filter(|due| **due == Due::Want(id(1))).count();
    }
    assert!((5..=9).contains(&wanted), "{wanted} in two minutes");
    // Of what came by itself the way is known, and what was held goes out.
    assert!(!ways.heard(now, id(1), id(9)).unwrap().is_empty());
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(9)));
}

#[test]
fn a_node_that_is_reached_anew_does_not_wait_for_the_next_attempt() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    let mut wanted = |ways: &mut Ways, ms: u32| {
        let mut first = None;
        for step in 0..ms / 100 {
            now += LOOK;
            ways.send(now, id(1), &PACKET);
            if ways.tick(now).contains(&Due::Want(id(1))) {
                first.get_or_insert(LOOK * step);
            }
        }
        first
    };
    wanted(&mut ways, 100_000);
    assert_eq!(wanted(&mut ways, 10_000), None);
    ways.take_heart();
    assert!(wanted(&mut ways, 10_000) <= Some(LOOK));
}

#[test]
fn a_link_goes_first_and_is_given_time() {
    let now = Instant::now();
    let mut ways = Ways::new(now);
    for relay in 5..9 {
        ways.add(now, id(1), id(relay));
    }
    ways.add(now, id(1), id(1));
    assert_eq!(ways.peers[&id(1)].ways[..2], [id(1), id(5)]);
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(1));
    let mut wanted = None;
    let took = until_changed(&mut ways, now, |_, at, due| {
        if due.contains(&Due::Want(id(1))) {
            wanted.get_or_insert(at - now);
        }
    });
    assert!(took >= LINK_GONE_AFTER && took <= LINK_GONE_AFTER + 2 * LOOK);
    let wanted = wanted.unwrap();
    assert!(wanted >= LINK_SILENT_AFTER && wanted <= LINK_SILENT_AFTER + 2 * LOOK);
}

#[test]
fn a_silent_link_goes_behind_other_ways_and_first_again_when_it_speaks() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(1));
    let took = until_changed(&mut ways, now, |_, _, _| {});
    assert!(took <= LINK_SILENT_AFTER + 2 * LOOK, "{took:?}");
    assert_eq!(ways.all(id(1)), [id(8), id(1)]);
    now += took;
    ways.heard_relay(now, id(1));
    assert_eq!(ways.all(id(1)), [id(1), id(8)]);
    // A sign of life of one that was not missed changes nothing.
    ways.heard_relay(now, id(8));
    assert_eq!(ways.all(id(1)), [id(1), id(8)]);
}

#[test]
fn a_node_that_carries_and_has_a_link_is_passed_over_long_before_the_link_ends() {
    let now = Instant::now();
    let mut ways = Ways::new(now);
    for to in [1, 8] {
        ways.add(now, id(to), id(8));
    }
    ways.add(now, id(1), id(9));
    // The peer is heard by the other way, so that its silence says nothing.
    let took = until_changed(&mut ways, now, |ways, now, _| {
        ways.heard(now, id(1), id(9));
    });
    assert!(
        took >= GONE_AFTER && took <= GONE_AFTER + 2 * LOOK,
        "{took:?}"
    );
    assert_eq!(ways.by(id(8)), Some(id(8)), "the link is there");
}

#[test]
fn a_link_that_is_slow_to_answer_is_given_more_time() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    for (to, by) in [(1, 8), (8, 8), (1, 9)] {
        ways.add(now, id(to), id(by));
    }
    let changes = |ways: &mut Ways, now: &mut Instant, silence: Duration| {
        ways.heard(*now, id(1), id(8));
        let mut is_changed = false;
        for _ in 0..silence.as_millis() / LOOK.as_millis() {
            *now += LOOK;
            ways.heard(*now, id(1), id(9));
            ways.send(*now, id(1), &PACKET);
            ways.tick(*now);
            is_changed |= ways.relays.doubts(*now, id(8), false);
        }
        is_changed
    };
    let slow = GONE_AFTER - LOOK;
    assert!(!changes(&mut ways, &mut now, slow));
    assert!(!changes(&mut ways, &mut now, slow + slow / 2));
    assert!(changes(&mut ways, &mut now, LINK_SILENT_AFTER + LOOK));
}

#[test]
fn what_was_sent_last_goes_again_by_the_next_way_and_not_for_ever() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(9));
    let last = Bytes::from_static(b"last");
    ways.send(now, id(1), &PACKET);
    ways.send(now, id(1), &last);
    let mut again = Vec::new();
    for _ in 0..200 {
        now += LOOK;
        for due in ways.tick(now) {
            if let Due::Again { to, by, packet } = due {
                assert_eq!((to, &packet), (id(1), &last));
                again.push(by);
            }
        }
        // The first of them stays silent.
        ways.heard_relay(now, id(9));
    }
    assert_eq!(again, [id(9)]);
    // To a peer that never answers it goes by each way, though all of these are there.
    ways.send(now, id(1), &PACKET);
    ways.send(now, id(1), &last);
    ways.add(now, id(1), id(7));
    let mut count = 0;
    for _ in 0..200 {
        now += LOOK;
        let due = ways.tick(now);
        count += due
            .iter()
            .filter(|due| matches!(due, Due::Again { .. }))
            .count();
        ways.heard_relay(now, id(7));
        ways.heard_relay(now, id(9));
    }
    assert!((1..=WAYS_MAX).contains(&count), "{count}");
}

/// Two ends speak by ways each of which takes 40 ms; returns by which each goes in the end, and how often
/// they have changed.
fn converse(
    first: [u32; 2],
    is_dead: impl Fn(usize, NodeId) -> bool,
) -> ([Option<NodeId>; 2], u32) {
    let start = Instant::now();
    let mut ends = [id(1), id(2)].map(|_| Ways::new(start));
    for (end, first) in ends.iter_mut().zip(first) {
        for by in [first, 8 + 9 - first] {
            end.add(start, id(1), id(by));
        }
    }
    let mut under_way: VecDeque<(Instant, usize, NodeId)> = VecDeque::new();
    let mut changes = 0;
    let mut before = first.map(|by| Some(id(by)));
    for step in 0..1_000 {
        let now = start + Duration::from_millis(5) * step;
        let mut sent = Vec::new();
        while under_way.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, by)) = under_way.pop_front() else {
                break;
            };
            let end: &mut Ways = &mut ends[to];
            end.heard(now, id(1), by);
            // Only one of them has something to say.
            if to == 1 {
                sent.push((to, end.send(now, id(1), &PACKET)));
            }
        }
        if step % 4 == 0 {
            sent.push((0, ends[0].send(now, id(1), &PACKET)));
        }
        for (number, end) in ends.iter_mut().enumerate() {
            let due = if (step + 7 * number as u32).is_multiple_of(20) {
                end.tick(now)
            } else {
                Vec::new()
            };
            for due in due {
                match due {
                    Due::Ask(relay) if !is_dead(number, relay) => end.heard_relay(now, relay),
                    Due::Again { by, .. } => sent.push((number, Sending::By(by))),
                    Due::Ask(_) | Due::Want(_) | Due::Try(_) => {}
                }
            }
        }
        for (from, sending) in sent {
            if let Sending::By(by) = sending
                && ![0, 1].iter().any(|end| is_dead(*end, by))
            {
                under_way.push_back((now + Duration::from_millis(40), 1 - from, by));
            }
        }
        let by = [0, 1].map(|end| ends[end].by(id(1)));
        changes += u32::from(by != before);
        before = by;
    }
    (before, changes)
}

#[test]
fn two_ends_come_to_go_the_same_way_and_stay_with_it() {
    for first in [[8, 9], [9, 8]] {
        let (by, changes) = converse(first, |_, _| false);
        assert_eq!((by[0], changes), (by[1], 1), "{by:?}");
    }
    assert_eq!(converse([8, 8], |_, _| false), ([Some(id(8)); 2], 0));
}

#[test]
fn who_only_confirms_follows_when_its_peer_no_longer_reaches_the_node_that_carries() {
    for dead in [8, 9] {
        // The one end still reaches it.
        let (by, _) = converse([dead, dead], |end, by| end == 0 && by == id(dead));
        assert_eq!(by, [Some(id(8 + 9 - dead)); 2]);
    }
}

#[test]
fn who_was_lost_comes_after_others_until_it_is_heard() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    let took = until_changed(&mut ways, now, |_, _, _| {});
    now += took;
    assert!(ways.is_lost(now, id(8)) && ways.by(id(1)).is_none());
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(9));
    assert_eq!(ways.all(id(1)), [id(9), id(8)]);
    ways.heard_relay(now, id(8));
    ways.add(now, id(1), id(7));
    assert_eq!(ways.all(id(1)), [id(9), id(8), id(7)]);
    // Nobody is remembered for long.
    ways.add(now, id(2), id(6));
    ways.send(now, id(2), &PACKET);
    for _ in 0..12 {
        now += LOOK;
        ways.send(now, id(2), &PACKET);
        ways.tick(now);
    }
    assert!(ways.is_lost(now, id(6)));
    now += LOST_FOR;
    assert!(!ways.is_lost(now, id(6)));
}

#[test]
fn one_confirmation_that_is_late_changes_nothing() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    ways.add(now, id(1), id(8));
    ways.add(now, id(1), id(9));
    for _ in 0..20 {
        ways.heard(now, id(1), id(8));
        now += 2 * CONFIRMS;
        ways.send(now, id(1), &PACKET);
        for _ in 0..30 {
            now += LOOK;
            for due in ways.tick(now) {
                if let Due::Ask(relay) = due {
                    ways.heard_relay(now, relay);
                }
            }
        }
        assert_eq!(ways.by(id(1)), Some(id(8)));
    }
}

#[test]
fn strangers_are_few_and_ways_and_peers_bounded() {
    let now = Instant::now();
    let mut ways = Ways::new(now);
    let taken = (0..10_000)
        .filter(|n| ways.heard(now, id(*n), id(99_999)).is_some())
        .count();
    assert_eq!(taken, STRANGERS_BURST as usize);
    for n in 0..10 {
        ways.heard(now, id(0), id(50_000 + n));
    }
    assert_eq!(ways.peers[&id(0)].ways.len(), WAYS_MAX);
    for n in 0..2 * PEERS_MAX as u32 {
        ways.send(now, id(n), &PACKET);
    }
    assert_eq!(ways.peers.len(), PEERS_MAX);
    ways.lose(id(99_999));
    assert!(ways.by(id(1)).is_none());
}

#[test]
fn who_carries_as_much_as_it_can_is_passed_over_while_another_one_has_room() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    for way in [7, 8, 9] {
        ways.add(now, id(1), id(way));
    }
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(7)));
    // Nobody asked this one.
    ways.busy(now, id(8));
    assert_eq!(ways.by(id(1)), Some(id(7)));
    ways.busy(now, id(7));
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(8)));
    ways.busy(now, id(8));
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(9)));
    // All are: it stays, and none is lost.
    ways.busy(now, id(9));
    assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(id(9)));
    assert_eq!(ways.all(id(1)).len(), 3);
    now += BUSY_FOR;
    ways.busy(now, id(9));
    assert!(!ways.is_busy(now, id(7)) && ways.by(id(1)) != Some(id(9)));
    // A link to the peer itself is no node that carries for others.
    ways.add(now, id(2), id(2));
    ways.add(now, id(2), id(8));
    ways.send(now, id(2), &PACKET);
    ways.busy(now, id(2));
    assert_eq!(ways.by(id(2)), Some(id(2)));
}

#[test]
fn who_leaves_a_busy_node_waits_until_the_peer_follows() {
    let mut now = Instant::now();
    let mut ways = Ways::new(now);
    // The peer goes by the greater node, and has not been told.
    let (busy, spare) = (id(9), id(8));
    ways.add(now, id(1), busy);
    ways.add(now, id(1), spare);
    ways.send(now, id(1), &PACKET);
    ways.busy(now, busy);
    for _ in 0..15 {
        now += LOOK;
        ways.heard(now, id(1), busy);
        ways.heard_relay(now, spare);
        assert_eq!(ways.send(now, id(1), &PACKET), Sending::By(spare));
        ways.tick(now);
    }
    // However often it is said, and by whomever, it is looked at twice a second for each that is used.
    assert!(ways.relays.busy(now, spare) && !ways.relays.busy(now, spare));
    assert!(!ways.relays.busy(now, id(1)));
    assert!(ways.relays.busy(now + BUSY_PAUSE, spare));
}
