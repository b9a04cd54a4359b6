//! Which of a session's paths is used.

use std::time::Duration;

use iroh::endpoint::transports::{
    AddrKind, FourTuple, PathSelection, PathSelectionContext, PathSelector,
};

/// By how much another path must be quicker than the one in use, if both are of the same kind, and by what
/// share of it: a handshake is a slow measure of a round trip.
const GAIN_MIN: Duration = Duration::from_millis(5);
const GAIN_SHARE: u32 = 5;

/// By how much IPv4 must be quicker than IPv6 (the library's own value).
const IPV6_FIRST: Duration = Duration::from_millis(3);

/// Any direct path rather than one by way of a server or other nodes, and of the same kind the quicker
/// one. What a server relays comes in by a socket on loopback (`crate::turn::client`): a peer on this
/// host, which does as well, has another address besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectFirst;

/// Who carries it, and how quick it is: what is least is best.
type Cost = (By, Duration);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Nobody,
    Server,
    Nodes,
}

impl PathSelector for DirectFirst {
    fn select(&self, cx: &PathSelectionContext<'_>) -> PathSelection {
        let paths = || {
            cx.paths().filter_map(|path| {
                // One that is just being closed has none.
                let rtt = path.stats()?.rtt;
                let at = path.network_path();
                let relayed =
                    matches!(at, FourTuple::Ip { remote, .. } if remote.ip().is_loopback());
                let cost = cost(&at.addr_kind(), relayed, rtt);
                Some((cost, path))
            })
        };
        let is_current = |at: &FourTuple| cx.current() == Some(at);
        let current = paths().filter(|(_, path)| is_current(path.network_path()));
        let current = current.map(|(cost, _)| cost).min();
        let mut selection = PathSelection::none();
        if let Some((best, path)) = paths().min_by_key(|(cost, _)| *cost)
            && is_better(best, current)
        {
            selection.set(&path);
        }
        selection
    }
}

fn cost(kind: &AddrKind, is_relayed: bool, rtt: Duration) -> Cost {
    let by = if is_relayed { By::Server } else { By::Nobody };
    match kind {
        AddrKind::IpV6 => (by, rtt),
        AddrKind::IpV4 => (by, rtt + IPV6_FIRST),
        AddrKind::Relay | AddrKind::Custom(_) => (By::Nodes, rtt),
    }
}

fn is_better(best: Cost, current: Option<Cost>) -> bool {
    let gain_min = |round_trip: Duration| GAIN_MIN.max(round_trip / GAIN_SHARE);
    let is_quicker = |current: Cost| best.1 + gain_min(current.1) <= current.1;
    current.is_none_or(|current| best.0 < current.0 || is_quicker(current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_paths_come_first_and_a_little_quicker_is_no_reason_to_change() {
        let ms = Duration::from_millis;
        let (direct, carried) = (
            cost(&AddrKind::IpV4, false, ms(90)),
            cost(&AddrKind::Custom(1), false, ms(2)),
        );
        let relayed = cost(&AddrKind::IpV4, true, ms(20));
        assert!(direct < relayed && relayed < carried);
        assert!(is_better(direct, Some(relayed)) && !is_better(relayed, Some(relayed)));
        assert!(direct < carried);
        assert!(is_better(direct, Some(carried)) && is_better(carried, None));
        assert!(!is_better(
            cost(&AddrKind::IpV6, false, ms(90)),
            Some(direct)
        ));
        assert!(!is_better(
            cost(&AddrKind::IpV6, false, ms(80)),
            Some(direct)
        ));
        assert!(is_better(
            cost(&AddrKind::IpV6, false, ms(74)),
            Some(direct)
        ));
        assert!(!is_better(direct, Some(direct)));
    }
}
