//! Some nodes turn hostile, and lookups and values have to survive.
//!
//! An overlay of honest nodes grows and stores values. Then a share of the nodes turns
//! hostile at once, as if sleepers had waited for it, and after a while in which their lies
//! can spread, honest nodes look up, read, write, confirm strangers and join. The shares
//! rise one after the other in the same world. At last keys are surrounded: accomplices join
//! whose keys were chosen to sit at a target.
//!
//! A lookup is right when it names a living node to which no honest one is nearer.

mod surround;
mod values;

use std::sync::Arc;
use std::time::Duration;

use enishi_overlay::overlay::Manner;
use enishi_overlay::{Config, Contact, NodeId, OverlayId, Position};
use enishi_services::dht::{self, Caller, Confirmation, Subject, Verdict};
use enishi_services::record::Kind;
use enishi_services::{Command, Event, diag};

use self::values::{Value, Way};
use super::{Options, Outcome, grow};
use crate::hostile::{Ask, Behaviour, Gang, Subverted};
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
/// How long lies spread before anything is measured: several rounds of all upkeep.
const SPREADING: Duration = Duration::from_secs(180);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long newcomers have to join.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const APART: Duration = Duration::from_millis(20);
/// One newcomer for so many nodes.
const NODES_PER_NEWCOMER: usize = 20;
/// The names of what is found about surrounded keys: of values put in the sure way, and of
/// leases, which only those in charge can give.
const SURROUNDED: [(Kind, &str); 2] = [
    (Kind::Set, "surrounded"),
    (Kind::Lease, "surrounded leases"),
];
/// How often keys are surrounded, of each kind.
const ROUNDS: usize = 2;
/// The share of the progress that growing is, in thousandths.
const GROWN: u32 = 200;
/// How many times something is waited for at each share, and beside shares and surrounded keys.
const WAITS_PER_SHARE: u32 = 17;
const WAITS_BESIDE: u32 = 8;

type Hostile = World<Subverted>;

/// What was found at one share of hostile nodes: shares in the whole, by their names.
type Stage = Vec<(&'static str, Option<f64>)>;

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let mut config = Config::new(OverlayId::from_name("simulated"));
    config.long_links = options.long_links;
    let overlay = config.overlay;
    let mut world: Hostile = World::inhabited(options.seed, options.model.clone(), config);
    grow::grow(&mut world, options.nodes, &mut |done| {
        progress(done * GROWN / 1000);
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
        progress,
        waits: 0,
        waits_expected: shares.len() as u32 * WAITS_PER_SHARE
            + (SURROUNDED.len() * ROUNDS) as u32 * surround::waits(options.nodes)
            + WAITS_BESIDE,
    };
    let count = options.values.map_or(options.nodes / 5, |n| n as usize);
    let values = attack.put(count.max(4), None, Way::Plain);
    let mut stages: Vec<(&'static str, Stage)> = Vec::new();
    for (per_million, name) in &shares {
        attack.turn(*per_million);
        stages.push((name, attack.measure(&values)));
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
struct Attack<'a, Progress> {
    world: &'a mut Hostile,
    overlay: OverlayId,
    nodes: usize,
    lookups: usize,
    behaviour: Option<Behaviour>,
    hostile: Vec<Index>,
    progress: Progress,
    /// How many times something was waited for, and how many times it will be in all.
    waits: u32,
    waits_expected: u32,
}

impl<Progress: FnMut(u32)> Attack<'_, Progress> {
    /// Lets time go by, and tells how far the story has come.
    fn wait(&mut self, time: Duration) {
        self.world.run_for(time);
        self.waits = (self.waits + 1).min(self.waits_expected);
        (self.progress)(GROWN + (1000 - GROWN) * self.waits / self.waits_expected);
    }

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
        self.wait(SPREADING);
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
        self.wait(patience);
        let events = self.world.take_events().into_iter();
        events.map(|(_, _, event)| event).collect()
    }

    /// Measures everything at the present share of hostile nodes.
    fn measure(&mut self, values: &[Value]) -> Stage {
        let mut stage = Stage::new();
        let before = self.world.counters().messages;
        self.wait(PATIENCE);
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

    /// Has newcomers join through honest nodes; returns the share that did.
    fn join(&mut self) -> Option<f64> {
        let count = (self.nodes / NODES_PER_NEWCOMER).max(4);
        for _ in 0..count {
            let via = self.honest();
            self.world.spawn(Some(via));
        }
        self.world.take_events();
        self.wait(JOIN_PATIENCE);
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
