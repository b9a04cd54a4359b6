//! The values of a crowd: stored by all, held by six each, read by others.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::story::Story;
use super::{Crowd, LOOK_INTERVAL, together};

/// On how many nodes a value is kept.
pub(super) const REPLICAS: usize = 6;

/// How long holders keep a value without its owner.
const LEASE_S: u32 = 86_400;

/// By how many daemons each value is read at the end.
const READERS: usize = 3;

/// How often each of them tries.
const READINGS_MAX: usize = 2;

/// A value that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) number: usize,
    /// Who holds it, by number.
    pub(super) holders: Vec<usize>,
}

impl Stored {
    /// Returns the key of a value.
    pub(super) fn key(&self) -> String {
        key(self.number)
    }
}

/// Stores values, each from another daemon than the one before; returns the numbers of
/// those that were acknowledged.
pub(super) fn store(crowd: &Crowd, values: usize, story: &mut Story) -> Result<Vec<usize>> {
    let numbers: Vec<usize> = (0..values).collect();
    let answers = together(&numbers, |number| {
        let request = json!({
            "request": "dht_put",
            "key": key(*number),
            "value": value(*number),
            "lease_s": LEASE_S,
        });
        let started = Instant::now();
        let answer = crowd.members[putter(crowd, *number)].ask(&request);
        (answer.map(drop), started.elapsed().as_secs_f64() * 1e3)
    });
    let mut acknowledged = Vec::new();
    for ((answer, took_ms), number) in answers.into_iter().zip(numbers) {
        match answer {
            Ok(()) => {
                acknowledged.push(number);
                story.put_ms.push(took_ms);
            }
            Err(error) => eprintln!("value {number} was not stored: {error:#}"),
        }
    }
    story.acknowledged = acknowledged.len();
    ensure!(!acknowledged.is_empty(), "no value was stored");
    Ok(acknowledged)
}

/// Waits until every value is on `needed` living nodes; returns who they are.
pub(super) fn await_holders(
    crowd: &Crowd,
    numbers: Vec<usize>,
    needed: usize,
    patience: Duration,
) -> Result<Vec<Stored>> {
    let started = Instant::now();
    let (mut scarce, mut enough) = (numbers, Vec::new());
    loop {
        let (held, still) = survey(crowd, &scarce)
            .into_iter()
            .partition(|stored| stored.holders.len() >= needed);
        enough.extend::<Vec<Stored>>(held);
        if still.is_empty() {
            enough.sort_by_key(|stored| stored.number);
            return Ok(enough);
        }
        let (waited, left) = (started.elapsed(), still.len());
        ensure!(
            waited < patience,
            "after {waited:?} {left} values are on fewer than {needed} living nodes: {still:?}"
        );
        scarce = still.iter().map(|stored| stored.number).collect();
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Reads every value at several daemons; what was put at one that was killed, at others.
pub(super) fn read(crowd: &Crowd, left: &[Stored], story: &mut Story) {
    let living = crowd.living();
    let reading = |number: usize, reader: usize| {
        let at = living[(number + reader * living.len() / READERS) % living.len()];
        let request = json!({ "request": "dht_get", "key": key(number) });
        (0..READINGS_MAX).find(|_| {
            let answer = crowd.members[at].ask(&request);
            answer.is_ok_and(|answer| answer["value"] == value(number))
        })
    };
    let attempts = together(left, |stored| {
        [0, 1, 2].map(|reader: usize| reading(stored.number, reader))
    });
    let is_lost = |attempts: &[Option<usize>; READERS]| attempts.iter().all(Option::is_none);
    let all = || attempts.iter().flatten();
    story.lost = attempts.iter().filter(|attempts| is_lost(attempts)).count();
    story.readings = all().count();
    story.misread = all().filter(|attempt| attempt.is_none()).count();
    story.read_late = all().flatten().filter(|attempt| **attempt > 0).count();
    let put_by_killed = |stored: &Stored| !living.contains(&putter(crowd, stored.number));
    let each = left.iter().zip(&attempts);
    let of_killed: Vec<_> = each.filter(|(stored, _)| put_by_killed(stored)).collect();
    story.of_killed = of_killed.len();
    let lost_of_killed = of_killed.iter().filter(|(_, attempts)| is_lost(attempts));
    story.lost_of_killed = lost_of_killed.count();
}

/// Asks who holds each value; of one where nobody tells, nobody is noted.
fn survey(crowd: &Crowd, numbers: &[usize]) -> Vec<Stored> {
    let (living, ids) = (crowd.living(), crowd.ids());
    together(numbers, |number| {
        let asker = living[number % living.len()];
        let target = format!("key:{}", key(*number));
        let request = json!({ "request": "trace", "target": target, "probes": 1 });
        let answer = crowd.members[asker].ask(&request).unwrap_or_default();
        let mut holders = holders(&answer, &ids);
        holders.retain(|holder| living.contains(holder));
        Stored {
            number: *number,
            holders,
        }
    })
}

/// Reads from the end of a trace who holds its key.
fn holders(answer: &Value, ids: &BTreeMap<String, usize>) -> Vec<usize> {
    let holders = answer["holders"].as_array().map_or(&[][..], Vec::as_slice);
    let with = holders.iter().filter(|holder| holder["held"] == "value");
    with.filter_map(|holder| ids.get(holder["node_id"].as_str()?).copied())
        .collect()
}

/// At which daemon a value is put.
fn putter(crowd: &Crowd, number: usize) -> usize {
    number % crowd.members.len()
}

fn key(number: usize) -> String {
    format!("key {number}")
}

/// A value as the control interface writes it.
fn value(number: usize) -> Value {
    json!(format!("value {number}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_with_a_value_are_holders() {
        let ids = BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), 1)]);
        let answer = json!({ "holders": [
            { "node_id": "a", "held": "nothing" },
            { "node_id": "b", "held": "value", "seq": 1, "age_s": 0 },
            { "node_id": "stranger", "held": "value", "seq": 1, "age_s": 0 },
        ] });
        assert_eq!(holders(&answer, &ids), [1]);
        assert!(holders(&json!({}), &ids).is_empty());
    }
}
