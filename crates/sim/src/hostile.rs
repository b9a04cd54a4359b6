//! Hostile nodes: the daemon's own node with its inputs and outputs altered.
//!
//! They live in the same world as honest ones, join like them, behave for a while, and turn
//! at a moment that they agreed on. They know each other and waste no words on it. What they
//! cannot do is what the protocol's proofs forbid everyone: speak for a key that they do not
//! have, or sign for others.
//!
//! | behaviour | what it does |
//! |---|---|
//! | drop | confirms what it should pass on, and forgets it |
//! | misroute | answers every routed question itself, as if it were in charge |
//! | lie | names accomplices, and nodes that it made up, for neighbours |
//! | withhold | confirms what it should keep, and has nothing when asked |
//! | grind | with a key chosen to sit at a target: withholds, and names accomplices only |
//! | flood | asks, greets and looks up without end |
//! | slander | passes messages on with forged silences: nobody near the target is said to confirm |

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::message::{Answer, Hello, Query, Reply, Returned, Routed};
use enishi_overlay::silence::{SILENCES_MAX, Silence, Silences};
use enishi_overlay::view::{Entry, Role, Snapshot, ViewUpdate};
use enishi_overlay::{
    Config, Contact, Coordinate, Keypair, Message, NodeId, OverlayId, Position, Rng, Time,
};
use enishi_services::dht::wire::{self, DhtMessage, Found, Outcome};
use enishi_services::service::ServiceId;
use enishi_services::{Command, Event, Node};

use crate::participant::{Birth, Effect, Input, Participant};
use crate::sorts;

/// How many accomplices a liar names.
const NAMED: usize = 8;
/// How many of them it makes up, and so sits nearer to a target than anybody.
const MADE_UP: usize = 2;
/// How many nodes a liar's view shows.
const VIEW_SHOWN: usize = 24;
/// How often, and how many messages at a time, a flooding node sends.
const FLOOD_INTERVAL: Duration = Duration::from_millis(200);
const FLOOD_BURST: usize = 6;

/// How a hostile node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Confirms what it should pass on, and forgets it.
    Drop,
    /// Answers every routed question itself.
    Misroute,
    /// Names accomplices and made-up nodes only.
    Lie,
    /// Confirms what it should keep, and has nothing when asked.
    Withhold,
    /// Withholds, names accomplices only, and has chosen its key.
    Grind,
    /// Asks, greets and looks up without end.
    Flood,
    /// Says of living nodes that they did not confirm.
    Slander,
}

impl Behaviour {
    /// Every behaviour.
    pub const ALL: [Self; 7] = [
        Self::Drop,
        Self::Misroute,
        Self::Lie,
        Self::Withhold,
        Self::Grind,
        Self::Flood,
        Self::Slander,
    ];

    /// Returns the name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Misroute => "misroute",
            Self::Lie => "lie",
            Self::Withhold => "withhold",
            Self::Grind => "grind",
            Self::Flood => "flood",
            Self::Slander => "slander",
        }
    }

    const fn withholds(self) -> bool {
        matches!(self, Self::Withhold | Self::Grind | Self::Misroute)
    }

    const fn names_accomplices(self) -> bool {
        matches!(self, Self::Lie | Self::Grind)
    }
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.name() == text);
        let names: Vec<&str> = Self::ALL.iter().map(|known| known.name()).collect();
        found.ok_or_else(|| {
            let names = names.join(", ");
            format!("there is no behaviour {text:?}; there are {names}")
        })
    }
}

/// What accomplices know together.
#[derive(Debug, Default)]
pub struct Gang {
    /// The accomplices with their places, by these.
    members: Vec<(Position, Contact)>,
    /// Whom to flood.
    victims: Vec<Contact>,
    /// Where these sit, in order.
    places: Vec<Position>,
}

impl Gang {
    /// Makes a gang of the accomplices, with the nodes that they flood.
    pub fn new(overlay: &OverlayId, members: &[Contact], victims: Vec<Contact>) -> Self {
        let place =
            |contact: &Contact| (Position::of_node(overlay, &contact.id()), contact.clone());
        let mut members: Vec<_> = members.iter().map(place).collect();
        members.sort_unstable_by_key(|(position, _)| *position);
        let place = |victim: &Contact| Position::of_node(overlay, &victim.id());
        let mut places: Vec<Position> = victims.iter().map(place).collect();
        places.sort_unstable();
        Self {
            members,
            victims,
            places,
        }
    }

    /// Returns the accomplices nearest to a place.
    fn nearest(&self, target: Position, count: usize) -> Vec<Entry> {
        let mut near: Vec<_> = self.members.iter().collect();
        near.sort_by_key(|(position, _)| target.rank(*position));
        let near = near.into_iter().take(count);
        near.map(|(_, contact)| entry(contact.clone())).collect()
    }

    /// Forges what makes everyone pass by the honest nodes nearest to a target.
    fn slander(&self, target: Position) -> Silences {
        let len = self.places.len();
        let at = self.places.partition_point(|place| *place < target);
        let reach = SILENCES_MAX.min(len);
        let around = (0..2 * reach).map(|i| self.places[(at + len + i - reach) % len]);
        let mut around: Vec<Position> = around.collect();
        around.sort_unstable_by_key(|place| target.rank(*place));
        around.dedup();
        let silent = |position| Silence {
            position,
            witnesses: u16::MAX,
        };
        around.into_iter().take(SILENCES_MAX).map(silent).collect()
    }
}

/// What may be asked of a node in a world with hostile ones.
#[derive(Debug)]
pub enum Ask {
    /// What its host asks.
    Host(Command),
    /// To turn hostile, together with others.
    Turn(Behaviour, Arc<Gang>),
}

#[derive(Debug)]
struct Turned {
    behaviour: Behaviour,
    gang: Arc<Gang>,
    flood_at: Option<Time>,
}

/// A node that may turn hostile.
#[derive(Debug)]
pub struct Subverted {
    node: Node,
    overlay: OverlayId,
    rng: Rng,
    turned: Option<Turned>,
}

type Effects = Vec<Effect<Subverted>>;

impl Subverted {
    /// Returns the node beneath.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns how it behaves; none while it is honest.
    pub fn behaviour(&self) -> Option<Behaviour> {
        self.turned.as_ref().map(|turned| turned.behaviour)
    }

    /// Takes a message before the node sees it; returns what the node is to see.
    fn intercept(&mut self, from: NodeId, message: Message, out: &mut Effects) -> Option<Message> {
        let Some(Turned {
            behaviour, gang, ..
        }) = &self.turned
        else {
            return Some(message);
        };
        let (behaviour, gang) = (*behaviour, Arc::clone(gang));
        match message {
            Message::Routed(routed) if behaviour == Behaviour::Drop => {
                out.push(say(from, Message::HopAck { hop: routed.hop }));
            }
            Message::Back { .. } if behaviour == Behaviour::Drop => {}
            Message::Routed(routed) if behaviour == Behaviour::Misroute => {
                out.push(say(from, Message::HopAck { hop: routed.hop }));
                out.push(self.answer_at_once(&routed, &gang));
            }
            Message::Find { nonce, target } if behaviour.names_accomplices() => {
                let nodes = self.invent(target, behaviour, &gang);
                out.push(say(from, Message::Found { nonce, nodes }));
            }
            Message::Direct { service, body } if behaviour.withholds() => {
                return self.pretend(from, service, body, out);
            }
            message => return Some(message),
        }
        None
    }

    /// Alters what the node is about to say.
    fn alter(&mut self, message: Message) -> Message {
        let Some(Turned {
            behaviour, gang, ..
        }) = &self.turned
        else {
            return message;
        };
        let (behaviour, gang) = (*behaviour, Arc::clone(gang));
        let me = self.node.id();
        match message {
            Message::Hello(hello) if behaviour.names_accomplices() => {
                Message::Hello(self.with_false_view(hello, &gang))
            }
            Message::Welcome(hello) if behaviour.names_accomplices() => {
                Message::Welcome(self.with_false_view(hello, &gang))
            }
            Message::ViewUpdate(update) if behaviour.names_accomplices() => {
                Message::ViewUpdate(self.false_view(update.version, &gang))
            }
            Message::Routed(routed) if behaviour == Behaviour::Slander => {
                let silences = gang.slander(routed.target);
                Message::Routed(Routed { silences, ..routed })
            }
            Message::Answer(answer) => Message::Answer(self.false_answer(answer, behaviour, &gang)),
            Message::Back {
                hop,
                by,
                returned: Returned::Answer(answer),
            } if by == me => {
                let answer = self.false_answer(answer, behaviour, &gang);
                let returned = Returned::Answer(answer);
                Message::Back { hop, by, returned }
            }
            message => message,
        }
    }

    fn answer_at_once(&self, routed: &Routed, gang: &Gang) -> Effect<Self> {
        let reply = match routed.query {
            Query::Nodes { .. } => Reply::Nodes(self.accomplices(routed.target, gang)),
            Query::Place { .. } | Query::Links { .. } => {
                Reply::Acquaintances(self.accomplices(routed.target, gang))
            }
            Query::Service { .. } | Query::Register { .. } => nothing(),
        };
        let message = Message::Answer(Answer {
            request: routed.request,
            hops: routed.hops,
            reply,
        });
        let to = routed.origin.clone();
        Effect::Send { to, message }
    }

    fn accomplices(&self, target: Position, gang: &Gang) -> Vec<Entry> {
        let mut nodes = gang.nearest(target, NAMED - 1);
        nodes.insert(0, entry(self.node.overlay().me().clone()));
        nodes
    }

    /// Does as if what others have kept here were kept.
    fn pretend(
        &self,
        from: NodeId,
        service: u8,
        body: Bytes,
        out: &mut Effects,
    ) -> Option<Message> {
        let known = (service == ServiceId::Dht as u8).then(|| DhtMessage::decode(&body));
        let Some(Ok(message)) = known else {
            return Some(Message::Direct { service, body });
        };
        let stored = |replicas| Outcome::Stored { replicas };
        let reply = match message {
            DhtMessage::Put { token, .. } => DhtMessage::PutReply {
                token,
                outcome: stored(6),
            },
            DhtMessage::Store { token, .. } | DhtMessage::Keep { token, .. } => {
                let outcome = stored(1);
                DhtMessage::StoreReply { token, outcome }
            }
            DhtMessage::Fetch { token, .. } => {
                let records = Vec::new();
                DhtMessage::FetchReply { token, records }
            }
            DhtMessage::Compare(_) | DhtMessage::Records { .. } | DhtMessage::Want { .. } => {
                return None;
            }
            DhtMessage::Near { token, .. } => {
                let nodes = Vec::new();
                DhtMessage::NearReply { token, nodes }
            }
            DhtMessage::PutReply { .. }
            | DhtMessage::NearReply { .. }
            | DhtMessage::StoreReply { .. }
            | DhtMessage::FetchReply { .. }
            | DhtMessage::Same { .. } => return Some(Message::Direct { service, body }),
        };
        let body = reply.encode().into();
        out.push(say(from, Message::Direct { service, body }));
        None
    }

    fn false_answer(&mut self, mut answer: Answer, behaviour: Behaviour, gang: &Gang) -> Answer {
        match &answer.reply {
            Reply::Service(_) if behaviour.withholds() => answer.reply = nothing(),
            Reply::Nodes(_) if behaviour.names_accomplices() => {
                let place = self.node.overlay().position();
                answer.reply = Reply::Nodes(self.invent(place, behaviour, gang));
            }
            Reply::Acquaintances(_) if behaviour.names_accomplices() => {
                let place = self.node.overlay().position();
                answer.reply = Reply::Acquaintances(self.invent(place, behaviour, gang));
            }
            Reply::Service(_) | Reply::Nodes(_) | Reply::Acquaintances(_) => {}
        }
        answer
    }

    /// Names accomplices near a place, and, to waste the asker's time, some who are not.
    fn invent(&mut self, target: Position, behaviour: Behaviour, gang: &Gang) -> Vec<Entry> {
        let mut nodes = gang.nearest(target, NAMED);
        if behaviour == Behaviour::Lie {
            nodes.truncate(NAMED - MADE_UP);
            nodes.extend((0..MADE_UP).map(|_| self.make_up(target)));
        }
        nodes
    }

    /// Makes up a node close to a place: any 32 octets are an id until it has to prove it.
    fn make_up(&mut self, target: Position) -> Entry {
        const CANDIDATES: usize = 64;
        let mut ids = (0..CANDIDATES).map(|_| NodeId::from_bytes(self.rng.octets()));
        let first = NodeId::from_bytes([0; 32]);
        let rank = |id: &NodeId| target.rank(Position::of_node(&self.overlay, id));
        let nearest = ids.by_ref().min_by_key(rank).unwrap_or(first);
        entry(Contact::new(nearest, []))
    }

    fn false_view(&mut self, version: u32, gang: &Gang) -> ViewUpdate {
        let count = gang.members.len() as u64;
        let drawn = (0..VIEW_SHOWN).filter_map(|_| {
            let index = self.rng.below(count.max(1)) as usize;
            gang.members.get(index)
        });
        let mut added: Vec<Entry> = drawn.map(|(_, contact)| entry(contact.clone())).collect();
        added.extend(gang.nearest(self.node.overlay().position(), NAMED));
        ViewUpdate {
            base: None,
            version,
            removed: Vec::new(),
            added,
            seated: Vec::new(),
            moved: Vec::new(),
            graded: Vec::new(),
            shared: Vec::new(),
            snapshot: Snapshot::default(),
        }
    }

    fn with_false_view(&mut self, hello: Hello, gang: &Gang) -> Hello {
        let view = hello.view.map(|view| self.false_view(view.version, gang));
        Hello { view, ..hello }
    }

    /// Sends what nobody needs to drawn nodes.
    fn flood(&mut self, now: Time, out: &mut Effects) {
        let Some(turned) = &mut self.turned else {
            return;
        };
        if turned.flood_at.is_none_or(|at| at > now) {
            return;
        }
        turned.flood_at = Some(now + FLOOD_INTERVAL);
        let victims = &turned.gang.victims;
        for number in 0..FLOOD_BURST {
            let drawn = self.rng.below(victims.len().max(1) as u64) as usize;
            let Some(to) = victims.get(drawn).cloned() else {
                return;
            };
            let (nonce, target) = (self.rng.number() as u32, self.rng.number());
            let target = Position::from_number(target);
            let me = self.node.overlay().me().clone();
            let message = match number % 3 {
                0 => Message::Find { nonce, target },
                1 => Message::Routed(question(nonce, me, target)),
                _ => Message::Hello(Hello {
                    nonce,
                    contact: me,
                    coordinate: Coordinate::default(),
                    grade: enishi_overlay::class::Grade::default(),
                    link: true,
                    view: None,
                }),
            };
            out.push(Effect::Send { to, message });
        }
    }

    fn turn(&mut self, now: Time, behaviour: Behaviour, gang: Arc<Gang>) {
        let floods = behaviour == Behaviour::Flood;
        self.turned = Some(Turned {
            behaviour,
            gang,
            flood_at: floods.then_some(now + FLOOD_INTERVAL),
        });
    }

    fn hand(&mut self, now: Time, input: Input<Node>, out: &mut Effects) {
        let effects: Vec<_> = Participant::handle(&mut self.node, now, input).collect();
        for effect in effects {
            out.push(match effect {
                Effect::Send { to, message } => {
                    let message = self.alter(message);
                    Effect::Send { to, message }
                }
                Effect::GiveUp(peer) => Effect::GiveUp(peer),
                Effect::Drop(peer) => Effect::Drop(peer),
                Effect::Event(event) => Effect::Event(event),
                Effect::Persist { key, value } => Effect::Persist { key, value },
            });
        }
    }
}

impl Participant for Subverted {
    type Message = Message;
    type Command = Ask;
    type Event = Event;
    type Key = (ServiceId, Vec<u8>);
    type Config = Config;

    fn new(birth: Birth, config: &Config) -> Self {
        let rng = Rng::from_seed(blake3::derive_key("enishi 1 simulated malice", &birth.seed));
        Self {
            node: <Node as Participant>::new(birth, &config.clone().into()),
            overlay: config.overlay,
            rng,
            turned: None,
        }
    }

    fn handle(&mut self, now: Time, input: Input<Self>) -> impl Iterator<Item = Effect<Self>> + '_ {
        let mut out = Effects::new();
        let input = match input {
            Input::Message { from, message } => {
                let message = self.intercept(from, message, &mut out);
                message.map(|message| Input::Message { from, message })
            }
            Input::Unreachable(peer) => Some(Input::Unreachable(peer)),
            Input::Bootstrap(contact) => Some(Input::Bootstrap(contact)),
            Input::Restored { key, value, age_s } => Some(Input::Restored { key, value, age_s }),
            Input::Command(Ask::Host(command)) => Some(Input::Command(command)),
            Input::Command(Ask::Turn(behaviour, gang)) => {
                self.turn(now, behaviour, gang);
                None
            }
            Input::Timeout => {
                self.flood(now, &mut out);
                Some(Input::Timeout)
            }
        };
        if let Some(input) = input {
            self.hand(now, input, &mut out);
        }
        out.into_iter()
    }

    fn next_timeout(&self) -> Option<Time> {
        let flood = self.turned.as_ref().and_then(|turned| turned.flood_at);
        let node = Participant::next_timeout(&self.node);
        node.into_iter().chain(flood).min()
    }

    fn encoded_len(message: &Message) -> usize {
        message.encoded_len()
    }

    fn sort(message: &Message) -> &'static str {
        sorts::sort(message)
    }
}

/// Chooses, among `candidates` keys, the `count` whose places are nearest to a target; the
/// work is one key pair for each candidate. Returns the secrets, nearest first.
pub fn grind(
    rng: &mut Rng,
    overlay: &OverlayId,
    target: Position,
    candidates: usize,
    count: usize,
) -> Vec<[u8; 32]> {
    let mut best: Vec<_> = Vec::with_capacity(count + 1);
    for _ in 0..candidates {
        let secret = rng.octets();
        let id = Keypair::from_seed(&secret).id();
        let rank = target.rank(Position::of_node(overlay, &id));
        let at = best.partition_point(|(other, _)| *other < rank);
        if at < count {
            best.insert(at, (rank, secret));
            best.truncate(count);
        }
    }
    best.into_iter().map(|(_, secret)| secret).collect()
}

fn say(to: NodeId, message: Message) -> Effect<Subverted> {
    let to = Contact::new(to, []);
    Effect::Send { to, message }
}

/// The answer of a holder that has nothing.
fn nothing() -> Reply {
    let records = Vec::new();
    Reply::Service(wire::encode(&Found::Records(records)).into())
}

fn question(number: u32, origin: Contact, target: Position) -> Routed {
    Routed {
        request: u64::from(number),
        origin,
        target,
        hops: 1,
        hop: number,
        toward: None,
        by_ring: false,
        silences: Silences::default(),
        straight: true,
        any: true,
        trace: false,
        query: Query::Nodes { count: 16 },
    }
}

fn entry(contact: Contact) -> Entry {
    Entry {
        contact,
        role: Role::Near,
        coordinate: Coordinate::default(),
        grade: enishi_overlay::class::Grade::default(),
    }
}
