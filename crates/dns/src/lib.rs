//! The names of channels: `host.channel.enishi` and back, as a DNS server answers them,
//! without any socket.
//!
//! The DNS (RFC 1034, RFC 1035) is a tree of names with records. A *zone* is a part of the
//! tree for which a server speaks with authority: it alone can say that a name is not there.
//! Every node speaks for the channels that it is a member of, and for nothing else:
//!
//! ```text
//!   enishi.                                      no records; other channels are not there
//!     office.enishi.                             SOA, NS; services of all hosts
//!       aki.office.enishi.                       A, AAAA; services of this host
//!       NODE-ID.office.enishi.                   A, AAAA: the name that nobody else can take
//!       _ssh._tcp.office.enishi.                 SRV and PTR, one for each host (RFC 2782, 6763)
//!   77.10.in-addr.arpa., 0.0.0.0.….d.f.ip6.arpa. PTR: whose address is it
//! ```
//!
//! | part | does |
//! |---|---|
//! | [`mod@label`] | makes a DNS label of whatever a host calls itself |
//! | [`zone`] | the names and records of some channels |
//! | [`reverse`] | under which names addresses are looked up |
//! | [`mod@answer`] | what is answered to the octets of a query, and to whom |

pub mod answer;
pub mod label;
pub mod reverse;
pub mod zone;

pub use answer::{Asker, Policy, Reply, Transport, answer};
pub use zone::{Channel, HostName, Member, Protocol, Service, Zone};

/// The domain of all channels.
pub const DOMAIN: &str = "enishi";

/// How long an answer may be kept, in seconds: members come and go.
pub const TTL_S: u32 = 10;
