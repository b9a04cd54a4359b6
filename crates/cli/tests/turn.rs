//! TURN: programs of others use a node as their server, and nodes use a server of others. Without
//! root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

#[path = "../../stun/tests/shell/coturn.rs"]
mod coturn;
mod net;
mod node;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use enishi_lab::wire::{NatKind, Outward, Ports};
use enishi_lab::{Daemon, Host, Output, Process, until};
use serde_json::Value;

use coturn::{A_WHILE, Coturn, ECHO_PORT, USER};
use net::{Net, id, status, wait, way};
use node::Node;

/// A node that is a TURN server, a client and a peer, each with a public address.
struct Site {
    daemon: Daemon,
    server: Host,
    client: Host,
    peer: Host,
    coturn: Coturn,
    _echo: Process,
    net: Net,
}

impl Site {
    /// None without root.
    fn open(name: &str, more: &str) -> Option<Self> {
        let mut net = Net::open(name)?;
        let [server, client, peer] = ["s", "c", "p"].map(|name| net.world.public(name).unwrap());
        let config = format!("[turn]\nlisten = \"0.0.0.0\"\nrealm = \"lab\"\n{more}");
        let daemon = net.start(&server, &config, &["--no-tun", "--no-dns"]);
        let coturn = Coturn::new();
        let echo = coturn.echo(&peer);
        add(&net, &daemon, USER.1);
        Some(Self {
            daemon,
            server,
            client,
            peer,
            coturn,
            _echo: echo,
            net,
        })
    }

    /// Runs `turnutils_uclient`, which sends twenty datagrams by each of two clients to a peer and
    /// waits for them to come back.
    fn uclient(&self, password: &str, peer: Ipv4Addr) -> Output {
        self.uclient_by(password, peer, &[])
    }

    /// The same with more words.
    fn uclient_by(&self, password: &str, peer: Ipv4Addr, more: &[&str]) -> Output {
        let (program, echo) = (
            self.coturn.program("turnutils_uclient"),
            ECHO_PORT.to_string(),
        );
        let (peer, server) = (peer.to_string(), self.server.address().to_string());
        let words = [
            &program, "-u", USER.0, "-w", password, "-n", "20", "-m", "2", "-c",
        ];
        let words = [&words[..], more, &["-e", &peer, "-r", &echo, &server]].concat();
        self.client.run(&words, A_WHILE).unwrap()
    }

    fn server(&self) -> Value {
        self.daemon.json(&["turn", "show"]).unwrap()["server"].clone()
    }
}

/// Lets the user of all tests in, with a password.
fn add(net: &Net, daemon: &Daemon, password: &str) {
    let file = net.path("password");
    let mut out = std::fs::File::create(&file).unwrap();
    writeln!(out, "{password}").unwrap();
    let file = file.to_str().unwrap();
    let told = daemon.text(&["turn", "add", USER.0, "--password-file", file]);
    assert_eq!(told.unwrap(), format!("{} {password}", USER.0));
}

fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

#[test]
fn a_standard_client_is_relayed_by_a_node_and_only_by_its_password() {
    let Some(site) = Site::open("turn-serve", "ports = \"50000-50009\"\n") else {
        return;
    };
    let output = site.uclient(USER.1, site.peer.address());
    let text = said(&output);
    assert!(output.success(), "{text}\n{}", site.daemon.log());
    assert!(text.contains("Total lost packets 0 "), "{text}");
    let server = site.server();
    assert_eq!(server["to_peers_bytes"], server["to_clients_bytes"]);
    assert!(server["to_peers_bytes"].as_u64() > Some(0), "{server}");
    assert_eq!(
        status(&site.daemon)["turn"]["to_peers_bytes"],
        server["to_peers_bytes"]
    );
    for port in text
        .lines()
        .filter_map(|line| line.split_once("Received relay addr: "))
    {
        let port = port.1.rsplit(':').next().unwrap().trim().parse::<u16>();
        assert!((50_000..50_010).contains(&port.unwrap()), "{text}");
    }

    let before = server["to_peers_bytes"].clone();
    let output = site.uclient("a wrong password", site.peer.address());
    assert!(!output.success(), "{}", said(&output));
    // A new password replaces the old one at once; a user that is removed has none.
    add(&site.net, &site.daemon, "another");
    assert!(!site.uclient(USER.1, site.peer.address()).success());
    assert_eq!(site.server()["to_peers_bytes"], before);
    assert!(site.uclient("another", site.peer.address()).success());
    site.daemon.text(&["turn", "remove", USER.0]).unwrap();
    assert!(!site.uclient("another", site.peer.address()).success());
    let shown = site.daemon.json(&["turn", "show"]).unwrap();
    assert_eq!(shown["users"], serde_json::json!([]), "{shown}");
    let log = site.daemon.log();
    assert!(!log.contains("another") && !log.contains(USER.1), "{log}");
}

#[test]
fn a_standard_client_comes_by_tcp_and_nothing_of_it_stays() {
    let Some(site) = Site::open("turn-tcp", "") else {
        return;
    };
    // By channels; by indications; and with data that is padded.
    for words in [&["-t"][..], &["-t", "-s"], &["-t", "-l", "1201"]] {
        let output = site.uclient_by(USER.1, site.peer.address(), words);
        let text = said(&output);
        assert!(output.success(), "{text}\n{}", site.daemon.log());
        assert!(text.contains("Total lost packets 0 "), "{words:?} {text}");
    }
    let server = site.server();
    assert_eq!(server["to_peers_bytes"], server["to_clients_bytes"]);
    assert!(server["to_peers_bytes"].as_u64() > Some(0), "{server}");
    until(A_WHILE, "what ended has no allocation", || {
        Ok(site.server()["allocations"] == serde_json::json!([]))
    })
    .unwrap();
    let output = site.uclient_by("a wrong password", site.peer.address(), &["-t"]);
    assert!(!output.success(), "{}", said(&output));
    // What is no TURN is not listened to, and others go on.
    let noise = "exec 3<>/dev/tcp/$0/3478; echo GET / >&3; cat <&3";
    let server = site.server.address().to_string();
    let output = site.client.run(&["bash", "-c", noise, &server], A_WHILE);
    assert_eq!(output.unwrap().stdout, "");
    assert!(site.uclient(USER.1, site.peer.address()).success());
}

#[test]
fn a_node_relays_to_nothing_of_its_own() {
    let Some(site) = Site::open("turn-own", "") else {
        return;
    };
    // A network of the Internet's own addresses.
    let create = ["channel", "create", "lab", "--network", "44.5.0.0/16"];
    site.daemon.text(&create).unwrap();
    let own = wait(&site.daemon, "it has an address", |status| {
        status["channels"][0]["address"].is_string()
    });
    let own = own["channels"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let others = [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(192, 168, 1, 1),
        Ipv4Addr::new(224, 0, 0, 251),
    ];
    // What is this node's is looked at every three seconds.
    let denied = |peer| {
        let text = said(&site.uclient(USER.1, peer));
        text.contains("403")
    };
    until(A_WHILE, "the channel is refused", || Ok(denied(own))).unwrap();
    assert!(denied(Ipv4Addr::new(44, 5, 255, 7)));
    let before = site.server();
    for peer in others {
        assert!(denied(peer), "{peer}");
    }
    // Other clients are at the address of the server; its own ports are not.
    let text = said(&site.uclient(USER.1, site.server.address()));
    assert!(!text.contains("Total lost packets 0 "), "{text}");
    let after = site.server();
    assert!(after["denied_messages"].as_u64() > before["denied_messages"].as_u64());
    assert_eq!(after["to_peers_bytes"], before["to_peers_bytes"]);
}

#[test]
fn the_neighbours_of_a_server_are_refused_whatever_their_addresses() {
    let Some(site) = Site::open("turn-lan", "peers = [\"45.6.8.0/24\"]\n") else {
        return;
    };
    // Two networks with the Internet's own addresses, on the side that no client is on.
    let add = "ip link add lan type veth peer name far && ip link set lan up && \
               ip address add 45.6.7.1/24 dev lan && ip address add 45.6.8.1/24 dev lan";
    let added = site.server.run(&["sh", "-c", add], A_WHILE).unwrap();
    assert!(added.success(), "{}", said(&added));
    let is_denied = |peer| said(&site.uclient(USER.1, peer)).contains("403");
    // What is this node's is looked at every three seconds.
    let neighbour = Ipv4Addr::new(45, 6, 7, 9);
    until(A_WHILE, "the network is refused", || {
        Ok(is_denied(neighbour))
    })
    .unwrap();
    assert!(!is_denied(Ipv4Addr::new(45, 6, 9, 9)), "no neighbour");
    let opened = Ipv4Addr::new(45, 6, 8, 9);
    assert!(!is_denied(opened), "the configuration allows it");
}

#[test]
fn a_user_has_only_so_many_allocations() {
    let Some(site) = Site::open("turn-quota", "user_allocations = 1\n") else {
        return;
    };
    let text = said(&site.uclient(USER.1, site.peer.address()));
    assert!(text.contains("486"), "{text}");
    let server = site.server();
    assert!(server["refused_allocations"].as_u64() > Some(0), "{server}");
}

#[test]
fn an_allocation_carries_only_so_much() {
    let Some(site) = Site::open("turn-octets", "allocation_bytes_per_s = 100\n") else {
        return;
    };
    let text = said(&site.uclient(USER.1, site.peer.address()));
    assert!(!text.contains("Total lost packets 0 "), "{text}");
    let server = site.server();
    assert!(
        server["dropped_bytes"].as_u64() > Some(0),
        "{server} {text}"
    );
}

/// Two nodes behind routers that give each destination another port, somebody whom both reach and
/// who carries for nobody, and coturn.
struct Town {
    nodes: Vec<(Host, Daemon)>,
    turnserver: Process,
    place: Host,
    coturn: Coturn,
    _helper: Daemon,
    net: Net,
}

impl Town {
    /// None without root. The first node's router lets out so much.
    fn open(name: &str, outward: Outward) -> Option<Self> {
        let mut net = Net::open(name)?;
        let [public, place] = ["p", "t"].map(|name| net.world.public(name).unwrap());
        // Whom nobody carries may never join: what one of them needs may be in the hands of the other.
        let (helper, ticket) = net.found(&public, "");
        let coturn = Coturn::new();
        let turnserver = coturn.serve(&place);
        let mut nodes = Vec::new();
        for (name, outward) in [("a", outward), ("b", Outward::Everything)] {
            let nat = NatKind {
                outward,
                ..NatKind::symmetric(Ports::Random)
            };
            let router = net.world.home(nat).unwrap();
            let host = net.world.host(name, router).unwrap();
            let daemon = net.join(&host, "relay = false\n", &ticket);
            nodes.push((host, daemon));
        }
        drop(helper);
        let helper = net.start(&public, "relay = false\n", &[]);
        for (_, daemon) in &nodes {
            let is_met = |status: &Value| status["peers"].as_u64() >= Some(1);
            wait(daemon, "the helper is met again", is_met);
        }
        wait(&helper, "it knows both", |status| {
            status["peers"].as_u64() >= Some(2)
        });
        Some(Self {
            nodes,
            turnserver,
            place,
            coturn,
            _helper: helper,
            net,
        })
    }

    fn url(&self) -> String {
        format!("turn:{}@{}:3478", USER.0, self.place.address())
    }

    /// Has the first node use the server.
    fn uses(&self, password: &str) -> Value {
        self.uses_at(&self.url(), password)
    }

    fn uses_at(&self, url: &str, password: &str) -> Value {
        let file = self.net.path("foreign");
        std::fs::write(&file, password).unwrap();
        let words = ["turn", "use", url, "--password-file"];
        let words = [&words[..], &[file.to_str().unwrap()]].concat();
        let words = [&words[..], &["--json"]].concat();
        let told = self.nodes[0].1.call(&words).unwrap();
        let state: Value = serde_json::from_str(&told.stdout).unwrap();
        let used = state["servers"][0].clone();
        // The exit code says whether it relays.
        assert_eq!(told.success(), used["relayed"].is_string(), "{used}");
        used
    }

    fn used(&self) -> Value {
        self.nodes[0].1.json(&["turn", "show"]).unwrap()["servers"][0].clone()
    }

    /// Waits until packets of the first node get to the second one and back.
    fn meet(&self) {
        let there = self.nodes[1].1.address().unwrap().to_string();
        let ping = ["ping", "-c", "1", "-W", "1", &there];
        let met = until(2 * A_WHILE, "they meet", || {
            Ok(self.nodes[0].0.run(&ping, A_WHILE)?.success())
        });
        met.unwrap_or_else(|error| {
            let logs = self.nodes.iter().map(|(_, daemon)| daemon.log());
            let logs: Vec<String> = logs.collect();
            panic!("{error}\n{}\n{}", self.used(), logs.join("\n\n"))
        });
    }
}

#[test]
fn two_nodes_that_nobody_else_carries_for_meet_at_a_turn_server() {
    let Some(mut town) = Town::open("turn-use", Outward::Everything) else {
        return;
    };
    let refused = town.uses("a wrong password");
    assert_eq!(refused["trouble"], "refused", "{refused}");
    assert_eq!(refused["code"], 401, "{refused}");
    let told = town.nodes[0].1.call(&["doctor", "net"]).unwrap().stdout;
    assert!(told.contains("refuses name or password"), "{told}");

    let works = town.uses(USER.1);
    println!("{}", town.nodes[0].1.text(&["turn", "show"]).unwrap());
    let relayed = works["relayed"].as_str().unwrap().to_owned();
    assert!(
        relayed.starts_with(&format!("{}:", town.place.address())),
        "{works}"
    );
    let started = Instant::now();
    town.meet();
    println!("they met after {:?}", started.elapsed());
    let (a, b) = (id(&town.nodes[0].1), id(&town.nodes[1].1));
    let by = format!("relayed by turn {}:3478", town.place.address());
    assert_eq!(way(&town.nodes[0].1, &b), by);
    assert_eq!(way(&town.nodes[1].1, &a), format!("direct {relayed}"));
    let used = town.used();
    assert!(
        used["received_bytes"].as_u64() > Some(0) && used["peers"] == 1,
        "{used}"
    );
    assert!(town.coturn.log().contains("peer"), "{}", town.coturn.log());
    let told = town.nodes[0].1.call(&["doctor", "net"]).unwrap().stdout;
    assert!(told.contains(&format!("relays for {relayed}")), "{told}");
    // The helper sees the node where it is, not at the server.
    assert!(
        status(&town.nodes[0].1)["nat"]["observed"]
            .as_array()
            .unwrap()
            .iter()
            .all(|at| at != &relayed)
    );

    town.turnserver.kill9().unwrap();
    wait(&town.nodes[0].1, "the server is missed", |_| {
        town.used()["relayed"].is_null()
    });
    town.turnserver = town.coturn.serve(&town.place);
    wait(&town.nodes[0].1, "it serves again", |_| {
        town.used()["relayed"].is_string()
    });
    let started = Instant::now();
    town.meet();
    println!("they met again after {:?}", started.elapsed());
    assert_eq!(way(&town.nodes[0].1, &b), by);
    let log = town.nodes[0].1.log();
    assert!(
        !log.contains(USER.1) && !log.contains("a wrong password"),
        "{log}"
    );
    // Whoever does not want it any more is not there any more.
    town.nodes[0]
        .1
        .text(&["turn", "forget", &town.url()])
        .unwrap();
    let at_server = format!("{}:", town.place.address());
    wait(
        &town.nodes[0].1,
        "the address is told no longer",
        |status| {
            let addresses = status["addresses"].as_array().unwrap();
            let mut addresses = addresses.iter().filter_map(Value::as_str);
            addresses.all(|at| !at.starts_with(&at_server))
        },
    );
}

#[test]
fn a_node_that_no_datagram_leaves_is_reached_at_a_turn_server_by_tcp() {
    let Some(mut town) = Town::open("turn-wall", Outward::NoUdp) else {
        return;
    };
    let by_udp = town.uses(USER.1);
    assert_eq!(by_udp["trouble"], "silent", "{by_udp}");
    let told = town.nodes[0].1.call(&["doctor", "net"]).unwrap().stdout;
    assert!(told.contains("?transport=tcp"), "{told}");
    let forgotten = town.nodes[0].1.text(&["turn", "forget", &town.url()]);
    forgotten.unwrap();

    let url = format!("{}?transport=tcp", town.url());
    let works = town.uses_at(&url, USER.1);
    assert_eq!(works["url"], url);
    let relayed = works["relayed"].as_str().unwrap().to_owned();
    let started = Instant::now();
    town.meet();
    println!("they met after {:?}", started.elapsed());
    let (a, b) = (id(&town.nodes[0].1), id(&town.nodes[1].1));
    let by = format!("relayed by turn {}:3478", town.place.address());
    assert_eq!(way(&town.nodes[0].1, &b), by);
    assert_eq!(way(&town.nodes[1].1, &a), format!("direct {relayed}"));

    town.turnserver.kill9().unwrap();
    wait(&town.nodes[0].1, "the server is missed", |_| {
        town.used()["relayed"].is_null()
    });
    town.turnserver = town.coturn.serve(&town.place);
    wait(&town.nodes[0].1, "it serves again", |_| {
        town.used()["relayed"].is_string()
    });
    town.meet();
    assert_eq!(way(&town.nodes[0].1, &b), by);
}

#[test]
fn what_is_in_the_way_is_told_and_the_node_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = other.local_addr().unwrap();
    let config = directory.path().join("config");
    std::fs::write(&config, format!("[turn]\nlisten = \"{at}\"\n")).unwrap();
    let data = directory.path().join("node");
    let mut node = Node::start(&data, &["--config", config.to_str().unwrap()]);
    node::until("the port is missed", || {
        let notices = node.ask(&["status"])["notices"].to_string();
        notices.contains("no TURN server") && notices.contains(&at.to_string())
    });
    assert_eq!(node.ask(&["status"])["turn"], Value::Null);
    // Users can be let in all the same, for when there is a port.
    let added = node.ask(&["turn", "add", "yui"]);
    let drawn = added["added"]["password"].as_str().unwrap();
    assert_eq!((drawn.len(), &added["users"][0]), (24, &Value::from("yui")));
    assert!(!node.log().contains(drawn));
    node.fail(&["turn", "remove", "nobody"], 1);
    node.fail(&["turn", "add", "a b"], 2);

    // Nobody answers there.
    let file = directory.path().join("password");
    std::fs::write(&file, "secret").unwrap();
    let (url, file) = (format!("turn:aki@{at}"), file.to_str().unwrap());
    let told = node.fail(&["turn", "use", &url, "--password-file", file], 1);
    assert!(
        told.contains(&url) && told.contains("does not answer"),
        "{told}"
    );
    let used = node.ask(&["turn", "show"]);
    assert_eq!(used["servers"][0]["trouble"], "silent", "{used}");
    assert_eq!(used["servers"][0]["url"], url);
    for wrong in ["turn:aki:secret@host", "turns:aki@host", "host:3478"] {
        let told = node.fail(&["turn", "use", wrong, "--password-file", file], 2);
        assert!(!told.contains("secret"), "{told}");
    }
    let left = node.ask(&["turn", "forget", &at.to_string()]);
    assert_eq!(left["servers"], serde_json::json!([]), "{left}");
    node.fail(&["turn", "forget", &url], 1);

    // It has the port of its sessions again, and that of its packets after it.
    let own = node.ask(&["status"])["addresses"][0].clone();
    let own: SocketAddr = own.as_str().unwrap().parse().unwrap();
    node.stop();
    let next = SocketAddr::new(own.ip(), own.port() + 1);
    let text = format!("[turn]\nlisten = \"{next}\"\n");
    std::fs::write(&config, text).unwrap();
    node.up(&["--config", config.to_str().unwrap()]);
    node::until("it says what has the port", || {
        let notices = node.ask(&["status"])["notices"].to_string();
        notices.contains(&next.to_string()) && notices.contains("itself takes its packets")
    });
}
