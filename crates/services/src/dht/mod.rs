//! The distributed hash table: put, get and remove of signed, versioned, leased and
//! sealed records on the nodes nearest to their keys.
//!
//! **Put.** The owner asks the overlay who is in charge of the key and sends the record
//! there. The node in charge stores it, hands it to the other nodes nearest to the key
//! and acknowledges when a majority of all [`REPLICAS`] has it.
//!
//! **Get.** The question is routed to the node in charge, whose answer returns the same way;
//! with [`Consistency::Majority`], or when it has nothing, it asks the other
//! holders first. Who has the same already is told so and no more ([`wire::Summary`]): holders
//! among each other, and readers of what they have read before.
//!
//! **Sure gets and puts** find the holders over several disjoint paths and ask each of
//! them ([`sure`]): where somebody asks for it, and where a plain one found nothing or failed.
//!
//! **Repair.** Holders compare what they hold with each other, range by range, and hand
//! over what the other lacks: after every change among their neighbours, and now and
//! then without one ([`reconcile`]). The owner's own re-put at exponentially growing
//! intervals (document 004, section 3.5) is the backstop.
//!
//! | part | role |
//! |---|---|
//! | [`store`] | what this node holds: precedence, leases, quotas |
//! | `holder` | answers puts, gets and copies |
//! | `owner` | this node's own records: put, retry, re-put, remove |
//! | `reader` | this node's gets, and what it remembers of them |
//! | [`reconcile`] | repair among holders |
//! | `survey` | which nodes hold a key, for people |
//! | [`sure`] | gets and puts that hostile nodes cannot hide; confirmation over several paths |
//! | `votes` | what follows from what several holders show |
//! | [`wire`] | the messages |

mod holder;
mod owner;
mod reader;
pub mod reconcile;
pub mod store;
pub mod sure;
mod survey;
mod votes;
pub mod wire;

use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::message::Reply;
use enishi_overlay::{NodeId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::record::Key;
use crate::service::{Context, Service, ServiceInput};

pub use crate::calls::{
    Confirmation, Consistency, GetAnswer, PutAnswer, PutRequest, Subject, Verdict,
};
pub use survey::{Held, Holding};

use holder::Holder;
use owner::Owner;
use survey::Surveys;
use wire::DhtMessage;

/// On how many nodes a record is kept: the ones nearest to its key.
pub const REPLICAS: usize = 6;

/// How long after its start a node that knows of others waits for the first neighbour
/// before it takes itself for alone.
const SEEKING_MAX: Time = Time::from_secs(6);
/// The most commands that wait for that.
const EARLY_MAX: usize = 256;

/// Who asked for a put or get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// The host, with its number for the command.
    Host(u64),
    /// A service of this node, with its token.
    Service(crate::service::ServiceId, u64),
}

/// What may be asked of the DHT.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Reads.
    Get {
        /// Who wants to know.
        caller: Caller,
        /// Which record.
        key: Key,
        /// How sure.
        consistency: Consistency,
    },
    /// Asks which nodes hold a record; answered by [`Event::Surveyed`].
    Survey {
        /// The host's number for it.
        id: u64,
        /// Which record.
        key: Key,
    },
    /// Whether this node can keep what it stores for others.
    Storage {
        /// Without it, everything that would have to be kept is refused.
        works: bool,
    },
    /// Writes or removes.
    Put {
        /// Who wants to know.
        caller: Caller,
        /// What.
        request: Box<PutRequest>,
    },
    /// Writes or removes in the sure way ([`sure`]), now and whenever it is put again.
    PutSure {
        /// Who wants to know.
        caller: Caller,
        /// What.
        request: Box<PutRequest>,
    },
    /// Confirms something over several paths; answered by [`Event::Confirmed`].
    Confirm {
        /// Who wants to know.
        caller: Caller,
        /// What.
        subject: Subject,
        /// Over how many paths, 1 to [`enishi_overlay::overlay::PATHS_MAX`].
        paths: u8,
    },
}

/// What the DHT tells.
#[derive(Clone, Debug, Serialize)]
pub enum Event {
    /// A get ended.
    Got {
        /// Who asked.
        caller: Caller,
        /// What was found.
        answer: GetAnswer,
    },
    /// A put ended.
    PutDone {
        /// Who asked.
        caller: Caller,
        /// What came of it.
        answer: PutAnswer,
    },
    /// What the nodes nearest to a key hold, nearest first; none when no node is known.
    Surveyed {
        /// The host's number.
        id: u64,
        /// At most [`REPLICAS`].
        holdings: Vec<Holding>,
    },
    /// A confirmation ended.
    Confirmed {
        /// Who asked.
        caller: Caller,
        /// What was found.
        confirmation: Confirmation,
    },
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// A put of this node waits for its acknowledgement.
    Put(u64),
    /// This node as the one in charge waits for copies to be stored.
    Copy(u64),
    /// This node as the one in charge waits for what other holders have.
    Gather(u64),
    /// A sure get or put waits for nodes that were asked.
    Sure(u64),
    /// A record of this node's is due to be put again.
    Reput(Key, NodeId),
    /// Look for ended leases.
    Expire,
    /// The neighbours changed: compare with all other holders.
    Repair,
    /// Compare with one other holder.
    Compare,
    /// A survey has waited long enough for its present step.
    Survey(u64),
    /// Waiting for the first neighbour has lasted long enough.
    CatchUp,
}

/// The distributed hash table of one node.
#[derive(Debug)]
pub struct Dht {
    holder: Holder,
    owner: Owner,
    reader: reader::Reader,
    surveys: Surveys,
    sures: sure::Sures,
    /// The neighbours with whom all was compared since they became such.
    compared_with: BTreeSet<NodeId>,
    /// What was asked before the node had found its first neighbour.
    early: Vec<Command>,
    deadlines: Deadlines<Alarm>,
}

type Cx<'a> = Context<'a, Event>;

impl Dht {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self {
            holder: Holder::default(),
            owner: Owner::default(),
            reader: reader::Reader::default(),
            surveys: Surveys::default(),
            sures: sure::Sures::default(),
            compared_with: BTreeSet::new(),
            early: Vec::new(),
            deadlines: Deadlines::default(),
        }
    }

    /// Returns what this node holds for others.
    pub fn store(&self) -> &store::Store {
        &self.holder.store
    }

    /// Returns how many messages and questions could not be decoded.
    pub fn malformed(&self) -> u64 {
        self.holder.malformed
    }

    /// Returns how many records of its own this node keeps in the DHT.
    pub fn owned(&self) -> usize {
        self.owner.len()
    }

    fn receive(&mut self, from: NodeId, body: &[u8], cx: &mut Cx<'_>) {
        let Ok(message) = DhtMessage::decode(body) else {
            self.holder.malformed += 1;
            return;
        };
        match message {
            DhtMessage::Put { token, record } => self.on_put(from, token, &record, cx),
            DhtMessage::PutReply { token, outcome } => self.on_put_reply(from, token, outcome, cx),
            DhtMessage::Store { token, aged } => self.on_store(from, token, aged, cx),
            DhtMessage::StoreReply { token, outcome } => {
                self.on_store_reply(from, token, outcome, cx);
            }
            DhtMessage::Fetch { token, key, known } => {
                self.on_fetch(from, token, (key, known), cx);
            }
            DhtMessage::Same { token } => self.on_same(from, token, cx),
            DhtMessage::FetchReply { token, records } => {
                if !self.survey_replied(from, token, &records, cx) {
                    self.on_fetch_reply(from, token, records, cx);
                }
            }
            DhtMessage::Compare(compare) => self.on_compare(from, &compare, cx),
            DhtMessage::Want { items } => self.on_want(from, &items, cx),
            DhtMessage::Records { records } => self.on_records(from, records, cx),
            DhtMessage::Near { token, key } => survey::answer_near(from, token, key, cx),
            DhtMessage::NearReply { token, nodes } => self.survey_widened(from, token, &nodes, cx),
            DhtMessage::Keep { token, record } => self.on_keep(from, token, record, cx),
        }
    }

    fn ring(&mut self, alarm: Alarm, cx: &mut Cx<'_>) {
        match alarm {
            Alarm::Put(id) => self.put_timed_out(id, cx),
            Alarm::Copy(id) => self.copy_timed_out(id, cx),
            Alarm::Gather(id) => self.gather_timed_out(id, cx),
            Alarm::Sure(id) => self.sure_timed_out(id, cx),
            Alarm::Reput(key, owner) => self.put_again(key, owner, cx),
            Alarm::Expire => self.expire(cx),
            Alarm::Repair => self.repair(cx),
            Alarm::Compare => self.compare_with_one(cx),
            Alarm::Survey(token) => self.survey_timed_out(token, cx),
            Alarm::CatchUp => self.catch_up(cx),
        }
    }

    fn command(&mut self, command: Command, cx: &mut Cx<'_>) {
        let overlay = cx.overlay();
        let seeking = overlay.is_alone() && overlay.is_seeking();
        let early = seeking && cx.now() < SEEKING_MAX && self.early.len() < EARLY_MAX;
        if early && !matches!(command, Command::Storage { .. }) {
            // Alone for the moment: what this node has, or lacks, means nothing yet.
            self.deadlines.set_no_later(Alarm::CatchUp, SEEKING_MAX);
            return self.early.push(command);
        }
        match command {
            Command::Get {
                caller,
                key,
                consistency,
            } => self.start_get(caller, key, consistency, cx),
            Command::Put { caller, request } => self.start_put(caller, *request, false, cx),
            Command::PutSure { caller, request } => self.start_put(caller, *request, true, cx),
            Command::Confirm {
                caller,
                subject,
                paths,
            } => self.start_sure(sure::Purpose::Confirm(caller, subject, paths), cx),
            Command::Survey { id, key } => self.start_survey(id, key, cx),
            Command::Storage { works } => self.holder.refusing = !works,
        }
    }

    /// Carries out what was asked too early.
    fn catch_up(&mut self, cx: &mut Cx<'_>) {
        self.deadlines.cancel(Alarm::CatchUp);
        for command in std::mem::take(&mut self.early) {
            self.command(command, cx);
        }
    }
}

impl Default for Dht {
    fn default() -> Self {
        Self::new()
    }
}

impl Service for Dht {
    type Command = Command;
    type Event = Event;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        self.start_upkeep(cx);
        match input {
            ServiceInput::Command(command) => self.command(command, cx),
            ServiceInput::Direct { from, body } => self.receive(from, &body, cx),
            ServiceInput::Asked { asker, body, .. } => self.on_question(asker, &body, cx),
            ServiceInput::Answered {
                token,
                reply: Reply::Nodes(nodes),
                ..
            } => {
                if !self.survey_located(token, &nodes, cx) {
                    self.put_located(token, &nodes, cx);
                }
            }
            ServiceInput::Answered {
                token,
                reply: Reply::Service(body),
                ..
            } => {
                self.get_answered(token, &body, cx);
            }
            // The overlay's own affair: it does not come here.
            ServiceInput::Answered {
                reply: Reply::Acquaintances(_),
                ..
            } => {}
            ServiceInput::Failed { token } => {
                if !self.survey_located(token, &[], cx) {
                    self.call_failed(token, cx);
                }
            }
            ServiceInput::Restored { key, value, age_s } => {
                self.restore(&key, &value, age_s, cx);
            }
            ServiceInput::NeighboursChanged => {
                self.catch_up(cx);
                self.neighbours_changed(cx);
            }
            ServiceInput::Searched {
                token,
                found,
                ends,
                asked,
            } => self.searched(token, found, ends, asked, cx),
            ServiceInput::Gone(_)
            | ServiceInput::AddressesChanged
            | ServiceInput::Heard(_)
            | ServiceInput::Receipts { .. }
            | ServiceInput::HopReport { .. }
            | ServiceInput::Got { .. }
            | ServiceInput::PutDone { .. }
            | ServiceInput::Timeout => {}
        }
        while let Some(alarm) = self.deadlines.pop_due(cx.now()) {
            self.ring(alarm, cx);
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }
}
