//! What a stranger says at the gate of a closed overlay: whatever it is, only a proof that
//! the authority has signed lets it in, and only into the state that this gives.
#![no_main]

use std::sync::OnceLock;

use enishi_overlay::admission::{Admission, Certificate, Credential, Proof, Subject};
use enishi_overlay::message::WIRE_VERSION;
use enishi_overlay::{Keypair, Message, OverlayId, Time};
use enishi_services::admission::Membership;
use enishi_services::{Config, Input, Node, Output};
use libfuzzer_sys::fuzz_target;

/// The time of the world, and for how long certificates of the seeds are good.
const NOW_UNIX_S: u64 = 1_800_000_000;
const VALID_S: u64 = 86_400;

struct Office {
    authority: Keypair,
    member: Keypair,
    stranger: Keypair,
    overlay: OverlayId,
    /// The one credential of the stranger that the authority has signed.
    genuine: Credential,
}

fn office() -> &'static Office {
    static OFFICE: OnceLock<Office> = OnceLock::new();
    OFFICE.get_or_init(|| {
        let [authority, member, stranger] = [1, 2, 3].map(|octet| Keypair::from_seed(&[octet; 32]));
        let overlay = OverlayId::of_authority(&authority.id());
        let genuine = Credential {
            member: sign(&authority, overlay, &stranger),
            invitation: None,
        };
        Office {
            authority,
            member,
            stranger,
            overlay,
            genuine,
        }
    })
}

fn sign(authority: &Keypair, overlay: OverlayId, member: &Keypair) -> Certificate {
    let valid = NOW_UNIX_S..NOW_UNIX_S + VALID_S;
    Certificate::sign(authority, overlay, Subject::Member(member.id()), valid)
}

fn node() -> Node {
    let office = office();
    let config = Config {
        overlay: enishi_overlay::Config::new(office.overlay),
        addresses: vec![],
        host_name: "fuzz".to_owned(),
        started_unix_s: NOW_UNIX_S,
    };
    let membership = Membership::Certified {
        authority: office.authority.id(),
        certificate: sign(&office.authority, office.overlay, &office.member),
    };
    Node::new(office.member.clone(), config, [7; 32]).in_closed_overlay(membership)
}

fuzz_target!(|octets: &[u8]| {
    // Without the octet of the version, which mutations would only spoil.
    let frame = [&[WIRE_VERSION], octets].concat();
    let Ok(message) = Message::decode(&frame) else {
        return;
    };
    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    let (mut node, from) = (node(), office().stranger.id());
    let entitled = matches!(&message, Message::Admission(admission)
        if matches!(&**admission, Admission::Present(shown)
            if shown.proof == Proof::Credential(Box::new(office().genuine.clone()))));
    let input = Input::Message { from, message };
    let outputs: Vec<Output> = node.handle(Time::ZERO, input).collect();
    assert_eq!(node.gate().has_admitted(from), entitled);
    if !entitled {
        let told = outputs.iter().any(|output| match output {
            Output::Send { message, .. } => {
                *message != Message::Admission(Box::new(Admission::Ask))
            }
            Output::Event(_) | Output::Remember(_) | Output::Persist { .. } => true,
            Output::Dial(_) | Output::GiveUp(_) | Output::Drop(_) => false,
        });
        assert!(!told, "a stranger hears nothing: {outputs:?}");
    }
});
