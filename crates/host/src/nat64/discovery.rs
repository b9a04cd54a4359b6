//! Which NAT64 a site has, found out by its DNS (RFC 7050): `ipv4only.arpa` has two addresses of IPv4 and
//! none of IPv6. Where a DNS64 makes up addresses of IPv6 for names that have none, it makes them of these
//! two, and what is around them is the prefix.
//!
//! The system's resolver is asked, where the host has IPv6 alone: when it starts, when its addresses
//! change, and every hour. Nobody vouches for the answer but whoever answers the site's questions anyway
//! (section 3.1 would have names with DNSSEC for it). So what it says is used for no more than where to
//! send what was to be sent to IPv4, sealed for whom it is for; others are told nothing of where it leads
//! ([`Known::Found`]); and a prefix that this host's own address has is none.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use n0_dns_resolver::DnsResolver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Known, LENGTHS, Nat64, ZERO_AT, places};
use crate::session::Sessions;

/// The name, absolute: what the system appends to names is not for it.
const NAME: &str = "ipv4only.arpa.";
/// Who has a way to this address of IPv4, a root server's of the DNS, has one to the Internet.
const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
/// What it has (section 8.2).
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How many addresses of an answer are looked at.
const ADDRESSES_MAX: usize = 16;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How soon it is asked again when nobody has answered; then four times as long each time.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is asked where there is an answer.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Tells a node's sessions which NAT64 there is, until it ends.
pub async fn keep(sessions: Sessions, stop: CancellationToken) {
    let local = sessions.watch_local_addresses();
    let has_ipv4 = || sessions.sends_to(INTERNET);
    let tell = |known| sessions.set_nat64(known);
    follow(local, (has_ipv4, ask, tell), stop).await;
}

/// The same, with how to look whether a way leads to the Internet by IPv4, how to ask, and whom to tell.
async fn follow<Asked>(
    mut local: watch::Receiver<Vec<SocketAddr>>,
    (has_ipv4, ask, tell): (
        impl Fn() -> bool,
        impl Fn() -> Asked,
        impl Fn(Option<Known>),
    ),
    stop: CancellationToken,
) where
    Asked: Future<Output = Result<Vec<Ipv6Addr>, String>>,
{
    let mut retry = RETRY;
    let mut found: Option<Found> = None;
    loop {
        let own: Vec<IpAddr> = ips(&local.borrow_and_update());
        let wait = match has_ipv6_alone(&own, has_ipv4()) {
            false => {
                found = None;
                INTERVAL
            }
            true => {
                let asked = tokio::select! {
                    asked = ask() => asked,
                    () = stop.cancelled() => return,
                };
                match asked {
                    Ok(addresses) => {
                        let before = found.take().map(|found| found.nat64);
                        let nat64 = choose(&addresses, before, &own);
                        tracing::debug!(?nat64, "the NAT64 that the site's DNS tells of");
                        found = nat64.map(|nat64| Found { nat64, own });
                        retry = RETRY;
                        INTERVAL
                    }
                    Err(error) => {
                        tracing::debug!(error, "nobody tells whether there is a NAT64");
                        // What was found before may still hold where it was found.
                        found = found.filter(|found| found.own == own);
                        let wait = retry;
                        retry = (retry * 4).min(INTERVAL);
                        wait
                    }
                }
            }
        };
        tell(found.as_ref().map(|found| Known::Found(found.nat64)));
        tokio::select! {
            changed = local.changed() => match changed {
                Ok(()) => retry = RETRY,
                Err(_) => return,
            },
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What was found, and which addresses the host had then.
struct Found {
    nat64: Nat64,
    own: Vec<IpAddr>,
}

/// Returns the addresses without their ports, each once and in order.
fn ips(own: &[SocketAddr]) -> Vec<IpAddr> {
    let ips: BTreeSet<IpAddr> = own.iter().map(|at| at.ip().to_canonical()).collect();
    ips.into_iter().collect()
}

/// Asks for the addresses of IPv6; there may be none.
async fn ask() -> Result<Vec<Ipv6Addr>, String> {
    // The system's servers may be others than the last time.
    let resolver = DnsResolver::builder().use_system_config().build();
    let asked = tokio::time::timeout(ANSWER_MAX, resolver.lookup_ipv6(NAME)).await;
    match asked {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no DNS server answers".to_owned()),
    }
}

/// Returns which prefix of an answer is used, if any: the one before if it is still there, as what goes
/// by it would have to find another way, otherwise the first that is not of the host's own network.
fn choose(addresses: &[Ipv6Addr], before: Option<Nat64>, own: &[IpAddr]) -> Option<Nat64> {
    let is_foreign = |nat64: &Nat64| !is_of(*nat64, own);
    let mut first = None;
    for nat64 in find(addresses).filter(is_foreign) {
        if Some(nat64) == before {
            return before;
        }
        first = first.or(Some(nat64));
    }
    first
}

/// Returns the prefixes of an answer; none where no address is made up of a well-known one, or it
/// could be of several prefixes.
fn find(addresses: &[Ipv6Addr]) -> impl Iterator<Item = Nat64> {
    let prefix = |address: &Ipv6Addr| {
        let octets = address.octets();
        let is_it = |bits: &&u8| {
            let four = places(**bits).map(|place| octets[place]);
            octets[ZERO_AT] == 0 && WELL_KNOWN.contains(&four.into())
        };
        let mut lengths = LENGTHS.iter().filter(is_it);
        let bits = lengths.next().filter(|_| lengths.next().is_none())?;
        Nat64::new(*address, *bits)
    };
    addresses.iter().take(ADDRESSES_MAX).filter_map(prefix)
}

/// Tells whether a host has addresses of IPv6 at which others reach it, and no way to the Internet by IPv4.
/// Addresses of IPv4 say little: those of bridges for containers lead nowhere.
fn has_ipv6_alone(own: &[IpAddr], has_ipv4: bool) -> bool {
    let is_v6 = |ip: &IpAddr| ip.is_ipv6() && !ip.is_loopback();
    own.iter().any(is_v6) && !has_ipv4
}

/// Tells whether one of a host's own addresses has the prefix.
fn is_of(nat64: Nat64, own: &[IpAddr]) -> bool {
    let has_prefix = |ip: &IpAddr| match ip {
        IpAddr::V6(six) => Nat64::new(*six, nat64.bits) == Some(nat64),
        IpAddr::V4(_) => false,
    };
    own.iter().any(has_prefix)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    fn six(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn nat64(text: &str) -> Nat64 {
        Nat64::try_from(text.to_owned()).unwrap()
    }

    fn first(addresses: &[Ipv6Addr]) -> Option<Nat64> {
        find(addresses).next()
    }

    #[test]
    fn the_prefix_is_what_is_around_a_well_known_address() {
        for text in [
            "64:ff9b::/96",
            "2001:db8::/32",
            "2001:db8:100::/40",
            "2001:db8:122::/48",
            "2001:db8:122:300::/56",
            "2001:db8:122:344::/64",
            "2001:db8:122:344::/96",
        ] {
            for known in WELL_KNOWN {
                let made_up = nat64(text).around(known);
                assert_eq!(first(&[made_up]), Some(nat64(text)), "{made_up}");
            }
        }
    }

    #[test]
    fn what_is_not_made_up_of_one_tells_nothing() {
        assert_eq!(first(&[]), None);
        for text in [
            "64:ff9b::192.0.0.172",
            "64:ff9b::8.8.8.8",
            "2001:db8::1",
            "::ffff:192.0.0.170",
            "::192.0.0.170",
            "fe80::192.0.0.170",
            "ff02::192.0.0.170",
            // Octet 8 is not zero.
            "64:ff9b::ff00:0:192.0.0.170",
            // Of 32 or of 96 bits: there is no telling.
            "2001:db8:c000:aa::192.0.0.171",
        ] {
            assert_eq!(first(&[six(text)]), None, "{text}");
        }
        let both = [six("2001:db8::1"), six("64:ff9b::192.0.0.171")];
        assert_eq!(first(&both), Some(nat64("64:ff9b::/96")));
        let mut many = vec![six("2001:db8::1"); ADDRESSES_MAX];
        many.push(both[1]);
        assert_eq!(first(&many), None);
    }

    #[test]
    fn it_is_looked_for_where_there_is_no_ipv4_and_is_no_network_of_the_host() {
        let own = |texts: &[&str]| -> Vec<IpAddr> {
            let at = |text: &&str| SocketAddr::new(text.parse().unwrap(), 7);
            ips(&texts.iter().map(at).collect::<Vec<_>>())
        };
        assert!(has_ipv6_alone(&own(&["2600::1"]), false));
        assert!(!has_ipv6_alone(&own(&["2600::1"]), true));
        // A bridge for containers.
        assert!(has_ipv6_alone(&own(&["2600::1", "172.17.0.1"]), false));
        assert!(!has_ipv6_alone(&own(&["::1"]), false) && !has_ipv6_alone(&[], false));
        let here = own(&["2600::1"]);
        assert!(is_of(nat64("2600::/32"), &here) && is_of(nat64("2600::/96"), &here));
        assert!(!is_of(nat64("64:ff9b::/96"), &here));
    }

    #[test]
    fn the_prefix_in_use_is_kept_while_it_is_in_the_answer() {
        let both = ["64:ff9b::192.0.0.170", "2001:db8:64::192.0.0.170"].map(six);
        let [one, other] = ["64:ff9b::/96", "2001:db8:64::/96"].map(nat64);
        assert_eq!(choose(&both, None, &[]), Some(one));
        assert_eq!(choose(&both, Some(other), &[]), Some(other));
        assert_eq!(choose(&both[..1], Some(other), &[]), Some(one));
        assert_eq!(choose(&[], Some(other), &[]), None);
        let here = [IpAddr::from(six("64:ff9b::1"))];
        assert_eq!(choose(&both, None, &here), Some(other));
        assert_eq!(choose(&both[..1], Some(one), &here), None);
    }

    #[test]
    fn whatever_is_found_reaches_the_well_known_address() {
        let (mut number, mut found) = (1_u128, 0);
        for turn in 0..10_000_usize {
            // Octets of any kind, with a well-known address somewhere in them.
            number = number.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
            let mut octets = (number ^ (number >> 64)).to_be_bytes();
            octets[turn % 12..][..4].copy_from_slice(&WELL_KNOWN[turn % 2].octets());
            octets[ZERO_AT] = if turn % 3 == 0 { octets[ZERO_AT] } else { 0 };
            let address = Ipv6Addr::from(octets);
            if let Some(nat64) = first(&[address]) {
                assert!(WELL_KNOWN.contains(&nat64.within(address).unwrap()));
                found += 1;
            }
        }
        assert!(found > 500, "{found}");
    }

    /// A site whose DNS says what a test wants.
    struct Site {
        local: watch::Sender<Vec<SocketAddr>>,
        has_ipv4: Arc<AtomicBool>,
        /// None for a server that is silent.
        answer: watch::Sender<Option<Result<Vec<Ipv6Addr>, String>>>,
        told: mpsc::UnboundedReceiver<Option<Known>>,
        asked: mpsc::UnboundedReceiver<()>,
        stop: CancellationToken,
        ended: tokio::task::JoinHandle<()>,
    }

    impl Site {
        fn new(own: &str) -> Self {
            let (local, addresses) = watch::channel(vec![at(own)]);
            let (answer, answers) = watch::channel(None);
            let (told, told_outlet) = mpsc::unbounded_channel();
            let (asked, asked_outlet) = mpsc::unbounded_channel();
            let has_ipv4: Arc<AtomicBool> = Arc::default();
            let leads = Arc::clone(&has_ipv4);
            let ask = move || {
                let _ = asked.send(());
                let mut answers = answers.clone();
                async move {
                    let said = answers.wait_for(Option::is_some).await;
                    said.unwrap().clone().unwrap()
                }
            };
            let tell = move |known| told.send(known).unwrap();
            let stop = CancellationToken::new();
            let how = (move || leads.load(Ordering::SeqCst), ask, tell);
            let ended = tokio::spawn(follow(addresses, how, stop.clone()));
            Self {
                local,
                has_ipv4,
                answer,
                told: told_outlet,
                asked: asked_outlet,
                stop,
                ended,
            }
        }

        /// The DNS says something else, and the host's address is this now. Returns what is told then.
        async fn says(
            &mut self,
            answer: Result<Vec<Ipv6Addr>, String>,
            own: &str,
        ) -> Option<Known> {
            self.answer.send_replace(Some(answer));
            self.local.send_replace(vec![at(own)]);
            within(self.told.recv()).await.unwrap()
        }
    }

    fn at(own: &str) -> SocketAddr {
        SocketAddr::new(own.parse().unwrap(), 7)
    }

    async fn within<T>(what: impl Future<Output = T>) -> T {
        let waited = tokio::time::timeout(Duration::from_secs(4), what);
        waited.await.expect("it happens before it is asked again")
    }

    #[tokio::test]
    async fn a_prefix_is_followed_and_forgotten_elsewhere_when_nobody_answers() {
        let mut site = Site::new("2600::1");
        let [one, other] =
            ["64:ff9b::", "2001:db8:64::"].map(|prefix| vec![six(&format!("{prefix}192.0.0.170"))]);
        let [first, second] =
            ["64:ff9b::/96", "2001:db8:64::/96"].map(|text| Some(Known::Found(nat64(text))));
        within(site.asked.recv()).await.unwrap();
        site.answer.send_replace(Some(Ok(one.clone())));
        assert_eq!(within(site.told.recv()).await, Some(first));
        // Where it was found it still holds although nobody answers.
        let nobody = || Err("nobody answers".to_owned());
        assert_eq!(site.says(nobody(), "2600::1").await, first);
        // The site has another one now.
        assert_eq!(site.says(Ok(other.clone()), "2600::1").await, second);
        // Carried elsewhere, the host knows of none until somebody answers there.
        assert_eq!(site.says(nobody(), "2600:1::1").await, None);
        assert_eq!(site.says(Ok(one), "2600:1::1").await, first);
        assert_eq!(site.says(Ok(Vec::new()), "2600:1::1").await, None);
        assert_eq!(site.says(Ok(other), "2600:1::1").await, second);
        // With IPv4 it takes none, and asks nobody.
        while site.asked.try_recv().is_ok() {}
        site.has_ipv4.store(true, Ordering::SeqCst);
        assert_eq!(site.says(nobody(), "2600:1::1").await, None);
        assert!(site.asked.try_recv().is_err());
        drop(site.local);
        within(site.ended).await.unwrap();
    }

    #[tokio::test]
    async fn it_stops_while_it_waits_for_an_answer() {
        let mut site = Site::new("2600::1");
        within(site.asked.recv()).await.unwrap();
        site.stop.cancel();
        within(site.ended).await.unwrap();
        assert_eq!(site.told.recv().await, None);
    }
}
