//! What governed channels promise: invitations, removal, roles and rules.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod town;

use std::time::Duration;

use enishi_overlay::NodeId;
use enishi_services::calls::{Consistency, GetAnswer};
use enishi_services::keys::Secret;
use enishi_services::vnet::access::{Permits, Ports, Rule, Selector};
use enishi_services::vnet::invitation::{Terms, mailbox_key, open_mailbox};
use enishi_services::vnet::{
    Channel, ChannelId, ChannelSpec, Command as Vnet, Entry, Event as VnetEvent,
};
use enishi_services::{Command, Event, dht};
use enishi_sim::world::{EPOCH_UNIX_S, Index, World};

use town::{grown, setup};

const CHANNEL: ChannelId = ChannelId(1);
const FOUNDER: Index = 3;
const FAR_AHEAD_UNIX_S: u64 = 3_000_000_000;

/// A small overlay in which node [`FOUNDER`] has founded a channel.
struct Office(World);

impl Office {
    fn found() -> Self {
        let spec = ChannelSpec {
            entry: Entry::Founder(Secret::new([2; 32])),
            ..town::office("10.77.0.0/16")
        };
        let mut office = Self(grown(setup(9), 16, 30));
        office.open(FOUNDER, spec);
        office
    }

    fn open(&mut self, at: Index, spec: ChannelSpec) {
        let address = None;
        self.tell(at, Vnet::Open { spec, address });
        self.run(15);
    }

    fn tell(&mut self, at: Index, command: Vnet) {
        self.0.command(at, Command::Vnet(command));
    }

    fn run(&mut self, seconds: u64) {
        self.0.run_for(Duration::from_secs(seconds));
    }

    fn id(&self, at: Index) -> NodeId {
        self.0.node(at).unwrap().id()
    }

    fn channel(&self, at: Index) -> &Channel {
        self.0.node(at).unwrap().vnet().by_name("office").unwrap().1
    }

    fn members(&self, at: Index) -> Vec<NodeId> {
        let members = self.channel(at).members();
        members.map(|claim| claim.contact.id()).collect()
    }

    /// Makes an invitation at a node; returns its seed.
    fn invite(&mut self, at: Index, seed: u8, uses: Option<u8>, role: Option<&str>) -> Secret {
        let seed = Secret::new([seed; 32]);
        let terms = Terms {
            seed: seed.clone(),
            uses,
            expires_unix_s: FAR_AHEAD_UNIX_S,
            role: role.map(str::to_owned),
        };
        let channel = CHANNEL;
        self.0.take_events();
        self.tell(at, Vnet::Invite { channel, terms });
        self.run(5);
        let stored = |event: &VnetEvent| matches!(event, VnetEvent::Invited { stored: true, .. });
        assert!(self.take_events(at).iter().any(stored));
        seed
    }

    /// Reads an invitation's mailbox from some node.
    fn mail(&mut self, seed: &Secret) -> Option<ChannelSpec> {
        self.mail_at(0, seed)
    }

    fn mail_at(&mut self, at: Index, seed: &Secret) -> Option<ChannelSpec> {
        let now_unix_s = EPOCH_UNIX_S + self.0.now().as_micros() / 1_000_000;
        let get = dht::Command::Get {
            caller: dht::Caller::Host(77),
            key: mailbox_key(seed),
            consistency: Consistency::Majority,
        };
        self.0.take_events();
        self.0.command(at, Command::Dht(get));
        self.run(10);
        self.0
            .take_events()
            .into_iter()
            .find_map(|(_, _, event)| match event {
                Event::Dht(dht::Event::Got {
                    answer: GetAnswer::Records(records),
                    ..
                }) => records
                    .first()
                    .and_then(|r| open_mailbox(seed, r, now_unix_s)),
                _ => None,
            })
    }

    /// Revokes the founder's first invitation; returns as soon as its mail is gone.
    fn revoke(&mut self) {
        let channel = CHANNEL;
        let invitation = self.channel(FOUNDER).issued()[0].name().unwrap();
        self.0.take_events();
        self.tell(
            FOUNDER,
            Vnet::Revoke {
                channel,
                invitation,
            },
        );
        let gone = |event: &VnetEvent| matches!(event, VnetEvent::Withdrawn { gone: true, .. });
        for _ in 0..1000 {
            self.0.run_for(Duration::from_millis(10));
            if self.take_events(FOUNDER).iter().any(gone) {
                return;
            }
        }
        panic!("the mail is still there");
    }

    /// The nodes that keep an invitation's mail, or the mark that it is gone.
    fn keepers(&self, seed: &Secret) -> Vec<Index> {
        let (key, now) = (mailbox_key(seed), self.0.now());
        let living = self.0.living();
        let keeping = living.filter(|(_, node)| node.dht().store().under(key, now).count() > 0);
        keeping.map(|(index, _)| index).collect()
    }

    fn join(&mut self, at: Index, seed: &Secret) {
        let spec = self.mail(seed).expect("there is mail");
        self.open(at, spec);
    }

    fn take_events(&mut self, at: Index) -> Vec<VnetEvent> {
        let events = self.0.take_events().into_iter();
        let events = events.filter(|(_, index, _)| *index == at);
        events
            .filter_map(|(_, _, event)| match event {
                Event::Vnet(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    /// Has a node say something to many, at a port of UDP; tells how many copies left it, and
    /// whose hosts got it.
    fn says(&mut self, at: Index, port: u16) -> (u64, Vec<Index>) {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(self.channel(at).address().expect("has one").octets());
        packet.extend([224, 0, 0, 251, 0, 9]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        let sent = |office: &Self| office.0.node(at).unwrap().multicast().counters().sent;
        let before = sent(self);
        self.0.take_events();
        let channel = CHANNEL;
        let packet = packet.into();
        self.tell(at, Vnet::Broadcast { channel, packet });
        self.run(5);
        let events = self.0.take_events().into_iter();
        let mut heard: Vec<Index> = events
            .filter(|(_, _, event)| matches!(event, Event::Vnet(VnetEvent::Broadcast { .. })))
            .map(|(_, index, _)| index)
            .collect();
        heard.sort_unstable();
        (sent(self) - before, heard)
    }

    /// Has one node ask for the way to another; tells whether packets may pass, and which.
    fn attach(&mut self, from: Index, to: Index) -> Option<Option<Permits>> {
        let address = self.channel(to).address().expect("has one").into();
        self.0.take_events();
        let channel = CHANNEL;
        self.tell(from, Vnet::Resolve { channel, address });
        self.run(15);
        let events = self.take_events(from).into_iter();
        let mut attached = events.filter_map(|event| match event {
            VnetEvent::Attached { permits, .. } => Some(permits),
            _ => None,
        });
        attached.next_back()
    }
}

#[test]
fn an_invitation_lets_in_while_the_inviter_is_away_and_the_founder_is_admin() {
    let mut office = Office::found();
    let founder = office.id(FOUNDER);
    assert!(office.channel(FOUNDER).is_admin(&founder));
    let seed = office.invite(FOUNDER, 5, Some(2), None);
    office.0.kill(FOUNDER);
    office.run(30);
    office.join(7, &seed);
    office.join(8, &seed);
    assert!(office.members(8).contains(&office.id(7)));
    assert_eq!(office.attach(7, 8), Some(None));
    let other = Secret::new([6; 32]);
    assert!(office.mail(&other).is_none(), "another seed opens nothing");
}

#[test]
fn who_knows_the_secret_alone_is_no_member() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, Some(1), None);
    office.join(7, &seed);
    // A program that was changed has the secret and shows another authority's certificate.
    let mut stolen = office.mail(&seed).unwrap();
    let Entry::Invited(guest) = &mut stolen.entry else {
        panic!("an invitation");
    };
    guest.invited.seed = Secret::new([66; 32]);
    office.open(9, stolen);
    let thief = office.id(9);
    assert!(!office.members(7).contains(&thief) && !office.members(FOUNDER).contains(&thief));
    assert_eq!(office.attach(9, 7), None);
}

#[test]
fn a_removed_member_loses_the_way_and_the_secret_and_the_others_keep_theirs() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    for at in [7, 8, 9] {
        office.join(at, &seed);
    }
    assert_eq!(office.attach(7, 8), Some(None));
    assert_eq!(office.attach(7, 9), Some(None));
    let before = office.channel(7).secret().clone();
    let addresses = [7, 8].map(|at| office.channel(at).address());
    let (channel, node) = (CHANNEL, office.id(9));
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(20);
    for at in [FOUNDER, 7, 8] {
        assert_ne!(*office.channel(at).secret(), before, "at {at}");
        assert!(!office.members(at).contains(&node), "at {at}");
    }
    assert_eq!(*office.channel(9).secret(), before);
    let notice = office.channel(9).notice().unwrap_or_default();
    assert!(notice.contains("removed"), "{notice}");
    assert_eq!([7, 8].map(|at| office.channel(at).address()), addresses);
    assert_eq!(office.attach(9, 7), None);
    assert_eq!(office.attach(8, 7), Some(None));
    // The same node cannot come back by the same invitation, another one can.
    let spec = office.mail(&seed).expect("still open");
    office.tell(9, Vnet::Close(CHANNEL));
    office.run(5);
    office.open(9, spec);
    assert!(!office.members(7).contains(&node));
    office.join(10, &seed);
    office.run(70);
    assert!(office.members(7).contains(&office.id(10)));
}

#[test]
fn a_member_that_was_away_while_another_was_removed_is_given_the_new_secret() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    for at in [7, 8, 9] {
        office.join(at, &seed);
    }
    let (channel, node) = (CHANNEL, office.id(9));
    office.0.kill(8);
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(600);
    office.0.restart(8, Some(0));
    office.run(100);
    assert_eq!(*office.channel(8).secret(), *office.channel(7).secret());
    assert_eq!(office.attach(8, 7), Some(None));
}

#[test]
fn an_administrator_is_removed_by_the_founder_alone_and_signs_itself_back_in_never() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    for at in [7, 8, 9] {
        office.join(at, &seed);
    }
    let channel = CHANNEL;
    for node in [office.id(7), office.id(8)] {
        let admin = true;
        office.tell(
            FOUNDER,
            Vnet::Appoint {
                channel,
                node,
                admin,
            },
        );
    }
    // Two charters within a second: both arrive.
    office.run(3);
    let node = office.id(8);
    assert!(office.channel(9).is_admin(&node));
    office.tell(7, Vnet::Remove { channel, node });
    office.run(5);
    assert!(office.members(FOUNDER).contains(&node), "7 may not");
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(20);
    for at in [FOUNDER, 7, 9] {
        assert!(!office.members(at).contains(&node), "at {at}");
        assert!(!office.channel(at).is_admin(&node), "at {at}");
    }
    assert_eq!(office.attach(7, 9), Some(None));
}

#[test]
fn members_stay_known_while_they_come_into_a_new_directory() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    for at in [7, 8, 9] {
        office.join(at, &seed);
    }
    office.run(70);
    let (channel, node) = (CHANNEL, office.id(9));
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(3);
    assert_eq!(office.members(FOUNDER).len(), 3);
    // So those who came by the invitation are known, and stay when it is revoked now.
    let invitation = office.channel(FOUNDER).issued()[0].name().unwrap();
    office.tell(
        FOUNDER,
        Vnet::Revoke {
            channel,
            invitation,
        },
    );
    office.run(20);
    for at in [FOUNDER, 7, 8] {
        assert_eq!(office.members(at).len(), 3, "at {at}");
        assert!(!office.members(at).contains(&node), "at {at}");
    }
    assert_eq!(office.attach(7, 8), Some(None));
    office.tell(8, Vnet::Close(CHANNEL));
    office.run(90);
    assert_eq!(office.members(7).len(), 2, "who has left is not carried on");
}

#[test]
fn the_mail_of_who_was_removed_is_gone() {
    let mut office = Office::found();
    let for_one = office.invite(FOUNDER, 5, Some(1), None);
    office.join(9, &for_one);
    let (channel, node) = (CHANNEL, office.id(9));
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(20);
    assert!(
        office.mail(&for_one).is_none(),
        "the next secret lies there"
    );
}

#[test]
fn a_removed_member_does_not_come_back_under_another_key_by_the_proof_that_it_kept() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, Some(1), None);
    let kept = office.mail(&seed).unwrap();
    office.open(9, kept.clone());
    office.run(20);
    assert!(office.members(FOUNDER).contains(&office.id(9)));
    let (channel, node) = (CHANNEL, office.id(9));
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(20);
    let secret = office.channel(FOUNDER).secret().clone();
    office.open(10, kept);
    let stranger = office.id(10);
    // It remembers where the others were.
    assert_eq!(office.attach(10, FOUNDER), None);
    for _ in 0..12 {
        office.run(5);
        assert!(!office.members(FOUNDER).contains(&stranger));
        assert_ne!(*office.channel(10).secret(), secret);
    }
}

#[test]
fn a_revoked_invitation_lets_nobody_in_and_keeps_who_came() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    office.join(7, &seed);
    let read_before = office.mail(&seed).unwrap();
    let invitation = office.channel(FOUNDER).issued()[0].name().unwrap();
    let channel = CHANNEL;
    office.tell(
        FOUNDER,
        Vnet::Revoke {
            channel,
            invitation,
        },
    );
    office.run(20);
    assert!(office.mail(&seed).is_none());
    assert!(office.channel(FOUNDER).issued().is_empty());
    office.open(8, read_before);
    office.run(70);
    let late = office.id(8);
    assert!(!office.members(7).contains(&late) && !office.members(FOUNDER).contains(&late));
    assert_eq!(office.attach(7, FOUNDER), Some(None));
}

#[test]
fn what_was_revoked_nobody_finds_from_that_moment_on() {
    for reader in [0, 5, 9, 12] {
        let mut office = Office::found();
        let seed = office.invite(FOUNDER, 5, None, None);
        office.revoke();
        assert!(office.mail_at(reader, &seed).is_none(), "at {reader}");
    }
}

#[test]
fn a_holder_that_was_away_does_not_bring_a_revoked_invitation_back() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    let away = office.keepers(&seed).into_iter();
    let away: Vec<Index> = away.filter(|at| ![0, FOUNDER].contains(at)).collect();
    // A minority of them.
    for at in &away[..2] {
        office.0.kill(*at);
    }
    office.run(30);
    office.revoke();
    office.run(120);
    for at in &away[..2] {
        office.0.restart(*at, Some(0));
    }
    office.run(120);
    for reader in away.into_iter().chain([0, FOUNDER]) {
        assert!(office.mail_at(reader, &seed).is_none(), "at {reader}");
    }
}

#[test]
fn an_invitation_for_one_lets_in_one() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, Some(1), None);
    office.join(7, &seed);
    office.run(60);
    office.join(8, &seed);
    office.run(30);
    assert!(office.channel(8).is_used_up());
    office.attach(8, 7);
    office.run(240);
    assert!(!office.members(7).contains(&office.id(8)));
    assert_eq!(office.attach(8, 7), None);
    assert_eq!(office.attach(7, FOUNDER), Some(None));
}

#[test]
fn roles_and_rules_say_what_may_pass_and_administrators_say_them() {
    let mut office = Office::found();
    let to_guests = office.invite(FOUNDER, 5, None, Some("guest"));
    let to_staff = office.invite(FOUNDER, 6, None, None);
    office.join(7, &to_guests);
    office.join(8, &to_staff);
    let channel = CHANNEL;
    let node = office.id(8);
    office.tell(
        FOUNDER,
        Vnet::Appoint {
            channel,
            node,
            admin: true,
        },
    );
    office.run(10);
    // The new administrator says the rules.
    let rules = vec![Rule {
        from: Selector::Role("guest".into()),
        to: Selector::Node(node),
        ports: vec![Ports::Tcp(443, 443)],
    }];
    office.tell(8, Vnet::Rule { channel, rules });
    office.run(10);
    assert_eq!(
        office.channel(7).charter().unwrap().decisions().rules.len(),
        1
    );
    let permits = office.attach(7, 8).unwrap().unwrap();
    assert_eq!((permits.inbound.len(), permits.outbound.len()), (0, 1));
    assert_eq!(permits.outbound[0].ports, Some(Ports::Tcp(443, 443)));
    let permits = office.attach(7, FOUNDER).unwrap().unwrap();
    assert_eq!((permits.inbound, permits.outbound), (vec![], vec![]));
    // Who is none decides nothing.
    office.tell(
        7,
        Vnet::Rule {
            channel,
            rules: vec![],
        },
    );
    office.run(10);
    assert_eq!(
        office.channel(8).charter().unwrap().decisions().rules.len(),
        1
    );
    // And an administrator may invite, until it is none any more.
    let by_admin = office.invite(8, 7, Some(1), None);
    office.join(10, &by_admin);
    assert!(office.members(7).contains(&office.id(10)));
    office.tell(
        FOUNDER,
        Vnet::Appoint {
            channel,
            node,
            admin: false,
        },
    );
    office.run(70);
    assert!(office.members(7).contains(&office.id(10)), "it came before");
    office.tell(
        8,
        Vnet::Rule {
            channel,
            rules: vec![],
        },
    );
    office.run(10);
    assert_eq!(
        office.channel(7).charter().unwrap().decisions().rules.len(),
        1
    );
}

#[test]
fn what_no_rule_lets_a_member_say_to_many_is_not_sent() {
    let mut office = Office::found();
    let to_guests = office.invite(FOUNDER, 5, None, Some("guest"));
    let to_staff = office.invite(FOUNDER, 6, None, None);
    office.join(7, &to_guests);
    office.join(8, &to_staff);
    // Until all are in the group.
    office.run(70);
    let everybody = [FOUNDER, 7, 8].map(|at| office.says(at, 9));
    assert_eq!(
        everybody,
        [
            (2, vec![7, 8]),
            (2, vec![FOUNDER, 8]),
            (2, vec![FOUNDER, 7])
        ]
    );
    let (channel, staff) = (CHANNEL, office.id(8));
    let rules = vec![Rule {
        from: Selector::Role("guest".into()),
        to: Selector::Node(staff),
        ports: vec![Ports::Udp(5353, 5353)],
    }];
    office.tell(FOUNDER, Vnet::Rule { channel, rules });
    office.run(10);
    // To the whole group, of whom one may take it.
    assert_eq!(office.says(7, 5353), (2, vec![8]));
    assert_eq!(office.says(7, 5354), (0, vec![]));
    assert_eq!(office.says(8, 5353), (0, vec![]));
    assert_eq!(office.says(FOUNDER, 5353), (0, vec![]));
}

#[test]
fn a_channel_is_the_same_after_a_restart() {
    let mut office = Office::found();
    let seed = office.invite(FOUNDER, 5, None, None);
    office.join(7, &seed);
    let (channel, node) = (CHANNEL, office.id(9));
    office.join(9, &seed);
    office.tell(FOUNDER, Vnet::Remove { channel, node });
    office.run(20);
    let before = format!("{:?}", office.channel(7).charter());
    let secret = office.channel(7).secret().clone();
    for at in [7, FOUNDER] {
        office.0.kill(at);
        office.run(5);
        office.0.restart(at, Some(0));
    }
    office.run(60);
    assert_eq!(format!("{:?}", office.channel(7).charter()), before);
    assert_eq!(*office.channel(7).secret(), secret);
    assert!(office.channel(FOUNDER).is_founded_here());
    assert_eq!(office.channel(FOUNDER).issued().len(), 1);
    assert_eq!(office.attach(7, FOUNDER), Some(None));
}
