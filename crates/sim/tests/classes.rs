//! Classes of nodes at a small scale: clients use everything through their hosts and are
//! nobody's neighbours, and supernodes are few.

use std::time::Duration;

use enishi_overlay::OverlayId;
use enishi_overlay::class::Class;
use enishi_services::{Command, Event, Node, diag};
use enishi_sim::internet::Model;
use enishi_sim::world::{Index, People};
use enishi_sim::{Options, Scenario, World};

/// A world of so many nodes, of which some are clients, that has settled.
fn world(nodes: usize, clients_per_million: u32) -> World {
    let config = enishi_overlay::Config::new(OverlayId::from_name("simulated"));
    let mut world = World::inhabited(5, Model::default(), config);
    world.set_people(People {
        clients_per_million,
        histories: true,
    });
    let first = world.spawn(None);
    for _ in 1..nodes {
        world.spawn(Some(first));
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(120));
    world
}

fn clients(world: &World) -> Vec<Index> {
    let living = world.living();
    let clients = living.filter(|(_, node)| node.overlay().is_client());
    clients.map(|(index, _)| index).collect()
}

fn pings(world: &mut World, from: Index, to: Index) -> bool {
    let ping = diag::Command::Ping {
        id: 1,
        target: world.id(to),
        timeout: Duration::from_secs(8),
    };
    world.take_events();
    world.command(from, Command::Diag(ping));
    world.run_for(Duration::from_secs(15));
    let events = world.take_events();
    events.iter().any(|(_, index, event)| {
        *index == from && matches!(event, Event::Diag(diag::Event::Pong { .. }))
    })
}

#[test]
fn a_client_is_nobodys_neighbour_and_holds_nothing() {
    let world = world(60, 300_000);
    let clients = clients(&world);
    assert!((8..30).contains(&clients.len()), "{}", clients.len());
    let ids: Vec<_> = clients.iter().map(|index| world.id(*index)).collect();
    for (index, node) in world.living() {
        let overlay = node.overlay();
        let is_client = clients.contains(&index);
        assert_eq!(overlay.near().is_empty(), is_client);
        let mut known = overlay.known().into_keys();
        assert!(known.all(|id| !ids.contains(&id)), "{index} knows a client");
        for peer in overlay.peers() {
            assert!(!ids.contains(&peer.contact().id()));
        }
        if is_client {
            assert_eq!(overlay.peers().count(), 2, "hosts of {index}");
            let hosts = overlay.peers().map(|peer| peer.contact().id());
            let mut hosts = hosts.filter_map(|id| world.index_of(id));
            let attached = |host: Index| world.node(host).map(Node::overlay);
            let me = world.id(index);
            assert!(hosts.all(|host| attached(host).is_some_and(|o| o.has_client(me))));
            assert_eq!(node.dht().store().len(), 0);
        }
    }
}

#[test]
fn clients_are_found_by_their_ids_and_go_on_when_their_hosts_die() {
    let mut world = world(60, 300_000);
    let clients = clients(&world);
    let (one, other) = (clients[0], clients[1]);
    let on_ring = |world: &World| {
        let mut living = world.living();
        let found =
            living.find(|(_, node)| !node.overlay().is_client() && node.overlay().clients() == 0);
        found.map(|(index, _)| index).expect("some have no clients")
    };
    assert!(pings(&mut world, one, other));
    let stranger = on_ring(&world);
    assert!(pings(&mut world, stranger, one));
    assert!(pings(&mut world, one, stranger));

    let peers = |world: &World| -> Vec<Index> {
        let node = world.node(one).expect("it lives");
        let ids = node.overlay().peers().map(|peer| peer.contact().id());
        ids.filter_map(|id| world.index_of(id)).collect()
    };
    let hosts = peers(&world);
    for host in &hosts {
        world.kill(*host);
    }
    world.run_for(Duration::from_secs(30));
    let new = peers(&world);
    assert_eq!(new.len(), 2);
    assert!(new.iter().all(|host| !hosts.contains(host)), "{new:?}");
    let stranger = on_ring(&world);
    assert!(pings(&mut world, one, stranger));
    world.run_for(Duration::from_secs(30));
    assert!(pings(&mut world, stranger, one));
}

#[test]
fn what_clients_ask_is_answered_and_supernodes_are_few() {
    let options = Options {
        nodes: 150,
        seed: 2,
        routes: 150,
        clients_per_million: 200_000,
        duration: Some(Duration::from_secs(300)),
        ..Options::default()
    };
    let results = Scenario::Classes.run(&options, &mut |_| {}).results;
    let number = |name: &str| results.figures.number(name).unwrap_or(f64::NAN);
    for share in ["clients_attached", "clients_put", "clients_got"] {
        assert!(number(share) == 1.0, "{share}: {results:?}");
    }
    assert!(number("clients_pinged") >= 0.95, "{results:?}");
    assert!(number("correct_after_deaths") >= 0.97, "{results:?}");
    assert!(number("hosts_replaced_after_s") < 40.0, "{results:?}");
    // Of about 120 nodes on the ring three are to be supernodes.
    assert!((0.008..0.06).contains(&number("supers")), "{results:?}");
    let hops = |class: Class| results.figures.number_of("hops", class.name());
    // The way to the host is a hop of its own.
    assert!(hops(Class::Client) > hops(Class::Peer), "{results:?}");
}
