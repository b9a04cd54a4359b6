//! `verify`: what several paths say that have no node in common.

use enishi_api::{Answer, Failure, Verdict, Verification, Verified, VerifiedRecord};
use enishi_services::dht::{self, Confirmation, Subject};
use enishi_services::names::OpenName;

use super::desk::{Desk, usage};
use super::target::{self, Target};

pub(super) async fn verify(desk: &Desk, target: &str, paths: u8) -> Result<Answer, Failure> {
    let most = enishi_api::PATHS_MAX;
    if !(1..=most).contains(&paths) {
        return Err(usage(format!("One asks over 1 to {most} paths.")));
    }
    let (subject, about) = match Target::parse(target)? {
        Target::Key(text) => {
            let name = OpenName::new(&text, &desk.shared.keypair)
                .ok_or_else(|| usage("A key has 1 to 1024 octets."))?;
            (Subject::Key(name.key()), Verified::Key(text))
        }
        target => {
            let node = target::node(desk, &target).await?;
            if node == desk.sessions.me() {
                return Err(usage(
                    "This is the node itself. Whether others find it, `enishi doctor` tells.",
                ));
            }
            (Subject::Node(node), Verified::Node(node.to_string()))
        }
    };
    let all_known = desk.look(|node| {
        let overlay = node.overlay();
        !overlay.is_client() && overlay.near().spans_ring()
    });
    let all_known = all_known.await?;
    let confirmation = desk.confirm(subject, paths).await?;
    Ok(Answer::Verification(tell(about, all_known, &confirmation)))
}

fn tell(subject: Verified, all_known: bool, confirmation: &Confirmation) -> Verification {
    let record = confirmation.records.first().map(|record| VerifiedRecord {
        owner: record.content().owner.to_string(),
        seq: record.content().seq,
        holders: confirmation.holders,
    });
    Verification {
        subject,
        verdict: match confirmation.verdict {
            dht::Verdict::Confirmed => Verdict::Confirmed,
            dht::Verdict::Disputed => Verdict::Disputed,
            dht::Verdict::Unknown => Verdict::Unknown,
        },
        all_known,
        paths: confirmation.paths,
        agreeing: confirmation.agreeing,
        asked: confirmation.asked,
        nearest: confirmation
            .nearest
            .iter()
            .map(ToString::to_string)
            .collect(),
        record,
        unusual: confirmation.unusual,
    }
}
