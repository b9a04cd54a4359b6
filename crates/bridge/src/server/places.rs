//! What the addresses use that have connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one address, or of one IPv6 network of 64 bits: a proxy may stand for many.
const CONNECTIONS_PER_PLACE_MAX: usize = 256;

/// What all bodies take that are being read, in octets: whoever finds no room sends shorter ones.
const BODIES_BYTES_MAX: usize = 96 << 20;

/// What of it one address takes, or one IPv6 network of 64 bits: others must find room too.
const BODIES_PER_PLACE_BYTES_MAX: usize = BODIES_BYTES_MAX / 4;

/// What each address uses, and all together.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    places: BTreeMap<IpAddr, Used>,
    body_bytes: usize,
}

#[derive(Debug, Default)]
struct Used {
    connections: usize,
    /// Octets of bodies.
    body_bytes: usize,
}

/// A connection of an address.
#[derive(Debug)]
pub(super) struct Place {
    from: IpAddr,
    places: Places,
}

/// Room for a body, of that of an address and of all.
#[derive(Debug)]
pub(super) struct Room<'a> {
    place: &'a Place,
    bytes: usize,
}

impl Places {
    fn all(&self) -> std::sync::MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) fn enter(places: &Places, from: IpAddr) -> Option<Self> {
        let mut all = places.all();
        let used = all.places.entry(from).or_default();
        let enters = used.connections < CONNECTIONS_PER_PLACE_MAX;
        used.connections += usize::from(enters);
        enters.then(|| Self {
            from,
            places: places.clone(),
        })
    }

    /// Returns room for nothing, which can grow.
    pub(super) fn room(&self) -> Room<'_> {
        Room {
            place: self,
            bytes: 0,
        }
    }
}

impl Room<'_> {
    /// Makes it at least so long, in octets; `false` when there is not as much.
    pub(super) fn reach(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            return true;
        };
        let mut all = self.place.places.all();
        let left = BODIES_BYTES_MAX - all.body_bytes;
        let Some(used) = all.places.get_mut(&self.place.from) else {
            return false;
        };
        let fits = more <= left.min(BODIES_PER_PLACE_BYTES_MAX - used.body_bytes);
        if fits {
            used.body_bytes += more;
            all.body_bytes += more;
            self.bytes = bytes;
        }
        fits
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut all = self.place.places.all();
        all.body_bytes -= self.bytes;
        // It is there as long as the connection is.
        if let Some(used) = all.places.get_mut(&self.place.from) {
            used.body_bytes -= self.bytes;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.all();
        if let Some(used) = all.places.get_mut(&self.from) {
            used.connections -= 1;
            if used.connections == 0 {
                all.places.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::network;

    #[test]
    fn an_ipv6_network_is_one_place() {
        let places = Places::default();
        let enter = |last: usize, net: &str| {
            let from: IpAddr = format!("{net}::{last:x}").parse().unwrap();
            Place::enter(&places, network(from))
        };
        let all = (0..CONNECTIONS_PER_PLACE_MAX).map(|last| enter(last, "2001:db8").unwrap());
        let mut all: Vec<Place> = all.collect();
        assert!(enter(9_999, "2001:db8").is_none());
        let other = enter(9_999, "2001:db8:0:1").unwrap();
        all.pop();
        drop(enter(9_999, "2001:db8").unwrap());
        drop((all, other));
        assert!(places.all().places.is_empty());
    }

    #[test]
    fn one_place_has_a_quarter_of_the_room_for_bodies() {
        let places = Places::default();
        let place = |last: u8| Place::enter(&places, [192, 0, 2, last].into()).unwrap();
        let (one, again) = (place(1), place(1));
        let others: Vec<Place> = (2..5).map(place).collect();
        let half = BODIES_PER_PLACE_BYTES_MAX / 2;
        let (mut first, mut second) = (one.room(), again.room());
        assert!(first.reach(half) && first.reach(half) && second.reach(half));
        assert!(!second.reach(half + 1) && second.reach(1));
        let mut rooms: Vec<Room<'_>> = others.iter().map(Place::room).collect();
        assert!(rooms.iter_mut().all(|room| room.reach(2 * half)));
        drop(first);
        assert!(!second.reach(2 * half + 1) && second.reach(2 * half));
        assert_eq!(places.all().body_bytes, BODIES_BYTES_MAX);
        // Nothing is left for one more address.
        let late = place(9);
        assert!(!late.room().reach(1));
        drop((second, rooms));
        assert_eq!(places.all().body_bytes, 0);
    }
}
