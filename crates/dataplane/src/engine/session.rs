//! What the engine knows of one member of one network: its keys, the ways to it, and what
//! passed.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::paths::Paths;
use super::sockets::Pair;
use super::{Counters, NetworkId, Note, PeerKey, SessionKeys};
use crate::filter::{Direction, Filter, Own, Sides};
use crate::packet::IpPacket;
use crate::reassembly::{Half, Reassembly};
use crate::sealed::{
    DATAGRAMS_WANTED, HEADER_BYTES, Kind, Opened, Opener, SealError, Sealer, TRAILER_BYTES,
};

/// After so long keys are not used any more, to seal or to open: as long as in WireGuard
/// (J. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", NDSS 2017, section 6.1:
/// Reject-After-Time).
pub(super) const KEYS_LAST: Duration = Duration::from_secs(180);
/// For how long after an agreement has lapsed what comes by it is taken: longer than the other
/// side needs to notice that a session is gone.
const LAPSED_FOR: Duration = Duration::from_secs(10);
/// How often new keys are asked for while they do not come.
const KEYS_WANTED_INTERVAL: Duration = Duration::from_secs(2);
/// How long the peer may take to show that it has keys before others are asked for.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// How many keys that are not used any more are kept to open with: those before, and ones that
/// took their place for a moment, when both sides asked at once or one asked twice.
const PREVIOUS_MAX: usize = 2;

/// A session with one member.
pub(super) struct Session {
    pub(super) network: NetworkId,
    pub(super) peer: PeerKey,
    /// What is routed to it and may come from it.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) paths: Paths,
    pub(super) counters: Counters,
    /// Where the peer says to see this host; none before it has.
    pub(super) seen_at: Option<SocketAddr>,
    /// Which way straight to the peer the host was told of last.
    pub(super) told_at: Option<SocketAddr>,
    /// The keys that are used; those that the peer has not been seen to have yet; those before,
    /// newest first, for datagrams that are still on the way.
    current: Option<Keys>,
    next: Option<Keys>,
    previous: Vec<Keys>,
    wanted: Option<Instant>,
    /// Since when there is no agreement.
    lapsed: Option<Instant>,
    reassembly: Reassembly,
    split: u16,
    /// What may pass; none for everything.
    pub(super) filter: Option<Box<Filter>>,
}

struct Keys {
    sealer: Sealer,
    opener: Opener,
    receive_index: u32,
    since: Instant,
    renew_after: Duration,
    used: bool,
}

/// Why nothing is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoKeys;

impl Session {
    pub(super) fn new(network: NetworkId, peer: PeerKey, now: Instant) -> Self {
        Self {
            network,
            peer,
            addresses: Vec::new(),
            paths: Paths::new(now),
            counters: Counters::default(),
            seen_at: None,
            told_at: None,
            current: None,
            next: None,
            previous: Vec::new(),
            wanted: None,
            lapsed: None,
            reassembly: Reassembly::default(),
            split: 0,
            filter: None,
        }
    }

    /// Sets what may pass. Flows that were begun under the same permits go on.
    pub(super) fn set_filter(&mut self, filter: Option<Filter>) {
        match (&self.filter, &filter) {
            (Some(now), Some(then)) if now.permits_as(then) => {}
            _ => self.filter = filter.map(Box::new),
        }
    }

    /// Tells whether a packet between this host, which has these addresses, and the peer may
    /// pass.
    pub(super) fn passes(
        &mut self,
        now: Instant,
        direction: Direction,
        mine: Own<'_>,
        packet: &IpPacket<'_>,
    ) -> bool {
        let theirs = Own {
            here: &self.addresses,
            elsewhere: &[],
        };
        self.filter
            .as_mut()
            .is_none_or(|filter| filter.passes(now, direction, Sides { mine, theirs }, packet))
    }

    /// Takes new keys; those that the peer is known to have are used at once, others as soon
    /// as it uses them. Returns the index of keys that nothing is taken with any more.
    pub(super) fn set_keys(&mut self, now: Instant, keys: &SessionKeys) -> Option<u32> {
        let fresh = Keys {
            sealer: Sealer::new(keys.cipher, &keys.send, keys.send_index),
            opener: Opener::new(keys.cipher, &keys.receive),
            receive_index: keys.receive_index,
            since: now,
            renew_after: keys.renew_after,
            used: false,
        };
        self.wanted = None;
        self.lapsed = None;
        if keys.peer_has_them {
            self.use_keys(fresh)
        } else {
            let before = self.next.replace(fresh)?;
            self.retire(before)
        }
    }

    fn use_keys(&mut self, fresh: Keys) -> Option<u32> {
        let before = self.current.replace(fresh)?;
        self.retire(before)
    }

    /// Opens with keys a while longer, in place of the oldest such.
    fn retire(&mut self, keys: Keys) -> Option<u32> {
        self.previous.insert(0, keys);
        let dropped = self.previous.get(PREVIOUS_MAX)?.receive_index;
        self.previous.truncate(PREVIOUS_MAX);
        Some(dropped)
    }

    /// Seals nothing any more until there are other keys, or not for long if the peer may still hear.
    /// Returns the indices of keys that nothing is taken with any more.
    pub(super) fn lapse(&mut self, now: Instant, may_hear: bool) -> Vec<u32> {
        self.wanted = None;
        self.lapsed = Some(now);
        let current = self.current.take();
        let (kept, retired) = match may_hear {
            true => (current, None),
            false => (None, current),
        };
        // Others are asked for if these are used from now on.
        self.current = kept.map(|keys| Keys {
            used: false,
            ..keys
        });
        let retired = [retired, self.next.take()].into_iter().flatten();
        retired.filter_map(|keys| self.retire(keys)).collect()
    }

    /// Tells whether there is no agreement any more.
    pub(super) fn has_lapsed(&self) -> bool {
        self.lapsed.is_some()
    }

    /// Returns how keys are asked for.
    pub(super) fn wish(&self) -> Note {
        let (network, peer) = (self.network, self.peer);
        // Who has lapsed is to be found anew.
        let address = self.lapsed.and(self.addresses.first().copied());
        address.map_or(Note::KeysWanted { network, peer }, |address| {
            Note::Missing { network, address }
        })
    }

    /// Tells whether it lapsed so long ago that it is to be forgotten.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.lapsed.is_some_and(|since| now - since >= LAPSED_FOR)
    }

    /// Returns the indices by which its datagrams are known.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        let keys = self.current.iter().chain(&self.next);
        keys.chain(&self.previous).map(|keys| keys.receive_index)
    }

    /// Tells whether there are keys to seal with.
    pub(super) fn can_seal(&self) -> bool {
        self.current.is_some()
    }

    /// Seals a datagram.
    pub(super) fn seal(
        &mut self,
        kind: Kind,
        content: &[u8],
        datagram: &mut [u8],
    ) -> Result<(), NoKeys> {
        let keys = self.current.as_mut().ok_or(NoKeys)?;
        keys.used |= kind.is_use();
        keys.sealer
            .seal(kind, content, datagram)
            .map_err(|_| NoKeys)
    }

    /// Opens a datagram with the keys of its index. The second value tells whether these are
    /// the next keys, which the peer is seen to have now: [`Session::promote`] them.
    pub(super) fn open<'b>(
        &mut self,
        index: u32,
        datagram: &'b mut [u8],
    ) -> Result<(Opened<'b>, bool), SealError> {
        if let Some(keys) = &mut self.current
            && keys.receive_index == index
        {
            let opened = keys.opener.open(datagram)?;
            keys.used |= opened.kind.is_some_and(Kind::is_use);
            return Ok((opened, false));
        }
        if let Some(keys) = &mut self.next
            && keys.receive_index == index
        {
            return keys.opener.open(datagram).map(|opened| (opened, true));
        }
        let mut previous = self.previous.iter_mut();
        let keys = previous
            .find(|keys| keys.receive_index == index)
            .ok_or(SealError::Malformed)?;
        let opened = Opened {
            is_newest: false,
            ..keys.opener.open(datagram)?
        };
        Ok((opened, false))
    }

    /// Uses the next keys from now on. Returns the index of keys that nothing is taken with
    /// any more.
    pub(super) fn promote(&mut self) -> Option<u32> {
        let fresh = self.next.take()?;
        let current = self.current.as_ref();
        if current.is_some_and(|current| current.since > fresh.since) {
            // Both asked, and ours is the later agreement.
            return self.retire(fresh);
        }
        self.use_keys(fresh)
    }

    /// Drops keys that are too old, and tells which indices are not in use any more.
    pub(super) fn expire_keys(&mut self, now: Instant) -> Vec<u32> {
        let is_old = |keys: &mut Keys| now - keys.since >= KEYS_LAST;
        let places = [&mut self.current, &mut self.next];
        let unused = places.into_iter().filter_map(|place| place.take_if(is_old));
        let before = self.previous.extract_if(.., is_old);
        unused
            .chain(before)
            .map(|keys| keys.receive_index)
            .collect()
    }

    /// Tells whether new keys should be asked for: those in use are old or used up and have
    /// been used, they have lapsed and are used still, or there are none and something is to be sent.
    pub(super) fn wants_keys(&mut self, now: Instant, to_send: bool) -> bool {
        let wanted = match &self.current {
            Some(keys) => {
                let old = now - keys.since >= keys.renew_after;
                let used_up = keys.sealer.sealed() >= DATAGRAMS_WANTED;
                match self.lapsed {
                    Some(_) => keys.used || to_send,
                    None => keys.used && (old || used_up),
                }
            }
            None => {
                let awaited = |next: &Keys| now - next.since < SHOWN_WITHIN;
                to_send && !self.next.as_ref().is_some_and(awaited)
            }
        };
        let lately = self
            .wanted
            .is_some_and(|at| now - at < KEYS_WANTED_INTERVAL);
        if wanted && !lately {
            self.wanted = Some(now);
        }
        wanted && !lately
    }

    /// Cuts a packet in two: returns the number of both parts, and where the second begins.
    pub(super) fn halve(&mut self, packet: &[u8]) -> ([u8; 2], usize) {
        self.split = self.split.wrapping_add(1);
        (self.split.to_be_bytes(), packet.len().div_ceil(2))
    }

    /// Takes a half; returns the packet when it is whole.
    pub(super) fn put_together(
        &mut self,
        now: Instant,
        half: Half,
        content: &[u8],
    ) -> Option<Vec<u8>> {
        let (number, part) = content.split_first_chunk()?;
        let number = u16::from_be_bytes(*number);
        self.reassembly.insert(now, number, half, part)
    }
}

/// What a probe carries, and the answer to it (numbers are big-endian):
///
/// ```text
///   0               8               16      18                              34      36
///  +---------------+---------------+-------+-------------------------------+-------+
///  | sender's time |     token     |length |   address that the probe      | port  |  the
///  +---------------+---------------+-------+   was seen to come from       +-------+  answer's
///  microseconds                     of the probe's                                    alone
///                                   datagram
/// ```
///
/// The token is a keyed hash of the time and of the address that the probe is sent to, so that
/// only who takes datagrams there can answer for it: a member cannot have packets sent to
/// somebody else. A probe is filled with zeros up to the length that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) micros: u64,
    token: u64,
    pub(super) bytes: u16,
}

/// Octets of the shortest probe, and of an answer.
const PROBE_BYTES: usize = 18;
const ANSWER_BYTES: usize = PROBE_BYTES + 18;

/// Makes the tokens of probes; the key is drawn at the start (SipHash-1-3).
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens(RandomState);

impl Tokens {
    /// Returns what hashes with the key.
    pub(super) fn hasher(&self) -> &RandomState {
        &self.0
    }

    /// Writes the content of a probe whose datagram is to have `bytes` octets, or as few as
    /// it takes. By the lane it goes to no address.
    pub(super) fn probe(&self, micros: u64, to: Option<Pair>, bytes: usize) -> Vec<u8> {
        let content = bytes
            .saturating_sub(HEADER_BYTES + TRAILER_BYTES)
            .max(PROBE_BYTES);
        let whole = (content + HEADER_BYTES + TRAILER_BYTES) as u16;
        let mut octets = vec![0; content];
        octets[..8].copy_from_slice(&micros.to_be_bytes());
        octets[8..16].copy_from_slice(&self.hash(micros, to).to_be_bytes());
        octets[16..18].copy_from_slice(&whole.to_be_bytes());
        octets
    }

    /// Tells whether an answer that came from an address, perhaps by a relay there, is to a probe that
    /// was sent there.
    pub(super) fn fits(&self, answer: Probe, from: Pair) -> bool {
        answer.token == self.hash(answer.micros, Some(from))
    }

    fn hash(&self, micros: u64, to: Option<Pair>) -> u64 {
        let to = to.map(|to| (to.address, to.relay));
        self.0.hash_one((micros, to))
    }
}

impl Probe {
    pub(super) fn decode(content: &[u8]) -> Option<Self> {
        let (micros, rest) = content.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (bytes, _) = rest.split_first_chunk()?;
        Some(Self {
            micros: u64::from_be_bytes(*micros),
            token: u64::from_be_bytes(*token),
            bytes: u16::from_be_bytes(*bytes),
        })
    }

    /// Reads from an answer where the peer saw the probe come from; none when it tells nothing
    /// that can be.
    pub(super) fn seen_at(content: &[u8]) -> Option<SocketAddr> {
        let octets = content.get(PROBE_BYTES..ANSWER_BYTES)?;
        let (ip, port) = octets.split_first_chunk::<16>()?;
        let port = u16::from_be_bytes(port.try_into().ok()?);
        let ip = Ipv6Addr::from(*ip).to_canonical();
        let is_possible = port != 0 && !ip.is_unspecified() && !ip.is_multicast();
        is_possible.then(|| SocketAddr::new(ip, port))
    }

    /// Writes the answer to a probe that came from an address.
    pub(super) fn answer(self, from: SocketAddr) -> [u8; ANSWER_BYTES] {
        let mut octets = [0; ANSWER_BYTES];
        octets[..8].copy_from_slice(&self.micros.to_be_bytes());
        octets[8..16].copy_from_slice(&self.token.to_be_bytes());
        octets[16..18].copy_from_slice(&self.bytes.to_be_bytes());
        let address = match from.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        octets[18..34].copy_from_slice(&address.octets());
        octets[34..].copy_from_slice(&from.port().to_be_bytes());
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Token;
    use crate::sealed::{Cipher, DirectionKey, INDEX_MARK, OVERHEAD_BYTES};

    fn keys(round: u8, peer_has_them: bool) -> SessionKeys {
        SessionKeys {
            cipher: Cipher::Aes256Gcm,
            send: DirectionKey::new([round; 32]),
            receive: DirectionKey::new([round; 32]),
            send_index: INDEX_MARK | u32::from(round),
            receive_index: INDEX_MARK | u32::from(round),
            peer_has_them,
            renew_after: Duration::from_secs(120),
        }
    }

    #[test]
    fn what_is_on_the_way_is_opened_whatever_keys_follow() {
        let now = Instant::now();
        let mut session = Session::new(NetworkId(1), [2; 32], now);
        let mut sealers = [0, 1, 2].map(|round| {
            let index = INDEX_MARK | u32::from(round);
            (
                index,
                Sealer::new(Cipher::Aes256Gcm, &DirectionKey::new([round; 32]), index),
            )
        });
        let mut opens = |session: &mut Session, round: usize| {
            let (index, sealer) = &mut sealers[round];
            let mut datagram = [0; OVERHEAD_BYTES];
            sealer.seal(Kind::Packet, &[], &mut datagram).unwrap();
            session.open(*index, &mut datagram).is_ok()
        };
        session.set_keys(now, &keys(0, true));
        // The peer asks a second time, and still uses the keys of its first question.
        for round in [1, 2] {
            assert_eq!(session.set_keys(now, &keys(round, false)), None);
        }
        assert!((0..3).all(|round| opens(&mut session, round)));
        assert_eq!(session.promote(), None);
        assert!((0..3).all(|round| opens(&mut session, round)));
        assert_eq!(session.indices().count(), 1 + PREVIOUS_MAX);
        // No more are kept than so many, and none longer than so long.
        let dropped = session.set_keys(now, &keys(3, true));
        assert_eq!(dropped, Some(INDEX_MARK | 1));
        assert_eq!(session.expire_keys(now + KEYS_LAST).len(), 1 + PREVIOUS_MAX);
    }

    #[test]
    fn keys_that_the_peer_is_about_to_show_are_waited_for() {
        let now = Instant::now();
        let mut session = Session::new(NetworkId(1), [2; 32], now);
        session.set_keys(now, &keys(0, false));
        assert!(!session.wants_keys(now, true));
        assert!(session.wants_keys(now + SHOWN_WITHIN, true));
    }

    /// Seals a packet of the session's own.
    fn use_keys(session: &mut Session) {
        let mut datagram = [0; OVERHEAD_BYTES];
        session.seal(Kind::Packet, &[], &mut datagram).unwrap();
    }

    #[test]
    fn keys_are_renewed_by_time_if_they_were_used() {
        let now = Instant::now();
        let mut session = Session::new(NetworkId(1), [2; 32], now);
        session.set_keys(now, &keys(0, true));
        let renew_at = now + Duration::from_secs(120);
        assert!(!session.wants_keys(renew_at, false), "nothing was sealed");
        use_keys(&mut session);
        let before = renew_at.checked_sub(Duration::from_millis(1)).unwrap();
        assert!(!session.wants_keys(before, true));
        assert!(session.wants_keys(renew_at, false));
        // Not time and again while they do not come.
        assert!(!session.wants_keys(renew_at + KEYS_WANTED_INTERVAL / 2, true));
        assert!(session.wants_keys(renew_at + KEYS_WANTED_INTERVAL, false));
        session.set_keys(renew_at, &keys(1, true));
        use_keys(&mut session);
        assert!(!session.wants_keys(renew_at + KEYS_WANTED_INTERVAL, true));
    }

    #[test]
    fn keys_are_renewed_by_volume_however_young() {
        let now = Instant::now();
        let mut session = Session::new(NetworkId(1), [2; 32], now);
        session.set_keys(now, &keys(0, true));
        let sealer = &mut session.current.as_mut().unwrap().sealer;
        sealer.skip_to(DATAGRAMS_WANTED - 1);
        assert!(!session.wants_keys(now, true));
        use_keys(&mut session);
        assert!(session.wants_keys(now, true));
        session.set_keys(now, &keys(1, true));
        use_keys(&mut session);
        assert!(!session.wants_keys(now, true));
    }

    #[test]
    fn only_who_got_the_probe_can_answer_for_its_address() {
        let tokens = Tokens::default();
        let [there, victim] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 7)));
        let to = Pair::from(there);
        let probe = Probe::decode(&tokens.probe(5, Some(to), 1449)).unwrap();
        assert_eq!((probe.micros, probe.bytes), (5, 1449));
        let answer = Probe::decode(&probe.answer(there)).unwrap();
        assert_eq!(Probe::seen_at(&probe.answer(there)), Some(there));
        assert_eq!(Probe::seen_at(&[0; ANSWER_BYTES]), None);
        assert!(tokens.fits(answer, to) && !tokens.fits(answer, victim.into()));
        let relay = Some(Token(1));
        assert!(!tokens.fits(answer, Pair { relay, ..to }), "by a relay");
        assert!(!tokens.fits(
            Probe {
                micros: 6,
                ..answer
            },
            to
        ));
        assert!(!Tokens::default().fits(answer, to));
        let shortest = tokens.probe(5, None, 0);
        assert_eq!(shortest.len(), PROBE_BYTES);
        assert!((0..PROBE_BYTES).all(|length| Probe::decode(&shortest[..length]).is_none()));
    }
}
