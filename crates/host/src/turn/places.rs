//! Who of the peers that come by a TURN server has one of the few sockets. The server lets in by
//! address, whatever the port: nobody takes all places with the ports of one address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The most peers that have a socket.
const PLACES_MAX: usize = 64;

/// The most of one address: as many nodes may be behind one router.
const PLACES_EACH_MAX: usize = 4;

/// For how long a peer without a datagram keeps its place when another one wants it. Bounds how many
/// sockets are opened and closed in a time.
const KEPT_MIN: Duration = Duration::from_secs(10);

/// Whether there is a place for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is.
    Free,
    /// That of this peer.
    Of(SocketAddr),
    /// There is none.
    None,
}

/// Finds a place for a new peer among those that have one, with the time of their last datagram.
pub(super) fn place(
    taken: impl Iterator<Item = (SocketAddr, Instant)> + Clone,
    new: SocketAddr,
    now: Instant,
) -> Place {
    let same = taken.clone().filter(|(peer, _)| peer.ip() == new.ip());
    let longest_idle = if same.clone().count() >= PLACES_EACH_MAX {
        same.min_by_key(|(_, used)| *used)
    } else if taken.clone().count() >= PLACES_MAX {
        taken.min_by_key(|(_, used)| *used)
    } else {
        return Place::Free;
    };
    match longest_idle {
        Some((peer, used)) if now.duration_since(used) >= KEPT_MIN => Place::Of(peer),
        Some(_) | None => Place::None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(ip: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([20, 0, 0, ip], port))
    }

    #[test]
    fn one_address_takes_few_places_and_its_own_only() {
        let start = Instant::now();
        let mut taken = BTreeMap::from([(at(1, 1), start)]);
        for port in 1..1000 {
            let now = start + Duration::from_millis(100) * u32::from(port);
            let found = place(taken.iter().map(|it| (*it.0, *it.1)), at(2, port), now);
            match found {
                Place::Free => {}
                Place::Of(peer) => {
                    assert_eq!(peer.ip(), at(2, 0).ip());
                    taken.remove(&peer);
                }
                Place::None => continue,
            }
            taken.insert(at(2, port), now);
        }
        assert_eq!(taken.len(), 1 + PLACES_EACH_MAX);
        assert!(taken.contains_key(&at(1, 1)));
        let now = start + Duration::from_secs(100);
        let found = place(taken.iter().map(|it| (*it.0, *it.1)), at(3, 1), now);
        assert_eq!(found, Place::Free);
    }

    #[test]
    fn when_all_places_are_taken_the_longest_idle_peer_loses_its_own() {
        let start = Instant::now();
        let taken = (0..64).map(|number| {
            let used = start + Duration::from_secs(u64::from((number + 7) % 64));
            (at(number, 1), used)
        });
        let new = at(200, 1);
        assert_eq!(place(taken.clone(), new, start), Place::None);
        let then = start + KEPT_MIN;
        assert_eq!(place(taken.clone(), new, then), Place::Of(at(57, 1)));
        assert_eq!(place(taken.skip(1), new, then), Place::Free);
    }
}
