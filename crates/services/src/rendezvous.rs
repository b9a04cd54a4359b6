//! How nodes of one overlay find each other where they know no node id yet: the question "who are
//! you?", its answer, and the marks by which an overlay is known in public places.
//!
//! Whoever has found an address, by the local network, a list or a public rendezvous, asks there by
//! one datagram. Only who knows the overlay can ask, and only who knows it can answer:
//!
//! ```text
//!   question, QUESTION_BYTES
//!   +------+---------+-----------+------------------------------------------+
//!   | 0x31 | 1 (u8)  | nonce 24  | sealed zeros (XChaCha20-Poly1305)        |
//!   +------+---------+-----------+------------------------------------------+
//!
//!   answer, at most QUESTION_BYTES: asking with a forged address gains nothing
//!   +------+---------+-----------+------------------------------------------+
//!   | 0x32 | 1 (u8)  | nonce 24  | sealed for the question's nonce: Answer  |
//!   +------+---------+-----------+------------------------------------------+
//! ```
//!
//! The answer is not signed. It names contacts, which are hearsay as all contacts are: the handshake
//! of the session proves the key, and a closed overlay asks for membership besides. So a stranger's
//! question costs a node no signature.
//!
//! The keys follow from the overlay's id, and in a closed overlay with a secret from that, too.

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use enishi_overlay::contact::ADDRESSES_MAX;
use enishi_overlay::{Contact, NodeId, OverlayId, Rng};
use serde::{Deserialize, Serialize};

use crate::admission::Membership;
use crate::keys::{SEAL_BYTES, Secret, derive, seal, unseal};

/// The length of a question, and the most of an answer, in octets: what every path takes that IPv6
/// passes (RFC 8200, section 5).
pub const QUESTION_BYTES: usize = 1_200;

/// The most contacts of an answer.
pub const CONTACTS_MAX: usize = 6;

/// The first octets of the two, and the version after each.
const QUESTION: [u8; 2] = [0x31, 1];
const ANSWER: [u8; 2] = [0x32, 1];

/// What a question is filled up with.
const FILLING: [u8; QUESTION_BYTES - QUESTION.len() - SEAL_BYTES] =
    [0; QUESTION_BYTES - QUESTION.len() - SEAL_BYTES];

/// What a TXT record begins with that names a node; others of the same name are not for us.
pub const RECORD_PREFIX: &str = "enishi=";

/// The longest such record, in octets.
const RECORD_BYTES_MAX: usize = 512;

/// Octets of the random half of a label, and of the other one.
const SALT_BYTES: usize = 8;

/// What is known by those who may meet.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    questions: Secret,
    answers: Secret,
    places: Secret,
}

/// A question that was understood, by its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked([u8; 24]);

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The UDP port of its sessions: where it was asked, it may be dialled at this port.
    pub port: u16,
    /// The node itself and, if it hands them out, others: at most [`CONTACTS_MAX`].
    pub contacts: Vec<Contact>,
}

impl Answer {
    /// Reads the content of an answer; none when it is none, or names too many.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let (answer, rest) = postcard::take_from_bytes::<Self>(octets).ok()?;
        (rest.is_empty() && answer.contacts.len() <= CONTACTS_MAX).then_some(answer)
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        // Fails only without memory.
        postcard::to_stdvec(self).unwrap_or_default()
    }
}

/// What a record of a list in the DNS names: `enishi=NODE@ADDRESS:PORT,…`, or without the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A node.
    Contact(Contact),
    /// Where somebody is to be asked who is there, at most [`ADDRESSES_MAX`].
    Addresses(Vec<SocketAddr>),
}

impl Listed {
    /// Reads a record of at most 512 octets; none when it is not for us, or not understood.
    pub fn read(record: &[u8]) -> Option<Self> {
        if record.len() > RECORD_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(record).ok()?;
        let named = text.trim().strip_prefix(RECORD_PREFIX)?;
        let (id, addresses) = match named.split_once('@') {
            Some((id, addresses)) => (Some(id.parse::<NodeId>().ok()?), addresses),
            None => (None, named),
        };
        let addresses = addresses.split(',').take(ADDRESSES_MAX);
        let addresses = addresses.map(|text| text.trim().parse().ok());
        let addresses: Vec<SocketAddr> = addresses.collect::<Option<_>>()?;
        Some(match id {
            Some(id) => Self::Contact(Contact::new(id, addresses)),
            None => Self::Addresses(addresses),
        })
    }
}

impl Rendezvous {
    /// Derives what the nodes of an overlay know; `membership` is that of a closed one.
    pub fn new(overlay: &OverlayId, membership: Option<&Membership>) -> Self {
        let secret: &[u8] = match membership {
            Some(Membership::Secret(secret)) => &**secret,
            Some(Membership::Certified { .. } | Membership::Invited(_)) | None => &[],
        };
        let key = |what: &[u8]| {
            let about = [&overlay.as_bytes()[..], what];
            derive("enishi 1 rendezvous", secret, &about)
        };
        Self {
            questions: key(b"question"),
            answers: key(b"answer"),
            places: key(b"place"),
        }
    }

    /// Makes a question.
    pub fn question(&self, rng: &mut Rng) -> (Asked, Vec<u8>) {
        let mut octets = QUESTION.to_vec();
        octets.extend(seal(rng, &self.questions, &QUESTION, &FILLING));
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&octets[2..26]);
        (Asked(nonce), octets)
    }

    /// Reads a question; none when it is none, or of somebody who does not know the overlay.
    pub fn read_question(&self, octets: &[u8]) -> Option<Asked> {
        let sealed = octets.strip_prefix(&QUESTION)?;
        if octets.len() != QUESTION_BYTES {
            return None;
        }
        let filling = unseal(&self.questions, &QUESTION, sealed)?;
        let nonce = sealed.first_chunk::<24>()?;
        (filling == FILLING).then_some(Asked(*nonce))
    }

    /// Makes the answer to a question: as many contacts, from the first on, as have room.
    pub fn answer(&self, rng: &mut Rng, asked: &Asked, mut answer: Answer) -> Vec<u8> {
        answer.contacts.truncate(CONTACTS_MAX);
        loop {
            let value = answer.encode();
            if ANSWER.len() + SEAL_BYTES + value.len() <= QUESTION_BYTES {
                let mut octets = ANSWER.to_vec();
                octets.extend(seal(rng, &self.answers, &asked.0, &value));
                return octets;
            }
            // A port alone has room.
            answer.contacts.pop();
        }
    }

    /// Reads the answer to a question; none when it is none, or to another one.
    pub fn read_answer(&self, asked: &Asked, octets: &[u8]) -> Option<Answer> {
        let sealed = octets.strip_prefix(&ANSWER)?;
        if octets.len() > QUESTION_BYTES {
            return None;
        }
        let value = unseal(&self.answers, &asked.0, sealed)?;
        Answer::decode(&value)
    }

    /// Returns the label by which a node shows those who know the overlay that it is of it: 32
    /// hexadecimal digits, of which others see nothing, not even which of two are of one overlay.
    pub fn label(&self, salt: [u8; SALT_BYTES]) -> String {
        let mark = self.place(b"label", &salt);
        HEXLOWER.encode(&[&salt[..], &mark[..SALT_BYTES]].concat())
    }

    /// Tells whether a label is of this overlay.
    pub fn is_label(&self, label: &str) -> bool {
        let octets = HEXLOWER.decode(label.as_bytes()).unwrap_or_default();
        let salt = octets.first_chunk::<SALT_BYTES>();
        salt.is_some_and(|salt| self.label(*salt) == label)
    }

    /// Returns under which number the nodes of this overlay are found in the Mainline DHT (BEP 5)
    /// on a day, counted from 1970. Who does not know the overlay cannot tell that two days' numbers
    /// are of one.
    pub fn info_hash(&self, day: u64) -> [u8; 20] {
        let mark = self.place(b"day", &day.to_le_bytes());
        let mut hash = [0; 20];
        hash.copy_from_slice(&mark[..20]);
        hash
    }

    fn place(&self, what: &[u8], about: &[u8]) -> Secret {
        derive("enishi 1 rendezvous place", &*self.places, &[what, about])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::Keypair;

    fn contact(seed: u8, addresses: u16) -> Contact {
        let at = (1..=addresses).map(|port| format!("[2001:db8::{port}]:{port}").parse().unwrap());
        Contact::new(Keypair::from_seed(&[seed; 32]).id(), at)
    }

    fn open(name: &str) -> Rendezvous {
        Rendezvous::new(&OverlayId::from_name(name), None)
    }

    #[test]
    fn only_who_knows_the_overlay_asks_and_is_answered() {
        let (mut rng, here) = (Rng::from_seed([1; 32]), open("office"));
        let (asked, question) = here.question(&mut rng);
        assert_eq!(question.len(), QUESTION_BYTES);
        assert_eq!(here.read_question(&question), Some(asked));
        assert_eq!(open("open").read_question(&question), None);
        for at in [0, 1, 2, 30, QUESTION_BYTES - 1] {
            let mut changed = question.clone();
            changed[at] ^= 1;
            assert_eq!(here.read_question(&changed), None, "{at}");
        }
        assert_eq!(here.read_question(&question[..QUESTION_BYTES - 1]), None);
        let answer = Answer {
            port: 7,
            contacts: vec![contact(1, 2)],
        };
        let octets = here.answer(&mut rng, &asked, answer.clone());
        assert_eq!(here.read_answer(&asked, &octets), Some(answer));
        assert_eq!(open("open").read_answer(&asked, &octets), None);
        // The answer to another question is none to this.
        let (other, _) = here.question(&mut rng);
        assert_eq!(here.read_answer(&other, &octets), None);
        // Nor is a question an answer.
        assert_eq!(here.read_answer(&asked, &question), None);
    }

    #[test]
    fn an_answer_is_never_longer_than_the_question() {
        let (mut rng, here) = (Rng::from_seed([1; 32]), open("office"));
        let (asked, _) = here.question(&mut rng);
        let contacts: Vec<Contact> = (1..40).map(|seed| contact(seed, 8)).collect();
        let answer = Answer { port: 7, contacts };
        let octets = here.answer(&mut rng, &asked, answer.clone());
        assert!(octets.len() <= QUESTION_BYTES);
        let read = here.read_answer(&asked, &octets).unwrap();
        assert!(read.contacts.len() >= 4, "{}", read.contacts.len());
        assert_eq!(read.contacts[..], answer.contacts[..read.contacts.len()]);
    }

    #[test]
    fn records_name_nodes_or_addresses() {
        let id = Keypair::from_seed(&[1; 32]).id();
        let at: SocketAddr = "192.0.2.7:4242".parse().unwrap();
        let six: SocketAddr = "[2001:db8::7]:4242".parse().unwrap();
        let text = format!("enishi={id}@{at}, {six}");
        let named = Listed::Contact(Contact::new(id, [at, six]));
        assert_eq!(Listed::read(text.as_bytes()), Some(named));
        let named = Listed::Addresses(vec![at]);
        assert_eq!(Listed::read(b"enishi=192.0.2.7:4242"), Some(named));
        let long = format!("enishi={id}@{at}{}", " ".repeat(RECORD_BYTES_MAX));
        let bad = [
            "",
            "v=spf1 -all",
            "enishi=",
            "enishi=@192.0.2.7:1",
            "enishi=host:1",
            &long,
        ];
        for bad in bad {
            assert_eq!(Listed::read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Listed::read(b"enishi=\xff"), None);
    }

    #[test]
    fn a_secret_makes_another_rendezvous_of_the_same_overlay() {
        let overlay = OverlayId::of_secret(&[7; 32]);
        let secret = Membership::Secret(Secret::new([7; 32]));
        let members = Rendezvous::new(&overlay, Some(&secret));
        let (_, question) = members.question(&mut Rng::from_seed([1; 32]));
        assert!(members.read_question(&question).is_some());
        assert!(
            Rendezvous::new(&overlay, None)
                .read_question(&question)
                .is_none()
        );
    }

    #[test]
    fn marks_in_public_tell_others_nothing() {
        let (here, there) = (open("office"), open("open"));
        let label = here.label([3; 8]);
        assert_eq!(label.len(), 32);
        assert!(here.is_label(&label) && !there.is_label(&label));
        assert_ne!(label[16..], here.label([4; 8])[16..]);
        for wrong in ["", "aki", &label[1..], &label.to_uppercase(), "é"] {
            assert!(!here.is_label(wrong), "{wrong}");
        }
        assert_ne!(here.info_hash(1), here.info_hash(2));
        assert_ne!(here.info_hash(1), there.info_hash(1));
    }
}
