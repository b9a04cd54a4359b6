//! Passing packets on as a router does.

use crate::checksum::update;
use crate::packet::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES};

/// Takes one hop from what a packet has left (RFC 1812, section 5.3.1; RFC 8200, section 3).
/// False when that was its last: then it goes no further, and its sender is owed
/// [`crate::Reason::TimeExceeded`]. False as well for what is no IP packet, which stays as it is.
pub fn pass_on(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.first_chunk_mut().is_some_and(pass_on4),
        Some(6) => packet.first_chunk_mut().is_some_and(pass_on6),
        _ => false,
    }
}

fn pass_on4(header: &mut [u8; IPV4_HEADER_BYTES]) -> bool {
    let [left, protocol, high, low] = [header[8], header[9], header[10], header[11]];
    let Some(after @ 1..) = left.checked_sub(1) else {
        return false;
    };
    let [before, now] = [left, after].map(|left| u16::from_be_bytes([left, protocol]));
    header[8] = after;
    [header[10], header[11]] = update([high, low], before, now);
    true
}

fn pass_on6(header: &mut [u8; IPV6_HEADER_BYTES]) -> bool {
    let Some(after @ 1..) = header[7].checked_sub(1) else {
        return false;
    };
    header[7] = after;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;

    #[test]
    fn each_hop_takes_one_and_the_checksum_stays_right() {
        let mut four = [
            0x45, 0, 0, 20, 0, 0, 0, 0, 3, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2,
        ];
        let sum = |header: &[u8]| Sum::default().add(header).fold();
        let checksum = !sum(&four);
        four[10..12].copy_from_slice(&checksum.to_be_bytes());
        for left in [2, 1] {
            assert!(pass_on(&mut four));
            assert_eq!((four[8], sum(&four)), (left, 0xffff));
        }
        assert!(!pass_on(&mut four) && four[8] == 1);
        let mut six = [0; 40];
        (six[0], six[7]) = (0x60, 2);
        assert!(pass_on(&mut six) && !pass_on(&mut six));
    }

    #[test]
    fn what_is_no_ip_packet_stays_as_it_is() {
        let of = |first: u8, octets: usize| {
            let mut packet = vec![64; octets];
            packet.iter_mut().take(1).for_each(|at| *at = first);
            packet
        };
        let whole = [(0x45, IPV4_HEADER_BYTES), (0x60, IPV6_HEADER_BYTES)];
        for (first, octets) in whole {
            assert!(pass_on(&mut of(first, octets)));
        }
        let cut = whole.map(|(first, octets)| (first, octets - 1));
        let other = [
            (0x00, 60),
            (0x50, 60),
            (0xf0, 60),
            (0x45, 9),
            (0x45, 1),
            (0, 0),
        ];
        for (first, octets) in cut.into_iter().chain(other) {
            let before = of(first, octets);
            let mut packet = before.clone();
            assert!(
                !pass_on(&mut packet) && packet == before,
                "{first} {octets}"
            );
        }
    }
}
