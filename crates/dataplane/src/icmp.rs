//! The errors that a router owes to the sender of a packet it does not deliver.
//!
//! IPv4 (RFC 792: destination unreachable, type 3, and time exceeded, type 11; the second word
//! holds the next-hop MTU as in RFC 1191, section 4):
//!
//! ```text
//!   0       1       2               4               6               8
//!  +-------+-------+---------------+---------------+---------------+---- - - -
//!  | type  | code  |   checksum    |       0       | next-hop MTU  | quoted packet
//!  +-------+-------+---------------+---------------+---------------+---- - - -
//! ```
//!
//! IPv6 (RFC 4443; the second word is 0 in destination unreachable, type 1, and in time
//! exceeded, type 3, and the MTU in packet too big, type 2):
//!
//! ```text
//!  +-------+-------+---------------+-------------------------------+---- - - -
//!  | type  | code  |   checksum    |           0 or MTU            | quoted packet
//!  +-------+-------+---------------+-------------------------------+---- - - -
//! ```
//!
//! An error is never sent about an ICMP error, a fragment other than the first, or
//! a packet to or from an address that stands for nobody or for many (RFC 1122,
//! section 3.2.2; RFC 4443, section 2.4(e)), and no more often than a budget allows
//! (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4(f)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::checksum::Sum;
use crate::packet::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, IpPacket, protocol};

/// The longest IPv4 packet with an error, in octets (RFC 1812, section 4.3.2.3).
pub const IPV4_ERROR_BYTES_MAX: usize = 576;

/// The longest IPv6 packet with an error, in octets (RFC 4443, section 2.4(c)).
pub const IPV6_ERROR_BYTES_MAX: usize = 1280;

/// The least MTU that IPv6 allows, in octets (RFC 8200, section 5).
pub const IPV6_MTU_MIN: u16 = 1280;

/// Octets of the ICMP header before the quoted packet.
const ICMP_HEADER_BYTES: usize = 8;

/// Time to live and hop limit of errors.
const HOP_LIMIT: u8 = 64;

/// Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const SERVICE_INTERNETWORK_CONTROL: u8 = 0xc0;

/// Why a packet is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody holds the destination: host unreachable, IPv4 code 1 (RFC 792);
    /// address unreachable, IPv6 code 3 (RFC 4443).
    HostUnreachable,
    /// A policy forbids it: IPv4 code 13 (RFC 1812); IPv6 code 1 (RFC 4443).
    AdministrativelyProhibited,
    /// It is longer than the path takes and may not be fragmented: fragmentation
    /// needed (RFC 1191); packet too big (RFC 4443).
    TooBig {
        /// The longest packet that passes, in octets. IPv6 senders hear of at least
        /// [`IPV6_MTU_MIN`], the least that they may be asked for.
        mtu: u16,
    },
    /// It has come over as many hops as it may: time exceeded in transit (RFC 792; RFC 4443).
    TimeExceeded,
}

/// Builds the error packet about `packet`, to be handed to its sender.
///
/// `from` is the router that speaks; `None`, or an address of the other family, lets
/// the destination itself speak. A host that reports to itself through its own TUN
/// device must use `None`: Linux drops IPv4 packets that arrive with one of its own
/// addresses as their source.
///
/// Returns `None` when no error may be sent: see the module's text. Also for
/// [`Reason::TooBig`] about an IPv4 packet which routers may fragment.
pub fn error_for(packet: &IpPacket<'_>, reason: Reason, from: Option<IpAddr>) -> Option<Vec<u8>> {
    if packet.fragment_offset_bytes() != 0 || packet.is_multicast_or_broadcast() {
        return None;
    }
    match (packet.source(), packet.destination()) {
        (IpAddr::V4(sender), IpAddr::V4(destination)) => {
            let from = match from {
                Some(IpAddr::V4(from)) => from,
                _ => destination,
            };
            ipv4_error(packet, reason, from, sender)
        }
        (IpAddr::V6(sender), IpAddr::V6(destination)) => {
            let from = match from {
                Some(IpAddr::V6(from)) => from,
                _ => destination,
            };
            ipv6_error(packet, reason, from, sender)
        }
        _ => None,
    }
}

/// Limits how many errors are sent: a token bucket.
#[derive(Clone, Debug)]
pub struct ErrorBudget {
    cost: Duration,
    credit_max: Duration,
    credit: Duration,
    updated: Option<Instant>,
}

impl ErrorBudget {
    /// Makes a full bucket: `burst` errors at once, `per_second` in the long run.
    ///
    /// # Panics
    /// When `per_second` is 0.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second;
        let credit_max = cost.saturating_mul(burst);
        Self {
            cost,
            credit_max,
            credit: credit_max,
            updated: None,
        }
    }

    /// Tells whether one more error may be sent at `now`, and counts it if so.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = self.updated.map_or(Duration::ZERO, |updated| {
            now.saturating_duration_since(updated)
        });
        self.credit = self.credit.saturating_add(earned).min(self.credit_max);
        self.updated = Some(self.updated.map_or(now, |updated| updated.max(now)));
        match self.credit.checked_sub(self.cost) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

fn ipv4_error(
    packet: &IpPacket<'_>,
    reason: Reason,
    from: Ipv4Addr,
    sender: Ipv4Addr,
) -> Option<Vec<u8>> {
    let (kind, code, mtu) = match reason {
        Reason::HostUnreachable => (3, 1, 0),
        Reason::AdministrativelyProhibited => (3, 13, 0),
        Reason::TooBig { mtu } if packet.dont_fragment() => (3, 4, mtu),
        Reason::TooBig { .. } => return None,
        Reason::TimeExceeded => (11, 0, 0),
    };
    if !is_one_ipv4_host(sender) || is_ipv4_error(packet) {
        return None;
    }
    let quote_bytes_max = IPV4_ERROR_BYTES_MAX - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, mtu_high, mtu_low];
    message.extend_from_slice(quote(packet, quote_bytes_max));
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut error = ipv4_header(from, sender, IPV4_HEADER_BYTES + message.len()).to_vec();
    error.extend_from_slice(&message);
    Some(error)
}

/// Makes the header of an error of at most [`IPV4_ERROR_BYTES_MAX`] octets.
fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, total_bytes: usize) -> [u8; IPV4_HEADER_BYTES] {
    let mut header = [0; IPV4_HEADER_BYTES];
    header[0] = 0x45;
    header[1] = SERVICE_INTERNETWORK_CONTROL;
    header[2..4].copy_from_slice(&saturated_u16(total_bytes).to_be_bytes());
    header[6] = 0x40; // Not to be fragmented, and therefore without identification (RFC 6864).
    header[8] = HOP_LIMIT;
    header[9] = protocol::ICMP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv6_error(
    packet: &IpPacket<'_>,
    reason: Reason,
    from: Ipv6Addr,
    sender: Ipv6Addr,
) -> Option<Vec<u8>> {
    let (kind, code, mtu) = match reason {
        Reason::HostUnreachable => (1, 3, 0),
        Reason::AdministrativelyProhibited => (1, 1, 0),
        Reason::TooBig { mtu } => (2, 0, mtu.max(IPV6_MTU_MIN)),
        Reason::TimeExceeded => (3, 0, 0),
    };
    if sender.is_unspecified() || sender.is_multicast() || is_ipv6_error(packet) {
        return None;
    }
    let quote_bytes_max = IPV6_ERROR_BYTES_MAX - IPV6_HEADER_BYTES - ICMP_HEADER_BYTES;
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, mtu_high, mtu_low];
    message.extend_from_slice(quote(packet, quote_bytes_max));
    let length = saturated_u16(message.len()).to_be_bytes();
    // The sum covers a pseudo-header as well (RFC 8200, section 8.1).
    let pseudo = [0, 0, length[0], length[1], 0, 0, 0, protocol::ICMPV6];
    let sum = checksum(&[&from.octets(), &sender.octets(), &pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut error = vec![
        0x60,
        0,
        0,
        0,
        length[0],
        length[1],
        protocol::ICMPV6,
        HOP_LIMIT,
    ];
    error.extend_from_slice(&from.octets());
    error.extend_from_slice(&sender.octets());
    error.extend_from_slice(&message);
    Some(error)
}

fn quote<'a>(packet: &IpPacket<'a>, bytes_max: usize) -> &'a [u8] {
    let bytes = packet.bytes();
    &bytes[..bytes.len().min(bytes_max)]
}

/// Tells whether the address stands for exactly one host (RFC 1122, section 3.2.2).
fn is_one_ipv4_host(address: Ipv4Addr) -> bool {
    let reserved = address.octets()[0] >= 224 || address.octets()[0] == 0;
    !reserved && !address.is_loopback()
}

/// Tells whether it is an ICMP error, or ICMP too short to tell (RFC 1122, section 3.2.2).
fn is_ipv4_error(packet: &IpPacket<'_>) -> bool {
    // Unreachable, source quench, redirect, time exceeded, parameter problem.
    packet.protocol() == protocol::ICMP
        && matches!(packet.payload().first(), None | Some(3 | 4 | 5 | 11 | 12))
}

/// Tells whether it is an ICMPv6 error or redirect, or ICMPv6 too short to tell (RFC
/// 4443, section 2.4(e)).
fn is_ipv6_error(packet: &IpPacket<'_>) -> bool {
    packet.protocol() == protocol::ICMPV6
        && matches!(packet.payload().first(), None | Some(0..=127 | 137))
}

fn saturated_u16(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// Returns the Internet checksum (RFC 1071) of parts, of which all but the last have an
/// even length. Over data that includes its own correct checksum it is 0.
fn checksum(parts: &[&[u8]]) -> u16 {
    let add = |sum: Sum, part: &&[u8]| sum.add(part);
    !parts.iter().fold(Sum::default(), add).fold()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::tests::{ipv4, ipv6};

    const A4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const UDP: u8 = 17;
    const DF: u16 = 0x4000;

    fn error(bytes: &[u8], reason: Reason) -> Option<Vec<u8>> {
        error_for(&IpPacket::parse(bytes).unwrap(), reason, None)
    }

    fn assert_checksums(error: &[u8]) {
        let packet = IpPacket::parse(error).unwrap();
        assert_eq!(packet.bytes().len(), error.len());
        if packet.is_v4() {
            assert_eq!(checksum(&[&error[..20]]), 0);
            assert_eq!(checksum(&[packet.payload()]), 0);
        } else {
            let length = u32::try_from(packet.payload().len()).unwrap().to_be_bytes();
            let parts = [&error[8..40], &length, &[0, 0, 0, 58], packet.payload()];
            assert_eq!(checksum(&parts), 0);
        }
    }

    #[test]
    fn ipv4_errors_have_the_right_codes() {
        let bytes = ipv4(A4, B4, (UDP, DF), b"question");
        let cases = [
            (Reason::HostUnreachable, [3, 1], [0, 0]),
            (Reason::AdministrativelyProhibited, [3, 13], [0, 0]),
            (Reason::TooBig { mtu: 1200 }, [3, 4], [4, 0xb0]),
        ];
        for (reason, kind, mtu) in cases {
            let error = error(&bytes, reason).unwrap();
            let packet = IpPacket::parse(&error).unwrap();
            assert_eq!(
                (packet.source(), packet.destination()),
                (B4.into(), A4.into())
            );
            assert_eq!(
                (&packet.payload()[..2], &packet.payload()[6..8]),
                (&kind[..], &mtu[..])
            );
            assert_eq!(&packet.payload()[8..], bytes);
        }
        let may_be_fragmented = ipv4(A4, B4, (UDP, 0), b"question");
        assert_eq!(
            error(&may_be_fragmented, Reason::TooBig { mtu: 1200 }),
            None
        );
    }

    #[test]
    fn ipv6_errors_have_the_right_codes() {
        let bytes = ipv6(A6, B6, UDP, b"question");
        let cases = [
            (Reason::HostUnreachable, [1, 3], [0, 0]),
            (Reason::AdministrativelyProhibited, [1, 1], [0, 0]),
            (Reason::TooBig { mtu: 1400 }, [2, 0], [5, 0x78]),
            (Reason::TooBig { mtu: 700 }, [2, 0], [5, 0]),
        ];
        for (reason, kind, mtu) in cases {
            let error = error(&bytes, reason).unwrap();
            let packet = IpPacket::parse(&error).unwrap();
            assert_eq!(
                (&packet.payload()[..2], &packet.payload()[6..8]),
                (&kind[..], &mtu[..])
            );
        }
    }

    #[test]
    fn the_speaker_may_be_named() {
        let bytes = ipv4(A4, B4, (UDP, 0), b"question");
        let packet = IpPacket::parse(&bytes).unwrap();
        let router = Ipv4Addr::new(10, 77, 0, 9);
        let spoken = |from| {
            let error = error_for(&packet, Reason::HostUnreachable, Some(from)).unwrap();
            IpPacket::parse(&error).unwrap().source()
        };
        assert_eq!(spoken(router.into()), IpAddr::from(router));
        assert_eq!(spoken(A6.into()), IpAddr::from(B4));
    }

    #[test]
    fn no_error_is_owed_where_the_rfcs_forbid_it() {
        let many = Ipv4Addr::new(224, 0, 0, 1);
        let unowed = [
            ipv4(A4, B4, (protocol::ICMP, 0), &[3, 1]),
            ipv4(A4, B4, (protocol::ICMP, 0), &[]),
            ipv4(A4, B4, (UDP, 1), b"later fragment"),
            ipv4(A4, many, (UDP, 0), b""),
            ipv4(A4, Ipv4Addr::BROADCAST, (UDP, 0), b""),
            ipv4(many, B4, (UDP, 0), b""),
            ipv4(Ipv4Addr::UNSPECIFIED, B4, (UDP, 0), b""),
            ipv4(Ipv4Addr::LOCALHOST, B4, (UDP, 0), b""),
            ipv4(Ipv4Addr::BROADCAST, B4, (UDP, 0), b""),
            ipv6(A6, B6, protocol::ICMPV6, &[1, 3]),
            ipv6(A6, B6, protocol::ICMPV6, &[137]),
            ipv6(A6, B6, protocol::ICMPV6, &[]),
            ipv6(A6, "ff02::1".parse().unwrap(), UDP, b""),
            ipv6("ff02::1".parse().unwrap(), B6, UDP, b""),
            ipv6(Ipv6Addr::UNSPECIFIED, B6, UDP, b""),
        ];
        for bytes in unowed {
            assert_eq!(error(&bytes, Reason::HostUnreachable), None, "{bytes:?}");
        }
        for echo in [
            ipv4(A4, B4, (protocol::ICMP, 0), &[8]),
            ipv6(A6, B6, 58, &[128]),
        ] {
            assert!(error(&echo, Reason::HostUnreachable).is_some());
        }
    }

    #[test]
    fn the_budget_allows_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut budget = ErrorBudget::new(3, 10);
        let at = |ms| start + Duration::from_millis(ms);
        let taken = (0..5).filter(|_| budget.take(at(1000))).count();
        assert_eq!(taken, 3);
        assert!(!budget.take(at(1099)) && budget.take(at(1100)) && !budget.take(at(1100)));
        assert!(!budget.take(at(0)), "a clock that jumps back earns nothing");
        assert!(!budget.take(at(1150)), "nor does its return");
        let taken = (0..50).filter(|_| budget.take(at(100_000))).count();
        assert_eq!(taken, 3);
    }

    proptest! {
        #[test]
        fn errors_are_whole_bounded_and_never_answered(
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            mtu in 0_u16..,
        ) {
            for bytes in [ipv4(A4, B4, (UDP, DF), &payload), ipv6(A6, B6, UDP, &payload)] {
                let error = error(&bytes, Reason::TooBig { mtu }).unwrap();
                assert_checksums(&error);
                let packet = IpPacket::parse(&error).unwrap();
                let bytes_max = if packet.is_v4() { 576 } else { 1280 };
                prop_assert!(error.len() <= bytes_max);
                prop_assert!(bytes.starts_with(&packet.payload()[8..]));
                prop_assert!(error.len() == bytes_max || packet.payload().len() == bytes.len() + 8);
                prop_assert_eq!(super::error_for(&packet, Reason::HostUnreachable, None), None);
            }
        }

        #[test]
        fn any_octets_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(packet) = IpPacket::parse(&bytes) {
                let _ = error_for(&packet, Reason::HostUnreachable, None);
            }
        }
    }
}
