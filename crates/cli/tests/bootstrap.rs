//! How nodes find others of their overlay without an invitation that leads to one. Without root these
//! tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::collections::BTreeSet;
mod net;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::wire::{LinkKind, NatKind};
use enishi_lab::{Daemon, Host, Lab, Process, World, ensure_programs, is_root, until};
use serde_json::Value;
use tempfile::TempDir;

use net::{A_WHILE, PROGRAM, dnsmasq, wait};

const IN_LAN: [&str; 2] = ["--mdns", "on"];

/// A network of hosts with nodes on them.
struct Net {
    directory: TempDir,
    lab: Lab,
}

impl Net {
    fn open(name: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        Some(Self {
            directory: tempfile::tempdir().unwrap(),
            lab: Lab::new(name).unwrap(),
        })
    }

    fn hosts<const N: usize>(&mut self, names: [&str; N]) -> [Host; N] {
        names.map(|name| self.lab.host(name).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self, host: &Host, words: &[&str]) -> Daemon {
        start(&self.path(host.name()), host, words)
    }
}

fn start(data: &Path, host: &Host, words: &[&str]) -> Daemon {
    let words = [&["--no-tun", "--no-dns"], words].concat();
    Daemon::start(Path::new(PROGRAM), Some(host), data, &words).unwrap()
}

fn has_joined(status: &Value) -> bool {
    status["joined"] == true
}

/// Returns what a source of contacts did.
fn source<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut sources = status["bootstrap"].as_array().unwrap().iter();
    let found = sources.find(|source| source["source"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

#[test]
fn nodes_in_one_network_find_each_other_without_any_invitation_that_leads_on() {
    let Some(mut net) = Net::open("lan") else {
        return;
    };
    let [gone, left, right] = net.hosts(["gone", "left", "right"]);
    // The only node that the invitation names is no more.
    let ticket = net.start(&gone, &[]).text(&["invite"]).unwrap();
    let words = ["--mdns", "on", "--bootstrap", &ticket];
    let (left, right) = (net.start(&left, &words), net.start(&right, &words));
    for daemon in [&left, &right] {
        // Whoever was found first may have found nobody yet.
        let status = wait(daemon, "the node has found the other", |status| {
            let lan = source(status, "local-network");
            has_joined(status) && lan["found"] == 1 && lan["peers"] == 1
        });
        assert_eq!(source(&status, "invitation")["peers"], 0);
    }
}

#[test]
fn nodes_of_other_overlays_and_nodes_that_are_to_be_silent_are_left_alone() {
    let Some(mut net) = Net::open("lanother") else {
        return;
    };
    let [left, right, other, silent] = net.hosts(["left", "right", "other", "silent"]);
    let config = net.path("other.toml");
    std::fs::write(&config, "overlay = \"office\"").unwrap();
    let words = ["--mdns", "on", "--config", config.to_str().unwrap()];
    let other = net.start(&other, &words);
    let silent = net.start(&silent, &["--mdns", "off"]);
    let left = net.start(&left, &IN_LAN);
    let right = net.start(&right, &IN_LAN);
    for daemon in [&left, &right] {
        let status = wait(daemon, "the node joins", has_joined);
        assert_eq!(status["overlay_size_estimate"], 2);
    }
    for daemon in [&other, &silent] {
        let status = daemon.json(&["status"]).unwrap();
        assert!(!has_joined(&status), "{status:#}");
    }
}

#[test]
fn islands_merge_when_their_networks_do() {
    let Some(mut net) = Net::open("islands") else {
        return;
    };
    let hosts = net.hosts(["a", "b", "c", "d"]);
    let [a, b, c, d] = &hosts;
    net.lab.isolate(&[a, b], &[c, d]).unwrap();
    let daemons = hosts.each_ref().map(|host| net.start(host, &IN_LAN));
    for daemon in &daemons {
        let status = wait(daemon, "the node joins its island", has_joined);
        assert_eq!(status["overlay_size_estimate"], 2);
    }
    net.lab.heal().unwrap();
    for daemon in &daemons {
        wait(daemon, "the islands are one", |status| {
            status["overlay_size_estimate"] == 4
        });
    }
}

/// Runs a command for a node that is not up.
fn enishi(data: &Path, words: &[&str]) -> String {
    let mut command = enishi_lab::command(PROGRAM);
    command.arg("--data").arg(data).args(words);
    let done = enishi_lab::run(command, A_WHILE).unwrap();
    assert!(done.success(), "{words:?}: {}", done.stderr);
    done.stdout.trim().to_owned()
}

#[test]
fn members_of_a_closed_overlay_find_each_other_and_nobody_else_does() {
    let Some(mut net) = Net::open("lanclosed") else {
        return;
    };
    let [gone, left, right, stranger] = net.hosts(["gone", "left", "right", "stranger"]);
    for form in [&["--secret"][..], &[]] {
        let data = |host: &Host| net.path(&format!("{}{}", host.name(), form.len()));
        let create = [&["overlay", "create", "office"], form].concat();
        enishi(&data(&gone), &create);
        let founder = start(&data(&gone), &gone, &[]);
        let tickets: [String; 2] =
            std::array::from_fn(|_| founder.text(&["overlay", "invite"]).unwrap());
        drop(founder);
        let joined = [(&left, &tickets[0]), (&right, &tickets[1])].map(|(host, ticket)| {
            enishi(&data(host), &["overlay", "join", ticket]);
            start(&data(host), host, &IN_LAN)
        });
        let alone = start(&data(&stranger), &stranger, &IN_LAN);
        for daemon in &joined {
            let status = wait(daemon, "the member joins", has_joined);
            assert_eq!(status["overlay_size_estimate"], 2);
        }
        let status = alone.json(&["status"]).unwrap();
        assert!(!has_joined(&status), "{status:#}");
        assert_eq!(source(&status, "local-network")["found"], 0, "{status:#}");
    }
}

#[test]
fn nothing_is_announced_in_networks_of_its_own() {
    // How often the library looks for new devices, and a little.
    const LOOK: Duration = Duration::from_secs(7);
    let Some(mut net) = Net::open("owndevice") else {
        return;
    };
    let [host] = net.hosts(["host"]);
    let words = ["--no-dns", "--mdns", "on", "--device", "tap"];
    let data = net.path("host");
    let node = Daemon::start(Path::new(PROGRAM), Some(&host), &data, &words).unwrap();
    node.text(&["channel", "create", "office"]).unwrap();
    let status = wait(&node, "the channel has a device", |status| {
        status["channels"][0]["interface"].is_string()
    });
    let device = status["channels"][0]["interface"]
        .as_str()
        .unwrap()
        .to_owned();
    // The group of mDNS, 224.0.0.251, as the kernel writes it.
    let listens = || {
        let groups = host
            .run(&["cat", "/proc/net/igmp"], A_WHILE)
            .unwrap()
            .stdout;
        let mut listening = BTreeSet::new();
        let mut at = String::new();
        for line in groups.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if !line.starts_with(['\t', ' ']) {
                at = words[1].to_owned();
            } else if words[0] == "FB0000E0" {
                listening.insert(at.clone());
            }
        }
        listening
    };
    until(A_WHILE, "the node listens to its network", || {
        Ok(listens().contains("eth0"))
    })
    .unwrap();
    std::thread::sleep(LOOK);
    assert!(!listens().contains(&device), "{device}: {:?}", listens());
}

#[test]
fn a_network_without_the_internet_goes_on_and_takes_in_newcomers() {
    let Some(mut net) = Net::open("nointernet") else {
        return;
    };
    let [far, member, newcomer] = net.hosts(["far", "member", "newcomer"]);
    let outside = net.start(&far, &[]);
    let ticket = outside.text(&["invite"]).unwrap();
    let words = ["--mdns", "on", "--bootstrap", &ticket];
    let inside = net.start(&member, &words);
    wait(&inside, "the member joins by its invitation", has_joined);
    net.lab.isolate(&[&member, &newcomer], &[&far]).unwrap();
    let newcomer = net.start(&newcomer, &words);
    let status = wait(&newcomer, "the newcomer joins in the network", has_joined);
    assert_eq!(source(&status, "invitation")["peers"], 0, "{status:#}");
    net.lab.heal().unwrap();
    for daemon in [&outside, &inside, &newcomer] {
        wait(daemon, "all are one overlay", |status| {
            let sources = status["bootstrap"].as_array().unwrap();
            let peers = sources.iter().filter_map(|source| source["peers"].as_u64());
            status["peers"] == 2 && (sources.is_empty() || peers.sum::<u64>() > 0)
        });
    }
}

#[test]
fn a_name_and_a_port_are_enough_to_join() {
    let Some(mut net) = Net::open("bootserver") else {
        return;
    };
    let [server, member, newcomer, stranger] =
        net.hosts(["server", "member", "newcomer", "stranger"]);
    let config = net.path("server.toml");
    std::fs::write(
        &config,
        "bootstrap_server = true\nlisten = [\"0.0.0.0:4242\"]",
    )
    .unwrap();
    let words = ["--config", config.to_str().unwrap()];
    let address = format!("{}:4242", server.address());
    let running = net.start(&server, &words);
    let member = net.start(&member, &["--bootstrap", &address]);
    wait(&member, "the member joins", has_joined);
    // By name, in the system's way.
    let hosts = format!(
        "127.0.0.1 localhost\n{} boot.example.org\n",
        server.address()
    );
    newcomer.set_etc("hosts", &hosts).unwrap();
    let newcomer = net.start(&newcomer, &["--bootstrap", "boot.example.org:4242"]);
    let status = wait(&newcomer, "the newcomer joins", has_joined);
    // It was told of both.
    assert_eq!(source(&status, "servers")["found"], 2, "{status:#}");
    // Who means another overlay learns nothing.
    let config = net.path("stranger.toml");
    std::fs::write(&config, "overlay = \"office\"").unwrap();
    let words = [
        "--config",
        config.to_str().unwrap(),
        "--bootstrap",
        &address,
    ];
    let stranger = net.start(&stranger, &words);
    let status = wait(&stranger, "the stranger gets no answer", |status| {
        source(status, "servers")["error"].is_string()
    });
    let error = source(&status, "servers")["error"].as_str().unwrap();
    assert!(error.contains("does not answer"), "{error}");
    let doctor = stranger.call(&["doctor"]).unwrap().stdout;
    let told = format!("servers none ({error})");
    assert!(doctor.contains(&told), "{doctor}");
    assert!(!has_joined(&status) && has_joined(&running.json(&["status"]).unwrap()));
}

/// Asks all of a network by mDNS, as a program does that only asks (RFC 6762, section 6.7), and returns
/// what is answered within a second.
fn ask_all(from: &Host, name: &str, kind: u8) -> Vec<Vec<u8>> {
    let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, kind, 0, 1]);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            from.enter().unwrap();
            let socket = UdpSocket::bind((from.address(), 0)).unwrap();
            let pause = Duration::from_secs(1);
            socket.set_read_timeout(Some(pause)).unwrap();
            socket.send_to(&query, "224.0.0.251:5353").unwrap();
            let mut answers = Vec::new();
            let mut buffer = [0; 9000];
            while let Ok((bytes, _)) = socket.recv_from(&mut buffer) {
                answers.push(buffer[..bytes].to_vec());
            }
            answers
        });
        asking.join().unwrap()
    })
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}

/// Returns the labels of 32 octets that are hexadecimal numbers.
fn marks(octets: &[u8]) -> BTreeSet<String> {
    let labels = octets.windows(33).filter(|window| window[0] == 32);
    let texts = labels.filter_map(|window| std::str::from_utf8(&window[1..]).ok());
    let marks = texts.filter(|text| text.bytes().all(|octet| octet.is_ascii_hexdigit()));
    marks.map(str::to_owned).collect()
}

/// Runs a bus for programs on a host; returns it with its address.
fn dbus(net: &Net, host: &Host) -> (Process, String) {
    let address = format!("unix:path={}", net.path("bus").display());
    let config = net.path("bus.conf");
    let text = format!(
        "<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>\
         <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
         <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = host.command("dbus-daemon");
    command.arg("--nofork");
    command.arg(format!("--config-file={}", config.display()));
    let process = host.spawn(command, &net.path("bus.log")).unwrap();
    until(A_WHILE, "the bus is there", || Ok(net.path("bus").exists())).unwrap();
    (process, address)
}

#[test]
fn what_is_announced_tells_strangers_nothing_and_leaves_avahi_its_place() {
    const A: u8 = 1;
    const PTR: u8 = 12;
    let Some(mut net) = Net::open("avahi") else {
        return;
    };
    let programs = [
        ("avahi-daemon", "avahi-daemon"),
        ("avahi-browse", "avahi-utils"),
        ("dbus-daemon", "dbus-daemon"),
    ];
    ensure_programs(&programs).unwrap();
    let [left, right, stranger] = net.hosts(["left", "right", "stranger"]);
    let route = ["ip", "route", "add", "224.0.0.0/4", "dev", "eth0"];
    assert!(stranger.run(&route, A_WHILE).unwrap().success());
    // The host has an mDNS responder of its own, and the bus by which programs ask it.
    let bus = dbus(&net, &left);
    let config = net.path("avahi.conf");
    let text = "[server]\nhost-name=lefthost\nuse-ipv6=no\n";
    std::fs::write(&config, text).unwrap();
    // Its files are not those of this machine's own.
    let mut command = left.command("sh");
    command.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.1).arg("-ec");
    command.arg(format!(
        "mount -t tmpfs none /run; mkdir /run/avahi-daemon; exec avahi-daemon --no-drop-root \
         --no-chroot --no-rlimits -f {}",
        config.display()
    ));
    let _avahi = left.spawn(command, &net.path("avahi.log")).unwrap();
    let (node, other) = (net.start(&left, &IN_LAN), net.start(&right, &IN_LAN));
    let statuses = [&node, &other].map(|node| wait(node, "the nodes find each other", has_joined));
    // Avahi answers, and so do the nodes.
    let mut heard = Vec::new();
    until(A_WHILE, "avahi answers", || {
        heard = ask_all(&stranger, "lefthost.local", A);
        Ok(heard
            .iter()
            .any(|answer| contains(answer, &left.address().octets())))
    })
    .unwrap_or_else(|error| {
        let said = std::fs::read_to_string(net.path("avahi.log"));
        panic!(
            "{error}: {heard:?}\n{said:?}\n{:?}",
            std::fs::read_to_string(net.path("bus.log"))
        )
    });
    until(A_WHILE, "both nodes are announced", || {
        heard = ask_all(&stranger, "_enishi._udp.local", PTR);
        Ok(marks(&heard.concat()).len() == 2)
    })
    .unwrap_or_else(|error| panic!("{error}: {heard:?}"));
    let heard = heard.concat();
    let marks: Vec<String> = marks(&heard).into_iter().collect();
    assert_ne!(marks[0][16..], marks[1][16..]);
    // A program of the host finds both as it finds printers.
    let mut browsed = String::new();
    until(A_WHILE, "avahi lists both nodes", || {
        let mut browse = left.command("avahi-browse");
        browse.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.1);
        browse.args(["--resolve", "--parsable", "--terminate", "_enishi._udp"]);
        browsed = enishi_lab::run(browse, A_WHILE)?.stdout;
        let is_listed = |(host, mark): (&Host, &String)| {
            let (host, mark) = (format!(";{};", host.address()), format!(";{mark};"));
            let mut lines = browsed.lines();
            lines.any(|line| line.starts_with('=') && line.contains(&mark) && line.contains(&host))
        };
        let [first, second] = [&marks[0], &marks[1]];
        let either = [(&left, first), (&right, second)];
        let other = [(&left, second), (&right, first)];
        Ok(either.into_iter().all(is_listed) || other.into_iter().all(is_listed))
    })
    .unwrap_or_else(|error| panic!("{error}: {browsed}"));
    // Neither who they are nor what the host is called.
    for status in &statuses {
        let id = status["node_id"].as_str().unwrap();
        assert!(!contains(&heard, &id.as_bytes()[..8]));
    }
    let name = stranger.run(&["uname", "-n"], A_WHILE).unwrap().stdout;
    assert!(!contains(&heard, name.trim().as_bytes()), "{name}");
}

#[test]
fn a_list_in_the_dns_leads_to_the_overlay() {
    let Some(mut net) = Net::open("dnslist") else {
        return;
    };
    let [server, member, hidden, newcomer] = net.hosts(["server", "member", "hidden", "newcomer"]);
    let listen = |host: &Host| format!("{}:4242", host.address());
    let member_at = listen(&member);
    let config = net.path("hidden.toml");
    std::fs::write(
        &config,
        "bootstrap_server = true\nlisten = [\"0.0.0.0:4242\"]",
    )
    .unwrap();
    let words = ["--config", config.to_str().unwrap()];
    let hidden_at = listen(&hidden);
    let member = net.start(&member, &["--listen", "0.0.0.0:4242"]);
    let _hidden = net.start(&hidden, &words);
    let id = member.json(&["status"]).unwrap()["node_id"].clone();
    // One record names a node, one only where to ask; others are of no use, or not for us.
    let lines = format!(
        "txt-record=enishi.example.org,\"enishi={}@{member_at}\"\n\
         txt-record=enishi.example.org,\"enishi={hidden_at}\"\n\
         txt-record=enishi.example.org,\"enishi=nobody@here\"\n\
         txt-record=enishi.example.org,\"v=spf1 -all\"",
        id.as_str().unwrap()
    );
    let _dnsmasq = dnsmasq(net.directory.path(), &server, &lines);
    let config = net.path("newcomer.toml");
    std::fs::write(&config, "bootstrap_dns = [\"enishi.example.org\"]").unwrap();
    let resolver = format!("nameserver {}\n", server.address());
    newcomer.set_etc("resolv.conf", &resolver).unwrap();
    let newcomer = net.start(&newcomer, &["--config", config.to_str().unwrap()]);
    wait(&newcomer, "the newcomer joins by the list", |status| {
        has_joined(status) && source(status, "dns-list")["found"] == 2
    });
    wait(&member, "all three are one overlay", |status| {
        status["overlay_size_estimate"] == 3
    });
}

/// Starts a node of a DHT of our own on a host.
fn dht_node(host: &Host, first: Option<&str>) -> mainline::Dht {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            host.enter().unwrap();
            let mut builder = mainline::Dht::builder();
            builder.server_mode().port(6881).public_ip(host.address());
            match first {
                Some(first) => builder.bootstrap(&[first]),
                None => builder.no_bootstrap(),
            };
            builder.build().unwrap()
        });
        started.join().unwrap()
    })
}

#[test]
fn the_mainline_dht_brings_those_together_who_know_the_overlay() {
    if !is_root() {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let link = LinkKind::of_delay(Duration::from_millis(10));
    let mut world = World::new("mainline", link).unwrap();
    let hosts = ["d1", "d2", "d3"].map(|name| world.public(name).unwrap());
    let first = format!("{}:6881", hosts[0].address());
    let _dht: Vec<mainline::Dht> = hosts
        .iter()
        .enumerate()
        .map(|(number, host)| dht_node(host, (number > 0).then_some(first.as_str())))
        .collect();
    let config = directory.path().join("config.toml");
    let text = format!(
        "overlay = \"office\"\nbootstrap_mainline = true\nbootstrap_mainline_nodes = [\"{first}\"]"
    );
    std::fs::write(&config, text).unwrap();
    let words = ["--config", config.to_str().unwrap()];
    let public = world.public("public").unwrap();
    let home = world.home(NatKind::port_restricted()).unwrap();
    let newcomer = world.host("newcomer", home).unwrap();
    let public = start(&directory.path().join("public"), &public, &words);
    let newcomer = start(&directory.path().join("newcomer"), &newcomer, &words);
    let status = wait(&newcomer, "the newcomer joins", |status| {
        has_joined(status) && source(status, "mainline")["found"] == 1
    });
    assert_eq!(source(&status, "mainline")["peers"], 1, "{status:#}");
    assert!(has_joined(&public.json(&["status"]).unwrap()));
}
