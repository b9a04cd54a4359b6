//! Which nodes hold a key: a question of people, not of services.
//!
//! The node in charge is located and asked which nodes are nearest to the key; each of
//! these is asked for what it has. A node that answers with a properly signed record under
//! the key holds it; nobody is taken at another's word. Which nodes are nearest is the
//! word of the node in charge, and that of those that the overlay names.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::overlay::Manner;
use enishi_overlay::view::Entry;
use enishi_overlay::{Contact, NodeId};
use serde::Serialize;

use super::wire::{Aged, DhtMessage};
use super::{Alarm, Cx, Dht, Event, REPLICAS};
use crate::record::Key;

/// The most surveys at once.
const SURVEYS_MAX: usize = 16;
/// How long the node in charge is waited for, once it is known.
const NEAR_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the nodes are waited for: some may have to be dialled.
const FETCH_TIMEOUT: Duration = Duration::from_secs(6);

/// What one of the nodes nearest to a key has under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The node.
    pub node: NodeId,
    /// What it has.
    pub held: Held,
}

/// What a node has under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Held {
    /// A value.
    Value {
        /// Its version; of several owners' the highest.
        seq: u64,
        /// Seconds since its owner was last heard, as the node says.
        age_s: u32,
    },
    /// Only the mark of a removal.
    Removed,
    /// Nothing.
    Nothing,
    /// It did not answer in time.
    Silent,
}

#[derive(Debug)]
struct Survey {
    id: u64,
    key: Key,
    /// The question for the nodes near the key.
    question: u64,
    /// The node that was asked which ones are the nearest.
    in_charge: Option<NodeId>,
    nodes: BTreeMap<NodeId, Contact>,
    asked: Vec<Holding>,
}

/// The surveys under way, by the token of their alarms and fetches.
#[derive(Debug, Default)]
pub(super) struct Surveys(BTreeMap<u64, Survey>);

impl Dht {
    pub(super) fn start_survey(&mut self, id: u64, key: Key, cx: &mut Cx<'_>) {
        if self.surveys.0.len() >= SURVEYS_MAX {
            let holdings = Vec::new();
            return cx.emit(Event::Surveyed { id, holdings });
        }
        let (token, question) = (self.holder.token(), self.holder.token());
        let survey = Survey {
            id,
            key,
            question,
            in_charge: None,
            nodes: BTreeMap::new(),
            asked: Vec::new(),
        };
        self.surveys.0.insert(token, survey);
        // Answered or given up by the overlay within ten seconds.
        cx.locate(question, key.position(), Manner::EXACT);
    }

    /// Takes in which nodes are near; tells whether a survey had asked. Without nodes the
    /// question failed.
    pub(super) fn survey_located(
        &mut self,
        question: u64,
        nodes: &[Entry],
        cx: &mut Cx<'_>,
    ) -> bool {
        let mut surveys = self.surveys.0.iter_mut();
        let asking = surveys.find(|(_, survey)| survey.question == question);
        let Some((token, survey)) = asking else {
            return false;
        };
        let (token, key) = (*token, survey.key);
        survey.take_in(nodes.iter().map(|entry| &entry.contact));
        match nodes.first().map(|entry| &entry.contact) {
            Some(contact) => {
                survey.in_charge = Some(contact.id());
                self.deadlines
                    .set(Alarm::Survey(token), cx.now() + NEAR_TIMEOUT);
                cx.send(contact.clone(), DhtMessage::Near { token, key }.encode());
            }
            None => self.end_survey(token, cx),
        }
        true
    }

    /// The node in charge has told which nodes are the nearest.
    pub(super) fn survey_widened(
        &mut self,
        from: NodeId,
        token: u64,
        nodes: &[Contact],
        cx: &mut Cx<'_>,
    ) {
        let survey = self.surveys.0.get_mut(&token);
        let awaited = survey.filter(|s| s.in_charge == Some(from) && s.asked.is_empty());
        if let Some(survey) = awaited {
            survey.take_in(nodes.iter());
            self.ask_holders(token, cx);
        }
    }

    fn ask_holders(&mut self, token: u64, cx: &mut Cx<'_>) {
        let Some(survey) = self.surveys.0.get_mut(&token) else {
            return;
        };
        let key = survey.key;
        let rank = |node: &NodeId| key.position().rank(cx.overlay().position_of(node));
        let mut nearest: Vec<Contact> = survey.nodes.values().cloned().collect();
        nearest.sort_by_key(|contact| (rank(&contact.id()), contact.id()));
        nearest.truncate(REPLICAS);
        survey.asked = nearest
            .iter()
            .map(|contact| Holding {
                node: contact.id(),
                held: Held::Silent,
            })
            .collect();
        if nearest.is_empty() {
            return self.end_survey(token, cx);
        }
        self.deadlines
            .set(Alarm::Survey(token), cx.now() + FETCH_TIMEOUT);
        for contact in nearest {
            cx.send(
                contact,
                DhtMessage::Fetch {
                    token,
                    key,
                    known: None,
                }
                .encode(),
            );
        }
    }

    /// Takes in what a node has; tells whether a survey had asked.
    pub(super) fn survey_replied(
        &mut self,
        from: NodeId,
        token: u64,
        records: &[Aged],
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(survey) = self.surveys.0.get_mut(&token) else {
            return false;
        };
        let key = survey.key;
        if let Some(asked) = survey.asked.iter_mut().find(|asked| asked.node == from) {
            asked.held = held(key, records);
        }
        let waiting = survey.asked.iter().any(|asked| asked.held == Held::Silent);
        if !waiting {
            self.end_survey(token, cx);
        }
        true
    }

    pub(super) fn survey_timed_out(&mut self, token: u64, cx: &mut Cx<'_>) {
        let survey = self.surveys.0.get(&token);
        if survey.is_some_and(|survey| survey.asked.is_empty()) {
            self.ask_holders(token, cx);
        } else {
            self.end_survey(token, cx);
        }
    }

    fn end_survey(&mut self, token: u64, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::Survey(token));
        if let Some(Survey { id, asked, .. }) = self.surveys.0.remove(&token) {
            let holdings = asked;
            cx.emit(Event::Surveyed { id, holdings });
        }
    }
}

impl Survey {
    fn take_in<'a>(&mut self, nodes: impl Iterator<Item = &'a Contact>) {
        for contact in nodes {
            self.nodes
                .entry(contact.id())
                .or_insert_with(|| contact.clone());
        }
    }
}

/// Tells who asks which nodes are nearest to a key, as far as this one can see.
pub(super) fn answer_near(from: NodeId, token: u64, key: Key, cx: &mut Cx<'_>) {
    let overlay = cx.overlay();
    let nearest = overlay.near().nearest(key.position(), REPLICAS);
    let nodes = nearest
        .iter()
        .filter_map(|place| overlay.contact_of(place.id));
    let nodes = nodes.collect();
    cx.send_to(from, DhtMessage::NearReply { token, nodes }.encode());
}

/// Tells what a node has by what it sent.
fn held(key: Key, records: &[Aged]) -> Held {
    let genuine = |aged: &&Aged| aged.record.key() == key && aged.record.verify();
    let (removed, live): (Vec<&Aged>, Vec<&Aged>) = records
        .iter()
        .filter(genuine)
        .partition(|aged| aged.record.content().removed);
    match live.iter().max_by_key(|aged| aged.record.content().seq) {
        Some(aged) => Held::Value {
            seq: aged.record.content().seq,
            age_s: aged.age_s,
        },
        None if removed.is_empty() => Held::Nothing,
        None => Held::Removed,
    }
}
