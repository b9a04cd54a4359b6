//! A synthetic Internet: where nodes are, how they are connected, and what a packet meets
//! on its way. Integers only, so that a run replays anywhere.
//!
//! ```text
//!   node --access--> city ======= great circle / 145 km per ms ======= city <--access-- node
//!                       \__ relay's city __/   when no hole can be punched
//! ```
//!
//! | what | figure | from |
//! |---|---|---|
//! | places | 37 cities, a node within 150 km of one | assumed: where users and data centres are |
//! | speed | 145 km/ms along the great circle | 200 km/ms in glass, detours of a third assumed; real ones are longer (Bozkurt and others, "Why is the Internet so slow?!", PAM 2017) |
//! | access | four classes, 0.5 to 300 ms one way | assumed |
//! | jitter | a tenth; 1 of 50 packets up to 60 ms; 1 of 1,000 up to 800 ms | assumed |
//! | loss | an eighth to eight times the mean, by access | assumed |
//! | 60 % with endpoint-independent mapping | near 64 % "should allow hole punching" | Halkes and Pouwelse, "UDP NAT and Firewall Puncturing in the Wild", NETWORKING 2011 |
//! | 13 % with dependent mapping, 2 % without UDP | so that two of three pairs behind NATs can be punched | 70 % ± 7 in Trautwein and others, "Challenging Tribal Knowledge", 2025 |
//!
//! The median round trip over random pairs is near 160 ms; King's measurements between
//! name servers, which the literature on DHTs uses (Li and others, "A performance vs. cost
//! framework for evaluating DHT design tradeoffs under churn", INFOCOM 2005), are alike.
//!
//! Where no hole can be punched the message takes a relay: it is late, not lost. Pairs
//! that can never talk are asked for apart ([`Model::broken_per_million`]).

use std::time::Duration;

use enishi_overlay::Rng;
use enishi_overlay::class::Measure;

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// The daemon's sessions (QUIC): set up before the first message, then a reliable,
    /// ordered stream.
    #[default]
    Sessions,
    /// Datagrams without more: no set-up, no order, holes in NATs for nothing. What is
    /// lost stays lost, and the sender never hears that a receiver is gone.
    Datagrams,
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sessions" => Ok(Self::Sessions),
            "datagrams" => Ok(Self::Datagrams),
            _ => Err("there are sessions and datagrams".to_owned()),
        }
    }
}

/// How the network behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What carries the messages.
    pub transport: Transport,
    /// How many packets of a million are lost on the mean path.
    pub loss_per_million: u32,
    /// How many pairs of a million can never reach each other, whatever they try.
    pub broken_per_million: u32,
    /// The delay one way between any two nodes, as in a local network: no places, accesses
    /// or NATs, and a jitter of a tenth. None for the Internet.
    pub delay: Option<Duration>,
}

impl Default for Model {
    /// One packet of a hundred is lost; every pair can talk.
    fn default() -> Self {
        Self {
            transport: Transport::default(),
            loss_per_million: 10_000,
            broken_per_million: 0,
            delay: None,
        }
    }
}

/// How a NAT, if there is one, maps what a node sends (RFC 4787, section 4.1). All are
/// taken to filter by address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// No NAT, or a port that is forwarded.
    Open,
    /// One mapping for all destinations.
    EndpointIndependent,
    /// A mapping for each destination address.
    AddressDependent,
    /// A mapping for each destination address and port.
    AddressAndPortDependent,
    /// No UDP passes; everything takes a relay.
    UdpBlocked,
}

impl Nat {
    /// Shares in percent.
    const SHARES: [(Self, u64); 5] = [
        (Self::Open, 25),
        (Self::EndpointIndependent, 60),
        (Self::AddressDependent, 3),
        (Self::AddressAndPortDependent, 10),
        (Self::UdpBlocked, 2),
    ];

    /// Tells whether two nodes find a direct path, introduced by a third.
    pub const fn punches(self, other: Self) -> bool {
        matches!(
            (self, other),
            (
                Self::Open,
                Self::Open
                    | Self::EndpointIndependent
                    | Self::AddressDependent
                    | Self::AddressAndPortDependent
            ) | (
                Self::EndpointIndependent | Self::AddressDependent | Self::AddressAndPortDependent,
                Self::Open
            ) | (Self::EndpointIndependent, Self::EndpointIndependent)
        )
    }

    /// Tells whether nobody can dial the node unasked.
    const fn is_closed(self) -> bool {
        !matches!(self, Self::Open)
    }
}

/// How nodes are connected: the share in percent, the delay one way in microseconds from
/// and to, and the loss as a percentage of the mean.
const ACCESS: [(u64, u32, u32, u32); 4] = [
    // Data centres and fibre.
    (35, 500, 3_000, 30),
    // Cable and DSL.
    (45, 4_000, 14_000, 80),
    // Mobile networks.
    (18, 15_000, 45_000, 220),
    // Satellites, and links that are full.
    (2, 60_000, 300_000, 800),
];

/// How far along the great circle a signal comes in a millisecond.
const KM_PER_MS: u64 = 145;
/// The diameter of the Earth.
const DIAMETER_KM: u64 = 12_742;
/// How far from its city's middle a node may be, in each direction.
const CITY_KM: u64 = 150;
/// What a relay adds at both of its own ends together.
const RELAY_ACCESS: Duration = Duration::from_millis(2);

/// A city: kilometres from the middle of the Earth in three directions, and its weight.
struct City([i16; 3], u64);

const CITIES: [City; 37] = [
    City([1331, -4643, 4155], 70),  // New York
    City([1115, -4831, 4001], 50),  // Washington
    City([199, -4738, 4255], 40),   // Chicago
    City([-634, -5318, 3451], 40),  // Dallas
    City([-2496, -4655, 3563], 45), // Los Angeles
    City([-2296, -3631, 4705], 30), // Seattle
    City([847, -4527, 4402], 25),   // Toronto
    City([-950, -5934, 2116], 15),  // Mexico City
    City([4014, -4245, -2540], 35), // São Paulo
    City([2748, -4467, -3618], 12), // Buenos Aires
    City([1740, -6107, 522], 8),    // Bogotá
    City([3966, -7, 4986], 50),     // London
    City([4184, 175, 4801], 50),    // Paris
    City([3873, 332, 5048], 30),    // Amsterdam
    City([4040, 618, 4888], 60),    // Frankfurt
    City([4842, -313, 4129], 20),   // Madrid
    City([4408, 714, 4544], 20),    // Milan
    City([3092, 1011, 5478], 15),   // Stockholm
    City([3645, 1399, 5034], 20),   // Warsaw
    City([3492, 2057, 4916], 10),   // Kyiv
    City([2837, 2185, 5269], 30),   // Moscow
    City([4205, 2331, 4180], 12),   // Istanbul
    City([4719, 2858, 3185], 6),    // Cairo
    City([6319, 375, 721], 5),      // Lagos
    City([5047, 2684, -2813], 6),   // Johannesburg
    City([3282, 4739, 2713], 6),    // Dubai
    City([1770, 5754, 2085], 25),   // Mumbai
    City([1239, 5455, 3050], 20),   // Delhi
    City([-1519, 6185, 150], 25),   // Singapore
    City([-1831, 6063, -688], 12),  // Jakarta
    City([-2416, 5377, 2418], 25),  // Hong Kong
    City([-2847, 4646, 3300], 45),  // Shanghai
    City([-2173, 4378, 4087], 40),  // Beijing
    City([-3017, 4923, 2693], 20),  // Taipei
    City([-3038, 4031, 3887], 35),  // Seoul
    City([-3946, 3346, 3718], 50),  // Tokyo
    City([-4634, 2548, -3553], 15), // Sydney
];

/// Where a node is, and how it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Kilometres from the middle of the Earth.
    place_km: [i16; 3],
    /// The delay of the access one way, in tens of microseconds.
    access_10us: u16,
    /// The loss of the access as a percentage of the mean.
    loss_percent: u16,
    nat: Nat,
}

impl Site {
    /// Draws a site by the shares above.
    pub fn random(rng: &mut Rng) -> Self {
        let weights: u64 = CITIES.iter().map(|city| city.1).sum();
        let middle = &CITIES[choose(rng.below(weights), CITIES.iter().map(|city| city.1))].0;
        let place_km = middle.map(|km| km + rng.below(2 * CITY_KM) as i16 - CITY_KM as i16);
        let (_, least, most, loss) =
            ACCESS[choose(rng.below(100), ACCESS.iter().map(|class| class.0))];
        // The square of an even draw: within a class, too, most are near the least.
        let (draw, span) = (rng.below(1000), u64::from(most - least));
        let access = u64::from(least) + span * draw * draw / 1_000_000;
        let nat = choose(rng.below(100), Nat::SHARES.iter().map(|share| share.1));
        Self {
            place_km,
            access_10us: (access / 10) as u16,
            loss_percent: loss as u16,
            nat: Nat::SHARES[nat].0,
        }
    }

    /// Returns how the node's NAT maps.
    pub const fn nat(&self) -> Nat {
        self.nat
    }

    /// Returns what a node there measures of itself: only without a NAT strangers reach it,
    /// and it sends as fast as its access lets it. `draw` tells nodes of like access apart.
    pub fn measure(&self, draw: u64) -> Measure {
        // Octets per second at least, by the loss of the access; up to eight times as many.
        let least = match self.loss_percent {
            ..=30 => 12_500_000,
            31..=80 => 1_250_000,
            81..=220 => 250_000,
            221.. => 60_000,
        };
        Measure {
            reachable: Some(!self.nat.is_closed()),
            stay_s: 0,
            send_bytes_per_second: least << (draw % 4),
            checks_per_second: 2_000 << (draw / 4 % 4),
            on_battery: false,
        }
    }

    fn access(&self) -> Duration {
        Duration::from_micros(u64::from(self.access_10us) * 10)
    }
}

/// Returns in which of successive stretches `at` lies.
fn choose(at: u64, lengths: impl Iterator<Item = u64>) -> usize {
    let mut end = 0;
    lengths
        .take_while(|length| {
            end += length;
            end <= at
        })
        .count()
}

/// Returns how long a signal takes from place to place.
fn crossing(a: [i16; 3], b: [i16; 3]) -> Duration {
    let squares = (0..3).map(|i| (i64::from(a[i]) - i64::from(b[i])).pow(2) as u64);
    let chord_m = (squares.sum::<u64>() * 1_000_000).isqrt();
    // The great circle by the first terms of the arcsine's series; a fifth too short
    // between antipodes, exact within a hundredth up to 10,000 km.
    let t = chord_m / DIAMETER_KM;
    let t2 = t * t / 1000;
    let arc_m = chord_m + chord_m * (t2 / 6 + t2 * t2 * 3 / 40_000) / 1000;
    Duration::from_micros(arc_m / KM_PER_MS)
}

/// What the way between two nodes is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The delay of a packet one way, without jitter.
    pub one_way: Duration,
    /// What opening a session takes before the first message.
    pub set_up: Duration,
    /// How many packets of a million are lost.
    pub loss_per_million: u32,
}

/// The synthetic Internet.
#[derive(Clone, Debug)]
pub struct Internet {
    model: Model,
    /// Decides which pairs are broken, and where relays are.
    salt: u64,
}

impl Internet {
    /// Makes an Internet; `salt` tells it from others of the same model.
    pub fn new(model: Model, salt: u64) -> Self {
        Self { model, salt }
    }

    /// Returns what carries the messages.
    pub const fn transport(&self) -> Transport {
        self.model.transport
    }

    /// Returns the way between two nodes with their numbers, the same in both directions;
    /// none when the pair is broken.
    pub fn path(&self, from: (u32, &Site), to: (u32, &Site)) -> Option<Path> {
        if self.is_broken(from.0, to.0) {
            return None;
        }
        if let Some(one_way) = self.model.delay {
            return Some(Path {
                one_way,
                set_up: one_way * 2,
                loss_per_million: self.model.loss_per_million,
            });
        }
        let (a, b) = (from.1, to.1);
        let accesses = a.access() + b.access();
        let direct = a.nat.punches(b.nat);
        let one_way = if direct {
            accesses + crossing(a.place_km, b.place_km)
        } else {
            accesses + RELAY_ACCESS + detour(a, b, mix(self.hash(from.0, to.0)))
        };
        // The handshake takes one round trip before the first message (QUIC). A hole is
        // punched through whoever introduces the two, at the same distance: one more.
        let punched = direct && a.nat.is_closed() && b.nat.is_closed();
        let percent = u64::from(a.loss_percent + b.loss_percent) / 2;
        let loss = u64::from(self.model.loss_per_million) * percent / 100;
        Some(Path {
            one_way,
            set_up: one_way * if punched { 4 } else { 2 },
            loss_per_million: loss.min(500_000) as u32,
        })
    }

    /// Tells whether two nodes can never reach each other; each reaches itself.
    pub fn is_broken(&self, a: u32, b: u32) -> bool {
        a != b && self.hash(a, b) % 1_000_000 < u64::from(self.model.broken_per_million)
    }

    /// Returns a number that belongs to a pair.
    fn hash(&self, a: u32, b: u32) -> u64 {
        mix(self.salt ^ (u64::from(a.min(b)) << 32 | u64::from(a.max(b))))
    }

    /// Draws what one packet is late beyond its path's delay.
    pub fn jitter(&self, rng: &mut Rng, path: &Path) -> Duration {
        let usual = rng.duration_below(path.one_way / 10);
        if self.model.delay.is_some() {
            return usual;
        }
        match rng.below(1000) {
            0 => usual + rng.duration_below(Duration::from_millis(800)),
            1..=20 => usual + rng.duration_below(Duration::from_millis(60)),
            _ => usual,
        }
    }

    /// Returns the median round trip of random pairs, sampled from the model: the measure
    /// for times of lookups. It is the same for all worlds of one model.
    pub fn median_round_trip(&self) -> Duration {
        const PAIRS: u32 = 20_000;
        let mut rng = Rng::from_seed([77; 32]);
        let mut times: Vec<Duration> = (0..PAIRS)
            .filter_map(|pair| {
                let (a, b) = (Site::random(&mut rng), Site::random(&mut rng));
                let path = self.path((2 * pair, &a), (2 * pair + 1, &b))?;
                let there = path.one_way + self.jitter(&mut rng, &path);
                Some(there + path.one_way + self.jitter(&mut rng, &path))
            })
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Returns the way over the better one of two relays that are somewhere.
fn detour(a: &Site, b: &Site, hash: u64) -> Duration {
    let weights: u64 = CITIES.iter().map(|city| city.1).sum();
    let over = |draw: u64| {
        let city = &CITIES[choose(draw % weights, CITIES.iter().map(|city| city.1))].0;
        crossing(a.place_km, *city) + crossing(*city, b.place_km)
    };
    over(hash >> 32).min(over(hash & 0xffff_ffff))
}

/// Spreads the bits of a number (the finaliser of SplitMix64).
const fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(count: usize) -> Vec<Site> {
        let mut rng = Rng::from_seed([1; 32]);
        (0..count).map(|_| Site::random(&mut rng)).collect()
    }

    fn internet(broken_per_million: u32) -> Internet {
        let model = Model {
            broken_per_million,
            ..Model::default()
        };
        Internet::new(model, 5)
    }

    #[test]
    fn known_distances_take_known_times() {
        let [new_york, .., sydney] = &CITIES;
        let london = &CITIES[11];
        // 5,570 km and 16,990 km.
        let near = crossing(new_york.0, london.0).as_micros();
        let far = crossing(london.0, sydney.0).as_micros();
        assert!((37_500..39_000).contains(&near), "{near}");
        assert!((104_000..118_000).contains(&far), "{far}");
    }

    #[test]
    fn the_median_round_trip_is_that_of_the_literature() {
        let median = internet(0).median_round_trip().as_millis();
        assert!((140..=165).contains(&median), "{median}");
    }

    #[test]
    fn the_shares_of_nats_and_punched_pairs_are_as_told() {
        let sites = sites(3000);
        let open = sites.iter().filter(|site| site.nat == Nat::Open).count();
        assert!((670..830).contains(&open), "{open}");
        let (mut punched, mut pairs) = (0, 0);
        for pair in sites.chunks_exact(2) {
            if pair.iter().all(|site| site.nat.is_closed()) {
                pairs += 1;
                punched += usize::from(pair[0].nat.punches(pair[1].nat));
            }
        }
        assert!((60..70).contains(&(punched * 100 / pairs)));
    }

    #[test]
    fn broken_pairs_are_as_many_as_asked_and_broken_both_ways() {
        let (sites, internet) = (sites(200), internet(50_000));
        let mut broken = 0;
        for a in 0..200_u32 {
            for b in 0..a {
                let ends = ((a, &sites[a as usize]), (b, &sites[b as usize]));
                let path = internet.path(ends.0, ends.1);
                assert_eq!(path, internet.path(ends.1, ends.0));
                broken += u32::from(path.is_none());
            }
        }
        assert!((850..1150).contains(&broken), "{broken} of 19,900");
    }

    #[test]
    fn triangles_mostly_hold() {
        let (sites, internet) = (sites(3000), internet(0));
        let way = |a: usize, b: usize| {
            let ends = ((a as u32, &sites[a]), (b as u32, &sites[b]));
            internet
                .path(ends.0, ends.1)
                .map_or(Duration::ZERO, |path| path.one_way)
        };
        let holds = |i: &usize| way(*i, i + 2) <= way(*i, i + 1) + way(i + 1, i + 2);
        let count = (0..2998).filter(holds).count();
        assert!(count > 2700, "{count} of 2,998");
    }
}
