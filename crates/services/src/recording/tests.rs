use std::net::Ipv4Addr;

use bytes::Bytes;
use enishi_overlay::admission::{Certificate, Subject};
use enishi_overlay::{Contact, Message, OverlayId};
use proptest::prelude::*;

use super::*;
use crate::admission::{Invited, invitation_keys};
use crate::calls::PutRequest;
use crate::dht::{self, Caller};
use crate::node::Command;
use crate::record::Kind;
use crate::service::ServiceId;
use crate::vnet::{self, ChannelSpec};

fn header() -> Header {
    let config = Config {
        overlay: enishi_overlay::Config::new(OverlayId::from_name("test")),
        addresses: vec!["192.0.2.1:7000".parse().unwrap()],
        host_name: "aki".into(),
        started_unix_s: 1_700_000_000,
    };
    Header::new(&Keypair::from_seed(&[1; 32]), &config, &[2; 32])
}

/// One of each sort, those with secrets among them.
fn inputs() -> Vec<Input> {
    let keypair = |seed| Keypair::from_seed(&[seed; 32]);
    let peer = Contact::new(keypair(9).id(), ["192.0.2.9:7000".parse().unwrap()]);
    let put = dht::Command::Put {
        caller: Caller::Host(1),
        request: Box::new(PutRequest {
            kind: Kind::Lease,
            writer: keypair(3),
            owner: keypair(4),
            lease_s: 60,
            value: Some(Bytes::from_static(b"sealed")),
        }),
    };
    let open = vnet::Command::Open {
        spec: ChannelSpec {
            name: "office".into(),
            network: "10.77.0.0/16".parse().unwrap(),
            secret: Secret::new([5; 32]),
            entry: vnet::Entry::Secret,
        },
        address: Some(Ipv4Addr::new(10, 77, 0, 9)),
    };
    vec![
        Input::Restored {
            service: ServiceId::Vnet,
            key: b"key".to_vec(),
            value: b"value".to_vec(),
            age_s: 7,
        },
        Input::Bootstrap(vec![peer.clone()]),
        Input::Message {
            from: peer.id(),
            message: Message::Ping {
                nonce: 1,
                version: 1,
            },
        },
        Input::Command(Command::Dht(put)),
        Input::Command(Command::Vnet(open)),
        Input::Storage { works: false },
        Input::Timeout,
        Input::Closed(peer.id()),
        Input::Leave,
    ]
}

/// Records a node that gets all inputs; also returns where each frame begins.
fn recording() -> (Vec<u8>, Vec<usize>) {
    let header = header();
    let mut octets = Writer::preamble(&header).to_vec();
    let mut starts = Vec::new();
    let (mut writer, mut node) = (Writer::new(&header), header.node());
    for (second, input) in (1..).zip(inputs()) {
        let at = Time::from_secs(second);
        writer.begin(at, &input);
        node.handle(at, input)
            .for_each(|output| writer.output(&output));
        starts.push(octets.len());
        octets.extend(writer.finish(node.next_timeout()).unwrap());
    }
    starts.push(octets.len());
    octets.extend(writer.end(Ending::Stopped));
    (octets, starts)
}

fn read(octets: &[u8]) -> (Vec<Step>, Stop) {
    let mut reader = Reader::open(octets).unwrap();
    let mut steps = Vec::new();
    loop {
        match reader.step() {
            Ok(step) => steps.push(step),
            Err(stop) => return (steps, stop),
        }
    }
}

#[test]
fn what_is_read_is_what_was_written_secrets_too() {
    let (octets, _) = recording();
    let (steps, stop) = read(&octets);
    assert!(matches!(stop, Stop::Ended(Ending::Stopped)), "{stop:?}");
    assert_eq!(steps.len(), inputs().len());
    let reader = Reader::open(&octets[..]).unwrap();
    assert_eq!(reader.header().software, software());
    assert_eq!(reader.header().node_id(), header().node_id());
    // The node that is made of it signs and derives the same: its outputs are the same.
    let mut node = reader.header().node();
    let mut trace = Trace::new(&node.id());
    for step in steps {
        let again = Entry::decode(&Entry::Step(Box::new(step.clone())).encode());
        assert!(
            matches!(again, Some(Entry::Step(again)) if again.digest == step.digest
                && format!("{:?}", again.input) == format!("{:?}", step.input))
        );
        node.handle(step.at, step.input)
            .for_each(|output| trace.output(&output));
        assert_eq!(
            trace.digest(node.next_timeout()),
            step.digest,
            "{}",
            step.at
        );
    }
}

/// The header of a node with one of the two sorts of membership that hold a secret.
fn header_in_closed_overlay(invited: bool) -> Header {
    let authority = Keypair::from_seed(&[6; 32]);
    let seed = Secret::new([5; 32]);
    let subject = Subject::Invitation {
        keys: vec![invitation_keys(&seed, 1)[0].id()],
        single_use: true,
        members_until_unix_s: 1_800_000_000,
    };
    let overlay = OverlayId::of_authority(&authority.id());
    let valid = 1_700_000_000..1_700_086_400;
    let membership = match invited {
        true => Membership::Invited(Invited {
            authority: authority.id(),
            invitation: Certificate::sign(&authority, overlay, subject, valid),
            seed,
            joined_unix_s: 1_700_000_000,
        }),
        false => Membership::Secret(seed),
    };
    let mut header = header();
    header.birth.config.overlay.overlay = membership.overlay();
    header.in_closed_overlay(membership)
}

#[test]
fn a_membership_is_read_as_it_was_and_only_with_its_overlay() {
    for invited in [true, false] {
        let written = header_in_closed_overlay(invited);
        let octets = Writer::preamble(&written);
        let reader = Reader::open(&octets[..]).unwrap();
        assert_eq!(reader.header().birth.membership, written.birth.membership);
        assert!(!format!("{written:?}").contains("[5, 5"));
        let mut astray = written;
        astray.birth.config.overlay.overlay = OverlayId::from_name("test");
        let octets = Writer::preamble(&astray);
        let error = Reader::open(&octets[..]).unwrap_err();
        assert!(matches!(error, OpenError::Version(_)), "{error}");
    }
}

#[test]
fn wherever_it_is_cut_the_whole_frames_before_are_read() {
    let (octets, starts) = recording();
    for end in starts[0]..octets.len() {
        let (steps, stop) = read(&octets[..end]);
        let whole = starts.iter().filter(|start| **start <= end).count() - 1;
        assert_eq!(steps.len(), whole, "{end}");
        match starts.contains(&end) {
            true => assert!(matches!(stop, Stop::Cut), "{end}: {stop:?}"),
            false => assert!(matches!(stop, Stop::Torn(at) if at == starts[whole] as u64)),
        }
    }
    for end in 0..starts[0] {
        assert!(Reader::open(&octets[..end]).is_err());
    }
}

#[test]
fn a_damaged_octet_ends_the_reading_at_its_frame() {
    let (octets, starts) = recording();
    for place in starts[0]..octets.len() {
        let mut damaged = octets.clone();
        damaged[place] ^= 0x20;
        let (steps, stop) = read(&damaged);
        let frame = starts.iter().filter(|start| **start <= place).count() - 1;
        assert_eq!(steps.len(), frame, "{place}");
        assert!(matches!(stop, Stop::Torn(_)), "{place}: {stop:?}");
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let (octets, _) = recording();
    let error = |octets: &[u8]| Reader::open(octets).unwrap_err();
    assert!(matches!(error(b"{}"), OpenError::NotARecording));
    let mut other = octets.clone();
    other[MAGIC.len()] = 9;
    assert!(matches!(error(&other), OpenError::Format(9)));
    // Of another version: the text stands first, the rest is not understood.
    let payload = postcard::to_stdvec(&("9.9.9", 1_u8)).unwrap();
    let mut other = octets[..=MAGIC.len()].to_vec();
    other.extend((payload.len() as u32).to_le_bytes());
    other.extend(checksum(&payload));
    other.extend(payload);
    assert!(matches!(error(&other), OpenError::Version(version) if version == "9.9.9"));
}

#[test]
fn nothing_secret_is_printed() {
    let shown = format!("{:?} {:?}", header(), inputs());
    assert!(!shown.contains("[5, 5"), "{shown}");
    assert!(!shown.contains("[2, 2"), "{shown}");
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Entry::decode(&noise);
        let (mut octets, starts) = recording();
        octets.truncate(starts[2]);
        octets.extend(noise);
        prop_assert!(read(&octets).0.len() >= 2);
    }
}
