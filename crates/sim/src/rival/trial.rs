//! Growing an overlay of Kademlia nodes, and judging its lookups.
//!
//! Figures are whole numbers, micros and thousandths, so that they replay anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::{NodeId, Position};

use super::kademlia::table::distance;
use super::kademlia::{Command, Config, Event, Kademlia, Outcome};
use crate::internet::{Internet, Model, Transport};
use crate::world::{Index, World};

/// Between two births.
const BIRTHS_APART: Duration = Duration::from_millis(50);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// One lookup is started after the other in this rhythm.
const LOOKUPS_APART: Duration = Duration::from_millis(5);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How every node is set up.
    pub config: Config,
    /// The network; [`Transport::Datagrams`] is Kademlia's own.
    pub model: Model,
    /// How many nodes, at least 1.
    pub nodes: usize,
    /// The source of everything random.
    pub seed: u64,
    /// How many lookups are judged.
    pub lookups: u64,
    /// How long the overlay is left alone after the last birth.
    pub settling: Duration,
    /// Over what time after that the upkeep is measured, at least a second.
    pub quiet: Duration,
    /// How many nodes of a hundred die at once before the lookups.
    pub dead_percent: u32,
    /// Mean length of a session; who dies is replaced by a newcomer at once. None for
    /// nodes that stay.
    pub session_mean: Option<Duration>,
}

/// What came of it. Means are in thousandths; of lookups that were answered correctly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lookups made by nodes that lived on.
    pub lookups: u64,
    /// Those whose closest node was the right one.
    pub correct: u64,
    /// Requests sent for one lookup, in thousandths.
    pub requests_mean_milli: u64,
    /// Octets of those requests and of their answers.
    pub lookup_bytes_mean: u64,
    /// Length of the chain to the node in charge, in thousandths.
    pub hops_mean_milli: u64,
    /// Until the node in charge first answered, microseconds.
    pub answer_mean_us: u64,
    /// Median of the same.
    pub answer_p50_us: u64,
    /// 99th percentile of the same.
    pub answer_p99_us: u64,
    /// Until it was certain that it is in charge, microseconds.
    pub certain_mean_us: u64,
    /// Median round trip between two nodes, microseconds, without loss and set-up.
    pub round_trip_median_us: u64,
    /// What a node sends without any lookups of the host, in thousandths of octets per
    /// second: upkeep, and joins if nodes come and go.
    pub upkeep_bytes_per_second_milli: u64,
    /// Entries in a table, in thousandths.
    pub entries_mean_milli: u64,
    /// Entries in tables of nodes that are gone, in thousandths of all entries.
    pub dead_entries_milli: u64,
    /// The trace of the world.
    pub trace: [u8; 32],
}

impl Trial {
    /// A quiet trial on datagrams.
    pub fn new(config: Config, nodes: usize, seed: u64) -> Self {
        let model = Model {
            transport: Transport::Datagrams,
            ..Model::default()
        };
        Self {
            config,
            model,
            nodes,
            seed,
            lookups: 1000,
            settling: Duration::from_secs(180),
            quiet: Duration::from_secs(600),
            dead_percent: 0,
            session_mean: None,
        }
    }

    /// Runs it.
    pub fn run(&self) -> Figures {
        let (config, model) = (self.config.clone(), self.model.clone());
        let mut world = World::inhabited(self.seed, model, config);
        for born in 0..self.nodes {
            let bootstrap = (born > 0).then(|| world.any());
            world.spawn(bootstrap);
            world.run_for(BIRTHS_APART);
        }
        self.pass(&mut world, self.settling);
        let before = world.counters().bytes;
        self.pass(&mut world, self.quiet);
        let octets = world.counters().bytes - before;
        world.take_events();
        let mut figures = Figures {
            upkeep_bytes_per_second_milli: octets * 1000
                / self.quiet.as_secs().max(1)
                / self.nodes as u64,
            round_trip_median_us: micros(Internet::new(self.model.clone(), 0).median_round_trip()),
            ..Figures::default()
        };
        self.kill_some(&mut world);
        judge_tables(&world, &mut figures);
        self.judge_lookups(&mut world, &mut figures);
        figures.trace = world.trace();
        figures
    }

    /// Lets time go by, and nodes come and go.
    fn pass(&self, world: &mut World<Kademlia>, time: Duration) {
        let Some(session) = self.session_mean else {
            return world.run_for(time);
        };
        for _ in 0..time.as_secs() {
            self.one_second(world, session.as_secs().max(1));
        }
    }

    fn one_second(&self, world: &mut World<Kademlia>, session_s: u64) {
        let living: Vec<Index> = world.living().map(|(index, _)| index).collect();
        let rng = world.rng();
        let leaving: Vec<Index> = living
            .into_iter()
            .filter(|_| rng.below(session_s) == 0)
            .collect();
        for index in leaving {
            let bootstrap = world.any();
            if bootstrap != index {
                world.kill(index);
                world.spawn(Some(bootstrap));
            }
        }
        world.run_for(Duration::from_secs(1));
    }

    fn kill_some(&self, world: &mut World<Kademlia>) {
        for _ in 0..self.nodes * self.dead_percent as usize / 100 {
            let victim = world.any();
            world.kill(victim);
        }
    }

    fn judge_lookups(&self, world: &mut World<Kademlia>, figures: &mut Figures) {
        let mut asked = BTreeMap::new();
        let mut outcomes = Vec::new();
        for id in 0..self.lookups {
            let target = Position::from_number(world.rng().number());
            let asker = world.any();
            asked.insert(id, asker);
            let (places, width) = (census(world), 1);
            let right = in_charge(&places, target);
            world.command(asker, Command::Lookup { id, target, width });
            self.pass_millis(world, id);
            outcomes.push((id, right));
        }
        self.pass(world, PATIENCE);
        let done: BTreeMap<u64, Outcome> = world
            .take_events()
            .into_iter()
            .filter_map(|(_, _, event)| match event {
                Event::Done(outcome) => Some((outcome.id, outcome)),
                Event::Joined => None,
            })
            .collect();
        let mut sums = Sums::default();
        for (id, right) in outcomes {
            let gone = |index: &Index| world.node(*index).is_none();
            // Nobody waits for the answer of an asker that died, and a lookup whose right
            // answer died meanwhile has none.
            let moot =
                asked.get(&id).is_none_or(gone) || right.is_none_or(|(_, index)| gone(&index));
            if !moot {
                let expected = right.map(|(id, _)| id);
                sums.add(expected, done.get(&id));
            }
        }
        sums.write(figures);
    }

    /// The rhythm of lookups; while nodes come and go, slow enough to see many come.
    fn pass_millis(&self, world: &mut World<Kademlia>, id: u64) {
        match self.session_mean {
            Some(session) if id.is_multiple_of(10) => {
                self.one_second(world, session.as_secs().max(1));
            }
            Some(_) => {}
            None => world.run_for(LOOKUPS_APART),
        }
    }
}

#[derive(Debug, Default)]
struct Sums {
    asked: u64,
    requests: u64,
    bytes: u64,
    hops: u64,
    certain_us: u64,
    answers_us: Vec<u64>,
}

impl Sums {
    fn add(&mut self, expected: Option<NodeId>, outcome: Option<&Outcome>) {
        self.asked += 1;
        let Some(outcome) = outcome else { return };
        let Some(found) = outcome.closest.first() else {
            return;
        };
        if Some(found.contact.id()) != expected {
            return;
        }
        self.requests += u64::from(outcome.requests);
        self.bytes += outcome.bytes;
        self.hops += u64::from(found.hops);
        self.certain_us += micros(outcome.ended_at.since(outcome.started_at));
        self.answers_us
            .push(micros(found.answered_at.since(outcome.started_at)));
    }

    fn write(mut self, figures: &mut Figures) {
        self.answers_us.sort_unstable();
        let correct = self.answers_us.len() as u64;
        let mean = |sum: u64| sum.checked_div(correct).unwrap_or(0);
        let rank = |percent: usize| {
            let rank = (self.answers_us.len() * percent).div_ceil(100).max(1) - 1;
            self.answers_us.get(rank).copied().unwrap_or(0)
        };
        figures.lookups = self.asked;
        figures.correct = correct;
        figures.requests_mean_milli = mean(self.requests * 1000);
        figures.lookup_bytes_mean = mean(self.bytes);
        figures.hops_mean_milli = mean(self.hops * 1000);
        figures.answer_mean_us = mean(self.answers_us.iter().sum());
        figures.answer_p50_us = rank(50);
        figures.answer_p99_us = rank(99);
        figures.certain_mean_us = mean(self.certain_us);
    }
}

type Places = Vec<(Position, NodeId, Index)>;

fn census(world: &World<Kademlia>) -> Places {
    world
        .living()
        .filter(|(_, node)| node.is_joined())
        .map(|(index, node)| (node.position(), node.me().id(), index))
        .collect()
}

/// Returns the closest by XOR.
fn in_charge(places: &Places, target: Position) -> Option<(NodeId, Index)> {
    places
        .iter()
        .min_by_key(|(position, _, _)| distance(*position, target))
        .map(|(_, id, index)| (*id, *index))
}

fn judge_tables(world: &World<Kademlia>, figures: &mut Figures) {
    let (mut nodes, mut entries, mut dead) = (0_u64, 0_u64, 0_u64);
    for (_, node) in world.living() {
        nodes += 1;
        for entry in node.table().entries() {
            let index = world.index_of(entry.contact.id());
            entries += 1;
            dead += u64::from(index.is_none_or(|index| world.node(index).is_none()));
        }
    }
    figures.entries_mean_milli = (entries * 1000).checked_div(nodes).unwrap_or(0);
    figures.dead_entries_milli = (dead * 1000).checked_div(entries).unwrap_or(0);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
