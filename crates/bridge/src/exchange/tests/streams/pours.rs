//! Requests that are streams, at the client's end.

use super::*;

/// A client that pours, and has sent one frame so.
fn pouring(stream_bytes: usize) -> (Client, RequestId) {
    let mut client = Client::new(stream_bytes, STREAM_BYTES_MAX);
    for _ in 0..3 {
        client.send(second(1), 1);
    }
    let (pour, _) = client.find(Kind::Pour).unwrap();
    client.taken(second(1) + GATHER);
    assert_eq!(client.more.len(), 1);
    (client, pour)
}

#[test]
fn at_the_end_of_its_time_a_stream_waits_for_what_it_carried() {
    let (mut client, pour) = pouring(0);
    for at in 2..61 {
        // All that was sent has come.
        client.told(second(at), 100);
        client.send(second(at), 1);
    }
    // What it sent last is on the way when its time is over, and what follows does not overtake it.
    let over = second(61) + GATHER;
    client.send(second(60) + Duration::from_millis(900), 1);
    client.input(over, NearInput::Timeout);
    client.send(over, 20);
    let carries = |client: &Client| {
        let mut open = client.open.iter();
        open.any(|(_, frame)| frame.kind == Kind::Up && !frame.packets.is_empty())
    };
    assert!(client.stopped.is_empty() && !carries(&client));
    client.told(over + Duration::from_millis(100), 100);
    assert_eq!(client.stopped, [pour]);
    assert_eq!(client.near.figures().failed_requests, 0);
    // All that waited goes on.
    assert!(carries(&client));
    assert_eq!(client.near.figures().dropped_packets, 0);
}

#[test]
fn word_of_what_came_waits_for_no_stream() {
    let (mut client, _) = pouring(STREAM_BYTES_MAX);
    // Much waits, and no more has room.
    client.send(second(1) + GATHER, 600);
    let before = client.more.len();
    client.part(second(2), 0, 10);
    client.input(second(2) + TELL_WITHIN, NearInput::Timeout);
    let (_, told) = client.find(Kind::Up).unwrap();
    assert_eq!((told.seq, told.ack, told.packets.len()), (UNNUMBERED, 1, 0));
    assert_eq!(client.more.len(), before);
    // Where it has room and all is quick it takes the word along.
    let (mut client, _) = pouring(STREAM_BYTES_MAX);
    client.told(second(2), 100);
    let before = client.more.len();
    client.part(second(2), 0, 10);
    client.input(second(2) + TELL_WITHIN, NearInput::Timeout);
    assert_eq!(client.find(Kind::Up), None);
    assert_eq!(client.more.len(), before + 1);
}

#[test]
fn a_request_that_hangs_holds_no_stream_for_long() {
    let mut client = Client::new(0, STREAM_BYTES_MAX);
    for _ in 0..3 {
        client.send(second(1), 1);
    }
    assert!(client.find(Kind::Pour).is_some() && client.more.is_empty());
    let next = client.near.next_timeout().unwrap();
    assert!(next <= second(1) + Duration::from_millis(310), "{next:?}");
    client.input(second(1) + Duration::from_millis(310), NearInput::Timeout);
    assert_eq!(client.more.len(), 1);
}

#[test]
fn a_proxy_that_asks_once_more_who_asks_is_told_soon() {
    let asked = || {
        let body = Bytes::new();
        Ok(Answer { status: 407, body })
    };
    let (mut client, _) = pouring(0);
    client.answer(second(2), Kind::Pour, asked());
    client.send(second(3), 3);
    for at in 4..6 {
        client.send(second(at), 1);
    }
    assert!(client.find(Kind::Pour).is_some());
    client.answer(second(6), Kind::Pour, asked());
    for at in 7..10 {
        client.send(second(at), 1);
    }
    assert_eq!(client.find(Kind::Pour), None);
}

#[test]
fn who_has_to_wait_pours() {
    let mut client = Client::new(0, STREAM_BYTES_MAX);
    client.send(second(1), 1);
    client.send(second(2), 1);
    assert_eq!(client.find(Kind::Pour), None);
    client.send(second(3), 1);
    let (pour, _) = client.find(Kind::Pour).unwrap();
    // It does not overtake what went before.
    assert_eq!(client.more.len(), 0);
    client.taken(second(3) + GATHER);
    assert_eq!(client.more.len(), 1);
    client.send(second(3), 30);
    let carried: usize = client
        .more
        .iter()
        .map(|(_, octets)| Frame::decode(octets).unwrap().packets.len())
        .sum();
    assert_eq!(carried, 31);
    // Once all was told of and nothing follows it is given up, and that is no failure.
    client.told(second(4), 10);
    client.input(second(7), NearInput::Timeout);
    assert_eq!(client.stopped, [pour]);
    for _ in 0..3 {
        client.send(second(8), 1);
    }
    assert!(client.find(Kind::Pour).is_some());
}

#[test]
fn what_is_poured_is_as_long_as_was_declared_and_bounded_before() {
    let mut client = Client::new(0, 1 << 20);
    client.send(second(1), 1_100);
    client.send(second(1), 1_100);
    client.taken(second(1) + GATHER);
    let sent = |client: &Client, pour| -> usize {
        let more = client.more.iter().filter(|(id, _)| *id == pour);
        more.map(|(_, octets)| octets.len()).sum()
    };
    let (first, asked) = client.find(Kind::Pour).unwrap();
    let before = sent(&client, first);
    assert!(before <= UNWRITTEN_BYTES_MAX + PART_BYTES_MAX, "{before}");
    let mut now = second(1);
    for _ in 0..100 {
        now += Duration::from_millis(110);
        for (id, octets) in std::mem::take(&mut client.more) {
            client.input(now, NearInput::Written(id, octets.len()));
            client.more.push((id, octets));
        }
        client.told(now, 1_000);
    }
    let pours: Vec<_> = client
        .open
        .iter()
        .filter(|(_, frame)| frame.kind == Kind::Pour)
        .collect();
    assert_eq!(pours.len(), 2);
    assert_eq!(sent(&client, first) + asked.bytes(), 1 << 20);
    assert!(client.stopped.is_empty());
    // The first is answered, and the second not yet full.
    let mut taken = Frame::new(Kind::Taken, [0; 16]);
    taken.least = 1_000;
    client.answer(now, Kind::Pour, reply(&taken));
    assert_eq!(client.near.figures().failed_requests, 0);
}

#[test]
fn what_is_held_up_upward_is_left_for_requests() {
    let mut client = Client::new(0, STREAM_BYTES_MAX);
    for at in 1..4 {
        client.send(second(at), 1);
    }
    let (pour, _) = client.find(Kind::Pour).unwrap();
    client.taken(second(3) + GATHER);
    client.input(second(6) + GATHER, NearInput::Timeout);
    assert_eq!(client.stopped, [pour]);
    client.send(second(7), 40);
    assert_eq!(client.find(Kind::Pour), None);
    assert!(
        client
            .open
            .iter()
            .filter(|(_, frame)| frame.kind == Kind::Up)
            .count()
            >= 2
    );
    client.send(second(80), 1);
    assert!(client.find(Kind::Pour).is_some());
}

#[test]
fn after_a_stream_was_broken_the_next_is_tried_soon_once() {
    let way = Way {
        ask_bytes: FRAME_BYTES_MAX,
        ..way()
    };
    let mut client = Client::by(way, 0, STREAM_BYTES_MAX);
    let pour = |client: &mut Client, now: Time| {
        for _ in 0..4 {
            client.send(now, 1);
        }
        client.find(Kind::Pour).is_some()
    };
    assert!(pour(&mut client, second(1)));
    client.answer(second(2), Kind::Pour, Err(Failure::Broken));
    // With less under way it may pass, and once more it did not.
    assert!(pour(&mut client, second(3)));
    client.answer(second(4), Kind::Pour, Err(Failure::Broken));
    assert!(!pour(&mut client, second(5)) && !pour(&mut client, second(63)));
    assert!(pour(&mut client, second(65)));
}

#[test]
fn refused_streams_are_shorter_or_none_any_longer() {
    let refused = |status| {
        let body = Bytes::new();
        Ok(Answer { status, body })
    };
    let mut client = Client::new(0, STREAM_BYTES_MAX);
    let mut now = second(1);
    for _ in 0..8 {
        now += second(4_000);
        for _ in 0..3 {
            client.send(now, 1);
        }
        if client.find(Kind::Pour).is_none() {
            break;
        }
        client.answer(now, Kind::Pour, refused(413));
        while client.find(Kind::Up).is_some() {
            let (_, asked) = client.find(Kind::Up).unwrap();
            let mut taken = Frame::new(Kind::Taken, [0; 16]);
            taken.ack = asked.seq;
            client.answer(now, Kind::Up, reply(&taken));
        }
    }
    // 64, 16, 4 and 1 MiB were tried.
    assert_eq!(client.stopped.len(), 4);
    // Much up and little down is not to be seen where that is forbidden.
    let mut client = Client::new(0, STREAM_BYTES_MAX);
    for at in 1..4 {
        client.send(second(at), 1);
    }
    client.answer(second(4), Kind::Pour, refused(403));
    assert!(client.near.way().pad);
    client.send(second(4_000), 30);
    client.send(second(4_001), 30);
    assert_eq!(client.find(Kind::Pour), None);
}
