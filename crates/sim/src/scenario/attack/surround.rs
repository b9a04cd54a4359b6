//! Keys that accomplices surround, whose own keys were chosen among [`CANDIDATES_PER_NODE`] times
//! as many as there are nodes.

use std::time::Duration;

use enishi_overlay::{Keypair, Position};
use enishi_services::dht::Subject;
use enishi_services::record::{Key, Kind};

use super::values::{GETS, READERS, Way};
use super::{Attack, SPREADING, Stage};
use crate::hostile::{Behaviour, grind};
use crate::statistics::ratio;
use crate::world::Index;

/// One key in so many nodes is surrounded at a time, half of them with a value already; how
/// many at least and at most.
const NODES_PER_TARGET: usize = 50;
const TARGETS: (usize, usize) = (4, 10);
/// How long the overlay has to get over each round.
const HEALING: Duration = Duration::from_secs(60);
/// By how many chosen keys each.
const SURROUNDING: usize = 16;
/// How many keys are tried for each target, times the number of nodes.
const CANDIDATES_PER_NODE: usize = 16;
/// How long they have to join before the next key is surrounded.
const GATHERING: Duration = Duration::from_secs(10);
/// How many times something is waited for beside those who join.
const WAITS: u32 = 8;

/// Returns how many keys are surrounded at a time.
fn targets(nodes: usize) -> usize {
    (nodes / NODES_PER_TARGET).clamp(TARGETS.0, TARGETS.1)
}

/// Returns how many times something is waited for when keys are surrounded.
pub(super) fn waits(nodes: usize) -> u32 {
    targets(nodes) as u32 + WAITS
}

impl<Progress: FnMut(u32)> Attack<'_, Progress> {
    /// Surrounds some keys for a while; returns what can be read and written there meanwhile.
    pub(super) fn surround(&mut self, kind: Kind) -> Stage {
        let (way, puts) = match kind {
            Kind::Lease => (Way::Plain, "puts_plain"),
            Kind::Set => (Way::SureSet, "puts_sure"),
        };
        let targets = targets(self.nodes);
        let writers: Vec<Keypair> = (0..targets)
            .map(|_| Keypair::from_seed(&self.world.rng().octets()))
            .collect();
        let (with, without) = writers.split_at(targets / 2);
        let mut values = self.put(with.len(), Some(with), way);
        let mut gangs = Vec::new();
        for writer in &writers {
            gangs.extend(self.gather(Key::new(kind, &writer.id()).position()));
        }
        self.wait(SPREADING);
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
        self.wait(HEALING);
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
        self.wait(GATHERING);
        let present = self.behaviour.replace(Behaviour::Grind);
        self.convert(&gang, &gang);
        self.behaviour = present;
        gang
    }
}
