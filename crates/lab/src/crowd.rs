//! Many real daemons, each on a host of its own at one bridge, and the story of a crowd:
//! all join at once, values are stored, and some daemons are killed.
//!
//! What is found has the meaning that the simulator's scenario `storm` gives to the same
//! names, so that one can be laid beside the other.

mod measure;
mod ring;
mod story;
mod values;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{Daemon, JOIN_TIME_MAX, until};
use crate::host::Host;
use crate::lab::{Lab, Octets};
use ring::{Place, Ring, Whom};

pub use story::{Plan, Said, Story};

/// How many questions are asked at the same time.
const HANDS: usize = 8;

/// Between two looks at what is to come about.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A host with its daemon.
#[derive(Debug)]
struct Member {
    host: Host,
    /// None before it is started, and once it was killed.
    daemon: Option<Daemon>,
    /// Where its node is, as soon as it has told.
    place: Mutex<Option<Place>>,
}

/// Hosts at one bridge, with a daemon each.
#[derive(Debug)]
struct Crowd {
    // The daemons go before their network, and that before their data.
    members: Vec<Member>,
    lab: Lab,
    directory: TempDir,
}

impl Crowd {
    /// Makes the hosts. Nothing runs there yet.
    fn new(size: usize) -> Result<Self> {
        let mut lab = Lab::new("crowd")?;
        let mut members = Vec::with_capacity(size);
        for number in 0..size {
            members.push(Member {
                host: lab.host(&format!("h{number}"))?,
                daemon: None,
                place: Mutex::default(),
            });
        }
        lab.acquaint(
            &members
                .iter()
                .map(|member| &member.host)
                .collect::<Vec<_>>(),
        )?;
        let directory = tempfile::tempdir().context("making a directory for the daemons")?;
        Ok(Self {
            members,
            lab,
            directory,
        })
    }

    /// Starts the first daemon, waits until it answers, and returns an invitation.
    fn found(&mut self, program: &Path) -> Result<String> {
        self.launch(program, 0, &[])?;
        let mut ticket = None;
        until(JOIN_TIME_MAX, "the first daemon answers", || {
            let invited = self.members[0].ask(&json!({ "request": "invite" })).ok();
            ticket = invited.and_then(|answer| Some(answer["ticket"].as_str()?.to_owned()));
            Ok(ticket.is_some())
        })
        .with_context(|| format!("the daemon said:\n{}", self.log(0)))?;
        ticket.context("no invitation")
    }

    /// Starts a daemon without waiting.
    fn launch(&mut self, program: &Path, number: usize, bootstrap: &[&str]) -> Result<()> {
        let member = &mut self.members[number];
        let data = self.directory.path().join(member.host.name());
        let arguments = [&["--no-tun"], bootstrap].concat();
        let daemon = Daemon::launch(program, Some(&member.host), &data, &arguments)?;
        member.daemon = Some(daemon);
        Ok(())
    }

    /// Kills daemons without a word (SIGKILL).
    fn kill(&mut self, victims: &[usize]) -> Result<()> {
        for victim in victims {
            if let Some(mut daemon) = self.members[*victim].daemon.take() {
                daemon.process().kill9()?;
            }
        }
        Ok(())
    }

    /// Returns the numbers of those that were started and not killed.
    fn living(&self) -> Vec<usize> {
        let numbers = 0..self.members.len();
        numbers
            .filter(|number| self.members[*number].daemon.is_some())
            .collect()
    }

    /// Returns who has which id; only those that have told.
    fn ids(&self) -> BTreeMap<String, usize> {
        let ids = self
            .members
            .iter()
            .zip(0..)
            .filter_map(|(member, number)| Some((member.place()?.id, number)));
        ids.collect()
    }

    /// Returns where the living are; none as long as one does not tell.
    fn ring(&self) -> Option<Ring> {
        let places = self
            .living()
            .into_iter()
            .map(|number| self.members[number].locate());
        places.collect::<Option<Vec<_>>>().map(Ring::new)
    }

    /// Tells whether a living node knows whom it should.
    fn is_right(&self, number: usize, ring: &Ring, whom: Whom) -> bool {
        let member = &self.members[number];
        let said = member.place().zip(member.near());
        said.is_some_and(|(place, near)| ring.is_right(&place, &near, whom))
    }

    fn log(&self, number: usize) -> String {
        let daemon = self.members[number].daemon.as_ref();
        daemon.map(Daemon::log).unwrap_or_default()
    }

    /// What has passed the interface of each living daemon's host since it was made.
    fn octets(&self) -> Result<Vec<Octets>> {
        let hosts = self
            .living()
            .into_iter()
            .map(|number| &self.members[number].host);
        self.lab.octets(&hosts.collect::<Vec<_>>())
    }
}

impl Member {
    fn ask(&self, request: &Value) -> Result<Value> {
        let daemon = self.daemon.as_ref().context("it was killed")?;
        daemon.ask(request)
    }

    fn place(&self) -> Option<Place> {
        self.place.lock().ok()?.clone()
    }

    /// Returns where the node is; asks it the first time.
    fn locate(&self) -> Option<Place> {
        let mut known = self.place.lock().ok()?;
        if known.is_none() {
            let status = self.ask(&json!({ "request": "status" })).ok()?;
            *known = place(&status);
        }
        known.clone()
    }

    fn near(&self) -> Option<Vec<Place>> {
        let answer = self.ask(&json!({ "request": "peers" })).ok()?;
        let peers = answer["peers"].as_array()?;
        let near = peers.iter().filter(|peer| peer["role"] == "near");
        near.map(place).collect()
    }
}

/// Reads what `status` tells of a node, or `peers` of another.
fn place(node: &Value) -> Option<Place> {
    Some(Place {
        position: u64::from_str_radix(node["position"].as_str()?, 16).ok()?,
        id: node["node_id"].as_str()?.to_owned(),
    })
}

/// Does the same for every item, [`HANDS`] at a time; results are in the items' order.
fn together<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else {
                return done;
            };
            done.push((number, work(item)));
        }
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS).map(|_| scope.spawn(take)).collect();
        let done = hands.into_iter().map(thread::ScopedJoinHandle::join);
        // Only a panic of `work` can be joined in vain, and it has been told by then.
        done.filter_map(Result::ok).flatten().collect()
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_together_stays_in_order() {
        let numbers: Vec<u32> = (0..100).collect();
        let doubled = together(&numbers, |number| number * 2);
        assert_eq!(
            doubled,
            (0..100).map(|number| number * 2).collect::<Vec<_>>()
        );
        assert!(together(&[] as &[u32], |number| *number).is_empty());
    }

    #[test]
    fn places_are_read_as_the_daemon_writes_them() {
        let node = json!({ "node_id": "n1", "position": "8000000000000001" });
        let expected = Place {
            position: (1 << 63) + 1,
            id: "n1".to_owned(),
        };
        assert_eq!(place(&node), Some(expected));
        assert_eq!(place(&json!({ "node_id": "n1" })), None);
    }
}
