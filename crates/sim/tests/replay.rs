//! A recorded node says the same again, and a recording that was changed is found out.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::admission::{Certificate, Revocations, Subject};
use enishi_overlay::{Contact, Keypair, NodeId, OverlayId, Time};
use enishi_services::admission::{self, Invited, Membership, invitation_keys};
use enishi_services::dht::{self, Caller, PutRequest};
use enishi_services::keys::Secret;
use enishi_services::record::Kind;
use enishi_services::recording::{Ending, Header, MAGIC, Reader, Writer};
use enishi_services::vnet::{self, ChannelSpec};
use enishi_services::{Command, Config, Input, Node, Output, diag};
use enishi_sim::replay::{End, Replay, replay};

const NODES: usize = 8;
const DELAY: Duration = Duration::from_millis(15);
const LENGTH: Time = Time::from_secs(120);
const EPOCH_UNIX_S: u64 = 1_700_000_000;
const DAY_S: u64 = 86_400;

/// Nodes on one clock, with the same delay between any two; the first one is recorded.
struct World {
    nodes: Vec<Node>,
    indices: BTreeMap<NodeId, usize>,
    due: BTreeMap<(Time, u64), (usize, Input)>,
    number: u64,
    writer: Writer,
    recording: Vec<u8>,
    /// Where the frame of each input begins.
    starts: Vec<usize>,
}

fn keypair(index: usize) -> Keypair {
    Keypair::from_seed(&[index as u8 + 1; 32])
}

impl World {
    fn new(overlay: OverlayId, membership: impl Fn(usize) -> Option<Membership>) -> Self {
        let header = |index: usize| {
            let config = Config {
                overlay: enishi_overlay::Config::new(overlay),
                addresses: vec![format!("192.0.2.{index}:7000").parse().unwrap()],
                host_name: format!("host{index}"),
                started_unix_s: EPOCH_UNIX_S,
            };
            let header = Header::new(&keypair(index), &config, &[index as u8; 32]);
            match membership(index) {
                Some(membership) => header.in_closed_overlay(membership),
                None => header,
            }
        };
        let mut world = Self {
            nodes: (0..NODES).map(|index| header(index).node()).collect(),
            indices: (0..NODES)
                .map(|index| (keypair(index).id(), index))
                .collect(),
            due: BTreeMap::new(),
            number: 0,
            writer: Writer::new(&header(0)),
            recording: Writer::preamble(&header(0)).to_vec(),
            starts: Vec::new(),
        };
        for index in 1..NODES {
            let contact = Contact::new(keypair(index - 1).id(), []);
            let at = Time::from_micros(index as u64 * 300_000);
            world.plan(at, index, Input::Bootstrap(vec![contact]));
        }
        world
    }

    fn plan(&mut self, at: Time, node: usize, input: Input) {
        self.number += 1;
        self.due.insert((at, self.number), (node, input));
    }

    fn run(&mut self) {
        loop {
            let timeouts = self.nodes.iter().enumerate();
            let timeout = timeouts
                .filter_map(|(index, node)| Some((node.next_timeout()?, index)))
                .min();
            let planned = self.due.first_key_value().map(|((at, _), _)| *at);
            let (now, index, input) = match (planned, timeout) {
                (Some(at), timeout) if timeout.is_none_or(|(timeout, _)| at <= timeout) => {
                    let (_, (index, input)) = self.due.pop_first().unwrap();
                    (at, index, input)
                }
                (_, Some((at, index))) => (at, index, Input::Timeout),
                _ => return,
            };
            if now > LENGTH {
                return;
            }
            self.handle(now, index, input);
        }
    }

    fn handle(&mut self, now: Time, index: usize, input: Input) {
        let recorded = index == 0;
        if recorded {
            self.writer.begin(now, &input);
        }
        let from = self.nodes[index].id();
        let outputs: Vec<Output> = self.nodes[index].handle(now, input).collect();
        for output in outputs {
            if recorded {
                self.writer.output(&output);
            }
            let Output::Send { to, message } = output else {
                continue;
            };
            let receiver = self.indices[&to.id()];
            self.plan(now + DELAY, receiver, Input::Message { from, message });
        }
        if recorded {
            let timeout = self.nodes[0].next_timeout();
            self.starts.push(self.recording.len());
            self.recording.extend(self.writer.finish(timeout).unwrap());
        }
    }
}

fn put(value: &'static str) -> Input {
    let put = dht::Command::Put {
        caller: Caller::Host(1),
        request: Box::new(PutRequest {
            kind: Kind::Lease,
            writer: Keypair::from_seed(&[50; 32]),
            owner: Keypair::from_seed(&[51; 32]),
            lease_s: 600,
            value: Some(Bytes::from_static(value.as_bytes())),
        }),
    };
    Input::Command(Command::Dht(put))
}

/// Two minutes of a node that has neighbours, stores, pings and claims an address.
fn world() -> World {
    lived(World::new(OverlayId::from_name("replay"), |_| None))
}

fn authority() -> Keypair {
    Keypair::from_seed(&[200; 32])
}

/// The same in a closed overlay, to which the recorded node and the next one came by one
/// invitation, and from which another is removed.
fn closed_world() -> World {
    let authority = authority();
    let overlay = OverlayId::of_authority(&authority.id());
    let sign = |subject| {
        let valid = EPOCH_UNIX_S..EPOCH_UNIX_S + DAY_S;
        Certificate::sign(&authority, overlay, subject, valid)
    };
    let seed = Secret::new([8; 32]);
    let keys = invitation_keys(&seed, 3).iter().map(Keypair::id).collect();
    let invitation = sign(Subject::Invitation {
        keys,
        single_use: true,
        members_until_unix_s: EPOCH_UNIX_S + DAY_S,
    });
    let mut world = World::new(overlay, |index| {
        let authority = authority.id();
        Some(match index {
            0 | 1 => Membership::Invited(Invited {
                authority,
                invitation: invitation.clone(),
                seed: seed.clone(),
                joined_unix_s: EPOCH_UNIX_S,
            }),
            _ => Membership::Certified {
                authority,
                certificate: sign(Subject::Member(keypair(index).id())),
            },
        })
    });
    let list = Revocations::sign(&authority, overlay, None, keypair(6).id()).unwrap();
    let revoke = Command::Admission(admission::Command::Revoke(list));
    world.plan(Time::from_secs(70), 0, Input::Command(revoke));
    lived(world)
}

fn lived(mut world: World) -> World {
    let spec = ChannelSpec {
        name: "office".into(),
        network: "10.77.0.0/16".parse().unwrap(),
        secret: Secret::new([7; 32]),
        entry: vnet::Entry::Secret,
    };
    let open = vnet::Command::Open {
        spec,
        address: None,
    };
    let ping = diag::Command::Ping {
        id: 1,
        target: world.nodes[5].id(),
        timeout: Duration::from_secs(3),
    };
    world.plan(Time::from_secs(20), 0, put("first"));
    world.plan(Time::from_secs(30), 0, Input::Command(Command::Vnet(open)));
    world.plan(Time::from_secs(40), 0, Input::Command(Command::Diag(ping)));
    let gone = world.nodes[3].id();
    world.plan(Time::from_secs(60), 0, Input::Closed(gone));
    world.plan(Time::from_secs(90), 0, put("second"));
    world.plan(LENGTH, 0, Input::Leave);
    world.run();
    let end = world.writer.end(Ending::Stopped);
    world.recording.extend(end);
    world
}

fn replayed(octets: &[u8]) -> Replay {
    replay(&mut Reader::open(octets).unwrap(), &mut |_| ())
}

#[test]
fn a_recorded_node_says_the_same_again() {
    let world = world();
    let replay = replayed(&world.recording);
    assert!(replay.is_well(), "{replay:#?}");
    assert_eq!(replay.ending, End::Stopped);
    assert_eq!(replay.inputs, world.starts.len() as u64);
    assert_eq!(replay.duration_us, LENGTH.as_micros());
    assert_eq!(replay.node_id, world.nodes[0].id().to_string());
    for (kind, least) in [
        ("message", 100),
        ("timeout", 50),
        ("command", 4),
        ("leave", 1),
    ] {
        assert!(replay.kinds[kind] >= least, "{:?}", replay.kinds);
    }
    assert!(replay.outputs > 100 && replay.parted.is_none());
}

#[test]
fn a_recorded_member_of_a_closed_overlay_says_the_same_again() {
    let world = closed_world();
    let gate = world.nodes[0].gate();
    assert!(gate.admitted() >= 3 && gate.counters().members_dropped == 1);
    assert!(!gate.has_admitted(world.nodes[6].id()));
    let replay = replayed(&world.recording);
    assert!(replay.is_well(), "{replay:#?}");
    assert_eq!(replay.inputs, world.starts.len() as u64);
    assert!(replay.kinds["message"] >= 100 && replay.outputs > 100);
    let reader = Reader::open(&world.recording[..]).unwrap();
    assert_eq!(
        reader.header().config().overlay.overlay,
        OverlayId::of_authority(&authority().id())
    );

    // Without its membership the node is another one from the first message on.
    let config = reader.header().config();
    let outsider = Header::new(&keypair(0), config, &[0; 32]);
    let mut octets = Writer::preamble(&outsider).to_vec();
    octets.extend_from_slice(&world.recording[world.starts[0]..]);
    assert_eq!(replayed(&octets).ending, End::Parted);
}

#[test]
fn a_recording_that_ends_early_is_replayed_to_its_last_whole_frame() {
    let world = world();
    let last = *world.starts.last().unwrap();
    let replay = replayed(&world.recording[..last + 5]);
    assert!(replay.is_well(), "{replay:#?}");
    assert_eq!(replay.ending, End::Torn);
    assert_eq!(replay.at_octet, Some(last as u64));
    assert_eq!(replay.inputs, world.starts.len() as u64 - 1);
    assert_eq!(replayed(&world.recording[..last]).ending, End::Killed);
}

#[test]
fn traces_part_at_the_input_that_was_left_out_or_changed() {
    let world = world();
    let frame = |number: usize| &world.recording[world.starts[number]..world.starts[number + 1]];
    let mut reader = Reader::open(&world.recording[..]).unwrap();
    let steps: Vec<_> = std::iter::from_fn(|| reader.step().ok()).collect();
    let put = steps
        .iter()
        .position(|step| format!("{:?}", step.input).starts_with("Command(Dht"))
        .unwrap();

    // Without the put, the next step has a digest that covers one step less.
    let mut without = world.recording.clone();
    without.drain(world.starts[put]..world.starts[put + 1]);
    let replay = replayed(&without);
    let parted = replay.parted.as_ref().unwrap();
    assert!(!replay.is_well() && replay.ending == End::Parted);
    assert_eq!(parted.input_number, put as u64 + 1);
    assert_eq!(parted.at_us, steps[put + 1].at.as_micros());

    // Another put in its place: the same sort of input, other words.
    let start = world.starts[put];
    let header = Reader::open(&world.recording[..]).unwrap().header().clone();
    let mut other = Writer::new(&header);
    other.begin(steps[put].at, &self::put("forged"));
    let mut changed = world.recording[..start].to_vec();
    changed.extend(other.finish(None).unwrap());
    changed.extend_from_slice(frame(put + 1));
    let parted = replayed(&changed).parted.unwrap();
    assert_eq!(parted.input_number, put as u64 + 1);
    assert!(parted.input.starts_with("command Put"), "{}", parted.input);
    assert!(
        parted
            .outputs
            .iter()
            .any(|output| output.starts_with("keep Dht")),
        "{parted:#?}"
    );
    assert_ne!(parted.digest_recorded, parted.digest_replayed);
}

#[test]
fn another_seed_shows_at_the_first_input() {
    // The first answer may be the same, but not the deadline that was drawn.
    let world = world();
    let header = Reader::open(&world.recording[..]).unwrap().header().clone();
    let forged = Header::new(&Keypair::from_seed(&[1; 32]), header.config(), &[99; 32]);
    let mut octets = Writer::preamble(&forged).to_vec();
    assert!(octets.starts_with(&MAGIC));
    octets.extend_from_slice(&world.recording[world.starts[0]..]);
    let replay = replayed(&octets);
    assert!(!replay.identical && replay.inputs == 1, "{replay:#?}");
}
