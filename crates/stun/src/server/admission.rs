//! Who may have a slot: long-term credentials (RFC 8489, section 9.2) without memory of
//! strangers.
//!
//! A request without credentials is answered by 401 with a nonce, the request is sent again with
//! both and is checked. The nonce holds when it ends and a code over that and the
//! client's address, by a key that nobody else has:
//!
//! ```text
//!   8 hex digits: seconds | 32 hex digits: BLAKE3(key, address, port, seconds)
//! ```
//!
//! So nothing is remembered of who only asks, a forged source never sees its nonce, and
//! a request that somebody overheard is of use from the same address for a minute only. Whoever
//! passes gets the nonce of a protocol machine of its own by 438 and sends the request once more.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use enishi_overlay::Time;
use stun_types::attribute::{
    AttributeStaticType as _, ErrorCode, MessageIntegrity, MessageIntegritySha256, Nonce,
    PasswordAlgorithm, Realm, Userhash, Username,
};
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, Message};

use super::replies::{self, Signer};
use crate::credentials::Credentials;

/// How long a stranger's nonce is good for, in seconds: clients answer at once. RFC 8656,
/// section 5, asks for an hour at most.
const NONCE_S: u64 = 60;

/// How many hexadecimal digits of a nonce say until when it is good.
const SECONDS_DIGITS: usize = 8;

/// Knows the users.
pub(super) struct Admission {
    realm: String,
    key: [u8; 32],
    /// By numbers of which none is given twice.
    users: BTreeMap<usize, User>,
    next_user: usize,
    by_name: BTreeMap<String, usize>,
    by_hash: BTreeMap<[u8; 32], usize>,
    nobody: Keys,
}

/// What is to be done with a stranger's request.
pub(super) enum Judgement {
    /// Send this back, and forget about it.
    Refused(Option<Vec<u8>>),
    /// It was sent by the user of this number, from the address that it seems to come from.
    Proved(usize),
}

struct User {
    credentials: Credentials,
    keys: Keys,
}

/// The keys of a password, by the algorithm that made them of it.
struct Keys {
    sha1: IntegrityKey,
    sha256: IntegrityKey,
}

impl Admission {
    pub(super) fn new(realm: String, users: Vec<Credentials>, key: [u8; 32]) -> Self {
        let mut admission = Self {
            nobody: Keys::new(&realm, None),
            realm,
            key,
            users: BTreeMap::new(),
            next_user: 0,
            by_name: BTreeMap::new(),
            by_hash: BTreeMap::new(),
        };
        for credentials in users {
            admission.add(credentials);
        }
        admission
    }

    /// Adds a user, in place of one of the same name, whose number is returned.
    pub(super) fn add(&mut self, credentials: Credentials) -> Option<usize> {
        let before = self.remove(credentials.name());
        let number = self.next_user;
        self.next_user += 1;
        let name = credentials.name().to_owned();
        let hash = Userhash::compute(&name, &self.realm);
        self.by_hash.insert(hash, number);
        self.by_name.insert(name, number);
        let keys = Keys::new(&self.realm, Some(&credentials));
        self.users.insert(number, User { credentials, keys });
        before
    }

    /// Removes a user, and returns its number.
    pub(super) fn remove(&mut self, name: &str) -> Option<usize> {
        let number = self.by_name.remove(name)?;
        self.by_hash.retain(|_, known| *known != number);
        self.users.remove(&number);
        Some(number)
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    pub(super) fn credentials(&self, user: usize) -> Option<&Credentials> {
        self.users.get(&user).map(|user| &user.credentials)
    }

    /// Goes through the checks of RFC 8489, section 9.2.4, in their order.
    pub(super) fn judge(&self, now: Time, source: SocketAddr, request: &Message<'_>) -> Judgement {
        let signed = request.has_attribute(MessageIntegrity::TYPE)
            || request.has_attribute(MessageIntegritySha256::TYPE);
        if !signed {
            let reply = self.challenge(now, source, request, ErrorCode::UNAUTHORIZED);
            return Judgement::Refused(reply);
        }
        let named = request.has_attribute(Username::TYPE) || request.has_attribute(Userhash::TYPE);
        let nonce = request.attribute::<Nonce>();
        let (true, true, Ok(nonce)) = (named, request.has_attribute(Realm::TYPE), nonce) else {
            return Judgement::Refused(replies::error(request, ErrorCode::BAD_REQUEST));
        };
        if !self.is_good(now, source, nonce.nonce()) {
            let reply = self.challenge(now, source, request, ErrorCode::STALE_NONCE);
            return Judgement::Refused(reply);
        }
        let user = self.user(request);
        match user.filter(|user| self.signer(request, *user).is_some()) {
            Some(user) => Judgement::Proved(user),
            None => {
                if user.is_none() {
                    // Takes the time that it would take for a user.
                    self.nobody.signer(request);
                }
                let reply = self.challenge(now, source, request, ErrorCode::UNAUTHORIZED);
                Judgement::Refused(reply)
            }
        }
    }

    /// Returns by which key of a user a request is signed, if by one and by this user.
    pub(super) fn signer(&self, request: &Message<'_>, user: usize) -> Option<Signer<'_>> {
        if self.user(request) != Some(user) {
            return None;
        }
        self.users.get(&user)?.keys.signer(request)
    }

    /// Refuses the request of a user.
    pub(super) fn refuse(&self, request: &Message<'_>, user: usize, code: u16) -> Option<Vec<u8>> {
        let signer = self.signer(request, user)?;
        replies::signed(request, code, &signer)
    }

    /// Says to a user that there is no allocation (RFC 8656, section 5).
    pub(super) fn mismatch(&self, request: &Message<'_>, user: usize) -> Option<Vec<u8>> {
        self.refuse(request, user, ErrorCode::ALLOCATION_MISMATCH)
    }

    fn user(&self, request: &Message<'_>) -> Option<usize> {
        if let Ok(hash) = request.attribute::<Userhash>() {
            return self.by_hash.get(hash.hash()).copied();
        }
        let name = request.attribute::<Username>().ok()?;
        self.by_name.get(name.username()).copied()
    }

    fn challenge(
        &self,
        now: Time,
        source: SocketAddr,
        request: &Message<'_>,
        code: u16,
    ) -> Option<Vec<u8>> {
        let until_s = seconds(now) + NONCE_S;
        let nonce = self.nonce(source, until_s);
        replies::challenge(request, code, &self.realm, &nonce, &[])
    }

    fn is_good(&self, now: Time, source: SocketAddr, nonce: &str) -> bool {
        let until_s = nonce
            .get(..SECONDS_DIGITS)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        until_s.is_some_and(|until_s| {
            (seconds(now)..=seconds(now) + NONCE_S).contains(&until_s)
                && same(&self.nonce(source, until_s), nonce)
        })
    }

    fn nonce(&self, source: SocketAddr, until_s: u64) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        match source.ip() {
            std::net::IpAddr::V4(ip) => hasher.update(&ip.octets()),
            std::net::IpAddr::V6(ip) => hasher.update(&ip.octets()),
        };
        hasher.update(&source.port().to_be_bytes());
        hasher.update(&until_s.to_be_bytes());
        let code = hasher.finalize().to_hex();
        format!("{until_s:08x}{}", &code[..32])
    }
}

impl Keys {
    /// Those of a user; of nobody, made of a password that no user has.
    fn new(realm: &str, credentials: Option<&Credentials>) -> Self {
        let key = |algorithm| match credentials {
            Some(credentials) => credentials.key(realm, algorithm),
            None => stun_types::message::LongTermKeyCredentials::new(
                String::new(),
                String::new(),
                realm.to_owned(),
            )
            .make_key(algorithm),
        };
        Self {
            sha1: key(IntegrityAlgorithm::Sha1),
            sha256: key(IntegrityAlgorithm::Sha256),
        }
    }

    /// Returns the key by which a request is signed, if it is one of these.
    fn signer(&self, request: &Message<'_>) -> Option<Signer<'_>> {
        let algorithm = request
            .attribute::<PasswordAlgorithm>()
            .map_or(IntegrityAlgorithm::Sha1, |it| it.algorithm().as_integrity());
        let key = match algorithm {
            IntegrityAlgorithm::Sha1 => &self.sha1,
            IntegrityAlgorithm::Sha256 => &self.sha256,
        };
        request.validate_integrity_with_key(key).ok()?;
        Some(Signer { key, algorithm })
    }
}

/// Seconds since the start, as many as the digits can hold: a hundred years.
fn seconds(now: Time) -> u64 {
    now.as_micros() / 1_000_000 % (1 << (4 * SECONDS_DIGITS - 1))
}

/// Compares without telling by its duration where two texts differ.
fn same(left: &str, right: &str) -> bool {
    let pairs = left.bytes().zip(right.bytes());
    left.len() == right.len() && pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
