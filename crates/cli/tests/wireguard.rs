//! WireGuard clients, with a program that we did not write in the place of the phone: its other
//! end of the tunnel is the daemon. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::path::Path;
use std::time::{Duration, Instant};

use enishi_lab::{Daemon, Host, Process, until};

use office::{A_WHILE, Office, PROGRAM, reaches, shell};

const PAGE_BYTES: usize = 3 << 20;

/// The numbers of the node that a phone attaches to, and of another member.
const NODE: usize = 0;
const MEMBER: usize = 1;

/// An office of two, and a host for a phone.
struct Site {
    office: Office,
    phone: Host,
}

/// A running WireGuard.
struct Phone {
    host: Host,
    interface: String,
    addresses: Vec<String>,
}

impl Site {
    /// None without root.
    fn open(prefix: &str) -> Option<Self> {
        let programs = [
            ("wireguard-go", "wireguard-go"),
            ("wg-quick", "wireguard-tools"),
            ("script", "bsdutils"),
            ("zbarimg", "zbar-tools"),
            ("ping", "iputils-ping"),
            ("curl", "curl"),
            ("dig", "bind9-dnsutils"),
            ("nft", "nftables"),
            ("python3", "python3"),
        ];
        let mut office = Office::open(prefix, &programs)?;
        assert_eq!(office.hire(&[]), NODE);
        // What it knows of others is what the ticket tells.
        assert_eq!(office.add_host(), MEMBER);
        office.start(MEMBER, Path::new(PROGRAM), &[]);
        office.join(MEMBER);
        let phone = office.lab.host("phone").unwrap();
        Some(Self { office, phone })
    }

    fn node(&self) -> &Daemon {
        &self.office.daemons[NODE]
    }

    /// Adds a client and returns its configuration.
    fn add(&self, name: &str) -> String {
        let words = ["channel", "wireguard", "add", "office", name];
        self.node().text(&words).unwrap()
    }

    /// Adds a client on a terminal, and returns the configuration that a phone's camera sees there.
    fn scan(&self, name: &str) -> String {
        let node = &self.office.hosts[NODE];
        let (program, data) = (PROGRAM, self.office.data(NODE));
        let add = format!(
            "{program} --data {} channel wireguard add office {name}",
            data.display()
        );
        let shown = shell(node, &format!("script -qec '{add}' /dev/null"));
        let picture = self.office.path("code.pgm");
        std::fs::write(&picture, photographed(&shown)).unwrap();
        let scanned = shell(node, &format!("zbarimg -q --raw {}", picture.display()));
        assert!(shown.replace('\r', "").contains(scanned.trim_end()));
        scanned
    }

    /// Runs WireGuard with a configuration.
    fn attach(&self, name: &str, configuration: &str) -> Phone {
        // The name is also that of a socket that all namespaces see.
        let interface = format!("{name}{}", std::process::id());
        let file = self.office.path(&format!("{interface}.conf"));
        std::fs::write(&file, configuration).unwrap();
        let host = self.phone.clone();
        let file = file.display();
        shell(
            &host,
            &format!(
                "chmod 600 {file}; \
                 WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick up {file} 2>&1"
            ),
        );
        let addresses = line(configuration, "Address").split(", ");
        let bare = |address: &str| address.split('/').next().unwrap().to_owned();
        Phone {
            host,
            interface,
            addresses: addresses.map(bare).collect(),
        }
    }

    /// A web server on a host, with one page of [`PAGE_BYTES`].
    fn serve(&self, host: &Host) -> Process {
        let directory = self.office.path(&format!("www-{}", host.name()));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("page"), vec![b'x'; PAGE_BYTES]).unwrap();
        let mut server = host.command("python3");
        server.args(["-m", "http.server", "8080", "--bind", "::", "--directory"]);
        server.arg(&directory);
        let server = host
            .spawn(server, &directory.with_extension("log"))
            .unwrap();
        until(A_WHILE, "the page is served", || {
            Ok(fetched(host, "127.0.0.1") == PAGE_BYTES)
        })
        .unwrap();
        server
    }

    fn listed(&self) -> serde_json::Value {
        let words = ["channel", "wireguard", "list", "office"];
        self.node().json(&words).unwrap()["clients"].clone()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        // WireGuard ends with its socket.
        let _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.interface));
    }
}

/// Makes a picture (PGM) of the QR code that a terminal shows in half blocks, light on dark.
fn photographed(shown: &str) -> Vec<u8> {
    const SCALE: usize = 4;
    let is_code = |line: &&str| line.starts_with('█');
    let lines = shown.lines().map(|line| line.trim_end_matches('\r'));
    let mut rows = Vec::new();
    for line in lines.filter(is_code) {
        for half in ["▀█", "▄█"] {
            let dot = |c| if half.contains(c) { 255_u8 } else { 0 };
            let row: Vec<u8> = line.chars().flat_map(|c| [dot(c); SCALE]).collect();
            rows.extend(std::iter::repeat_n(row, SCALE));
        }
    }
    let size = format!("P5 {} {} 255\n", rows[0].len(), rows.len());
    [size.into_bytes(), rows.concat()].concat()
}

/// Returns the value of a line of a configuration.
fn line<'c>(configuration: &'c str, key: &str) -> &'c str {
    let mut lines = configuration.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    value.unwrap_or_else(|| panic!("no {key} in {configuration}"))
}

/// How many octets of the page another host serves.
fn fetched(host: &Host, address: &str) -> usize {
    let url = match address.contains(':') {
        true => format!("http://[{address}]:8080/page"),
        false => format!("http://{address}:8080/page"),
    };
    let words = ["curl", "-s", "-g", "-m", "60", &url];
    host.run(&words, Duration::from_secs(65))
        .unwrap()
        .stdout
        .len()
}

fn virtual_addresses(daemon: &Daemon) -> [String; 2] {
    let told = daemon.json(&["channel", "list"]).unwrap();
    let channel = &told["channels"][0];
    ["address", "address6"].map(|key| channel[key].as_str().unwrap().to_owned())
}

#[test]
fn a_phone_takes_part_in_the_channel_by_way_of_a_node() {
    let Some(mut site) = Site::open("phone") else {
        return;
    };
    let started = Instant::now();
    let phone = site.attach("wgp", &site.scan("phone"));
    let (hosts, daemons) = (&site.office.hosts, &site.office.daemons);
    let servers = [&hosts[NODE], &hosts[MEMBER], &site.phone].map(|host| site.serve(host));
    for number in [MEMBER, NODE] {
        let (host, daemon) = (&hosts[number], &daemons[number]);
        for (theirs, its) in virtual_addresses(daemon).iter().zip(&phone.addresses) {
            let what = format!("{theirs} and {its} reach each other");
            let told = until(A_WHILE, &what, || {
                Ok(reaches(&phone.host, theirs) && reaches(host, its))
            });
            told.unwrap_or_else(|error| {
                panic!(
                    "{error}: {}\n{}",
                    daemons[NODE].log(),
                    daemons[MEMBER].log()
                )
            });
            assert_eq!(fetched(&phone.host, theirs), PAGE_BYTES, "{what}");
            assert_eq!(fetched(host, its), PAGE_BYTES, "{what}");
        }
    }
    let listed = site.listed();
    let client = &listed[0];
    assert_eq!(client["client"], "phone");
    let bytes = client["received_bytes"].as_u64().unwrap();
    assert!(bytes > 4 * PAGE_BYTES as u64, "{listed}");
    let endpoint = client["endpoint"].as_str().unwrap();
    assert!(endpoint.starts_with(&site.phone.address().to_string()));
    let handshake_s = client["handshake_s"].as_u64().unwrap();
    assert!(handshake_s <= started.elapsed().as_secs(), "{listed}");

    // What the client is called, and its address, outlive the daemon.
    site.office.daemons[NODE].process().kill9().unwrap();
    site.office.restart(NODE, &[]);
    let there = virtual_addresses(&site.office.daemons[MEMBER]);
    until(Duration::from_secs(60), "the phone is back", || {
        Ok(reaches(&phone.host, &there[0]))
    })
    .unwrap();
    drop(servers);
}

#[test]
fn a_phone_asks_for_names_and_reaches_what_is_behind_a_member() {
    let Some(site) = Site::open("beyond") else {
        return;
    };
    let lan = "192.168.7.0/24";
    let (member, node) = (&site.office.daemons[MEMBER], site.node());
    shell(
        &site.office.hosts[MEMBER],
        "ip link add lan0 type bridge; ip address add 192.168.7.1/24 dev lan0; ip link set lan0 up",
    );
    member.text(&["route", "share", "office", lan]).unwrap();
    node.text(&["route", "use", "office", lan]).unwrap();
    let configuration = site.add("phone");
    assert!(line(&configuration, "AllowedIPs").ends_with(lan));
    let phone = site.attach("wgb", &configuration);
    until(A_WHILE, "the network behind the member is reached", || {
        Ok(reaches(&phone.host, "192.168.7.1"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", node.log()));

    until(A_WHILE, "the node tells of its ways", || {
        let told = node.json(&["status"])?["channels"][0].clone();
        let clients = ["wireguard_attached", "wireguard_clients"].map(|key| told[key].as_u64());
        Ok(told["routes"][0] == lan && told["direct"] == 1 && clients == [Some(1); 2])
    })
    .unwrap();
    // The node is a hop between the two, and none to itself.
    let theirs = virtual_addresses(member);
    for (own, (theirs, its)) in virtual_addresses(node)
        .iter()
        .zip(theirs.iter().zip(&phone.addresses))
    {
        let hops = |host: &Host, hops: &str, to: &str| {
            let words = ["ping", "-c", "1", "-W", "15", "-t", hops, to];
            host.run(&words, A_WHILE).unwrap()
        };
        let there = &site.office.hosts[MEMBER];
        for (from, to) in [(&phone.host, theirs), (there, its)] {
            let last = hops(from, "1", to).stdout;
            let told = last.lines().find(|line| line.contains("xceeded"));
            assert!(told.is_some_and(|line| line.contains(own)), "{to}: {last}");
            assert!(hops(from, "2", to).success(), "{to}");
        }
        assert!(hops(&phone.host, "1", own).success(), "{own}");
    }

    let [four, six] = virtual_addresses(node);
    let ask = |server: &str, name: &str| {
        let server = format!("@{server}");
        let words = ["dig", "+tries=1", "+timeout=3", &server, name];
        phone.host.run(&words, A_WHILE).unwrap().stdout
    };
    let known = &virtual_addresses(member)[0];
    for server in [&four, &six] {
        until(A_WHILE, "the node tells where the member is", || {
            Ok(ask(server, "h1.office.enishi").contains(known))
        })
        .unwrap();
    }
    let answer = ask(&four, "example.org");
    assert!(answer.contains("status: REFUSED"), "{answer}");

    // Rules meet the node that a client is attached to: here, the network behind the member.
    let allow = [
        "channel", "allow", "office", "--from", "h0", "--ports", "icmp",
    ];
    let to_lan = format!("net:{lan}");
    until(A_WHILE, "the client reaches the member", || {
        Ok(reaches(&phone.host, known))
    })
    .unwrap();
    let is_barred = || {
        let told = node.json(&["route", "list", "office"]).unwrap();
        let route = told["routes"].as_array().unwrap().iter();
        let mut route = route.filter(|route| route["network"] == *lan);
        route.next().unwrap()["barred"].clone()
    };
    assert_eq!(is_barred(), false);
    node.text(&[&allow[..], &["--to", "h1"]].concat()).unwrap();
    assert_eq!(is_barred(), true);
    node.text(&["channel", "disallow", "office", "1"]).unwrap();
    node.text(&[&allow[..], &["--to", &to_lan]].concat())
        .unwrap();
    assert_eq!(is_barred(), false);
    assert!(reaches(&phone.host, "192.168.7.1") && !reaches(&phone.host, known));
    let server = site.serve(&site.office.hosts[MEMBER]);
    let page = ["curl", "-s", "-m", "3", "http://192.168.7.1:8080/page"];
    assert!(!phone.host.run(&page, A_WHILE).unwrap().success());
    node.text(&["channel", "disallow", "office", "1"]).unwrap();
    until(A_WHILE, "everything is allowed", || {
        Ok(fetched(&phone.host, "192.168.7.1") == PAGE_BYTES)
    })
    .unwrap();
    drop(server);
}

#[test]
fn who_has_another_key_or_was_removed_gets_nothing() {
    let Some(site) = Site::open("removed") else {
        return;
    };
    let configuration = site.add("phone");
    let there = virtual_addresses(&site.office.daemons[MEMBER])[0].clone();
    let key = shell(&site.phone, "wg genkey");
    let wrong = configuration.replace(line(&configuration, "PrivateKey"), key.trim());
    let stranger = site.attach("wgs", &wrong);
    assert!(!reaches(&stranger.host, &there) && !reaches(&stranger.host, &there));
    assert_eq!(site.listed()[0]["handshake_s"], serde_json::Value::Null);
    shell(
        &stranger.host,
        &format!("ip link del {}", stranger.interface),
    );
    drop(stranger);

    let phone = site.attach("wgr", &configuration);
    until(A_WHILE, "the phone attaches", || {
        Ok(
            reaches(&phone.host, &there)
                && reaches(&site.office.hosts[MEMBER], &phone.addresses[0]),
        )
    })
    .unwrap();
    let daemon = site.node();
    let add = ["channel", "wireguard", "add", "office", "phone"];
    assert!(daemon.text(&add).is_err(), "there is one of that name");
    let remove = ["channel", "wireguard", "remove", "office", "phone"];
    daemon.text(&remove).unwrap();
    assert!(!reaches(&phone.host, &there) && !reaches(&phone.host, &there));
    assert!(!reaches(&site.office.hosts[MEMBER], &phone.addresses[0]));
    assert_eq!(site.listed().as_array().map(Vec::len), Some(0));
    assert!(daemon.text(&remove).is_err(), "there is none any more");
}
