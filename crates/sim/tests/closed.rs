//! A closed overlay keeps to its members, whatever outsiders, removed members and finders
//! of invitations do.

use std::time::Duration;

use enishi_overlay::admission::{
    Admission, Certificate, Credential, Presentation, Proof, Revocations, Subject,
};
use enishi_overlay::{Contact, Keypair, Message, NodeId, OverlayId, Position};
use enishi_services::admission::{Invited, Membership, invitation_keys};
use enishi_services::dht::{self, Caller, Consistency, GetAnswer, PutAnswer};
use enishi_services::keys::Secret;
use enishi_services::names::OpenName;
use enishi_services::{Command, Event, admission, diag};
use enishi_sim::internet::Model;
use enishi_sim::oracle::Census;
use enishi_sim::participant::Setting;
use enishi_sim::world::{EPOCH_UNIX_S, Index, Setup, World};

const MEMBERS: usize = 24;
const YEAR_S: u64 = 365 * 86_400;

/// A closed overlay, its authority and the world.
struct Office {
    world: World,
    authority: Keypair,
    overlay: OverlayId,
    born: u8,
}

impl Office {
    fn new() -> Self {
        let authority = Keypair::from_seed(&[200; 32]);
        let overlay = OverlayId::of_authority(&authority.id());
        let world = World::new(Setup {
            seed: 11,
            model: Model::default(),
            long_links: None,
        });
        Self {
            world,
            authority,
            overlay,
            born: 0,
        }
    }

    /// An office of [`MEMBERS`] nodes, each with a certificate of the authority.
    fn grown() -> Self {
        let mut office = Self::new();
        for born in 0..MEMBERS {
            let bootstrap = (born > 0).then_some(0);
            office.spawn(bootstrap, |office, me| Some(office.certified(me, YEAR_S)));
            office.world.run_for(Duration::from_millis(100));
        }
        office.run_s(60);
        office
    }

    fn run_s(&mut self, seconds: u64) {
        self.world.run_for(Duration::from_secs(seconds));
    }

    fn spawn(
        &mut self,
        bootstrap: Option<Index>,
        membership: impl FnOnce(&Self, NodeId) -> Option<Membership>,
    ) -> Index {
        self.born += 1;
        let secret = [self.born; 32];
        let setting = Setting {
            overlay: enishi_overlay::Config::new(self.overlay),
            membership: membership(self, Keypair::from_seed(&secret).id()),
        };
        self.world.spawn_as(secret, setting, bootstrap)
    }

    fn certificate(&self, issuer: &Keypair, member: NodeId, valid_s: u64) -> Certificate {
        let valid = EPOCH_UNIX_S..EPOCH_UNIX_S + valid_s;
        Certificate::sign(issuer, self.overlay, Subject::Member(member), valid)
    }

    fn certified(&self, member: NodeId, valid_s: u64) -> Membership {
        Membership::Certified {
            authority: self.authority.id(),
            certificate: self.certificate(&self.authority, member, valid_s),
        }
    }

    fn invitation(&self, seed: u8, keys: u8, single_use: bool) -> Membership {
        let seed = Secret::new([seed; 32]);
        let keys = invitation_keys(&seed, keys);
        let subject = Subject::Invitation {
            keys: keys.iter().map(Keypair::id).collect(),
            single_use,
            members_until_unix_s: EPOCH_UNIX_S + YEAR_S,
        };
        let valid = EPOCH_UNIX_S..EPOCH_UNIX_S + 86_400;
        Membership::Invited(Invited {
            authority: self.authority.id(),
            invitation: Certificate::sign(&self.authority, self.overlay, subject, valid),
            seed,
            joined_unix_s: EPOCH_UNIX_S + 60,
        })
    }

    fn id(&self, index: Index) -> NodeId {
        self.world.node(index).expect("nobody kills it").id()
    }

    /// How many members have admitted a node, or count it among their peers.
    fn knows(&self, index: Index) -> usize {
        let id = self.id(index);
        let knows = |(other, node): &(Index, &enishi_services::Node)| {
            let peer =
                node.overlay().peer(id).is_some() || node.overlay().known().contains_key(&id);
            *other != index && (peer || node.gate().has_admitted(id))
        };
        self.world.living().filter(knows).count()
    }

    fn neighbours(&self, index: Index) -> usize {
        let node = self.world.node(index).expect("nobody kills it");
        node.overlay().peers().count()
    }

    fn put(&mut self, index: Index, name: &str) -> PutAnswer {
        let keypair = Keypair::from_seed(&[index as u8 + 1; 32]);
        let name = OpenName::new(name, &keypair).expect("a name has octets");
        let request = name.put_request(self.world.rng(), 3600, Some(b"value"));
        let caller = Caller::Host(1);
        let request = Box::new(request);
        let put = dht::Command::Put { caller, request };
        self.world.take_events();
        self.world.command(index, Command::Dht(put));
        self.run_s(60);
        let events = self.world.take_events();
        let answer = events.into_iter().find_map(|(_, _, event)| match event {
            Event::Dht(dht::Event::PutDone { answer, .. }) => Some(answer),
            _ => None,
        });
        answer.expect("every put ends")
    }

    fn get(&mut self, index: Index, name: &str) -> Option<Vec<u8>> {
        let name = OpenName::new(name, &Keypair::from_seed(&[9; 32])).expect("it has octets");
        let get = dht::Command::Get {
            caller: Caller::Host(2),
            key: name.key(),
            consistency: Consistency::Majority,
        };
        self.world.take_events();
        self.world.command(index, Command::Dht(get));
        self.run_s(60);
        let events = self.world.take_events();
        let found = events.into_iter().find_map(|(_, _, event)| match event {
            Event::Dht(dht::Event::Got { answer, .. }) => Some(answer),
            _ => None,
        });
        match found.expect("every get ends") {
            GetAnswer::Records(records) => name.open(records.first()?),
            GetAnswer::Failed => None,
        }
    }

    /// Who answers for a place, as a node finds out.
    fn lookup(&mut self, index: Index, target: Position) -> Option<NodeId> {
        self.world.take_events();
        let trace = diag::Command::Trace { id: 1, target };
        self.world.command(index, Command::Diag(trace));
        self.run_s(15);
        let events = self.world.take_events();
        events.into_iter().find_map(|(_, _, event)| match event {
            Event::Diag(diag::Event::Traced {
                end: Some((node, ..)),
                ..
            }) => Some(node),
            _ => None,
        })
    }

    /// The overlay has not noticed the outsider, and the outsider has got nothing.
    fn keeps_out(&mut self, outsider: Index) {
        stored(&self.put(0, "inside"));
        assert_eq!(self.knows(outsider), 0, "no member knows the outsider");
        assert_eq!(self.neighbours(outsider), 0, "the outsider is alone");
        assert_eq!(self.get(outsider, "inside"), None);
        self.put(outsider, "outside");
        assert_eq!(self.get(0, "outside"), None, "nobody stores its values");
        let target = Position::of_node(&self.overlay, &self.id(0));
        let reached = self.lookup(outsider, target);
        assert!(reached.is_none_or(|node| node == self.id(outsider)));
        assert_eq!(self.get(1, "inside").as_deref(), Some(&b"value"[..]));
    }
}

/// The put was acknowledged by more than one node.
fn stored(answer: &PutAnswer) {
    let stored = matches!(answer, PutAnswer::Stored { replicas, .. } if *replicas > 1);
    assert!(stored, "{answer:?}");
}

#[test]
fn members_form_a_ring_store_and_find() {
    let mut office = Office::grown();
    let census = Census::take(&office.world);
    assert_eq!(census.ring_gaps(&office.world), 0);
    stored(&office.put(3, "greeting"));
    assert_eq!(office.get(17, "greeting").as_deref(), Some(&b"value"[..]));
    // A restart on one side only: the others have forgotten nothing, the node all.
    office.world.kill(5);
    office.run_s(1);
    office.world.restart(5, Some(0));
    office.run_s(30);
    let census = Census::take(&office.world);
    assert_eq!(census.ring_gaps(&office.world), 0);
    let turned_away: u64 = office
        .world
        .living()
        .map(|(_, node)| node.gate().counters().proofs_refused)
        .sum();
    assert_eq!(turned_away, 0);
}

#[test]
fn the_secret_is_enough_in_the_simple_form_and_nothing_else_is() {
    let mut office = Office::new();
    office.overlay = OverlayId::of_secret(&[7; 32]);
    let secret = |octet| move |_: &Office, _| Some(Membership::Secret(Secret::new([octet; 32])));
    for born in 0..8 {
        office.spawn((born > 0).then_some(0), secret(7));
        office.run_s(1);
    }
    office.run_s(60);
    assert_eq!(Census::take(&office.world).ring_gaps(&office.world), 0);
    let guesser = office.spawn(Some(0), secret(8));
    office.run_s(60);
    office.keeps_out(guesser);
    let certified = office.spawn(Some(1), |office, me| Some(office.certified(me, YEAR_S)));
    office.run_s(60);
    office.keeps_out(certified);
}

#[test]
fn an_outsider_with_the_right_overlay_id_joins_nobody() {
    let mut office = Office::grown();
    office.world.tap(MEMBERS);
    let outsider = office.spawn(Some(0), |_, _| None);
    assert_eq!(outsider, MEMBERS);
    office.run_s(120);
    office.keeps_out(outsider);
    let heard = office.world.take_tape();
    let asks = heard
        .iter()
        .all(|(_, message)| *message == Message::Admission(Box::new(Admission::Ask)));
    assert!(asks && !heard.is_empty(), "it is asked, and told nothing");
}

#[test]
fn relays_and_forged_hearsay_of_an_outsider_have_no_effect() {
    let mut office = Office::grown();
    let victim = 4;
    office.world.tap(victim);
    office.run_s(120);
    let tape = office.world.take_tape();
    let outsider = Keypair::from_seed(&[99; 32]).id();
    let before = office.world.node(victim).expect("alive").gate().counters();
    for (_, message) in tape.iter().filter(|(_, m)| !is_admission(m)) {
        office.world.inject(victim, outsider, message.clone());
    }
    let gate = office.world.node(victim).expect("alive").gate().counters();
    let injected = tape.iter().filter(|(_, m)| !is_admission(m)).count() as u64;
    assert!(injected > 50);
    let turned_away = gate.messages_turned_away - before.messages_turned_away;
    assert_eq!(turned_away, injected);
    let node = office.world.node(victim).expect("alive");
    assert!(node.overlay().peer(outsider).is_none());
    assert!(!node.overlay().known().contains_key(&outsider));
}

fn is_admission(message: &Message) -> bool {
    matches!(message, Message::Admission(_))
}

#[test]
fn a_copied_certificate_and_a_foreign_authority_let_nobody_in() {
    let mut office = Office::grown();
    let member = office.id(3);
    let copied = office.spawn(Some(0), |office, _| Some(office.certified(member, YEAR_S)));
    office.run_s(60);
    office.keeps_out(copied);
    let foreign = office.spawn(Some(0), |office, me| {
        let other = Keypair::from_seed(&[201; 32]);
        Some(Membership::Certified {
            authority: office.authority.id(),
            certificate: office.certificate(&other, me, YEAR_S),
        })
    });
    office.run_s(60);
    office.keeps_out(foreign);
    // A member signs for a friend.
    let friend = Keypair::from_seed(&[77; 32]).id();
    let insider = Keypair::from_seed(&[4; 32]);
    assert_eq!(insider.id(), member);
    let credential = Credential {
        member: office.certificate(&insider, friend, YEAR_S),
        invitation: Some(office.certificate(&office.authority, member, YEAR_S)),
    };
    let presentation = Presentation {
        proof: Proof::Credential(Box::new(credential)),
        known: false,
        revocations: 0,
    };
    let present = Message::Admission(Box::new(Admission::Present(presentation)));
    office.world.inject(0, friend, present);
    let node = office.world.node(0).expect("alive");
    assert!(!node.gate().has_admitted(friend));
    assert!(node.gate().counters().proofs_refused > 0);
}

#[test]
fn an_ended_certificate_ends_the_membership() {
    let mut office = Office::grown();
    let brief = office.spawn(Some(0), |office, me| Some(office.certified(me, 400)));
    office.run_s(60);
    assert!(office.knows(brief) > 3);
    stored(&office.put(brief, "of brief"));
    office.run_s(700);
    // Its certificate is looked at again when it speaks; to some it has not spoken since.
    let id = office.id(brief);
    for member in 0..MEMBERS {
        let (nonce, version) = (1, 0);
        office
            .world
            .inject(member, id, Message::Ping { nonce, version });
    }
    office.keeps_out(brief);
    let late = office.spawn(Some(0), |office, me| Some(office.certified(me, 500)));
    office.run_s(60);
    office.keeps_out(late);
}

#[test]
fn a_removed_member_is_dropped_by_all_and_stays_out() {
    let mut office = Office::grown();
    let removed = 7;
    let id = office.id(removed);
    let list = Revocations::sign(&office.authority, office.overlay, None, id);
    let list = list.expect("the list has room");
    let revoke = admission::Command::Revoke(list.clone());
    office.world.command(0, Command::Admission(revoke));
    office.run_s(5);
    let heard = office
        .world
        .living()
        .filter(|(index, node)| *index != removed && node.gate().revocations() == Some(&list));
    assert_eq!(
        heard.count(),
        MEMBERS - 1,
        "within seconds all members know"
    );
    office.run_s(120);
    office.keeps_out(removed);
    // It tries again from the beginning, with a member that restarted meanwhile.
    office.world.kill(2);
    office.world.restart(2, Some(0));
    office.run_s(30);
    office.world.kill(removed);
    office.world.restart(removed, Some(2));
    office.run_s(60);
    office.keeps_out(removed);
    // A list that the authority did not sign changes nothing.
    let forger = Keypair::from_seed(&[4; 32]);
    let forged = Revocations::sign(&forger, office.overlay, Some(&list), office.id(1));
    let forged = Admission::Revoked(forged.expect("the list has room"));
    let (from, message) = (office.id(3), Message::Admission(Box::new(forged)));
    office.world.inject(0, from, message);
    office.run_s(5);
    let node = office.world.node(0).expect("alive");
    assert_eq!(node.gate().revocations(), Some(&list));
}

#[test]
fn each_key_of_an_invitation_lets_in_one_node() {
    let mut office = Office::grown();
    let invited = |office: &Office, _| Some(office.invitation(50, 2, true));
    let first = office.spawn(Some(0), invited);
    office.run_s(20);
    let second = office.spawn(Some(1), invited);
    office.run_s(300);
    for member in [first, second] {
        assert!(office.knows(member) > 3, "{member} is a member");
        let node = office.world.node(member).expect("alive");
        assert!(!node.gate().is_used_up());
    }
    // Both keys are used: a third node is among the members for a while and no longer.
    let third = office.spawn(Some(2), invited);
    office.run_s(300);
    let node = office.world.node(third).expect("alive");
    assert!(node.gate().is_used_up(), "it knows why it is out");
    office.keeps_out(third);
    for member in [first, second] {
        assert!(office.knows(member) > 3, "{member} is still a member");
    }
    stored(&office.put(first, "of first"));
}

#[test]
fn an_invitation_for_many_lets_in_many_until_it_is_revoked() {
    let mut office = Office::grown();
    let invited = |office: &Office, _| Some(office.invitation(51, 1, false));
    let guests: Vec<Index> = (0..3).map(|at| office.spawn(Some(at), invited)).collect();
    office.run_s(300);
    for guest in &guests {
        assert!(office.knows(*guest) > 3);
    }
    let Membership::Invited(Invited { seed, .. }) = office.invitation(51, 1, false) else {
        panic!("an invitation");
    };
    let name = invitation_keys(&seed, 1)[0].id();
    let list = Revocations::sign(&office.authority, office.overlay, None, name);
    let revoke = admission::Command::Revoke(list.expect("the list has room"));
    office.world.command(9, Command::Admission(revoke));
    office.run_s(120);
    // The removed ones may keep company among themselves.
    guests[1..]
        .iter()
        .for_each(|guest| office.world.kill(*guest));
    office.keeps_out(guests[0]);
    let late = office.spawn(Some(3), invited);
    office.run_s(60);
    office.keeps_out(late);
}

#[test]
fn a_flood_of_strangers_leaves_members_admitted() {
    let mut office = Office::grown();
    let victim = 6;
    let admitted = |office: &Office| office.world.node(victim).expect("alive").gate().admitted();
    let before = admitted(&office);
    assert!(before > 5);
    let proof = Proof::Secret([3; 32]);
    let presentation = Presentation {
        proof,
        known: false,
        revocations: u64::MAX,
    };
    for number in 0..20_000_u64 {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        let from = NodeId::from_bytes(seed);
        let message = match number % 2 {
            0 => Message::Admission(Box::new(Admission::Present(presentation.clone()))),
            _ => Message::Introduced {
                newcomer: Contact::new(from, []),
            },
        };
        office.world.inject(victim, from, message);
    }
    office.run_s(10);
    // A member more may have been met meanwhile, but no stranger.
    assert!((before..MEMBERS).contains(&admitted(&office)));
    assert_eq!(Census::take(&office.world).ring_gaps(&office.world), 0);
}
