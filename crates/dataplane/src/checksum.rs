//! The Internet checksum (RFC 1071).

use crate::offload::Transport;
use crate::packet::IpPacket;

/// A sum of 16-bit words that is not folded yet. Holds 2^47 words without overflow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds octets as big-endian words; an odd one at the end counts as a high octet.
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            let [a, b, c, d] = [word[0], word[1], word[2], word[3]];
            sum += u64::from(u16::from_be_bytes([a, b])) + u64::from(u16::from_be_bytes([c, d]));
        }
        for pair in words.remainder().chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
        Self(sum)
    }

    /// Adds one word.
    pub(crate) const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Folds the sum into one word, without taking the complement: a partial checksum.
    pub(crate) const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// Sums the pseudo-header of a packet's transport without its length: addresses and protocol
/// (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(crate) fn pseudo_header(packet: &IpPacket<'_>) -> Sum {
    let addresses = match packet.is_v4() {
        true => packet.bytes().get(12..20),
        false => packet.bytes().get(8..40),
    };
    let protocol = u16::from(packet.protocol());
    Sum::default()
        .add(addresses.unwrap_or_default())
        .word(protocol)
}

/// Begins the checksum of a packet's transport: writes that of the pseudo-header alone, and
/// tells from where and where in it the sum is to be completed. None, and nothing written, when
/// the packet is of another transport, a fragment, or cut short.
pub fn begin_checksum(packet: &mut [u8], transport: Transport) -> Option<(u16, u16)> {
    let parsed = IpPacket::parse(packet).ok()?;
    let is_of = Transport::of(parsed.protocol()) == Some(transport) && !parsed.is_fragment();
    let length = u16::try_from(parsed.payload().len())
        .ok()
        .filter(|_| is_of)?;
    let sum = pseudo_header(&parsed).word(length).fold();
    let (from, at) = (parsed.header_bytes(), transport.checksum_at());
    let place = packet.get_mut(from + at..)?.first_chunk_mut::<2>()?;
    *place = sum.to_be_bytes();
    Some((u16::try_from(from).ok()?, at as u16))
}

/// Completes the partial checksum of a packet: that of the part from octet `from`, which is
/// at octet `at` of the part. False when these are not in the packet; it is unchanged then.
pub fn complete(packet: &mut [u8], from: u16, at: u16) -> bool {
    let Some(part) = packet.get_mut(usize::from(from)..) else {
        return false;
    };
    let at = usize::from(at);
    if at + 2 > part.len() {
        return false;
    }
    let sum = match !Sum::default().add(part).fold() {
        // In UDP zero means that there is no sum; in TCP both mean the same.
        0 => 0xffff,
        sum => sum,
    };
    part[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// A header's checksum after one of its words has changed: RFC 1624, equation 3.
pub(crate) fn update(checksum: [u8; 2], before: u16, after: u16) -> [u8; 2] {
    let sum = u32::from(!u16::from_be_bytes(checksum)) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_rfc_1071() {
        // Section 3 of the RFC.
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().add(&octets).fold(), 0xddf2);
        assert_eq!(Sum::default().add(&[1]).fold(), 0x0100);
        assert_eq!(Sum::default().add(&[0xff; 6]).word(1).fold(), 1);
    }

    #[test]
    fn a_completed_sum_adds_up() {
        let mut packet = vec![0x55; 31];
        packet[10..12].copy_from_slice(&0x1234_u16.to_be_bytes());
        let pseudo = 0x1234;
        assert!(complete(&mut packet, 4, 6));
        assert_eq!(Sum::default().add(&packet[4..]).word(pseudo).fold(), 0xffff);
        assert!(!complete(&mut packet, 4, 26) && !complete(&mut packet, 32, 0));
    }
}
