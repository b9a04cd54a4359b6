//! Explicit congestion notification through the tunnel: RFC 6040, normal mode. What a packet
//! says of itself (RFC 3168) is said of the datagram that carries it, and a mark that a router
//! gave the datagram is given to the packet.

use crate::checksum::update;

/// What the two bits say: not capable.
pub const NOT_CAPABLE: u8 = 0b00;
/// A router marked it: congestion was experienced.
pub const CONGESTION: u8 = 0b11;

/// Returns the two bits of an IP packet; [`NOT_CAPABLE`] for what is none.
pub fn of(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 4 => second & 0b11,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & 0b11,
        _ => NOT_CAPABLE,
    }
}

/// Marks a packet whose datagram was marked. False when the packet is to be dropped: its ends
/// would not understand the mark (RFC 6040, section 4.2).
pub fn mark(packet: &mut [u8]) -> bool {
    match (of(packet), packet) {
        (NOT_CAPABLE, _) => false,
        (CONGESTION, _) => true,
        (_, [first, second, rest @ ..]) if *first >> 4 == 4 => {
            let before = u16::from_be_bytes([*first, *second]);
            *second |= CONGESTION;
            let after = u16::from_be_bytes([*first, *second]);
            if let Some(checksum) = rest.get_mut(8..10) {
                let updated = update([checksum[0], checksum[1]], before, after);
                checksum.copy_from_slice(&updated);
            }
            true
        }
        (_, [_, second, ..]) => {
            *second |= CONGESTION << 4;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ones' complement sum over a header with a right checksum is all ones (RFC 1071).
    fn is_right(header: &[u8]) -> bool {
        let words = header
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    fn four(bits: u8) -> [u8; 20] {
        // The header of RFC 1071's kind of example, with the checksum filled in below.
        let mut header = [
            0x45, 0xb8, 0x00, 0x54, 0x12, 0x34, 0x40, 0x00, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0,
            2,
        ];
        header[1] |= bits;
        let words = header
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        assert!(is_right(&header));
        header
    }

    #[test]
    fn capable_packets_are_marked_and_stay_whole() {
        for bits in [0b01, 0b10, 0b11] {
            let mut header = four(bits);
            assert_eq!(of(&header), bits);
            assert!(mark(&mut header));
            assert_eq!((of(&header), header[1] & 0xfc), (CONGESTION, 0xb8));
            assert!(is_right(&header), "{header:02x?}");
        }
        let mut six = [0x6b, 0xa0, 0, 0];
        assert_eq!(of(&six), 0b10);
        assert!(mark(&mut six));
        assert_eq!((of(&six), six), (CONGESTION, [0x6b, 0xb0, 0, 0]));
    }

    #[test]
    fn others_are_dropped_and_nothing_panics() {
        let mut header = four(NOT_CAPABLE);
        assert!(!mark(&mut header));
        for length in 0..20 {
            let mut cut = four(0b10)[..length].to_vec();
            mark(&mut cut);
        }
        assert!(!mark(&mut []) && !mark(&mut [0x15, 0xff]));
    }
}
