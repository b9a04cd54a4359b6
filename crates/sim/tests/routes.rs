//! Networks behind members: offered, accepted, and reached by another router when one dies.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod town;

use std::time::Duration;

use enishi_overlay::NodeId;
use enishi_services::vnet::beyond::{Accepted, Route};
use enishi_services::vnet::routes::Prefix;
use enishi_services::vnet::wire::Offers;
use enishi_services::vnet::{ChannelId, Command as Vnet, Event as VnetEvent};
use enishi_services::{Command, Event};
use enishi_sim::world::{Index, World};

use town::{grown, office, setup};

const CHANNEL: ChannelId = ChannelId(1);

fn world() -> World {
    let mut world = grown(setup(4), 16, 30);
    for at in [3, 5, 7] {
        let spec = office("10.77.0.0/16");
        let address = None;
        tell(&mut world, at, Vnet::Open { spec, address });
    }
    world.run_for(Duration::from_secs(20));
    world
}

fn tell(world: &mut World, at: Index, command: Vnet) {
    world.command(at, Command::Vnet(command));
}

fn offer(world: &mut World, at: Index, routes: &[Prefix]) {
    let offers = Offers {
        routes: routes.to_vec(),
        services: Vec::new(),
        hosted: Vec::new(),
    };
    let channel = CHANNEL;
    tell(world, at, Vnet::Offer { channel, offers });
    world.run_for(Duration::from_secs(10));
}

fn accept(world: &mut World, at: Index, networks: &[Prefix], exit: Option<NodeId>) {
    let accepted = Accepted {
        networks: networks.to_vec(),
        exit,
    };
    let channel = CHANNEL;
    tell(world, at, Vnet::Accept { channel, accepted });
    world.run_for(Duration::from_secs(2));
}

fn routes(world: &World, at: Index) -> Vec<(Prefix, NodeId)> {
    let node = world.node(at).unwrap();
    let routes = node.vnet().by_name("office").unwrap().1.routes();
    routes
        .iter()
        .map(|route| (route.network, route.node))
        .collect()
}

#[test]
fn a_network_is_used_when_it_is_offered_and_accepted() {
    let mut world = world();
    let lan: Prefix = "192.168.7.0/24".parse().unwrap();
    offer(&mut world, 3, &[lan]);
    assert_eq!(routes(&world, 7), [], "nobody accepted it");
    world.take_events();
    accept(
        &mut world,
        7,
        &[lan, "192.168.8.0/24".parse().unwrap()],
        None,
    );
    assert_eq!(routes(&world, 7), [(lan, world.id(3))]);
    let told = world
        .take_events()
        .into_iter()
        .find_map(|(_, at, event)| match event {
            Event::Vnet(VnetEvent::Routed { routes, .. }) if at == 7 => Some(routes),
            _ => None,
        });
    let Some([Route { via, .. }]) = told.as_deref() else {
        panic!("{told:?}");
    };
    let there = world.node(3).unwrap().vnet().by_name("office").unwrap().1;
    assert_eq!(Some(*via), there.address().map(Into::into));
    offer(&mut world, 3, &[]);
    assert_eq!(routes(&world, 7), []);
}

#[test]
fn another_router_takes_over_within_seconds() {
    let mut world = world();
    let lan: Prefix = "192.168.7.0/24".parse().unwrap();
    offer(&mut world, 3, &[lan]);
    offer(&mut world, 5, &[lan]);
    accept(&mut world, 7, &[lan], None);
    let [(_, first)] = routes(&world, 7)[..] else {
        panic!("one router");
    };
    world.run_for(Duration::from_secs(120));
    assert_eq!(routes(&world, 7), [(lan, first)], "it answers");
    let index = world.index_of(first).unwrap();
    world.kill(index);
    world.run_for(Duration::from_secs(8));
    let other = world.id(if index == 3 { 5 } else { 3 });
    assert_eq!(routes(&world, 7), [(lan, other)]);
}

#[test]
fn everything_goes_by_the_exit_that_a_person_chose() {
    let mut world = world();
    offer(&mut world, 3, &Prefix::EVERYTHING);
    offer(&mut world, 5, &Prefix::EVERYTHING);
    accept(&mut world, 7, &[], None);
    assert_eq!(routes(&world, 7), [], "nobody chose one");
    let exit = world.id(5);
    accept(&mut world, 7, &[], Some(exit));
    assert_eq!(
        routes(&world, 7),
        Prefix::EVERYTHING.map(|network| (network, exit))
    );
    // What goes by it is to go nowhere when it is had no longer, until the person says otherwise.
    offer(&mut world, 5, &[]);
    assert_eq!(last_told(&mut world, 7), Some((0, true)));
    accept(&mut world, 7, &[], None);
    assert_eq!(last_told(&mut world, 7), Some((0, false)));
}

/// How many routes a node told of last, and whether it wants an exit.
fn last_told(world: &mut World, of: Index) -> Option<(usize, bool)> {
    let mut events = world.take_events().into_iter().rev();
    events.find_map(|(_, at, event)| match event {
        Event::Vnet(VnetEvent::Routed { routes, exit, .. }) if at == of => {
            Some((routes.len(), exit))
        }
        _ => None,
    })
}
