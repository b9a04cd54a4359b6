//! Every sentence that a person reads, in one place for each language.
//!
//! A sentence is a variant of [`Message`], a heading one of [`Label`]; each language
//! is one file with a function for either. Their `match` has no wildcard, so a
//! sentence that a language lacks does not compile. Help texts, and the failures
//! that the daemon words, are English.

mod en;
mod gateway;
mod ja;

use std::env;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use enishi_api::{Check, PortMapping, TurnUsed, Verdict};

pub(crate) use gateway::Gateway;

/// The languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    /// English
    #[default]
    En,
    /// 日本語
    Ja,
}

/// What is told in a sentence or a few.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    NoDaemon {
        data: &'a Path,
    },
    DaemonForbidden {
        data: &'a Path,
    },
    SocketPathUnfit {
        data: &'a Path,
        error: &'a io::Error,
    },
    DaemonBroke {
        error: &'a str,
    },
    DaemonSilent,
    DaemonStuck,
    AnswerStrange,
    PasswordUnreadable {
        name: &'a str,
        error: &'a io::Error,
    },
    PasswordUnfit {
        name: &'a str,
        max: usize,
    },
    InputUnreadable {
        error: &'a io::Error,
    },
    ValueTooLong {
        max: usize,
    },
    TicketEmpty,
    Waiting,
    Stopped,
    ChannelReady {
        name: &'a str,
        address: Option<Ipv4Addr>,
        interface: Option<&'a str>,
    },
    ChannelLeft {
        name: &'a str,
    },
    FounderLeaves {
        name: &'a str,
    },
    NoChannels,
    NoRoutes,
    NoOffers,
    Counted {
        received: u32,
        members: u32,
    },
    /// Whether programs that choose no device look for others in a channel.
    Discovery {
        name: &'a str,
        on: bool,
    },
    ForwardAdded {
        id: u32,
        way: &'a str,
    },
    ForwardRemoved {
        id: u32,
    },
    NoForwards,
    /// Nobody names a proxy.
    NoProxies,
    /// Who names a proxy on this desktop.
    ProxyFound {
        by: &'a str,
    },
    ProxyNotFound,
    ProxyInputUnfit,
    /// Which proxy a URL takes, and why.
    ProxyAnswer {
        url: &'a str,
        routes: &'a str,
        source: Option<&'a str>,
        bypass: Option<&'a str>,
        pac: Option<&'a str>,
    },
    CompanySigned {
        signature: &'a str,
        key: &'a str,
    },
    NoWireGuardClients,
    UseWireGuard {
        channel: &'a str,
        client: &'a str,
    },
    /// Where a TURN user and its password are of use.
    UseTurn {
        port: u16,
        realm: &'a str,
    },
    TurnIsOff,
    /// How a server of somebody else is.
    TurnUsed {
        server: &'a TurnUsed,
    },
    /// That it does not relay, and what to do.
    TurnKeptTrying {
        server: &'a TurnUsed,
    },
    NoPeers,
    UseOverlayTicket {
        ticket: &'a str,
    },
    UseChannelTicket {
        ticket: &'a str,
    },
    UseGovernedTicket {
        name: &'a str,
        ticket: &'a str,
        uses: Option<u8>,
        /// The beginning of the name by which it is revoked.
        revoke: &'a str,
    },
    InvitationNotStored,
    NoInvitations {
        name: &'a str,
    },
    InvitationRevoked,
    ChannelFounded {
        name: &'a str,
    },
    MemberRemoved {
        name: &'a str,
        member: &'a str,
        /// The invitation by which it came, when it lets others in.
        invitation: Option<&'a str>,
    },
    MemberStands {
        member: &'a str,
        role: Option<&'a str>,
        admin: bool,
    },
    NoRules,
    RulesBind,
    ChannelTitle {
        name: &'a str,
    },
    ChannelSummary {
        known: u32,
        online: u32,
    },
    /// So many members are not drawn.
    MembersOmitted {
        count: usize,
    },
    Charter {
        version: u64,
        epoch: u64,
    },
    UseClosedTicket {
        ticket: &'a str,
        uses: Option<u8>,
        revoke: Option<&'a str>,
    },
    OverlayCreated {
        name: &'a str,
        key: Option<&'a str>,
    },
    OverlayJoined {
        name: &'a str,
    },
    OverlayLeft {
        name: &'a str,
    },
    OverlayRevoked,
    Membership {
        refusal: Option<&'a str>,
        days: Option<u64>,
        is_authority: bool,
    },
    Stored {
        replicas: u32,
        seq: u64,
    },
    Removed,
    Pong {
        sequence: u32,
        rtt_ms: f64,
        path: &'a str,
    },
    Lost {
        sequence: u32,
    },
    PingSummary {
        node: &'a str,
        sent: u32,
        received: u32,
    },
    RoundTrips {
        min: f64,
        avg: f64,
        mdev: f64,
        p99: f64,
        max: f64,
    },
    Remote {
        version: &'a str,
        load_per_mille: u16,
    },
    RemoteDeclines,
    TraceAnswered {
        node: &'a str,
        answered: u32,
        probes: u32,
    },
    TraceIncomplete,
    TraceMissed,
    Holders {
        with: usize,
        asked: usize,
    },
    HeldValue {
        seq: u64,
        age_s: u32,
    },
    /// What several paths agree on, of a key or of a node.
    Verdict {
        verdict: Verdict,
        is_key: bool,
    },
    /// What to do when it is not confirmed.
    VerdictAdvice {
        verdict: Verdict,
        is_key: bool,
    },
    /// What to do when nodes sit strangely near to it.
    CrowdedAdvice {
        is_key: bool,
    },
    /// How many of how many paths agree, or that there was nobody to ask for the way.
    Paths {
        all_known: bool,
        agreeing: u32,
        paths: u32,
    },
    /// How many nodes show a record.
    Shown {
        seq: u64,
        holders: u32,
    },
    Examining,
    Examined {
        ok: u32,
        warnings: u32,
        problems: u32,
    },
    MapTitle {
        node: &'a str,
    },
    MapSummary {
        known: usize,
        estimate: u64,
    },
    /// Both the drawing and the object were wanted on standard output.
    MapTwice,
    MapWritten {
        file: &'a str,
    },
    SimCost {
        events_per_second: f64,
        memory_bytes_per_node: Option<u64>,
    },
    Times {
        elapsed: &'a str,
        left: &'a str,
    },
    FileUnwritable {
        file: &'a str,
        error: &'a io::Error,
    },
    StreamWaiting {
        service: &'a str,
    },
    /// With what the system says of it, unless only its end is missing.
    StreamBroke {
        error: Option<&'a io::Error>,
    },
    /// Of gateways between closed overlays.
    Gateway(Gateway<'a>),
    Joined {
        size: u64,
        peers: u32,
    },
    NotJoined,
    /// How many clients are attached.
    Clients {
        count: u32,
    },
    /// How much of others' packets passed, and between how many pairs it does now.
    Relays {
        octets: String,
        pairs: u32,
    },
    /// How many forwards there are, and how many connections they carry.
    ForwardsOpen {
        count: usize,
        open: u32,
    },
}

/// A heading of a table or the name of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label {
    Node,
    Version,
    Uptime,
    Overlay,
    Class,
    Addresses,
    Outside,
    Records,
    Name,
    Names,
    Proxies,
    TakesProxy,
    Source,
    Says,
    Configuration,
    Company,
    Desktop,
    Environment,
    Discovery,
    Forwards,
    Exit,
    Routes,
    WireGuard,
    TurnServer,
    Realm,
    Users,
    User,
    Allocations,
    ToPeers,
    ToClients,
    Peers,
    Carried,
    Relays,
    Refused,
    RefusedDetail,
    Dropped,
    Channel,
    Network,
    Address,
    Address6,
    Interface,
    Service,
    Port,
    OfferedBy,
    Texts,
    UsedBy,
    NobodyOffers,
    RulesBar,
    ThisNode,
    Client,
    Endpoint,
    Handshake,
    AddressLost,
    Members,
    Online,
    Host,
    Standing,
    Founder,
    Administrator,
    Member,
    Charter,
    Rules,
    Rule,
    From,
    To,
    Ports,
    Everything,
    Invitation,
    Uses,
    Any,
    Ends,
    CameBy,
    InSession,
    NotInTouch,
    Role,
    Path,
    RoundTrip,
    Sent,
    Received,
    Check,
    Time,
    Result,
    Id,
    Authority,
    Membership,
    Admitted,
    TurnedAway,
    Revoked,
    Hop,
    State,
    Mean,
    Loss,
    Load,
    ToNext,
    Reported,
    GaveBack,
    Declined,
    Forwarding,
    Open,
    Works,
    Lost,
    InCharge,
    InChargeDeclined,
    Direct,
    Relayed,
    Unconnected,
    Itself,
    Unknown,
    Holder,
    Held,
    Key,
    PathsAgreeing,
    NodesAsked,
    Record,
    Owner,
    Density,
    Unusual,
    AsElsewhere,
    Nearest,
    /// Nothing, in the lines that go on with the one above.
    Blank,
    Removed,
    Nothing,
    Silent,
    Ok,
    Warning,
    Problem,
    Position,
    Near,
    Long,
    Known,
    Found,
    Consent,
    Gateway,
    OtherOverlay,
    LetOut,
    LetIn,
    Limits,
    Document,
    Takes,
    Gives,
    Everybody,
    Counts,
}

impl Language {
    /// The language that the environment asks for; English when it asks for none that
    /// there is.
    pub(crate) fn of_environment() -> Self {
        let value = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let name = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(value);
        Self::of_locale(name.as_deref().unwrap_or_default())
    }

    fn of_locale(name: &str) -> Self {
        let language = name.split(['_', '.', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("ja") {
            Self::Ja
        } else {
            Self::En
        }
    }

    /// Words a message.
    pub(crate) fn text(self, message: &Message<'_>) -> String {
        match self {
            Self::En => en::text(message),
            Self::Ja => ja::text(message),
        }
    }

    /// Words what a check of the node found.
    pub(crate) fn diagnosis(self, check: &Check) -> Diagnosis {
        match self {
            Self::En => en::doctor::diagnosis(check),
            Self::Ja => ja::doctor::diagnosis(check),
        }
    }

    /// Words whether the daemon is there; `problem` says why not.
    pub(crate) fn daemon_diagnosis(self, problem: Option<&str>) -> Diagnosis {
        match self {
            Self::En => en::doctor::daemon(problem),
            Self::Ja => ja::doctor::daemon(problem),
        }
    }

    /// Words a heading.
    pub(crate) fn label(self, label: Label) -> &'static str {
        match self {
            Self::En => en::label(label),
            Self::Ja => ja::label(label),
        }
    }
}

/// What a check of the node found, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    /// What was checked, in a word or two.
    pub(crate) title: &'static str,
    /// What was found.
    pub(crate) detail: String,
    /// What to do about it; none when nothing is to be done.
    pub(crate) advice: Option<String>,
}

/// The share of what was sent and not received, in per cent.
pub(crate) fn loss(sent: u32, received: u32) -> String {
    let lost = sent.saturating_sub(received);
    let share = f64::from(lost) * 100.0 / f64::from(sent.max(1));
    format!("{share:.0} %")
}

/// Thousandths in per cent.
pub(crate) fn percent(per_mille: u16) -> String {
    format!("{:.1} %", f64::from(per_mille) / 10.0)
}

/// A number of octets with the unit that fits.
pub(crate) fn octets(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// The protocols by which a router maps ports.
pub(crate) fn protocols(router: PortMapping) -> String {
    let spoken = [
        (router.upnp, "UPnP"),
        (router.nat_pmp, "NAT-PMP"),
        (router.pcp, "PCP"),
    ];
    let spoken = spoken.into_iter().filter(|(speaks, _)| *speaks);
    spoken.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// A virtual address, or a dash while there is none.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    mod network;

    use super::*;

    #[test]
    fn the_locale_names_the_language() {
        for (name, language) in [
            ("ja_JP.UTF-8", Language::Ja),
            ("ja", Language::Ja),
            ("ja.UTF-8", Language::Ja),
            ("jam_JM", Language::En),
            ("en_GB.UTF-8", Language::En),
            ("C", Language::En),
            ("", Language::En),
            ("de_DE", Language::En),
        ] {
            assert_eq!(Language::of_locale(name), language, "{name}");
        }
    }

    #[test]
    fn a_missing_daemon_is_told_with_the_remedy_in_each_language() {
        for language in [Language::En, Language::Ja] {
            let text = language.text(&Message::NoDaemon {
                data: Path::new("/d"),
            });
            assert!(text.contains("enishi up --data /d"), "{text}");
        }
    }
}
