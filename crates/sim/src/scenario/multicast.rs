//! Members of a group say something to all others: at rest, and while some of them die.
//!
//! Members join one after the other. A few of them are authors; each first publishes four
//! messages that are not counted among the rest, since the first three find its tree. Then all
//! authors in turn publish what is counted. In a second round a share of the members, none
//! of the authors, dies without a word in the middle. Each message is to reach each member
//! that lives to the end once. Every delay is compared with what one message from the
//! author straight to that member takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::Time;
use enishi_services::calls::{GroupName, GroupSpec, Order, Receipts};
use enishi_services::keys::Secret;
use enishi_services::multicast::{self, Subscriber};
use enishi_services::{Command, Event};

use super::{Options, Outcome, grow};
use crate::plot::{Axis, Panel, Picture, Series};
use crate::statistics::{Figures, Results, mean, millis, percentile, ratio};
use crate::world::{Index, Traffic, World};

/// In how much time all members join.
const JOINING: Duration = Duration::from_secs(60);
/// How long the group is left alone afterwards.
const FORMING: Duration = Duration::from_secs(300);
/// How long what members send at rest is measured.
const QUIET: Duration = Duration::from_secs(60);
/// How many members publish.
const AUTHORS: usize = 8;
/// How many messages of each are not counted.
const WARM_UP: usize = 4;
/// How many messages of each round there are unless told.
const MESSAGES: u64 = 64;
/// Between two messages.
const APART: Duration = Duration::from_millis(250);
/// How long the last of a round is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a message is, in octets.
const PAYLOAD_BYTES: usize = 200;
/// How many of a million members die unless told.
const DEAD_PER_MILLION: u32 = 100_000;

const NAME: GroupName = GroupName([7; 32]);
const HOST: Subscriber = Subscriber::Host;

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world_with(|config| config.reports_hops = false);
    grow::grow(world, options.nodes, &mut |done| progress(done / 2));
    let mut group = Group::gather(world, options);
    progress(650);
    let mut figures = Figures::default();
    figures.count("members", group.members.len() as u64);
    group.tell_upkeep(world, &mut figures);

    let first = group.round(
        world,
        (AUTHORS.min(group.authors.len()) * WARM_UP) as u64,
        0,
    );
    figures.amount("first_messages_per_member", first.data_per_member());
    progress(700);
    let messages = options.values.unwrap_or(MESSAGES);
    let rest = group.round(world, messages, 0);
    rest.tell(&mut figures, &REST);
    progress(850);
    let share = match options.dead_per_million {
        0 => DEAD_PER_MILLION,
        share => share,
    };
    let dead = group.members.len() as u64 * u64::from(share) / 1_000_000;
    let dying = group.round(world, messages, dead);
    figures.count("dead", dead);
    dying.tell(&mut figures, &DYING);
    let results = Results {
        figures,
        ..Results::default()
    };
    Outcome::new(world, results).showing(picture(options, &rest, &dying))
}

/// A group in a world.
struct Group {
    members: Vec<Index>,
    authors: Vec<Index>,
    published: u64,
}

/// What one round of messages came to.
#[derive(Default)]
struct Round {
    /// Who was there from beginning to end, without the author of each message.
    expected: u64,
    /// How many got it.
    delivered: u64,
    /// How often anyone got it once more.
    duplicates: u64,
    /// Messages with their author's data, and the small ones that keep the tree.
    data: u64,
    control: u64,
    /// From the publishing until each member, in microseconds, and straight to it.
    delays: Vec<u64>,
    unicast: Vec<u64>,
    receipts: Vec<Receipts>,
}

impl Group {
    /// Has members join a group.
    fn gather(world: &mut World, options: &Options) -> Self {
        let mut indices: Vec<Index> = world.living().map(|(index, _)| index).collect();
        let mut members = Vec::new();
        while members.len() < options.group && !indices.is_empty() {
            let drawn = world.rng().below(indices.len() as u64) as usize;
            members.push(indices.swap_remove(drawn));
        }
        for member in &members {
            let spec = GroupSpec {
                name: NAME,
                secret: Secret::new([8; 32]),
                tree: options.tree,
                order: Order::None,
            };
            let subscriber = HOST;
            let subscribe = multicast::Command::Subscribe { subscriber, spec };
            world.command(*member, Command::Multicast(subscribe));
            world.run_for(JOINING / members.len() as u32);
        }
        world.run_for(FORMING);
        world.take_events();
        let authors = members.iter().copied().take(AUTHORS).collect();
        Self {
            members,
            authors,
            published: 0,
        }
    }

    /// Measures what a member sends for the group when nothing is said.
    fn tell_upkeep(&self, world: &mut World, figures: &mut Figures) {
        let before = bytes(&world.traffic());
        world.run_for(QUIET);
        let sent = bytes(&world.traffic()) - before;
        let second = QUIET.as_secs() * self.members.len() as u64;
        figures.share("upkeep_bytes_per_second_per_member", sent, second);
    }

    /// Has the authors in turn publish messages; after half of them some members die.
    fn round(&mut self, world: &mut World, messages: u64, dead: u64) -> Round {
        let before = world.traffic();
        let mut sent: BTreeMap<u64, (Index, Time)> = BTreeMap::new();
        for number in 0..messages {
            if number == messages / 2 {
                self.kill(world, dead);
            }
            let author = self.authors[number as usize % self.authors.len()];
            // Half of the last ones are counted: where some have just died, and at rest.
            let counted = number == messages / 2 || number + 1 == messages;
            self.published += 1;
            sent.insert(self.published, (author, world.now()));
            self.publish(world, author, counted);
            world.run_for(APART);
        }
        world.run_for(PATIENCE);
        let mut round = self.judge(world, &sent);
        let now = world.traffic();
        let of = |sort: &str| messages_of(&now, sort) - messages_of(&before, sort);
        round.data = of("multicast data");
        let small = ["prune", "graft", "digest", "receipt"];
        round.control = small
            .iter()
            .map(|sort| of(&format!("multicast {sort}")))
            .sum();
        round
    }

    fn publish(&self, world: &mut World, author: Index, counted: bool) {
        let mut payload = self.published.to_le_bytes().to_vec();
        payload.resize(PAYLOAD_BYTES, 0);
        let publish = multicast::Command::Publish {
            subscriber: HOST,
            group: NAME,
            payload: payload.into(),
            receipts: counted.then_some(self.published),
        };
        world.command(author, Command::Multicast(publish));
    }

    fn kill(&mut self, world: &mut World, dead: u64) {
        for _ in 0..dead {
            let mortal = self.members.len() - self.authors.len();
            if mortal > 0 {
                let drawn = self.authors.len() + world.rng().below(mortal as u64) as usize;
                world.kill(self.members.swap_remove(drawn));
            }
        }
    }

    fn judge(&self, world: &mut World, sent: &BTreeMap<u64, (Index, Time)>) -> Round {
        let living: BTreeSet<Index> = self.members.iter().copied().collect();
        let mut round = Round {
            expected: sent.len() as u64 * (living.len() as u64 - 1),
            ..Round::default()
        };
        let mut seen = BTreeSet::new();
        for (at, member, event) in world.take_events() {
            let heard = match event {
                Event::Multicast(multicast::Event::Heard { heard, .. }) => heard,
                Event::Multicast(multicast::Event::Receipts { receipts, .. }) => {
                    round.receipts.extend(receipts);
                    continue;
                }
                Event::Joined
                | Event::Dht(_)
                | Event::Diag(_)
                | Event::Vnet(_)
                | Event::Reach(_) => continue,
            };
            let number = heard
                .payload
                .first_chunk()
                .map(|octets| u64::from_le_bytes(*octets));
            let published = number.and_then(|number| Some((number, sent.get(&number)?)));
            let Some((number, (author, since))) = published.filter(|_| living.contains(&member))
            else {
                continue;
            };
            if !seen.insert((number, member)) {
                round.duplicates += 1;
                continue;
            }
            round.delivered += 1;
            round.delays.push(at.since(*since).as_micros() as u64);
            let straight = world.one_way(*author, member);
            round
                .unicast
                .extend(straight.map(|time| time.as_micros() as u64));
        }
        round
    }
}

/// What the figures of a round are called.
struct Names {
    delivered: &'static str,
    duplicates: &'static str,
    messages: &'static str,
    control: &'static str,
    mean: &'static str,
    p99: &'static str,
    against: &'static str,
    received: &'static str,
    expected: &'static str,
}

const REST: Names = Names {
    delivered: "delivered",
    duplicates: "delivered_twice",
    messages: "messages_per_member",
    control: "control_messages_per_member",
    mean: "mean_ms",
    p99: "p99_ms",
    against: "delay_against_unicast",
    received: "receipts_received",
    expected: "receipts_expected",
};

const DYING: Names = Names {
    delivered: "dying_delivered",
    duplicates: "dying_delivered_twice",
    messages: "dying_messages_per_member",
    control: "dying_control_messages_per_member",
    mean: "dying_mean_ms",
    p99: "dying_p99_ms",
    against: "dying_delay_against_unicast",
    received: "dying_receipts_received",
    expected: "dying_receipts_expected",
};

impl Round {
    fn data_per_member(&self) -> Option<f64> {
        ratio(self.data, self.expected)
    }

    fn tell(&self, figures: &mut Figures, names: &Names) {
        figures.share(names.delivered, self.delivered, self.expected);
        figures.count(names.duplicates, self.duplicates);
        figures.amount(names.messages, self.data_per_member());
        figures.share(names.control, self.control, self.expected);
        figures.amount(names.mean, mean(&self.delays).map(|mean| mean / 1000.0));
        figures.amount(names.p99, percentile(&self.delays, 99).map(millis));
        let (all, straight) = (self.delays.iter().sum(), self.unicast.iter().sum());
        figures.share(names.against, all, straight);
        if let Some(receipts) = self.receipts.first() {
            figures.count(names.received, receipts.received.into());
            figures.count(names.expected, receipts.expected.into());
        }
        if names.delivered == REST.delivered {
            let straight = mean(&self.unicast).map(|mean| mean / 1000.0);
            figures.amount("unicast_mean_ms", straight);
            figures.amount("unicast_p99_ms", percentile(&self.unicast, 99).map(millis));
        }
    }
}

fn messages_of(traffic: &Traffic, sort: &str) -> u64 {
    traffic.get(sort).map_or(0, |tally| tally.messages)
}

/// Returns the octets that groups have cost.
fn bytes(traffic: &Traffic) -> u64 {
    let multicast = traffic
        .iter()
        .filter(|(sort, _)| sort.starts_with("multicast"));
    multicast.map(|(_, tally)| tally.bytes).sum()
}

fn picture(options: &Options, rest: &Round, dying: &Round) -> Picture {
    let what = format!("multicast, group of {}", options.group);
    let panel = |title: &str, round: &Round| Panel {
        title: title.to_owned(),
        x: Axis::new("time until the member, ms", 1000).from(0),
        y: Axis::new("share of members, %", 100),
        series: vec![
            Series::distribution("multicast", &round.delays),
            Series::distribution("straight", &round.unicast),
        ],
    };
    Picture {
        title: options.title(&what),
        panels: vec![panel("At rest", rest), panel("While members die", dying)],
    }
}
