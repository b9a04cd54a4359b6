//! The names and records of some channels, made anew whenever they have changed.
//!
//! Names are kept in the canonical order of RFC 4034, section 6.1, in which all names below
//! another follow it directly: so one look tells a name that has nothing itself, but names
//! below it, from one that is not there (RFC 8020).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enishi_overlay::NodeId;
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};

use crate::{DOMAIN, TTL_S, label, reverse};

/// The most records of one name: more would not fit a message, and help nobody.
pub const RECORDS_PER_NAME_MAX: usize = 256;

/// The most services of one host; further ones are left out.
pub const SERVICES_MAX: usize = 64;

/// The longest name of a service, in octets (RFC 6335, section 5.1).
const SERVICE_BYTES_MAX: usize = 15;

/// The longest text of a TXT record, in octets (RFC 1035, section 3.3).
const TEXT_BYTES_MAX: usize = 255;

/// How long a secondary server, of which there is none, would wait, in seconds.
const SECONDARY_S: i32 = 3_600;

/// A channel that this node is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What the node calls it; members of a channel ask by this number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its IPv4 network and prefix length.
    pub network: (Ipv4Addr, u8),
    /// Its IPv6 network and prefix length, a multiple of 4.
    pub network6: (Ipv6Addr, u8),
    /// This node.
    pub me: NodeId,
    /// The members, in any order.
    pub members: Vec<Member>,
    /// The addresses of those who take part by way of this node: they may ask as members do,
    /// and have no names.
    pub guests: Vec<IpAddr>,
}

/// A member of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// What its host calls itself.
    pub host: String,
    /// Its addresses in the channel.
    pub addresses: Vec<IpAddr>,
    /// What it offers; of more than [`SERVICES_MAX`] the first count.
    pub services: Vec<Service>,
}

/// What a host offers to the members of a channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The service's name (RFC 6335, section 5.1), without the underscore: `ssh`. Others
    /// have no records.
    pub name: String,
    /// By which protocol.
    pub protocol: Protocol,
    /// At which port.
    pub port: u16,
    /// What else there is to know, for its TXT record; what is longer than 255 octets is left
    /// out.
    pub texts: Vec<String>,
}

/// A transport protocol, as names of services have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, and all others (RFC 6763, section 7).
    Udp,
}

/// A host and its name, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The whole name, without a dot at its end: `aki.office.enishi`.
    pub name: String,
    /// The node.
    pub node: NodeId,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The names and records of some channels.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    origins: BTreeMap<LowerName, Origin>,
    records: BTreeMap<LowerName, Vec<RData>>,
    channels: BTreeMap<u32, Names>,
}

/// Where the authority begins.
#[derive(Clone, Debug)]
struct Origin {
    /// Which channel; none for the domain of all channels.
    channel: Option<u32>,
    soa: Record,
}

/// How a channel and its hosts are called.
#[derive(Clone, Debug)]
struct Names {
    origin: String,
    hosts: Vec<HostName>,
    guests: Vec<IpAddr>,
    /// The domains for which a resolver has to ask here, with the dot at their ends.
    domains: Vec<String>,
}

/// What there is under a name.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The channel of the zone; none for the domain of all channels.
    pub channel: Option<u32>,
    /// The record that says who speaks for the zone, for answers that say no.
    pub soa: &'a Record,
    /// All records of the name; none when there is no such name.
    pub records: Option<&'a [RData]>,
}

impl Zone {
    /// Makes the names of the channels; `serial` grows from one zone to the next (RFC 1982).
    pub fn new(serial: u32, channels: &[Channel]) -> Self {
        let mut zone = Self::default();
        zone.begin(&format!("{DOMAIN}."), "localhost.", None, serial);
        let names: Vec<String> = channels
            .iter()
            .map(|c| c.name.to_ascii_lowercase())
            .collect();
        for (channel, name) in channels.iter().zip(label::distinct(&names)) {
            zone.add(channel, format!("{name}.{DOMAIN}."), serial);
        }
        zone
    }

    /// Returns what there is under a name; none when it is in none of the zones.
    pub fn find(&self, name: &LowerName) -> Option<Found<'_>> {
        let origin = self.origin_of(name)?;
        let records = self.records.get(name).map(Vec::as_slice).or_else(|| {
            let (below, _) = self.records.range(name..).next()?;
            name.zone_of(below).then_some(&[][..])
        });
        Some(Found {
            channel: origin.channel,
            soa: &origin.soa,
            records,
        })
    }

    /// Returns the hosts of a channel by name, in the order of their nodes' ids.
    pub fn hosts(&self, channel: u32) -> &[HostName] {
        self.channels
            .get(&channel)
            .map_or(&[], |names| &names.hosts)
    }

    /// Returns the domains for which a resolver has to ask here to know a channel's names and
    /// addresses, each with the dot at its end.
    pub fn domains(&self, channel: u32) -> &[String] {
        self.channels
            .get(&channel)
            .map_or(&[], |names| &names.domains)
    }

    /// Tells whether who has an address may ask about a channel: a member, or a guest of this
    /// node.
    pub fn serves(&self, channel: u32, address: IpAddr) -> bool {
        let names = self.channels.get(&channel);
        let is_guest = names.is_some_and(|names| names.guests.contains(&address));
        is_guest || self.has_member(channel, address)
    }

    fn has_member(&self, channel: u32, address: IpAddr) -> bool {
        let found = fqdn(&reverse::name(address)).and_then(|name| {
            let found = self.find(&LowerName::from(name))?;
            (found.channel == Some(channel)).then_some(found)
        });
        found.is_some_and(|found| found.of_type(RecordType::PTR).next().is_some())
    }

    /// Returns the domain of a channel, with the dot at its end.
    pub fn origin(&self, channel: u32) -> Option<&str> {
        self.channels
            .get(&channel)
            .map(|names| names.origin.as_str())
    }

    fn origin_of(&self, name: &LowerName) -> Option<&Origin> {
        let mut name = name.clone();
        loop {
            match self.origins.get(&name) {
                Some(origin) => return Some(origin),
                None if name.is_root() => return None,
                None => name = name.base_name(),
            }
        }
    }

    fn add(&mut self, channel: &Channel, origin: String, serial: u32) {
        let mut members: Vec<&Member> = channel.members.iter().collect();
        members.sort_by_key(|member| member.node);
        let labels: Vec<String> = members.iter().map(|m| label::label(&m.host)).collect();
        let labels = label::distinct(&labels);
        let me = members.iter().position(|member| member.node == channel.me);
        let primary = me.map_or("localhost.".to_owned(), |me| {
            format!("{}.{origin}", labels[me])
        });
        let (network, network6) = (channel.network, channel.network6);
        let mut domains = vec![origin.clone()];
        domains.extend(reverse::domains(network.0.into(), network.1));
        domains.extend(reverse::domains(network6.0.into(), network6.1));
        for domain in &domains {
            self.begin(domain, &primary, Some(channel.number), serial);
        }
        let mut hosts = Vec::with_capacity(members.len());
        for (member, label) in members.into_iter().zip(labels) {
            self.add_member(member, &label, &origin);
            hosts.push(HostName {
                name: format!("{label}.{}", origin.trim_end_matches('.')),
                node: member.node,
                addresses: member.addresses.clone(),
            });
        }
        let names = Names {
            origin,
            hosts,
            guests: channel.guests.clone(),
            domains,
        };
        self.channels.insert(channel.number, names);
    }

    fn add_member(&mut self, member: &Member, label: &str, origin: &str) {
        let host = format!("{label}.{origin}");
        for address in &member.addresses {
            let data = match *address {
                IpAddr::V4(four) => RData::A(A(four)),
                IpAddr::V6(six) => RData::AAAA(AAAA(six)),
            };
            self.put(&format!("{}.{origin}", member.node), data.clone());
            self.put(&host, data);
            self.put_name(&reverse::name(*address), &host, |name| {
                RData::PTR(PTR(name))
            });
        }
        let services = member.services.iter().filter(|service| service.is_sound());
        for service in services.take(SERVICES_MAX) {
            self.add_service(service, label, origin);
        }
    }

    /// A service is found by host, by channel (RFC 2782), and by looking around (RFC 6763).
    fn add_service(&mut self, service: &Service, label: &str, origin: &str) {
        let pointer = |name| RData::PTR(PTR(name));
        let sort = format!("{}.{origin}", service.labels());
        let of_host = format!("{}.{label}.{origin}", service.labels());
        let instance = format!("{label}.{sort}");
        for name in [&sort, &of_host, &instance] {
            let port = service.port;
            let target = format!("{label}.{origin}");
            self.put_name(name, &target, |target| {
                RData::SRV(SRV::new(0, 0, port, target))
            });
        }
        self.put(&instance, RData::TXT(TXT::new(service.texts())));
        self.put_name(&sort, &instance, pointer);
        self.put_name(&format!("_services._dns-sd._udp.{origin}"), &sort, pointer);
        for browse in ["b", "lb"] {
            self.put_name(&format!("{browse}._dns-sd._udp.{origin}"), origin, pointer);
        }
    }

    fn begin(&mut self, origin: &str, primary: &str, channel: Option<u32>, serial: u32) {
        let (Some(name), Some(primary)) = (fqdn(origin), fqdn(primary)) else {
            return;
        };
        let nobody = fqdn("nobody.invalid.").unwrap_or_default();
        let minimum = TTL_S;
        let soa = SOA::new(
            primary.clone(),
            nobody,
            serial,
            SECONDARY_S,
            SECONDARY_S,
            SECONDARY_S,
            minimum,
        );
        let data = [RData::SOA(soa.clone()), RData::NS(NS(primary))];
        let soa = Record::from_rdata(name.clone(), TTL_S, RData::SOA(soa));
        let name = LowerName::from(name);
        self.records.entry(name.clone()).or_default().extend(data);
        self.origins.insert(name, Origin { channel, soa });
    }

    /// Puts a record whose data is a name.
    fn put_name(&mut self, owner: &str, name: &str, data: impl Fn(Name) -> RData) {
        if let Some(name) = fqdn(name) {
            self.put(owner, data(name));
        }
    }

    /// Puts a record, once; what is no domain name is left out.
    fn put(&mut self, owner: &str, data: RData) {
        let Some(owner) = fqdn(owner) else {
            return;
        };
        let records = self.records.entry(owner.into()).or_default();
        if records.len() < RECORDS_PER_NAME_MAX && !records.contains(&data) {
            records.push(data);
        }
    }
}

impl Found<'_> {
    /// Returns the records of one type.
    pub fn of_type(&self, kind: RecordType) -> impl Iterator<Item = &RData> {
        let records = self.records.unwrap_or_default().iter();
        records.filter(move |data| data.record_type() == kind)
    }
}

impl Service {
    fn labels(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "_tcp",
            Protocol::Udp => "_udp",
        };
        format!("_{}.{protocol}", self.name.to_ascii_lowercase())
    }

    /// What its TXT record says: one empty text where there is nothing to say (RFC 6763,
    /// section 6.1).
    fn texts(&self) -> Vec<String> {
        let fits = |text: &&String| (1..=TEXT_BYTES_MAX).contains(&text.len());
        let texts: Vec<String> = self.texts.iter().filter(fits).cloned().collect();
        match texts.is_empty() {
            true => vec![String::new()],
            false => texts,
        }
    }

    fn is_sound(&self) -> bool {
        let fits = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        (1..=SERVICE_BYTES_MAX).contains(&self.name.len()) && self.name.bytes().all(fits)
    }
}

/// Reads a whole domain name, which ends in a dot.
fn fqdn(name: &str) -> Option<Name> {
    Name::from_ascii(name).ok().filter(Name::is_fqdn)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn member(number: u8, host: &str) -> Member {
        Member {
            node: NodeId::from_bytes([number; 32]),
            host: host.to_owned(),
            addresses: vec![
                Ipv4Addr::new(10, 77, 0, number).into(),
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
            ],
            services: Vec::new(),
        }
    }

    pub(crate) fn channel(number: u32, name: &str, members: Vec<Member>) -> Channel {
        Channel {
            number,
            name: name.to_owned(),
            network: (Ipv4Addr::new(10, 77, 0, 0), 16),
            network6: (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64),
            me: NodeId::from_bytes([1; 32]),
            members,
            guests: Vec::new(),
        }
    }

    fn kinds(zone: &Zone, name: &str) -> Option<Vec<String>> {
        let found = zone.find(&fqdn(name).unwrap().into())?;
        let records = found.records?.iter();
        Some(
            records
                .map(|data| format!("{} {data}", data.record_type()))
                .collect(),
        )
    }

    #[test]
    fn members_have_names_that_do_not_depend_on_the_order_in_which_they_came() {
        let members = vec![member(3, "Aki"), member(1, "aki"), member(2, "北")];
        let turned: Vec<Member> = members.iter().cloned().rev().collect();
        let names = |members| {
            let zone = Zone::new(1, &[channel(0, "Office", members)]);
            let hosts = zone.hosts(0).iter();
            hosts.map(|host| host.name.clone()).collect::<Vec<_>>()
        };
        let expected = [
            "aki.office.enishi",
            "xn--djr.office.enishi",
            "aki-2.office.enishi",
        ];
        assert_eq!(names(members), expected);
        assert_eq!(names(turned), expected);
    }

    #[test]
    fn hosts_and_addresses_are_found_and_what_is_not_there_is_not() {
        let zone = Zone::new(
            7,
            &[channel(
                0,
                "office",
                vec![member(1, "aki"), member(2, "ume")],
            )],
        );
        let aki = ["A 10.77.0.1".to_owned(), "AAAA fd00::1".to_owned()];
        assert_eq!(kinds(&zone, "aki.office.enishi.").unwrap(), aki);
        let id = NodeId::from_bytes([1; 32]);
        assert_eq!(kinds(&zone, &format!("{id}.office.enishi.")).unwrap(), aki);
        let ptr = ["PTR ume.office.enishi."];
        assert_eq!(kinds(&zone, "2.0.77.10.in-addr.arpa.").unwrap(), ptr);
        let six = reverse::name("fd00::2".parse().unwrap());
        assert_eq!(kinds(&zone, &six).unwrap(), ptr);
        // There are names below, but there is nothing at it.
        assert_eq!(kinds(&zone, "0.77.10.in-addr.arpa."), Some(Vec::new()));
        let soa = kinds(&zone, "office.enishi.").unwrap();
        assert!(
            soa[0].starts_with("SOA aki.office.enishi. ") && soa[0].contains(" 7 "),
            "{soa:?}"
        );
        assert_eq!(soa[1], "NS aki.office.enishi.");
        for absent in ["x.office.enishi.", "other.enishi.", "9.77.10.in-addr.arpa."] {
            assert_eq!(kinds(&zone, absent), None, "{absent}");
            assert!(
                zone.find(&fqdn(absent).unwrap().into()).is_some(),
                "{absent}"
            );
        }
        for foreign in ["example.org.", "78.10.in-addr.arpa.", "."] {
            assert!(
                zone.find(&fqdn(foreign).unwrap().into()).is_none(),
                "{foreign}"
            );
        }
    }

    #[test]
    fn services_are_found_by_host_by_channel_and_by_looking_around() {
        let mut aki = member(1, "aki");
        let service = |name: &str| Service {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port: 22,
            texts: vec!["user=git".to_owned(), "x".repeat(256)],
        };
        aki.services = ["ssh", "", "a b", "much-too-long-a-name"]
            .map(service)
            .into();
        let zone = Zone::new(1, &[channel(0, "office", vec![aki])]);
        let srv = "SRV 0 0 22 aki.office.enishi.";
        assert_eq!(kinds(&zone, "_ssh._tcp.aki.office.enishi.").unwrap(), [srv]);
        let sort = kinds(&zone, "_ssh._tcp.office.enishi.").unwrap();
        assert_eq!(sort, [srv, "PTR aki._ssh._tcp.office.enishi."]);
        let instance = kinds(&zone, "aki._ssh._tcp.office.enishi.").unwrap();
        assert_eq!(instance[0], srv);
        assert_eq!(instance[1], "TXT user=git");
        let sorts = kinds(&zone, "_services._dns-sd._udp.office.enishi.").unwrap();
        assert_eq!(sorts, ["PTR _ssh._tcp.office.enishi."]);
        assert_eq!(kinds(&zone, "_tcp.office.enishi."), Some(Vec::new()));
        assert_eq!(kinds(&zone, "_._tcp.office.enishi."), None);
    }

    #[test]
    fn each_channel_has_its_zones() {
        let mut home = channel(1, "home", vec![member(9, "aki")]);
        home.network = (Ipv4Addr::new(10, 78, 0, 0), 15);
        home.network6.0 = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0);
        home.members[0].addresses = vec![Ipv4Addr::new(10, 79, 0, 9).into()];
        home.guests = vec![Ipv4Addr::new(10, 78, 0, 3).into()];
        let zone = Zone::new(1, &[channel(0, "office", vec![member(1, "aki")]), home]);
        let domains = ["home.enishi.", "78.10.in-addr.arpa.", "79.10.in-addr.arpa."];
        assert_eq!(&zone.domains(1)[..3], domains);
        let whose = |name: &str| zone.find(&fqdn(name).unwrap().into()).unwrap().channel;
        assert_eq!(whose("aki.office.enishi."), Some(0));
        assert_eq!(whose("9.0.79.10.in-addr.arpa."), Some(1));
        assert_eq!(whose("neither.enishi."), None);
        let serves = |channel, address: &str| zone.serves(channel, address.parse().unwrap());
        assert!(serves(0, "10.77.0.1") && serves(0, "fd00::1") && serves(1, "10.79.0.9"));
        assert!(!serves(1, "10.77.0.1") && !serves(0, "10.77.0.2"));
        assert!(serves(1, "10.78.0.3") && !serves(0, "10.78.0.3"), "a guest");
    }
}
