//! Nodes behind routers: what others see of them, and how they are reached. Without root these
//! tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

#[path = "../../stun/tests/shell/coturn.rs"]
mod coturn;
mod net;

use std::time::Duration;

use enishi_lab::wire::{Area, NatKind, Ports};
use enishi_lab::{Daemon, Host, Process, until};
use serde_json::Value;

use net::{A_WHILE, Net, status, wait};

/// Starts a node without devices.
fn start(net: &Net, host: &Host, ticket: Option<&str>) -> Daemon {
    let bootstrap = ticket.map(|ticket| ["--bootstrap", ticket]);
    let words = [
        &["--no-tun", "--no-dns"][..],
        bootstrap.as_ref().map_or(&[], |words| words),
    ];
    net.start(host, "", &words.concat())
}

/// Makes a channel and returns an invitation to it.
fn invitation(daemon: &Daemon) -> String {
    if status(daemon)["channels"]
        .as_array()
        .is_some_and(Vec::is_empty)
    {
        daemon.text(&["channel", "create", "lab"]).unwrap();
    }
    daemon
        .text(&["channel", "invite", "lab", "--uses", "any"])
        .unwrap()
}

/// Returns how a daemon reaches another one, by that one's status; `-` without a session.
fn way(from: &Daemon, to: &Value) -> String {
    net::way(from, to["node_id"].as_str().unwrap())
}

/// Which protocols a router speaks.
struct Spoken {
    upnp: &'static str,
    nat_pmp: &'static str,
    /// What its filter refuses besides.
    refused: &'static str,
    /// Which ports it maps.
    rule: &'static str,
}

const ALLOWED: &str = "allow 1024-65535 192.168.1.0/24 1024-65535";
const VERSION_0: &str = "udp dport 5351 @th,64,8 0 drop;";
const VERSION_2: &str = "udp dport 5351 @th,64,8 2 drop;";

/// Runs a real router's daemon for mapped ports on a host. The package is unpacked rather than
/// installed, as that would start it on this machine.
fn miniupnpd(net: &Net, router: &Host, spoken: &Spoken) -> Process {
    let packages = "miniupnpd-nftables";
    let download = format!("apt-get -q download {packages}");
    let unpack = format!(
        "cd {}; {download} || {{ apt-get -q update; {download}; }}; dpkg-deb -x {packages}_*.deb .",
        net.directory.path().display()
    );
    let mut download = enishi_lab::command("sh");
    download.args(["-ec", &unpack]);
    let unpacked = enishi_lab::run(download, 3 * A_WHILE).unwrap();
    assert!(unpacked.success(), "{}", unpacked.stderr);
    let refused = spoken.refused;
    let rules = format!(
        "table inet filter {{
           chain miniupnpd {{ }}
           chain forward {{ type filter hook forward priority 0; policy accept; jump miniupnpd;
             iifname eth0 ct state established,related accept; iifname eth0 drop; }}
           chain input {{ type filter hook input priority -1; policy accept; {refused} }}
           chain prerouting_miniupnpd {{ }}
           chain postrouting_miniupnpd {{ }}
           chain prerouting {{ type nat hook prerouting priority -100; jump prerouting_miniupnpd; }}
           chain postrouting {{ type nat hook postrouting priority 99; jump postrouting_miniupnpd; }}
         }}"
    );
    let done = router.run(&["nft", &rules], A_WHILE).unwrap();
    assert!(done.success(), "{}", done.stderr);
    let config = net.path("miniupnpd.conf");
    let text = format!(
        "ext_ifname=eth0\next_ip={}\nlistening_ip=lan0\nenable_natpmp={}\nenable_upnp={}\n\
         ipv6_disable=yes\nsecure_mode=yes\nupnp_table_name=filter\nupnp_nat_table_name=filter\n\
         min_lifetime=120\nmax_lifetime=86400\nsystem_uptime=no\n\
         uuid=00000000-0000-0000-0000-000000000001\n{}\ndeny 0-65535 0.0.0.0/0 0-65535\n",
        router.address(),
        spoken.nat_pmp,
        spoken.upnp,
        spoken.rule
    );
    std::fs::write(&config, text).unwrap();
    let mut command = router.command(net.path("usr/sbin/miniupnpd"));
    command.arg("-d").arg("-f").arg(&config);
    command.arg("-P").arg(net.path("miniupnpd.pid"));
    router.spawn(command, &net.path("miniupnpd.log")).unwrap()
}

/// A node behind such a router, and a stranger that has nothing but its invitation.
fn mapped_by(name: &str, protocol: &str, spoken: &Spoken) {
    let Some(mut net) = Net::open(name) else {
        return;
    };
    let router = net.world.public("router").unwrap();
    let inside = net.world.behind_kernel("inside", &router, "").unwrap();
    let outside = net.world.public("outside").unwrap();
    let _miniupnpd = miniupnpd(&net, &router, spoken);
    let node = start(&net, &inside, None);
    let told = wait(&node, "both ports are mapped", |status| {
        status["nat"]["mapped"].is_string() && status["nat"]["mapped_packets"].is_string()
    });
    let mapped = told["nat"]["mapped"].as_str().unwrap();
    assert!(
        mapped.starts_with(&format!("{}:", router.address())),
        "{told:#}"
    );
    let router_speaks = &told["nat"]["router"];
    for known in ["upnp", "nat_pmp", "pcp"] {
        assert_eq!(
            router_speaks[known],
            known == protocol,
            "{known}: {router_speaks}"
        );
    }
    let told = wait(&node, "the address is told", |status| {
        status["addresses"]
            .as_array()
            .unwrap()
            .contains(&status["nat"]["mapped"])
    });
    // A stranger comes to it.
    let stranger = start(&net, &outside, Some(&invitation(&node)));
    wait(&stranger, "the stranger joins", |status| {
        status["joined"] == true
    });
    let direct = format!("direct {mapped}");
    until(A_WHILE, "it came by the mapped address", || {
        Ok(way(&stranger, &told) == direct)
    })
    .unwrap_or_else(|error| panic!("{error}: {}", way(&stranger, &told)));
    // The stranger tells it so, and stands alone with it; the doctor knows of the router.
    let doctor = node.call(&["doctor"]).unwrap().stdout;
    assert!(
        doctor.contains(&format!("the router maps {mapped} to it")),
        "{doctor}"
    );
    // When the node goes, the router is told.
    drop(stranger);
    node.text(&["down"]).unwrap();
    let rules = || {
        router
            .run(&["nft", "list", "ruleset"], A_WHILE)
            .unwrap()
            .stdout
    };
    until(A_WHILE, "the ports are closed", || {
        Ok(!rules().contains("dnat"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", rules()));
}

#[test]
fn a_router_maps_ports_by_upnp() {
    mapped_by(
        "upnp",
        "upnp",
        &Spoken {
            upnp: "yes",
            nat_pmp: "no",
            refused: "",
            rule: ALLOWED,
        },
    );
}

#[test]
fn a_router_maps_ports_by_nat_pmp() {
    mapped_by(
        "natpmp",
        "nat_pmp",
        &Spoken {
            upnp: "no",
            nat_pmp: "yes",
            refused: VERSION_2,
            rule: ALLOWED,
        },
    );
}

#[test]
fn a_router_maps_ports_by_pcp() {
    mapped_by(
        "pcp",
        "pcp",
        &Spoken {
            upnp: "no",
            nat_pmp: "yes",
            refused: VERSION_0,
            rule: ALLOWED,
        },
    );
}

#[test]
fn nothing_is_claimed_of_a_router_that_refuses() {
    let Some(mut net) = Net::open("refuses") else {
        return;
    };
    let router = net.world.public("router").unwrap();
    let inside = net.world.behind_kernel("inside", &router, "").unwrap();
    let spoken = Spoken {
        upnp: "yes",
        nat_pmp: "yes",
        refused: "",
        rule: "",
    };
    let _miniupnpd = miniupnpd(&net, &router, &spoken);
    let node = start(&net, &inside, None);
    let told = wait(&node, "the router is asked", |status| {
        status["nat"]["router"]["upnp"] == true
    });
    assert_eq!(told["nat"]["mapped"], Value::Null);
    assert_eq!(told["nat"]["mapped_packets"], Value::Null);
    assert_eq!(told["addresses"].as_array().unwrap().len(), 1, "{told:#}");
    let doctor = node.call(&["doctor"]).unwrap().stdout;
    assert!(
        doctor.contains("the router refuses to map a port (UPnP"),
        "{doctor}"
    );
}

/// Says that it is a router, a thousand times to each question, and answers by HTTP without end, but
/// for its second description, which is right. Prints how much of an answer went out.
const HOSTILE: &str = r#"
import socket, threading
ME = "192.168.1.1"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
RIGHT = (b"<root><device><serviceList><service><serviceType>"
         b"urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><SCPDURL>/s</SCPDURL>"
         b"<controlURL>/c</controlURL></service></serviceList></device></root>")
described = 0
def serve(c):
    global described
    kind, sent = c.recv(8000).split(b" ")[0].decode(), 0
    described += kind == "GET"
    try:
        if kind == "GET" and described == 2:
            c.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(RIGHT) + RIGHT)
            return
        c.sendall(HEAD + b"\r\n<root>")
        while True:
            sent += c.send(b"<a>" * 20000)
    except OSError:
        print(kind, sent, flush=True)
    finally:
        c.close()
def http():
    l = socket.socket()
    l.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    l.bind((ME, 5000))
    l.listen(50)
    while True:
        threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
threading.Thread(target=http, daemon=True).start()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 1900))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
             socket.inet_aton("239.255.255.250") + socket.inet_aton(ME))
print("listens", flush=True)
while True:
    _, who = s.recvfrom(2000)
    for turn in range(1000):
        s.sendto(b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/%d\r\n\r\n" % turn, who)
"#;

/// An answer may have 256 KiB; the rest is what the systems of both ends hold.
const TAKEN_MAX: u64 = 1 << 20;

/// A daemon of the tests has about 60 MB.
const MEMORY_MAX_KB: u64 = 250_000;

#[test]
fn a_hostile_router_gets_little_of_a_node() {
    let Some(mut net) = Net::open("hostile") else {
        return;
    };
    enishi_lab::ensure_programs(&[("python3", "python3-minimal")]).unwrap();
    let router = net.world.public("router").unwrap();
    let inside = net.world.behind_kernel("inside", &router, "").unwrap();
    let mut command = router.command("python3");
    command.args(["-c", HOSTILE]);
    let log = net.path("hostile.log");
    let _hostile = router.spawn(command, &log).unwrap();
    let told = || std::fs::read_to_string(&log).unwrap();
    until(A_WHILE, "it listens", || Ok(told().contains("listens"))).unwrap();
    let mut node = start(&net, &inside, None);
    // One description, and the first question for each port.
    until(A_WHILE, "its answers are cut off", || {
        Ok(told().contains("GET") && told().matches("POST").count() >= 2)
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", told(), node.log()));
    for line in told().lines().filter(|line| *line != "listens") {
        let taken: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(taken < TAKEN_MAX, "{line}");
    }
    let seen = status(&node);
    assert_eq!(seen["nat"]["router"]["upnp"], true, "{seen:#}");
    assert_eq!(seen["nat"]["mapped"], Value::Null, "{seen:#}");
    let file = format!("/proc/{}/status", node.process().id());
    let system = std::fs::read_to_string(file).unwrap();
    let peak = system.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().split_whitespace().next().unwrap();
    assert!(peak.parse::<u64>().unwrap() < MEMORY_MAX_KB, "{peak}");
}

#[test]
fn nodes_behind_routers_learn_their_outer_address() {
    let Some(mut net) = Net::open("outer") else {
        return;
    };
    let helpers = ["p1", "p2", "p3"].map(|name| net.world.public(name).unwrap());
    let first = start(&net, &helpers[0], None);
    let ticket = invitation(&first);
    let others = [1, 2].map(|number| start(&net, &helpers[number], Some(&ticket)));
    let home = net.world.home(NatKind::port_restricted()).unwrap();
    let symmetric = net.world.home(NatKind::symmetric(Ports::Random)).unwrap();
    let [inside, strange] =
        [("in", home), ("sym", symmetric)].map(|(name, area)| net.world.host(name, area).unwrap());
    let [node, hidden] = [&inside, &strange].map(|host| start(&net, host, Some(&ticket)));
    let told = wait(&node, "others tell where they see it", |status| {
        status["nat"]["mapping"] == "endpoint-independent"
    });
    let observed = told["nat"]["observed"].as_array().unwrap();
    assert_eq!(observed.len(), 1, "{told:#}");
    assert!(
        told["addresses"].as_array().unwrap().contains(&observed[0]),
        "{told:#}"
    );
    let told = wait(&hidden, "others tell where they see it", |status| {
        status["nat"]["mapping"] == "random"
    });
    assert_eq!(told["nat"]["observed"], serde_json::json!([]), "{told:#}");
    for public in others.iter().chain([&first]) {
        wait(public, "a public node knows that it is one", |status| {
            status["nat"]["mapping"] == "none"
        });
    }
}

#[test]
fn nodes_behind_two_routers_reach_each_other_by_a_third() {
    let Some(mut net) = Net::open("third") else {
        return;
    };
    let public = net.world.public("p").unwrap();
    let helper = start(&net, &public, None);
    let ticket = invitation(&helper);
    let hosts = ["a", "b"].map(|name| {
        let home = net.world.home(NatKind::port_restricted()).unwrap();
        net.world.host(name, home).unwrap()
    });
    let [one, other] = hosts.map(|host| start(&net, &host, Some(&ticket)));
    for (from, to) in [(&one, &other), (&other, &one)] {
        let to = status(to);
        until(A_WHILE, "they have a session", || {
            Ok(way(from, &to).starts_with("direct 11.0."))
        })
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", way(from, &to), from.log()));
    }
}

/// Starts a node with a network device, which needs no more than a bootstrap ticket to join.
fn start_with_device(net: &Net, host: &Host, ticket: Option<&str>) -> Daemon {
    let mut words = vec!["--no-dns"];
    words.extend(
        ticket
            .map(|ticket| ["--bootstrap", ticket])
            .iter()
            .flatten(),
    );
    net.start(host, "", &words)
}

/// Returns how packets to the other member of a channel of two go; `-` while there is none.
fn packets_way(from: &Daemon) -> String {
    let told = from.json(&["channel", "show", "two"]).unwrap();
    let members = told["member_list"].as_array().into_iter().flatten();
    let mut paths = members.filter_map(|member| member["path"].as_str());
    let path = paths.find(|path| *path != "self").unwrap_or("-");
    path.to_owned()
}

/// Two nodes behind routers who are members of one channel, and others who help them and are of none.
struct Pair {
    homes: Vec<Area>,
    hosts: Vec<Host>,
    nodes: Vec<Daemon>,
    helpers: Vec<Daemon>,
    /// Of the second one in the channel.
    address: String,
}

impl Pair {
    /// Waits until packets of the two go straight.
    fn meet(net: &mut Net, kinds: [NatKind; 2]) -> Self {
        let helpers = ["p1", "p2", "p3"].map(|name| net.world.public(name).unwrap());
        let first = start(net, &helpers[0], None);
        let ticket = invitation(&first);
        let others = [1, 2].map(|number| start(net, &helpers[number], Some(&ticket)));
        let (mut homes, mut hosts) = (Vec::new(), Vec::new());
        for (name, kind) in ["a", "b"].into_iter().zip(kinds) {
            let home = net.world.home(kind).unwrap();
            homes.push(home);
            hosts.push(net.world.host(name, home).unwrap());
        }
        let nodes: Vec<Daemon> = hosts
            .iter()
            .map(|host| start_with_device(net, host, Some(&ticket)))
            .collect();
        let [one, other] = &nodes[..] else {
            unreachable!("there are two");
        };
        one.text(&["channel", "create", "two"]).unwrap();
        let invitation = one.text(&["channel", "invite", "two"]).unwrap();
        until(A_WHILE, "it joins the channel", || {
            Ok(other.call(&["channel", "join", &invitation])?.success())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", other.log()));
        let address = other.address().unwrap().to_string();
        let pair = Self {
            homes,
            hosts,
            nodes,
            helpers: [first].into_iter().chain(others).collect(),
            address,
        };
        pair.go_straight();
        pair
    }

    fn go_straight(&self) {
        until(A_WHILE, "packets go straight", || {
            let words = ["ping", "-q", "-c", "1", "-W", "1", &self.address];
            let answered = self.hosts[0].run(&words, A_WHILE)?.success();
            Ok(answered && packets_way(&self.nodes[0]).starts_with("direct 11."))
        })
        .unwrap_or_else(|error| {
            let logs: Vec<String> = self.nodes.iter().map(Daemon::log).collect();
            panic!(
                "{error}: {}\n{}",
                packets_way(&self.nodes[0]),
                logs.join("\n\n")
            )
        });
    }

    /// Pings from the first one to the second one, at so many milliseconds; returns what is said of it.
    fn ping(&self, count: u32, interval_ms: u32) -> String {
        let (count, interval) = (count.to_string(), f64::from(interval_ms) / 1000.0);
        let interval = interval.to_string();
        let words = [
            "ping",
            "-c",
            &count,
            "-i",
            &interval,
            "-W",
            "1",
            &self.address,
        ];
        self.hosts[0].run(&words, A_WHILE).unwrap().stdout
    }
}

/// Packets of two nodes behind routers of these kinds go straight, and so does their session, which
/// needs nobody else then.
fn packets_go_straight(name: &str, kinds: [NatKind; 2]) {
    let Some(mut net) = Net::open(name) else {
        return;
    };
    let mut pair = Pair::meet(&mut net, kinds);
    // A flow has its way for good.
    let pinged = pair.ping(20, 100);
    assert!(pinged.contains("20 received"), "{pinged}");
    let [one, other] = &pair.nodes[..] else {
        unreachable!("there are two");
    };
    assert!(packets_way(one).starts_with("direct 11."));
    let told = status(other);
    until(A_WHILE, "the session goes straight", || {
        Ok(way(one, &told).starts_with("direct"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", way(one, &told), one.log()));
    pair.helpers.clear();
    // Longer than a session lives by which nothing comes.
    let pinged = pair.ping(100, 200);
    assert!(pinged.contains("100 received"), "{pinged}");
    assert!(way(&pair.nodes[0], &told).starts_with("direct"));
}

#[test]
fn packets_go_straight_again_when_a_router_starts_anew_or_has_another_address() {
    let Some(mut net) = Net::open("anew") else {
        return;
    };
    let pair = Pair::meet(&mut net, [port_restricted(), port_restricted()]);
    for moves in [false, true] {
        let pinged = std::thread::scope(|scope| {
            let pinging = scope.spawn(|| pair.ping(100, 200));
            std::thread::sleep(Duration::from_secs(3));
            net.world.restart_router(pair.homes[0], moves).unwrap();
            pinging.join().unwrap()
        });
        // A path of the session by which nothing comes lives for longer.
        let answered = pinged.matches(" bytes from ").count();
        assert!(
            answered >= 70,
            "{answered} of 100 answered: {pinged}\n{}",
            pair.nodes[0].log()
        );
        pair.go_straight();
    }
}

/// Keeps one outer port for all, and lets nobody in who was not sent to.
fn port_restricted() -> NatKind {
    NatKind {
        ports: Ports::Random,
        ..NatKind::port_restricted()
    }
}

/// For how long some routers remember: less than the time after which a node uses a silent way before it has
/// measured that, and more than the shortest one after which it does.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(12);

#[test]
fn packets_go_straight_at_once_after_a_silence_longer_than_routers_remember() {
    let Some(mut net) = Net::open("silence") else {
        return;
    };
    let forgetful = NatKind {
        udp_lifetime: FORGOTTEN_AFTER,
        ..port_restricted()
    };
    let pair = Pair::meet(&mut net, [forgetful.clone(), forgetful]);
    let ways = || [0, 1].map(|node| packets_way(&pair.nodes[node]));
    let lifetimes = || [0, 1].map(|node| status(&pair.nodes[node])["nat"]["lifetime"].clone());
    // Before a node knows, a silent way is lost now and then.
    let known = until(A_WHILE, "both know when their routers forget", || {
        let pinged = pair.ping(2, 200);
        let mut told = lifetimes().into_iter();
        let is_known = told.all(|told| told["less_than_s"].is_u64());
        let is_straight = ways().iter().all(|way| way.starts_with("direct 11."));
        Ok(is_known && is_straight && pinged.contains("2 received"))
    });
    known.unwrap_or_else(|error| panic!("{error}: {:?}\n{:?}", lifetimes(), ways()));
    let before = ways();
    std::thread::sleep(FORGOTTEN_AFTER * 3 + Duration::from_secs(1));
    let pinged = pair.ping(5, 200);
    let answered = pinged.matches(" bytes from ").count();
    let log = pair.nodes[0].log();
    assert!(answered >= 4, "{answered} of 5 answered: {pinged}\n{log}");
    // A router that had forgotten would have drawn another port.
    assert_eq!(ways(), before, "{:?}\n{log}", lifetimes());
}

#[test]
fn packets_go_straight_by_outer_ports_that_only_strangers_see() {
    packets_go_straight("drawn", [port_restricted(), port_restricted()]);
}

#[test]
fn packets_go_straight_from_a_router_with_another_port_for_each() {
    let symmetric = NatKind::symmetric(Ports::Random);
    packets_go_straight("random", [symmetric, port_restricted()]);
}

#[test]
fn packets_go_straight_to_a_router_whose_ports_follow_each_other() {
    let symmetric = NatKind::symmetric(Ports::Sequential(2));
    packets_go_straight("steps", [port_restricted(), symmetric]);
}

#[test]
fn packets_go_straight_between_routers_whose_ports_follow_each_other() {
    // One counts on for all of the house, the other one from each inner port.
    let kinds = [Ports::Sequential(1), Ports::Preserving].map(NatKind::symmetric);
    packets_go_straight("meet", kinds);
}

#[test]
fn any_stun_client_is_answered_at_the_port_of_packets() {
    /// RFC 8489, section 5.
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let Some(mut net) = Net::open("stun") else {
        return;
    };
    let [server, client] = ["s", "c"].map(|name| net.world.public(name).unwrap());
    let node = start(&net, &server, None);
    let told = status(&node);
    let listens: std::net::SocketAddr = told["addresses"][0].as_str().unwrap().parse().unwrap();
    let packets = (server.address(), listens.port() + 1);
    let own = client.address();
    let program = coturn::Coturn::new().program("turnutils_stunclient");
    let (at, port) = (packets.0.to_string(), packets.1.to_string());
    let words = [program.as_str(), "-p", &port, &at];
    let output = client.run(&words, A_WHILE).unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(&format!("reflexive addr: {own}:")), "{said}");
    let answer = std::thread::spawn(move || {
        client.enter().unwrap();
        let socket = std::net::UdpSocket::bind((own, 4321)).unwrap();
        socket.set_read_timeout(Some(A_WHILE)).unwrap();
        let question = [&[0, 1, 0, 0][..], &COOKIE, b"twelve bytes"].concat();
        socket.send_to(&question, packets).unwrap();
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    });
    let answer = answer.join().unwrap();
    assert_eq!(answer[..4], [1, 1, 0, 12], "success, twelve octets more");
    assert_eq!(answer[8..20], *b"twelve bytes");
    // XOR-MAPPED-ADDRESS (section 14.2), IPv4.
    assert_eq!(answer[20..26], [0, 0x20, 0, 8, 0, 1]);
    let plain = |at: usize| answer[at] ^ COOKIE[(at - 26) % 2];
    assert_eq!(u16::from_be_bytes([plain(26), plain(27)]), 4321);
    let ip: Vec<u8> = answer[28..32]
        .iter()
        .zip(COOKIE)
        .map(|(a, b)| a ^ b)
        .collect();
    assert_eq!(ip, own.octets());
}
