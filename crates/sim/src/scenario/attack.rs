//! Some nodes turn hostile, and lookups and values have to survive.
//!
//! An overlay of honest nodes grows and stores values. Then a share of the nodes turns
//! hostile at once, as if sleepers had waited for it, and after a while in which their lies
//! can spread, honest nodes look up, read, write, confirm strangers and join. The shares
//! rise one after the other in the same world. At last keys are surrounded: accomplices join
//! whose keys were chosen, among [`CANDIDATES_PER_NODE`] times as many as there are nodes, to
//! sit at a target.
//!
//! A lookup is right when it names a living node to which no honest one is nearer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::overlay::Manner;
use enishi_overlay::{Config, Contact, Keypair, NodeId, OverlayId, Position};
use enishi_services::dht::{
    self, Caller, Confirmation, Consistency, GetAnswer, PutAnswer, PutRequest, Subject, Verdict,
};
use enishi_services::record::{Key, Kind};
use enishi_services::{Command, Event, diag};

use super::{Options, Outcome, grow};
use crate::hostile::{Ask, Behaviour, Gang, Subverted, grind};
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::statistics::{Figures, Results, mean_of, per_second, ratio};
use crate::world::{Index, World};

/// The shares of hostile nodes, per million, one after the other, with their names.
const SHARES: [(u32, &str); 4] = [
    (0, "at 00 %"),
    (50_000, "at 05 %"),
    (100_000, "at 10 %"),
    (200_000, "at 20 %"),
];
/// The name of a share that was asked for.
const GIVEN: &str = "at the given share";
/// The names of what is found about surrounded keys: of values put in the sure way, and of
/// leases, which only those in charge can give.
const SURROUNDED: [(Kind, &str); 2] = [
    (Kind::Set, "surrounded"),
    (Kind::Lease, "surrounded leases"),
];
/// How long lies spread before anything is measured: several rounds of all upkeep.
const SPREADING: Duration = Duration::from_secs(180);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a put may take with all its tries.
const PUT_PATIENCE: Duration = Duration::from_secs(100);
/// How long newcomers have to join.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const APART: Duration = Duration::from_millis(20);
const LEASE_S: u32 = 86_400;
/// One newcomer for so many nodes.
const NODES_PER_NEWCOMER: usize = 20;
/// One key in so many nodes is surrounded at a time, half of them with a value already; how
/// many at least and at most, and how often others are.
const NODES_PER_TARGET: usize = 50;
const TARGETS: (usize, usize) = (4, 10);
const ROUNDS: usize = 2;
/// How long the overlay has to get over each round.
const HEALING: Duration = Duration::from_secs(60);
/// How many new values are put at least.
const PUTS_MIN: usize = 20;
/// By how many chosen keys each.
const SURROUNDING: usize = 16;
/// How many keys are tried for each target, times the number of nodes.
const CANDIDATES_PER_NODE: usize = 16;
/// How many read each surrounded value.
const READERS: usize = 10;

type Hostile = World<Subverted>;

/// A value that was acknowledged.
#[derive(Clone, Debug)]
struct Value {
    key: Key,
    value: Bytes,
}

/// How a value is put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a lease, by the node in charge.
    Plain,
    /// As a lease, over disjoint paths.
    Sure,
    /// As an entry of a set, over disjoint paths.
    SureSet,
}

impl Way {
    const fn kind(self) -> Kind {
        match self {
            Self::Plain | Self::Sure => Kind::Lease,
            Self::SureSet => Kind::Set,
        }
    }
}

/// What was found at one share of hostile nodes: shares in the whole, by their names.
type Stage = Vec<(&'static str, Option<f64>)>;

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let mut config = Config::new(OverlayId::from_name("simulated"));
    config.long_links = options.long_links;
    let overlay = config.overlay;
    let mut world: Hostile = World::inhabited(options.seed, options.model.clone(), config);
    grow::grow(&mut world, options.nodes, &mut |done| {
        progress(done * 3 / 10);
    });
    let shares: Vec<(u32, &'static str)> = match options.hostile_per_million {
        None => SHARES.to_vec(),
        Some(given) => vec![SHARES[0], (given, GIVEN)],
    };
    let mut attack = Attack {
        world: &mut world,
        overlay,
        nodes: options.nodes,
        lookups: (options.routes / 4).max(1) as usize,
        behaviour: options.behaviour,
        hostile: Vec::new(),
    };
    let count = options.values.map_or(options.nodes / 5, |n| n as usize);
    let values = attack.put(count.max(4), None, Way::Plain);
    let mut stages: Vec<(&'static str, Stage)> = Vec::new();
    for (number, (per_million, name)) in shares.iter().enumerate() {
        attack.turn(*per_million);
        stages.push((name, attack.measure(&values)));
        let done = (number as u32 + 1) * 600 / shares.len() as u32;
        progress(300 + done);
    }
    let lost = attack.unreadable(&values);
    for (kind, name) in SURROUNDED {
        let rounds: Vec<Stage> = (0..ROUNDS).map(|_| attack.surround(kind)).collect();
        stages.push((name, means(&rounds)));
    }
    let picture = picture(options, &shares, &stages);
    let results = Results {
        acknowledged: Some(values.len() as u64),
        lost: Some(lost),
        figures: figures(&stages),
        ..Results::default()
    };
    Outcome::new(&world, results).showing(picture)
}

/// The story's present.
struct Attack<'a> {
    world: &'a mut Hostile,
    overlay: OverlayId,
    nodes: usize,
    lookups: usize,
    behaviour: Option<Behaviour>,
    hostile: Vec<Index>,
}

impl Attack<'_> {
    /// Has nodes turn hostile until a share of those that the world began with is.
    fn turn(&mut self, per_million: u32) {
        let wanted = self.nodes as u64 * u64::from(per_million) / 1_000_000;
        while (self.hostile.len() as u64) < wanted {
            let next = self.honest();
            self.hostile.push(next);
            self.convert(&[next], &[next]);
        }
        let all = self.hostile.clone();
        self.convert(&all, &all);
        self.world.run_for(SPREADING);
        self.world.take_events();
    }

    /// Has some nodes behave, as a gang of all given.
    fn convert(&mut self, whom: &[Index], gang: &[Index]) {
        let contact = |index: &Index| {
            let node = self.world.node(*index)?.node();
            Some(node.overlay().me().clone())
        };
        let members: Vec<Contact> = gang.iter().filter_map(contact).collect();
        let honest = self.world.living();
        let honest = honest.filter(|(_, life)| life.behaviour().is_none());
        let victims = honest.map(|(_, life)| life.node().overlay().me().clone());
        let gang = Arc::new(Gang::new(&self.overlay, &members, victims.collect()));
        for index in whom {
            let old = self.world.node(*index).and_then(Subverted::behaviour);
            let drawn =
                Behaviour::ALL[self.world.rng().below(Behaviour::ALL.len() as u64) as usize];
            let behaviour = old.or(self.behaviour).unwrap_or(drawn);
            let turn = Ask::Turn(behaviour, Arc::clone(&gang));
            self.world.command(*index, turn);
        }
    }

    /// Draws an honest node.
    fn honest(&mut self) -> Index {
        loop {
            let drawn = self.world.any();
            let life = self.world.node(drawn);
            if life.is_some_and(|life| life.behaviour().is_none()) {
                return drawn;
            }
        }
    }

    /// Has honest nodes ask one after the other; returns what they were told until some
    /// time after the last question.
    fn ask(&mut self, commands: Vec<Command>, patience: Duration) -> Vec<Event> {
        self.world.take_events();
        for command in commands {
            let asker = self.honest();
            self.world.command(asker, Ask::Host(command));
            self.world.run_for(APART);
        }
        self.world.run_for(patience);
        let events = self.world.take_events().into_iter();
        events.map(|(_, _, event)| event).collect()
    }

    /// Measures everything at the present share of hostile nodes.
    fn measure(&mut self, values: &[Value]) -> Stage {
        let mut stage = Stage::new();
        let before = self.world.counters().messages;
        self.world.run_for(PATIENCE);
        let quiet = self.world.counters().messages - before;
        let living = self.world.living().count() as u64;
        stage.push((
            "messages_per_second_per_node",
            per_second(quiet, PATIENCE, living),
        ));
        stage.push(("joined", self.join()));
        stage.push(("lookups_plain", self.plain_lookups()));
        for (paths, name, cost) in [
            (1, "lookups_1_path", "asked_by_1_path"),
            (4, "lookups_4_paths", "asked_by_4_paths"),
            (8, "lookups_8_paths", "asked_by_8_paths"),
        ] {
            let (right, asked, unusual) = self.searches(paths);
            stage.push((name, right));
            stage.push((cost, asked));
            if paths == 8 {
                stage.push(("density_alarms", unusual));
            }
        }
        self.measure_values(values, &mut stage);
        self.confirm(values, &mut stage);
        stage
    }

    fn measure_values(&mut self, values: &[Value], stage: &mut Stage) {
        for (name, cost, consistency) in GETS {
            let usual = self.usual_messages(values.len(), PATIENCE);
            let before = self.messages_of_values();
            stage.push((name, self.read(values, consistency, 1)));
            let spent = self.messages_of_values() - before;
            stage.push((cost, above(spent, usual, values.len())));
        }
        let count = (values.len() / 2).max(PUTS_MIN);
        for (name, cost, way) in [
            ("puts_plain", "messages_per_plain_put", Way::Plain),
            ("puts_sure", "messages_per_sure_put", Way::Sure),
        ] {
            let usual = self.usual_messages(count, PUT_PATIENCE);
            let before = self.messages_of_values();
            let stored = self.put(count, None, way);
            let spent = self.messages_of_values() - before;
            stage.push((cost, above(spent, usual, count)));
            let read = self.read(&stored, Consistency::Sure, 1);
            let share = ratio(stored.len() as u64, count as u64);
            stage.push((name, share.zip(read).map(|(stored, read)| stored * read)));
            let name = if way == Way::Sure {
                "puts_sure_belied"
            } else {
                "puts_plain_belied"
            };
            stage.push((name, read.map(|read| 1.0 - read)));
        }
    }

    /// Returns how many messages of these sorts are sent anyway, for owners put again what
    /// they have put, in the time that so many questions take; none once nodes are hostile,
    /// for a flood may be among them.
    fn usual_messages(&mut self, questions: usize, patience: Duration) -> Option<u64> {
        if !self.hostile.is_empty() {
            return None;
        }
        let before = self.messages_of_values();
        self.world.run_for(APART * questions as u32 + patience);
        Some(self.messages_of_values() - before)
    }

    /// Returns how many messages were sent of the sorts that gets and puts are made of.
    fn messages_of_values(&self) -> u64 {
        let sorts = ["find", "found", "routed, service", "answer, service"];
        let own = |sort: &str| {
            let values = ["dht put", "dht store", "dht fetch", "dht keep"];
            sorts.contains(&sort) || values.iter().any(|value| sort.starts_with(value))
        };
        let traffic = self.world.traffic();
        let sent = traffic.iter().filter(|(sort, _)| own(sort));
        sent.map(|(_, tally)| tally.messages).sum()
    }

    /// Has newcomers join through honest nodes; returns the share that did.
    fn join(&mut self) -> Option<f64> {
        let count = (self.nodes / NODES_PER_NEWCOMER).max(4);
        for _ in 0..count {
            let via = self.honest();
            self.world.spawn(Some(via));
        }
        self.world.take_events();
        self.world.run_for(JOIN_PATIENCE);
        let events = self.world.take_events().into_iter();
        let joined = events.filter(|(_, _, event)| matches!(event, Event::Joined));
        ratio(joined.count() as u64, count as u64)
    }

    /// Tells whether the node lives and no honest one is nearer to the target.
    fn is_right(&self, target: Position, named: NodeId) -> bool {
        let rank = |id: &NodeId| target.rank(Position::of_node(&self.overlay, id));
        let honest = self.world.living();
        let honest = honest.filter(|(_, life)| life.behaviour().is_none());
        let nearest = honest.map(|(_, life)| rank(&life.node().id())).min();
        let lives = self.world.index_of(named);
        let lives = lives.is_some_and(|index| self.world.node(index).is_some());
        lives && nearest.is_none_or(|nearest| rank(&named) <= nearest)
    }

    fn draw_targets(&mut self, count: usize) -> Vec<Position> {
        let draw = |_| Position::from_number(self.world.rng().number());
        (0..count).map(draw).collect()
    }

    /// Looks up as services do; returns the share that was right.
    fn plain_lookups(&mut self) -> Option<f64> {
        let targets = self.draw_targets(self.lookups);
        let locate = |(id, target): (u64, &Position)| {
            let (target, manner) = (*target, Manner::EXACT);
            Command::Diag(diag::Command::Locate { id, target, manner })
        };
        let events = self.ask((0..).zip(&targets).map(locate).collect(), PATIENCE);
        let right = events.iter().filter(|event| match event {
            Event::Diag(diag::Event::Located {
                id,
                end: Some((node, ..)),
                ..
            }) => self.is_right(targets[*id as usize], *node),
            _ => false,
        });
        ratio(right.count() as u64, targets.len() as u64)
    }

    fn confirmations(&mut self, subjects: &[Subject], paths: u8) -> Vec<(usize, Confirmation)> {
        let confirm = |(id, subject): (u64, &Subject)| {
            let (caller, subject) = (Caller::Host(id), *subject);
            Command::Dht(dht::Command::Confirm {
                caller,
                subject,
                paths,
            })
        };
        let events = self.ask((0..).zip(subjects).map(confirm).collect(), PATIENCE);
        let confirmed = events.into_iter().filter_map(|event| match event {
            Event::Dht(dht::Event::Confirmed {
                caller: Caller::Host(id),
                confirmation,
            }) => Some((id as usize, confirmation)),
            _ => None,
        });
        confirmed.collect()
    }

    /// Looks up over disjoint paths; returns the share that was right, how many nodes were
    /// asked on average, and how often the nodes found sat too close or too far.
    fn searches(&mut self, paths: u8) -> (Option<f64>, Option<f64>, Option<f64>) {
        let targets = self.draw_targets(self.lookups);
        let subjects: Vec<Subject> = targets.iter().copied().map(Subject::Place).collect();
        let found = self.confirmations(&subjects, paths);
        let right = found.iter().filter(|(id, confirmation)| {
            let named = confirmation.nearest.first();
            named.is_some_and(|named| self.is_right(targets[*id], *named))
        });
        let asked: u64 = found.iter().map(|(_, found)| u64::from(found.asked)).sum();
        let unusual = found.iter().filter(|(_, found)| found.unusual).count() as u64;
        let count = targets.len() as u64;
        (
            ratio(right.count() as u64, count),
            ratio(asked, count),
            ratio(unusual, count),
        )
    }

    /// Has values stored, under random keys unless given; returns those acknowledged.
    fn put(&mut self, count: usize, writers: Option<&[Keypair]>, way: Way) -> Vec<Value> {
        let mut values = BTreeMap::new();
        let mut commands = Vec::new();
        for number in 0..count {
            let writer = match writers.and_then(|writers| writers.get(number)) {
                Some(writer) => Keypair::from_seed(&writer.seed()),
                None => Keypair::from_seed(&self.world.rng().octets()),
            };
            let owner = Keypair::from_seed(&self.world.rng().octets());
            let (id, value) = (number as u64, Bytes::from(format!("value {number}")));
            let key = Key::new(way.kind(), &writer.id());
            values.insert(
                id,
                Value {
                    key,
                    value: value.clone(),
                },
            );
            let request = Box::new(PutRequest {
                kind: way.kind(),
                writer,
                owner,
                lease_s: LEASE_S,
                value: Some(value),
            });
            let caller = Caller::Host(id);
            commands.push(Command::Dht(match way {
                Way::Plain => dht::Command::Put { caller, request },
                Way::Sure | Way::SureSet => dht::Command::PutSure { caller, request },
            }));
        }
        let events = self.ask(commands, PUT_PATIENCE).into_iter();
        let stored = events.filter_map(|event| match event {
            Event::Dht(dht::Event::PutDone {
                caller: Caller::Host(id),
                answer: PutAnswer::Stored { .. },
            }) => values.remove(&id),
            _ => None,
        });
        stored.collect()
    }

    /// Has values read, each by so many; returns the share of readings that gave what was
    /// stored.
    fn read(&mut self, values: &[Value], consistency: Consistency, readers: usize) -> Option<f64> {
        let readings = values
            .iter()
            .flat_map(|value| std::iter::repeat_n(value, readers));
        let readings: Vec<&Value> = readings.collect();
        let right = self.read_each(&readings, consistency);
        ratio(right.len() as u64, readings.len() as u64)
    }

    /// Returns how many values nobody can read any more who goes about it surely.
    fn unreadable(&mut self, values: &[Value]) -> u64 {
        let mut left: Vec<&Value> = values.iter().collect();
        for _ in 0..READERS {
            if left.is_empty() {
                break;
            }
            let right = self.read_each(&left, Consistency::Sure);
            let mut number = 0..;
            left.retain(|_| number.next().is_some_and(|number| !right.contains(&number)));
        }
        left.len() as u64
    }

    /// Has values read, each by a drawn node; returns the numbers of those readings that gave
    /// what was stored.
    fn read_each(&mut self, readings: &[&Value], consistency: Consistency) -> BTreeSet<usize> {
        let get = |(id, value): (u64, &&Value)| {
            let (caller, key) = (Caller::Host(id), value.key);
            Command::Dht(dht::Command::Get {
                caller,
                key,
                consistency,
            })
        };
        let events = self.ask((0..).zip(readings).map(get).collect(), PATIENCE);
        let right = events.iter().filter_map(|event| match event {
            Event::Dht(dht::Event::Got {
                caller: Caller::Host(id),
                answer: GetAnswer::Records(records),
            }) => {
                let value = records.first().map(|record| &record.content().value);
                let reading = readings.get(*id as usize).map(|reading| &reading.value);
                (value == reading).then_some(*id as usize)
            }
            _ => None,
        });
        right.collect()
    }

    /// Confirms strangers and what is stored, and tries to have confirmed what is not there.
    fn confirm(&mut self, values: &[Value], stage: &mut Stage) {
        let count = (self.lookups / 2).max(4);
        let strangers = (0..count).map(|_| {
            let index = self.honest();
            Subject::Node(self.world.id(index))
        });
        let strangers: Vec<Subject> = strangers.collect();
        let made_up = |_| Subject::Node(NodeId::from_bytes(self.world.rng().octets()));
        let made_up: Vec<Subject> = (0..count).map(made_up).collect();
        let keys = values
            .iter()
            .take(count)
            .map(|value| Subject::Key(value.key));
        let keys: Vec<Subject> = keys.collect();
        for (name, subjects) in [
            ("strangers_confirmed", strangers),
            ("made_up_confirmed", made_up),
            ("values_confirmed", keys),
        ] {
            let found = self.confirmations(&subjects, 8);
            let confirmed = found
                .iter()
                .filter(|(_, c)| c.verdict == Verdict::Confirmed);
            stage.push((name, ratio(confirmed.count() as u64, subjects.len() as u64)));
        }
    }

    /// Surrounds some keys for a while; returns what can be read and written there meanwhile.
    fn surround(&mut self, kind: Kind) -> Stage {
        let (way, puts) = match kind {
            Kind::Lease => (Way::Plain, "puts_plain"),
            Kind::Set => (Way::SureSet, "puts_sure"),
        };
        let targets = (self.nodes / NODES_PER_TARGET).clamp(TARGETS.0, TARGETS.1);
        let writers: Vec<Keypair> = (0..targets)
            .map(|_| Keypair::from_seed(&self.world.rng().octets()))
            .collect();
        let (with, without) = writers.split_at(targets / 2);
        let mut values = self.put(with.len(), Some(with), way);
        let mut gangs = Vec::new();
        for writer in &writers {
            gangs.extend(self.gather(Key::new(kind, &writer.id()).position()));
        }
        self.world.run_for(SPREADING);
        let keys = values.iter().map(|value| Subject::Key(value.key));
        let keys: Vec<Subject> = keys.collect();
        let found = self.confirmations(&keys, 8);
        let alarms = found.iter().filter(|(_, found)| found.unusual).count() as u64;
        let mut stage = Stage::new();
        stage.push(("density_alarms", ratio(alarms, keys.len() as u64)));
        let after = self.put(without.len(), Some(without), way);
        stage.push((puts, ratio(after.len() as u64, without.len() as u64)));
        values.extend(after);
        for (name, _, consistency) in GETS {
            stage.push((name, self.read(&values, consistency, READERS)));
        }
        for accomplice in gangs {
            self.world.kill(accomplice);
        }
        self.world.run_for(HEALING);
        stage
    }

    /// Has accomplices with chosen keys join around a target.
    fn gather(&mut self, target: Position) -> Vec<Index> {
        let candidates = self.nodes * CANDIDATES_PER_NODE;
        let overlay = self.overlay;
        let secrets = grind(self.world.rng(), &overlay, target, candidates, SURROUNDING);
        let mut gang = Vec::new();
        for secret in secrets {
            let via = self.honest();
            gang.push(self.world.spawn_with(secret, Some(via)));
        }
        self.world.run_for(Duration::from_secs(10));
        let present = self.behaviour.replace(Behaviour::Grind);
        self.convert(&gang, &gang);
        self.behaviour = present;
        gang
    }
}

/// The ways to read, with the names of their success and their cost.
const GETS: [(&str, &str, Consistency); 3] = [
    ("gets_hasty", "messages_per_hasty_get", Consistency::Hasty),
    ("gets_plain", "messages_per_plain_get", Consistency::Any),
    ("gets_sure", "messages_per_sure_get", Consistency::Sure),
];

/// Returns what each of `count` cost above what is usual, if that is known.
fn above(spent: u64, usual: Option<u64>, count: usize) -> Option<f64> {
    ratio(spent.saturating_sub(usual?), count as u64)
}

/// Returns the means of what was found several times.
fn means(stages: &[Stage]) -> Stage {
    let names = stages.first().into_iter().flatten().map(|(name, _)| *name);
    let mean = |name| {
        let found: Vec<f64> = stages
            .iter()
            .filter_map(|stage| found(stage, name))
            .collect();
        mean_of(&found)
    };
    names.map(|name| (name, mean(name))).collect()
}

/// Tells every figure for each share.
fn figures(stages: &[(&'static str, Stage)]) -> Figures {
    let mut names: Vec<&'static str> = Vec::new();
    for (name, _) in stages.iter().flat_map(|(_, stage)| stage) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let mut figures = Figures::default();
    for name in names {
        let at = |(share, stage): &(&'static str, Stage)| Some((*share, found(stage, name)?));
        figures.each(name, stages.iter().filter_map(at).collect());
    }
    figures
}

fn found(stage: &Stage, name: &str) -> Option<f64> {
    let found = stage.iter().find(|(known, _)| *known == name);
    found.and_then(|(_, figure)| *figure)
}

fn picture(
    options: &Options,
    shares: &[(u32, &'static str)],
    stages: &[(&'static str, Stage)],
) -> Picture {
    let series = |name: &'static str| {
        let points = shares
            .iter()
            .zip(stages)
            .filter_map(|((share, _), (_, stage))| {
                let figure = found(stage, name)?;
                Some((u64::from(*share), (figure * 10_000.0) as u64))
            });
        Series::new(&name.replace('_', " "), Style::Line, points.collect())
    };
    let panel = |title: &str, names: &[&'static str]| Panel {
        title: title.into(),
        x: Axis::new("hostile nodes, %", 10_000).from(0),
        y: Axis::new("right, %", 100).from(0),
        series: names.iter().map(|name| series(name)).collect(),
    };
    Picture {
        title: options.title("attack"),
        panels: vec![
            panel(
                "Lookups",
                &[
                    "lookups_plain",
                    "lookups_1_path",
                    "lookups_4_paths",
                    "lookups_8_paths",
                ],
            ),
            panel("Gets", &["gets_hasty", "gets_plain", "gets_sure"]),
            panel("Puts", &["puts_plain", "puts_sure"]),
        ],
    }
}
