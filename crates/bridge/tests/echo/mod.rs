//! A transfer both ways over datagrams that may be lost: the simplest that arrives.
//!
//! Numbered packets go one way, the other end sends each back, and what does not come back within
//! a while is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

/// Packets under way.
const WINDOW: usize = 64;

/// How long a packet may take.
const AGAIN: Duration = Duration::from_secs(3);

/// The end that sends first.
pub(crate) struct Echo {
    packets: u32,
    bytes: usize,
    next: u32,
    under_way: BTreeMap<u32, Duration>,
}

impl Echo {
    /// Has `packets` of `bytes` octets to send.
    pub(crate) fn new(packets: u32, bytes: usize) -> Self {
        Self {
            packets,
            bytes,
            next: 0,
            under_way: BTreeMap::new(),
        }
    }

    /// Returns the packets to send now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Bytes> {
        let late = self.under_way.iter().filter(|(_, at)| **at + AGAIN <= now);
        let mut due: Vec<u32> = late.map(|(number, _)| *number).collect();
        let room = WINDOW - self.under_way.len();
        let end = self.packets.min(self.next + room as u32);
        due.extend(self.next..end);
        self.next = end;
        self.under_way
            .extend(due.iter().map(|number| (*number, now)));
        due.into_iter()
            .map(|number| packet(number, self.bytes))
            .collect()
    }

    /// Takes a packet that came back; it must be one that was sent.
    pub(crate) fn take(&mut self, octets: &Bytes) {
        let number = u32::from_be_bytes(octets[..4].try_into().unwrap());
        assert!(number < self.next, "packet {number} was never sent");
        assert_eq!(
            *octets,
            packet(number, self.bytes),
            "packet {number} was altered"
        );
        self.under_way.remove(&number);
    }

    /// Whether everything came back.
    pub(crate) fn is_done(&self) -> bool {
        self.next == self.packets && self.under_way.is_empty()
    }
}

/// The packet of this number: all octets, in another order for each.
fn packet(number: u32, bytes: usize) -> Bytes {
    let rest =
        (4..bytes).map(|at| (at as u32).wrapping_mul(number | 1).to_be_bytes()[3] ^ number as u8);
    number.to_be_bytes().into_iter().chain(rest).collect()
}
