//! Puts the halves of split packets together, for one peer.
//!
//! A half waits in a slot until the other one comes. Slots are few and short-lived:
//! the halves of a packet are sent one right after the other, so one that waits
//! longer than [`WAIT_MAX`] has lost its partner. A peer can fill only its own slots.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::lane::{Half, PART_BYTES_MAX};

/// The most halves that wait for their partners. With parts of [`PART_BYTES_MAX`], 128 KiB.
pub const SLOTS_MAX: usize = 32;

/// How long a half waits for its partner. Short, so that an id which comes round again
/// (after 65,536 split packets) does not meet an old half.
pub const WAIT_MAX: Duration = Duration::from_millis(500);

/// Halves of one peer's packets that wait for their partners.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    /// Oldest first.
    slots: VecDeque<Slot>,
    lost: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    tag: u32,
    id: u16,
    half: Half,
    until: Instant,
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Takes a half that arrived at `now`, and returns the packet when it completes one.
    ///
    /// The half is copied, so that a small one does not keep a large buffer alive. With
    /// all slots in use the oldest half is given up. Looks at [`SLOTS_MAX`] slots at most.
    pub fn insert(
        &mut self,
        now: Instant,
        (tag, id): (u32, u16),
        half: Half,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        self.expire(now);
        if bytes.len() > PART_BYTES_MAX {
            self.lost += 1;
            return None;
        }
        let found = self
            .slots
            .iter()
            .position(|slot| slot.tag == tag && slot.id == id);
        let waiting = found.and_then(|index| self.slots.remove(index));
        match waiting {
            Some(slot) if slot.half != half => {
                let (first, second) = match half {
                    Half::First => (bytes, &slot.bytes[..]),
                    Half::Second => (&slot.bytes[..], bytes),
                };
                return Some([first, second].concat());
            }
            // The id came round, or the half came twice: the newer one counts.
            Some(_) => self.lost += 1,
            None => {}
        }
        if self.slots.len() == SLOTS_MAX {
            self.slots.pop_front();
            self.lost += 1;
        }
        self.slots.push_back(Slot {
            tag,
            id,
            half,
            until: now + WAIT_MAX,
            bytes: bytes.to_vec(),
        });
        None
    }

    /// Returns how many halves were given up so far: too old, too many, too long or double.
    pub fn lost_count(&self) -> u64 {
        self.lost
    }

    /// Gives up the halves that have waited too long; [`Reassembly::insert`] does it as
    /// well, so calling it serves only to free memory of a silent peer.
    pub fn expire(&mut self, now: Instant) {
        while self.slots.pop_front_if(|slot| slot.until <= now).is_some() {
            self.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::lane::{Content, Datagrams, Frame, Splitter, packet_bytes_max};

    /// Feeds a datagram and returns the packet that comes out.
    fn receive(reassembly: &mut Reassembly, now: Instant, datagram: &Bytes) -> Option<Vec<u8>> {
        let frame = Frame::decode(datagram).unwrap();
        match frame.content {
            Content::Whole(packet) => Some(packet.to_vec()),
            Content::Part { id, half, bytes } => {
                reassembly.insert(now, (frame.tag, id), half, &bytes)
            }
        }
    }

    #[test]
    fn halves_meet_in_either_order_and_never_across_tags_or_ids() {
        let (mut reassembly, now) = (Reassembly::default(), Instant::now());
        assert_eq!(reassembly.insert(now, (1, 1), Half::Second, b"b"), None);
        assert_eq!(reassembly.insert(now, (2, 1), Half::First, b"x"), None);
        assert_eq!(reassembly.insert(now, (1, 2), Half::First, b"y"), None);
        assert_eq!(
            reassembly.insert(now, (1, 1), Half::First, b"a"),
            Some(b"ab".to_vec())
        );
        assert_eq!(
            reassembly.insert(now, (2, 1), Half::Second, b"z"),
            Some(b"xz".to_vec())
        );
        assert_eq!(reassembly.lost_count(), 0);
    }

    #[test]
    fn old_double_and_surplus_halves_are_given_up_and_counted() {
        let (mut reassembly, now) = (Reassembly::default(), Instant::now());
        reassembly.insert(now, (1, 1), Half::First, b"old");
        assert_eq!(
            reassembly.insert(now + WAIT_MAX, (1, 1), Half::Second, b"x"),
            None
        );
        assert_eq!(reassembly.lost_count(), 1);

        let now = now + 3 * WAIT_MAX;
        reassembly.insert(now, (1, 5), Half::First, b"double");
        reassembly.insert(now, (1, 5), Half::First, b"new");
        let packet = reassembly.insert(now, (1, 5), Half::Second, b"er");
        assert_eq!(packet, Some(b"newer".to_vec()));
        assert_eq!(reassembly.lost_count(), 3);

        for id in 0..100 {
            reassembly.insert(now, (1, id), Half::First, b"flood");
        }
        assert_eq!(reassembly.slots.len(), SLOTS_MAX);
        assert_eq!(reassembly.lost_count(), 3 + 100 - 32);
        reassembly.insert(now, (1, 500), Half::First, &[0; PART_BYTES_MAX + 1]);
        assert_eq!(reassembly.lost_count(), 72);
    }

    proptest! {
        #[test]
        fn split_packets_are_restored_in_any_order(
            seed in prop::collection::vec(any::<u8>(), 1..64),
            datagram_bytes_max in 700_usize..1500,
            share in 0.0..1.0_f64,
            count in 1_usize..16,
            reverse: bool,
        ) {
            let length = (share * packet_bytes_max(datagram_bytes_max) as f64) as usize + 1;
            let length = length.min(packet_bytes_max(datagram_bytes_max));
            let (mut splitter, mut reassembly) = (Splitter::default(), Reassembly::default());
            let mut packets: Vec<Vec<u8>> = Vec::new();
            let mut datagrams = Vec::new();
            for number in 0..count {
                let mut packet: Vec<u8> = seed.iter().copied().cycle().take(length).collect();
                packet[0] = 0x60;
                if let Some(last) = packet[1..].last_mut() {
                    *last = u8::try_from(number).unwrap();
                }
                match splitter.encode(9, &packet, datagram_bytes_max).unwrap() {
                    Datagrams::One(one) => datagrams.push(one),
                    Datagrams::Two(first, second) => datagrams.extend([first, second]),
                }
                packets.push(packet);
            }
            if reverse {
                datagrams.reverse();
                packets.reverse();
            }
            let now = Instant::now();
            let received: Vec<_> = datagrams
                .iter()
                .filter_map(|datagram| receive(&mut reassembly, now, datagram))
                .collect();
            prop_assert_eq!(received, packets);
            prop_assert_eq!(reassembly.lost_count(), 0);
        }

        #[test]
        fn any_halves_stay_within_the_slots(
            halves in prop::collection::vec((0_u32..2, 0_u16..50, any::<bool>(), 0_u64..300), 0..200),
        ) {
            let (mut reassembly, mut now) = (Reassembly::default(), Instant::now());
            for (tag, id, first, later_ms) in halves {
                now += Duration::from_millis(later_ms);
                let half = if first { Half::First } else { Half::Second };
                let packet = reassembly.insert(now, (tag, id), half, &[1, 2]);
                prop_assert!(packet.is_none_or(|packet| packet.len() == 4));
                prop_assert!(reassembly.slots.len() <= SLOTS_MAX);
            }
        }
    }
}
