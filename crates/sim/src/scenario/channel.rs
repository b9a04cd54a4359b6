//! Many nodes come into one channel at almost the same time, use it, and some of them die at once.
//!
//! An overlay grows; then drawn nodes open the channel. It is watched until each has an address
//! and knows all others, and is left alone. What the channel costs when nobody does anything is
//! what all nodes send for their services then, less what they sent before there was a channel.
//! Drawn members open the way to drawn others by their addresses, and a few send a packet to all.
//! Then a share of the members dies without a word, and at once the others do the same again. As
//! many newcomers join the overlay and the channel, it is watched once more, and those who live
//! use it for the last time.

mod awareness;
mod cost;
mod lookups;
mod packets;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use enishi_overlay::Time;
use enishi_services::keys::Secret;
use enishi_services::vnet::{self, Channel, ChannelId, ChannelSpec, Entry};
use enishi_services::{Command, Event};

use self::awareness::Awareness;
use self::cost::Cost;
use self::lookups::Lookups;
use self::packets::Packets;
use super::{Options, Outcome, grow};
use crate::plot::{Axis, Panel, Picture, Series};
use crate::statistics::{Figures, Results, rate, thousandths};
use crate::world::{Index, World};

/// Between two looks at who knows whom.
const STEP: Duration = Duration::from_millis(500);
/// How long those who come at once get until all know each other.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long the channel is left alone before what it costs is measured, and how long that takes:
/// five times the period in which directories are read.
const SETTLING: Duration = Duration::from_secs(180);
const QUIET: Duration = Duration::from_secs(305);
/// How long the channel is watched after the deaths unless told.
const WATCHED: Duration = Duration::from_secs(600);
/// How many of a million members die unless told.
const DEAD_PER_MILLION: u32 = 333_333;

const NAME: &str = "town";
const NETWORK: &str = "10.77.0.0/16";

/// The three times when members use the channel.
const QUIETLY: &str = "1 quiet";
const AFTER_DEATHS: &str = "2 after deaths";
const WITH_NEWCOMERS: &str = "3 with newcomers";

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world();
    grow::grow(world, options.nodes, &mut |done| progress(done / 5));
    let before = Cost::of(world, QUIET);
    let mut story = Story::new(draw(world, options.members));
    let joining = story.join(world, options.joins_within);
    progress(400);
    world.run_for(SETTLING);
    let quiet = Cost::of(world, QUIET);
    story.figures.count("pages", pages(world, &story.living));
    quiet.tell(&before, story.living.len(), &mut story.figures);
    progress(500);
    story.use_it(world, QUIETLY, options.routes);
    progress(600);
    let dead = story.kill(world, options.dead_per_million);
    story.use_it(world, AFTER_DEATHS, options.routes);
    progress(700);
    let watched = options.duration.unwrap_or(WATCHED);
    let replacing = story.replace(world, &dead, (options.joins_within, watched));
    progress(900);
    story.use_it(world, WITH_NEWCOMERS, options.routes);
    let picture = story.picture(options, joining, replacing);
    let seconds = QUIET.as_secs();
    let results = Results {
        bytes_per_second_per_node: rate(quiet.bytes, seconds, options.nodes),
        duplicates: Some(held_twice(world, &story.living)),
        figures: story.figures,
        ..Results::default()
    };
    Outcome::new(world, results).showing(picture)
}

/// A channel whose members come and die, and what was found so far.
struct Story {
    living: Vec<Index>,
    claims: Claims,
    lookups: Vec<(&'static str, Lookups)>,
    figures: Figures,
}

impl Story {
    fn new(members: Vec<Index>) -> Self {
        let mut figures = Figures::default();
        figures.count("members", members.len() as u64);
        Self {
            living: members,
            claims: Claims::default(),
            lookups: Vec::new(),
            figures,
        }
    }

    /// Has all members open the channel, and waits until each knows all others.
    fn join(&mut self, world: &mut World, within: Duration) -> Awareness {
        let before = cost::of_services(&world.traffic());
        let since = world.now();
        for member in &self.living {
            self.claims.open(world, *member);
            world.run_for(within / self.living.len() as u32);
        }
        let mut all = Awareness::new(world, since, &self.living, &self.living);
        while world.now().since(since) < PATIENCE && !all.is_over() {
            world.run_for(STEP);
            all.look(world);
        }
        let said = cost::of_services(&world.traffic()) - before;
        self.claims.heed(world);
        let figures = &mut self.figures;
        let addressed = self.claims.micros(&self.living);
        tell_times(figures, &ADDRESSED, &addressed, self.living.len());
        tell_times(figures, &KNOW_ALL, &all.micros(), self.living.len());
        let draws = self.living.iter();
        let draws = draws.filter_map(|index| channel(world, *index));
        figures.count("draws", draws.map(|(_, c)| u64::from(c.draws())).sum());
        figures.count("displaced", self.claims.displaced);
        figures.count("without_address", self.claims.failed);
        let members = self.living.len() as u64;
        figures.share("joining_bytes_per_member", said, members);
        all
    }

    /// Drawn members open the way to drawn others, and a few send a packet to all.
    fn use_it(&mut self, world: &mut World, when: &'static str, count: u64) {
        let lookups = lookups::ask(world, &self.living, count);
        self.figures.table("lookups", when, lookups.row());
        self.lookups.push((when, lookups));
        let packets = Packets::send(world, &self.living);
        self.figures.table("packets_to_all", when, packets.row());
    }

    fn kill(&mut self, world: &mut World, per_million: u32) -> Vec<Index> {
        let share = match per_million {
            0 => DEAD_PER_MILLION,
            share => share,
        };
        let members = self.living.len() as u64;
        let count = (members * u64::from(share)).div_ceil(1_000_000);
        let mut dead = Vec::new();
        // Somebody has to be left to tell, and somebody to hear.
        for _ in 0..count.min(members.saturating_sub(2)) {
            let drawn = world.rng().below(self.living.len() as u64) as usize;
            let victim = self.living.swap_remove(drawn);
            world.kill(victim);
            dead.push(victim);
        }
        self.figures.count("dead", dead.len() as u64);
        dead
    }

    /// As many come as have died. All are watched for a time.
    fn replace(
        &mut self,
        world: &mut World,
        dead: &[Index],
        (within, watched): (Duration, Duration),
    ) -> Replacing {
        let since = world.now();
        let mut newcomers = Vec::new();
        for _ in dead {
            let newcomer = spawn(world);
            self.claims.open(world, newcomer);
            newcomers.push(newcomer);
            world.run_for(within / dead.len() as u32);
        }
        let stayed = self.living.clone();
        let mut known = Awareness::new(world, since, &stayed, &newcomers);
        let everyone: Vec<Index> = stayed.iter().chain(&newcomers).copied().collect();
        let mut know = Awareness::new(world, since, &newcomers, &everyone);
        let mut listed = Awareness::new(world, since, &everyone, dead);
        let mut gone = None;
        while world.now().since(since) < watched {
            world.run_for(STEP);
            known.look(world);
            know.look(world);
            listed.sample(world);
            let is_gone = listed.share() == Some(0) && gone.is_none();
            gone = gone.or_else(|| is_gone.then(|| world.now().since(since)));
        }
        self.claims.heed(world);
        self.living.extend(&newcomers);
        let figures = &mut self.figures;
        let addressed = self.claims.micros(&newcomers);
        tell_times(figures, &NEWCOMERS_ADDRESSED, &addressed, newcomers.len());
        tell_times(figures, &NEWCOMERS_KNOW, &know.micros(), newcomers.len());
        tell_times(figures, &NEWCOMERS_KNOWN, &known.micros(), stayed.len());
        if let Some(share) = listed.share() {
            figures.share("dead_listed", share, 10_000);
        }
        let gone = gone.map(|gone| thousandths(gone.as_millis() as u64));
        figures.amount("dead_gone_after_s", gone);
        Replacing {
            known,
            know,
            listed,
        }
    }

    fn picture(&self, options: &Options, joining: Awareness, replacing: Replacing) -> Picture {
        let panel = |title: &str, series: Vec<Series>| Panel {
            title: title.to_owned(),
            x: Axis::new("time since the first came, s", 1_000_000).from(0),
            y: Axis::new("share known, %", 100).from(0),
            series,
        };
        let each = self.lookups.iter();
        let each = each.map(|(when, lookups)| Series::distribution(&when[2..], &lookups.micros));
        let ways = Panel {
            x: Axis::new("time until the way is open, ms", 1000).from(0),
            y: Axis::new("share of lookups, %", 100),
            ..panel("Addresses that are looked up", each.collect())
        };
        let joining = vec![joining.series("others, on average")];
        let replacing = vec![
            replacing.known.series("newcomers, to who stayed"),
            replacing.know.series("all, to newcomers"),
            replacing.listed.series("the dead"),
        ];
        let what = format!("channel of {}", options.members);
        Picture {
            title: options.title(&what),
            panels: vec![
                panel("Members that come at once", joining),
                panel("After some have died and as many come", replacing),
                ways,
            ],
        }
    }
}

/// Who knows whom after the deaths.
struct Replacing {
    /// Those who stayed, the newcomers.
    known: Awareness,
    /// The newcomers, all who live.
    know: Awareness,
    /// All who live, the dead.
    listed: Awareness,
}

/// Who has opened the channel when, and has got an address when.
#[derive(Debug, Default)]
struct Claims {
    opened: BTreeMap<Index, Time>,
    claimed: BTreeMap<Index, Time>,
    displaced: u64,
    failed: u64,
}

impl Claims {
    fn open(&mut self, world: &mut World, index: Index) {
        let network = NETWORK.parse();
        let spec = ChannelSpec {
            name: NAME.into(),
            network: network.expect("the network above is well-formed"),
            secret: Secret::new([7; 32]),
            entry: Entry::Secret,
        };
        self.opened.insert(index, world.now());
        let address = None;
        let open = vnet::Command::Open { spec, address };
        world.command(index, Command::Vnet(open));
    }

    /// Takes what members were told of their addresses.
    fn heed(&mut self, world: &mut World) {
        for (at, index, event) in world.take_events() {
            match event {
                Event::Vnet(vnet::Event::Claimed { .. }) => {
                    self.claimed.entry(index).or_insert(at);
                }
                Event::Vnet(vnet::Event::Displaced { .. }) => self.displaced += 1,
                Event::Vnet(vnet::Event::ClaimFailed { .. }) => self.failed += 1,
                _ => {}
            }
        }
    }

    /// How long some of them took, in microseconds; those who have no address are left out.
    fn micros(&self, of: &[Index]) -> Vec<u64> {
        let times = of.iter().filter_map(|index| {
            let claimed = self.claimed.get(index)?;
            Some(claimed.since(*self.opened.get(index)?).as_micros() as u64)
        });
        times.collect()
    }
}

/// What times are called: of the half, of 99 in a hundred, and of the last.
type Names = [&'static str; 3];

const ADDRESSED: Names = ["addressed_p50_s", "addressed_p99_s", "addressed_last_s"];
const KNOW_ALL: Names = ["know_all_p50_s", "know_all_p99_s", "know_all_last_s"];
const NEWCOMERS_ADDRESSED: Names = [
    "newcomers_addressed_p50_s",
    "newcomers_addressed_p99_s",
    "newcomers_addressed_last_s",
];
const NEWCOMERS_KNOW: Names = [
    "newcomers_know_all_p50_s",
    "newcomers_know_all_p99_s",
    "newcomers_know_all_last_s",
];
const NEWCOMERS_KNOWN: Names = [
    "newcomers_known_p50_s",
    "newcomers_known_p99_s",
    "newcomers_known_last_s",
];

/// Tells after how long half of `all`, nearly all, and all had come so far, if they have.
fn tell_times(figures: &mut Figures, names: &Names, micros: &[u64], all: usize) {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    for (name, percent) in names.iter().zip([50, 99, 100]) {
        let rank = (all * percent).div_ceil(100);
        let time = sorted.get(rank.saturating_sub(1));
        figures.amount(name, time.map(|micros| thousandths(micros / 1000)));
    }
}

/// Returns a node's side of the channel.
fn channel(world: &World, index: Index) -> Option<(ChannelId, &Channel)> {
    world.node(index)?.vnet().by_name(NAME)
}

fn address(world: &World, index: Index) -> Option<Ipv4Addr> {
    channel(world, index)?.1.address()
}

/// Draws so many nodes.
fn draw(world: &mut World, count: usize) -> Vec<Index> {
    let mut indices: Vec<Index> = world.living().map(|(index, _)| index).collect();
    let mut drawn = Vec::new();
    while drawn.len() < count && !indices.is_empty() {
        let at = world.rng().below(indices.len() as u64) as usize;
        drawn.push(indices.swap_remove(at));
    }
    drawn
}

/// Brings a node to life that joins the overlay through one that it can reach.
fn spawn(world: &mut World) -> Index {
    const TRIES: usize = 16;
    let born = world.born();
    let mut via = world.any();
    for _ in 0..TRIES {
        if !world.is_broken(born, via) {
            break;
        }
        via = world.any();
    }
    world.spawn(Some(via))
}

/// Returns how many pages the channel's directory has.
fn pages(world: &World, members: &[Index]) -> u64 {
    let channels = members.iter().filter_map(|index| channel(world, *index));
    let last = channels.filter_map(|(_, channel)| channel.directory_page());
    last.max().map_or(0, |last| u64::from(last) + 1)
}

/// Returns how many addresses several members hold.
fn held_twice(world: &World, members: &[Index]) -> u64 {
    let mut counts = BTreeMap::new();
    for address in members.iter().filter_map(|index| address(world, *index)) {
        *counts.entry(address).or_insert(0_u64) += 1;
    }
    counts.values().filter(|count| **count > 1).count() as u64
}
