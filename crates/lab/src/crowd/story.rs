//! The story of a crowd, and what is found on the way.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::ring::{Ring, Whom};
use super::values::{self, REPLICAS, Stored};
use super::{Crowd, LOOK_INTERVAL, measure, together, verify};
use crate::daemon::{Daemon, until};

/// Of so many daemons one is killed.
const KILLED_ONE_OF: usize = 3;

/// What a crowd is to go through.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many daemons, at least 4.
    pub daemons: usize,
    /// How many values are stored, by one daemon after the other.
    pub values: usize,
    /// For how long what daemons send is measured, after as long a rest; none to leave it
    /// out.
    pub quiet: Option<Duration>,
    /// How long anything may take that has to come about.
    pub patience: Duration,
}

/// What was found. Times are in seconds of the clock on the wall.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// How many daemons there were.
    pub daemons: usize,
    /// From the start of the second daemon to that of the last.
    pub launched_s: f64,
    /// From the start of the second daemon until all answer and every node knows its true
    /// successor and predecessor.
    pub joined_after_s: f64,
    /// The same until every node knows all its true near neighbours.
    pub near_after_s: f64,
    /// Processor time of all daemons until then.
    pub joining_cpu_s: f64,
    /// What each daemon had sent by then, on average.
    pub joining: Said,
    /// Values that were to be stored.
    pub values: usize,
    /// Those that were acknowledged.
    pub acknowledged: usize,
    /// How long each of them took, in milliseconds.
    pub put_ms: Vec<f64>,
    /// What passed the network per daemon in the quiet time, all headers included, in
    /// octets per second sent.
    pub wire_bytes_per_s: Option<f64>,
    /// The overlay's messages alone, per second and daemon.
    pub quiet_per_s: Option<Said>,
    /// Processor time per daemon in the quiet time, in milliseconds per second.
    pub cpu_ms_per_s: Option<f64>,
    /// Resident memory of a daemon: the mean before the kill, in megabytes.
    pub rss_mean_mb: f64,
    /// The largest.
    pub rss_max_mb: f64,
    /// How many nodes and values that are there were verified over several paths.
    pub verifying: usize,
    /// How many of them were confirmed.
    pub verified: usize,
    /// Those that were confirmed only at the second attempt.
    pub verified_late: usize,
    /// How many paths each of them took, on average.
    pub paths: f64,
    /// How many of these agreed.
    pub paths_agreeing: f64,
    /// How many made-up node ids were confirmed.
    pub verified_falsely: usize,
    /// Daemons that were killed.
    pub killed: usize,
    /// From the kill until every node knows its true successor and predecessor.
    pub whole_after_s: f64,
    /// The same until every node knows all its true near neighbours, and no dead one.
    pub near_again_after_s: f64,
    /// Processor time of all daemons that live between the kill and then.
    pub healing_cpu_s: f64,
    /// What each of them has sent in the same time, on average.
    pub healing: Said,
    /// From the kill until every acknowledged value that had a holder left is on six living
    /// nodes.
    pub values_whole_after_s: f64,
    /// Acknowledged values all of whose holders were killed.
    pub without_holder: usize,
    /// In how many places of the ring they were: different sets of holders.
    pub places_without_holder: usize,
    /// Acknowledged values of which a holder was left and that nobody can read.
    pub lost: usize,
    /// Values of which a holder was left and that had been put at a daemon that was killed.
    pub of_killed: usize,
    /// How many of these nobody can read.
    pub lost_of_killed: usize,
    /// How often a value was asked for at the end: each at several daemons.
    pub readings: usize,
    /// How many of the readings did not give the value, nor did a second attempt.
    pub misread: usize,
    /// How many gave it only at the second attempt.
    pub read_late: usize,
}

/// What was sent of the overlay's own protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// Messages.
    pub messages: f64,
    /// Their octets.
    pub bytes: f64,
}

impl Plan {
    /// Goes through the story with daemons of `program`; `progress` hears what comes next.
    ///
    /// # Errors
    /// When we are not root, or something does not come about in time. What was stored and
    /// is lost is no error but told.
    pub fn run(&self, program: &Path, progress: impl Fn(&str)) -> Result<Story> {
        ensure!(
            self.daemons > KILLED_ONE_OF,
            "a crowd has at least four daemons"
        );
        let mut story = Story {
            daemons: self.daemons,
            values: self.values,
            ..Story::default()
        };
        progress("making the hosts");
        let mut crowd = Crowd::new(self.daemons)?;
        progress("starting all daemons");
        self.join(&mut crowd, program, &mut story)?;
        progress("storing values");
        let keys = values::store(&crowd, self.values, &mut story)?;
        let stored = values::await_holders(&crowd, keys, REPLICAS, self.patience)?;
        progress("verifying strangers and values");
        verify::verify(&crowd, &stored, &mut story);
        if let Some(quiet) = self.quiet {
            progress("measuring what daemons send");
            measure::listen(&crowd, quiet, &mut story)?;
        }
        measure::weigh(&crowd, &mut story)?;
        progress("killing a third");
        let keys = stored.into_iter().map(|stored| stored.number).collect();
        let stored = values::await_holders(&crowd, keys, REPLICAS, self.patience)?;
        let left = self.kill(&mut crowd, &stored, &mut story)?;
        progress("reading all values");
        values::read(&crowd, &left, &mut story);
        Ok(story)
    }

    /// All join through the first.
    fn join(&self, crowd: &mut Crowd, program: &Path, story: &mut Story) -> Result<()> {
        let ticket = crowd.found(program)?;
        let started = Instant::now();
        for number in 1..self.daemons {
            crowd.launch(program, number, &["--bootstrap", &ticket])?;
        }
        story.launched_s = started.elapsed().as_secs_f64();
        (story.joined_after_s, story.near_after_s) = self.await_ring(crowd, started)?;
        story.joining_cpu_s = measure::sum(crowd, Daemon::cpu_s)?;
        story.joining = measure::said(crowd)?;
        Ok(())
    }

    /// Kills a third, the one that all joined through among them, and waits until ring and
    /// values are whole again; returns the values of which a holder was left.
    fn kill(&self, crowd: &mut Crowd, stored: &[Stored], story: &mut Story) -> Result<Vec<Stored>> {
        let victims: Vec<usize> = (0..self.daemons).step_by(KILLED_ONE_OF).collect();
        let started = Instant::now();
        crowd.kill(&victims)?;
        let (cpu_s, said) = (measure::sum(crowd, Daemon::cpu_s)?, measure::said(crowd)?);
        story.killed = victims.len();
        let survives = |stored: &&Stored| stored.holders.iter().any(|at| !victims.contains(at));
        let left: Vec<Stored> = stored.iter().filter(survives).cloned().collect();
        story.without_holder = stored.len() - left.len();
        let gone = stored.iter().filter(|stored| !survives(stored));
        let places: BTreeSet<&Vec<usize>> = gone.map(|stored| &stored.holders).collect();
        story.places_without_holder = places.len();
        (story.whole_after_s, story.near_again_after_s) = self.await_ring(crowd, started)?;
        story.healing_cpu_s = measure::sum(crowd, Daemon::cpu_s)? - cpu_s;
        story.healing = measure::said(crowd)?.since(said);
        let needed = REPLICAS.min(crowd.living().len());
        let numbers = left.iter().map(|stored| stored.number).collect();
        values::await_holders(crowd, numbers, needed, self.patience)?;
        story.values_whole_after_s = started.elapsed().as_secs_f64();
        Ok(left)
    }

    /// Waits for the ring and then for all near neighbours; returns when each was whole,
    /// counted from `since`.
    fn await_ring(&self, crowd: &Crowd, since: Instant) -> Result<(f64, f64)> {
        let left = || self.patience.saturating_sub(since.elapsed());
        let mut ring = None;
        until(left(), "all daemons answer", || {
            ring = crowd.ring();
            thread::sleep(LOOK_INTERVAL);
            Ok(ring.is_some())
        })?;
        let ring = ring.context("nobody answers")?;
        let next = await_all(crowd, &ring, Whom::Next, left())
            .context("the nodes do not know who is next to them")?;
        let near = await_all(crowd, &ring, Whom::Near, left())
            .context("the nodes do not know all their near neighbours")?;
        Ok([next, near]
            .map(|at| at.duration_since(since).as_secs_f64())
            .into())
    }
}

impl Said {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
        }
    }

    pub(super) fn per(self, divisor: f64) -> Self {
        Self {
            messages: self.messages / divisor,
            bytes: self.bytes / divisor,
        }
    }
}

/// Waits until all nodes know whom they should, and did so at one time; returns when that
/// was. Only one that does not yet is asked again and again: fifty would have no time for
/// anything else.
fn await_all(crowd: &Crowd, ring: &Ring, whom: Whom, limit: Duration) -> Result<Instant> {
    let mut waiting = crowd.living();
    let started = Instant::now();
    loop {
        while let Some(number) = waiting.last() {
            if crowd.is_right(*number, ring, whom) {
                waiting.pop();
                continue;
            }
            let (waited, left) = (started.elapsed(), waiting.len());
            ensure!(
                waited < limit,
                "after {waited:?} {left} are still to be heard, among them number {number}, \
                 which said:\n{}",
                crowd.log(*number)
            );
            thread::sleep(LOOK_INTERVAL);
        }
        let now = Instant::now();
        let living = crowd.living();
        let right = together(&living, |number| crowd.is_right(*number, ring, whom));
        let wrong = living.into_iter().zip(right).filter(|(_, right)| !right);
        waiting = wrong.map(|(number, _)| number).collect();
        if waiting.is_empty() {
            return Ok(now);
        }
    }
}
