//! Classes of nodes: how many become supernodes, and how clients fare.
//!
//! The nodes measure what their places in the synthetic Internet give them, and remember how
//! long they usually stay; some are clients. After the overlay has grown it is watched: who
//! is what, who changes, what each class sends and receives. Then nodes of each class look
//! positions up; clients store and read values, and are pinged by others. At last hosts of
//! clients die at once, and the clients go on asking.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::class::Class;
use enishi_overlay::{NodeId, Position, Time};
use enishi_services::{Command, Event, diag};

use super::{Options, Outcome, grow, values};
use crate::oracle::Census;
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::statistics::{Figures, Results, mean, millis, percentile, rate};
use crate::world::{Index, Load, People, World};

/// How long the overlay is watched if nothing else is asked for.
const WATCHED: Duration = Duration::from_secs(1200);
/// Between two looks at who is what.
const LOOK: Duration = Duration::from_secs(15);
/// Between two lookups.
const APART: Duration = Duration::from_millis(20);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(8);
/// One of how many hosts of clients dies, and for how long the clients then ask.
const DYING: usize = 3;
const ASKING: Duration = Duration::from_secs(60);
/// Between two lookups while they do.
const ASKED_APART: Duration = Duration::from_millis(200);
/// How many clients are pinged, and how many values are stored, at most.
const TRIALS_MAX: usize = 200;

const CLASSES: [Class; 3] = [Class::Client, Class::Peer, Class::Super];

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world_with(|config| config.reports_hops = false);
    world.set_people(People {
        clients_per_million: options.clients_per_million,
        histories: true,
    });
    grow::grow(world, options.nodes, &mut |done| progress(done * 4 / 10));
    if let Some(count) = options.values {
        values::store(world, count as usize);
    }
    let watched = watch(world, options.duration.unwrap_or(WATCHED), progress);
    let mut figures = Figures::default();
    watched.tell(&mut figures);
    tell_load(world, &watched, &mut figures);
    tell_records(world, &mut figures);
    tell_lookups(world, options.routes, &mut figures);
    progress(850);
    if !of_class(world, Class::Client).is_empty() {
        tell_clients(world, &mut figures);
        progress(920);
        tell_deaths(world, &mut figures);
    }
    let results = Results {
        figures,
        ..Results::default()
    };
    Outcome::new(world, results).showing(watched.picture(options))
}

fn of_class(world: &World, class: Class) -> Vec<Index> {
    let living = world.living();
    let such = living.filter(|(_, node)| node.overlay().class() == class);
    such.map(|(index, _)| index).collect()
}

/// What was seen of the classes.
#[derive(Debug, Default)]
struct Watched {
    /// Microseconds, and how many supernodes of a million nodes on the ring.
    shares: Vec<(u64, u64)>,
    /// Changes of class in the second half, for a million nodes in an hour.
    changes: u64,
    nodes_on_ring: usize,
    /// What each node had sent and received, and passed on, at the beginning of the second half.
    before: BTreeMap<Index, (Load, u64)>,
    half: Duration,
}

fn watch(world: &mut World, duration: Duration, progress: &mut impl FnMut(u32)) -> Watched {
    let looks = (duration.as_micros() / LOOK.as_micros()).max(2) as u32;
    let mut watched = Watched {
        half: LOOK * (looks - looks / 2),
        ..Watched::default()
    };
    let started = world.now();
    let mut classes: BTreeMap<Index, Class> = BTreeMap::new();
    for look in 0..=looks {
        let mut now = BTreeMap::new();
        for (index, node) in world.living() {
            now.insert(index, node.overlay().class());
        }
        let supers = now.values().filter(|class| **class == Class::Super).count() as u64;
        let clients = now.values().filter(|class| **class == Class::Client);
        watched.nodes_on_ring = now.len() - clients.count();
        let micros = world.now().since(started).as_micros() as u64;
        let ring = watched.nodes_on_ring.max(1) as u64;
        watched.shares.push((micros, supers * 1_000_000 / ring));
        if look == looks / 2 {
            let so_far = now
                .keys()
                .map(|i| (*i, (world.load(*i), passed_on(world, *i))));
            watched.before = so_far.collect();
        } else if look > looks / 2 {
            let changed = |(index, class): &(&Index, &Class)| now.get(index) != Some(class);
            watched.changes += classes.iter().filter(changed).count() as u64;
        }
        classes = now;
        if look < looks {
            world.run_for(LOOK);
        }
        progress(400 + look * 300 / looks);
    }
    watched
}

impl Watched {
    fn tell(&self, figures: &mut Figures) {
        let second_half = &self.shares[self.shares.len() / 2..];
        let shares: Vec<u64> = second_half.iter().map(|(_, share)| *share).collect();
        let of_one = |share: f64| share / 1e6;
        figures.count("nodes_on_ring", self.nodes_on_ring as u64);
        figures.amount("supers", mean(&shares).map(of_one));
        let least = shares.iter().min().map(|share| of_one(*share as f64));
        let most = shares.iter().max().map(|share| of_one(*share as f64));
        figures.amount("supers_least", least);
        figures.amount("supers_most", most);
        let changes = rate(self.changes * 3600, self.half.as_secs(), self.nodes_on_ring);
        figures.amount("changes_per_node_hour", changes);
    }

    fn picture(self, options: &Options) -> Picture {
        Picture {
            title: options.title("classes"),
            panels: vec![Panel {
                title: "Supernodes among the nodes on the ring".into(),
                x: Axis::new("time after the overlay has grown, s", 1_000_000).from(0),
                y: Axis::new("share, %", 10_000).from(0),
                series: vec![Series::new("supernodes", Style::Steps, self.shares)],
            }],
        }
    }
}

/// Returns how many messages a node has passed on for others.
fn passed_on(world: &World, index: Index) -> u64 {
    let node = world.node(index);
    node.map_or(0, |node| node.overlay().accounts().carried_messages())
}

/// Tells what nodes of each class sent and received in the second half, per second, and how
/// many messages they passed on for others.
fn tell_load(world: &World, watched: &Watched, figures: &mut Figures) {
    let mut told = [(); 3].map(|()| BTreeMap::new());
    for class in CLASSES {
        let nodes = of_class(world, class);
        let loads = nodes.iter().filter_map(|index| {
            let (load, (before, passed_before)) = (world.load(*index), watched.before.get(index)?);
            let messages = |load: &Load| load.messages_sent + load.messages_received;
            let bytes = |load: &Load| load.bytes_sent + load.bytes_received;
            Some([
                messages(&load) - messages(before),
                bytes(&load) - bytes(before),
                passed_on(world, *index) - passed_before,
            ])
        });
        let zero = [0; 3];
        let sums = loads.fold(zero, |sums, load| {
            std::array::from_fn(|i| sums[i] + load[i])
        });
        for (told, sum) in told.iter_mut().zip(sums) {
            let rate = rate(sum, watched.half.as_secs(), nodes.len());
            told.extend(rate.map(|rate| (class.name(), rate)));
        }
    }
    let [messages, bytes, passed_on] = told;
    figures.each("messages_per_second", messages);
    figures.each("bytes_per_second", bytes);
    figures.each("passed_on_per_second", passed_on);
}

/// Tells how many records a node of each class holds.
fn tell_records(world: &World, figures: &mut Figures) {
    let held = CLASSES.into_iter().filter_map(|class| {
        let nodes = of_class(world, class).into_iter();
        let nodes = nodes.filter_map(|index| world.node(index));
        let held: Vec<u64> = nodes.map(|node| node.dht().store().len() as u64).collect();
        Some((class.name(), mean(&held)?))
    });
    figures.each("records", held.collect());
}

/// A lookup: the position, and when it was asked for.
type Asked = BTreeMap<u64, (Class, Position, Time)>;

/// What came of the lookups of one class.
#[derive(Debug, Default)]
struct Lookups {
    asked: u64,
    hops: Vec<u64>,
    micros: Vec<u64>,
}

/// Looks drawn positions up from drawn nodes of each class.
fn tell_lookups(world: &mut World, count: u64, figures: &mut Figures) {
    let census = Census::take(world);
    let askers: Vec<Vec<Index>> = CLASSES.map(|class| of_class(world, class)).into();
    let mut asked = Asked::new();
    for id in 0..count {
        let turn = (id % 3) as usize;
        ask(world, &mut asked, id, CLASSES[turn], &askers[turn]);
        world.run_for(APART);
    }
    world.run_for(PATIENCE);
    let (lookups, _) = judge(world, &asked, &census);
    let p = |l: &Lookups, percent| percentile(&l.micros, percent).map(millis);
    figures.each("hops", of_each(&lookups, |l| mean(&l.hops)));
    figures.each("p50_ms", of_each(&lookups, |l| p(l, 50)));
    figures.each("p99_ms", of_each(&lookups, |l| p(l, 99)));
    let correct = |l: &Lookups| Some(l.hops.len() as f64 / l.asked as f64);
    figures.each("correct", of_each(&lookups, correct));
}

fn of_each(
    lookups: &BTreeMap<&'static str, Lookups>,
    figure: impl Fn(&Lookups) -> Option<f64>,
) -> BTreeMap<&'static str, f64> {
    let told = lookups
        .iter()
        .filter_map(|(class, lookups)| Some((*class, figure(lookups)?)));
    told.collect()
}

fn ask(world: &mut World, asked: &mut Asked, id: u64, class: Class, askers: &[Index]) {
    if askers.is_empty() {
        return;
    }
    let asker = askers[world.rng().below(askers.len() as u64) as usize];
    let target = Position::from_number(world.rng().number());
    asked.insert(id, (class, target, world.now()));
    let command = diag::Command::Trace { id, target };
    world.command(asker, Command::Diag(command));
}

/// Judges the answers, also by the time of the question: of each lookup when it was asked and
/// whether it ended at the node in charge.
fn judge(
    world: &mut World,
    asked: &Asked,
    census: &Census,
) -> (BTreeMap<&'static str, Lookups>, Vec<(Time, bool)>) {
    let mut lookups: BTreeMap<&'static str, Lookups> = BTreeMap::new();
    let mut open: BTreeMap<u64, (Time, bool)> = BTreeMap::new();
    for (id, (class, _, at)) in asked {
        lookups.entry(class.name()).or_default().asked += 1;
        open.insert(*id, (*at, false));
    }
    for (_, _, event) in world.take_events() {
        let Event::Diag(diag::Event::Traced {
            id,
            end: Some((node, hops, time)),
        }) = event
        else {
            continue;
        };
        let Some((class, target, at)) = asked.get(&id) else {
            continue;
        };
        if census.nearest(*target, 1).first().copied() == world.index_of(node) {
            let lookups = lookups.entry(class.name()).or_default();
            lookups.hops.push(u64::from(hops));
            lookups.micros.push(time.as_micros() as u64);
            open.insert(id, (*at, true));
        }
    }
    (lookups, open.into_values().collect())
}

/// Tells how clients are attached, and whether they can use services and be found.
fn tell_clients(world: &mut World, figures: &mut Figures) {
    let clients = of_class(world, Class::Client);
    let hosts = |index: &Index| -> Vec<Class> {
        let node = world.node(*index);
        let peers = node.map(|node| node.overlay().peers());
        let grades = peers.into_iter().flatten().map(|peer| peer.grade().class());
        grades.collect()
    };
    let attached: Vec<Vec<Class>> = clients.iter().map(hosts).collect();
    let count = clients.len() as u64;
    let with_one = attached.iter().filter(|hosts| !hosts.is_empty()).count() as u64;
    let all: Vec<&Class> = attached.iter().flatten().collect();
    let supers = all.iter().filter(|class| ***class == Class::Super).count() as u64;
    figures.share("clients_attached", with_one, count);
    figures.share("hosts_that_are_supers", supers, all.len() as u64);

    let trials = clients.len().min(TRIALS_MAX);
    let mut turn = 0;
    let mut any_client = |_: &mut World| {
        turn += 1;
        clients[turn % clients.len()]
    };
    let stored = values::store_by(world, trials, &mut any_client);
    figures.share("clients_put", stored.len() as u64, trials as u64);
    let readings: Vec<&values::Stored> = stored.iter().collect();
    let unread = values::unread(world, &readings, &mut any_client);
    let read = stored.len() - unread;
    figures.share("clients_got", read as u64, stored.len() as u64);

    let on_ring = of_class(world, Class::Peer);
    let pinged = &clients[..trials];
    let answered = ping(world, &on_ring, pinged);
    figures.share("clients_pinged", answered, trials as u64);
}

/// Pings each target from a node drawn from `from`; returns how many answered.
fn ping(world: &mut World, from: &[Index], targets: &[Index]) -> u64 {
    for (id, target) in (0..).zip(targets) {
        let target: NodeId = world.id(*target);
        let asker = from[world.rng().below(from.len() as u64) as usize];
        let timeout = ECHO;
        let command = diag::Command::Ping {
            id,
            target,
            timeout,
        };
        world.command(asker, Command::Diag(command));
        world.run_for(APART);
    }
    world.run_for(PATIENCE);
    let pong = |event: &Event| matches!(event, Event::Diag(diag::Event::Pong { .. }));
    let events = world.take_events();
    events.iter().filter(|(_, _, event)| pong(event)).count() as u64
}

/// Has some hosts die at once, and clients look positions up from that moment on.
fn tell_deaths(world: &mut World, figures: &mut Figures) {
    let clients = of_class(world, Class::Client);
    let is_host = |(index, node): (Index, &enishi_services::Node)| {
        (node.overlay().clients() > 0).then_some(index)
    };
    let hosts: Vec<Index> = world.living().filter_map(is_host).collect();
    let dead: Vec<Index> = hosts.iter().copied().step_by(DYING).collect();
    for index in &dead {
        world.kill(*index);
    }
    let census = Census::take(world);
    let (mut asked, died_at) = (Asked::new(), world.now());
    let mut attached_after = None;
    for id in 0..(ASKING.as_micros() / ASKED_APART.as_micros()) as u64 {
        ask(world, &mut asked, id, Class::Client, &clients);
        world.run_for(ASKED_APART);
        if attached_after.is_none() && clients.iter().all(|index| has_hosts(world, *index)) {
            attached_after = Some(world.now().since(died_at).as_secs_f64());
        }
    }
    world.run_for(PATIENCE);
    let (_, judged) = judge(world, &asked, &census);
    let right = judged.iter().filter(|(_, right)| *right).count() as u64;
    figures.count("hosts_killed", dead.len() as u64);
    figures.share("correct_after_deaths", right, judged.len() as u64);
    let wrong = judged.iter().filter(|(_, right)| !right);
    let last = wrong.map(|(at, _)| at.since(died_at).as_secs_f64());
    figures.amount("last_wrong_after_s", last.reduce(f64::max));
    figures.amount("hosts_replaced_after_s", attached_after);
}

/// Tells whether a client has hosts, and all of them live.
fn has_hosts(world: &World, client: Index) -> bool {
    let Some(node) = world.node(client) else {
        return false;
    };
    let mut hosts = node.overlay().peers().peekable();
    let lives = |id: NodeId| {
        let index = world.index_of(id);
        index.is_some_and(|index| world.node(index).is_some())
    };
    hosts.peek().is_some() && hosts.all(|peer| lives(peer.contact().id()))
}
