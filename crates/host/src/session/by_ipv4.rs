//! Dials by IPv4 alone of a few peers that have IPv6 too, as long as nobody has said where this host's
//! IPv4 comes out.
//!
//! A session goes by one version of IP, and the other end sees what comes out by that. Who has both, or a
//! NAT64 besides IPv6, may have all its sessions by IPv6, and then nobody could tell it the outer address
//! of its port by IPv4; those with IPv4 alone behind routers would not know where to send to. A session
//! that was opened by IPv4 stays there: by IPv6 it is hardly quicker ([`super::selector`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use enishi_services::reach::observed::is_public;

use super::{Shared, lock};

/// How long such a dial may take before all addresses are dialled.
pub(super) const TIME_MAX: Duration = Duration::from_secs(1);

/// How many there are in so long: two in different networks are believed, and some may not be there.
const DIALS_MAX: u32 = 4;
const INTERVAL: Duration = Duration::from_secs(60);

/// How many there were since a moment.
#[derive(Debug, Default)]
pub(super) struct ByIpv4(Mutex<Option<(Instant, u32)>>);

impl ByIpv4 {
    /// Tells whether there may be one more.
    fn take(&self, now: Instant) -> bool {
        let mut dials = lock(&self.0);
        let (since, count) = dials.get_or_insert((now, 0));
        if now.duration_since(*since) >= INTERVAL {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= DIALS_MAX
    }
}

/// Returns those addresses of a peer at which it is dialled first; none for all at once.
pub(super) fn first(shared: &Shared, addresses: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
    let four = of_both(addresses)?;
    let is_v4 = |at: &SocketAddr| at.ip().to_canonical().is_ipv4();
    let is_known = {
        let external = shared.external.borrow();
        let known = external.told.iter().chain(&external.tried);
        known.into_iter().any(is_v4)
    };
    // Addresses of IPv4 may be of a bridge for containers, and lead nowhere.
    let has_ipv4 = || {
        let own = |at: &SocketAddr| is_v4(at) && !at.ip().is_loopback();
        let leads = |at: &SocketAddr| match at.ip().to_canonical() {
            IpAddr::V4(to) => shared.sends_to(to),
            IpAddr::V6(_) => false,
        };
        let has_own = || shared.local.borrow().iter().any(own) && four.iter().any(leads);
        shared.nat64.borrow().is_some() || has_own()
    };
    let dials = !is_known && has_ipv4() && shared.by_ipv4.take(Instant::now());
    dials.then_some(four)
}

/// Returns the public addresses of IPv4; none where there are none of both versions of IP.
fn of_both(addresses: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
    let public = addresses.iter().filter(|at| is_public(at.ip()));
    let is_v4 = |at: &SocketAddr| at.ip().to_canonical().is_ipv4();
    let (four, six): (Vec<SocketAddr>, Vec<SocketAddr>) = public.partition(|at| is_v4(at));
    (!four.is_empty() && !six.is_empty()).then_some(four)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_of_them() {
        let (dials, mut now) = (ByIpv4::default(), Instant::now());
        for _ in 0..3 {
            let taken = (0..100).filter(|_| dials.take(now)).count();
            assert_eq!(taken, DIALS_MAX as usize);
            now += INTERVAL;
        }
    }

    #[test]
    fn only_who_has_both_in_the_internet_is_dialled_so() {
        let of = |texts: &[&str]| {
            let addresses: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
            of_both(&addresses)
        };
        let (four, six) = ("11.0.0.1:7", "[2600::1]:7");
        assert_eq!(of(&[six, four]), Some(vec![four.parse().unwrap()]));
        assert_eq!(of(&[four]), None);
        assert_eq!(of(&[six]), None);
        assert_eq!(of(&["192.168.1.2:7", six]), None);
        assert_eq!(of(&[four, "[fd00::1]:7"]), None);
    }
}
