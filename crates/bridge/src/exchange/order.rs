//! Frames in the order of their numbers, each once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::Time;

/// How long later frames wait for an earlier one: QUIC takes packets that come late for lost ones,
/// and sends too little for a while.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many numbers may be ahead of what is waited for; of those behind it so many are remembered.
const WINDOW: u32 = 64;

/// What waits, at most, in octets with [`PACKET_COST_BYTES`] for each packet: of the three long frames that
/// are under way at once two may wait for the first, and two more that came while it is sent again.
const WAITING_BYTES_MAX: usize = 5 << 20;

/// What a packet takes beside its octets, about: what refers to it, and what the allocator adds.
const PACKET_COST_BYTES: usize = 64;

/// Takes frames as they come and gives their packets in order, if that is a matter of moments.
///
/// At most 64 frames wait, and none longer than 100 ms; they cost 5 MiB at most. When more come, the earliest
/// are given on as if they had waited long enough, so nothing is lost for want of room.
#[derive(Debug, Default)]
pub struct Order {
    next: u32,
    /// With when it came.
    waiting: BTreeMap<u32, (Time, Vec<Bytes>)>,
    /// What these cost.
    bytes: usize,
    /// Bit `n`: the number `next - 1 - n` came.
    came: u64,
}

impl Order {
    /// Takes a frame. What can be given on is appended to `out`. Returns `false` when the number came
    /// before, or is the last that there is.
    pub fn take(&mut self, now: Time, seq: u32, packets: Vec<Bytes>, out: &mut Vec<Bytes>) -> bool {
        if seq == u32::MAX {
            return false;
        }
        if seq < self.next {
            return self.late(seq, packets, out);
        }
        if self.waiting.contains_key(&seq) {
            return false;
        }
        self.bytes += cost(&packets);
        self.waiting.insert(seq, (now, packets));
        self.drain(out);
        while self.is_full() {
            self.skip(out);
        }
        true
    }

    /// Gives on what has waited long enough.
    pub fn timeout(&mut self, now: Time, out: &mut Vec<Bytes>) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.skip(out);
        }
    }

    /// Returns when something has waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let came = self.waiting.values().map(|(came, _)| *came);
        came.min().map(|came| came + PATIENCE)
    }

    /// Returns what waits, in octets, with what each packet takes beside its own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives on all that waits.
    pub fn give_all(&mut self, out: &mut Vec<Bytes>) {
        while !self.waiting.is_empty() {
            self.skip(out);
        }
    }

    /// Returns the number that is waited for: all before it came, or are given up.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.next
    }

    fn is_full(&self) -> bool {
        let last = self.waiting.keys().next_back();
        self.bytes > WAITING_BYTES_MAX || last.is_some_and(|last| last - self.next >= WINDOW)
    }

    fn late(&mut self, seq: u32, packets: Vec<Bytes>, out: &mut Vec<Bytes>) -> bool {
        let behind = self.next - 1 - seq;
        let fresh = behind < WINDOW && self.came & (1 << behind) == 0;
        if fresh {
            self.came |= 1 << behind;
            out.extend(packets);
        }
        fresh
    }

    fn skip(&mut self, out: &mut Vec<Bytes>) {
        let Some(first) = self.waiting.keys().next() else {
            return;
        };
        let missing = first - self.next;
        self.came = self.came.checked_shl(missing).unwrap_or(0);
        self.next = *first;
        self.drain(out);
    }

    fn drain(&mut self, out: &mut Vec<Bytes>) {
        while let Some((_, packets)) = self.waiting.remove(&self.next) {
            self.bytes -= cost(&packets);
            out.extend(packets);
            self.next += 1;
            self.came = self.came << 1 | 1;
        }
    }
}

/// What packets take while they wait.
fn cost(packets: &[Bytes]) -> usize {
    let octets: usize = packets.iter().map(Bytes::len).sum();
    octets + packets.len() * PACKET_COST_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(seq: u32) -> Vec<Bytes> {
        vec![Bytes::copy_from_slice(&seq.to_be_bytes())]
    }

    #[test]
    fn a_gap_is_waited_for_and_then_left() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        assert!(order.take(Time::ZERO, 1, packet(1), &mut out) && out.is_empty());
        assert!(order.take(Time::ZERO, 0, packet(0), &mut out));
        assert_eq!(out.len(), 2);
        assert!(order.take(Time::ZERO, 3, packet(3), &mut out));
        order.timeout(PATIENCE / 2, &mut out);
        assert_eq!(out.len(), 2);
        order.timeout(PATIENCE, &mut out);
        assert_eq!((out.len(), order.deadline(), order.next()), (3, None, 4));
        // It comes after all, and is not kept back.
        assert!(order.take(PATIENCE, 2, packet(2), &mut out));
        assert!(!order.take(PATIENCE, 2, packet(2), &mut out));
        assert_eq!(out.len(), 4);
    }

    #[test]
    fn much_that_waits_is_given_on_early_and_not_lost() {
        for packets in [
            vec![Bytes::from(vec![0; 1_024]); 1_024],
            vec![Bytes::from_static(b"x"); 16_384],
        ] {
            let (mut order, mut out) = (Order::default(), Vec::new());
            for seq in 1..10 {
                assert!(order.take(Time::ZERO, seq, packets.clone(), &mut out));
                assert!(order.bytes <= WAITING_BYTES_MAX);
                // Two of the longest wait for the first.
                assert!(seq > 2 || out.is_empty());
            }
            assert_eq!(out.len(), packets.len() * 9);
            // What was waited for is taken still.
            assert!(order.take(Time::ZERO, 0, packets.clone(), &mut out));
            assert_eq!((out.len(), order.bytes), (packets.len() * 10, 0));
        }
    }

    proptest! {
        #[test]
        fn every_number_is_given_once_and_little_waits(numbers in proptest::collection::vec(prop_oneof![0_u32..200, any::<u32>()], 0..200)) {
            let (mut order, mut out) = (Order::default(), Vec::new());
            for seq in numbers {
                order.take(Time::ZERO, seq, packet(seq), &mut out);
                prop_assert!(order.waiting.len() <= WINDOW as usize);
            }
            order.timeout(PATIENCE, &mut out);
            prop_assert!(order.waiting.is_empty() && order.bytes == 0);
            let given = out.len();
            out.sort();
            out.dedup();
            prop_assert_eq!(out.len(), given);
        }
    }
}
