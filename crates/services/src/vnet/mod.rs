//! The control of virtual networks: channels, addresses, members, and the way of IP
//! packets between two of them.
//!
//! A channel is a virtual IP network of a group (document 004, section 4.2). This
//! service claims an address in it through the DHT (algorithm 2, with leases and
//! compare-and-swap in place of put and hope), finds who has an address (algorithm 3),
//! and agrees with that node to exchange packets. The packets themselves do not pass
//! here: the host forwards them by the tables that the events of this service fill.
//!
//! | part | does |
//! |---|---|
//! | [`network`] | the numbers |
//! | [`secret`] | what follows from a channel's secret |
//! | `claim` | get and keep an address |
//! | `hosted` | addresses held for others |
//! | `members` | who is in the channel |
//! | `directory` | in which page of the directory |
//! | `resolve` | who has this address |
//! | `settle` | whose an address is, before that is believed |
//! | `attach` | open the way to a member |
//! | `agreement` | keys for its packets |
//! | `pace` | how much one node may make this one do |
//! | [`charter`] | what the administrators of a governed channel have decided |
//! | `government` | by what nodes are its members |
//! | [`invitation`] | how they become so |
//! | `succession` | how the charter and the channel's secret change |
//! | [`access`] | who may reach what |
//! | [`broadcast`] | packets to all |
//! | [`routes`], [`beyond`] | networks behind members |
//! | [`wire`] | the messages |

pub mod access;
mod agreement;
mod attach;
pub mod beyond;
pub mod broadcast;
mod channel;
pub mod charter;
mod claim;
mod directory;
mod government;
mod hosted;
pub mod invitation;
mod members;
pub mod network;
mod opening;
mod pace;
mod resolve;
pub mod routes;
pub mod secret;
mod settle;
mod succession;
mod uses;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::{NodeId, Time};
use serde::{Deserialize, Serialize};

use crate::keys::Secret;
use crate::pace::Pace;
use crate::service::{Context, Service, ServiceInput};

use access::{Permits, Rule};
pub use agreement::Agreement;
use beyond::{Accepted, Route};
use broadcast::Count;
pub use channel::{Channel, Phase};
pub use government::{Entry, Guest};
use invitation::Terms;
pub use network::{Network, NetworkError};
use routes::Prefix;
pub use secret::secret_from_password;
use wire::{Claim, Mark, Offers, VnetMessage};

/// The largest IP packet on a virtual network, in octets: sealed and within IPv6 and UDP it
/// fits what Ethernet carries, as with WireGuard.
pub const MTU: u16 = 1420;
/// The most channels of one node.
pub const CHANNELS_MAX: usize = 64;

/// The number of a channel on this node, for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelId(pub u32);

/// What names a channel and lets one in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChannelSpec {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: Network,
    /// Its secret.
    #[serde(with = "crate::recording::secret")]
    pub secret: Secret,
    /// By what this node is a member.
    pub entry: Entry,
}

/// What may be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Take part in a channel, or in one that exists by name already with the same
    /// secret; [`Event::Claimed`] or [`Event::ClaimFailed`] follows.
    Open {
        /// Which channel.
        spec: ChannelSpec,
        /// The address to claim instead of a random one.
        address: Option<Ipv4Addr>,
    },
    /// Take part no longer, and give the address back.
    Close(ChannelId),
    /// Find who has an address, and open the way; [`Event::Attached`] or
    /// [`Event::Unresolved`] follows.
    Resolve {
        /// In which channel.
        channel: ChannelId,
        /// Which address.
        address: IpAddr,
    },
    /// A datagram with an index that is not in use came from this node.
    UnknownIndex {
        /// From whom.
        from: NodeId,
        /// The index.
        index: u32,
    },
    /// Agree on new keys with a member: those in use are old or used up.
    Renew {
        /// In which channel.
        channel: ChannelId,
        /// With whom.
        peer: NodeId,
    },
    /// This is where this node takes datagrams, and whether it has AES in hardware. Members
    /// with which packets are exchanged are told of other addresses.
    Ways {
        /// Where.
        candidates: Vec<SocketAddr>,
        /// Whether.
        aes: bool,
    },
    /// Make an invitation to a governed channel; [`Event::Invited`] follows.
    Invite {
        /// To which channel.
        channel: ChannelId,
        /// How it is to be.
        terms: Terms,
    },
    /// End an invitation, and renew the channel's secret; [`Event::Withdrawn`] follows if this
    /// node has made it.
    Revoke {
        /// To which channel.
        channel: ChannelId,
        /// Its name.
        invitation: NodeId,
    },
    /// Remove a member, and renew the channel's secret.
    Remove {
        /// From which channel.
        channel: ChannelId,
        /// Which node.
        node: NodeId,
    },
    /// Make a node an administrator, or one no longer.
    Appoint {
        /// Of which channel.
        channel: ChannelId,
        /// Which node.
        node: NodeId,
        /// Whether it is to be one.
        admin: bool,
    },
    /// Give a role to a node, or take it away.
    Assign {
        /// In which channel.
        channel: ChannelId,
        /// Which node.
        node: NodeId,
        /// Which role; none to take it away.
        role: Option<String>,
    },
    /// Say who may reach what, in place of what was said before.
    Rule {
        /// In which channel.
        channel: ChannelId,
        /// The rules; everybody may reach everything when there is none.
        rules: Vec<Rule>,
    },
    /// Send a packet to all members: broadcast, or multicast.
    Broadcast {
        /// In which channel.
        channel: ChannelId,
        /// The packet, at most [`broadcast::BROADCAST_BYTES_MAX`] octets.
        packet: Bytes,
    },
    /// Count whom a message to all reaches; [`Event::Counted`] follows.
    Count(ChannelId),
    /// Use networks behind members, in place of those before; [`Event::Routed`] follows.
    Accept {
        /// In which channel.
        channel: ChannelId,
        /// Which.
        accepted: Accepted,
    },
    /// Say what this node offers to the others, in place of what it said before. The addresses
    /// that it holds for others stay as they are.
    Offer {
        /// In which channel.
        channel: ChannelId,
        /// What.
        offers: Offers,
    },
    /// Hold one more address, for somebody who takes part by way of this node;
    /// [`Event::Hosting`] or [`Event::HostFailed`] follows.
    Host(ChannelId),
    /// Give such an address back.
    Dismiss {
        /// In which channel.
        channel: ChannelId,
        /// Which.
        address: Ipv4Addr,
    },
    /// The node is about to stop: tell those with whom packets are exchanged.
    Suspend,
    /// A node was restarted: it does not have the keys any more by which packets were exchanged
    /// with it.
    Restarted(NodeId),
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// The address is this node's; the device can be set up, or changed.
    Claimed {
        /// In which channel.
        channel: ChannelId,
        /// The address.
        address: Ipv4Addr,
        /// The IPv6 address.
        address6: Ipv6Addr,
    },
    /// No address could be had.
    ClaimFailed {
        /// In which channel.
        channel: ChannelId,
        /// Why, for people.
        reason: String,
    },
    /// The address is lost to an earlier claim and another is being looked for.
    Displaced {
        /// In which channel.
        channel: ChannelId,
        /// The address that was lost.
        address: Ipv4Addr,
    },
    /// Packets may be exchanged with a member, with these keys.
    Attached {
        /// In which channel.
        channel: ChannelId,
        /// The member.
        peer: NodeId,
        /// Its addresses, its own first, and those that it holds for others: where packets to
        /// it go, and what may come from it.
        addresses: Vec<IpAddr>,
        /// What may pass; none for everything.
        permits: Option<Permits>,
        /// How to seal them, and where to send them.
        agreement: Agreement,
    },
    /// A member with which packets are exchanged has other addresses.
    Addressed {
        /// In which channel.
        channel: ChannelId,
        /// The member.
        peer: NodeId,
        /// All its addresses, as in [`Event::Attached`].
        addresses: Vec<IpAddr>,
    },
    /// Packets may no longer be exchanged with a member.
    Detached {
        /// In which channel.
        channel: ChannelId,
        /// The member.
        peer: NodeId,
    },
    /// The session with a member ended, or it was restarted: packets to it need a new agreement.
    /// It may not know yet, and what it has sent may still come.
    Lapsed {
        /// In which channel.
        channel: ChannelId,
        /// The member.
        peer: NodeId,
        /// Whether it was not restarted, and so may take packets by the old agreement for a while.
        may_hear: bool,
    },
    /// Nobody has the address, or its holder does not answer.
    Unresolved {
        /// In which channel.
        channel: ChannelId,
        /// The address.
        address: IpAddr,
    },
    /// What may pass between this node and a member is another.
    Permitted {
        /// In which channel.
        channel: ChannelId,
        /// The member.
        peer: NodeId,
        /// What may pass; none for everything.
        permits: Option<Permits>,
    },
    /// A member has sent a packet to all, and it may pass.
    Broadcast {
        /// In which channel.
        channel: ChannelId,
        /// The packet.
        packet: Bytes,
    },
    /// Whom a message to all has reached.
    Counted {
        /// In which channel.
        channel: ChannelId,
        /// How many; none when it could not be sent.
        count: Option<Count>,
    },
    /// Networks are reached by way of others, or others are behind this node, than before.
    Routed {
        /// In which channel.
        channel: ChannelId,
        /// Which networks are reached by way of whom.
        routes: Vec<Route>,
        /// Which are behind this node.
        behind: Vec<Prefix>,
        /// Whether a person has everything go by way of a member: what finds no way there is
        /// to go nowhere, also while the member offers none.
        exit: bool,
    },
    /// The addresses that this node holds for others.
    Hosting {
        /// In which channel.
        channel: ChannelId,
        /// All of them, each with its IPv6 address.
        addresses: Vec<[IpAddr; 2]>,
    },
    /// No further address could be had for somebody else.
    HostFailed {
        /// In which channel.
        channel: ChannelId,
        /// Why, for people.
        reason: String,
    },
    /// An invitation can be used, or could not be stored.
    Invited {
        /// To which channel.
        channel: ChannelId,
        /// Its name.
        invitation: NodeId,
        /// Whether it can be used.
        stored: bool,
    },
    /// An invitation that this node has made has ended, and its mail was to be taken away.
    Withdrawn {
        /// To which channel.
        channel: ChannelId,
        /// Its name.
        invitation: NodeId,
        /// Whether a majority of those who kept the mail know; otherwise this node goes on
        /// telling them.
        gone: bool,
    },
    /// The channel has another charter.
    Governed(ChannelId),
    /// The channel is closed.
    Closed(ChannelId),
}

/// What a call to the DHT is for.
#[derive(Clone, Debug)]
enum Purpose {
    /// Is the address free?
    Probe(ChannelId),
    /// Claim it.
    Claim(ChannelId),
    /// Is it really ours?
    Confirm(ChannelId),
    /// Is it still ours?
    Check(ChannelId),
    /// Who has it?
    Resolve(ChannelId, IpAddr),
    /// Does the member that wants to exchange packets have its address?
    Verify(ChannelId, NodeId),
    /// An address that a node holds for somebody else.
    Hosted(ChannelId, hosted::Step),
    /// Who are the members? Asked in a pass, for a page.
    Members(ChannelId, (u32, u8)),
    /// Is a member that is in no page of the directory there?
    Doubt(ChannelId, NodeId, (u32, Ipv4Addr)),
    /// Whose is an address that somebody speaks from, or claims beside another?
    Settle(ChannelId, IpAddr),
    /// Where is the member now?
    Locate(ChannelId, NodeId),
    /// Where is an administrator that may have a newer charter?
    Find(ChannelId, NodeId),
    /// Whom does a message to all reach?
    Count(ChannelId),
    /// An invitation's mail.
    Mail(ChannelId, NodeId),
    /// That there is none any more.
    Withdrawal(ChannelId, NodeId),
    /// Nothing depends on it.
    Nothing,
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// Begin to claim, or go on after a failure.
    Claim(ChannelId),
    /// See whether the address is still ours.
    Check(ChannelId),
    /// See who the members are.
    Members(ChannelId),
    /// A member does not answer the wish to exchange packets.
    Attach(ChannelId, NodeId),
    /// Look up more of the addresses that a member holds for others.
    Hosted(ChannelId, NodeId),
    /// An invitation ends.
    Invitations(ChannelId),
    /// Entries in older directories are not needed any more.
    OldEntries(ChannelId),
    /// See who uses the keys of invitations.
    Uses(ChannelId),
    /// See whether routers live.
    Routers(ChannelId),
}

impl Alarm {
    /// All that a channel has besides those of its members.
    fn of_channel(id: ChannelId) -> [Self; 7] {
        [
            Self::Claim(id),
            Self::Check(id),
            Self::Members(id),
            Self::Invitations(id),
            Self::OldEntries(id),
            Self::Uses(id),
            Self::Routers(id),
        ]
    }
}

/// The virtual networks of one node.
#[derive(Debug)]
pub struct Vnet {
    host_name: String,
    channels: BTreeMap<ChannelId, Channel>,
    next_channel: u32,
    next_token: u64,
    purposes: BTreeMap<u64, Purpose>,
    deadlines: Deadlines<Alarm>,
    unknown_indices: BTreeMap<NodeId, Time>,
    /// When members were last sent a charter, and which.
    charters_sent: BTreeMap<(ChannelId, NodeId), (Time, Mark)>,
    /// Where this node takes datagrams, and whether it has AES in hardware.
    ways: (Vec<SocketAddr>, bool),
    /// What other nodes may still say, and ask the DHT by way of this one.
    messages: Pace,
    lookups: Pace,
    hosted_lookups: Pace,
    malformed: u64,
}

type Cx<'a> = Context<'a, Event>;

impl Vnet {
    /// Makes the service without any channel. The host's name is cut to
    /// [`wire::HOST_NAME_BYTES_MAX`] octets.
    pub fn new(mut host_name: String) -> Self {
        while host_name.len() > wire::HOST_NAME_BYTES_MAX {
            host_name.pop();
        }
        Self {
            host_name,
            channels: BTreeMap::new(),
            next_channel: 0,
            next_token: 0,
            purposes: BTreeMap::new(),
            deadlines: Deadlines::default(),
            unknown_indices: BTreeMap::new(),
            charters_sent: BTreeMap::new(),
            ways: (Vec::new(), false),
            messages: Pace::new(pace::MESSAGES),
            lookups: Pace::new(pace::LOOKUPS),
            hosted_lookups: Pace::new(pace::HOSTED_LOOKUPS),
            malformed: 0,
        }
    }

    /// Returns the channels.
    pub fn channels(&self) -> impl Iterator<Item = (ChannelId, &Channel)> {
        self.channels.iter().map(|(id, channel)| (*id, channel))
    }

    /// Returns how many messages could not be decoded.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Returns how many messages were dropped: more than 512 at once and 32 a second from one node,
    /// unread; and, when they were read, those that took more than 128 questions to the DHT at once
    /// and 2 a second.
    pub fn flooded(&self) -> u64 {
        self.messages.refused() + self.lookups.refused()
    }

    /// Returns one channel.
    pub fn channel(&self, id: ChannelId) -> Option<&Channel> {
        self.channels.get(&id)
    }

    /// Returns the channel of a name.
    pub fn by_name(&self, name: &str) -> Option<(ChannelId, &Channel)> {
        self.channels().find(|(_, channel)| channel.name() == name)
    }

    fn token(&mut self, purpose: Purpose) -> u64 {
        self.next_token += 1;
        self.purposes.insert(self.next_token, purpose);
        self.next_token
    }

    fn receive(&mut self, from: NodeId, body: &[u8], cx: &mut Cx<'_>) {
        if !self.messages.take(from, cx.now()) {
            return;
        }
        match VnetMessage::decode(body) {
            Some(VnetMessage::Attach(attach)) => self.on_attach(from, &attach, cx),
            Some(VnetMessage::Attached(attach)) => self.on_attached(from, &attach, cx),
            Some(VnetMessage::Announce {
                channel,
                mark,
                claim,
            }) => self.on_announce(from, channel, (mark, &claim), cx),
            Some(VnetMessage::Detach { channel, proof }) => {
                self.on_detach(from, channel, &proof, cx);
            }
            Some(VnetMessage::UnknownIndex { index }) => self.on_unknown_index(from, index, cx),
            Some(VnetMessage::Charter { channel, delivery }) => {
                self.on_charter(from, channel, &delivery, cx);
            }
            Some(VnetMessage::Check { channel }) => self.on_check(from, channel, cx),
            Some(VnetMessage::Checked { channel }) => self.on_checked(from, channel, cx),
            Some(VnetMessage::Removed { channel, proof }) => {
                self.on_removed(from, channel, &proof, cx);
            }
            None => self.malformed += 1,
        }
    }

    fn ring(&mut self, alarm: Alarm, cx: &mut Cx<'_>) {
        match alarm {
            Alarm::Claim(channel) => self.try_claim(channel, cx),
            Alarm::Check(channel) => self.check_claim(channel, cx),
            Alarm::Members(channel) => self.read_on(channel, cx),
            Alarm::Attach(channel, peer) => self.attach_timed_out(channel, peer, cx),
            Alarm::Hosted(channel, member) => self.verify_more_hosted(channel, member, cx),
            Alarm::Invitations(channel) => self.expire_invitations(channel, cx),
            Alarm::OldEntries(channel) => self.forget_old_entries(channel, cx),
            Alarm::Uses(channel) => self.see_uses(channel, cx),
            Alarm::Routers(channel) => self.check_routers(channel, cx),
        }
    }

    fn command(&mut self, command: Command, cx: &mut Cx<'_>) {
        match command {
            Command::Open { spec, address } => self.open(spec, address, cx),
            Command::Close(channel) => self.close(channel, cx),
            Command::Resolve { channel, address } => self.resolve(channel, address, cx),
            Command::UnknownIndex { from, index } => self.tell_unknown_index(from, index, cx),
            Command::Renew { channel, peer } => self.renew(channel, peer, cx),
            Command::Ways { candidates, aes } => self.set_ways(candidates, aes, cx),
            Command::Invite { channel, terms } => self.invite(channel, terms, cx),
            Command::Revoke {
                channel,
                invitation,
            } => self.revoke(channel, invitation, cx),
            Command::Remove { channel, node } => self.remove(channel, node, cx),
            Command::Appoint {
                channel,
                node,
                admin,
            } => self.appoint(channel, node, admin, cx),
            Command::Assign {
                channel,
                node,
                role,
            } => self.assign(channel, node, role, cx),
            Command::Rule { channel, rules } => {
                self.decide(channel, |decisions| decisions.rules = rules, cx);
            }
            Command::Broadcast { channel, packet } => self.broadcast(channel, &packet, cx),
            Command::Count(channel) => self.count(channel, cx),
            Command::Accept { channel, accepted } => self.accept_networks(channel, accepted, cx),
            Command::Offer { channel, offers } => self.offer(channel, offers, cx),
            Command::Host(channel) => self.host(channel, cx),
            Command::Dismiss { channel, address } => self.dismiss(channel, address, cx),
            Command::Suspend => self.detach_all(cx),
            Command::Restarted(peer) => self.gone(peer, false, cx),
        }
    }
}

impl Service for Vnet {
    type Command = Command;
    type Event = Event;

    fn handle(&mut self, input: ServiceInput<Command>, cx: &mut Cx<'_>) {
        match input {
            ServiceInput::Command(command) => self.command(command, cx),
            ServiceInput::Direct { from, body } => self.receive(from, &body, cx),
            ServiceInput::Got { token, answer } if government::is_of_uses(token) => {
                self.use_found(token, &answer, cx);
            }
            ServiceInput::PutDone { token, answer } if government::is_of_uses(token) => {
                self.use_claimed(token, answer, cx);
            }
            ServiceInput::Got { token, answer } => match self.purposes.remove(&token) {
                Some(Purpose::Probe(channel)) => self.probed(channel, &answer, cx),
                Some(Purpose::Confirm(channel)) => self.confirmed(channel, &answer, cx),
                Some(Purpose::Check(channel)) => self.checked(channel, &answer, cx),
                Some(Purpose::Resolve(channel, address)) => {
                    self.resolved(channel, address, &answer, cx);
                }
                Some(Purpose::Verify(channel, peer)) => self.verified(channel, peer, &answer, cx),
                Some(Purpose::Hosted(channel, step)) => self.host_got(channel, step, &answer, cx),
                Some(Purpose::Members(channel, asked)) => {
                    self.got_members(channel, asked, &answer, cx);
                }
                Some(Purpose::Doubt(channel, node, asked)) => {
                    self.doubted(channel, node, asked, &answer, cx);
                }
                Some(Purpose::Settle(channel, address)) => {
                    self.settled(channel, address, &answer, cx);
                }
                Some(
                    Purpose::Claim(_)
                    | Purpose::Locate(..)
                    | Purpose::Find(..)
                    | Purpose::Count(_)
                    | Purpose::Mail(..)
                    | Purpose::Withdrawal(..)
                    | Purpose::Nothing,
                )
                | None => {}
            },
            ServiceInput::PutDone { token, answer } => match self.purposes.remove(&token) {
                Some(Purpose::Claim(channel)) => self.claimed(channel, answer, cx),
                Some(Purpose::Hosted(channel, _)) => self.host_put(channel, answer, cx),
                Some(Purpose::Mail(channel, name)) => self.mail_put(channel, name, answer, cx),
                Some(Purpose::Withdrawal(channel, name)) => {
                    self.mail_withdrawn(channel, name, answer, cx);
                }
                _ => {}
            },
            ServiceInput::Restored { value, .. } => self.restore(&value, cx),
            ServiceInput::NeighboursChanged => self.neighbours_changed(cx),
            ServiceInput::AddressesChanged => self.addresses_changed(cx),
            ServiceInput::Answered { token, reply, .. } => match self.purposes.remove(&token) {
                Some(Purpose::Locate(channel, peer)) => self.located(channel, peer, &reply, cx),
                Some(Purpose::Find(channel, node)) => self.found(channel, node, &reply, cx),
                _ => {}
            },
            ServiceInput::Failed { token } => {
                self.purposes.remove(&token);
            }
            ServiceInput::Heard(heard) => self.heard(&heard, cx),
            ServiceInput::Receipts { token, receipts } => self.counted(token, receipts, cx),
            ServiceInput::Gone(peer) => self.gone(peer, true, cx),
            ServiceInput::Asked { .. }
            | ServiceInput::HopReport { .. }
            | ServiceInput::Searched { .. }
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
