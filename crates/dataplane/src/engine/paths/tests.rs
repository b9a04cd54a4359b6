use super::*;

const fn at(last: u8) -> Pair {
    let ip = std::net::Ipv4Addr::new(10, 0, 0, last);
    let address = SocketAddr::new(std::net::IpAddr::V4(ip), 1);
    Pair {
        via: Via::FIRST,
        address,
        relay: None,
    }
}

const NEAR: Pair = at(1);
const FAR: Pair = at(2);
const MS: Duration = Duration::from_millis(1);

const BY: Pair = Pair {
    relay: Some(Token(1)),
    ..at(3)
};
const BY_ANOTHER: Pair = Pair {
    relay: Some(Token(2)),
    ..at(4)
};

/// Lets time go by in steps of 50 ms; returns all that was asked, and when the way was
/// given up.
fn pass(paths: &mut Paths, from: Instant, ms: u32) -> (Vec<Ask>, Option<Duration>) {
    let (mut asks, mut given_up) = (Vec::new(), None);
    for step in 0..ms / 50 {
        let after = MS * 50 * step;
        let (more, up) = paths.tick(from + after, KEEP_ALIVE);
        asks.extend(more);
        given_up = given_up.or(up.then_some(after));
    }
    (asks, given_up)
}

#[test]
fn the_first_to_answer_is_taken_and_a_nearer_one_later() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.learn(now, [FAR.address, NEAR.address]);
    let (asks, _) = paths.tick(now, KEEP_ALIVE);
    assert_eq!(
        asks.iter().map(|ask| ask.to).collect::<Vec<_>>(),
        [FAR, NEAR]
    );
    assert_eq!(paths.direct(), None);
    assert!(paths.answered(now, FAR, MS * 40, 100));
    assert_eq!(paths.direct(), Some((FAR, DATAGRAM_SAFE)));
    assert!(!paths.answered(now, NEAR, MS * 39, 100));
    assert!(paths.answered(now, NEAR, MS * 4, 100));
    let (asks, _) = paths.tick(now, KEEP_ALIVE);
    let lengths: Vec<_> = asks
        .iter()
        .filter(|ask| ask.to == NEAR)
        .map(|ask| ask.bytes)
        .collect();
    assert_eq!(lengths, DATAGRAM_BYTES);
    paths.answered(now, NEAR, MS * 4, DATAGRAM_BYTES[0]);
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[0])));
    paths.too_long(DATAGRAM_BYTES[0]);
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[1])));
}

#[test]
fn a_relay_is_taken_until_there_is_a_way_straight() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.learn(now, [NEAR.address]);
    assert_eq!(paths.heard(now, BY, true), None, "nobody relays");
    assert!(!paths.answered(now, BY, MS, 100));
    paths.learn_relay(now, BY);
    let (asks, _) = paths.tick(now, KEEP_ALIVE);
    let to: Vec<_> = asks.iter().map(|ask| ask.to).collect();
    assert_eq!(to, [NEAR, BY]);
    assert!(paths.answered(now, BY, MS, 100));
    assert_eq!(paths.straight(), None);
    assert_eq!(paths.direct(), Some((BY, DATAGRAM_SAFE - 9)));
    // Its datagrams are so much longer.
    let (asks, _) = paths.tick(now, KEEP_ALIVE);
    let lengths = asks.iter().filter(|ask| ask.to == BY).map(|ask| ask.bytes);
    assert!(lengths.eq([1449, 1337, 1223]));
    // Help is still wanted, and its addresses are still tried.
    paths.spoke(now + HELP_AFTER, 100);
    assert!(paths.wants_help(now + HELP_AFTER));
    let (asks, _) = pass(&mut paths, now, 1_000);
    assert!(asks.iter().any(|ask| ask.to == NEAR));
    // However slow the way straight is.
    assert!(paths.heard(now, NEAR, true).is_some());
    assert!(paths.answered(now + MS * 500, NEAR, MS * 90, 100));
    assert_eq!(paths.straight(), Some(NEAR));
    assert!(!paths.answered(now + MS * 900, BY, MS, 100));
    assert_eq!(paths.straight(), Some(NEAR));
}

#[test]
fn when_a_relay_is_silent_another_one_is_taken_within_a_second() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.learn_relay(now, BY);
    paths.learn_relay(now, BY_ANOTHER);
    paths.answered(now, BY, MS, 100);
    let spoke = now + MS * 1_000;
    paths.tick(spoke, KEEP_ALIVE);
    paths.spoke(spoke, 100);
    let mut taken_after = None;
    for step in 0..20 {
        let now = spoke + MS * 50 * step;
        for ask in paths.tick(now, KEEP_ALIVE).0 {
            if ask.to == BY_ANOTHER && paths.answered(now, BY_ANOTHER, MS, 100) {
                taken_after.get_or_insert(MS * 50 * step);
            }
        }
    }
    assert!(
        taken_after.is_some_and(|after| after < MS * 1_000),
        "{taken_after:?}"
    );
    // Alone, it gives way to the lane.
    paths.forget_relay(spoke, Token(1));
    let alone = spoke + MS * 1_000;
    paths.spoke(alone + MS * 50, 100);
    let (_, given_up) = pass(&mut paths, alone, 3_000);
    assert!(
        given_up.is_some_and(|after| after < MS * 2_000),
        "{given_up:?}"
    );
    paths.answered(alone + MS * 3_000, BY_ANOTHER, MS, 100);
    paths.forget_relay(alone + MS * 3_000, Token(2));
    assert_eq!(paths.direct(), None);
}

#[test]
fn silence_is_noticed_within_two_and_a_half_seconds_of_speaking() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.answered(now, NEAR, MS, 100);
    pass(&mut paths, now, 100);
    paths.spoke(now + MS * 100, 100);
    let (asks, given_up) = pass(&mut paths, now + MS * 100, 4000);
    assert!(
        given_up.is_some_and(|after| after < MS * 2500),
        "{given_up:?}"
    );
    assert!(asks.iter().filter(|ask| ask.to == NEAR).count() >= 5);
    assert_eq!(paths.direct(), None);
}

#[test]
fn an_idle_path_is_kept_open_and_not_doubted() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.answered(now, NEAR, MS, 100);
    let (asks, given_up) = pass(&mut paths, now, 19_000);
    assert!(given_up.is_none() && asks.iter().all(|ask| ask.bytes > 0));
    let (asks, _) = pass(&mut paths, now + KEEP_ALIVE, 100);
    assert_eq!(asks, [Ask { to: NEAR, bytes: 0 }]);
    paths.heard(now + KEEP_ALIVE + MS * 50, NEAR, true);
    let (_, given_up) = pass(&mut paths, now + KEEP_ALIVE + MS * 50, 10_000);
    assert!(given_up.is_none());
    // A router that forgets sooner is reminded sooner.
    let (heard, early) = (now + KEEP_ALIVE + MS * 50, Duration::from_secs(7));
    let asks = |paths: &mut Paths, at| {
        let (asks, _) = paths.tick(at, early);
        asks.iter().filter(|ask| ask.bytes == 0).count()
    };
    assert_eq!(asks(&mut paths, heard + early - MS), 0);
    assert_eq!(asks(&mut paths, heard + early), 1);
}

#[test]
fn a_peer_that_moves_is_followed_once_its_old_address_is_silent() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.answered(now, NEAR, MS * 20, 100);
    assert_eq!(paths.heard(now + MS * 10, FAR, true), None);
    assert_eq!(paths.heard(now + MS * 400, FAR, false), None);
    let ask = paths.heard(now + MS * 400, FAR, true);
    assert_eq!(ask, Some(Ask { to: FAR, bytes: 0 }));
    assert_eq!(paths.heard(now + MS * 410, FAR, true), None);
    assert!(paths.answered(now + MS * 420, FAR, MS * 20, 100));
    assert_eq!(paths.direct().map(|(address, _)| address), Some(FAR));
}

#[test]
fn what_does_not_pass_any_more_is_found_out() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    let tell = |paths: &mut Paths, at, longest| {
        for ask in paths.tick(at, KEEP_ALIVE).0 {
            if ask.bytes <= longest {
                paths.heard(at, NEAR, true);
                paths.answered(at, NEAR, MS, ask.bytes);
            }
        }
    };
    paths.answered(now, NEAR, MS, 100);
    tell(&mut paths, now, DATAGRAM_BYTES[0]);
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[0])));
    // Lost once, then not.
    let later = now + IMPROVE;
    tell(&mut paths, later, DATAGRAM_SAFE);
    tell(&mut paths, later + TRIAL, DATAGRAM_BYTES[0]);
    tell(&mut paths, later + TRIAL * 2, DATAGRAM_BYTES[0]);
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[0])));
    // Lost each time.
    let later = later + IMPROVE;
    for round in 0..=TRIAL_ROUNDS {
        tell(&mut paths, later + TRIAL * round, DATAGRAM_BYTES[1]);
    }
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[1])));
}

#[test]
fn a_path_that_ceases_to_take_what_is_sent_is_found_out_within_two_seconds() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    // Answers at once what passes; tells how much was sent for it in octets.
    let pass = |paths: &mut Paths, from: Instant, ms: u32, passes: &[usize]| {
        let mut sent = 0;
        for step in 0..ms / 50 {
            let at = from + MS * 50 * step;
            paths.spoke(at, DATAGRAM_BYTES[0]);
            for ask in paths.tick(at, KEEP_ALIVE).0 {
                sent += ask.bytes;
                if passes.contains(&ask.bytes) {
                    paths.answered(at, NEAR, MS, ask.bytes);
                }
            }
            paths.heard(at, NEAR, true);
        }
        sent
    };
    paths.answered(now, NEAR, MS, 100);
    pass(&mut paths, now, 100, &DATAGRAM_BYTES);
    let cost = pass(&mut paths, now + MS * 100, 10_000, &DATAGRAM_BYTES);
    assert!((9..=11).contains(&(cost / DATAGRAM_BYTES[0])), "{cost}");
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[0])));
    let later = now + MS * 10_100;
    // What loses everything is not short.
    pass(&mut paths, later, 3_000, &[]);
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[0])));
    let later = later + MS * 3_000;
    pass(&mut paths, later, 2_000, &DATAGRAM_BYTES[2..]);
    assert_eq!(paths.direct(), Some((NEAR, DATAGRAM_BYTES[2])));
}

#[test]
fn a_peer_that_said_a_word_from_elsewhere_is_asked_there_when_its_old_address_is_silent() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.answered(now, NEAR, MS, 100);
    assert_eq!(paths.heard(now + MS * 50, FAR, true), None);
    paths.spoke(now + MS * 50, 100);
    let (asks, given_up) = pass(&mut paths, now + MS * 50, 700);
    let far = asks.iter().filter(|ask| ask.to == FAR && ask.bytes == 0);
    assert!(far.count() >= 2 && given_up.is_none(), "{asks:?}");
    assert!(paths.answered(now + MS * 500, FAR, MS, 100));
}

#[test]
fn who_moves_says_so_at_once_and_until_it_is_heard() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.answered(now, NEAR, MS, 100);
    pass(&mut paths, now, 100);
    let later = now + MS * 300;
    assert!(paths.tick(later, KEEP_ALIVE).0.is_empty());
    paths.moved(later);
    assert_eq!(
        paths.tick(later, KEEP_ALIVE).0,
        [Ask { to: NEAR, bytes: 0 }]
    );
    assert!(!pass(&mut paths, later + MS * 50, 500).0.is_empty());
    paths.heard(later + MS * 550, NEAR, true);
    assert!(pass(&mut paths, later + MS * 550, 300).0.is_empty());
}

#[test]
fn a_peer_that_takes_the_lane_is_answered_there() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    paths.answered(now, NEAR, MS, 100);
    paths.heard_by_lane(now + MS * 100);
    assert!(paths.direct().is_some());
    paths.heard_by_lane(now + MS * 300);
    assert!(paths.direct().is_none());
    assert_eq!(paths.tick(now + MS * 300, KEEP_ALIVE).0.len(), 1);
}

#[test]
fn candidates_are_bounded() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    let groups = [
        "224.0.0.1:9",
        "255.255.255.255:9",
        "0.0.0.0:9",
        "10.0.0.1:0",
        "[ff02::1]:9",
    ];
    paths.learn(now, groups.map(|address| address.parse().unwrap()));
    assert!(paths.tick(now, KEEP_ALIVE).0.is_empty());
    paths.learn(
        now,
        (1..100).map(|port| SocketAddr::new(NEAR.address.ip(), port)),
    );
    assert_eq!(paths.tick(now, KEEP_ALIVE).0.len(), CANDIDATES_MAX);
}

#[test]
fn help_is_asked_for_while_there_is_no_way_and_something_is_said() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    assert!(!paths.wants_help(now));
    let mut at = now + HELP_AFTER;
    assert!(paths.wants_help(at) && !paths.wants_help(at));
    at += HELP_INTERVAL;
    assert!(paths.wants_help(at));
    at += HELP_INTERVAL;
    assert!(!paths.wants_help(at), "nothing was said for long");
    paths.spoke(at, 100);
    assert!(paths.wants_help(at));
    paths.answered(at, NEAR, MS, 100);
    at += HELP_INTERVAL;
    paths.spoke(at, 100);
    assert!(!paths.wants_help(at));
}

#[test]
fn what_is_reached_by_another_socket_is_another_way_and_goes_with_it() {
    let now = Instant::now();
    let mut paths = Paths::new(now);
    let other = Pair {
        via: Via::from_number(7),
        ..NEAR
    };
    assert_eq!(
        paths.heard(now, other, true),
        Some(Ask {
            to: other,
            bytes: 0
        })
    );
    paths.learn(now, [NEAR.address]);
    assert_eq!(paths.tick(now, KEEP_ALIVE).0.len(), 2);
    assert!(paths.answered(now, NEAR, MS, 100));
    assert_eq!(paths.direct().map(|(pair, _)| pair), Some(NEAR));
    paths.close(other.via);
    assert_eq!(paths.candidates.len(), 1);
}

#[test]
fn a_socket_is_in_use_by_which_the_peer_speaks() {
    let now = Instant::now();
    let by_another = Pair {
        via: Via::from_number(7),
        ..NEAR
    };
    let uses = |paths: &Paths, after: Duration| paths.uses(now + after, by_another.via);
    let mut paths = Paths::new(now);
    paths.learn_pair(now, by_another);
    assert!(!uses(&paths, Duration::ZERO), "nothing came by it");
    paths.answered(now, NEAR, MS, 100);
    paths.heard(now, by_another, true);
    assert_eq!(paths.straight(), Some(NEAR));
    assert!(uses(&paths, KEEP_ALIVE * 2));
    assert!(!uses(&paths, KEEP_ALIVE * 3));
    paths.answered(now + KEEP_ALIVE, by_another, MS, 100);
    assert_eq!(paths.straight(), Some(by_another));
    assert!(uses(&paths, KEEP_ALIVE * 9), "it is taken");
    paths.heard(now + KEEP_ALIVE * 9, by_another, true);
    let silent = KEEP_ALIVE * 9 + FOLLOW_AFTER;
    paths.answered(now + silent, FAR, MS, 100);
    assert_eq!(paths.straight(), Some(FAR));
    assert!(uses(&paths, silent), "the peer may not have left it");
    let later = silent * 2;
    paths.answered(now + later, by_another, MS, 100);
    assert_eq!(paths.straight(), Some(by_another));
    paths.heard(now + later, by_another, true);
    paths.heard_by_lane(now + later + FOLLOW_AFTER);
    assert_eq!(paths.straight(), None);
    assert!(uses(&paths, later + FOLLOW_AFTER), "nor now");
}
