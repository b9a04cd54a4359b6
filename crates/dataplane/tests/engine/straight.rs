//! What the hosts of two engines say to each other by the way that packets have found.

use enishi_dataplane::engine::MESSAGE_BYTES_MAX;

use super::*;

/// What a host hears of a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Straight(PeerKey, Option<SocketAddr>),
    Said(PeerKey, Vec<u8>),
}

impl End {
    fn hear(&self, word: &Word) {
        until(&format!("{word:?}"), || {
            let words = self.words.lock().unwrap();
            words.try_iter().any(|heard| heard == *word)
        });
    }

    fn say(&self, to: &Self, message: &[u8]) {
        let message = Bytes::copy_from_slice(message);
        self.engine.inbox().say([to.number; 32], message);
    }
}

#[test]
fn hosts_hear_of_the_way_straight_and_speak_by_it_alone() {
    need_root!();
    let (_lab, left, right) = ends();
    left.set_lane(&right, true);
    right.set_lane(&left, true);
    right.attach(&left, 0, false, false);
    left.attach(&right, 0, true, false);
    let told = left.ping(&["-c", "3", "-i", "0.05", "10.77.0.2"]);
    assert!(told.contains(" 0% packet loss"), "{told}");
    left.say(&right, b"by the lane");
    let at = SocketAddr::new(right.host.address().into(), right.engine.port());
    let peer = [right.number; 32];
    left.engine.inbox().tell(Command::Candidates {
        peer,
        candidates: vec![at],
    });
    left.hear(&Word::Straight(peer, Some(at)));
    left.say(&right, b"one");
    let from = [left.number; 32];
    let first = right.words.lock().unwrap().recv_timeout(LIMIT).unwrap();
    let home = SocketAddr::new(left.host.address().into(), left.engine.port());
    match first {
        Word::Straight(..) => {
            assert_eq!(first, Word::Straight(from, Some(home)));
            right.hear(&Word::Said(from, b"one".to_vec()));
        }
        Word::Said(..) => assert_eq!(first, Word::Said(from, b"one".to_vec())),
    }
    // How long they may be is found out while long ones are said.
    let longest = vec![7; MESSAGE_BYTES_MAX];
    until("the longest is heard", || {
        left.say(&right, &longest);
        let words = right.words.lock().unwrap();
        words
            .try_iter()
            .any(|word| word == Word::Said(from, longest.clone()))
    });
    left.host.link_down().unwrap();
    until("the way is lost", || {
        left.say(&right, b"two");
        let words = left.words.lock().unwrap();
        words
            .try_iter()
            .any(|word| word == Word::Straight(peer, None))
    });
    left.host.link_up().unwrap();
    left.hear(&Word::Straight(peer, Some(at)));
    left.engine.inbox().tell(Command::Detach {
        network: NETWORK,
        peer,
    });
    left.hear(&Word::Straight(peer, None));
}
