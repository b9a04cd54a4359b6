//! Tickets: what shows a third party's server that a node gets datagrams at an address.
//!
//! ```text
//!   node 198.51.100.7:4321 --- Binding request, TICKET (8 octets of zeros) ---> server
//!                          <-- XOR-MAPPED-ADDRESS, TICKET ---------------------
//!   node ============ its session: "this ticket came to 198.51.100.7" ========> server
//! ```
//!
//! A Binding request shows nothing: anybody can write a false source on it. Its answer goes to that
//! source, so who knows what is in it got it there, or is told by whoever did. It is what a cookie of
//! DTLS shows (RFC 9147, section 5.1) and a path's validation in QUIC (RFC 9000, section 8.2); here it is
//! shown in the node's session with the server, by which the server knows *which* node gets
//! datagrams there.
//!
//! A ticket is the beginning of a keyed hash of the time and the address, so that the server remembers
//! nothing of those that it has given. The attribute is one of those that need not be understood (RFC
//! 8489, section 14), of a number that nobody has registered; other servers pass it over, and other
//! clients never ask for it. Who asks sends as many octets as the answer has more.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use enishi_overlay::Time;
use stun_types::attribute::AttributeType;
use stun_types::message::Message;

/// The attribute: eight octets, zeros in a request.
pub(crate) const TICKET: AttributeType = AttributeType::new(0xe715);
/// Its octets.
pub(crate) const TICKET_BYTES: usize = 8;

/// How often tickets change; the last ones are good as well.
const EPOCH: Duration = Duration::from_secs(60);

/// What came to an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// Reads one that somebody shows.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns what is to be shown.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Reads one from an answer; none when it has none.
    pub(crate) fn of(message: &Message<'_>) -> Option<Self> {
        let attribute = message.raw_attribute(TICKET)?;
        let octets: [u8; TICKET_BYTES] = attribute.value[..].try_into().ok()?;
        Some(Self(u64::from_be_bytes(octets)))
    }

    pub(crate) fn octets(self) -> [u8; TICKET_BYTES] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

/// Gives tickets, and knows its own.
#[derive(Clone)]
pub struct Tickets {
    key: [u8; blake3::KEY_LEN],
}

impl Tickets {
    /// Makes one with a key that nobody else has.
    pub const fn new(key: [u8; blake3::KEY_LEN]) -> Self {
        Self { key }
    }

    /// Returns the ticket for an address.
    pub fn give(&self, now: Time, to: IpAddr) -> Ticket {
        self.of_epoch(epoch(now), to)
    }

    /// Tells whether a ticket was given to an address in the last minute, or the one before.
    pub fn gave(&self, now: Time, to: IpAddr, ticket: Ticket) -> bool {
        let epoch = epoch(now);
        let mut given = [Some(epoch), epoch.checked_sub(1)].into_iter().flatten();
        given.any(|epoch| self.of_epoch(epoch, to) == ticket)
    }

    fn of_epoch(&self, epoch: u64, to: IpAddr) -> Ticket {
        let to = match to {
            IpAddr::V4(four) => four.to_ipv6_mapped(),
            IpAddr::V6(six) => six,
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&epoch.to_be_bytes());
        hasher.update(&to.octets());
        let hash = hasher.finalize();
        let mut number = 0;
        for octet in &hash.as_bytes()[..TICKET_BYTES] {
            number = (number << 8) | u64::from(*octet);
        }
        Ticket(number)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

fn epoch(now: Time) -> u64 {
    now.since(Time::ZERO).as_secs() / EPOCH.as_secs()
}

/// Tells whether a request asks for one.
pub(crate) fn is_wanted(request: &Message<'_>) -> bool {
    let attribute = request.raw_attribute(TICKET);
    attribute.is_some_and(|attribute| attribute.value.len() == TICKET_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_of_one_address_and_server_and_for_two_minutes_at_most() {
        let (tickets, others) = (Tickets::new([1; 32]), Tickets::new([2; 32]));
        let [there, victim] = ["198.51.100.7", "192.0.2.66"].map(|ip| ip.parse().unwrap());
        let at = Time::from_secs;
        let ticket = tickets.give(at(1_000), there);
        assert!(tickets.gave(at(1_000), there, ticket));
        // The same host, as a socket of both families sees it.
        let mapped = "::ffff:198.51.100.7".parse().unwrap();
        assert!(tickets.gave(at(1_000), mapped, ticket));
        assert!(!tickets.gave(at(1_000), victim, ticket));
        assert!(!others.gave(at(1_000), there, ticket));
        let wrong = Ticket::new(ticket.number() ^ 1);
        assert!(!tickets.gave(at(1_000), there, wrong));
        assert!(tickets.gave(at(1_060), there, ticket));
        assert!(!tickets.gave(at(1_120), there, ticket));
        let first = tickets.give(Time::ZERO, there);
        assert!(tickets.gave(at(59), there, first) && tickets.gave(at(119), there, first));
        assert!(!tickets.gave(at(120), there, first));
    }

    #[test]
    fn neither_tickets_nor_keys_get_into_logs() {
        let tickets = Tickets::new([1; 32]);
        let ticket = tickets.give(Time::ZERO, "192.0.2.1".parse().unwrap());
        assert_eq!(format!("{ticket:?} {tickets:?}"), "Ticket(..) Tickets(..)");
    }
}
