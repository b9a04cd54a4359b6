//! What multicast promises, story by story.

mod town;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_services::calls::{GroupName, GroupSpec, Heard, Order, Receipts, Tree};
use enishi_services::keys::Secret;
use enishi_services::multicast::{
    self, Event as GroupEvent, PAYLOAD_BYTES_MAX, SMALL_MAX, Subscriber,
};
use enishi_services::{Command, Event};
use enishi_sim::internet::{Model, Transport};
use enishi_sim::world::{Index, Setup, World};

use town::{grown, setup};

const NAME: GroupName = GroupName([3; 32]);
const HOST: Subscriber = Subscriber::Host;

fn world_of(nodes: usize, model: Model) -> World {
    seeded(11, nodes, model)
}

fn seeded(seed: u64, nodes: usize, model: Model) -> World {
    let setup = Setup {
        model,
        ..setup(seed)
    };
    grown(setup, nodes, 30)
}

fn subscribe(world: &mut World, at: Index, tree: Tree, order: Order, secret: u8) {
    let spec = GroupSpec {
        name: NAME,
        secret: Secret::new([secret; 32]),
        tree,
        order,
    };
    let subscriber = HOST;
    let subscribe = multicast::Command::Subscribe { subscriber, spec };
    world.command(at, Command::Multicast(subscribe));
    world.run_for(Duration::from_millis(300));
}

/// A world in which the first `members` nodes have formed a group.
fn group_of(members: usize, nodes: usize, tree: Tree, model: Model) -> World {
    grouped(world_of(nodes, model), members, tree)
}

fn grouped(mut world: World, members: usize, tree: Tree) -> World {
    for member in 0..members {
        subscribe(&mut world, member, tree, Order::PerSender, 1);
    }
    world.run_for(Duration::from_secs(120));
    world.take_events();
    world
}

fn publish(world: &mut World, at: Index, payload: &[u8], receipts: Option<u64>) {
    let publish = multicast::Command::Publish {
        subscriber: HOST,
        group: NAME,
        payload: payload.to_vec().into(),
        receipts,
    };
    world.command(at, Command::Multicast(publish));
}

/// What each node heard, in order, and what was counted.
#[derive(Default)]
struct Told {
    heard: BTreeMap<Index, Vec<Heard>>,
    receipts: Vec<(u64, Option<Receipts>)>,
}

impl Told {
    fn take(world: &mut World) -> Self {
        let mut told = Self::default();
        for (_, index, event) in world.take_events() {
            match event {
                Event::Multicast(GroupEvent::Heard { heard, .. }) => {
                    told.heard.entry(index).or_default().push(heard);
                }
                Event::Multicast(GroupEvent::Receipts {
                    token, receipts, ..
                }) => {
                    told.receipts.push((token, receipts));
                }
                Event::Joined
                | Event::Dht(_)
                | Event::Diag(_)
                | Event::Vnet(_)
                | Event::Reach(_) => {}
            }
        }
        told
    }

    fn payloads(&self, at: Index) -> Vec<&[u8]> {
        let heard = self.heard.get(&at).into_iter().flatten();
        heard.map(|heard| &heard.payload[..]).collect()
    }
}

fn data_messages(world: &World) -> u64 {
    let traffic = world.traffic();
    traffic
        .get("multicast data")
        .map_or(0, |tally| tally.messages)
}

#[test]
fn in_a_small_group_the_author_sends_to_each_and_all_are_counted() {
    let mut world = group_of(SMALL_MAX, 40, Tree::Biased, Model::default());
    let before = data_messages(&world);
    publish(&mut world, 3, b"hello", Some(9));
    world.run_for(Duration::from_secs(20));
    let others = SMALL_MAX as u64 - 1;
    assert_eq!(data_messages(&world) - before, others);
    let told = Told::take(&mut world);
    for member in (0..SMALL_MAX).filter(|member| *member != 3) {
        assert_eq!(told.payloads(member), [b"hello"], "member {member}");
        assert_eq!(told.heard[&member][0].author, world.id(3));
    }
    assert_eq!(told.heard.len() as u64, others, "nobody else");
    let [(9, Some(receipts))] = told.receipts[..] else {
        panic!("{:?}", told.receipts);
    };
    assert_eq!((receipts.received, receipts.expected), (15, 15));
}

#[test]
fn a_tree_brings_everything_to_each_member_once_in_order() {
    let mut world = group_of(60, 90, Tree::Biased, Model::default());
    for author in [0, 20, 40] {
        for number in 0..4 {
            publish(&mut world, author, &[number], None);
            world.run_for(Duration::from_secs(1));
        }
    }
    world.run_for(Duration::from_secs(10));
    Told::take(&mut world);
    let before = data_messages(&world);
    for number in 10..30 {
        publish(&mut world, 0, &[number], (number == 29).then_some(1));
        publish(&mut world, 20, &[number], None);
        publish(&mut world, 40, &[number], None);
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(20));
    let sent = data_messages(&world) - before;
    assert!(sent < 3 * 20 * 59 * 13 / 10, "{sent} for {}", 3 * 20 * 59);
    let told = Told::take(&mut world);
    for member in 0..60 {
        let heard = &told.heard[&member];
        for author in [0, 20, 40].into_iter().filter(|author| *author != member) {
            let id = world.id(author);
            let of = heard.iter().filter(|heard| heard.author == id);
            let numbers: Vec<u8> = of.map(|heard| heard.payload[0]).collect();
            let all: Vec<u8> = (10..30).collect();
            assert_eq!(numbers, all, "{member} of {author}");
        }
    }
    let receipts = told.receipts[0].1.expect("it was published");
    assert_eq!((receipts.received, receipts.expected), (59, 59));
}

/// Kills every fifth member, none of which is the author, while messages are under way;
/// returns what each survivor heard.
fn through_deaths(tree: Tree) -> Vec<(Index, BTreeSet<u8>, usize)> {
    let mut world = group_of(50, 80, tree, Model::default());
    for number in 0..60 {
        if number == 30 {
            (1..50).step_by(5).for_each(|victim| world.kill(victim));
        }
        publish(&mut world, 0, &[number], None);
        world.run_for(Duration::from_millis(200));
    }
    world.run_for(Duration::from_secs(60));
    let told = Told::take(&mut world);
    let survivors = (2..50).filter(|member| member % 5 != 1);
    survivors
        .map(|member| {
            let payloads = told.payloads(member);
            let numbers = payloads.iter().map(|payload| payload[0]).collect();
            (member, numbers, payloads.len())
        })
        .collect()
}

#[test]
fn a_tree_among_members_heals_when_forwarders_die() {
    for (member, numbers, count) in through_deaths(Tree::Biased) {
        assert_eq!((numbers.len(), count), (60, 60), "member {member}");
    }
}

#[test]
fn a_tree_along_the_ring_heals_when_forwarders_die() {
    for (member, numbers, count) in through_deaths(Tree::Scribe) {
        assert_eq!((numbers.len(), count), (60, 60), "member {member}");
    }
}

#[test]
fn along_the_ring_others_forward_what_they_cannot_read() {
    let mut world = group_of(6, 120, Tree::Scribe, Model::default());
    publish(&mut world, 2, b"secret", Some(1));
    world.run_for(Duration::from_secs(20));
    let told = Told::take(&mut world);
    assert_eq!(told.heard.len(), 5);
    assert_eq!(
        told.receipts[0].1.map(|r| (r.received, r.expected)),
        Some((5, 5))
    );
    let carriers = world
        .living()
        .filter(|(index, node)| *index >= 6 && node.multicast().groups() > 0);
    assert!(carriers.count() > 0, "somebody is on the way");
    // When nobody needs them any more they forget the group.
    for member in 0..6 {
        let (subscriber, group) = (HOST, NAME);
        let leave = multicast::Command::Unsubscribe { subscriber, group };
        world.command(member, Command::Multicast(leave));
    }
    world.run_for(Duration::from_secs(30));
    let groups: usize = world
        .living()
        .map(|(_, node)| node.multicast().groups())
        .sum();
    assert_eq!(groups, 0);
}

#[test]
fn what_datagrams_lose_is_asked_for_again_and_stays_in_order() {
    let model = Model {
        transport: Transport::Datagrams,
        loss_per_million: 50_000,
        ..Model::default()
    };
    let all: Vec<u8> = (0..40).collect();
    for seed in 1..=8 {
        let mut world = grouped(seeded(seed, 45, model.clone()), 30, Tree::Biased);
        for number in 0..40 {
            publish(&mut world, 5, &[number], None);
            world.run_for(Duration::from_millis(250));
        }
        world.run_for(Duration::from_secs(60));
        let told = Told::take(&mut world);
        for member in (0..30).filter(|member| *member != 5) {
            let numbers: Vec<u8> = told.payloads(member).iter().map(|p| p[0]).collect();
            assert_eq!(numbers, all, "member {member}, seed {seed}");
        }
    }
}

/// Lets the last node of a world join while member 1 says something every other second: ten
/// times before and, after a pause, twenty times more. Returns what the newcomer was given.
fn given_to_a_newcomer(mut world: World, order: Order, pause_s: u64) -> Vec<u8> {
    let newcomer = world.living().count() - 1;
    for number in 0..30 {
        if number == 10 {
            subscribe(&mut world, newcomer, Tree::Biased, order, 1);
            world.run_for(Duration::from_secs(pause_s));
        }
        publish(&mut world, 1, &[number], None);
        world.run_for(Duration::from_secs(2));
    }
    world.run_for(Duration::from_secs(40));
    let told = Told::take(&mut world);
    told.payloads(newcomer).iter().map(|p| p[0]).collect()
}

#[test]
fn a_newcomer_is_given_all_that_is_said_after_it_joined_and_nothing_else() {
    let lossy = Model {
        transport: Transport::Datagrams,
        loss_per_million: 50_000,
        ..Model::default()
    };
    let after: Vec<u8> = (10..30).collect();
    for (members, nodes) in [(6, 20), (30, 45)] {
        for (seed, model) in [(1, &Model::default()), (2, &lossy), (3, &lossy)] {
            for pause_s in [0, 12] {
                let world = || grouped(seeded(seed, nodes, model.clone()), members, Tree::Biased);
                let said = format!("{members} members, seed {seed}, pause {pause_s} s");
                let in_order = given_to_a_newcomer(world(), Order::PerSender, pause_s);
                assert_eq!(in_order, after, "{said}");
                let mut any_order = given_to_a_newcomer(world(), Order::None, pause_s);
                any_order.sort_unstable();
                assert_eq!(any_order, after, "{said}");
            }
        }
    }
}

#[test]
fn another_secret_is_another_group() {
    let mut world = group_of(5, 30, Tree::Biased, Model::default());
    subscribe(&mut world, 20, Tree::Biased, Order::None, 2);
    world.run_for(Duration::from_secs(60));
    publish(&mut world, 0, b"ours", None);
    publish(&mut world, 20, b"theirs", None);
    world.run_for(Duration::from_secs(10));
    let told = Told::take(&mut world);
    assert_eq!(told.payloads(20), Vec::<&[u8]>::new());
    assert_eq!(told.payloads(1), [b"ours"]);
}

#[test]
fn two_halves_of_a_group_become_one_when_the_network_does() {
    let mut world = world_of(40, Model::default());
    (20..40).for_each(|index| world.set_part(index, 1));
    for member in [1, 2, 3, 21, 22, 23] {
        subscribe(&mut world, member, Tree::Biased, Order::None, 1);
    }
    world.run_for(Duration::from_secs(120));
    world.take_events();
    publish(&mut world, 1, b"apart", None);
    world.run_for(Duration::from_secs(10));
    let told = Told::take(&mut world);
    assert_eq!(told.heard.keys().copied().collect::<Vec<_>>(), [2, 3]);
    (20..40).for_each(|index| world.set_part(index, 0));
    world.run_for(Duration::from_secs(400));
    world.take_events();
    publish(&mut world, 1, b"together", None);
    world.run_for(Duration::from_secs(10));
    let told = Told::take(&mut world);
    assert_eq!(
        told.heard.keys().copied().collect::<Vec<_>>(),
        [2, 3, 21, 22, 23]
    );
}

#[test]
fn who_says_too_much_or_at_too_great_length_is_refused() {
    let mut world = group_of(4, 20, Tree::Biased, Model::default());
    publish(&mut world, 0, &vec![0; PAYLOAD_BYTES_MAX], Some(1));
    publish(&mut world, 0, &vec![0; PAYLOAD_BYTES_MAX + 1], Some(2));
    (0..1000).for_each(|token| publish(&mut world, 1, b"again", Some(100 + token)));
    world.run_for(Duration::from_secs(20));
    let told = Told::take(&mut world);
    let refused = |token| {
        told.receipts
            .iter()
            .any(|(t, r)| *t == token && r.is_none())
    };
    assert!(!refused(1) && refused(2));
    let heard = told.payloads(2).len();
    assert!((200..300).contains(&heard), "{heard}");
    assert!(refused(1099));
}

#[test]
fn a_member_that_comes_back_is_heard_in_its_new_life() {
    let mut world = group_of(4, 20, Tree::Biased, Model::default());
    for number in 0..5 {
        publish(&mut world, 2, &[number], None);
    }
    world.run_for(Duration::from_secs(5));
    world.kill(2);
    world.run_for(Duration::from_secs(20));
    world.restart(2, Some(0));
    world.run_for(Duration::from_secs(20));
    subscribe(&mut world, 2, Tree::Biased, Order::None, 1);
    world.run_for(Duration::from_secs(30));
    Told::take(&mut world);
    publish(&mut world, 2, b"back", None);
    world.run_for(Duration::from_secs(5));
    let told = Told::take(&mut world);
    assert_eq!(told.payloads(0), [b"back"]);
    assert_eq!(told.payloads(3), [b"back"]);
}
