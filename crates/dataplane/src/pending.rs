//! Packets that wait until the holder of their destination is known.
//!
//! The first packet to an unknown address starts its resolution; it and those that
//! follow wait here. They are taken out in order when the address is resolved or
//! given up, or handed back when they have waited too long.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most packets that wait for one address.
pub const PACKETS_PER_ADDRESS_MAX: usize = 64;

/// The most packets that wait in total, and so the most addresses waited for. With
/// packets of 1,500 octets, 1.5 MB.
pub const PACKETS_MAX: usize = 1024;

/// How long a packet waits.
pub const WAIT_MAX: Duration = Duration::from_secs(3);

/// How long after the start of a resolution it is to be started again if packets still wait:
/// whoever was to start it may have been too busy to hear.
pub const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is the first to wait for its address, or the first for [`ASK_INTERVAL`]: start the
    /// resolution.
    First,
    /// It waits behind others.
    Queued,
    /// A limit is reached and it was not kept.
    Full,
}

/// Packets that wait for the resolution of their destinations.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    queues: HashMap<IpAddr, Queue>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Queue {
    /// When its resolution was last to be started.
    asked: Instant,
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    until: Instant,
    packet: Vec<u8>,
}

impl Pending {
    /// Lets a packet wait for `destination`, for at most [`WAIT_MAX`] from `now`.
    pub fn push(&mut self, now: Instant, destination: IpAddr, packet: Vec<u8>) -> Pushed {
        if self.count == PACKETS_MAX {
            return Pushed::Full;
        }
        let fresh = Queue {
            asked: now,
            waiting: VecDeque::new(),
        };
        let queue = self.queues.entry(destination).or_insert(fresh);
        if queue.waiting.len() >= PACKETS_PER_ADDRESS_MAX {
            return Pushed::Full;
        }
        let pushed = if queue.waiting.is_empty() || now - queue.asked >= ASK_INTERVAL {
            queue.asked = now;
            Pushed::First
        } else {
            Pushed::Queued
        };
        let until = now + WAIT_MAX;
        queue.waiting.push_back(Waiting { until, packet });
        self.count += 1;
        pushed
    }

    /// Returns the addresses whose resolutions are to be started again, as their packets have
    /// waited for [`ASK_INTERVAL`]. Looks at every address waited for.
    pub fn ask_again(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut again = Vec::new();
        for (address, queue) in &mut self.queues {
            if now - queue.asked >= ASK_INTERVAL {
                queue.asked = now;
                again.push(*address);
            }
        }
        again
    }

    /// Returns the addresses that packets wait for, in no particular order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.queues.keys().copied()
    }

    /// Takes out the packets to `destination`, oldest first.
    pub fn take(&mut self, destination: IpAddr) -> Vec<Vec<u8>> {
        let queue = self.queues.remove(&destination);
        let waiting = queue.map_or_else(VecDeque::new, |queue| queue.waiting);
        self.count -= waiting.len();
        waiting.into_iter().map(|waiting| waiting.packet).collect()
    }

    /// Takes out the packets that have waited too long, those of one address oldest
    /// first, so that their senders can be told. Looks at every address waited for.
    pub fn expire(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut expired = Vec::new();
        self.queues.retain(|_, queue| {
            while let Some(waiting) = queue.waiting.pop_front_if(|waiting| waiting.until <= now) {
                expired.push(waiting.packet);
            }
            !queue.waiting.is_empty()
        });
        self.count -= expired.len();
        expired
    }

    /// Returns how many packets wait, at most [`PACKETS_MAX`].
    pub fn len(&self) -> usize {
        self.count
    }

    /// Tells whether none waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn packets_come_out_in_order_and_only_those_of_the_address() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        assert_eq!(pending.push(now, address(1), vec![1]), Pushed::First);
        assert_eq!(pending.push(now, address(2), vec![2]), Pushed::First);
        assert_eq!(pending.push(now, address(1), vec![3]), Pushed::Queued);
        assert_eq!(pending.take(address(1)), [[1], [3]]);
        assert_eq!((pending.take(address(1)).len(), pending.len()), (0, 1));
        assert_eq!(pending.push(now, address(1), vec![4]), Pushed::First);
    }

    #[test]
    fn old_packets_are_handed_back() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        let second = start + Duration::from_secs(1);
        pending.push(start, address(1), vec![1]);
        pending.push(second, address(1), vec![2]);
        pending.push(second, address(2), vec![3]);
        assert!(pending.expire(second).is_empty());
        assert_eq!(pending.expire(start + WAIT_MAX), [[1]]);
        assert_eq!(pending.push(second, address(1), vec![4]), Pushed::Queued);
        let mut rest = pending.expire(second + WAIT_MAX);
        rest.sort();
        assert_eq!(rest, [[2], [3], [4]]);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_packet_that_nothing_follows_is_asked_for_again() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        pending.push(start, address(1), vec![1]);
        assert!(pending.ask_again(start + ASK_INTERVAL / 2).is_empty());
        pending.push(start + ASK_INTERVAL / 2, address(2), vec![2]);
        assert_eq!(pending.ask_again(start + ASK_INTERVAL), [address(1)]);
        assert!(pending.ask_again(start + ASK_INTERVAL).is_empty());
        pending.take(address(2));
        assert_eq!(pending.ask_again(start + ASK_INTERVAL * 2), [address(1)]);
    }

    #[test]
    fn both_limits_hold() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let mut push = |number| pending.push(now, address(number), vec![0]);
        let kept = (0..100).filter(|_| push(0) != Pushed::Full).count();
        assert_eq!(kept, PACKETS_PER_ADDRESS_MAX);
        let kept = (1..2000)
            .filter(|number| push(*number) != Pushed::Full)
            .count();
        assert_eq!(kept, PACKETS_MAX - PACKETS_PER_ADDRESS_MAX);
        assert_eq!(pending.len(), PACKETS_MAX);
        pending.take(address(0));
        assert_eq!(pending.push(now, address(0), vec![0]), Pushed::First);
    }
}
