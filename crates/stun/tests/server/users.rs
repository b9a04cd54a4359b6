//! Users that come and go, and two of them with each other.

use std::net::SocketAddr;

use enishi_stun::{Action, Credentials, Limits, Rate};

use super::pair::{Hand, PEER, Sent, Site, address};
use super::{CLIENT, permit, send};

const OTHER: &str = "198.51.100.8:4000";

fn finish(site: &mut Site, actions: &[Action]) {
    for action in actions {
        let Action::Close(relayed) = action else {
            panic!("{action:?}");
        };
        assert!(site.open.remove(relayed));
    }
}

#[test]
fn a_user_that_is_removed_has_nothing_any_more_and_a_new_one_does() {
    let mut site = Site::new(Limits::default());
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), None);
    assert_eq!(permit(&mut hand, &mut site, PEER), None);
    let clients = site.server.clients(site.now);
    assert_eq!((clients.len(), clients[0].peers), (1, 1));
    assert_eq!(
        (clients[0].user.as_str(), clients[0].client),
        ("aki", hand.source)
    );
    let actions: Vec<Action> = site.server.remove_user("aki").collect();
    finish(&mut site, &actions);
    assert!(site.open.is_empty() && site.server.clients(site.now).is_empty());
    assert_eq!(site.server.next_timeout(), None);
    let sent = site.client_sends(hand.source, &send(PEER, b"x"));
    assert!(sent.to_peers.is_empty());
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), Some(401));

    let user = Credentials::new("aki", "a new one").unwrap();
    assert_eq!(site.server.add_user(user).count(), 0);
    let mut hand = Hand::new(CLIENT);
    assert_eq!(hand.allocate(&mut site), Some(401), "with the old password");
    let mut hand = Hand::with_password(CLIENT, "a new one");
    assert_eq!(hand.allocate(&mut site), None);
    // Another password ends what was had by the old one.
    let user = Credentials::new("aki", "another").unwrap();
    let actions: Vec<Action> = site.server.add_user(user).collect();
    assert_eq!(actions.len(), 1);
    finish(&mut site, &actions);
}

#[test]
fn two_clients_of_one_server_reach_each_other_and_nothing_else_of_it() {
    let mut site = Site::new(Limits::default());
    let mut hands = [CLIENT, OTHER].map(Hand::new);
    for hand in &mut hands {
        assert_eq!(hand.allocate(&mut site), None);
    }
    let clients = site.server.clients(site.now);
    let [first, second] = [0, 1].map(|at| clients[at].relayed[0]);
    let [one, other] = &mut hands;
    let says = |site: &mut Site, to: SocketAddr, from: &Hand| -> Sent {
        site.client_sends(from.source, &send(&to.to_string(), b"hello"))
    };
    assert_eq!(permit(one, &mut site, &second.to_string()), None);
    let sent = says(&mut site, second, one);
    assert!(
        sent.to_clients.is_empty() && sent.to_peers.is_empty(),
        "no permission yet"
    );
    assert_eq!(permit(other, &mut site, &first.to_string()), None);
    let sent = says(&mut site, second, one);
    assert!(sent.to_peers.is_empty(), "it stays within");
    assert_eq!(sent.to_clients[0].0, address(OTHER));
    // A service of the server's own host.
    let service = SocketAddr::new(second.ip(), 53);
    let sent = says(&mut site, service, one);
    assert!(sent.to_clients.is_empty() && sent.to_peers.is_empty());
    let sent = site.peer_sends(service, b"hello");
    assert!(sent.to_clients.is_empty());
}

#[test]
fn what_a_client_sends_to_another_one_is_of_its_own_budget() {
    let each = Rate {
        per_s: 1,
        burst: 1000,
    };
    let mut site = Site::new(Limits {
        octets_each: each,
        ..Limits::default()
    });
    let mut hands = [CLIENT, OTHER].map(Hand::new);
    for hand in &mut hands {
        assert_eq!(hand.allocate(&mut site), None);
    }
    let clients = site.server.clients(site.now);
    let [first, second] = [0, 1].map(|at| clients[at].relayed[0]);
    let [one, other] = &mut hands;
    assert_eq!(permit(one, &mut site, &second.to_string()), None);
    assert_eq!(permit(one, &mut site, PEER), None);
    assert_eq!(permit(other, &mut site, &first.to_string()), None);
    let says = |site: &mut Site, to: &str| {
        let sent = site.client_sends(address(CLIENT), &send(to, &[1; 400]));
        (sent.to_clients.len(), sent.to_peers.len())
    };
    let second = second.to_string();
    assert_eq!(says(&mut site, &second), (1, 0));
    assert_eq!(says(&mut site, &second), (1, 0));
    // Nothing is left, for others neither.
    assert_eq!(says(&mut site, PEER), (0, 0));
    assert_eq!(says(&mut site, &second), (0, 0));
    assert_eq!(site.server.counters().dropped_octets, 800);
}
